import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { RefusedToStart } from '../../errors.ts'
import { removeLeftovers } from './cluster.ts'
import { type Cluster, type EmbeddedOptions, port, prepareCluster } from './folder.ts'
import {
  connect,
  DatabaseInUse,
  describeHolder,
  disconnect,
  type Lock,
  releaseShared,
  tryLock
} from './lock.ts'
import {
  findPostmaster,
  type Launched,
  launchPostmaster,
  readPostmasterFile,
  stopPostmaster
} from './postmaster.ts'

export type { EmbeddedOptions } from './folder.ts'

export interface EmbeddedDatabase {
  connection: {
    /** The folder of the socket. */
    host: string
    port: number
    user: 'coffer'
    database: 'coffer'
    password: string
  }
  /** Where the database's files are (PGDATA). */
  folder: string
  /** Releases the database and, unless somebody else uses it, stops PostgreSQL. May be called twice. */
  close(): Promise<void>
}

interface Session {
  client: pg.Client
  socketFolder: string
  port: number
}

/** Milliseconds. Long enough for the session of a process that has just died to end. */
const lockPatience = 1000
/** Milliseconds for PostgreSQL to answer, and for what a killed one left behind to end. */
const startPatience = 20_000

/**
 * For the server: starts PostgreSQL, or takes over one whose server died, holds the database exclusively and
 * starts PostgreSQL again whenever it ends. `onLost` is called when somebody else has taken the database
 * meanwhile; the server must then exit.
 *
 * @throws RefusedToStart when another process holds the database or PostgreSQL cannot be started.
 */
export async function serveEmbedded(
  options: EmbeddedOptions & { onLost?: (error: RefusedToStart) => void }
): Promise<EmbeddedDatabase> {
  const { log } = options
  const prepared = await prepareCluster(options)
  const session = await acquire(prepared, 'server', log)
  // A PostgreSQL that is taken over may listen elsewhere; our callers know that place, so it stays.
  const cluster = { ...prepared, socketFolder: session.socketFolder }
  await removeLeftovers(cluster.home)
  const supervisor = supervise(cluster, session.client, options)
  return describe(cluster, session, async () => {
    const client = await supervisor.stop()
    if (client) await stopAndDisconnect(cluster, client, log)
    else await stopUnlessUsed(cluster, log)
  })
}

/**
 * For commands beside a server: uses the PostgreSQL that runs, or starts one. On close the last command stops
 * it, unless a server holds it.
 *
 * @throws RefusedToStart when PostgreSQL cannot be started or does not accept the stored password.
 */
export async function attachEmbedded(options: EmbeddedOptions): Promise<EmbeddedDatabase> {
  const cluster = await prepareCluster(options)
  const session = await acquire(cluster, 'commands', options.log)
  return describe(cluster, session, async () => {
    await releaseShared(session.client, 'commands').catch(() => {})
    await disconnect(session.client)
    await stopUnlessUsed(cluster, options.log)
  })
}

/**
 * For commands that need the database for themselves: as `serveEmbedded`, without supervision.
 *
 * @throws RefusedToStart when a server or another such command holds the database.
 */
export async function holdEmbedded(options: EmbeddedOptions): Promise<EmbeddedDatabase> {
  const cluster = await prepareCluster(options)
  const session = await acquire(cluster, 'server', options.log)
  await removeLeftovers(cluster.home)
  return describe(cluster, session, () => stopAndDisconnect(cluster, session.client, options.log))
}

function describe(cluster: Cluster, session: Session, stop: () => Promise<void>): EmbeddedDatabase {
  let stopped: Promise<void> | undefined
  return {
    connection: {
      host: session.socketFolder,
      port: session.port,
      user: 'coffer',
      database: 'coffer',
      password: cluster.passwords.service
    },
    folder: cluster.pgdata,
    close() {
      stopped ??= stop()
      return stopped
    }
  }
}

/**
 * Connects and takes the lock (`server` exclusively, `commands` shared), and starts PostgreSQL when nothing
 * answers. Only a login decides whether PostgreSQL runs; pids only decide whether to wait.
 */
