import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import sealedBox from 'tweetnacl-sealedbox-js'
import { CorruptEnvelope, ImproperlyEncrypted, UnknownKey } from '../../src/errors.ts'
import type { Keyring } from '../../src/keyring/index.ts'
import { localMasterKey } from '../../src/keyring/master-key.ts'
import { sodium } from '../../src/keyring/memory.ts'
import { COLLECTION, makeKeyring, OTHER_COLLECTION } from './helper.ts'

const OLD = { id: 111_111_111_111_111_111n, material: randomBytes(32) }
const NEW = { id: 222_222_222_222_222_222n, material: randomBytes(32) }
const CONTEXT = { collection: COLLECTION, secretUid: 'u', name: 'N', valueVersion: 1 }
const VALUE = Buffer.from('a value')

function sealFor(keyring: Keyring, collection = COLLECTION): Buffer {
  return Buffer.from(sealedBox.seal(VALUE, keyring.collectionKey(collection).publicKey))
}

t.test('a box opens in its collection and under its key id, and nowhere else', async (t) => {
  const { keyring } = await makeKeyring(OLD, { ...NEW, state: 'pending' })
  const sealed = sealFor(keyring)
  t.same(keyring.openBox(COLLECTION, `${OLD.id}`, sealed), VALUE)
  t.throws(() => keyring.openBox(OTHER_COLLECTION, `${OLD.id}`, sealed), ImproperlyEncrypted)
  t.throws(() => keyring.openBox(COLLECTION, `${NEW.id}`, sealed), ImproperlyEncrypted)
  for (const keyId of [
    '',
    '0',
    '1',
    `0${OLD.id}`,
    ` ${OLD.id}`,
    `+${OLD.id}`,
    `-${OLD.id}`,
    `${OLD.id}0`,
    '9'.repeat(30),
    '0x1',
    'é'
  ]) {
    t.throws(() => keyring.openBox(COLLECTION, keyId, sealed), UnknownKey, keyId)
    t.notOk(keyring.acceptsBoxesFor(keyId), keyId)
  }
})

t.test('every failure after a key was selected is the same one', async (t) => {
  const { keyring } = await makeKeyring(OLD)
  const sealed = sealFor(keyring)
  const flipped = Buffer.from(sealed)
  flipped[60 % flipped.length]! ^= 1
  const failures = [
    flipped,
    sealFor(keyring, OTHER_COLLECTION),
    Buffer.alloc(48),
    randomBytes(60),
    sealed.subarray(0, 50)
  ]
  const reasons = failures.map((box) => {
    try {
      keyring.openBox(COLLECTION, `${OLD.id}`, box)
      return 'opened'
    } catch (error) {
      return (error as ImproperlyEncrypted).reason
    }
  })
  t.same(
    new Set(reasons),
    new Set(["encrypted_value was not sealed for this collection's public key; fetch the public key again"])
  )
})

t.test('a pending generation opens and does not encrypt', async (t) => {
  const { keyring, install } = await makeKeyring({ ...NEW, state: 'active' })
  const sealed = sealFor(keyring)
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)

  await install({ ...OLD, state: 'active' }, { ...NEW, state: 'pending' })
  t.equal(keyring.collectionKey(COLLECTION).keyId, `${OLD.id}`)
  t.equal(keyring.sealValue(CONTEXT, VALUE).generationId, OLD.id)
  t.same(keyring.openBox(COLLECTION, `${NEW.id}`, sealed), VALUE)
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)
})

