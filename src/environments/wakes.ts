/** Where the database tells that a runner has work. */
export const ENVIRONMENTS_CHANNEL = 'coffer_environments'

/** Those of this server who wait for work. */
export class Wakes {
  readonly #waiting = new Map<() => void, number | 'hosted'>()

  /** Wakes whoever works for this runner; the servers' own may be any. Without a number, everybody. */
  wake(runnerId?: number): void {
    for (const [wake, runner] of [...this.#waiting]) {
      if (!runnerId || runner === 'hosted' || runner === runnerId) wake()
    }
  }

  /**
   * Begins to listen at once, before the caller looks for itself, so that nothing is missed in between.
   *
   * @param runner for whose work
   * @returns resolves with whether something happened before the time was over
   */
  listen(runner: number | 'hosted'): {
    wait(milliseconds: number, signal?: AbortSignal): Promise<boolean>
    stop(): void
  } {
    let woken = false
    let settle: ((happened: boolean) => void) | undefined
    const wake = () => {
      woken = true
      settle?.(true)
    }
    this.#waiting.set(wake, runner)
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
