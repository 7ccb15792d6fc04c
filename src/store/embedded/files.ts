import { chmod, lchown, lstat, mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { RefusedToStart } from '../../errors.ts'
import type { Account } from './account.ts'
import { run } from './child.ts'

/** Whether an error of the file system or of PostgreSQL carries one of these codes. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' && codes.includes(code)
}

/** Makes the names in a folder (or a file's bytes) survive a power failure. */
export async function flush(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Removes a folder. By rm, not by Node: rm cannot be led astray by a link that PostgreSQL's user puts in place
 * while root removes.
 */
export async function removeTree(path: string): Promise<void> {
  await run('rm', ['-rf', '--', path])
}

/**
 * Makes a folder that only `account` can enter, or checks that it is one.
 *
 * @throws RefusedToStart when something else is there: in a folder such as /tmp it can be somebody's trap.
 */
export async function makePrivateFolder(path: string, account: Account): Promise<void> {
  await mkdir(path, { mode: 0o700 }).catch((error) => {
    if (!hasCode(error, 'EEXIST')) throw error
  })
  const { uid } = await lstat(path)
  if (uid !== account.uid && uid === process.geteuid!()) await lchown(path, account.uid, account.gid)
  await checkPrivateFolder(path, account)
}

/** @throws RefusedToStart when the folder is not `account`'s alone. */
export async function checkPrivateFolder(path: string, account: Account): Promise<void> {
  const found = await lstat(path)
  if (!found.isDirectory() || found.uid !== account.uid || (found.mode & 0o077) !== 0) {
    throw new RefusedToStart(
      `${path} should be a folder that only the user with the id ${account.uid} can enter, and is not. ` +
        'Somebody else may have made it: look at it, and remove it when no Coffer runs.'
    )
  }
}

/**
 * A folder under `systemDir` for what PostgreSQL's user must reach but not change.
 *
 * @throws RefusedToStart when somebody else could put files there.
 */
export async function makeSystemFolder(systemDir: string, name: string): Promise<string> {
  const folder = join(systemDir, name)
  for (const path of [systemDir, folder]) {
    if (await mkdir(path, { recursive: true, mode: 0o755 })) await chmod(path, 0o755)
    const found = await lstat(path)
    if (!found.isDirectory() || found.uid !== process.geteuid!() || (found.mode & 0o022) !== 0) {
      throw new RefusedToStart(
        `${path} can be changed by other users. Make it root's alone (chown root, chmod 755).`
      )
    }
  }
  return folder
}
