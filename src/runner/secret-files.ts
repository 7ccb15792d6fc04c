import { createHash } from 'node:crypto'
import { closeSync, fchownSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import path from 'node:path'
import type { User } from './folders.ts'

const READABLE_BY_OWNER = 0o400
const PASSABLE = 0o711

/**
 * The files that are delivered to one environment: in memory, below a folder of the runner's own, each readable by the
 * environment's user alone. Whoever reads one gets the old content or the new, whole.
 *
 * The calls are the synchronous ones: in memory each takes microseconds, and a trip through the thread pool longer.
 */
export class SecretFiles {
  readonly #folder: string
  readonly #user: User
  /** name below the folder → digest of what is there */
  readonly #written = new Map<string, string>()

  constructor(folder: string, user: User) {
    this.#folder = folder
    this.#user = user
  }

  /**
   * Makes these the files that there are; of those that stay, only what changed is written.
   *
   * @returns the names of those that could not be written, and why
   */
  replace(files: ReadonlyMap<string, Buffer>): Map<string, string> {
    for (const name of this.#written.keys()) if (!files.has(name)) this.#remove(name)
    const problems = new Map<string, string>()
    for (const [name, content] of files) {
      const digest = createHash('sha256').update(content).digest('base64')
      if (this.#written.get(name) === digest) continue
      try {
        this.#write(name, content)
        this.#written.set(name, digest)
      } catch (error) {
        // What was there is older than what should be.
        this.#remove(name)
        problems.set(name, describe(error))
      }
    }
    return problems
  }

  /** Another has removed the files. */
  forget(): void {
    this.#written.clear()
  }

  #write(name: string, content: Buffer): void {
    const file = path.join(this.#folder, name)
    const partial = path.join(path.dirname(file), `.${path.basename(file)}.new`)
    mkdirSync(path.dirname(file), { recursive: true, mode: PASSABLE })
    rmSync(partial, { force: true })
    try {
      const descriptor = openSync(partial, 'wx', READABLE_BY_OWNER)
      try {
        for (let at = 0; at < content.length; ) at += writeSync(descriptor, content, at)
        fchownSync(descriptor, this.#user.uid, this.#user.gid)
      } finally {
        closeSync(descriptor)
      }
      renameSync(partial, file)
    } catch (error) {
      rmSync(partial, { force: true })
      throw error
    }
  }

  #remove(name: string): void {
    rmSync(path.join(this.#folder, name), { force: true })
    this.#written.delete(name)
  }
}

function describe(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOSPC') return 'There is no room in the memory of the runner for secrets.'
  return `The runner could not write it to its memory for secrets (${code ?? 'unknown'}).`
}
