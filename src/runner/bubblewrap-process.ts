import type { ChildProcess } from 'node:child_process'
import type { Writable } from 'node:stream'
import { type ExitStatus, relayedStatus } from './exit-status.ts'
import type { OutputStreams } from './output-streams.ts'
import { findProcess, programStartedBy, sendSignal } from './process-table.ts'
import type { SandboxedProcess, TerminalSize } from './sandbox.ts'
import { SignalQueue } from './signal-queue.ts'
import type { TerminalSizes } from './terminal.ts'

/** What bubblewrap gives when it fails, and what shells give for a command that cannot be run. */
const FAILED = 1
const NOT_RUN = 126

export interface StartedBubblewrap {
  child: ChildProcess
  exited: Promise<ExitStatus>
  streams: OutputStreams
  /** the first process of the PID namespace */
  first: number
  /** whether the command was started; known at the end */
  started: Promise<boolean>
  /** undefined: it has no terminal */
  sizes: TerminalSizes | undefined
}

/**
 * Three processes: bubblewrap, which waits; the first one of the PID namespace, with which all that is in there ends
 * (pid_namespaces(7)); and its child, the command. Ids are the machine's.
 */
export class BubblewrapProcess implements SandboxedProcess {
  readonly stdin: Writable
  readonly stdout
  readonly stderr
  readonly exit: Promise<ExitStatus>
  readonly #parts: StartedBubblewrap
  readonly #signals = new SignalQueue(
    () => this.#findCommand(),
    () => !this.#isThere()
  )
  #ended = false

  constructor(parts: StartedBubblewrap) {
    this.stdin = parts.child.stdin!
    // A command may end, or close its stdin, before it has read all.
    this.stdin.on('error', () => {})
    ;({ stdout: this.stdout, stderr: this.stderr } = parts.streams)
    this.#parts = parts
    this.exit = this.#waitForEnd()
  }

  signal(name: NodeJS.Signals): void {
    this.#signals.send(name)
  }

  resize(size: TerminalSize): void {
    this.#parts.sizes?.change(size)
  }

  kill(): void {
    const { child, first } = this.#parts
    if (this.#isThere() && sendSignal(first, 'SIGKILL')) return
    child.kill('SIGKILL')
  }

  /** Bubblewrap has not asked yet how its child ended, so that nobody else has the id. */
  #isThere(): boolean {
    const { child, first } = this.#parts
    return !this.#ended && findProcess(first)?.parent === child.pid
  }

  /** With a terminal it is the child of the program that makes one. */
  #findCommand(): number | undefined {
    const started = programStartedBy(this.#parts.first)
    return started !== undefined && this.#parts.sizes ? programStartedBy(started) : started
  }

  /** Bubblewrap ends when the namespace is empty: its first process ends last. */
  async #waitForEnd(): Promise<ExitStatus> {
    const { exited, sizes, started } = this.#parts
    const status = await exited
    this.#ended = true
    sizes?.close()
    if (status.code === FAILED && !(await started)) return { code: NOT_RUN, signal: null }
    return relayedStatus(status)
  }
}
