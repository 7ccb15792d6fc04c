import fc from 'fast-check'
import t from 'tap'
import { CorruptEnvelope } from '../../src/errors.ts'
import { deriveValueKey } from '../../src/keyring/derivation.ts'
import {
  ENVELOPE_OVERHEAD,
  openEnvelope,
  readGenerationId,
  sealEnvelope,
  type ValueContext
} from '../../src/keyring/envelope.ts'
import vectors from '../vectors/envelope.json' with { type: 'json' }
import { COLLECTION, makeKeyring, OTHER_COLLECTION } from './helper.ts'

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const ID = 4_123_456_789_012_345_678n
const CONTEXT: ValueContext = {
  collection: COLLECTION,
  secretUid: '0b8f3c52-6d0e-4c5a-9a43-7be1c1f0a9d1',
  name: 'DATABASE_URL',
  valueVersion: 7
}
const VALUE = Buffer.from('postgres://mona@db/app')
const { keyring } = await makeKeyring({ id: ID, material: Buffer.alloc(32, 9) })

t.test('an envelope never changes: version, generation, nonce, ciphertext, tag', async (t) => {
  t.equal(vectors.envelopes.length, 3)
  for (const vector of vectors.envelopes) {
    const { collection, secretUid, name, valueVersion } = vector
    const id = BigInt(vector.generationId)
    const context = { collection, secretUid, name, valueVersion }
    const key = deriveValueKey(bytes(vector.generation), collection, secretUid)
    const sealed = sealEnvelope(key, id, context, bytes(vector.plaintext), bytes(vector.nonce))
    t.equal(sealed.toString('hex'), vector.envelope)
    t.equal(readGenerationId(sealed), id)
    t.equal(sealed.length, vector.plaintext.length / 2 + 37)

    const { keyring } = await makeKeyring({ id, material: bytes(vector.generation) })
    t.equal(keyring.openValue(context, bytes(vector.envelope)).toString('hex'), vector.plaintext)
  }
})

t.test('two envelopes of one value differ in nonce and ciphertext', async (t) => {
  const first = keyring.sealValue(CONTEXT, VALUE)
  const second = keyring.sealValue(CONTEXT, VALUE)
  t.equal(first.generationId, ID)
  t.same(first.envelope.subarray(0, 9), second.envelope.subarray(0, 9))
  t.notSame(first.envelope.subarray(9, 21), second.envelope.subarray(9, 21))
  t.notSame(first.envelope.subarray(21), second.envelope.subarray(21))
  t.notOk(first.envelope.includes('postgres'))
  t.same(keyring.openValue(CONTEXT, first.envelope), VALUE)
  t.same(keyring.openValue(CONTEXT, second.envelope), VALUE)
})

t.test('with any byte changed, cut or extended it does not open', async (t) => {
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  const refused = (altered: Buffer, what: string) =>
    t.throws(() => keyring.openValue(CONTEXT, altered), CorruptEnvelope, what)
  for (let index = 0; index < envelope.length; index++) {
    for (const bit of [0x01, 0x80]) {
      const flipped = Buffer.from(envelope)
      flipped[index]! ^= bit
      refused(flipped, `byte ${index}, bit ${bit}`)
    }
  }
  for (let length = 0; length < envelope.length; length++) {
    refused(envelope.subarray(0, length), `the first ${length} bytes`)
  }
  refused(envelope.subarray(1), 'without its first byte')
  refused(Buffer.concat([envelope, Buffer.alloc(1)]), 'a byte more')
  refused(Buffer.alloc(ENVELOPE_OVERHEAD), 'zeroes')
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)
})

t.test('another version byte is refused before any key is used', async (t) => {
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  t.equal(envelope[0], 1)
  for (const version of [0, 2, 255]) {
    envelope[0] = version
    t.throws(() => readGenerationId(envelope), CorruptEnvelope, `version ${version}`)
  }
})

