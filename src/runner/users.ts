import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { RefusedToStart } from '../errors.ts'
import type { User } from './folders.ts'

const run = promisify(execFile)

/** @throws RefusedToStart when the machine has no such user */
export async function findUser(name: string): Promise<User> {
  try {
    const [uid, gid] = await Promise.all([run('id', ['-u', '--', name]), run('id', ['-g', '--', name])])
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
  } catch {
    throw new RefusedToStart('COFFER_RUNNER_USER names no user of this machine.')
  }
}
