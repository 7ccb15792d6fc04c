import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { findProgram } from './programs.ts'

const LIMIT = '--core=1:1'

/**
 * Sees to it that neither this process nor what it starts leaves its memory in a file.
 *
 * A limit of 0 keeps files away, but not a program that `kernel.core_pattern` pipes to; 1 refuses both (core(5)).
 * Where 1 is more than the machine allows, or there is no prlimit, it is 0, for what is started alone.
 *
 * @returns what has to stand before a command for that
 */
export async function withoutCoreDumps(): Promise<readonly string[]> {
  const prlimit = await findProgram('prlimit')
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '')
  const none = /^Max core file size\s+\S+\s+0\s/m.test(limits)
  if (prlimit && !none) {
    const works = (...args: string[]) =>
      promisify(execFile)(prlimit, args).then(
        () => true,
        () => false
      )
    if (await works(`--pid=${process.pid}`, LIMIT)) return []
    if (await works(LIMIT, '--', 'true')) return [prlimit, LIMIT, '--']
  }
  return ['/bin/sh', '-c', 'ulimit -c 0; exec "$@"', 'sh']
}
