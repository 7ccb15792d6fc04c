import nacl from 'tweetnacl'
import sealedBox from 'tweetnacl-sealedbox-js'
import { ImproperlyEncrypted } from '../errors.ts'
import { sodium } from './memory.ts'

/**
 * Sealed boxes are libsodium's `crypto_box_seal`: an ephemeral X25519 public key (32 bytes) and an
 * XSalsa20-Poly1305 box (tag of 16 bytes) whose nonce is BLAKE2b(ephemeral key ‖ recipient key).
 * https://doc.libsodium.org/public-key_cryptography/sealed_boxes
 */
export const SEALED_BOX_OVERHEAD = 48

/** GitHub's pattern for `encrypted_value`: standard alphabet, mandatory padding, no white space. */
export const BASE64_PATTERN =
  '^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$'
const BASE64 = new RegExp(BASE64_PATTERN)

export interface BoxKeyPair {
  publicKey: Buffer
  secretKey: Buffer
}

/** Opens with the pair, or gives undefined: every failure, whatever its cause, is the same one. */
export type OpenSealedBox = (sealed: Buffer, pair: BoxKeyPair) => Buffer | undefined

/** The bytes of a sealed box from its standard base64; says which check failed, and echoes nothing. */
export function decodeSealedBox(text: string): Buffer {
  if (!BASE64.test(text)) throw new ImproperlyEncrypted('encrypted_value is not standard, padded base64')
  const sealed = Buffer.from(text, 'base64')
  if (sealed.length < SEALED_BOX_OVERHEAD) {
    throw new ImproperlyEncrypted(
      `encrypted_value is shorter than a sealed box: it decodes to fewer than ${SEALED_BOX_OVERHEAD} bytes`
    )
  }
  return sealed
}

export function boxKeyPair(secretKey: Buffer): BoxKeyPair {
  if (!sodium) return { publicKey: Buffer.from(nacl.scalarMult.base(secretKey)), secretKey }
  const publicKey = Buffer.alloc(nacl.box.publicKeyLength)
  sodium.crypto_scalarmult_base(publicKey, secretKey)
  return { publicKey, secretKey }
}

/** Only where sodium-native loads. */
export const openWithSodium: OpenSealedBox = (sealed, { publicKey, secretKey }) => {
  const plaintext = Buffer.allocUnsafeSlow(sealed.length - SEALED_BOX_OVERHEAD)
  const opened = sodium!.crypto_box_seal_open(plaintext, sealed, publicKey, secretKey)
  return opened ? plaintext : undefined
}

/**
 * The fallback in JavaScript. TweetNaCl does not refuse ephemeral keys of low order, with which anybody knows
 * the shared secret; libsodium does (RFC 7748, section 6.1: the all-zero check).
 */
export const openWithTweetnacl: OpenSealedBox = (sealed, { publicKey, secretKey }) => {
  const shared = nacl.scalarMult(secretKey, sealed.subarray(0, nacl.box.publicKeyLength))
  const lowOrder = shared.every((byte) => byte === 0)
  shared.fill(0)
  if (lowOrder) return undefined
  const plaintext = sealedBox.open(sealed, publicKey, secretKey)
  return plaintext ? Buffer.from(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength) : undefined
}

export const openSealedBox: OpenSealedBox = sodium ? openWithSodium : openWithTweetnacl
