import { RefusedToStart } from '../errors.ts'
import type { ProcessRequest } from './sandbox.ts'
import { inTerminal } from './terminal.ts'

export interface Shell {
  /** for SHELL */
  shell: string
  /** util-linux's `script`, where it is installed */
  script: string | undefined
}

/**
 * What is really started for a command: `env`, which gives the codes 126 and 127 that shells give for a command that
 * cannot be run or found, and with a terminal the program that makes one.
 *
 * @throws RefusedToStart without a command, or for a terminal where there is no `script`
 */
export function launchCommand({ command, terminal }: ProcessRequest, { shell, script }: Shell): string[] {
  const [program] = command
  if (!program) throw new RefusedToStart('There is no command to start.')
  if (command.some((word) => word.includes('\0'))) {
    throw new RefusedToStart('A command cannot have a NUL character.')
  }
  // For env, a word with `=` is a variable.
  const launched = program.includes('=') ? [...command] : ['/usr/bin/env', '--', ...command]
  if (!terminal) return launched
  if (!script) {
    throw new RefusedToStart(
      'A terminal needs the program script on the runner’s machine: apt-get install bsdutils'
    )
  }
  return inTerminal(script, launched, terminal, shell)
}
