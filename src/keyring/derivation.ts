import { createHmac } from 'node:crypto'
import { secureCopy } from './memory.ts'

/**
 * Every key below a generation is derived with HKDF-SHA256 (RFC 5869), without salt: the input is already
 * 32 uniformly random bytes, so extraction needs none (section 3.1). `info` separates the purposes; a slash
 * cannot occur in an app, a kind or a uid, so no two of these strings coincide.
 */
const NO_SALT = new Uint8Array(0)
export const KEY_BYTES = 32

/** Of one hash's length, so that expansion has one block, whose number is 1. */
const FIRST_BLOCK = Uint8Array.of(1)

/**
 * HKDF-SHA256 as RFC 5869 defines it (sections 2.2 and 2.3): Node's own costs as much as the rest of opening a value.
 * Without salt HMAC's key is zeros, as an empty one is. The salt is a parameter for the RFC's test cases.
 *
 * @returns 32 bytes in ordinary memory, for a key that its user zeroes at once; `secureCopy` moves one that stays
 */
export function derive(material: Uint8Array, info: string | Uint8Array, salt: Uint8Array = NO_SALT): Buffer {
  const extracted = createHmac('sha256', salt).update(material).digest()
  const key = createHmac('sha256', extracted).update(info).update(FIRST_BLOCK).digest()
  extracted.fill(0)
  return key
}

/** X25519 secret key of a collection, used as it is (not as a seed); 32 bytes. */
export function deriveBoxSecretKey(generation: Uint8Array, collection: string): Buffer {
  return secureCopy(derive(generation, `coffer/v1/sealed-box/${collection}`))
}

/**
 * AES-256-GCM key of one secret under one generation; 32 bytes. One key per secret keeps the number of random
 * 96-bit nonces under a key far below 2^32 (NIST SP 800-38D, 8.3).
 */
export function deriveValueKey(generation: Uint8Array, collection: string, secretUid: string): Buffer {
  return derive(generation, `coffer/v1/value/${collection}/${secretUid}`)
}

/** Key for MACs over values of a collection; 32 bytes. */
export function deriveDigestKey(generation: Uint8Array, collection: string): Buffer {
  return derive(generation, `coffer/v1/digest/${collection}`)
}

/** Key that wraps generations under a master key; 32 bytes. */
export function deriveWrappingKey(masterKey: Uint8Array): Buffer {
  return secureCopy(derive(masterKey, 'coffer/v1/master-key/wrap'))
}

/** What names a master key in public: 16 hex digits that do not help to find the key. */
export function deriveFingerprint(masterKey: Uint8Array): string {
  return derive(masterKey, 'coffer/v1/master-key/fingerprint').toString('hex', 0, 8)
}