async function acquire(
  cluster: Cluster,
  lock: Lock,
  log: EmbeddedOptions['log'],
  signal?: AbortSignal
): Promise<Session> {
  let launched: Launched | undefined
  let launches = 0
  let deadline = Date.now() + startPatience
  let lockDeadline: number | undefined
  for (let pause = 10; ; await sleep(lockDeadline || launched?.failure ? 100 : pause)) {
    // What we have just started is not left behind: it is waited for, so that who ends us can stop it.
    const starting = launched !== undefined && launched.failure === undefined
    if (!starting) signal?.throwIfAborted()
    const socket = await findSocket(cluster)
    const client = await connect(cluster, socket)
    if (typeof client === 'object') {
      launched = undefined
      lockDeadline ??= Date.now() + (lock === 'server' ? lockPatience : startPatience)
      const refusal = await takeLock(client, cluster, lock)
      if (refusal === undefined) return { client, ...socket }
      await disconnect(client)
      if (refusal instanceof DatabaseInUse && Date.now() > lockDeadline) throw refusal
      continue
    }
    lockDeadline = undefined
    if (client === 'changing') {
      deadline = Date.now() + startPatience
      // A recovery can take minutes, and PostgreSQL writes a line about each refusal.
      pause = Math.min(pause * 1.3, 250)
      if (signal?.aborted) await stopPostmaster(cluster, log)
    }
    if (client === 'absent' && !starting && !(await findPostmaster(cluster))) {
      // A file is another process's start, or the rest of a killed PostgreSQL, whose children take a moment
      // to let its shared memory go. A failure without either is final, at the second time: the other
      // process may just have ended.
      const hopeful =
        launches < 2 ||
        launched?.failure?.includes('shared memory') ||
        (await readPostmasterFile(cluster.pgdata))
      if (launched?.failure && !hopeful) throw startFailed(launched.failure)
      if (Date.now() < deadline) {
        log('starting the embedded PostgreSQL', { folder: cluster.pgdata })
        launched = await launchPostmaster(cluster)
        launches++
      }
    }
    if (Date.now() > deadline) throw startFailed(launched?.failure ?? 'it runs, but does not answer')
  }
}

/** A PostgreSQL that runs says where it listens: another process may have had another temporary folder. */
async function findSocket(cluster: Cluster): Promise<{ socketFolder: string; port: number }> {
  const file = await findPostmaster(cluster)
  if (file?.socketFolder) return { socketFolder: file.socketFolder, port: file.port }
  return { socketFolder: cluster.socketFolder, port }
}

/** Why the lock was not taken: held by somebody, or ('gone') the connection broke. */
async function takeLock(
  client: pg.Client,
  cluster: Cluster,
  lock: Lock
): Promise<DatabaseInUse | 'gone' | undefined> {
  try {
    if (await tryLock(client, lock, lock === 'server' ? 'exclusive' : 'shared')) return undefined
    return await describeHolder(client, cluster)
  } catch {
    return 'gone'
  }
}

function startFailed(reason: string): RefusedToStart {
  return new RefusedToStart(
    `The embedded PostgreSQL does not start (${reason}). Its messages are in postgres-start.log in ` +
      'COFFER_DATA_DIR and in the folder log of the database.'
  )
}

/**
 * Watches the session that holds the lock: when it breaks, PostgreSQL has ended or will soon. Starts it and
 * takes the lock again, for as long as it takes. `stop()` returns the session, if there is one at that moment.
 */
function supervise(
  cluster: Cluster,
  first: pg.Client,
  { log, onLost }: EmbeddedOptions & { onLost?: (error: RefusedToStart) => void }
) {
  const stopping = new AbortController()
  let client: pg.Client | undefined
  let recovery = Promise.resolve()

  function watch(session: pg.Client): void {
    client = session
    session.once('end', () => {
      client = undefined
      if (stopping.signal.aborted) return
      log('the embedded PostgreSQL has ended the session that holds the database')
      recovery = recover()
    })
  }

  async function recover(): Promise<void> {
    for (let pause = 100; !stopping.signal.aborted; pause = Math.min(pause * 2, 5000)) {
      try {
        watch((await acquire(cluster, 'server', log, stopping.signal)).client)
        log('the embedded PostgreSQL is back')
        return
      } catch (error) {
        if (stopping.signal.aborted) return
        log('the embedded PostgreSQL is not available', { reason: (error as Error).message })
        if (error instanceof DatabaseInUse) return onLost?.(error)
        await sleep(pause, undefined, { signal: stopping.signal }).catch(() => {})
      }
    }
  }

  watch(first)
  return {
    async stop(): Promise<pg.Client | undefined> {
      stopping.abort()
      await recovery
      return client
    }
  }
}

/** Stops PostgreSQL while we hold it, so that nobody takes over what is about to end. */
async function stopAndDisconnect(
  cluster: Cluster,
  client: pg.Client,
  log: EmbeddedOptions['log']
): Promise<void> {
  await stopPostmaster(cluster, log)
  await disconnect(client)
}

/** Stops PostgreSQL unless a command or a server uses it, in this order: a command gives way to a server. */
async function stopUnlessUsed(cluster: Cluster, log: EmbeddedOptions['log']): Promise<void> {
  const client = await connect(cluster, await findSocket(cluster)).catch(() => 'busy' as const)
  if (typeof client === 'string') return
  try {
    const free =
      (await tryLock(client, 'commands', 'exclusive')) && (await tryLock(client, 'server', 'exclusive'))
    if (free) await stopPostmaster(cluster, log)
  } catch {
    // The connection broke: somebody else is stopping it.
  } finally {
    await disconnect(client)
  }
}
