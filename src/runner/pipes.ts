import { execFile } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const BATCH = 24

/** Two ends, as descriptors that the taker closes. */
export interface Pipe {
  readEnd: number
  writeEnd: number
}

/**
 * Real pipes. What node makes for a child's stdio are sockets, and a program that opens `/dev/stdout` or `/dev/stderr`,
 * as shell scripts do, fails on them. Node has no pipe(2): these are named pipes that have lost their names.
 */
export class Pipes {
  readonly #spare: number[] = []
  #filling: Promise<void> | undefined

  async take(): Promise<Pipe> {
    while (this.#spare.length === 0) {
      this.#filling ??= this.#fill().finally(() => {
        this.#filling = undefined
      })
      await this.#filling
    }
    const spare = this.#spare.pop()!
    try {
      return openEnds(`/proc/self/fd/${spare}`)
    } finally {
      closeSync(spare)
    }
  }

  async #fill(): Promise<void> {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-pipes-'))
    try {
      const files = Array.from({ length: BATCH }, (_, index) => path.join(folder, String(index)))
      // Whoever holds an end may open it again, as the environment's user does; by name nobody else comes here.
      await promisify(execFile)('mkfifo', ['-m', '666', ...files], { env: {} })
      for (const file of files) this.#spare.push(openSync(file, constants.O_RDWR))
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
}

/** Neither blocks here, since both ends are open in the spare one, and neither is made non-blocking for the child. */
function openEnds(file: string): Pipe {
  const readEnd = openSync(file, constants.O_RDONLY)
  try {
    return { readEnd, writeEnd: openSync(file, constants.O_WRONLY) }
  } catch (error) {
    closeSync(readEnd)
    throw error
  }
}
