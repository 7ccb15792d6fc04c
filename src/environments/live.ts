import type { Kysely } from 'kysely'
import { listResolvable } from '../store/resolution.ts'
import type { Database } from '../store/tables.ts'
import { stopIdle } from './idle.ts'
import { resolveAgain } from './resolution.ts'

/** Where the database tells that something changed which environments may depend on. */
export const RESOLUTION_CHANNEL = 'coffer_resolution'

/** So many environments are looked at by one query. */
const BATCH = 100
/** So many are resolved at a time. */
const AT_ONCE = 4
/** What nobody told, as while the database was away, is found after so long. */
const SWEEP_MS = 30_000

export interface LiveOptions {
  sweepMs?: number
  onError?: (error: unknown) => void
}

/**
 * Keeps environments that are to run up to date: whatever changes a secret, who may have it, or what its name hides,
 * they are resolved again, and their runner hears of what came out. Those in which nobody is at work are stopped. Every server does this for all; where two do it
 * for the same environment, one waits and finds nothing to do.
 */
export class LiveUpdates {
  readonly #db: Kysely<Database>
  readonly #options: LiveOptions
  readonly #timer: NodeJS.Timeout
  /** collections whose secrets changed; null: of all */
  #waiting = new Set<string | null>()
  #working: Promise<void> | undefined
  #closed = false

  constructor(db: Kysely<Database>, options: LiveOptions = {}) {
    this.#db = db
    this.#options = options
    this.#timer = setInterval(() => this.#enqueue(null), options.sweepMs ?? SWEEP_MS)
    this.#timer.unref()
  }

  /** @param payload the name of a collection, or nothing for what is about more than one */
  hear(payload: string): void {
    this.#enqueue(payload === '' ? null : payload)
  }

  /** Something may have been missed. */
  reset(): void {
    this.#enqueue(null)
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    await this.#working
  }

  #enqueue(collection: string | null): void {
    if (this.#closed) return
    this.#waiting.add(collection)
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined
    })
  }

  async #work(): Promise<void> {
    while (this.#waiting.size > 0 && !this.#closed) {
      // Single collections first: a secret's new value has a reader who waits for it.
      const [collection] = [...this.#waiting].sort((a, b) => Number(a === null) - Number(b === null))
      this.#waiting.delete(collection!)
      try {
        if (collection === null) await stopIdle(this.#db)
        await this.#resolve(collection!)
      } catch (error) {
        this.#options.onError?.(error)
      }
    }
  }

  async #resolve(collection: string | null): Promise<void> {
    const [, kind, ownerUid] = collection?.split('/') ?? []
    const owner = kind && ownerUid ? { kind, ownerUid } : null
    for (let after = 0; !this.#closed; ) {
      const ids = await listResolvable(this.#db, owner, { after, limit: BATCH })
      if (ids.length === 0) return
      after = ids.at(-1)!
      await inParallel(ids, (id) => this.#db.transaction().execute((tx) => resolveAgain(tx, id)))
      // A secret's new value does not wait until everything was looked at.
      if (owner === null && [...this.#waiting].some((waiting) => waiting !== null)) {
        this.#waiting.add(null)
        return
      }
    }
  }
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const left = [...items]
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
