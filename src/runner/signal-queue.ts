import { setTimeout as sleep } from 'node:timers/promises'
import { sendSignal } from './process-table.ts'

const LOOK_AGAIN_MS = 2

/** Signals for a command that is there a moment after what it is started by: they wait for it, and keep their order. */
export class SignalQueue {
  readonly #find: () => number | undefined
  readonly #isOver: () => boolean
  #waiting: NodeJS.Signals[] = []
  #isWorking = false

  /**
   * @param find the process to signal, on the machine; undefined: it is not there yet
   * @param isOver whether there will be none any more
   */
  constructor(find: () => number | undefined, isOver: () => boolean) {
    this.#find = find
    this.#isOver = isOver
  }

  send(name: NodeJS.Signals): void {
    this.#waiting.push(name)
    if (!this.#isWorking) void this.#work()
  }

  async #work(): Promise<void> {
    this.#isWorking = true
    while (this.#waiting.length > 0 && !this.#isOver()) {
      const command = this.#find()
      if (command === undefined) await sleep(LOOK_AGAIN_MS)
      else for (const name of this.#waiting.splice(0)) sendSignal(command, name)
    }
    this.#waiting = []
    this.#isWorking = false
  }
}
