import { randomUUID } from 'node:crypto'
import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import type { Keyring } from '../keyring/index.ts'
import { describeError } from '../logger.ts'
import { deleteNode, reportNode } from '../store/key-generations.ts'
import type { Database } from '../store/tables.ts'
import { activateWhenReady, loadGenerations, REFRESH_INTERVAL_MS } from './generations.ts'

const RELOAD_PAUSE_MS = 1000

/** Keeps the keyring of a server as the store has it, and reports to the other nodes what it can open. */
export class KeyRefresh {
  readonly #db: Kysely<Database>
  readonly #keyring: Keyring
  readonly #logger: Logger
  readonly #graceSeconds: number
  readonly #node = randomUUID()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #lastReload = Number.NEGATIVE_INFINITY

  constructor(db: Kysely<Database>, keyring: Keyring, graceSeconds: number, logger: Logger) {
    this.#db = db
    this.#keyring = keyring
    this.#graceSeconds = graceSeconds
    this.#logger = logger
  }

  async start(): Promise<void> {
    await this.refresh()
    this.#timer = setInterval(() => void this.refreshQuietly(), REFRESH_INTERVAL_MS)
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#running?.catch(() => {})
    await deleteNode(this.#db, this.#node).catch(() => {})
  }

  /** Reads, reports, and finishes a rotation that waits. Calls at the same time share one run. */
  async refresh(): Promise<void> {
    this.#running ??= this.#refresh().finally(() => {
      this.#running = undefined
    })
    await this.#running
  }

  async refreshQuietly(): Promise<void> {
    try {
      await this.refresh()
    } catch (error) {
      this.#logger.warn({ err: describeError(error) }, 'key generations could not be refreshed')
    }
  }

  /** For a `key_id` that is not known here: one reload, at most one a second, shared by all who ask. */
  async reload(): Promise<void> {
    if (performance.now() - this.#lastReload < RELOAD_PAUSE_MS) return await this.#running
    this.#lastReload = performance.now()
    await this.refresh()
  }

  async #refresh(): Promise<void> {
    await loadGenerations(this.#db, this.#keyring)
    await reportNode(this.#db, this.#node, this.#keyring.generationIds.map(String))
    const progress = await activateWhenReady(this.#db, this.#graceSeconds)
    if (progress.state !== 'activated') return
    this.#logger.info({ generation: progress.id }, 'key generation activated')
    await loadGenerations(this.#db, this.#keyring)
  }
}
