import { RefusedToStart } from '../errors.ts'
import type { ProcessRequest } from './sandbox.ts'
import { inTerminal } from './terminal.ts'

export interface Shell {
  /** for SHELL */
  shell: string
  /** util-linux's `script`, where it is installed */
  script: string | undefined
  /** the descriptor from which a terminal's sizes come */
  sizes: number
}

/** With its NUL, of one word (MAX_ARG_STRLEN of Linux); with a terminal, a whole command is one. */
const MAX_WORD_BYTES = 131_072

/** Surely there, so that `env` has nothing to say of it: the runner's own work is done by it. */
const SHELL = '/bin/sh'

/**
 * What is really started for a command: `env`, which gives the codes 126 and 127 that shells give for a command that
 * cannot be run or found, and with a terminal the program that makes one.
 *
 * @throws RefusedToStart for a command that the system cannot start, or a terminal where there is no `script`
 */
export function launchCommand({ command, terminal }: ProcessRequest, { script, ...shell }: Shell): string[] {
  const [program] = command
  if (!program) throw new RefusedToStart('There is no command to start.')
  if (command.some((word) => word.includes('\0'))) {
    throw new RefusedToStart('A command cannot have a NUL character.')
  }
  const plain = program === SHELL ? [...command] : [...launcherFor(program), ...command]
  const launched = terminal ? inTerminal(requireScript(script), plain, terminal, shell) : plain
  if (launched.every((word) => Buffer.byteLength(word) < MAX_WORD_BYTES)) return launched
  throw new RefusedToStart(
    `A word of the command is longer than the ${MAX_WORD_BYTES} bytes that the system allows.`
  )
}

/** For env, a word with `=` is a variable. */
function launcherFor(program: string): string[] {
  return program.includes('=') ? [SHELL, '-c', 'exec "$@"', 'sh'] : ['/usr/bin/env', '--']
}

function requireScript(script: string | undefined): string {
  if (script) return script
  throw new RefusedToStart(
    "A terminal needs the program script on the runner's machine: apt-get install bsdutils"
  )
}
