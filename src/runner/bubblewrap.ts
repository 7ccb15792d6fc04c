import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { existsSync, openSync } from 'node:fs'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { RefusedToStart } from '../errors.ts'
import { BubblewrapProcess } from './bubblewrap-process.ts'
import { readStatus } from './bubblewrap-status.ts'
import { withoutCoreDumps } from './core-dumps.ts'
import { exitOf } from './exit-status.ts'
import { withFixedVariables } from './fixed-variables.ts'
import { inheritedDescriptors } from './inherited-descriptors.ts'
import { launchCommand, type Shell } from './launch.ts'
import { MARK, markOf } from './leftovers.ts'
import { isBelow, type MachineView, viewMachine } from './machine-view.ts'
import { openOutputStreams } from './output-streams.ts'
import { Pipes } from './pipes.ts'
import { sendSignal } from './process-table.ts'
import { findProgram, SEARCH_PATH } from './programs.ts'
import { type EnvironmentFolders, INSIDE, type ProcessRequest, type Sandbox } from './sandbox.ts'
import { TerminalSizes } from './terminal.ts'

const NOBODY = { uid: 65534, gid: 65534 }
/** Inside: not the id that the machine's files seem to have there, which is nobody's. */
const INSIDE_USER = { name: 'coffer', uid: 1000, gid: 1000 }

const UNISOLATED =
  'On a machine that only you use, COFFER_RUNNER_UNISOLATED=1 does without: environments then have no walls.'

/** Descriptors that bubblewrap reads or writes, and closes before the command begins. */
const FD = { arguments: 3, status: 4, passwd: 5, group: 6 }
/** The one that is the environment's, where it has a terminal. */
const SIZES = 7

const NAMESPACES = [
  '--unshare-user',
  '--unshare-pid',
  '--unshare-ipc',
  '--unshare-uts',
  '--unshare-cgroup-try',
  ...['--uid', `${INSIDE_USER.uid}`, '--gid', `${INSIDE_USER.gid}`],
  ...['--hostname', 'coffer'],
  '--die-with-parent',
  '--as-pid-1',
  // Else a command could push characters into a terminal that the runner was started from (TIOCSTI).
  '--new-session'
]

/**
 * The first process of the PID namespace. Bubblewrap's own would outlive bubblewrap by a moment, to end as a child of
 * the machine's first process, which in many containers never asks for it; this one bubblewrap waits for. What a shell
 * has to say of a command that was killed is not the command's, and goes nowhere. It keeps the mark by which the next
 * runner finds it, when bubblewrap was killed before this could be told to die with it; the command does not get it.
 */
const FIRST_PROCESS = ['/bin/sh', '-c', `unset ${MARK}; exec 3>&2 2>/dev/null; "$@" 2>&3 3>&-; exit`, 'sh']

/** What shows that a command can be started. */
const PROBE = [...FIRST_PROCESS, '/usr/bin/env', 'true']

/** New in bubblewrap 0.8. Without it, an environment reaches more of the kernel than it needs. */
const NO_MORE_NAMESPACES = '--disable-userns'

const OWN_MOUNTS = [
  ...['--proc', '/proc'],
  ...['--dev', '/dev'],
  ...['--perms', '1777', '--tmpfs', '/tmp'],
  ...['--perms', '1777', '--dir', '/var/tmp'],
  ...['--tmpfs', '/run'],
  ...['--perms', '0644', '--ro-bind-data', `${FD.passwd}`, '/etc/passwd'],
  ...['--perms', '0644', '--ro-bind-data', `${FD.group}`, '/etc/group']
]

/** How long the first start may take, and how often it is tried. */
const TRY_MS = 10_000
const TRIES = 3

export interface BubblewrapOptions {
  /** who environments are on the machine; undefined: the runner's own user, or nobody where that is root */
  user?: { uid: number; gid: number }
  /** absolute paths of the machine that are shown, too, read-only: where node lies, as an example */
  readOnlyPaths?: readonly string[]
  /** absolute paths that stay unseen, even below one that is shown: the data folder */
  hiddenPaths?: readonly string[]
}

interface Parts {
  user: { uid: number; gid: number }
  bwrap: string
  withoutCoreDumps: readonly string[]
  namespaces: readonly string[]
  view: MachineView
  shell: Shell
  /** for the child, in place of each descriptor that it must not inherit */
  shadowed: ReadonlyMap<number, number>
}

/**
 * Processes in namespaces of their own, by bubblewrap, with no rights on the machine: where the runner is root,
 * bubblewrap is started as somebody else. They share the machine's network and its kernel, and see what is named here.
 */
export class Bubblewrap implements Sandbox {
  readonly isolated = true
  readonly #parts: Parts
  readonly #pipes: Pipes

