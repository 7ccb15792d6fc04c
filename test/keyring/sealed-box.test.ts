import { createHash, randomBytes } from 'node:crypto'
import libsodium from 'libsodium-wrappers'
import t, { type Test } from 'tap'
import nacl from 'tweetnacl'
import sealedBox from 'tweetnacl-sealedbox-js'
import { ImproperlyEncrypted } from '../../src/errors.ts'
import {
  boxKeyPair,
  decodeSealedBox,
  type OpenSealedBox,
  openSealedBox,
  openWithSodium,
  openWithTweetnacl,
  SEALED_BOX_OVERHEAD
} from '../../src/keyring/sealed-box.ts'
import vectors from '../vectors/sealed-boxes.json' with { type: 'json' }
import x25519 from '../vectors/x25519.json' with { type: 'json' }

await libsodium.ready

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const patternOf = (length: number) =>
  Buffer.from(Array.from({ length }, (_, index) => (31 * index + 7) % 256))
const OPENERS: Readonly<Record<string, OpenSealedBox>> = {
  sodium: openWithSodium,
  tweetnacl: openWithTweetnacl
}

function opensInBoth(t: Test, sealed: Buffer, secretKey: Buffer, value: Uint8Array, what: string): void {
  for (const [name, open] of Object.entries(OPENERS)) {
    t.ok(open(sealed, boxKeyPair(secretKey))?.equals(value), `${what}, ${name}`)
  }
}

function refusedByBoth(t: Test, sealed: Buffer, secretKey: Buffer, what: string): void {
  for (const [name, open] of Object.entries(OPENERS)) {
    t.equal(open(sealed, boxKeyPair(secretKey)), undefined, `${what}, ${name}`)
  }
}

t.test('boxes that libsodium made open to the value', async (t) => {
  t.equal(openSealedBox, openWithSodium, 'sodium-native loads here, so that both ways are tested')
  t.same(
    vectors.boxes.map(({ valueLength }) => valueLength),
    [0, 1, 32, 1024]
  )
  for (const { secretKey, publicKey, valueLength, sealedBox } of vectors.boxes) {
    t.equal(boxKeyPair(bytes(secretKey)).publicKey.toString('hex'), publicKey)
    const sealed = decodeSealedBox(sealedBox)
    t.equal(sealed.length, valueLength + 48)
    opensInBoth(t, sealed, bytes(secretKey), patternOf(valueLength), `${valueLength} bytes`)
  }
})

t.test('a box of the largest value opens', async (t) => {
  const { secretKey, publicKey, ephemeralSecretKey, valueLength, sealedBoxSha256 } = vectors.large
  t.equal(valueLength, 49_152)
  const ephemeralKey = libsodium.crypto_scalarmult_base(bytes(ephemeralSecretKey))
  const nonce = libsodium.crypto_generichash(24, Buffer.concat([ephemeralKey, bytes(publicKey)]), null)
  const box = libsodium.crypto_box_easy(
    patternOf(valueLength),
    nonce,
    bytes(publicKey),
    bytes(ephemeralSecretKey)
  )
  const sealed = Buffer.concat([ephemeralKey, box])
  t.equal(createHash('sha256').update(sealed).digest('hex'), sealedBoxSha256)
  opensInBoth(
    t,
    decodeSealedBox(sealed.toString('base64')),
    bytes(secretKey),
    patternOf(valueLength),
    'large'
  )
})

t.test('a box with any byte changed, cut or extended is refused', async (t) => {
  const { secretKey, sealedBox, valueLength } = vectors.boxes[2]!
  const sealed = Buffer.from(sealedBox, 'base64')
  const key = bytes(secretKey)
  opensInBoth(t, sealed, key, patternOf(valueLength), 'unchanged')
  for (let index = 0; index < sealed.length; index++) {
    const flipped = Buffer.from(sealed)
    flipped[index]! ^= 1 << (index % 8)
    refusedByBoth(t, flipped, key, `byte ${index}`)
  }
  for (let length = SEALED_BOX_OVERHEAD; length < sealed.length; length++) {
    refusedByBoth(t, sealed.subarray(0, length), key, `the first ${length} bytes`)
  }
  refusedByBoth(t, sealed.subarray(1), key, 'without its first byte')
  refusedByBoth(t, Buffer.concat([sealed, Buffer.alloc(1)]), key, 'a byte more')
  refusedByBoth(t, Buffer.concat([sealed, sealed]), key, 'twice')
})

t.test('the top bit of the ephemeral key counts, though X25519 ignores it', async (t) => {
  const { secretKey, sealedBox } = vectors.boxes[2]!
  const sealed = Buffer.from(sealedBox, 'base64')
  sealed[31]! ^= 0x80
  refusedByBoth(t, sealed, bytes(secretKey), 'the nonce is made of all its bits')
})

