import { randomBytes } from 'node:crypto'
import sodium from 'sodium-native'
import sealedBox from 'tweetnacl-sealedbox-js'
import { Keyring, makeGeneration } from '../../src/keyring/index.ts'
import { localMasterKey } from '../../src/keyring/master-key.ts'
import { median } from './load.ts'
import { VALUE_BYTES } from './world.ts'

const ROUNDS = 9
const OPENINGS = 4000

/** Boxes opened per second by the keyring, and by sodium-native alone with the keys at hand. */
export async function benchBoxes(): Promise<{ keyring: number; sodium: number; ratio: number }> {
  const masterKey = localMasterKey(randomBytes(32))
  const keyring = new Keyring([masterKey])
  const generation = await makeGeneration(masterKey)
  await keyring.install([{ ...generation, state: 'active', acceptsBoxesForMs: null }])
  const collection = 'codespaces/repository/00000000-0000-4000-8000-000000000000'
  const { keyId, publicKey } = keyring.collectionKey(collection)
  const boxed = Buffer.from(sealedBox.seal(randomBytes(VALUE_BYTES), publicKey))

  const bareSecret = sodium.sodium_malloc(sodium.crypto_box_SECRETKEYBYTES)
  const barePublic = Buffer.alloc(sodium.crypto_box_PUBLICKEYBYTES)
  sodium.crypto_box_keypair(barePublic, bareSecret)
  const bareBoxed = Buffer.from(sealedBox.seal(randomBytes(VALUE_BYTES), barePublic))

  const withKeyring = () => keyring.openBox(collection, keyId, boxed)
  const bare = () => {
    const opened = Buffer.alloc(VALUE_BYTES)
    if (!sodium.crypto_box_seal_open(opened, bareBoxed, barePublic, bareSecret)) throw new Error('not opened')
  }
  const rates = Array.from({ length: ROUNDS }, () => {
    const rate = { keyring: ratePerSecond(withKeyring), sodium: ratePerSecond(bare) }
    return { ...rate, ratio: rate.keyring / rate.sodium }
  })
  return {
    keyring: median(rates.map((rate) => rate.keyring)),
    sodium: median(rates.map((rate) => rate.sodium)),
    ratio: median(rates.map((rate) => rate.ratio))
  }
}

function ratePerSecond(work: () => void): number {
  const start = performance.now()
  for (let count = 0; count < OPENINGS; count++) work()
  return OPENINGS / ((performance.now() - start) / 1000)
}
