import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { RefusedToStart } from '../errors.ts'
import {
  checkpointLine,
  endLine,
  parseCheckpointLine,
  Root,
  type SignedCheckpoint,
  type StreamEnd
} from './checkpoint.ts'
import { flushFolder } from './key.ts'

/** The newest checkpoint with the ends of all streams; replaced as a whole. */
const NEWEST = 'checkpoint.jsonl'
/** One statement after another, a file for each month. */
const LOG = /^checkpoints-\d{4}-\d{2}\.jsonl$/
/** At a statement of about 500 bytes a minute this is less than 300 MB. */
const KEPT_LOGS = 13
/** Longer than any statement. */
const TAIL_BYTES = 4096

/** A checkpoint that is being written: not yet where anybody looks for it. */
export interface Draft {
  readonly root: Root
  add(ends: readonly StreamEnd[]): Promise<void>
  /** Puts it in its place, on disk, and adds its statement to the log. */
  publish(checkpoint: SignedCheckpoint): Promise<void>
  discard(): Promise<void>
}

/** The folder that checkpoints are written to; other servers of the same instance may write to it, too. */
export class CheckpointFiles {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Makes the folder, and gives the last counter that its files know of for this instance. */
  async prepare(instanceUid: string): Promise<number> {
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 })
      await this.#setAside(instanceUid)
      return await this.#lastCounter(instanceUid)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      throw new RefusedToStart(
        `Checkpoints of the audit cannot be written to ${this.#folder} (${code}). Set COFFER_AUDIT_CHECKPOINTS.`
      )
    }
  }

  /** The newest checkpoint of another instance is kept under another name. */
  async #setAside(instanceUid: string): Promise<void> {
    const file = path.join(this.#folder, NEWEST)
    const last = await lastCheckpoint(file)
    if (!last || last.instance === instanceUid) return
    await rename(file, path.join(this.#folder, `checkpoint-of-${last.instance}.jsonl`))
  }

  async #lastCounter(instanceUid: string): Promise<number> {
    const logs = await this.#logs()
    const files = [NEWEST, ...logs.slice(-1)].map((name) => path.join(this.#folder, name))
    const counters = [0]
    for (const file of files) {
      const last = await lastCheckpoint(file)
      if (last?.instance === instanceUid) counters.push(last.counter)
    }
    return Math.max(...counters)
  }

  async #logs(): Promise<string[]> {
    return (await readdir(this.#folder)).filter((name) => LOG.test(name)).sort()
  }

  /** @param writer no other draft has this name at the same time */
  async draft(writer: string): Promise<Draft> {
    const partial = path.join(this.#folder, `.${NEWEST}.${writer}`)
    const handle = await open(partial, 'w', 0o600)
    const root = new Root()
    return {
      root,
      async add(ends) {
        for (const end of ends) root.add(end)
        if (ends.length > 0) await handle.appendFile(ends.map(endLine).join(''))
      },
      publish: (checkpoint) => this.#publish(handle, partial, checkpoint),
      async discard() {
        await handle.close()
        await rm(partial, { force: true })
      }
    }
  }

  async #publish(handle: FileHandle, partial: string, checkpoint: SignedCheckpoint): Promise<void> {
    const line = checkpointLine(checkpoint)
    try {
      await handle.appendFile(line)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(partial, path.join(this.#folder, NEWEST))
    await this.#log(checkpoint.created_at, line)
    await flushFolder(this.#folder)
  }

  async #log(at: string, line: string): Promise<void> {
    const name = `checkpoints-${at.slice(0, 7)}.jsonl`
    const handle = await open(path.join(this.#folder, name), 'a', 0o600)
    try {
      await handle.appendFile(line)
      await handle.sync()
    } finally {
      await handle.close()
    }
    for (const old of (await this.#logs()).slice(0, -KEPT_LOGS)) await rm(path.join(this.#folder, old))
  }
}

/** The statement in the last line of a file; undefined when there is none, or it is not whole. */
async function lastCheckpoint(file: string): Promise<SignedCheckpoint | undefined> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!handle) return undefined
  try {
    const { size } = await handle.stat()
    const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES))
    await handle.read(bytes, 0, bytes.length, size - bytes.length)
    const lines = bytes.toString('utf8').split('\n').reverse()
    for (const line of lines) {
      const parsed = parseCheckpointLine(line)
      if (parsed && 'checkpoint' in parsed) return parsed.checkpoint
    }
    return undefined
  } finally {
    await handle.close()
  }
}
