import type { SandboxedProcess } from './sandbox.ts'
import type { Variable } from './variables.ts'

/** The processes of one environment, each with what it was started with. */
export class Processes {
  readonly #onExit: () => void
  /** with the values of variables: secret id → session */
  readonly #running = new Map<SandboxedProcess, ReadonlyMap<string, string>>()
  readonly #starting = new Set<Promise<unknown>>()

  constructor(onExit: () => void) {
    this.#onExit = onExit
  }

  /** Takes a process that is being started with these variables. */
  async add(starting: Promise<SandboxedProcess>, variables: Iterable<Variable>): Promise<SandboxedProcess> {
    const sessions = sessionsOf(variables)
    const started = starting.then((process) => this.#take(process, sessions))
    this.#starting.add(started)
    try {
      return await started
    } finally {
      this.#starting.delete(started)
    }
  }

  /** Whether none has a value that is older than these. */
  areInSync(variables: Iterable<Variable>): boolean {
    const current = sessionsOf(variables)
    return [...this.#running.values()].every((held) =>
      [...held].every(([id, session]) => current.get(id) === session)
    )
  }

  /**
   * Kills all, those that are being started, too.
   *
   * @returns what resolves when they have ended
   */
  async kill(): Promise<{ ended: Promise<unknown> }> {
    await Promise.allSettled(this.#starting)
    const processes = [...this.#running.keys()]
    for (const process of processes) process.kill()
    return { ended: Promise.all(processes.map(({ exit }) => exit)) }
  }

  #take(process: SandboxedProcess, sessions: ReadonlyMap<string, string>): SandboxedProcess {
    this.#running.set(process, sessions)
    void process.exit.then(() => {
      this.#running.delete(process)
      this.#onExit()
    })
    return process
  }
}

function sessionsOf(variables: Iterable<Variable>): Map<string, string> {
  return new Map([...variables].map(({ secretId, session }) => [secretId, session]))
}
