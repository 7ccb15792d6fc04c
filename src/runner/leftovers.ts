import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { sendSignal } from './process-table.ts'
import type { EnvironmentFolders } from './sandbox.ts'

const NAME = 'COFFER_RUNNER'

/** The variable by which a process can be found when its runner was killed; it names the runner, and no secret. */
export function markOf({ secrets }: EnvironmentFolders): Record<string, string> {
  return { [NAME]: path.dirname(secrets) }
}

/**
 * Kills the processes that have this mark, and what is in their namespaces with them. That bubblewrap dies with its
 * parent is not enough: killed between its two processes' first steps, it leaves the second one waiting for ever.
 *
 * @param secrets the folder that the secrets of the runner's environments were in
 */
export async function killLeftovers(secrets: string): Promise<void> {
  const mark = `${NAME}=${secrets}`
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    // Not ours to read: somebody else's.
    const variables = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')
    if (variables.split('\0').includes(mark)) sendSignal(Number(pid), 'SIGKILL')
  }
}
