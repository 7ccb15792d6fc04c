import { isCount, isText, parseHash } from './checkpoint.ts'
import { type AuditKey, isSigned, type PublicKeys, type Statement } from './key.ts'

/**
 * The word that the beginning of a stream was removed after its time, signed by the key that signs checkpoints.
 * Since places begin at 1 and have no gaps, `through` is also how many records were removed in all.
 */
export interface Pruning {
  stream: string
  /** the last place that was removed */
  through: number
  /** the hash at that place: what the first record that is left follows */
  hash: Buffer
  /** records from before this were removed, ISO 8601 */
  before: string
  pruned_at: string
}

export interface SignedPruning extends Pruning {
  /** fingerprint */
  key: string
  signature: Buffer
}

const LABEL = 'coffer/audit/pruning/v1'

function statementOf(instanceUid: string, key: string, pruning: Pruning): Statement {
  const { stream, through, hash, before, pruned_at } = pruning
  return [LABEL, instanceUid, stream, through, hash.toString('hex'), before, pruned_at, key]
}

export function signPruning(key: AuditKey, instanceUid: string, pruning: Pruning): SignedPruning {
  const signature = key.sign(statementOf(instanceUid, key.fingerprint, pruning))
  return { ...pruning, key: key.fingerprint, signature }
}

export function isPruningSigned(keys: PublicKeys, instanceUid: string, pruning: SignedPruning): boolean {
  return isSigned(keys, pruning.key, statementOf(instanceUid, pruning.key, pruning), pruning.signature)
}

/** As a line of an export has it. */
export function presentPruning({ through, hash, before, pruned_at, key, signature }: SignedPruning) {
  return {
    through,
    hash: hash.toString('hex'),
    before,
    pruned_at,
    key,
    signature: signature.toString('base64')
  }
}

/** Undefined when it is none. */
export function parsePruning(stream: string, value: unknown): SignedPruning | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { through, hash, before, pruned_at, key, signature } = value as Record<string, unknown>
  const bytes = parseHash(hash)
  if (
    !bytes ||
    !isCount(through) ||
    !isText(before) ||
    !isText(pruned_at) ||
    !isText(key) ||
    !isText(signature)
  ) {
    return undefined
  }
  return { stream, through, hash: bytes, before, pruned_at, key, signature: Buffer.from(signature, 'base64') }
}
