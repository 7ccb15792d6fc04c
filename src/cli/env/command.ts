import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { type Duplex, Writable } from 'node:stream'
import { readOwnEnvironment } from '../../config.ts'
import { ExecClient, ExecFailed } from '../../runner/exec-client.ts'
import { type ExecRequest, MAX_TERMINAL_SIDE } from '../../runner/exec-request.ts'
import type { TerminalSize } from '../../runner/sandbox.ts'
import { CommandFailed } from '../terminal.ts'
import type { Environment } from './messages.ts'
import { type Signals, statusOfSignal } from './signals.ts'

export interface CommandOrder {
  command: readonly string[]
  /** inside; undefined: the runner's choice */
  workingDirectory?: string
  tty?: true
}

/** Where a command is run: where the content is, or a folder from there. */
export function workingDirectoryOf(
  { status }: Environment,
  cwd = '.'
): Pick<CommandOrder, 'workingDirectory'> {
  const location = status?.content?.contentLocationInMachine
  if (location) return { workingDirectory: path.posix.resolve(location, cwd) }
  return cwd === '.' ? {} : { workingDirectory: cwd }
}

/**
 * Runs a command at the other end of a session as if it were this process: with its standard streams and its signals.
 *
 * @returns the exit status, 128 + n for signal n
 * @throws CommandFailed when it is not known how the command ended
 */
export async function runRemotely(session: Duplex, order: CommandOrder, signals: Signals): Promise<number> {
  const { stdin } = process
  const [stdout, stderr] = [rememberingEnd(process.stdout), rememberingEnd(process.stderr)]
  const leaveRawMode = order.tty ? enterRawMode() : () => {}
  let stopFollowing = () => {}
  try {
    const client = new ExecClient(session, requestOf(order), { stdin, stdout, stderr })
    if (order.tty) stopFollowing = followSize((size) => client.resize(size))
    const { code, signal } = await signals.during(
      (name) => client.signal(name),
      () => client.exit
    )
    return signal ? statusOfSignal(signal) : (code ?? 1)
  } catch (error) {
    throw error instanceof ExecFailed ? new CommandFailed(error.message) : error
  } finally {
    stopFollowing()
    leaveRawMode()
    session.destroy()
  }
}

/** Node's own standard streams open themselves again after each write that failed, as if somebody still read them. */
function rememberingEnd(stream: NodeJS.WriteStream): Writable {
  const remembering = new Writable({ write: (bytes, _encoding, done) => void stream.write(bytes, done) })
  return remembering.on('error', () => {})
}

function requestOf({ command, workingDirectory, tty }: CommandOrder): ExecRequest {
  return {
    command,
    ...(workingDirectory !== undefined && { workingDirectory }),
    ...(tty && { terminal: terminalHere() })
  }
}

/** Of the terminal that this process writes to, or the usual one where there is none. */
function terminalHere(): NonNullable<ExecRequest['terminal']> {
  const { TERM = '' } = readOwnEnvironment()
  return { ...sizeOf(shownTerminal()), type: /^[\w.+-]{1,64}$/.test(TERM) ? TERM : 'xterm' }
}

function shownTerminal(): NodeJS.WriteStream {
  return process.stdout.isTTY ? process.stdout : process.stderr
}

function sizeOf({ rows, columns }: NodeJS.WriteStream): TerminalSize {
  return {
    rows: Math.min(rows || 24, MAX_TERMINAL_SIDE),
    columns: Math.min(columns || 80, MAX_TERMINAL_SIDE)
  }
}

/** The terminal at the other end becomes as large as the one here, whenever that changes. */
function followSize(tell: (size: TerminalSize) => void): () => void {
  const terminal = shownTerminal()
  const onResize = () => tell(sizeOf(terminal))
  terminal.on('resize', onResize)
  return () => void terminal.off('resize', onResize)
}

/** What is typed goes on as it is, Ctrl-C too: it is for the terminal at the other end. */
function enterRawMode(): () => void {
  const { stdin } = process
  if (!stdin.isTTY) return () => {}
  const leave = () => void stdin.setRawMode(false)
  stdin.setRawMode(true)
  // Node lets line feeds become line breaks, which the other terminal has seen to, where programs wanted it.
  spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] })
  process.once('exit', leave)
  return () => {
    process.off('exit', leave)
    leave()
  }
}
