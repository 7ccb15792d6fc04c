import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { RefusedToStart } from '../errors.ts'
import { withoutCoreDumps } from './core-dumps.ts'
import { type ExitStatus, exitOf, relayedStatus } from './exit-status.ts'
import { withFixedVariables } from './fixed-variables.ts'
import { launchCommand, type Shell } from './launch.ts'
import { MARK, markOf } from './leftovers.ts'
import { type OutputStreams, openOutputStreams } from './output-streams.ts'
import { Pipes } from './pipes.ts'
import { FINDS_PROGRAMS, hasLiving, programStartedBy, sendSignal } from './process-table.ts'
import { findProgram, SEARCH_PATH } from './programs.ts'
import type {
  EnvironmentFolders,
  ProcessRequest,
  Sandbox,
  SandboxedProcess,
  TerminalSize
} from './sandbox.ts'
import { SignalQueue } from './signal-queue.ts'
import { TerminalSizes } from './terminal.ts'

const LOOK_AGAIN_MS = 5
/** The descriptor for the sizes of a terminal. */
const SIZES = 3

const REFUSED =
  'Without isolation, a file can only be delivered to the folder of secrets, not linked at an absolute path.'

/** Processes of the runner's own user without any walls (COFFER_RUNNER_UNISOLATED=1), for a machine of one person. */
export class Unisolated implements Sandbox {
  readonly isolated = false
  readonly user = { uid: process.getuid!(), gid: process.getgid!() }
  readonly #withoutCoreDumps: readonly string[]
  readonly #shell: Shell
  readonly #pipes = new Pipes()

  private constructor(withoutCoreDumps: readonly string[], shell: Shell) {
    this.#withoutCoreDumps = withoutCoreDumps
    this.#shell = shell
  }

  static async open(): Promise<Unisolated> {
    const shell = existsSync('/bin/bash') ? '/bin/bash' : '/bin/sh'
    const script = await findProgram('script')
    return new Unisolated(await withoutCoreDumps(), { shell, script, sizes: SIZES })
  }

  inside({ workspace, home, secrets }: EnvironmentFolders) {
    return { workspace, home, secrets }
  }

  refuseLink(): string | undefined {
    return REFUSED
  }

  keepsLink(): boolean {
    return false
  }

  async start(folders: EnvironmentFolders, request: ProcessRequest): Promise<SandboxedProcess> {
    if (request.links.size > 0) throw new RefusedToStart(REFUSED)
    const command = launchCommand(request, this.#shell)
    const workingDirectory = path.resolve(folders.workspace, request.workingDirectory ?? '.')
    const env = { ...this.#variables(folders.home, workingDirectory, request), [MARK]: markOf(folders) }
    const streams = await openOutputStreams(this.#pipes)
    const [program, ...rest] = [...this.#withoutCoreDumps, ...command]
    const child = streams.giveTo((outputs) =>
      spawn(program!, rest, {
        stdio: ['pipe', ...outputs, ...(request.terminal ? ['pipe' as const] : [])],
        env,
        cwd: workingDirectory,
        // In a group of its own, by which all of it can be ended.
        detached: true
      })
    )
    const exited = exitOf(child)
    if (child.pid === undefined) await exited
    const sizes = request.terminal && new TerminalSizes(child.stdio.at(SIZES) as Writable)
    return new UnisolatedProcess(child, streams, exited, sizes)
  }

  /** @throws RefusedToStart when a value is no UTF-8: node passes on nothing else */
  #variables(home: string, workingDirectory: string, request: ProcessRequest): Record<string, string> {
    const fixed = {
      home,
      user: userName(),
      shell: this.#shell.shell,
      path: SEARCH_PATH
    }
    const all = { PWD: workingDirectory, ...withFixedVariables(request, fixed) }
    return Object.fromEntries(
      Object.entries(all).map(([name, value]) => {
        const text = value.toString()
        if (Buffer.from(text).equals(Buffer.from(value))) return [name, text]
        throw new RefusedToStart(`Without isolation, the variable ${name} has to be text in UTF-8.`)
      })
    )
  }
}

/** A user that the system has no entry of, as in a container, has its number for a name. */
function userName(): string {
  try {
    return os.userInfo().username
  } catch {
    return String(process.getuid!())
  }
}

class UnisolatedProcess implements SandboxedProcess {
  readonly stdin: Writable
  readonly stdout
  readonly stderr
  readonly exit: Promise<ExitStatus>
  readonly #child: ChildProcess
  readonly #sizes: TerminalSizes | undefined
  readonly #signals = new SignalQueue(
    () => programStartedBy(this.#child.pid!),
    () => this.#ended
  )
  #ended = false

  constructor(
    child: ChildProcess,
    streams: OutputStreams,
    exited: Promise<ExitStatus>,
    sizes: TerminalSizes | undefined
  ) {
    this.stdin = child.stdin!
    // A command may end, or close its stdin, before it has read all.
    this.stdin.on('error', () => {})
    ;({ stdout: this.stdout, stderr: this.stderr } = streams)
    this.#child = child
    this.#sizes = sizes
    this.exit = exited.then((status) => this.#endGroup(status))
  }

  signal(name: NodeJS.Signals): void {
    // The command is there a moment after the program that makes its terminal.
    if (this.#sizes && FINDS_PROGRAMS) this.#signals.send(name)
    else this.#child.kill(name)
  }

  resize(size: TerminalSize): void {
    this.#sizes?.change(size)
  }

  kill(): void {
    if (!this.#ended) sendSignal(-this.#child.pid!, 'SIGKILL')
  }

  /** What the command has left behind ends with it, as far as it stayed in its group. */
  async #endGroup(status: ExitStatus): Promise<ExitStatus> {
    // What follows the sizes is in the terminal's own group.
    this.#sizes?.close()
    const group = this.#child.pid!
    while (sendSignal(-group, 'SIGKILL') && hasLiving(group)) await sleep(LOOK_AGAIN_MS)
    this.#ended = true
    return this.#sizes ? relayedStatus(status) : status
  }
}
