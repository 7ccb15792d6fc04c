import { type Lease, LeaseLost, type RunnerInterface, type StatusReport } from './interface.ts'
import { pauseAfter, whileWanted } from './patience.ts'

interface Pending {
  lease: Lease
  report: StatusReport
}

/**
 * Tells the server the state of one environment, in order, one report at a time. While one is under way, or the server
 * is away, only the newest waits.
 */
export class Reports {
  readonly #server: Pick<RunnerInterface, 'report'>
  readonly #onLeaseLost: (epoch: number) => void
  readonly #dropped = new AbortController()
  #newest: Pending | undefined
  /** the last one that arrived, as JSON: it is not told twice */
  #told = ''
  #busy = false
  #sending: Promise<void> = Promise.resolve()

  constructor(server: Pick<RunnerInterface, 'report'>, onLeaseLost: (epoch: number) => void) {
    this.#server = server
    this.#onLeaseLost = onLeaseLost
  }

  offer(lease: Lease, report: StatusReport): void {
    if (this.#dropped.signal.aborted) return
    this.#newest = { lease, report }
    if (!this.#busy) this.#sending = this.#send()
  }

  /** Resolves when nothing waits any more: all arrived, or nobody wants it. */
  async settled(): Promise<void> {
    while (this.#busy) await this.#sending
  }

  /** Forgets what waits, and takes nothing more. */
  drop(): void {
    this.#newest = undefined
    this.#dropped.abort()
  }

  async #tell({ lease, report }: Pending): Promise<void> {
    await whileWanted(this.#server.report(lease, report), this.#dropped.signal)
  }

  async #send(): Promise<void> {
    this.#busy = true
    let failures = 0
    while (this.#newest) {
      const pending = this.#newest
      const text = JSON.stringify(pending)
      try {
        if (text !== this.#told) await this.#tell(pending)
        this.#told = text
        failures = 0
        if (this.#newest === pending) this.#newest = undefined
      } catch (error) {
        if (error instanceof LeaseLost) {
          if (this.#newest === pending) this.#newest = undefined
          this.#onLeaseLost(pending.lease.epoch)
        } else {
          failures += 1
          await pauseAfter(failures, this.#dropped.signal).catch(() => {})
        }
      }
    }
    this.#busy = false
  }
}
