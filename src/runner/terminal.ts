import type { ProcessRequest } from './sandbox.ts'

type Terminal = NonNullable<ProcessRequest['terminal']>

/**
 * The command in a terminal of its own, made by util-linux's `script`, which passes on the command's exit status.
 *
 * `script` starts a shell, named by SHELL, on one line; only there the size can be set before the command begins.
 *
 * @param shell what SHELL says to the command
 */
export function inTerminal(
  script: string,
  command: readonly string[],
  { rows, columns }: Terminal,
  shell: string
): string[] {
  const line = [
    `export SHELL=${quote(shell)}`,
    `stty sane rows ${Math.trunc(rows)} columns ${Math.trunc(columns)}`,
    `exec ${command.map(quote).join(' ')}`
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

/** As one word of a POSIX shell, whatever is in it. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
