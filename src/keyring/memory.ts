import { createRequire } from 'node:module'

/** The part of sodium-native that the keyring uses; absent where its binding does not load (musl). */
export interface Sodium {
  sodium_malloc(size: number): Buffer
  crypto_scalarmult_base(publicKey: Buffer, secretKey: Buffer): void
  crypto_box_seal_open(message: Buffer, sealed: Buffer, publicKey: Buffer, secretKey: Buffer): boolean
}

export const sodium: Sodium | undefined = load()

function load(): Sodium | undefined {
  try {
    return createRequire(import.meta.url)('sodium-native')
  } catch {
    return undefined
  }
}

/**
 * Key material that stays, in memory of its own, outside the heap and never swapped where libsodium can have
 * it so. The source is zeroed. Best effort: what Node or OpenSSL copied on the way is out of reach.
 *
 * Not for a key of one call: each piece takes several mappings of the process, which only the garbage
 * collector gives back, and some 20,000 that wait for it end the process.
 */
export function secureCopy(source: Uint8Array): Buffer {
  const copy = sodium ? sodium.sodium_malloc(source.byteLength) : Buffer.allocUnsafeSlow(source.byteLength)
  copy.set(source)
  source.fill(0)
  return copy
}
