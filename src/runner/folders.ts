import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chown, lstat, mkdir, readdir, realpath, rm, rmdir, statfs } from 'node:fs/promises'
import type { Server } from 'node:net'
import path from 'node:path'
import { RefusedToStart } from '../errors.ts'
import { lockFolder } from './folder-lock.ts'
import type { EnvironmentFolders } from './sandbox.ts'
import { isUuid } from './uuid.ts'

/** As statfs(2) names the file systems that are memory: tmpfs and ramfs. */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6])
const SHARED_MEMORY = '/dev/shm'
/** Everybody may pass, nobody may list: the environment's user reaches what it owns below. */
const PASSABLE = 0o711
const PRIVATE = 0o700
const PROGRAMS = '/usr/bin:/bin'

/**
 * Empties folders of whatever a user left in them. Folders that it may not change itself are made changeable first;
 * neither program follows links that it meets.
 */
const EMPTY = 'chmod -R u+rwx -- "$@" 2>/dev/null; exec find "$@" -xdev -mindepth 1 -delete'

export interface User {
  uid: number
  gid: number
}

export interface FolderOptions {
  /** the runner's own, on disk */
  dataDir: string
  /** in memory; undefined: /dev/shm */
  secretsDir?: string | undefined
  /** whom the processes of environments, and so their folders, belong to */
  user: User
}

/** Where a runner keeps environments: what is theirs on disk, what is delivered to them in memory. */
export class Folders {
  readonly user: User
  /** in memory: the folder in which each environment has its own */
  readonly secrets: string
  readonly #environments: string
  readonly #lock: Server

  private constructor(user: User, environments: string, secrets: string, lock: Server) {
    this.user = user
    this.#environments = environments
    this.secrets = secrets
    this.#lock = lock
  }

  /**
   * Makes both places and holds them for this process.
   *
   * @throws RefusedToStart when there is no memory to keep secrets in, when a folder is somebody else's or out of the
   *   environments' reach, and when another runner holds it
   */
  static async open({ dataDir, secretsDir = SHARED_MEMORY, user }: FolderOptions): Promise<Folders> {
    await requireMemory(secretsDir)
    const environments = path.join(dataDir, 'environments')
    await mkdir(dataDir, { recursive: true, mode: PASSABLE })
    await makeOwnFolder(environments)
    await requireReach(environments, user)
    const name = createHash('sha256')
      .update(await realpath(dataDir))
      .digest('hex')
      .slice(0, 16)
    const secrets = path.join(secretsDir, `coffer-${name}`)
    await makeOwnFolder(secrets)
    return new Folders(user, environments, secrets, await lockFolder(path.join(secrets, 'lock')))
  }

  /** Lets another runner have the folders. */
  close(): void {
    this.#lock.close()
  }

  of(environmentId: string): EnvironmentFolders {
    const own = this.ownOf(environmentId)
    return {
      workspace: path.join(own, 'workspace'),
      home: path.join(own, 'home'),
      secrets: path.join(this.secrets, environmentId)
    }
  }

