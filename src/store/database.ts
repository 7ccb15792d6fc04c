import { createHash } from 'node:crypto'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { setPool } from './statement.ts'
import type { Database } from './tables.ts'

export interface DatabaseOptions {
  /** a connection URL, or the parts of one */
  connection: string | { host: string; port: number; user: string; database: string; password: string }
  poolSize: number
  /** off behind a pooler that hands out connections per transaction */
  prepare: boolean
  /** told of connections that break while nobody uses them */
  onIdleError?: (error: Error) => void
}

const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 15_000
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000

const INT8 = 20
const INT8_ARRAY = 1016
const TIMESTAMP = 1114

/** Types of this pool alone: a bigint is a number while it is safe as one, a timestamp without zone its text. */
export const types: pg.CustomTypesConfig = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === INT8) return parseInt8
    if (oid === INT8_ARRAY) return parseInt8Array
    if (oid === TIMESTAMP) return (text: string) => text
    return pg.types.getTypeParser(oid, format as 'text')
  }
}

function parseInt8(text: string): number | string {
  return text.length < 16 ? Number(text) : text
}

function parseInt8Array(text: string): (number | string)[] {
  const parse = pg.types.getTypeParser(INT8_ARRAY as number, 'text') as (text: string) => string[]
  return parse(text).map(parseInt8)
}

/** `pg` as Kysely calls it, with a name for each statement, so that PostgreSQL plans it once per connection. */
class PreparingClient extends pg.Client {
  static readonly #names = new Map<string, string>()

  // biome-ignore lint/suspicious/noExplicitAny: the overloads of pg's query cannot be repeated in a subclass
  override query(config: any, values?: any, callback?: any): any {
    if (typeof config !== 'string' || !Array.isArray(values) || values.length === 0) {
      return super.query(config, values, callback)
    }
    return super.query({ name: PreparingClient.#nameOf(config), text: config, values }, callback)
  }

  static #nameOf(text: string): string {
    let name = PreparingClient.#names.get(text)
    if (!name) {
      name = createHash('sha256').update(text).digest('base64url').slice(0, 22)
      PreparingClient.#names.set(text, name)
    }
    return name
  }
}

export function connectionConfig(connection: DatabaseOptions['connection']): pg.ClientConfig {
  return typeof connection === 'string' ? { connectionString: connection } : { ...connection }
}

/** A pool and Kysely over it. Nothing connects before the first query; `db.destroy()` closes the pool. */
export function openDatabase(options: DatabaseOptions): Kysely<Database> {
  const pool = new pg.Pool({
    ...connectionConfig(options.connection),
    max: options.poolSize,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    ...(options.prepare && {
      Client: PreparingClient,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS
    }),
    types,
    application_name: 'coffer'
  } as pg.PoolConfig)
  pool.on('error', (error) => options.onIdleError?.(error))
  // A connection that breaks while it is in use fails its query, and tells so once more: unheard, that would end
  // the process.
  pool.on('connect', (client) => client.on('error', () => {}))
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  setPool(db, pool)
  return db
}

const SOCKET_ERRORS = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH'])
// Classes 08 (connection), 53 (resources), 57 (intervention: shutdown, starting up, time-outs), and 40001, 40P01.
const TEMPORARY_SQLSTATE = /^(08|53|57)|^40001$|^40P01$|^25P03$/

/** Whether the same request may succeed a moment later: the database is away, starting, full or too slow. */
export function isTemporaryDatabaseError(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = (error as { code?: unknown }).code
  if (typeof code === 'string') return SOCKET_ERRORS.has(code) || TEMPORARY_SQLSTATE.test(code)
  return /^(Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Client was closed|Cannot use a pool after|Query read timeout)/.test(
    error.message
  )
}

/** Whether PostgreSQL refused a row because of this unique constraint or index. */
export function isUniqueViolation(error: unknown, constraint: string): boolean {
  const { code, constraint: violated } = (error ?? {}) as { code?: string; constraint?: string }
  return code === '23505' && violated === constraint
}

/** https://www.postgresql.org/docs/current/errcodes-appendix.html: deadlock_detected */
export function isDeadlock(error: unknown): boolean {
  return (error as { code?: unknown } | null)?.code === '40P01'
}

/** Whether a row is still referenced; PostgreSQL 18 has a code of its own for ON DELETE RESTRICT. */
export function isForeignKeyViolation(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: string }
  return code === '23503' || code === '23001'
}
