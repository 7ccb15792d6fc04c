import { readFile } from 'node:fs/promises'
import { findProgram } from './programs.ts'

/**
 * What stands before a command, so that neither it nor what it starts leaves its memory in a file.
 *
 * A limit of 0 keeps files away, but not a program that `kernel.core_pattern` pipes to; 1 refuses both (core(5)).
 * Where 1 is more than the machine allows, or there is no prlimit, it is 0.
 */
export async function commandWithoutCoreDumps(): Promise<readonly string[]> {
  const [prlimit, limits] = await Promise.all([
    findProgram('prlimit'),
    readFile('/proc/self/limits', 'utf8').catch(() => '')
  ])
  const none = /^Max core file size\s+\S+\s+0\s/m.test(limits)
  return prlimit && !none ? [prlimit, '--core=1:1', '--'] : ['/bin/sh', '-c', 'ulimit -c 0; exec "$@"', 'sh']
}