  private constructor(parts: Parts, pipes: Pipes) {
    this.#parts = parts
    this.#pipes = pipes
  }

  /** @throws RefusedToStart when bubblewrap is missing or does not work here; the message has the remedy */
  static async open(options: BubblewrapOptions = {}): Promise<Bubblewrap> {
    const bwrap = await findProgram('bwrap')
    if (!bwrap) {
      throw new RefusedToStart(
        `Environments need bubblewrap, which is not installed: apt-get install bubblewrap. ${UNISOLATED}`
      )
    }
    const parts = {
      user: chooseUser(options.user),
      bwrap,
      withoutCoreDumps: await withoutCoreDumps(),
      view: await viewMachine(options.readOnlyPaths ?? [], options.hiddenPaths ?? []),
      shell: {
        shell: existsSync('/bin/bash') ? '/bin/bash' : '/bin/sh',
        script: await findProgram('script'),
        sizes: SIZES
      },
      shadowed: shadowInherited()
    }
    const pipes = new Pipes()
    const strict = new Bubblewrap({ ...parts, namespaces: [...NAMESPACES, NO_MORE_NAMESPACES] }, pipes)
    if ((await strict.#try()) === undefined) return strict
    const older = new Bubblewrap({ ...parts, namespaces: NAMESPACES }, pipes)
    const reason = await older.#try()
    if (reason === undefined) return older
    throw new RefusedToStart(
      `Bubblewrap does not work for the user of environments (uid ${parts.user.uid}): ${reason}. Most often, ` +
        'unprivileged user namespaces are off: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), ' +
        `kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces. ${UNISOLATED}`
    )
  }

  get user(): { uid: number; gid: number } {
    return this.#parts.user
  }

  inside() {
    return INSIDE
  }

  refuseLink(place: string): string | undefined {
    return this.#parts.view.refuse(place)
  }

  keepsLink(place: string): boolean {
    return [INSIDE.workspace, INSIDE.home].some((folder) => isBelow(place, folder))
  }

  /**
   * Once there is a namespace; what goes wrong later, as with a working directory that is not there, bubblewrap says
   * on stderr, and the command ends with 126.
   *
   * @throws RefusedToStart for what cannot be started at all
   */
  async start(folders: EnvironmentFolders, request: ProcessRequest): Promise<BubblewrapProcess> {
    const { shell } = this.#parts
    const command = [...FIRST_PROCESS, ...launchCommand(request, shell)]
    const args = [
      ...['--bind', folders.workspace, INSIDE.workspace],
      ...['--bind', folders.home, INSIDE.home],
      ...['--ro-bind', folders.secrets, INSIDE.secrets],
      ...this.#links(request.links),
      ...['--chdir', path.posix.resolve(INSIDE.workspace, request.workingDirectory ?? '.')],
      '--clearenv',
      ...variables(request, shell.shell),
      ...['--setenv', MARK, markOf(folders)]
    ]
    const hasTerminal = request.terminal !== undefined
    const mark = { [MARK]: markOf(folders) }
    const { child, exited, streams, status } = await this.#spawn(args, command, mark, hasTerminal)
    // Where bubblewrap could not even be spawned, this throws.
    const first = await Promise.race([status.first, exited.then(() => status.first)])
    if (first === undefined) throw new Error(`bubblewrap did not start: ${await lastLine(streams.stderr)}`)
    const sizes = hasTerminal ? new TerminalSizes(child.stdio.at(SIZES) as Writable) : undefined
    return new BubblewrapProcess({ child, exited, streams, first, started: status.started, sizes })
  }

  /** On the file systems that go with the process: there is nothing of the environment's on the way to them. */
  #links(links: ReadonlyMap<string, string>): string[] {
    return [...links].flatMap(([place, target]) => {
      if (this.keepsLink(place) || this.refuseLink(place)) {
        throw new RefusedToStart('A link was asked for where none is made at the start of a process.')
      }
      return ['--symlink', target, place]
    })
  }

  /** Why nothing can be started here; undefined: it can. What comes to no end is tried again. */
  async #try(): Promise<string | undefined> {
    for (let tries = 1; ; tries++) {
      const { child, exited, streams, status } = await this.#spawn([], PROBE, {})
      const timer = setTimeout(async () => {
        child.kill('SIGKILL')
        // It may not die with its parent yet.
        const first = await status.first
        if (first !== undefined) sendSignal(first, 'SIGKILL')
      }, TRY_MS)
      const [{ code, signal }, reason] = await Promise.all([exited, lastLine(streams.stderr)])
      clearTimeout(timer)
      if (code === 0) return undefined
      if (signal !== 'SIGKILL' || tries === TRIES) return reason || 'it came to no end'
    }
  }

