import { createHash, type Hash } from 'node:crypto'
import { HASH_BYTES, type Head, hashParts } from './chain.ts'
import { type AuditKey, isSigned, type PublicKeys, type Statement, statementBytes } from './key.ts'

/**
 * A checkpoint says where every stream ended at a time. Signed is a short statement with one hash over all ends, so
 * that a line of a few hundred bytes fixes ten thousand streams; the ends themselves stand before it in the file:
 *
 *     {"stream":"…","sequence":41,"hash":"…"}                one line for each stream, in the order of their uids
 *     {"coffer_audit_checkpoint":1,"instance":"…","counter":…,…,"signature":"…"}
 *
 * A log of checkpoints has the statements alone.
 */

const LABEL = 'coffer/audit/checkpoint/v1'
const ROOT = 'coffer/audit/root/v1'

export interface CheckpointStatement {
  /** uid of the instance */
  instance: string
  /** goes up by one with each checkpoint; one may be missing after a crash, none comes twice */
  counter: number
  /** ISO 8601, by the database's clock */
  created_at: string
  /** SHA-256 of the statement before, in hexadecimal; null: there was none */
  previous: string | null
  /** fingerprint of the key that signs it */
  key: string
  streams: number
  /** of all streams together, those that were removed after their time included */
  records: number
  /** SHA-256 over the ends of all streams, in hexadecimal */
  root: string
}

export interface SignedCheckpoint extends CheckpointStatement {
  /** in base64 */
  signature: string
}

export interface StreamEnd extends Head {
  stream: string
}

/** One hash over the ends of all streams, as they are added: in the order of their uids. */
export class Root {
  readonly #hash: Hash = createHash('sha256').update(ROOT)
  #last = ''
  streams = 0
  records = 0

  /** @throws Error when the streams are not in order */
  add({ stream, sequence, hash }: StreamEnd): void {
    if (stream <= this.#last) throw new Error('streams are not in order')
    this.#last = stream
    this.#hash.update(hashParts([stream, String(sequence), hash]))
    this.streams += 1
    this.records += sequence
  }

  digest(): string {
    return this.#hash.digest('hex')
  }
}

function statementOf(checkpoint: CheckpointStatement): Statement {
  const { instance, counter, created_at, previous, key, streams, records, root } = checkpoint
  return [LABEL, instance, counter, created_at, previous, key, streams, records, root]
}

/** What the next checkpoint names as the one before. */
export function checkpointHash(checkpoint: CheckpointStatement): Buffer {
  return createHash('sha256')
    .update(statementBytes(statementOf(checkpoint)))
    .digest()
}

export function signCheckpoint(key: AuditKey, checkpoint: CheckpointStatement): SignedCheckpoint {
  return { ...checkpoint, signature: key.sign(statementOf(checkpoint)).toString('base64') }
}

export function isCheckpointSigned(keys: PublicKeys, checkpoint: SignedCheckpoint): boolean {
  const signature = Buffer.from(checkpoint.signature, 'base64')
  return isSigned(keys, checkpoint.key, statementOf(checkpoint), signature)
}

// ---- lines ----

export function endLine({ stream, sequence, hash }: StreamEnd): string {
  return `${JSON.stringify({ stream, sequence, hash: hash.toString('hex') })}\n`
}

export function checkpointLine(checkpoint: SignedCheckpoint): string {
  return `${JSON.stringify({ coffer_audit_checkpoint: 1, ...checkpoint })}\n`
}

export type CheckpointLine = { end: StreamEnd } | { checkpoint: SignedCheckpoint }

/** Undefined when the line is neither. */
export function parseCheckpointLine(line: string): CheckpointLine | undefined {
  const value = parseObject(line)
  if (!value) return undefined
  if (value.coffer_audit_checkpoint !== 1) {
    const { stream, sequence, hash } = value
    const bytes = parseHash(hash)
    return isText(stream) && isCount(sequence) && bytes
      ? { end: { stream, sequence, hash: bytes } }
      : undefined
  }
  const { instance, counter, created_at, previous, key, streams, records, root, signature } = value
  const texts = [instance, created_at, key, root, signature].every(isText)
  const counts = [counter, streams, records].every(isCount)
  if (!texts || !counts || (previous !== null && !isText(previous))) return undefined
  const checkpoint = { instance, counter, created_at, previous, key, streams, records, root, signature }
  return { checkpoint: checkpoint as SignedCheckpoint }
}

export function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

export function isText(value: unknown): value is string {
  return typeof value === 'string'
}

export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

export function parseHash(value: unknown): Buffer | undefined {
  return isText(value) && /^[0-9a-f]+$/.test(value) && value.length === 2 * HASH_BYTES
    ? Buffer.from(value, 'hex')
    : undefined
}
