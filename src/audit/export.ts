import type { Kysely, Transaction } from 'kysely'
import { listHeads } from '../store/audit-chain.ts'
import { findLastCheckpoint } from '../store/audit-checkpoint.ts'
import { listPrunings, type PruningRow } from '../store/audit-prunings.ts'
import { countUnchained, listSealed, listStrays, type SealedRecord } from '../store/audit-records.ts'
import { getInstance } from '../store/instance.ts'
import type { Database } from '../store/tables.ts'
import { presentPruning } from './pruning.ts'

/**
 * An export is JSON lines, in the order of the streams' uids and of places:
 *
 *     {"coffer_audit_export":1,"instance":"…","created_at":"…","checkpoint":41}
 *     {"stream":"…","pruned":{…}}                      where the beginning of the stream was removed after its time
 *     {"stream":"…","sequence":1,"hash":"…","id":7,"canonical":"[\"coffer/audit/v2\",…]","columns":{…}}
 *     {"stream":"…","end":{"sequence":1,"hash":"…"}}   once for each stream
 *     {"stray":8,"canonical":"…","columns":{…}}        records that somebody put behind the sealer's back
 *     {"end_of_export":true,"records":1,"streams":1,"unsealed":0}
 *
 * The columns stand beside the canonical bytes, so that an edit of either shows. Bytes that are no text are given in
 * base64, as `canonical_base64`.
 */
export interface ExportSummary {
  records: number
  streams: number
  /** recorded in the last moments, and not in the export */
  unsealed: number
}

const PAGE = 1_000
const NO_UID = '00000000-0000-0000-0000-000000000000'

/**
 * Writes all that is sealed, as of one moment, while servers go on; some records are in memory at a time.
 *
 * @param onProgress told again and again how many records are done
 */
export async function exportAudit(
  db: Kysely<Database>,
  write: (lines: string) => Promise<void>,
  onProgress: (records: number) => void = () => {}
): Promise<ExportSummary> {
  return await db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute((tx) => exportWithin(tx, write, onProgress))
}

/** The same, in a transaction that shows one moment. */
export async function exportWithin(
  tx: Transaction<Database>,
  write: (lines: string) => Promise<void>,
  onProgress: (records: number) => void = () => {}
): Promise<ExportSummary> {
  const { uid } = await getInstance(tx)
  const checkpoint = (await findLastCheckpoint(tx))?.counter ?? 0
  const created_at = new Date().toISOString()
  await write(line({ coffer_audit_export: 1, instance: uid, created_at, checkpoint }))

  const summary: ExportSummary = { records: 0, streams: 0, unsealed: 0 }
  const heads = new Paged((after) => listHeads(tx, after, PAGE))
  const prunings = new Paged((after) => listPrunings(tx, after, PAGE))
  const records = new SealedRecords(tx)
  for (;;) {
    const [head, pruning, record] = [await heads.peek(), await prunings.peek(), await records.peek()]
    const uids = [head, pruning, record].flatMap((row) => (row ? [row.stream_uid] : []))
    if (uids.length === 0) break
    const stream = uids.sort()[0]!
    summary.streams += 1
    if (pruning?.stream_uid === stream) {
      await write(line({ stream, pruned: presentPruning(signedPruning(pruning)) }))
      prunings.take()
    }
    for (;;) {
      const rows = await records.takeOf(stream)
      if (rows.length === 0) break
      await write(rows.map(recordLine).join(''))
      summary.records += rows.length
      onProgress(summary.records)
    }
    if (head?.stream_uid === stream) {
      await write(line({ stream, end: { sequence: head.sequence, hash: head.hash.toString('hex') } }))
      heads.take()
    }
  }
  let strays = 0
  for (let after = 0; ; ) {
    const rows = await listStrays(tx, after, PAGE)
    await write(
      rows.map(({ id, canonical, columns }) => line({ stray: id, ...text(canonical), columns })).join('')
    )
    strays += rows.length
    if (rows.length < PAGE) break
    after = rows.at(-1)!.id
  }
  summary.unsealed = (await countUnchained(tx)) - strays
  await write(line({ end_of_export: true, ...summary }))
  return summary
}

function line(value: object): string {
  return `${JSON.stringify(value)}\n`
}

function recordLine({ stream_uid, sequence, hash, event_id, record }: SealedRecord): string {
  return line({
    stream: stream_uid,
    sequence,
    hash: hash.toString('hex'),
    id: event_id,
    ...(record ? { ...text(record.canonical), columns: record.columns } : { canonical: null })
  })
}

function text(canonical: Buffer): { canonical: string } | { canonical_base64: string } {
  const decoded = canonical.toString('utf8')
  return Buffer.from(decoded).equals(canonical)
    ? { canonical: decoded }
    : { canonical_base64: canonical.toString('base64') }
}

function signedPruning({ stream_uid, before, pruned_at, ...rest }: PruningRow) {
  return {
    ...rest,
    stream: stream_uid,
    before: before.toISOString(),
    pruned_at: pruned_at.toISOString()
  }
}

/** Rows in the order of their streams, read some at a time. */
class Paged<T extends { stream_uid: string }> {
  readonly #read: (after: string | undefined) => Promise<T[]>
  #rows: T[] = []
  #last: string | undefined
  #ended = false

  constructor(read: (after: string | undefined) => Promise<T[]>) {
    this.#read = read
  }

  async peek(): Promise<T | undefined> {
    if (this.#rows.length === 0 && !this.#ended) {
      this.#rows = (await this.#read(this.#last)).reverse()
      this.#ended = this.#rows.length === 0
      this.#last = this.#rows[0]?.stream_uid
    }
    return this.#rows.at(-1)
  }

  take(): void {
    this.#rows.pop()
  }
}

/** Records in the order of streams and places, read some at a time. */
class SealedRecords {
  readonly #tx: Transaction<Database>
  #rows: SealedRecord[] = []
  #last = { streamUid: NO_UID, sequence: 0 }
  #ended = false

  constructor(tx: Transaction<Database>) {
    this.#tx = tx
  }

  async peek(): Promise<SealedRecord | undefined> {
    if (this.#rows.length === 0 && !this.#ended) {
      this.#rows = await listSealed(this.#tx, this.#last, PAGE)
      this.#ended = this.#rows.length === 0
      const last = this.#rows.at(-1)
      if (last) this.#last = { streamUid: last.stream_uid, sequence: last.sequence }
    }
    return this.#rows[0]
  }

  /** The next records of this stream; none when they are over. */
  async takeOf(stream: string): Promise<SealedRecord[]> {
    await this.peek()
    const end = this.#rows.findIndex(({ stream_uid }) => stream_uid !== stream)
    return this.#rows.splice(0, end < 0 ? this.#rows.length : end)
  }
}