  /** On disk, the runner's own part of an environment, in which the environment's folders lie. */
  ownOf(environmentId: string): string {
    if (!isUuid(environmentId)) throw new Error('the id of an environment is a UUID')
    return path.join(this.#environments, environmentId)
  }

  /** Makes what is missing of the folders of an environment. */
  async make(environmentId: string): Promise<void> {
    const { workspace, home, secrets } = this.of(environmentId)
    await Promise.all([this.ownOf(environmentId), secrets].map(makeOwnFolder))
    await Promise.all([workspace, home].map((folder) => this.#makeTheirFolder(folder)))
  }

  /** Until it is handed over, nobody but the runner can have put anything at this place. */
  async #makeTheirFolder(folder: string): Promise<void> {
    const { uid, gid } = this.user
    const isNew = await makeFolder(folder, PRIVATE)
    if (isNew || (await lstat(folder)).uid !== uid) await chown(folder, uid, gid)
  }

  /** Of what environments something is there, on disk or in memory. */
  async list(): Promise<string[]> {
    const names = await Promise.all([this.#environments, this.secrets].map((folder) => readdir(folder)))
    return [...new Set(names.flat())].filter(isUuid)
  }

  /** Removes what was delivered to an environment. Its folder in memory is the runner's own, down to each name. */
  async removeSecrets(environmentId: string): Promise<void> {
    await rm(this.of(environmentId).secrets, { recursive: true, force: true })
  }

  /**
   * Empties the workspace and the home, as the environment's user: whatever lies there, nothing can be reached that
   * the environment could not have reached. The folders themselves go with the rights of the runner.
   *
   * @throws when something is left
   */
  async removeContent(environmentId: string, signal?: AbortSignal): Promise<void> {
    const { workspace, home } = this.of(environmentId)
    const there: string[] = []
    const find = async (folder: string) => {
      const kind = await lstat(folder).catch((error) => ifCode(error, 'ENOENT', undefined))
      if (kind?.isDirectory()) there.push(folder)
      else if (kind) await rm(folder)
    }
    await Promise.all([workspace, home].map(find))
    if (there.length > 0) await this.#empty(there, signal)
    for (const folder of there) await rmdir(folder)
  }

  /** Removes all that there is of an environment. */
  async remove(environmentId: string, signal?: AbortSignal): Promise<void> {
    await this.removeSecrets(environmentId)
    await this.removeContent(environmentId, signal)
    await rm(this.ownOf(environmentId), { recursive: true, force: true })
  }

  async #empty(folders: readonly string[], signal: AbortSignal | undefined): Promise<void> {
    const code = await runAs(this.user, ['sh', '-c', EMPTY, 'sh', ...folders], signal)
    if (code !== 0) throw new Error('the folders of an environment could not be emptied')
  }
}

async function requireMemory(folder: string): Promise<void> {
  const found = await statfs(folder).catch(() => undefined)
  if (found && IN_MEMORY.has(found.type)) return
  throw new RefusedToStart(
    `Secrets are kept in memory only, and ${folder} is no tmpfs. Mount one there, or name another folder for the ` +
      "runner's secrets that is on a tmpfs."
  )
}

/** False: something is at that place. */
async function makeFolder(folder: string, mode: number): Promise<boolean> {
  return await mkdir(folder, { mode }).then(
    () => true,
    (error) => ifCode(error, 'EEXIST', false)
  )
}

/** What lies in a folder that others can write to, as /dev/shm, may be somebody's trap. */
async function makeOwnFolder(folder: string): Promise<void> {
  if (await makeFolder(folder, PASSABLE)) return
  const found = await lstat(folder)
  if (found.isDirectory() && found.uid === process.geteuid!() && (found.mode & 0o022) === 0) return
  throw new RefusedToStart(
    `${folder} is not a folder of the user that the runner is started as, or others may write to it. Remove it.`
  )
}

/** Whether a user can enter depends on each folder above, too, so it is tried. */
export async function canReach(folder: string, user: User): Promise<boolean> {
  return (await runAs(user, ['sh', '-c', 'cd -- "$1"', 'sh', folder])) === 0
}

async function requireReach(folder: string, user: User): Promise<void> {
  if (await canReach(folder, user)) return
  throw new RefusedToStart(
    `The user of the environments (${user.uid}) cannot enter ${folder}. Let it pass through the folders above ` +
      '(chmod o+x), or choose another data folder for the runner.'
  )
}

async function runAs(user: User, command: readonly string[], signal?: AbortSignal): Promise<number | null> {
  const [program, ...rest] = command
  const asAnother = process.geteuid!() === 0 && user.uid !== 0
  const child = spawn(program!, rest, {
    cwd: '/',
    env: { PATH: PROGRAMS },
    stdio: 'ignore',
    ...(asAnother && { uid: user.uid, gid: user.gid }),
    ...(signal && { signal })
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  return code
}

function ifCode<T>(error: unknown, code: string, instead: T): T {
  if ((error as NodeJS.ErrnoException).code === code) return instead
  throw error
}
