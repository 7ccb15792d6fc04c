import { randomBytes } from 'node:crypto'
import { createRequire, Module } from 'node:module'
import libsodium from 'libsodium-wrappers'
import t from 'tap'
import derivation from '../vectors/derivation.json' with { type: 'json' }
import vectors from '../vectors/sealed-boxes.json' with { type: 'json' }
import x25519 from '../vectors/x25519.json' with { type: 'json' }

// As on a machine where the binding of sodium-native does not load: whoever asks for it gets this error, so
// everything of the keyring is imported only afterwards.

type Resolver = { _resolveFilename(request: string, ...rest: unknown[]): string }
const resolver = Module as unknown as Resolver
const resolve = resolver._resolveFilename
resolver._resolveFilename = function (request, ...rest) {
  if (request === 'sodium-native') throw new Error("Cannot find addon '.' imported from 'binding.js'")
  return resolve.call(this, request, ...rest)
}

const { sodium } = await import('../../src/keyring/memory.ts')
const { boxKeyPair, openSealedBox, openWithTweetnacl } = await import('../../src/keyring/sealed-box.ts')
const { Keyring, makeGeneration } = await import('../../src/keyring/index.ts')
const { localMasterKey } = await import('../../src/keyring/master-key.ts')
const { ImproperlyEncrypted } = await import('../../src/errors.ts')
await libsodium.ready

t.test('sodium-native is not there', async (t) => {
  t.throws(() => createRequire(import.meta.url)('sodium-native'))
  t.equal(sodium, undefined)
  t.equal(openSealedBox, openWithTweetnacl)
})

t.test('the same public keys, and the same boxes open', async (t) => {
  for (const { secretKey, publicKey, valueLength, sealedBox } of vectors.boxes) {
    const pair = boxKeyPair(Buffer.from(secretKey, 'hex'))
    t.equal(pair.publicKey.toString('hex'), publicKey)
    t.equal(openSealedBox(Buffer.from(sealedBox, 'base64'), pair)?.length, valueLength)
  }
  for (const { boxSecretKey, boxPublicKey } of derivation.collectionKeys) {
    t.equal(boxKeyPair(Buffer.from(boxSecretKey, 'hex')).publicKey.toString('hex'), boxPublicKey)
  }
  for (const point of x25519.lowOrderPoints) {
    const sealed = Buffer.concat([Buffer.from(point, 'hex'), randomBytes(32)])
    t.equal(openSealedBox(sealed, boxKeyPair(randomBytes(32))), undefined, point)
  }
})

t.test('the whole keyring works: generation, box, envelope, rewrap, close', async (t) => {
  const masterKey = localMasterKey(randomBytes(32))
  const generation = await makeGeneration(masterKey)
  const stored = { ...generation, state: 'active', acceptsBoxesForMs: null } as const
  const other = localMasterKey(randomBytes(32))
  const keyring = new Keyring([other, masterKey])
  await keyring.install([stored])

  const collection = 'codespaces/user/7c9e6679-7425-40de-944b-e07fc1f90ae7'
  const { keyId, publicKey } = keyring.collectionKey(collection)
  const value = randomBytes(49_152)
  const sealed = Buffer.from(libsodium.crypto_box_seal(value, publicKey))
  t.ok(keyring.openBox(collection, keyId, sealed).equals(value))
  sealed[40]! ^= 1
  t.throws(() => keyring.openBox(collection, keyId, sealed), ImproperlyEncrypted)

  const context = { collection, secretUid: 'u', name: 'N', valueVersion: 1 }
  const { envelope } = keyring.sealValue(context, value)
  t.ok(keyring.openValue(context, envelope).equals(value))

  const rewrapped = await keyring.rewrap(stored)
  t.equal(rewrapped.fingerprint, other.fingerprint)
  const later = new Keyring([other])
  await later.install([{ ...stored, ...rewrapped }])
  t.ok(later.openValue(context, envelope).equals(value))
  keyring.close()
  t.notOk(keyring.isReady)
})
