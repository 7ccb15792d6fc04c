import { createHash } from 'node:crypto'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import pg from 'pg'
import { to as copyTo } from 'pg-copy-streams'
import { RefusedToStart } from '../../errors.ts'
import { connectionConfig, type DatabaseOptions } from '../database.ts'
import { listAppliedMigrations, listTables, type TableDescription } from './catalog.ts'
import {
  columnList,
  commitLine,
  copyLine,
  countRows,
  endOfRowsLine,
  type Manifest,
  manifestLine,
  SETTINGS,
  sequenceLine,
  trailerLine
} from './format.ts'

/** Ciphertext hardly compresses further. */
const GZIP_LEVEL = 1

/** Told again and again how many rows of a table are done. */
export type OnProgress = (table: string, rows: number) => void

export interface BackupOptions {
  /** the version that writes it */
  coffer: string
  onProgress: OnProgress
  signal?: AbortSignal
}

export interface Summary {
  manifest: Omit<Manifest, 'format'>
  rows: Record<string, number>
}

/**
 * Writes all data as of one moment, while servers go on. Memory stays bounded: rows pass through.
 *
 * @param connection to the database itself, not to a pooler
 * @param destination left open
 * @throws RefusedToStart when the database is not Coffer's
 */
export async function writeBackup(
  connection: DatabaseOptions['connection'],
  destination: Writable,
  options: BackupOptions
): Promise<Summary> {
  const client = new pg.Client({ ...connectionConfig(connection), application_name: 'coffer backup' })
  client.on('error', () => {})
  await client.connect()
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    await client.query('SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0')
    await client.query(SETTINGS.join(' '))
    const tables = await listTables(client)
    const manifest = await readManifest(client, tables, options.coffer)
    const rows: Record<string, number> = {}
    await pipeline(
      dump(client, manifest, tables, rows, options.onProgress),
      createGzip({ level: GZIP_LEVEL }),
      destination,
      { end: false, ...(options.signal && { signal: options.signal }) }
    )
    return { manifest, rows }
  } finally {
    await client.end()
  }
}

async function readManifest(
  client: pg.Client,
  tables: readonly TableDescription[],
  coffer: string
): Promise<Omit<Manifest, 'format'>> {
  const migrations = await listAppliedMigrations(client)
  if (migrations.length === 0 || !tables.some(({ name }) => name === 'instance')) {
    throw new RefusedToStart('The database is not one of Coffer: there is nothing to back up.')
  }
  const { rows } = await client.query(
    `select uid as instance, now() as created_at,
       array(select distinct fingerprint from key_material order by 1) as master_keys
     from instance`
  )
  return {
    coffer,
    created_at: rows[0].created_at.toISOString(),
    instance: rows[0].instance,
    migrations,
    tables: tables.map(({ name }) => name),
    master_keys: rows[0].master_keys
  }
}

async function* dump(
  client: pg.Client,
  manifest: Omit<Manifest, 'format'>,
  tables: readonly TableDescription[],
  rows: Record<string, number>,
  onProgress: OnProgress
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256')
  const hashed = (piece: string | Buffer): Buffer => {
    const bytes = Buffer.from(piece)
    hash.update(bytes)
    return bytes
  }

  yield hashed(manifestLine(manifest))
  for (const { name, columns } of tables) {
    yield hashed(copyLine(name, columns))
    rows[name] = 0
    for await (const piece of client.query(copyTo(`COPY "${name}" (${columnList(columns)}) TO STDOUT`))) {
      rows[name] += countRows(piece)
      onProgress(name, rows[name])
      yield hashed(piece)
    }
    yield hashed(endOfRowsLine)
  }
  for (const { name, counted } of tables) {
    for (const column of counted) {
      // A sequence is not part of the snapshot: its value is at least that of every row in it.
      const { rows: found } = await client.query('select pg_get_serial_sequence($1, $2) as sequence', [
        `"${name}"`,
        column
      ])
      const { rows: state } = await client.query(`select last_value, is_called from ${found[0].sequence}`)
      const { last_value, is_called } = state[0]
      yield hashed(sequenceLine({ table: name, column, value: String(last_value), called: is_called }))
    }
  }
  yield hashed(commitLine)
  yield Buffer.from(trailerLine({ rows, sha256: hash.digest('hex') }))
}
