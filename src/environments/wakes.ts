/** Where the database tells that a runner has work. */
export const ENVIRONMENTS_CHANNEL = 'coffer_environments'

/** Those of this server who wait for something to happen. */
export class Wakes {
  readonly #waiting = new Set<() => void>()

  /** Wakes everybody: who waits in vain waits again. */
  wake(): void {
    for (const wake of [...this.#waiting]) wake()
  }

  /**
   * Begins to listen at once, before the caller looks for itself, so that nothing is missed in between.
   *
   * @returns resolves with whether something happened before the time was over
   */
  listen(): { wait(milliseconds: number, signal?: AbortSignal): Promise<boolean>; stop(): void } {
    let woken = false
    let settle: ((happened: boolean) => void) | undefined
    const wake = () => {
      woken = true
      settle?.(true)
    }
    this.#waiting.add(wake)
    const stop = () => void this.#waiting.delete(wake)
    return {
      stop,
      async wait(milliseconds, signal) {
        if (woken || signal?.aborted) return woken
        const end = () => settle?.(false)
        signal?.addEventListener('abort', end, { once: true })
        const happened = await new Promise<boolean>((resolve) => {
          const timer = setTimeout(end, milliseconds)
          settle = (result) => {
            clearTimeout(timer)
            resolve(result)
          }
        })
        signal?.removeEventListener('abort', end)
        return happened
      }
    }
  }
}
