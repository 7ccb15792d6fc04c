import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { sendSignal } from './process-table.ts'
import type { EnvironmentFolders } from './sandbox.ts'

/** The variable by which a process can be found when its runner was killed. */
export const MARK = 'COFFER_RUNNER'

/** What is killed is gone a moment later; what is not then is stuck in the kernel. */
const LOOK_AGAIN_MS = 10
const TRIES = 100

/** Its value, which names the runner, and no secret. */
export function markOf({ secrets }: EnvironmentFolders): string {
  return path.dirname(secrets)
}

/**
 * Kills the processes that have this mark, and what is in their namespaces with them. That bubblewrap dies with its
 * parent is not enough: killed between its two processes' first steps, it leaves the second one waiting, or at work, for
 * ever.
 *
 * @param secrets the folder that the secrets of the runner's environments were in
 */
export async function killLeftovers(secrets: string): Promise<void> {
  const mark = `${MARK}=${secrets}\0`
  // One may have started another since they were listed.
  for (let tries = 0; tries < TRIES && (await killMarked(mark)); tries++) await sleep(LOOK_AGAIN_MS)
}

/** Whether there were some. */
async function killMarked(mark: string): Promise<boolean> {
  let found = false
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    // Not ours to read: somebody else's.
    const variables = await readFile(`/proc/${pid}/environ`).catch(() => Buffer.alloc(0))
    const isMarked = variables.includes(`\0${mark}`) || variables.indexOf(mark) === 0
    variables.fill(0)
    if (isMarked && sendSignal(Number(pid), 'SIGKILL')) found = true
  }
  return found
}
