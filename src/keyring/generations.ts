import { randomBytes } from 'node:crypto'
import { RefusedToStart } from '../errors.ts'
import { KEY_BYTES } from './derivation.ts'
import type { MasterKey, WrappedGeneration } from './master-key.ts'
import { secureCopy } from './memory.ts'

export type GenerationState = 'pending' | 'active' | 'retired'

/** A generation as it is stored: wrapped. */
export interface StoredGeneration extends WrappedGeneration {
  id: bigint
  state: GenerationState
  /** how long it still opens sealed boxes, by the database's clock; null: no end is set */
  acceptsBoxesForMs: number | null
}

/** A generation in use: its 32 bytes, and until when (`performance.now()`) it opens sealed boxes. */
export interface Generation {
  id: bigint
  state: GenerationState
  acceptsBoxesUntil: number
  material: Buffer
}

/**
 * A new generation: 32 random bytes under a random id of 63 bits. Its id is the `key_id` that clients see, 18
 * or 19 decimal digits as GitHub's; random, so that a restored backup never gives one out again.
 */
export async function makeGeneration(
  masterKey: MasterKey
): Promise<{ id: bigint; wrapped: Buffer; fingerprint: string }> {
  const id = randomGenerationId()
  const material = secureCopy(randomBytes(KEY_BYTES))
  const wrapped = await masterKey.wrap(id, material)
  material.fill(0)
  return { id, ...wrapped }
}

function randomGenerationId(): bigint {
  for (;;) {
    const id = randomBytes(8).readBigUInt64BE() >> 1n
    if (id >= 10n ** 17n) return id
  }
}

/** Unwraps a stored generation with whichever of the master keys wrapped it. */
export async function unwrapGeneration(
  masterKeys: readonly MasterKey[],
  stored: StoredGeneration
): Promise<Generation> {
  const masterKey = masterKeys.find(({ fingerprint }) => fingerprint === stored.fingerprint)
  if (!masterKey) {
    const given = masterKeys.map(({ fingerprint }) => fingerprint).join(', ') || 'none'
    throw new RefusedToStart(
      `The database was encrypted under master key ${stored.fingerprint}; given: ${given}. ` +
        'Set COFFER_MASTER_KEY_FILE to the file that holds it.'
    )
  }
  const lifetime = stored.acceptsBoxesForMs
  return {
    id: stored.id,
    state: stored.state,
    acceptsBoxesUntil: lifetime === null ? Number.POSITIVE_INFINITY : performance.now() + lifetime,
    material: await masterKey.unwrap(stored.id, stored.wrapped)
  }
}
