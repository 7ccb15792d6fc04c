import { constants } from 'node:os'

const FORWARDED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2']

type Take = (name: NodeJS.Signals) => void

/** Signals that this process gets, for somebody who takes them instead. */
export class Signals {
  #take: Take
  readonly #hear = (name: NodeJS.Signals) => this.#take(name)

  constructor(take: Take) {
    this.#take = take
    for (const name of FORWARDED) process.on(name, this.#hear)
  }

  /** Gives them to somebody else while the work is done. */
  async during<T>(take: Take, work: () => Promise<T>): Promise<T> {
    const before = this.#take
    this.#take = take
    try {
      return await work()
    } finally {
      this.#take = before
    }
  }

  close(): void {
    for (const name of FORWARDED) process.off(name, this.#hear)
  }
}

/** What shells give for a process that a signal ended. */
export function statusOfSignal(name: NodeJS.Signals): number {
  return 128 + (constants.signals[name] ?? 0)
}
