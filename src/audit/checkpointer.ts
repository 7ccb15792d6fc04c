import { randomUUID } from 'node:crypto'
import type { Kysely, Transaction } from 'kysely'
import type { Logger } from 'pino'
import { describeError } from '../logger.ts'
import { listHeads } from '../store/audit-chain.ts'
import { claimCheckpoint, releaseCheckpoints, storeCheckpointHash } from '../store/audit-checkpoint.ts'
import type { Database } from '../store/tables.ts'
import { checkpointHash, type SignedCheckpoint, signCheckpoint } from './checkpoint.ts'
import type { CheckpointFiles, Draft } from './checkpoint-files.ts'
import type { AuditKey } from './key.ts'

const INTERVAL_MS = 60_000
/** How often a server looks whether the one that writes them is gone. */
const LOOK_MS = 10_000
/** The sealer comes first. */
const FIRST_MS = 1_000
/** A timer may be early by the difference of two clocks. */
const EARLY_MS = 5_000
/** So many ends of streams are in memory at once. */
const PAGE = 5_000

export interface CheckpointSource {
  db: Kysely<Database>
  instanceUid: string
  key: AuditKey
  files: CheckpointFiles
}

/**
 * Takes the next checkpoint when it is due and nobody else takes it. The counter is committed before the files are
 * put in their places: after a crash in between one is missing, and none comes twice.
 *
 * @param node no other server has this uid
 */
export async function takeCheckpoint(
  { db, instanceUid, key, files }: CheckpointSource,
  { node, leastCounter, intervalMs }: { node: string; leastCounter: number; intervalMs: number }
): Promise<SignedCheckpoint | undefined> {
  let draft: Draft | undefined
  let checkpoint: SignedCheckpoint | undefined
  try {
    await db.transaction().execute(async (tx) => {
      const claim = await claimCheckpoint(tx, {
        nodeUid: node,
        key: key.fingerprint,
        leastCounter,
        intervalMs
      })
      if (!claim) return
      draft = await files.draft(node)
      await addHeads(tx, draft)
      checkpoint = signCheckpoint(key, {
        instance: instanceUid,
        counter: claim.counter,
        created_at: claim.taken_at.toISOString(),
        previous: claim.previous?.toString('hex') ?? null,
        key: key.fingerprint,
        streams: draft.root.streams,
        records: draft.root.records,
        root: draft.root.digest()
      })
      await storeCheckpointHash(tx, checkpointHash(checkpoint))
    })
  } catch (error) {
    await draft?.discard()
    throw error
  }
  if (draft && checkpoint) await draft.publish(checkpoint)
  return checkpoint
}

/** Not at one moment, but none earlier than in the checkpoint before: what each says of its stream is true. */
async function addHeads(tx: Transaction<Database>, draft: Draft): Promise<void> {
  for (let after: string | undefined; ; ) {
    const heads = await listHeads(tx, after, PAGE)
    await draft.add(heads.map(({ stream_uid, sequence, hash }) => ({ stream: stream_uid, sequence, hash })))
    if (heads.length < PAGE) return
    after = heads.at(-1)!.stream_uid
  }
}

export interface CheckpointerEvents {
  onTaken: (checkpoint: SignedCheckpoint) => void
  onFailure: () => void
}

/** Takes a checkpoint every minute, idle or not, on one of the servers: on the same one for as long as it lives. */
export class Checkpointer {
  readonly #source: CheckpointSource
  readonly #events: CheckpointerEvents
  readonly #logger: Logger
  readonly #node = randomUUID()
  #leastCounter = 0
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(source: CheckpointSource, events: CheckpointerEvents, logger: Logger) {
    this.#source = source
    this.#events = events
    this.#logger = logger
  }

  /** @throws RefusedToStart when its folder cannot be used */
  async start(): Promise<void> {
    this.#leastCounter = await this.#source.files.prepare(this.#source.instanceUid)
    this.#next(FIRST_MS)
  }

  /** Takes a last one if it is this server's turn, and lets another one go on. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
    await this.#take(0)
    await releaseCheckpoints(this.#source.db, this.#node).catch(() => {})
  }

  #next(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => {
      this.#running = this.#take(INTERVAL_MS - EARLY_MS).then((taken) =>
        this.#next(taken ? INTERVAL_MS : LOOK_MS)
      )
    }, delayMs)
    this.#timer.unref()
  }

  async #take(intervalMs: number): Promise<boolean> {
    try {
      const options = { node: this.#node, leastCounter: this.#leastCounter, intervalMs }
      const checkpoint = await takeCheckpoint(this.#source, options)
      if (!checkpoint) return false
      this.#leastCounter = checkpoint.counter
      this.#events.onTaken(checkpoint)
      this.#logger.debug({ checkpoint }, 'audit checkpoint taken')
      return true
    } catch (error) {
      this.#events.onFailure()
      this.#logger.error({ err: describeError(error) }, 'audit checkpoint could not be written')
      return false
    }
  }
}