t.test('a box for another key is refused', async (t) => {
  const [first, second] = [vectors.boxes[1]!, vectors.boxes[2]!]
  refusedByBoth(t, Buffer.from(first.sealedBox, 'base64'), bytes(second.secretKey), 'another key')
  for (const open of Object.values(OPENERS)) {
    const pair = {
      secretKey: bytes(first.secretKey),
      publicKey: boxKeyPair(bytes(second.secretKey)).publicKey
    }
    t.equal(open(Buffer.from(first.sealedBox, 'base64'), pair), undefined, 'the right key, not as recipient')
  }
})

/** What anybody can make: with these points every secret key, also another one, gives the same shared key. */
function forge(point: Buffer, publicKey: Uint8Array, value: Uint8Array): Buffer {
  const key = nacl.box.before(point, randomBytes(32))
  const nonce = libsodium.crypto_generichash(24, Buffer.concat([point, publicKey]), null)
  return Buffer.concat([point, nacl.secretbox(value, nonce, key)])
}

t.test('ephemeral keys of low order are refused, whatever they come with', async (t) => {
  t.equal(x25519.lowOrderPoints.length, 7)
  const pair = boxKeyPair(Buffer.from(x25519.diffieHellman.aliceSecretKey, 'hex'))
  let openedWithoutCheck = 0
  for (const hex of x25519.lowOrderPoints) {
    for (const topBit of [0, 0x80]) {
      const point = bytes(hex)
      point[31]! |= topBit
      const forged = forge(point, pair.publicKey, Buffer.from('forged'))
      if (sealedBox.open(forged, pair.publicKey, pair.secretKey)) openedWithoutCheck++
      refusedByBoth(t, forged, pair.secretKey, `${hex}, top bit ${topBit}`)
      refusedByBoth(t, Buffer.concat([point, randomBytes(22)]), pair.secretKey, 'with noise')
    }
  }
  t.equal(openedWithoutCheck, 14, 'the forged boxes are good ones: only the check refuses them')
})

t.test('both ways open what each client seals, of every length', async (t) => {
  const pair = boxKeyPair(randomBytes(32))
  for (let length = 0; length < 100; length++) {
    const value = randomBytes(length)
    const fromLibsodium = Buffer.from(libsodium.crypto_box_seal(value, pair.publicKey))
    const fromTweetnacl = Buffer.from(sealedBox.seal(value, pair.publicKey))
    opensInBoth(t, fromLibsodium, pair.secretKey, value, `${length} bytes, libsodium`)
    opensInBoth(t, fromTweetnacl, pair.secretKey, value, `${length} bytes, tweetnacl`)
  }
})

t.test('both derive the same public key', async (t) => {
  for (let round = 0; round < 20; round++) {
    const secretKey = randomBytes(32)
    t.same(boxKeyPair(secretKey).publicKey, Buffer.from(nacl.scalarMult.base(secretKey)))
  }
})

t.test('opening neither changes the box nor the key, and gives memory of its own', async (t) => {
  const { secretKey, sealedBox } = vectors.boxes[2]!
  for (const [name, open] of Object.entries(OPENERS)) {
    const sealed = Buffer.from(sealedBox, 'base64')
    const pair = boxKeyPair(bytes(secretKey))
    const value = open(sealed, pair)!
    t.equal(sealed.toString('base64'), sealedBox, name)
    t.equal(pair.secretKey.toString('hex'), secretKey, name)
    value.fill(0)
    t.ok(open(sealed, pair)?.equals(patternOf(32)), `${name}: zeroing what it gave touches nothing else`)
  }
})

t.test('only standard, padded base64 of at least 48 bytes is a sealed box', async (t) => {
  const reasonFor = (text: string) => {
    try {
      decodeSealedBox(text)
      return 'none'
    } catch (error) {
      t.ok(error instanceof ImproperlyEncrypted)
      return (error as ImproperlyEncrypted).reason
    }
  }
  const good = Buffer.alloc(49, 0xfb).toString('base64')
  t.match(good, /[+/].*==$/, 'has the characters in which the alphabets differ, and padding')
  t.equal(reasonFor(good), 'none')
  t.same(decodeSealedBox(good), Buffer.alloc(49, 0xfb))

  const notBase64 = 'encrypted_value is not standard, padded base64'
  for (const [what, text] of Object.entries({
    'url-safe': good.replaceAll('+', '-').replaceAll('/', '_'),
    unpadded: good.replace(/=+$/, ''),
    'too much padding': `${good}=`,
    'a newline at the end': `${good}\n`,
    'a newline within': `${good.slice(0, 8)}\n${good.slice(8)}`,
    'a space before': ` ${good}`,
    'another character': `é${good.slice(1)}`,
    'NUL at the end': `${good}\0`,
    nothing: ''
  })) {
    t.equal(reasonFor(text), notBase64, what)
  }
  const tooShort = 'encrypted_value is shorter than a sealed box: it decodes to fewer than 48 bytes'
  t.equal(reasonFor(Buffer.alloc(47).toString('base64')), tooShort)
  t.equal(reasonFor(Buffer.alloc(48).toString('base64')), 'none')
})