t.test('a retired generation opens values for ever, and boxes until its window ends', async (t) => {
  const { keyring, install } = await makeKeyring(OLD)
  const sealed = sealFor(keyring)
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)

  await install({ ...OLD, state: 'retired', acceptsBoxesForMs: 60 }, NEW)
  t.equal(keyring.collectionKey(COLLECTION).keyId, `${NEW.id}`)
  t.equal(keyring.sealValue(CONTEXT, VALUE).generationId, NEW.id)
  t.ok(keyring.acceptsBoxesFor(`${OLD.id}`))
  t.same(keyring.openBox(COLLECTION, `${OLD.id}`, sealed), VALUE)

  await sleep(80)
  t.notOk(keyring.acceptsBoxesFor(`${OLD.id}`))
  t.throws(() => keyring.openBox(COLLECTION, `${OLD.id}`, sealed), UnknownKey)
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)

  for (const acceptsBoxesForMs of [0, -1, -1e12]) {
    await install({ ...OLD, state: 'retired', acceptsBoxesForMs }, NEW)
    t.throws(() => keyring.openBox(COLLECTION, `${OLD.id}`, sealed), UnknownKey, `${acceptsBoxesForMs} ms`)
    t.same(keyring.openValue(CONTEXT, envelope), VALUE)
  }
})

t.test('a destroyed generation opens nothing', async (t) => {
  const { keyring, install } = await makeKeyring(OLD)
  const sealed = sealFor(keyring)
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  await install(NEW)
  t.same(keyring.generationIds, [NEW.id])
  t.throws(() => keyring.openBox(COLLECTION, `${OLD.id}`, sealed), UnknownKey)
  t.throws(() => keyring.openValue(CONTEXT, envelope), CorruptEnvelope)
})

t.test('a digest is known again after a rotation, and no other bytes are', async (t) => {
  const { keyring, install } = await makeKeyring(OLD)
  const digest = keyring.digestValue(COLLECTION, VALUE)
  await install({ ...OLD, state: 'retired' }, NEW)
  t.notSame(keyring.digestValue(COLLECTION, VALUE), digest, 'new ones are of the new generation')
  t.ok(keyring.isDigest(COLLECTION, VALUE, digest))
  t.ok(keyring.isDigest(COLLECTION, VALUE, keyring.digestValue(COLLECTION, VALUE)))
  t.ok(keyring.isDigest(COLLECTION, VALUE, digest.subarray(0, 16)), 'its first half')
  for (let bytes = 0; bytes < 16; bytes++) {
    t.notOk(keyring.isDigest(COLLECTION, VALUE, digest.subarray(0, bytes)), `${bytes} bytes are too few`)
  }
  t.notOk(keyring.isDigest(COLLECTION, VALUE, Buffer.concat([digest, digest])), 'more than it has')
  t.notOk(keyring.isDigest(OTHER_COLLECTION, VALUE, digest), 'of another collection')
  t.notOk(keyring.isDigest(COLLECTION, Buffer.from('another'), digest), 'of another value')
  const flipped = Buffer.from(digest)
  flipped[0]! ^= 1
  t.notOk(keyring.isDigest(COLLECTION, VALUE, flipped), 'a bit flipped')
  await install(NEW)
  t.notOk(keyring.isDigest(COLLECTION, VALUE, digest), 'its generation is gone')
})

t.test('a keyring without an active generation encrypts nothing', async (t) => {
  const { keyring } = await makeKeyring({ ...OLD, state: 'retired' })
  t.notOk(keyring.isReady)
  t.throws(() => keyring.sealValue(CONTEXT, VALUE), /holds no active generation/)
  t.throws(() => keyring.collectionKey(COLLECTION), /holds no active generation/)
  t.throws(() => keyring.digestValue(COLLECTION, VALUE), /holds no active generation/)
})

t.test('a generation of an unknown master key refuses, and what was held stays', async (t) => {
  const { keyring, masterKey, install } = await makeKeyring(OLD)
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  const foreign = localMasterKey(randomBytes(32))
  const wrapped = await foreign.wrap(NEW.id, NEW.material)
  const before = masterKey.handedOut.length
  await t.rejects(
    keyring.install([
      { id: OLD.id, state: 'retired', acceptsBoxesForMs: null, wrapped: OLD.material, fingerprint: 'bare' },
      { id: NEW.id, state: 'active', acceptsBoxesForMs: null, ...wrapped }
    ]),
    {
      name: 'RefusedToStart',
      message: `The database was encrypted under master key ${foreign.fingerprint}; given: bare. Set COFFER_MASTER_KEY_FILE to the file that holds it.`
    }
  )
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)
  t.equal(keyring.sealValue(CONTEXT, VALUE).generationId, OLD.id)
  t.equal(masterKey.handedOut.length, before + 1)
  t.ok(isZero(masterKey.handedOut.at(-1)!), 'what was unwrapped on the way is zeroed')
  await install(OLD)
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)
})