  async #spawn(
    args: readonly (string | Buffer)[],
    command: readonly string[],
    mark: Record<string, string>,
    hasTerminal = false
  ) {
    const { bwrap, namespaces, shell, user, view, withoutCoreDumps } = this.#parts
    const encoded = encodeArguments([...namespaces, ...OWN_MOUNTS, ...view.arguments, ...args])
    const streams = await openOutputStreams(this.#pipes)
    const [program, ...rest] = [...withoutCoreDumps, bwrap, '--args', `${FD.arguments}`]
    const child = streams.giveTo((outputs) =>
      spawn(program!, [...rest, '--json-status-fd', `${FD.status}`, '--', ...command], {
        stdio: stdio(outputs, this.#parts.shadowed, hasTerminal),
        // Nothing else of ours: on the machine, others of the same user could read it.
        env: { PATH: SEARCH_PATH, ...mark },
        cwd: '/',
        // Ctrl-C in the runner's terminal is the runner's.
        detached: true,
        ...(process.getuid!() === 0 && user)
      })
    )
    const exited = exitOf(child)
    send(child, FD.arguments, encoded)
    send(child, FD.passwd, passwd(shell.shell))
    send(child, FD.group, group())
    return { child, exited, streams, status: readStatus(child.stdio[FD.status] as Readable) }
  }
}

/** @throws RefusedToStart when environments would be root, or somebody whom the runner cannot become */
function chooseUser(wanted: BubblewrapOptions['user']): { uid: number; gid: number } {
  const own = { uid: process.getuid!(), gid: process.getgid!() }
  const user = wanted ?? (own.uid === 0 ? NOBODY : own)
  // A runner that is not root may still be in root's group, as where a cluster chooses its id.
  if (user.uid === 0 || (own.uid === 0 && user.gid === 0)) {
    throw new RefusedToStart('Environments cannot be root on the machine.')
  }
  if (own.uid !== 0 && (user.uid !== own.uid || user.gid !== own.gid)) {
    throw new RefusedToStart('Only a runner that is root can start environments as another user.')
  }
  return user
}

/** By /dev/null: node has no way to close them. */
function shadowInherited(): ReadonlyMap<number, number> {
  const inherited = inheritedDescriptors()
  const nothing = inherited.length > 0 ? openSync('/dev/null', 'r') : -1
  return new Map(inherited.map((fd) => [fd, nothing]))
}

function stdio(
  outputs: readonly number[],
  shadowed: ReadonlyMap<number, number>,
  hasTerminal: boolean
): StdioOptions {
  const pipes = Object.values(FD).length + (hasTerminal ? 1 : 0)
  const ours = ['pipe' as const, ...outputs, ...Array.from({ length: pipes }, () => 'pipe' as const)]
  const length = Math.max(ours.length, ...[...shadowed.keys()].map((fd) => fd + 1))
  return Array.from({ length }, (_, fd) => ours[fd] ?? shadowed.get(fd) ?? 'ignore')
}

function variables(request: ProcessRequest, shell: string): (string | Buffer)[] {
  const { name: user } = INSIDE_USER
  const all = withFixedVariables(request, { home: INSIDE.home, user, shell, path: SEARCH_PATH })
  return Object.entries(all).flatMap(([name, value]) => ['--setenv', name, value])
}

/**
 * As `--args` reads them, each with a NUL at its end.
 *
 * @throws RefusedToStart when one has a NUL itself: what follows would be options, which open any wall
 */
function encodeArguments(args: readonly (string | Buffer)[]): Buffer {
  if (args.some((arg) => arg.includes('\0'))) {
    throw new RefusedToStart('A variable or a path has a NUL character.')
  }
  const end = Buffer.alloc(1)
  return Buffer.concat(args.flatMap((arg) => [typeof arg === 'string' ? Buffer.from(arg) : arg, end]))
}

/** Bytes that are sent are wiped afterwards; bubblewrap may have ended before it has read them. */
function send(child: ChildProcess, fd: number, content: Buffer | string): void {
  const stream = child.stdio[fd] as Writable
  stream.on('error', () => {})
  stream.end(content, () => {
    if (typeof content !== 'string') content.fill(0)
  })
}

function passwd(shell: string): string {
  const { name, uid, gid } = INSIDE_USER
  return (
    'root:x:0:0:root:/root:/usr/sbin/nologin\n' +
    `${name}:x:${uid}:${gid}:${name}:${INSIDE.home}:${shell}\n` +
    'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n'
  )
}

function group(): string {
  return `root:x:0:\n${INSIDE_USER.name}:x:${INSIDE_USER.gid}:\nnogroup:x:65534:\n`
}

async function lastLine(stderr: Readable): Promise<string> {
  return (await text(stderr)).trim().split('\n').at(-1)!
}
