import { createHmac, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { CorruptEnvelope, ImproperlyEncrypted, UnknownKey } from '../errors.ts'
import { deriveBoxSecretKey, deriveDigestKey, deriveValueKey } from './derivation.ts'
import { openEnvelope, readGenerationId, sealEnvelope, type ValueContext } from './envelope.ts'
import { type Generation, type StoredGeneration, unwrapGeneration } from './generations.ts'
import type { MasterKey, WrappedGeneration } from './master-key.ts'
import { type BoxKeyPair, boxKeyPair, openSealedBox } from './sealed-box.ts'

export type { ValueContext } from './envelope.ts'
export { type GenerationState, makeGeneration, type StoredGeneration } from './generations.ts'
export { createMasterKey, type MasterKey, readMasterKey } from './master-key.ts'
export { BASE64_PATTERN, decodeSealedBox, SEALED_BOX_OVERHEAD } from './sealed-box.ts'

/** Derived key pairs that are kept; what falls out is zeroed and derived again when it is needed. */
const CACHED_COLLECTIONS = 1000

const DIGEST_BYTES = 32
/** Shorter ones are guessed: RFC 2104, section 5, asks for half of the bytes. */
const LEAST_DIGEST_BYTES = 16

/** What a client seals for: `keyId` names the generation, `publicKey` (32 bytes) belongs to one collection. */
export interface CollectionKey {
  keyId: string
  publicKey: Buffer
}

/**
 * The keys in memory, and all that is done with them. It holds no connection: `install` gives it the
 * generations that the store knows, and is called again whenever they change.
 */
export class Keyring {
  readonly #masterKeys: readonly MasterKey[]
  #generations = new Map<bigint, Generation>()
  #active: Generation | undefined
  #pairs = new LRUCache<string, BoxKeyPair>({
    max: CACHED_COLLECTIONS,
    dispose: ({ secretKey }) => secretKey.fill(0)
  })

  constructor(masterKeys: readonly MasterKey[]) {
    this.#masterKeys = masterKeys
  }

  /** Wraps new generations: the first of the master keys. */
  get wrappingKey(): MasterKey {
    return this.#masterKeys[0]!
  }

  /** Whether it can encrypt. */
  get isReady(): boolean {
    return this.#active !== undefined
  }

  /** The ids of the generations that this process can open with. */
  get generationIds(): bigint[] {
    return [...this.#generations.keys()]
  }

  /** Replaces what is held by what is stored, or nothing: throws `RefusedToStart` when a master key is missing. */
  async install(stored: readonly StoredGeneration[]): Promise<void> {
    const generations = new Map<bigint, Generation>()
    try {
      for (const row of stored) generations.set(row.id, await unwrapGeneration(this.#masterKeys, row))
    } catch (error) {
      for (const { material } of generations.values()) material.fill(0)
      throw error
    }
    const previous = this.#generations
    this.#generations = generations
    this.#active = [...generations.values()].find(({ state }) => state === 'active')
    for (const { material } of previous.values()) material.fill(0)
    for (const id of previous.keys()) if (!generations.has(id)) this.#forget(id)
  }

  /** The same generation, wrapped by the first master key. */
  async rewrap(stored: StoredGeneration): Promise<WrappedGeneration> {
    const { id, material } = await unwrapGeneration(this.#masterKeys, stored)
    const wrapping = await this.wrappingKey.wrap(id, material)
    material.fill(0)
    return wrapping
  }

  /** Zeroes everything; the keyring opens nothing afterwards. */
  close(): void {
    this.#pairs.clear()
    for (const { material } of this.#generations.values()) material.fill(0)
    this.#generations.clear()
    this.#active = undefined
  }

  /** The public key for values of this collection, under the active generation. */
  collectionKey(collection: string): CollectionKey {
    const generation = this.#activeGeneration()
    return { keyId: generation.id.toString(), publicKey: this.#pair(generation, collection).publicKey }
  }

  /** Whether boxes for this `key_id` are opened now. */
  acceptsBoxesFor(keyId: string): boolean {
    return this.#boxGeneration(keyId) !== undefined
  }

  /**
   * Opens a sealed box that was made for this collection.
   *
   * @param sealed the box as `decodeSealedBox` gives it: at least 48 bytes
   * @returns the value; the caller zeroes it when done
   * @throws UnknownKey when `keyId` names no generation that opens boxes now
   * @throws ImproperlyEncrypted for every other failure, without saying which
   */
  openBox(collection: string, keyId: string, sealed: Buffer): Buffer {
    const generation = this.#boxGeneration(keyId)
    if (!generation) throw new UnknownKey()
    const plaintext = openSealedBox(sealed, this.#pair(generation, collection))
    if (!plaintext) {
      throw new ImproperlyEncrypted(
        "encrypted_value was not sealed for this collection's public key; fetch the public key again"
      )
    }
    return plaintext
  }

  /** Encrypts a value for storage, under the active generation. */
  sealValue(context: ValueContext, plaintext: Uint8Array): { envelope: Buffer; generationId: bigint } {
    const generation = this.#activeGeneration()
    const key = deriveValueKey(generation.material, context.collection, context.secretUid)
    const envelope = sealEnvelope(key, generation.id, context, plaintext)
    key.fill(0)
    return { envelope, generationId: generation.id }
  }

  /**
   * Decrypts a stored value; the caller zeroes it when done.
   *
   * @throws CorruptEnvelope when the envelope was altered, moved, or its generation is not here
   */
  openValue(context: ValueContext, envelope: Buffer): Buffer {
    const generation = this.#generations.get(readGenerationId(envelope))
    if (!generation) throw new CorruptEnvelope()
    const key = deriveValueKey(generation.material, context.collection, context.secretUid)
    try {
      return openEnvelope(key, context, envelope)
    } finally {
      key.fill(0)
    }
  }

  /** HMAC-SHA256 of a value under the collection's digest key of the active generation; 32 bytes. */
  digestValue(collection: string, plaintext: Uint8Array): Buffer {
    return digest(this.#activeGeneration(), collection, plaintext)
  }

  /**
   * Whether these bytes are what `digestValue` gave under any generation that is here, or its first 16 bytes at
   * least: a rotation does not void what was made before it. Compared in constant time.
   */
  isDigest(collection: string, plaintext: Uint8Array, bytes: Uint8Array): boolean {
    if (bytes.length < LEAST_DIGEST_BYTES || bytes.length > DIGEST_BYTES) return false
    return [...this.#generations.values()].some((generation) =>
      timingSafeEqual(digest(generation, collection, plaintext).subarray(0, bytes.length), bytes)
    )
  }

  #activeGeneration(): Generation {
    if (!this.#active) throw new Error('the keyring holds no active generation')
    return this.#active
  }

  #boxGeneration(keyId: string): Generation | undefined {
    if (!/^[1-9][0-9]{0,18}$/.test(keyId)) return undefined
    const generation = this.#generations.get(BigInt(keyId))
    return generation && performance.now() < generation.acceptsBoxesUntil ? generation : undefined
  }

  #pair(generation: Generation, collection: string): BoxKeyPair {
    const cacheKey = `${generation.id}/${collection}`
    const cached = this.#pairs.get(cacheKey)
    if (cached) return cached
    const pair = boxKeyPair(deriveBoxSecretKey(generation.material, collection))
    this.#pairs.set(cacheKey, pair)
    return pair
  }

  #forget(id: bigint): void {
    for (const key of this.#pairs.keys()) if (key.startsWith(`${id}/`)) this.#pairs.delete(key)
  }
}

function digest({ material }: Generation, collection: string, plaintext: Uint8Array): Buffer {
  const key = deriveDigestKey(material, collection)
  const bytes = createHmac('sha256', key).update(plaintext).digest()
  key.fill(0)
  return bytes
}
