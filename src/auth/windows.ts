import type { Kysely } from 'kysely'
import { LRUCache } from 'lru-cache'
import { countInWindow, deleteEndedWindows, giveBackToWindow, readWindows } from '../store/rate-limits.ts'
import type { Database } from '../store/tables.ts'

export interface Window {
  used: number
  /** in whole seconds since 1970 */
  reset: number
}

export interface CountedWindow extends Window {
  /** the limit was reached before: this one does not count */
  refused: boolean
  remainingMs: number
}

/** Counts in fixed windows, each of which begins with the first request of a subject to a resource. */
export interface Windows {
  count(subject: string, resource: string, limit: number, seconds: number): Promise<CountedWindow>
  /** takes one back; gives what is used then, or undefined when that window is over */
  giveBack(subject: string, resource: string, reset: number): Promise<number | undefined>
  /** the present windows by resource; where there is none, the one that a request would begin */
  read(subject: string, resources: readonly string[], seconds: number): Promise<Map<string, Window>>
}

const SWEEP_MS = 5 * 60_000

/** Shared by all servers of a database, by the database's clock, in one statement each. */
export class DatabaseWindows implements Windows {
  readonly #db: Kysely<Database>
  #sweptAt = performance.now()

  constructor(db: Kysely<Database>) {
    this.#db = db
  }

  async count(subject: string, resource: string, limit: number, seconds: number): Promise<CountedWindow> {
    this.#sweepNowAndThen()
    const [row] = await countInWindow(this.#db, { subject, resource, limit, seconds })
    const { remaining_ms, ...window } = row!
    return { ...window, remainingMs: remaining_ms }
  }

  async giveBack(subject: string, resource: string, reset: number): Promise<number | undefined> {
    const [row] = await giveBackToWindow(this.#db, { subject, resource, reset })
    return row?.used
  }

  async read(subject: string, resources: readonly string[], seconds: number): Promise<Map<string, Window>> {
    const rows = await readWindows(this.#db, { subject, resources, seconds })
    return new Map(rows.map(({ resource, ...window }) => [resource, window]))
  }

  /** In passing, since only counting leaves something behind; nothing depends on it. */
  #sweepNowAndThen(): void {
    if (performance.now() - this.#sweptAt < SWEEP_MS) return
    this.#sweptAt = performance.now()
    deleteEndedWindows(this.#db).catch(() => {})
  }
}

/** Tokens and addresses that are counted at a time; past that, the one not seen for longest begins anew. */
const REMEMBERED_WINDOWS = 100_000

/** For one server: costs nothing, and is forgotten when it stops. */
export class MemoryWindows implements Windows {
  readonly #now: () => number
  #windows = new LRUCache<string, { used: number; resetMs: number }>({ max: REMEMBERED_WINDOWS })

  /** @param now milliseconds since 1970 */
  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  async count(subject: string, resource: string, limit: number, seconds: number): Promise<CountedWindow> {
    const key = keyOf(subject, resource)
    let window = this.#present(key)
    if (!window) {
      window = this.#begin(seconds)
      this.#windows.set(key, window)
    }
    const refused = window.used >= limit
    if (!refused) window.used += 1
    return { ...shown(window), refused, remainingMs: window.resetMs - this.#now() }
  }

  async giveBack(subject: string, resource: string, reset: number): Promise<number | undefined> {
    const window = this.#present(keyOf(subject, resource))
    if (window?.resetMs !== reset * 1000 || window.used === 0) return undefined
    window.used -= 1
    return window.used
  }

  async read(subject: string, resources: readonly string[], seconds: number): Promise<Map<string, Window>> {
    return new Map(
      resources.map((resource) => [
        resource,
        shown(this.#present(keyOf(subject, resource)) ?? this.#begin(seconds))
      ])
    )
  }

  #present(key: string) {
    const window = this.#windows.get(key)
    return window && window.resetMs > this.#now() ? window : undefined
  }

  /** Ends with a whole second, so that who waits for the one announced is let in. */
  #begin(seconds: number) {
    return { used: 0, resetMs: Math.ceil(this.#now() / 1000 + seconds) * 1000 }
  }
}

function keyOf(subject: string, resource: string): string {
  return `${resource} ${subject}`
}

function shown({ used, resetMs }: { used: number; resetMs: number }): Window {
  return { used, reset: resetMs / 1000 }
}
