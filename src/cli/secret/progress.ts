/** How far a long command is: one line that changes on a terminal, a line for each step elsewhere. */
export class Progress {
  readonly #terminal = process.stderr.isTTY === true
  readonly #total: number
  #done = 0

  constructor(total: number) {
    this.#total = total
  }

  /** @param what is shown where there is no terminal */
  step(what: string): void {
    this.#done += 1
    if (this.#terminal) this.#draw()
    else process.stderr.write(`${what}\n`)
  }

  /** Something that stays. */
  say(line: string): void {
    this.clear()
    process.stderr.write(`${line}\n`)
    if (this.#terminal && this.#done > 0) this.#draw()
  }

  clear(): void {
    if (this.#terminal) process.stderr.write('\r\x1b[K')
  }

  #draw(): void {
    process.stderr.write(`\r\x1b[K${this.#done} of ${this.#total} secrets`)
  }
}
