import { generateKeyPair, hash } from 'node:crypto'
import { promisify } from 'node:util'

const MODULUS_BITS = 2048

export interface AppKey {
  /** PKCS#1 in PEM, the form in which GitHub gives it; shown once, stored nowhere */
  pem: string
  /** SPKI in DER: all that is stored */
  publicKey: Buffer
}

/** A new key pair with which a GitHub App signs its JWTs. */
export async function makeAppKey(): Promise<AppKey> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', {
    modulusLength: MODULUS_BITS,
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' }
  })
  return { pem: privateKey, publicKey }
}

/**
 * SHA-256 of a public key (SPKI in DER), in base64, as GitHub shows it. The same comes of a private key with
 * `openssl rsa -in KEY.pem -pubout -outform DER | openssl sha256 -binary | openssl base64`.
 */
export function fingerprintOf(publicKey: Buffer): string {
  return `SHA256:${hash('sha256', publicKey, 'base64')}`
}
