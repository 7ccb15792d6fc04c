import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto'
import { CorruptEnvelope } from '../errors.ts'

/**
 * The stored form of a value:
 *
 *   version (1 byte, 0x01) ‖ generation id (8 bytes, big-endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16)
 *
 * sealed with AES-256-GCM. The additional data are the first nine bytes, then label, collection, secret uid,
 * name and value version in decimal, each behind its length as 4 bytes big-endian: an envelope that is moved
 * to another row, or an older one that is put back, does not open.
 */
const VERSION = 1
const HEADER_BYTES = 9
const NONCE_BYTES = 12
const TAG_BYTES = 16
const LABEL = 'coffer/v1/value'
export const ENVELOPE_OVERHEAD = HEADER_BYTES + NONCE_BYTES + TAG_BYTES

/** Where a value belongs; what the envelope is bound to. */
export interface ValueContext {
  /** canonical string, e.g. `codespaces/repository/<uid>` */
  collection: string
  secretUid: string
  name: string
  /** counts the values that this secret has had, from 1 */
  valueVersion: number
}

function additionalData(header: Uint8Array, context: ValueContext): Buffer {
  const parts: Uint8Array[] = [header]
  for (const text of [
    LABEL,
    context.collection,
    context.secretUid,
    context.name,
    String(context.valueVersion)
  ]) {
    const bytes = Buffer.from(text, 'utf8')
    const length = Buffer.alloc(4)
    length.writeUInt32BE(bytes.length)
    parts.push(length, bytes)
  }
  return Buffer.concat(parts)
}

/** The nonce is a parameter so that the committed vectors can be checked; everybody else leaves it out. */
export function sealEnvelope(
  key: Uint8Array,
  generationId: bigint,
  context: ValueContext,
  plaintext: Uint8Array,
  nonce: Uint8Array = randomFillSync(Buffer.alloc(NONCE_BYTES))
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(VERSION)
  header.writeBigUInt64BE(generationId, 1)
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(additionalData(header, context))
  const ciphertext = cipher.update(plaintext)
  cipher.final()
  return Buffer.concat([header, nonce, ciphertext, cipher.getAuthTag()])
}

/** The generation whose key opens it; throws `CorruptEnvelope` when it is no envelope of this version. */
export function readGenerationId(envelope: Buffer): bigint {
  if (envelope.length < ENVELOPE_OVERHEAD || envelope.readUInt8() !== VERSION) throw new CorruptEnvelope()
  return envelope.readBigUInt64BE(1)
}

/** Throws `CorruptEnvelope` when a bit, the key or the context is not the one it was sealed with. */
export function openEnvelope(key: Uint8Array, context: ValueContext, envelope: Buffer): Buffer {
  const header = envelope.subarray(0, HEADER_BYTES)
  const nonce = envelope.subarray(HEADER_BYTES, HEADER_BYTES + NONCE_BYTES)
  const ciphertext = envelope.subarray(HEADER_BYTES + NONCE_BYTES, envelope.length - TAG_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(additionalData(header, context))
  decipher.setAuthTag(envelope.subarray(envelope.length - TAG_BYTES))
  const plaintext = decipher.update(ciphertext)
  try {
    decipher.final()
    return plaintext
  } catch {
    plaintext.fill(0)
    throw new CorruptEnvelope()
  }
}
