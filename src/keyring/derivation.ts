import { hkdfSync } from 'node:crypto'
import { secureCopy } from './memory.ts'

/**
 * Every key below a generation is derived with HKDF-SHA256 (RFC 5869), without salt: the input is already
 * 32 uniformly random bytes, so extraction needs none (section 3.1). `info` separates the purposes; a slash
 * cannot occur in an app, a kind or a uid, so no two of these strings coincide.
 */
const NO_SALT = new Uint8Array(0)
export const KEY_BYTES = 32

/** In ordinary memory, for a key that its user zeroes at once; `secureCopy` moves one that stays. */
function derive(generation: Uint8Array, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', generation, NO_SALT, info, KEY_BYTES))
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
