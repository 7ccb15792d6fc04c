import { createHmac } from 'node:crypto'
import t from 'tap'
import {
  deriveBoxSecretKey,
  deriveDigestKey,
  deriveFingerprint,
  deriveValueKey,
  deriveWrappingKey
} from '../../src/keyring/derivation.ts'
import { boxKeyPair } from '../../src/keyring/sealed-box.ts'
import vectors from '../vectors/derivation.json' with { type: 'json' }
import { makeKeyring } from './helper.ts'

const bytes = (hex: string) => Buffer.from(hex, 'hex')

t.test('the keys of a collection never change', async (t) => {
  t.equal(vectors.collectionKeys.length, 4)
  for (const vector of vectors.collectionKeys) {
    const generation = bytes(vector.generation)
    const secretKey = deriveBoxSecretKey(generation, vector.collection)
    t.equal(secretKey.toString('hex'), vector.boxSecretKey)
    t.equal(boxKeyPair(secretKey).publicKey.toString('hex'), vector.boxPublicKey)
    t.equal(deriveValueKey(generation, vector.collection, vector.secretUid).toString('hex'), vector.valueKey)
    const digestKey = deriveDigestKey(generation, vector.collection)
    t.equal(digestKey.toString('hex'), vector.digestKey)
    t.equal(createHmac('sha256', digestKey).update('abc').digest('hex'), vector.digestOfAbc)
    t.equal(generation.toString('hex'), vector.generation, 'deriving leaves the generation as it is')
  }
})

t.test('the keyring shows the public key and computes the digest of the vectors', async (t) => {
  for (const vector of vectors.collectionKeys) {
    const generation = { id: BigInt(vector.generationId), material: bytes(vector.generation) }
    const { keyring } = await makeKeyring(generation)
    const { keyId, publicKey } = keyring.collectionKey(vector.collection)
    t.equal(keyId, vector.generationId)
    t.equal(publicKey.toString('hex'), vector.boxPublicKey)
    t.equal(keyring.digestValue(vector.collection, Buffer.from('abc')).toString('hex'), vector.digestOfAbc)
  }
})

t.test('no two purposes, collections, secrets or generations share a key', async (t) => {
  const keys = vectors.collectionKeys.flatMap(({ boxSecretKey, valueKey, digestKey }) => [
    boxSecretKey,
    valueKey,
    digestKey
  ])
  const others = vectors.masterKeys.flatMap(({ wrappingKey, fingerprint }) => [wrappingKey, fingerprint])
  const all = [...keys, ...others]
  t.equal(all.length, 18)
  t.equal(new Set(all).size, all.length)

  const generation = Buffer.alloc(32, 1)
  t.notSame(deriveValueKey(generation, 'a/b', 'c'), deriveValueKey(generation, 'a/b', 'd'))
  t.notSame(deriveValueKey(generation, 'a/b', 'c'), deriveValueKey(generation, 'a/x', 'c'))
  t.notSame(deriveBoxSecretKey(generation, 'a/b'), deriveBoxSecretKey(generation, 'a/c'))
  t.notSame(deriveDigestKey(generation, 'a/b'), deriveDigestKey(generation, 'a/c'))
})

t.test('what is derived from a master key never changes', async (t) => {
  t.equal(vectors.masterKeys.length, 3)
  for (const { masterKey, wrappingKey, fingerprint } of vectors.masterKeys) {
    t.equal(deriveWrappingKey(bytes(masterKey)).toString('hex'), wrappingKey)
    t.equal(deriveFingerprint(bytes(masterKey)), fingerprint)
  }
})
