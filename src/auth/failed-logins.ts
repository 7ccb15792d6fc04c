import { LRUCache } from 'lru-cache'
import { addressKey } from './address.ts'
import type { Windows } from './windows.ts'

const ALLOWED_FAILURES = 30
const WINDOW_MS = 60_000
const REMEMBERED_ADDRESSES = 10_000
/** What is told to the other servers at most; a flood from many addresses is counted on this one alone. */
const SHARED_PER_SECOND = 100
const RESOURCE = 'failed-logins'

/**
 * Counts failed logins per address in a window of a minute. It is asked only after a token turned out to be
 * invalid, so guessing from an address never locks out a valid token from the same one.
 *
 * Servers share the count, as long as the database takes it: each counts for itself besides, so an address that
 * is over the limit here is refused from memory, and one that is not costs a small write.
 */
export class FailedLogins {
  readonly #shared: Windows | undefined
  readonly #windowMs: number
  readonly #failures: LRUCache<string, { count: number }>
  #second = 0
  #sharedInSecond = 0

  /** @param shared undefined: this server counts for itself */
  constructor(shared?: Windows, windowMs = WINDOW_MS) {
    this.#shared = shared
    this.#windowMs = windowMs
    this.#failures = new LRUCache({ max: REMEMBERED_ADDRESSES, ttl: windowMs })
  }

  /** Counts one more; gives the seconds to wait when there were too many. */
  async record(ip: string | undefined): Promise<number | undefined> {
    const address = addressKey(ip)
    const entry = this.#failures.get(address) ?? { count: 0 }
    entry.count += 1
    if (entry.count === 1) this.#failures.set(address, entry)
    if (entry.count > ALLOWED_FAILURES) return seconds(this.#failures.getRemainingTTL(address))
    const remainingMs = await this.#share(address)
    if (remainingMs === undefined) return undefined
    this.#failures.set(address, { count: ALLOWED_FAILURES + 1 }, { ttl: remainingMs })
    return seconds(remainingMs)
  }

  /** Gives how long the window lasts when the servers together have counted too many. */
  async #share(address: string): Promise<number | undefined> {
    if (!this.#shared || !this.#mayShare()) return undefined
    try {
      const window = await this.#shared.count(
        `address ${address}`,
        RESOURCE,
        ALLOWED_FAILURES,
        this.#windowMs / 1000
      )
      return window.refused ? Math.max(1, Math.ceil(window.remainingMs)) : undefined
    } catch {
      // The database is away: what was counted here still holds.
      this.#sharedInSecond = SHARED_PER_SECOND
      return undefined
    }
  }

  #mayShare(): boolean {
    const second = Math.floor(performance.now() / 1000)
    if (second !== this.#second) this.#sharedInSecond = 0
    this.#second = second
    this.#sharedInSecond += 1
    return this.#sharedInSecond <= SHARED_PER_SECOND
  }
}

function seconds(milliseconds: number): number {
  return Math.max(1, Math.ceil(milliseconds / 1000))
}
