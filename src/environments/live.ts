import type { Kysely } from 'kysely'
import { listResolvable } from '../store/resolution.ts'
import type { Database } from '../store/tables.ts'
import { stopIdle } from './idle.ts'
import { bringUpToDate } from './resolution.ts'

/** Where the database tells that something changed which environments may depend on. */
export const RESOLUTION_CHANNEL = 'coffer_resolution'

/** So many environments are looked at by one query. */
const BATCH = 100
/** So many are resolved at a time. */
const AT_ONCE = 4
/** So often it is looked for environments in which nobody is at work, and what failed is tried again. */
const TICK_MS = 30_000
/** After so many of these all are resolved: what nobody tells is that a service account's time is over. */
const TICKS_A_SWEEP = 20

/** A moment in which those that were just resolved have better things to do. */
const LOOK_AGAIN_MS = 1_000

export interface LiveOptions {
  onError?: (error: unknown) => void
}

/**
 * Keeps environments that are to run up to date: whatever changes a secret, who may have it, or what its name hides,
 * they are resolved again, and their runner hears of what came out. Those in which nobody is at work are stopped. Every
 * server does this for all; where two do it for the same environment, one waits and finds nothing to do.
 */
export class LiveUpdates {
  readonly #db: Kysely<Database>
  readonly #options: LiveOptions
  readonly #timer: NodeJS.Timeout
  /** names of collections, of which something changed */
  readonly #changed = new Set<string>()
  /** ids of environments that were just resolved, and those of which that is a moment ago */
  #resolvedNow: number[] = []
  #resolvedBefore: number[] = []
  #lookingAgain: NodeJS.Timeout | undefined
  /** those that could not be brought up to date; null: all */
  readonly #failed = new Set<string | null>()
  #sweeps = false
  #ticks = 0
  #stops = false
  #working: Promise<void> | undefined
  #closed = false

  constructor(db: Kysely<Database>, options: LiveOptions = {}) {
    this.#db = db
    this.#options = options
    this.#timer = setInterval(() => this.tick(), TICK_MS)
    this.#timer.unref()
  }

  /** @param payload the name of a collection, or nothing for what is about all */
  hear(payload: string): void {
    this.#enqueue(payload === '' ? null : payload)
  }

  /**
   * An environment was resolved by a change that is committed now: what changed while that was under way has not found
   * it among those that are to be resolved again.
   */
  lookAgain(environmentId: number): void {
    this.#resolvedNow.push(environmentId)
    this.#lookingAgain ??= setTimeout(() => {
      this.#lookingAgain = undefined
      this.#resolvedBefore.push(...this.#resolvedNow.splice(0))
      this.#start()
    }, LOOK_AGAIN_MS)
    this.#lookingAgain.unref()
  }

  /** Something may have been missed. */
  reset(): void {
    this.#enqueue(null)
  }

  /** Time has passed. */
  tick(): void {
    this.#stops = true
    this.#ticks += 1
    if (this.#ticks % TICKS_A_SWEEP === 0) this.#failed.add(null)
    this.#resolvedBefore.push(...this.#resolvedNow.splice(0))
    for (const collection of this.#failed) this.#enqueue(collection)
    this.#failed.clear()
    this.#start()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    clearTimeout(this.#lookingAgain)
    await this.#working
  }

  #enqueue(collection: string | null): void {
    if (collection === null) this.#sweeps = true
    else this.#changed.add(collection)
    this.#start()
  }

  #start(): void {
    if (this.#closed) return
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined
    })
  }

  async #work(): Promise<void> {
    while (!this.#closed && this.#hasWork()) {
      await this.#resolveChanged()
      await this.#bringUpToDate(this.#resolvedBefore.splice(0), (error, id) => {
        this.#resolvedNow.push(id)
        this.#options.onError?.(error)
      })
      if (this.#stops) await this.#stopIdle()
      if (this.#sweeps) await this.#sweep()
    }
  }

  #hasWork(): boolean {
    return this.#changed.size > 0 || this.#resolvedBefore.length > 0 || this.#sweeps || this.#stops
  }

  async #stopIdle(): Promise<void> {
    this.#stops = false
    await stopIdle(this.#db).catch((error) => this.#options.onError?.(error))
  }

  async #resolveChanged(): Promise<void> {
    for (const collection of this.#changed) {
      this.#changed.delete(collection)
      await this.#resolve(collection)
    }
  }

  async #sweep(): Promise<void> {
    this.#sweeps = false
    // A secret's new value has a reader who waits for it, and does not wait until everything was looked at.
    await this.#resolve(null, () => this.#resolveChanged())
  }

  async #resolve(collection: string | null, between = async () => {}): Promise<void> {
    const [, kind, ownerUid] = collection?.split('/') ?? []
    const owner = kind && ownerUid ? { kind, ownerUid } : null
    const fail = (error: unknown) => {
      this.#failed.add(collection)
      this.#options.onError?.(error)
    }
    try {
      for (let after = 0; !this.#closed; await between()) {
        const ids = await listResolvable(this.#db, owner, { after, limit: BATCH })
        if (ids.length === 0) return
        after = ids.at(-1)!
        await this.#bringUpToDate(ids, fail)
      }
    } catch (error) {
      fail(error)
    }
  }

  /** One that fails does not keep the others from what they are to receive. */
  async #bringUpToDate(ids: readonly number[], fail: (error: unknown, id: number) => void): Promise<void> {
    await inParallel(ids, (id) => bringUpToDate(this.#db, id).catch((error) => fail(error, id)))
  }
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const left = [...items]
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
