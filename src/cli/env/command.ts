import { spawnSync } from 'node:child_process'
import type { Duplex } from 'node:stream'
import { readOwnEnvironment } from '../../config.ts'
import { ExecClient, ExecFailed } from '../../runner/exec-client.ts'
import type { ExecRequest } from '../../runner/exec-request.ts'
import { CommandFailed } from '../terminal.ts'
import { type Signals, statusOfSignal } from './signals.ts'

export interface CommandOrder {
  command: readonly string[]
  /** inside; undefined: the workspace */
  cwd?: string
  tty?: true
}

/**
 * Runs a command at the other end of a session as if it were this process: with its standard streams and its signals.
 *
 * @returns the exit status, 128 + n for signal n
 * @throws CommandFailed when it is not known how the command ended
 */
export async function runRemotely(session: Duplex, order: CommandOrder, signals: Signals): Promise<number> {
  const { stdin, stdout, stderr } = process
  const leaveRawMode = order.tty ? enterRawMode() : () => {}
  try {
    const client = new ExecClient(session, requestOf(order), { stdin, stdout, stderr })
    const { code, signal } = await signals.during(
      (name) => client.signal(name),
      () => client.exit
    )
    return signal ? statusOfSignal(signal) : (code ?? 1)
  } catch (error) {
    throw error instanceof ExecFailed ? new CommandFailed(error.message) : error
  } finally {
    leaveRawMode()
    session.destroy()
  }
}

function requestOf({ command, cwd, tty }: CommandOrder): ExecRequest {
  return {
    command,
    ...(cwd !== undefined && { workingDirectory: cwd }),
    ...(tty && { terminal: terminalHere() })
  }
}

/** Of the terminal that this process writes to, or the usual one where there is none. */
function terminalHere(): NonNullable<ExecRequest['terminal']> {
  const { stdout, stderr } = process
  const { rows, columns } = stdout.isTTY ? stdout : stderr
  const { TERM = '' } = readOwnEnvironment()
  return { rows: rows || 24, columns: columns || 80, type: /^[\w.+-]{1,64}$/.test(TERM) ? TERM : 'xterm' }
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
