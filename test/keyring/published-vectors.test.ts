import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto'
import t from 'tap'
import nacl from 'tweetnacl'
import { boxKeyPair } from '../../src/keyring/sealed-box.ts'
import aes from '../vectors/aes-256-gcm.json' with { type: 'json' }
import hkdf from '../vectors/hkdf-sha256.json' with { type: 'json' }
import x25519 from '../vectors/x25519.json' with { type: 'json' }

// The primitives, called as the keyring calls them, give what their specifications print.

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const multiply = (scalar: Uint8Array, point: Uint8Array) => Buffer.from(nacl.scalarMult(scalar, point))

t.test("node's HKDF gives the values of RFC 5869", async (t) => {
  t.equal(hkdf.vectors.length, 3)
  for (const { section, ikm, salt, info, length, okm } of hkdf.vectors) {
    const derived = hkdfSync('sha256', bytes(ikm), bytes(salt), bytes(info), length)
    t.equal(Buffer.from(derived).toString('hex'), okm, section)
  }
})

t.test('X25519 gives the values of RFC 7748', async (t) => {
  for (const { scalar, u, output } of x25519.function) {
    t.equal(multiply(bytes(scalar), bytes(u)).toString('hex'), output)
  }
  let scalar: Buffer = Buffer.alloc(32)
  scalar[0] = 9
  let point = scalar
  for (let round = 1; round <= 1000; round++) {
    const next = multiply(scalar, point)
    point = scalar
    scalar = next
    if (round === 1) t.equal(scalar.toString('hex'), x25519.iterated.once)
  }
  t.equal(scalar.toString('hex'), x25519.iterated.thousandTimes)

  const { aliceSecretKey, alicePublicKey, bobSecretKey, bobPublicKey, sharedSecret } = x25519.diffieHellman
  t.equal(multiply(bytes(aliceSecretKey), bytes(bobPublicKey)).toString('hex'), sharedSecret)
  t.equal(multiply(bytes(bobSecretKey), bytes(alicePublicKey)).toString('hex'), sharedSecret)
  t.equal(boxKeyPair(bytes(aliceSecretKey)).publicKey.toString('hex'), alicePublicKey)
  t.equal(boxKeyPair(bytes(bobSecretKey)).publicKey.toString('hex'), bobPublicKey)
})

t.test("AES-256-GCM gives the values of its authors' test cases", async (t) => {
  t.equal(aes.vectors.length, 4)
  for (const vector of aes.vectors) {
    const [key, nonce, additionalData] = [vector.key, vector.nonce, vector.additionalData].map(bytes)
    const cipher = createCipheriv('aes-256-gcm', key!, nonce!, { authTagLength: 16 }).setAAD(additionalData!)
    const ciphertext = Buffer.concat([cipher.update(bytes(vector.plaintext)), cipher.final()])
    t.equal(ciphertext.toString('hex'), vector.ciphertext, `case ${vector.case}`)
    t.equal(cipher.getAuthTag().toString('hex'), vector.tag, `case ${vector.case}`)

    const decipher = createDecipheriv('aes-256-gcm', key!, nonce!, { authTagLength: 16 })
    decipher.setAAD(additionalData!).setAuthTag(bytes(vector.tag))
    const plaintext = Buffer.concat([decipher.update(ciphertext), decipher.final()])
    t.equal(plaintext.toString('hex'), vector.plaintext, `case ${vector.case}`)
  }
})
