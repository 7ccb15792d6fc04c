import pg from 'pg'
import { RefusedToStart } from '../errors.ts'
import { connectionConfig, type DatabaseOptions } from './database.ts'

const RECONNECT_MS = 500

export type Handlers = Readonly<Record<string, (payload: string) => void>>

/** Held shared by every server of a database, exclusively by a command that wants no server beside it. */
const SERVING_LOCK = 7_245_001

/** A connection of its own that hears NOTIFY; it comes back by itself, and tells when it does. */
export class Listener {
  readonly #connection: DatabaseOptions['connection']
  readonly #handlers: Handlers
  readonly #onConnected: () => void
  #client: pg.Client | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false

  /** @param onConnected called after each connect: what was sent in between was not heard */
  constructor(connection: DatabaseOptions['connection'], handlers: Handlers, onConnected: () => void) {
    this.#connection = connection
    this.#handlers = handlers
    this.#onConnected = onConnected
  }

  async start(): Promise<void> {
    const client = new pg.Client({
      ...connectionConfig(this.#connection),
      application_name: 'coffer listener',
      keepAlive: true
    })
    this.#client = client
    client.on('error', () => {})
    client.on('end', () => this.#reconnect(client))
    client.on('notification', ({ channel, payload }) => this.#handlers[channel]?.(payload ?? ''))
    try {
      await client.connect()
      await client.query('select pg_advisory_lock_shared($1)', [SERVING_LOCK])
      for (const channel of Object.keys(this.#handlers)) await client.query(`listen ${channel}`)
      this.#onConnected()
    } catch {
      await client.end().catch(() => {})
      this.#reconnect(client)
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#client?.end().catch(() => {})
  }

  #reconnect(client: pg.Client): void {
    if (this.#closed || client !== this.#client) return
    this.#client = undefined
    this.#timer = setTimeout(() => void this.start(), RECONNECT_MS)
    this.#timer.unref()
  }
}

/** Keeps servers away for as long as the connection that it gives stays open. */
export async function excludeServers(connection: DatabaseOptions['connection']): Promise<pg.Client> {
  const client = new pg.Client(connectionConfig(connection))
  await client.connect()
  const { rows } = await client.query('select pg_try_advisory_lock($1) as free', [SERVING_LOCK])
  if (rows[0].free) return client
  await client.end()
  throw new RefusedToStart('A Coffer server uses this database. Stop every server of it first.')
}
