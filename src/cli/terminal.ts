import type { Command } from 'commander'
import { CofferError, InvalidInput, RefusedToStart } from '../errors.ts'

/** What was asked is right and could not be done; the message says all that a person needs. */
export class CommandFailed extends Error {}

/** Exit codes of every command: 0 done, 1 failed, 2 refused because of what was asked or how it is set up. */
export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof CofferError ? 2 : 1
}

/** A command line that cannot be understood is refused, with this exit code; set before subcommands are added. */
export function refuseMisuse(command: Command): Command {
  return command
    .showHelpAfterError('(add --help for what it takes)')
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
}

/** One line for a person: what is wrong and what to do; a defect shows its stack. */
export function explain(error: unknown): string {
  if (error instanceof InvalidInput && error.violations.length > 0) {
    return `coffer: ${error.violations.map(({ message }) => message).join('; ')}`
  }
  if (error instanceof RefusedToStart || error instanceof CofferError) return `coffer: ${error.message}`
  if (error instanceof CommandFailed) return `coffer: ${error.message}`
  const { code, syscall } = error as NodeJS.ErrnoException
  const unreachable = syscall === 'connect' || syscall === 'getaddrinfo'
  if (typeof code === 'string' && (unreachable || /^(28|57|08|3D)/.test(code))) {
    return `coffer: the database cannot be reached or refused the login (${code}). Check DATABASE_URL.`
  }
  return `coffer: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
}

/** A reader that has enough, as `head` has, is no failure. */
function tolerateClosedReader(): void {
  if (process.stdout.listenerCount('error') > 0) return
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}

/** Whoever reads what this writes may go, as a terminal that is closed; the work goes on. */
export function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
}

export function printJson(value: unknown): void {
  tolerateClosedReader()
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** Columns wide enough for what is in them. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  tolerateClosedReader()
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length))
  )
  for (const row of [header, ...rows]) {
    process.stdout.write(
      `${row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd()}\n`
    )
  }
}

/** Aborted by Ctrl-C, so that nothing unfinished stays behind; a second time ends at once. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => controller.abort())
  return controller.signal
}
