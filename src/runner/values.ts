import { setMaxListeners } from 'node:events'
import { Unavailable } from '../errors.ts'
import { LeaseLost, type SecretReference, ValueRefused } from './interface.ts'
import { pauseAfter, whileWanted } from './patience.ts'

/** Of one value, where the server answers but fails. */
const MAX_FAILURES = 3

interface Held {
  session: string
  value: Buffer
}

/** The values of one environment's secrets, from when they are fetched until they are not wanted any more. */
export class Values {
  readonly #held = new Map<string, Held>()
  /** replaced or not wanted any more, but what is delivered may still refer to them */
  #stale: Buffer[] = []
  /** why there is no value; not asked again for the same session */
  readonly #refused = new Map<string, { session: string; message: string }>()

  /** The exact bytes; they belong to this, which zeroes them. */
  find(secretId: string): Buffer | undefined {
    return this.#held.get(secretId)?.value
  }

  /** Of the value that is held; it may be older than the one that is wanted. */
  findSession(secretId: string): string | undefined {
    return this.#held.get(secretId)?.session
  }

  findRefusal(secretId: string): string | undefined {
    return this.#refused.get(secretId)?.message
  }

  /** Zeroes what was replaced or forgotten: nothing refers to it any more. */
  release(): void {
    for (const value of this.#stale) value.fill(0)
    this.#stale = []
  }

  /** Forgets all values but those of these. */
  retain(secretIds: ReadonlySet<string>): void {
    for (const id of this.#held.keys()) if (!secretIds.has(id)) this.#forget(id)
    for (const id of this.#refused.keys()) if (!secretIds.has(id)) this.#refused.delete(id)
  }

  /**
   * Fetches those that are not held in the session that is wanted. A value that the server refuses is refused alone; a
   * server that is away is waited for.
   *
   * @param read gives the value of a secret
   * @param parallel so many are asked for at once
   * @throws LeaseLost, or what the signal was aborted with
   */
  async fetch(
    references: readonly SecretReference[],
    read: (secretId: string) => Promise<Buffer>,
    parallel: number,
    signal: AbortSignal
  ): Promise<void> {
    setMaxListeners(2 * parallel, signal)
    const waiting = references.filter((reference) => !this.#isCurrent(reference))
    const work = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) await this.#fetch(next, read, signal)
    }
    await Promise.all(Array.from({ length: parallel }, work))
  }

  #isCurrent({ id, session }: SecretReference): boolean {
    return (this.#held.get(id) ?? this.#refused.get(id))?.session === session
  }

  async #fetch(
    { id, session }: SecretReference,
    read: (secretId: string) => Promise<Buffer>,
    signal: AbortSignal
  ): Promise<void> {
    for (let failures = 1; ; failures++) {
      try {
        const value = await whileWanted(read(id), signal, (late) => late.fill(0))
        this.#forget(id)
        this.#held.set(id, { session, value })
        return
      } catch (error) {
        if (signal.aborted || error instanceof LeaseLost) throw error
        if (error instanceof ValueRefused) return this.#refuse(id, session, error.message)
        if (!(error instanceof Unavailable) && failures >= MAX_FAILURES) {
          // The empty session is nobody's: the next change of the environment asks again.
          return this.#refuse(id, '', 'The server failed to give the value.')
        }
      }
      await pauseAfter(failures, signal)
    }
  }

  #refuse(id: string, session: string, message: string): void {
    this.#forget(id)
    this.#refused.set(id, { session, message })
  }

  #forget(id: string): void {
    const held = this.#held.get(id)
    if (held) this.#stale.push(held.value)
    this.#held.delete(id)
    this.#refused.delete(id)
  }
}
