import { createHash } from 'node:crypto'

/**
 * The chain of a stream: SHA-256 over the hash before, the place, and the record's canonical bytes. So one hash
 * stands for all that came before it, and for the instance and the stream, which the first one begins with.
 *
 * Each part has its length before it, as 4 bytes, big-endian: no two lists of parts give the same bytes.
 */

export const HASH_BYTES = 32

const GENESIS = 'coffer/audit/genesis/v1'
const LINK = 'coffer/audit/link/v1'

/** SHA-256 of parts, each with its length before it. */
export function hashParts(parts: readonly (string | Uint8Array)[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part
    const length = Buffer.allocUnsafe(4)
    length.writeUInt32BE(bytes.length)
    hash.update(length).update(bytes)
  }
  return hash.digest()
}

/** What the first record of a stream follows. */
export function genesis(instanceUid: string, streamUid: string): Buffer {
  return hashParts([GENESIS, instanceUid, streamUid])
}

/** @param sequence the place of the record in its stream, from 1 */
export function link(previous: Uint8Array, sequence: number, canonical: Uint8Array): Buffer {
  return hashParts([LINK, previous, String(sequence), canonical])
}

/** The last place of a stream. */
export interface Head {
  /** 0: nothing is sealed yet. Since places have no gaps, it is the number of records, too */
  sequence: number
  hash: Buffer
}

/** The place that a record gets after a head. */
export function append({ sequence, hash }: Head, canonical: Uint8Array): Head {
  return { sequence: sequence + 1, hash: link(hash, sequence + 1, canonical) }
}
