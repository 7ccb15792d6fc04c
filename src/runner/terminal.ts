import type { Writable } from 'node:stream'
import type { ProcessRequest, TerminalSize } from './sandbox.ts'

type Terminal = NonNullable<ProcessRequest['terminal']>

/**
 * The command in a terminal of its own, made by util-linux's `script`, which passes on the command's exit status.
 *
 * `script` starts a shell, named by SHELL, on one line; only there the size can be set before the command begins.
 *
 * @param shell what SHELL says to the command
 * @param sizes the descriptor from which {@link TerminalSizes} come
 */
export function inTerminal(
  script: string,
  command: readonly string[],
  { rows, columns }: Terminal,
  { shell, sizes }: { shell: string; sizes: number }
): string[] {
  const line = [
    `export SHELL=${quote(shell)}`,
    `stty sane rows ${Math.trunc(rows)} columns ${Math.trunc(columns)}`,
    // No child of the command's: that may wait for all it has.
    `(${followSizes(sizes)} &)`,
    `exec ${command.map(quote).join(' ')} ${sizes}<&-`
  ].join('; ')
  return [
    '/usr/bin/env',
    'SHELL=/bin/sh',
    script,
    '--quiet',
    '--flush',
    '--return',
    '--command',
    line,
    '/dev/null'
  ]
}

function followSizes(from: number): string {
  return `while read -r rows columns; do stty rows "$rows" columns "$columns" </dev/tty; done <&${from} >/dev/null 2>&1`
}

/** Tells the program that `inTerminal` leaves beside a command of sizes that its terminal is to have. */
export class TerminalSizes {
  readonly #stream: Writable
  #next: string | undefined

  /** @param stream to the descriptor that `inTerminal` was given */
  constructor(stream: Writable) {
    this.#stream = stream
    // It ends with the terminal.
    stream.on('error', () => {})
    stream.on('drain', () => this.#tell())
  }

  /** While it takes no more, only the newest one is kept. */
  change({ rows, columns }: TerminalSize): void {
    this.#next = `${Math.trunc(rows)} ${Math.trunc(columns)}\n`
    if (!this.#stream.writableNeedDrain) this.#tell()
  }

  close(): void {
    this.#stream.destroy()
  }

  #tell(): void {
    if (this.#next !== undefined && this.#stream.writable) this.#stream.write(this.#next)
    this.#next = undefined
  }
}

/** As one word of a POSIX shell, whatever is in it. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
