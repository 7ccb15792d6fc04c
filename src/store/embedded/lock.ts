import { lstat } from 'node:fs/promises'
import pg from 'pg'
import { RefusedToStart } from '../../errors.ts'
import { checkPrivateFolder, hasCode } from './files.ts'
import type { Cluster } from './folder.ts'

/** Somebody else holds the database. */
export class DatabaseInUse extends RefusedToStart {}

/**
 * Advisory locks of sessions in the database, (space, which). `server` is held exclusively by who serves or
 * works offline; `commands` is shared by the commands that run beside it, the last of which may stop PostgreSQL.
 */
const lockSpace = 0x636f6666
const locks = { server: 1, commands: 2 }
export type Lock = keyof typeof locks

/** How a connection attempt went when it did not succeed. */
export type NotReady =
  /** Nobody listens. */
  | 'absent'
  /** PostgreSQL says itself that it is starting or stopping. */
  | 'changing'
  /** It is there and does not take us now. */
  | 'busy'

/**
 * Connects as the service role; the session is told apart by our pid in its name.
 *
 * @throws RefusedToStart when PostgreSQL runs and does not accept our password.
 */
export async function connect(
  cluster: Cluster,
  socket: { socketFolder: string; port: number }
): Promise<pg.Client | NotReady> {
  const { account, pgdata, passwords } = cluster
  if (!(await lstat(socket.socketFolder).catch(() => undefined))) return 'absent'
  // Who can answer here gets to see our login: nobody but PostgreSQL's user may.
  await checkPrivateFolder(socket.socketFolder, account)
  const client = new pg.Client({
    host: socket.socketFolder,
    port: socket.port,
    user: 'coffer',
    database: 'coffer',
    password: passwords.service,
    application_name: `coffer ${process.pid}`,
    connectionTimeoutMillis: 5000,
    // Both are set so that PGSSLMODE and PGOPTIONS do not count; a session that waits must not be ended.
    ssl: false,
    options: '-c idle_session_timeout=0 -c statement_timeout=0'
  })
  client.on('error', () => {})
  try {
    await client.connect()
    return client
  } catch (error) {
    await disconnect(client)
    if (hasCode(error, 'ENOENT', 'ECONNREFUSED')) return 'absent'
    if (hasCode(error, '57P03')) return 'changing'
    if (!hasCode(error, '28P01', '28000', '3D000')) return 'busy'
    throw new RefusedToStart(
      `A PostgreSQL runs in ${pgdata}, but it does not accept the password in keys/postgres.json of ` +
        `${cluster.dataDir}. Restore that file from a backup, or end that PostgreSQL if it is not Coffer's.`
    )
  }
}

/** Ends a connection, whatever state it is in. */
export async function disconnect(client: pg.Client): Promise<void> {
  await client.end().catch(() => {})
}

export async function tryLock(client: pg.Client, lock: Lock, mode: 'exclusive' | 'shared'): Promise<boolean> {
  const name = mode === 'shared' ? 'pg_try_advisory_lock_shared' : 'pg_try_advisory_lock'
  const { rows } = await client.query(`SELECT ${name}($1, $2) AS locked`, [lockSpace, locks[lock]])
  return rows[0].locked
}

export async function releaseShared(client: pg.Client, lock: Lock): Promise<void> {
  await client.query('SELECT pg_advisory_unlock_shared($1, $2)', [lockSpace, locks[lock]])
}

/** The error for who finds the database held; it names the holder's pid when that is still known. */
export async function describeHolder(client: pg.Client, { dataDir }: Cluster): Promise<DatabaseInUse> {
  const { rows } = await client.query(
    `SELECT application_name AS name FROM pg_locks JOIN pg_stat_activity USING (pid)
     WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2 AND objsubid = 2`,
    [lockSpace, locks.server]
  )
  const pid = /^coffer (\d+)$/.exec(rows[0]?.name ?? '')?.[1]
  return new DatabaseInUse(
    `Another Coffer ${pid ? `(process ${pid}) ` : ''}uses the database in ${dataDir}. ` +
      'Stop it first, or set COFFER_DATA_DIR to another folder.'
  )
}
