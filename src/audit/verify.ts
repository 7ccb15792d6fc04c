import { genesis, link } from './chain.ts'
import { isCount, isText, parseHash, parseObject } from './checkpoint.ts'
import type { Evidence, Mark } from './evidence.ts'
import type { PublicKeys } from './key.ts'
import { isPruningSigned, parsePruning } from './pruning.ts'
import { differingColumn, parseCanonical } from './record.ts'

/** Something that does not fit; the first is where whoever altered the log began, as far as it can be told. */
export interface Finding {
  stream?: string
  sequence?: number
  /** of the record */
  id?: number
  reason: string
}

export interface Verification {
  instance: string
  created_at: string
  records: number
  streams: number
  /** recorded in the last moments before the export, and not in it */
  unsealed: number
  /** the first of them */
  findings: Finding[]
  /** of all */
  found: number
  /** what the verification cannot say, or what explains something */
  notes: string[]
  /** the export says that records were removed after their time, and no key was given to check that */
  needsKey: boolean
}

/** What is verified is no export at all. */
export class NotAnExport extends Error {}

const KEPT_FINDINGS = 100
const STALE_MS = 24 * 3_600_000

/**
 * Verifies an export, line by line, with nothing but public keys and the checkpoints that were kept: each record
 * against its place in the chain of its stream, its columns against what was sealed, and each stream against where
 * checkpoints say that it was.
 */
export async function verifyExport(
  lines: AsyncIterable<string>,
  evidence: Evidence,
  keys: PublicKeys,
  onProgress: (records: number) => void = () => {}
): Promise<Verification> {
  let verifier: Verifier | undefined
  for await (const line of lines) {
    if (!verifier) verifier = new Verifier(line, evidence, keys)
    else verifier.read(line)
    onProgress(verifier.records)
  }
  if (!verifier) throw new NotAnExport()
  return verifier.end()
}

interface Stream {
  uid: string
  /** the last place that was read; its hash is undefined when it cannot be known */
  sequence: number
  hash: Buffer | undefined
  /** up to where it was removed */
  pruned: number
  ended: boolean
}

class Verifier {
  readonly #evidence: Evidence
  readonly #keys: PublicKeys
  readonly #instance: string
  readonly #createdAt: string
  readonly #checkpoint: number
  readonly #findings: Finding[] = []
  readonly #notes: string[] = []
  readonly #seen = new Set<string>()
  records = 0
  #found = 0
  #line = 1
  #unsealed = 0
  #needsKey = false
  #covered = 0
  #stream: Stream | undefined
  #trailer: Record<string, unknown> | undefined

