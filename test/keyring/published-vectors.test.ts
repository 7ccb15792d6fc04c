import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import t from 'tap'
import nacl from 'tweetnacl'
import { derive, KEY_BYTES } from '../../src/keyring/derivation.ts'
import { boxKeyPair } from '../../src/keyring/sealed-box.ts'
import aes from '../vectors/aes-256-gcm.json' with { type: 'json' }
import hkdf from '../vectors/hkdf-sha256.json' with { type: 'json' }
import x25519 from '../vectors/x25519.json' with { type: 'json' }

// The primitives, called as the keyring calls them, give what their specifications print.

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const multiply = (scalar: Uint8Array, point: Uint8Array) => Buffer.from(nacl.scalarMult(scalar, point))

t.test('HKDF gives the values of RFC 5869, as far as a key is long', async (t) => {
  t.equal(hkdf.vectors.length, 3)
  for (const { section, ikm, salt, info, okm } of hkdf.vectors) {
    const derived = derive(bytes(ikm), bytes(info), bytes(salt))
    t.equal(derived.toString('hex'), okm.slice(0, KEY_BYTES * 2), section)
  }
})

t.test("HKDF gives what Node's own gives", async (t) => {
  for (const infoBytes of [0, 1, 55, 56, 64, 200]) {
    const [material, info] = [randomBytes(32), randomBytes(infoBytes).toString('base64')]
    const theirs = Buffer.from(hkdfSync('sha256', material, new Uint8Array(0), info, KEY_BYTES))
    t.strictSame(derive(material, info), theirs, info)
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
