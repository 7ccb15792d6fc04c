import type { Kysely, Transaction } from 'kysely'
import type { Logger } from 'pino'
import { describeError } from '../logger.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { findCutOff, listPrunable, removeThrough, tryPruningLock } from '../store/audit-prunings.ts'
import { listSealedOf } from '../store/audit-records.ts'
import type { Database } from '../store/tables.ts'
import { append, genesis, type Head } from './chain.ts'
import type { AuditKey } from './key.ts'
import { signPruning } from './pruning.ts'
import { differingColumn, parseCanonical } from './record.ts'

const INTERVAL_MS = 3_600_000
const FIRST_MS = 30_000
/** At most so many records, of so many streams, go in one transaction. */
const BATCH = 2_000
const STREAMS = 100

const SYSTEM: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

export interface PruningContext {
  db: Kysely<Database>
  instanceUid: string
  key: AuditKey
}

export interface PrunedBatch {
  removed: number
  /** whether there may be more to remove, behind `after` */
  more: boolean
  after: string | undefined
  /** streams of which a record that should go does not fit into its chain: it stays, as evidence */
  damaged: string[]
}

/**
 * Removes sealed records from before the retention time, from the beginning of their streams, in one transaction
 * with the signed word that they were removed, and a record of it.
 *
 * @param after go on behind this stream
 */
export async function pruneBatch(
  { db, instanceUid, key }: PruningContext,
  days: number,
  after?: string,
  limits: { records: number; streams: number } = { records: BATCH, streams: STREAMS }
): Promise<PrunedBatch> {
  return await db.transaction().execute(async (tx) => {
    const result: PrunedBatch = { removed: 0, more: false, after, damaged: [] }
    if (!(await tryPruningLock(tx))) return result
    const { now, before } = await findCutOff(tx, days)
    const streams = await listPrunable(tx, before, after, limits.streams)
    for (const { stream_uid, through, hash } of streams) {
      const room = limits.records - result.removed
      if (room <= 0) break
      const start: Head =
        through === null || hash === null
          ? { sequence: 0, hash: genesis(instanceUid, stream_uid) }
          : { sequence: through, hash }
      const { head, damaged } = await findEndOfOld(tx, stream_uid, start, before, room)
      if (damaged) result.damaged.push(stream_uid)
      const removed = head.sequence - start.sequence
      if (removed > 0) {
        const signed = signPruning(key, instanceUid, {
          stream: stream_uid,
          through: head.sequence,
          hash: head.hash,
          before: before.toISOString(),
          pruned_at: now.toISOString()
        })
        await removeThrough(tx, {
          stream_uid,
          through: head.sequence,
          hash: head.hash,
          before,
          pruned_at: now,
          key: signed.key,
          signature: signed.signature
        })
        result.removed += removed
      }
      // A stream of which there is more is gone on with.
      if (removed < room) result.after = stream_uid
    }
    if (result.removed > 0) {
      const name = `before ${before.toISOString()}`
      await insertAuditEvents(tx, [
        {
          streamUid: instanceUid,
          principal: SYSTEM,
          action: 'audit.prune',
          name,
          occurrences: result.removed
        }
      ])
    }
    result.more = streams.length === limits.streams || result.removed >= limits.records
    return result
  })
}

/** Where the old records at the beginning of a stream end; only what fits into the chain is taken for one. */
async function findEndOfOld(
  tx: Transaction<Database>,
  streamUid: string,
  start: Head,
  before: Date,
  limit: number
): Promise<{ head: Head; damaged: boolean }> {
  let head = start
  for (const { sequence, hash, record } of await listSealedOf(tx, streamUid, start.sequence, limit)) {
    const canonical = record && parseCanonical(record.canonical)
    const next = record && append(head, record.canonical)
    const fits = canonical && next?.sequence === sequence && next.hash.equals(hash)
    if (!fits || differingColumn(record.columns, canonical) !== undefined) return { head, damaged: true }
    if (new Date(canonical.occurred_at as string) >= before) break
    head = next
  }
  return { head, damaged: false }
}

/** Removes old records, once an hour, on every node; whichever comes first does it. */
export class Retention {
  readonly #context: PruningContext
  readonly #days: number
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(context: PruningContext, days: number, logger: Logger) {
    this.#context = context
    this.#days = days
    this.#logger = logger
  }

  start(): void {
    this.#next(FIRST_MS)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
  }

  #next(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => {
      this.#running = this.#prune().then(() => this.#next(INTERVAL_MS))
    }, delayMs)
    this.#timer.unref()
  }

  async #prune(): Promise<void> {
    let removed = 0
    try {
      let batch: PrunedBatch | undefined
      do {
        batch = await pruneBatch(this.#context, this.#days, batch?.after)
        removed += batch.removed
        if (batch.damaged.length > 0) {
          this.#logger.error(
            { streams: batch.damaged },
            'audit records that do not fit were not removed: run coffer audit verify'
          )
        }
      } while (batch.more && !this.#stopped)
    } catch (error) {
      this.#logger.warn({ err: describeError(error) }, 'old audit records could not be removed')
    }
    if (removed > 0) this.#logger.info({ removed }, 'old audit records removed')
  }
}