function isZero(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes.every((byte) => byte === 0)
}

/** The secret keys of the pairs that are made from now on: the very buffers. */
function watchSecretKeys(t: { teardown(work: () => void): void }): Buffer[] {
  const seen: Buffer[] = []
  const original = sodium!.crypto_scalarmult_base
  sodium!.crypto_scalarmult_base = (publicKey, secretKey) => {
    seen.push(secretKey)
    original(publicKey, secretKey)
  }
  t.teardown(() => {
    sodium!.crypto_scalarmult_base = original
  })
  return seen
}

t.test('install zeroes the material that it replaces, and the keys of what is gone', async (t) => {
  const secretKeys = watchSecretKeys(t)
  const { keyring, masterKey, install } = await makeKeyring(OLD, { ...NEW, state: 'pending' })
  const [oldMaterial, newMaterial] = masterKey.handedOut as [Buffer, Buffer]
  t.same(oldMaterial, OLD.material)
  for (const collection of ['a', 'b', 'c', 'd']) keyring.collectionKey(collection)
  t.equal(secretKeys.length, 4)
  t.notOk(secretKeys.some(isZero))

  await install({ ...OLD, state: 'retired' }, NEW)
  t.ok(isZero(oldMaterial) && isZero(newMaterial))
  t.notOk(secretKeys.some(isZero), 'the keys of a generation that is still there stay in the cache')
  const [, , , newest] = masterKey.handedOut as [Buffer, Buffer, Buffer, Buffer]
  t.same(newest, NEW.material)
  keyring.collectionKey('a')
  t.equal(secretKeys.length, 5)

  await install(NEW)
  t.ok(secretKeys.slice(0, 4).every(isZero), 'all keys of the one that is gone')
  t.notOk(isZero(secretKeys[4]!))
  t.ok(isZero(newest))
  t.equal(keyring.collectionKey('a').keyId, `${NEW.id}`)
  t.equal(secretKeys.length, 5, 'from the cache')
})

t.test('close zeroes everything, and nothing opens afterwards', async (t) => {
  const secretKeys = watchSecretKeys(t)
  const { keyring, masterKey } = await makeKeyring(OLD)
  const sealed = sealFor(keyring)
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  keyring.close()
  t.ok(masterKey.handedOut.every(isZero))
  t.ok(secretKeys.length > 0 && secretKeys.every(isZero))
  t.notOk(keyring.isReady)
  t.same(keyring.generationIds, [])
  t.throws(() => keyring.openBox(COLLECTION, `${OLD.id}`, sealed), UnknownKey)
  t.throws(() => keyring.openValue(CONTEXT, envelope), CorruptEnvelope)
})

t.test('the cache of collection keys is bounded, and zeroes what falls out', async (t) => {
  const secretKeys = watchSecretKeys(t)
  const { keyring } = await makeKeyring(OLD)
  const first = keyring.collectionKey('0').publicKey
  for (let index = 1; index <= 1000; index++) keyring.collectionKey(`${index}`)
  t.equal(secretKeys.length, 1001)
  t.ok(isZero(secretKeys[0]!))
  t.notOk(secretKeys.slice(1).some(isZero))
  t.same(keyring.collectionKey('0').publicKey, first, 'derived again')
  t.equal(secretKeys.length, 1002)
})

t.test('a great many values in a row are sealed and opened without a pause', async (t) => {
  const { keyring } = await makeKeyring(OLD)
  const { envelope } = keyring.sealValue(CONTEXT, VALUE)
  for (let index = 0; index < 15_000; index++) {
    keyring.sealValue(CONTEXT, VALUE)
    keyring.openValue(CONTEXT, envelope)
  }
  t.same(keyring.openValue(CONTEXT, envelope), VALUE)
})
