import { LRUCache } from 'lru-cache'

const ALLOWED_FAILURES = 30
const WINDOW_MS = 60_000
const REMEMBERED_ADDRESSES = 10_000

/**
 * Counts failed logins per address in a window of a minute. It is asked only after a token turned out to be
 * invalid, so guessing from an address never locks out a valid token from the same one.
 */
export class FailedLogins {
  #failures = new LRUCache<string, { count: number }>({ max: REMEMBERED_ADDRESSES, ttl: WINDOW_MS })

  /** Counts one more; gives the seconds to wait when there were too many. */
  record(address: string): number | undefined {
    const entry = this.#failures.get(address) ?? { count: 0 }
    entry.count += 1
    if (entry.count === 1) this.#failures.set(address, entry)
    if (entry.count <= ALLOWED_FAILURES) return undefined
    return Math.max(1, Math.ceil(this.#failures.getRemainingTTL(address) / 1000))
  }
}
