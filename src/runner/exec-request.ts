import { FRAME, type Frame, ProtocolError } from './frames.ts'
import type { TerminalSize } from './sandbox.ts'

/** What a client asks to be started in an environment. */
export interface ExecRequest {
  command: readonly string[]
  /** inside; undefined: the workspace */
  workingDirectory?: string
  terminal?: TerminalSize & { type: string }
}

/** Bytes of stdin that may be under way; so the runner reads on, and a signal never waits behind them. */
export const STDIN_WINDOW_BYTES = 256 * 1024

/** What a client may send to a command. */
export const SIGNALS: readonly NodeJS.Signals[] = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGKILL',
  'SIGUSR1',
  'SIGUSR2',
  'SIGTSTP',
  'SIGCONT'
]

const MAX_PATH_LENGTH = 4096
export const MAX_TERMINAL_SIDE = 10_000

/** @throws ProtocolError when it is no start of a command, or has what no command can have */
export function parseStart({ type, payload }: Frame): ExecRequest {
  if (type !== FRAME.start) throw new ProtocolError('The first frame has to start a command.')
  const { command, workingDirectory, terminal } = parseJson(payload)
  if (!Array.isArray(command) || command.length === 0 || !command.every(isText) || command[0] === '') {
    throw new ProtocolError('command has to be a list of texts without NUL, the program first.')
  }
  if (workingDirectory !== undefined && !isPath(workingDirectory)) {
    throw new ProtocolError('workingDirectory has to be a path.')
  }
  if (terminal !== undefined && !isTerminal(terminal)) {
    throw new ProtocolError('terminal has to have rows, columns and a type.')
  }
  return { command, ...(workingDirectory && { workingDirectory }), ...(terminal && { terminal }) }
}

/** @throws ProtocolError when it is none that may be sent */
export function parseSignal(payload: Buffer): NodeJS.Signals {
  const name = SIGNALS.find((signal) => signal === payload.toString('latin1'))
  if (!name) throw new ProtocolError(`A signal has to be one of ${SIGNALS.join(', ')}.`)
  return name
}

/** @throws ProtocolError when it is none */
export function parseSize(payload: Buffer): TerminalSize {
  const { rows, columns } = parseJson(payload)
  if (isSide(rows) && isSide(columns)) return { rows, columns }
  throw new ProtocolError('The size of a terminal has to have rows and columns.')
}

/** @throws ProtocolError when it is no object in JSON */
export function parseJson(payload: Buffer): Record<string, unknown> {
  const value = parseOrUndefined(payload.toString())
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>
  }
  throw new ProtocolError('A frame that has to be JSON is not.')
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0')
}

function isPath(value: unknown): value is string {
  return isText(value) && value.length > 0 && value.length <= MAX_PATH_LENGTH
}

function isTerminal(value: unknown): value is NonNullable<ExecRequest['terminal']> {
  if (typeof value !== 'object' || value === null) return false
  const { rows, columns, type } = value as Record<string, unknown>
  return isSide(rows) && isSide(columns) && isText(type) && /^[\w.+-]{1,64}$/.test(type)
}

function isSide(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) > 0 && (value as number) <= MAX_TERMINAL_SIDE
}
