import { pipeline } from 'node:stream/promises'
import { Kysely, PostgresDialect, type Transaction } from 'kysely'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { RefusedToStart } from '../../errors.ts'
import { auditRow, type Principal } from '../audit.ts'
import { connectionConfig, type DatabaseOptions, openDatabase } from '../database.ts'
import { beginEpoch, getInstance } from '../instance.ts'
import { listKnownMigrations, migrate } from '../migrations.ts'
import type { Database } from '../tables.ts'
import { listAppliedMigrations, listTables, requireEmpty, type TableDescription } from './catalog.ts'
import type { OnProgress } from './dump.ts'
import {
  columnList,
  countRows,
  FORGET_INSTANCE,
  type Manifest,
  readBackup,
  SETTINGS,
  type Trailer
} from './format.ts'

const OPERATOR: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

/**
 * Reads all of a backup, and changes nothing.
 *
 * @throws RefusedToStart unless the file is whole, and of a schema that this version knows
 */
export async function verifyBackup(file: string): Promise<{ manifest: Manifest; trailer: Trailer }> {
  const backup = await readBackup(file, {})
  const known = await listKnownMigrations()
  const { migrations, coffer } = backup.manifest
  if (migrations.length === 0 || migrations.some((name, index) => name !== known[index])) {
    throw new RefusedToStart(
      `The backup was written by version ${coffer}, with migrations that this version of Coffer does not know. ` +
        'Restore it with that version or a newer one. Nothing was changed.'
    )
  }
  return backup
}

export interface RestoreOptions {
  /** as `verifyBackup` gave it */
  manifest: Manifest
  /** whether tokens go on to be valid, those that were revoked since too */
  keepTokens: boolean
  onProgress: OnProgress
}

/**
 * Loads a backup that was verified into an empty database that nobody else uses, all of it or nothing, and
 * brings the schema up to date.
 *
 * @param connection to the database itself, not to a pooler
 * @throws RefusedToStart when the database holds data, or is of a later schema
 */
export async function loadBackup(
  connection: DatabaseOptions['connection'],
  file: string,
  options: RestoreOptions
): Promise<void> {
  const client = new pg.Client({ ...connectionConfig(connection), application_name: 'coffer restore' })
  client.on('error', () => {})
  await client.connect()
  const schema = openDatabase({ connection, poolSize: 1, prepare: false })
  try {
    await requireRoom(client, options.manifest)
    await migrate(schema, options.manifest.migrations.at(-1)!)
    await throughOneConnection(client)
      .transaction()
      .execute((tx) => load(tx, client, file, options))
    await migrate(schema)
  } finally {
    await schema.destroy()
    await client.end()
  }
}

async function requireRoom(client: pg.Client, { migrations }: Manifest): Promise<void> {
  await requireEmpty(client, await listTables(client))
  const applied = await listAppliedMigrations(client)
  if (applied.every((name, index) => name === migrations[index])) return
  throw new RefusedToStart(
    'The database is empty, but of a later schema than the backup. Set COFFER_DATA_DIR to a folder that does not ' +
      'exist yet, or DATABASE_URL to a database without tables.'
  )
}

/** COPY and Kysely in one transaction: both on this connection. */
function throughOneConnection(client: pg.Client): Kysely<Database> {
  const pool = {
    connect: async () => ({ query: client.query.bind(client), release: () => {} }),
    end: async () => {}
  }
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool: pool as unknown as pg.Pool }) })
}

async function load(
  tx: Transaction<Database>,
  client: pg.Client,
  file: string,
  { manifest, keepTokens, onProgress }: RestoreOptions
): Promise<void> {
  await client.query('SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0')
  await client.query(SETTINGS.join(' '))
  const tables = await listTables(client)
  await requireEmpty(client, tables)
  const left = tables.find(({ name }) => !manifest.tables.includes(name))
  if (left) throw new RefusedToStart(`The backup lacks the table ${left.name}. Nothing was changed.`)
  await client.query(FORGET_INSTANCE)
  // The file is verified once more on the way: it may have changed since, and COMMIT is still to come.
  const again = await readBackup(file, {
    async table(name, columns, rows) {
      requireTable(tables, name, columns)
      const target = client.query(copyFrom(`COPY "${name}" (${columnList(columns)}) FROM STDIN`))
      await pipeline(rows, counting(name, onProgress), target).catch((error) => throwRefusal(name, error))
    },
    async sequence({ table, column, value, called }) {
      await client.query('select setval(pg_get_serial_sequence($1, $2), $3, $4)', [
        `"${table}"`,
        column,
        value,
        called
      ])
    }
  })
  if (JSON.stringify(again.manifest) !== JSON.stringify(manifest)) {
    throw new RefusedToStart(`${file} was changed while it was read. Nothing was changed.`)
  }
  if (!keepTokens) await beginEpoch(tx)
  await record(tx, tables, manifest, keepTokens)
}

function requireTable(tables: readonly TableDescription[], name: string, columns: readonly string[]): void {
  const table = tables.find((candidate) => candidate.name === name)
  if (
    table &&
    columns.length === table.columns.length &&
    columns.every((column) => table.columns.includes(column))
  ) {
    return
  }
  throw new RefusedToStart(
    `The table ${name} of the backup is not the one of this version. Nothing was changed.`
  )
}

function counting(table: string, onProgress: OnProgress) {
  return async function* (pieces: AsyncIterable<Buffer>) {
    let rows = 0
    for await (const piece of pieces) {
      rows += countRows(piece)
      onProgress(table, rows)
      yield piece
    }
  }
}

/** Without PostgreSQL's own words, which quote the row. */
function throwRefusal(table: string, error: unknown): never {
  if (!(error instanceof pg.DatabaseError)) throw error
  throw new RefusedToStart(
    `The database refused the rows of the table ${table} (SQLSTATE ${error.code}). Nothing was changed.`
  )
}

/** In the columns that the schema of the backup has: an older one may lack some. */
async function record(
  tx: Transaction<Database>,
  tables: readonly TableDescription[],
  { created_at }: Manifest,
  keepTokens: boolean
): Promise<void> {
  const { uid } = await getInstance(tx)
  const { columns } = tables.find(({ name }) => name === 'audit_events')!
  const row = auditRow({
    streamUid: uid,
    principal: OPERATOR,
    action: 'instance.restore',
    subjectUid: uid,
    name: `backup of ${created_at}, tokens ${keepTokens ? 'kept' : 'void'}`
  })
  const known = Object.fromEntries(Object.entries(row).filter(([column]) => columns.includes(column)))
  await tx
    .insertInto('audit_events')
    .values(known as typeof row)
    .execute()
}