  constructor(header: string, evidence: Evidence, keys: PublicKeys) {
    const { coffer_audit_export, instance, created_at, checkpoint } = parseObject(header) ?? {}
    if (coffer_audit_export !== 1 || !isText(instance) || !isText(created_at) || !isCount(checkpoint)) {
      throw new NotAnExport()
    }
    this.#instance = instance
    this.#createdAt = created_at
    this.#checkpoint = checkpoint
    this.#evidence = evidence
    this.#keys = keys
    for (const reason of evidence.problems) this.#find({ reason })
    const { newest } = evidence
    if (newest && newest.instance !== instance) {
      this.#find({
        reason: `the checkpoint is of the instance ${newest.instance}, the export of ${instance}`
      })
    }
  }

  read(text: string): void {
    this.#line += 1
    if (text === '') return
    const line = parseObject(text)
    if (this.#trailer) this.#find({ reason: `line ${this.#line} comes behind the end of the export` })
    else if (!line) this.#find({ reason: `line ${this.#line} is none of an export` })
    else if (line.end_of_export === true) this.#trailer = line
    else if ('stray' in line) this.#readStray(line)
    else if (isText(line.stream)) this.#readStream(line.stream, line)
    else this.#find({ reason: `line ${this.#line} is none of an export` })
  }

  end(): Verification {
    this.#close()
    for (const [stream, marks] of this.#evidence.marks) {
      if (this.#seen.has(stream)) continue
      const { sequence, counter } = furthest(marks)
      this.#find({
        stream,
        sequence: 1,
        reason: `the whole stream is missing: checkpoint ${counter} has ${sequence} records of it${this.#perhapsOlder(counter)}`
      })
    }
    this.#readTrailer()
    this.#addNotes()
    return {
      instance: this.#instance,
      created_at: this.#createdAt,
      records: this.records,
      streams: this.#seen.size,
      unsealed: this.#unsealed,
      findings: this.#findings,
      found: this.#found,
      notes: this.#notes,
      needsKey: this.#needsKey
    }
  }

  #find(finding: Finding): void {
    this.#found += 1
    if (this.#findings.length < KEPT_FINDINGS) this.#findings.push(finding)
  }

  // ---- streams ----

  #readStream(uid: string, line: Record<string, unknown>): void {
    if (this.#stream?.uid !== uid) {
      this.#close()
      if (this.#seen.has(uid)) this.#find({ stream: uid, reason: 'its lines are not together' })
      this.#seen.add(uid)
      this.#stream = { uid, sequence: 0, hash: genesis(this.#instance, uid), pruned: 0, ended: false }
    }
    const stream = this.#stream
    if (stream.ended) this.#find({ stream: uid, reason: 'something comes behind its end' })
    if ('pruned' in line) this.#readPruning(stream, line.pruned)
    else if ('end' in line) this.#readEnd(stream, line.end)
    else this.#readRecord(stream, line)
  }

  #readPruning(stream: Stream, value: unknown): void {
    const pruning = parsePruning(stream.uid, value)
    const { uid } = stream
    if (!pruning || stream.sequence > 0 || pruning.through < 1) {
      this.#find({
        stream: uid,
        reason: 'the word that its beginning was removed is not whole, or not at the beginning'
      })
      return
    }
    const { through, hash, key } = pruning
    if (this.#keys.size === 0) this.#needsKey = true
    else if (!isPruningSigned(this.#keys, this.#instance, pruning)) {
      this.#find({
        stream: uid,
        sequence: 1,
        reason: `sequence 1 to ${through} were removed, and the word for it is not signed by a given key (it names ${key})`
      })
    }
    Object.assign(stream, { sequence: through, hash, pruned: through })
    this.#compare(stream, through, hash)
  }

  #readRecord(stream: Stream, line: Record<string, unknown>): void {
    const { sequence, id } = line
    const hash = parseHash(line.hash)
    if (!isCount(sequence) || !isCount(id) || !hash) {
      this.#find({ stream: stream.uid, reason: `line ${this.#line} is no record` })
      return
    }
    this.records += 1
    const where = { stream: stream.uid, sequence, id }
    const expected = stream.sequence + 1
    if (sequence < expected) {
      this.#find({
        ...where,
        reason: `it is out of order, or there twice: sequence ${expected} should come here`
      })
      return
    }
    if (sequence > expected) this.#findGap(stream, expected, sequence - 1, where)
    const reason = this.#problemOf(
      stream,
      sequence === expected ? stream.hash : undefined,
      sequence,
      hash,
      line
    )
    if (reason) this.#find({ ...where, reason })
    stream.sequence = sequence
    stream.hash = hash
    this.#compare(stream, sequence, hash, id)
  }

  #findGap(stream: Stream, first: number, last: number, where: Omit<Finding, 'reason'>): void {
    const range = first === last ? `sequence ${first} is` : `sequence ${first} to ${last} are`
    const beginning =
      stream.sequence === 0 ? ' at the beginning, without a signed word that they were removed' : ''
    this.#find({ ...where, reason: `${range} missing before it${beginning}` })
  }

  /** What is wrong with one record by itself; `previous` is undefined where the one before is missing. */
  #problemOf(
    stream: Stream,
    previous: Buffer | undefined,
    sequence: number,
    hash: Buffer,
    line: Record<string, unknown>
  ): string | undefined {
    const canonical = readCanonical(line)
    if (!canonical) return 'its place in the chain is there, and the record itself is gone'
    if (previous && !link(previous, sequence, canonical).equals(hash)) {
      return 'it is not what was sealed: its canonical bytes or its hash were altered, or it was exchanged for another'
    }
    const sealed = parseCanonical(canonical)
    if (!sealed) return 'its canonical bytes are of no form that is known'
    if (sealed.stream_uid !== stream.uid) return 'it belongs to another stream'
    const column = differingColumn(parseColumns(line.columns), sealed)
    if (column) return `the column ${column} is not what was sealed`
    if (sealed.action === 'instance.restore') {
      this.#notes.push(
        `A restore is recorded at sequence ${sequence} of the stream ${stream.uid} (${sealed.name}): what was recorded ` +
          'after that backup and before the restore is not in the database any more.'
      )
    }
    return undefined
  }

  #readEnd(stream: Stream, value: unknown): void {
    stream.ended = true
    const { sequence, hash } = (value ?? {}) as Record<string, unknown>
    const { uid } = stream
    if (!isCount(sequence) || !parseHash(hash)) {
      this.#find({ stream: uid, reason: 'its recorded end cannot be read' })
    } else if (sequence > stream.sequence) {
      this.#find({
        stream: uid,
        sequence: stream.sequence + 1,
        reason: `it is missing: the recorded end of the stream is sequence ${sequence}`
      })
    } else if (sequence < stream.sequence || (stream.hash && !stream.hash.equals(parseHash(hash)!))) {
      this.#find({ stream: uid, sequence, reason: 'the recorded end of the stream is not its last record' })
    }
  }

  /** Against what checkpoints say of this place. */
  #compare(stream: Stream, sequence: number, hash: Buffer, id?: number): void {
    for (const mark of this.#evidence.marks.get(stream.uid) ?? []) {
      if (mark.sequence !== sequence || mark.hash.equals(hash)) continue
      this.#find({
        stream: stream.uid,
        sequence,
        ...(id !== undefined && { id }),
        reason: `checkpoint ${mark.counter} has another hash here: this record or one before it was altered, and the chain computed anew`
      })
    }
  }

  #close(): void {
    const stream = this.#stream
    if (!stream) return
    this.#stream = undefined
    if (!stream.ended) this.#find({ stream: stream.uid, reason: 'its recorded end is missing' })
    const marks = this.#evidence.marks.get(stream.uid) ?? []
    if (marks.length === 0) return
    const { sequence, counter } = furthest(marks)
    this.#covered += Math.min(sequence, stream.sequence)
    if (sequence <= stream.sequence) return
    this.#find({
      stream: stream.uid,
      sequence: stream.sequence + 1,
      reason: `it is missing, and all after it: checkpoint ${counter} has ${sequence} records of this stream${this.#perhapsOlder(counter)}`
    })
  }

  #perhapsOlder(counter: number): string {
    const older =
      counter > this.#checkpoint &&
      this.#evidence.newest &&
      this.#createdAt < this.#evidence.newest.created_at
    return older ? ' (or the export is older than the checkpoint: take another one)' : ''
  }

  // ---- the rest ----

  #readStray({ stray, canonical, columns }: Record<string, unknown>): void {
    this.#close()
    const sealed = isText(canonical) ? parseCanonical(Buffer.from(canonical)) : undefined
    const uid = sealed?.stream_uid ?? parseColumns(columns).stream_uid
    this.#find({
      ...(isText(uid) && { stream: uid }),
      ...(isCount(stray) && { id: stray }),
      reason: 'it is in no chain: it was put into the database later than it says'
    })
  }

  #readTrailer(): void {
    const { records, streams, unsealed } = this.#trailer ?? {}
    if (!this.#trailer) this.#find({ reason: 'the export ends without its last line: it was cut' })
    else if (records !== this.records || streams !== this.#seen.size) {
      this.#find({
        reason: `the export says that it has ${records} records in ${streams} streams, and has others`
      })
    }
    if (isCount(unsealed)) this.#unsealed = unsealed
  }

  #addNotes(): void {
    const { newest, newestStatement } = this.#evidence
    if (this.#unsealed > 0) {
      this.#notes.push(
        `${this.#unsealed} records of the last moments were not sealed yet, and are not in the export.`
      )
    }
    if (!newest) {
      this.#notes.push(
        'Without a checkpoint it cannot be seen whether the tail of a stream was cut, a whole stream removed, or a ' +
          'chain computed anew: give --checkpoint with the copy of checkpoint.jsonl that you keep elsewhere.'
      )
      return
    }
    const known = Math.max(this.#checkpoint, newestStatement?.counter ?? 0)
    const older = known > newest.counter ? `; the newest that is known of is ${known}` : ''
    this.#notes.push(
      `Checkpoint ${newest.counter} of ${newest.created_at} covers ${this.#covered} records${older}. What was cut ` +
        'behind it cannot be seen.'
    )
    if (Date.parse(this.#createdAt) - Date.parse(newest.created_at) > STALE_MS) {
      this.#notes.push(
        'The checkpoint is more than a day older than the export: it may be replayed; keep newer ones.'
      )
    }
    if (this.#checkpoint < newest.counter && this.#createdAt > newest.created_at) {
      this.#notes.push(
        `The database knows of checkpoints up to ${this.#checkpoint} only, though it was exported later: it was ` +
          'replaced by an older state of itself.'
      )
    }
  }
}

function furthest(marks: readonly Mark[]): Mark {
  return marks.reduce((a, b) => (b.sequence > a.sequence ? b : a))
}

function readCanonical({ canonical, canonical_base64 }: Record<string, unknown>): Buffer | undefined {
  if (isText(canonical)) return Buffer.from(canonical)
  return isText(canonical_base64) ? Buffer.from(canonical_base64, 'base64') : undefined
}

function parseColumns(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