t.test('moved to another collection, secret, name or version it does not open', async (t) => {
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  const elsewhere: Record<string, Partial<ValueContext>> = {
    'another collection': { collection: OTHER_COLLECTION },
    'another kind of the same owner': { collection: COLLECTION.replace('repository', 'user') },
    'another secret': { secretUid: '0b8f3c52-6d0e-4c5a-9a43-7be1c1f0a9d2' },
    'another name': { name: 'DATABASE_URI' },
    'the name in another case': { name: 'database_url' },
    'a later version': { valueVersion: 8 },
    'an earlier version': { valueVersion: 6 }
  }
  for (const [what, change] of Object.entries(elsewhere)) {
    t.throws(() => keyring.openValue({ ...CONTEXT, ...change }, envelope), CorruptEnvelope, what)
  }
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)
})

t.test('another key under the same generation id does not open it', async (t) => {
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  const { keyring: other } = await makeKeyring({ id: ID, material: Buffer.alloc(32, 8) })
  t.throws(() => other.openValue(CONTEXT, envelope), CorruptEnvelope)
})

t.test('contexts that are the same when run together are not the same', async (t) => {
  // One key for both, so that nothing but the additional data can tell them apart.
  const key = Buffer.alloc(32, 3)
  const pairs: [ValueContext, ValueContext][] = [
    [
      { collection: 'a', secretUid: 'bc', name: 'd', valueVersion: 1 },
      { collection: 'ab', secretUid: 'c', name: 'd', valueVersion: 1 }
    ],
    [
      { collection: 'a', secretUid: 'b', name: 'c', valueVersion: 11 },
      { collection: 'a', secretUid: 'b', name: 'c1', valueVersion: 1 }
    ],
    [
      { collection: 'a', secretUid: '', name: 'b', valueVersion: 1 },
      { collection: 'a', secretUid: 'b', name: '', valueVersion: 1 }
    ],
    [
      { collection: 'a', secretUid: 'b\0\0\0\x01c', name: '', valueVersion: 1 },
      { collection: 'a', secretUid: 'b', name: 'c', valueVersion: 1 }
    ],
    // The same number of characters, not of bytes.
    [
      { collection: 'é', secretUid: 'b', name: 'c', valueVersion: 1 },
      { collection: 'e', secretUid: 'b', name: 'c', valueVersion: 1 }
    ]
  ]
  for (const [one, other] of pairs) {
    const sealed = sealEnvelope(key, ID, one, VALUE)
    t.same(openEnvelope(key, one, sealed), VALUE)
    t.throws(() => openEnvelope(key, other, sealed), CorruptEnvelope, JSON.stringify([one, other]))
  }
})

const context = fc.record({
  collection: fc.string({ unit: 'grapheme' }),
  secretUid: fc.uuid(),
  name: fc.string({ unit: 'grapheme' }),
  valueVersion: fc.integer({ min: 1, max: 2_147_483_647 })
})

t.test('property: what is sealed opens, byte for byte, in its context', async () => {
  fc.assert(
    fc.property(context, fc.uint8Array({ maxLength: 2000 }), (context, value) => {
      const { envelope } = keyring.sealValue(context, value)
      return (
        envelope.length === value.length + ENVELOPE_OVERHEAD &&
        keyring.openValue(context, envelope).equals(value)
      )
    }),
    { numRuns: 300 }
  )
})

t.test('property: in any other context, and with any change, it is corrupt, and nothing else', async () => {
  const throwsCorrupt = (work: () => unknown) => {
    try {
      work()
      return false
    } catch (error) {
      return error instanceof CorruptEnvelope
    }
  }
  fc.assert(
    fc.property(context, context, fc.uint8Array({ maxLength: 100 }), (one, other, value) => {
      const { envelope } = keyring.sealValue(one, value)
      fc.pre(JSON.stringify(one) !== JSON.stringify(other))
      return throwsCorrupt(() => keyring.openValue(other, envelope))
    }),
    { numRuns: 300 }
  )
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 100 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (value, at, mask) => {
        const { envelope } = keyring.sealValue(CONTEXT, value)
        envelope[at % envelope.length]! ^= mask
        return throwsCorrupt(() => keyring.openValue(CONTEXT, envelope))
      }
    ),
    { numRuns: 300 }
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) =>
      throwsCorrupt(() => keyring.openValue(CONTEXT, Buffer.from(noise)))
    ),
    { numRuns: 300 }
  )
})
