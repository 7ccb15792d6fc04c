import { type Kysely, sql } from 'kysely'
import { Conflict, CorruptEnvelope, NotFound, RefusedToStart } from '../errors.ts'
import { type Keyring, makeGeneration, type StoredGeneration } from '../keyring/index.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { isForeignKeyViolation, isUniqueViolation } from '../store/database.ts'
import { getInstance } from '../store/instance.ts'
import {
  activateGeneration,
  countNodes,
  destroyGeneration,
  findActiveGenerationId,
  findPendingGeneration,
  type GenerationRow,
  insertGeneration,
  listGenerationStatus,
  listGenerations,
  lockActiveGeneration,
  type PendingGeneration,
  replaceGrace,
  replaceWrapping
} from '../store/key-generations.ts'
import { countValuesOfOtherGenerations, listValuesOfOtherGenerations } from '../store/secrets.ts'
import type { Database } from '../store/tables.ts'
import { reencrypt, type Vault } from './vault.ts'

/** How often a server reads the generations and reports which of them it can open with. */
export const REFRESH_INTERVAL_MS = 5_000
/** A node that has not reported for this long no longer counts; a pending generation this old need not wait. */
export const PATIENCE_MS = 3 * REFRESH_INTERVAL_MS
const REENCRYPT_BATCH = 100
export const GENERATIONS_CHANNEL = 'coffer_generations'

/** The administrator at the command line, who has the server's configuration. */
const OPERATOR: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

function stored(row: GenerationRow): StoredGeneration {
  return {
    id: BigInt(row.id),
    state: row.state,
    wrapped: row.wrapped,
    fingerprint: row.fingerprint,
    acceptsBoxesForMs: row.accepts_boxes_for_ms
  }
}

/** Gives the keyring what is stored. */
export async function loadGenerations(db: Kysely<Database>, keyring: Keyring): Promise<void> {
  const rows = await listGenerations(db)
  await keyring.install(rows.map(stored))
}

export async function generationsExist(db: Kysely<Database>): Promise<boolean> {
  return (await listGenerations(db)).length > 0
}

/** Makes the first generation of an empty database; several servers may try at once. */
export async function ensureGeneration(db: Kysely<Database>, keyring: Keyring): Promise<void> {
  if (await findActiveGenerationId(db)) return
  const { id, wrapped, fingerprint } = await makeGeneration(keyring.wrappingKey)
  try {
    await db.transaction().execute(async (tx) => {
      await insertGeneration(tx, { id: id.toString(), wrapped, fingerprint }, { state: 'active' })
      await audit(tx, 'key.create', id.toString())
    })
  } catch (error) {
    if (!isUniqueViolation(error, 'key_generations_one_active')) throw error
  }
}

async function audit(tx: Parameters<typeof insertAuditEvents>[0], action: string, name: string) {
  const { uid } = await getInstance(tx)
  await insertAuditEvents(tx, [{ streamUid: uid, principal: OPERATOR, action, name }])
}

async function announce(db: Kysely<Database>): Promise<void> {
  await sql`select pg_notify(${GENERATIONS_CHANNEL}, '')`.execute(db)
}

/**
 * Begins a rotation: a new generation, pending, to replace the active one. It opens boxes at once and encrypts
 * nothing before `activateWhenReady` has made it active.
 *
 * @param expectedActive the id that the caller believes active; another one loses
 * @throws Conflict when another rotation was faster, telling its id
 */
export async function beginRotation(
  db: Kysely<Database>,
  keyring: Keyring,
  expectedActive?: string
): Promise<{ id: string; replaces: string }> {
  const active = await findActiveGenerationId(db)
  if (!active) throw new RefusedToStart('There is no key generation yet: start the server once.')
  if (expectedActive && expectedActive !== active) throw await rotatedAlready(db, expectedActive)
  const { id, wrapped, fingerprint } = await makeGeneration(keyring.wrappingKey)
  const generation = { id: id.toString(), wrapped, fingerprint }
  try {
    await db.transaction().execute(async (tx) => {
      if (!(await lockActiveGeneration(tx, active))) throw await rotatedAlready(tx, active)
      await insertGeneration(tx, generation, { state: 'pending', replaces: active })
      await audit(tx, 'key.rotate', generation.id)
    })
  } catch (error) {
    if (!isUniqueViolation(error, 'key_generations_one_pending')) throw error
    const pending = await findPendingGeneration(db)
    throw new Conflict(`Another rotation is on its way, to key generation ${pending?.id ?? 'unknown'}.`)
  }
  await announce(db)
  return { id: generation.id, replaces: active }
}

async function rotatedAlready(db: Kysely<Database>, expected: string): Promise<Conflict> {
  const active = await findActiveGenerationId(db)
  return new Conflict(`Key generation ${active} is active, not ${expected}: somebody has rotated already.`)
}

export type RotationProgress =
  | { state: 'none' }
  | { state: 'waiting'; live: number; ready: number }
  | { state: 'activated'; id: string }

/** Makes a pending generation active once every live node can open with it, or has had time to. */
export async function activateWhenReady(
  db: Kysely<Database>,
  graceSeconds: number
): Promise<RotationProgress> {
  const pending = await findPendingGeneration(db)
  if (!pending) return { state: 'none' }
  const { live, ready } = await countNodes(db, pending.id, PATIENCE_MS)
  if (ready < live && pending.age_ms < PATIENCE_MS) return { state: 'waiting', live, ready }
  return await activate(db, pending, graceSeconds)
}

async function activate(
  db: Kysely<Database>,
  pending: PendingGeneration,
  graceSeconds: number
): Promise<RotationProgress> {
  const activated = await db.transaction().execute(async (tx) => {
    const won = await activateGeneration(tx, pending, graceSeconds)
    if (won) await audit(tx, 'key.activate', pending.id)
    return won
  })
  if (!activated) return { state: 'none' }
  await announce(db)
  return { state: 'activated', id: pending.id }
}

/**
 * Lets a retired generation open boxes for another time than it was retired with, counted from then.
 */
export async function changeGrace(db: Kysely<Database>, id: string, graceSeconds: number): Promise<void> {
  const changed = await db.transaction().execute(async (tx) => {
    const replaced = await replaceGrace(tx, id, graceSeconds)
    if (replaced) await audit(tx, 'key.grace', id)
    return replaced
  })
  if (changed) await announce(db)
}

/** Wraps every generation with the keyring's first master key; gives the ids that it wrapped anew. */
export async function rewrap(db: Kysely<Database>, keyring: Keyring): Promise<string[]> {
  const rewrapped: string[] = []
  for (const row of await listGenerations(db)) {
    if (row.fingerprint === keyring.wrappingKey.fingerprint) continue
    const wrapping = await keyring.rewrap(stored(row))
    const done = await db.transaction().execute(async (tx) => {
      const replaced = await replaceWrapping(tx, row.id, row.fingerprint, wrapping)
      if (replaced) await audit(tx, 'key.rewrap', row.id)
      return replaced
    })
    if (done) rewrapped.push(row.id)
  }
  return rewrapped
}

/**
 * Destroys a retired generation: nothing can open what was encrypted under it, ever again.
 *
 * @throws NotFound when there is no such generation
 * @throws Conflict while it is active, pending, just retired, or in use
 */
export async function destroy(db: Kysely<Database>, id: string): Promise<void> {
  const generation = (await listGenerationStatus(db)).find((status) => status.id === id)
  if (!generation) throw new NotFound(`There is no key generation ${id}.`)
  if (generation.state === 'destroyed') throw new NotFound(`Key generation ${id} is destroyed already.`)
  if (generation.state !== 'retired') {
    throw new Conflict(`Key generation ${id} is ${generation.state}; only a retired one can be destroyed.`)
  }
  if ((generation.retired_for_ms ?? 0) < PATIENCE_MS) {
    throw new Conflict(`Key generation ${id} was retired just now; wait ${PATIENCE_MS / 1000} seconds.`)
  }
  try {
    await db.transaction().execute(async (tx) => {
      if (await destroyGeneration(tx, id)) await audit(tx, 'key.destroy', id)
    })
  } catch (error) {
    if (!isForeignKeyViolation(error)) throw error
    throw new Conflict(
      `Key generation ${id} is in use by ${generation.secrets} secrets. Run coffer key reencrypt first.`
    )
  }
  await announce(db)
}

export interface ReencryptProgress {
  done: number
  total: number
}

export interface ReencryptResult {
  done: number
  /** values that do not open with their key, left as they are: collection and name */
  unreadable: string[]
}

/**
 * Encrypts all stored values under the active generation. It may be interrupted and run again, beside a server
 * that writes: each value is its own compare-and-swap. One that does not open does not stop the others.
 */
export async function reencryptAll(
  vault: Pick<Vault, 'db' | 'keyring'>,
  onProgress: (progress: ReencryptProgress) => void
): Promise<ReencryptResult> {
  const { db, keyring } = vault
  const unreadable = new Map<number, string>()
  for (let done = 0, total: number | undefined; ; ) {
    // In this order, for each batch: a rotation that came in between is followed, never worked against.
    await loadGenerations(db, keyring)
    const active = await findActiveGenerationId(db)
    if (!active) throw new RefusedToStart('There is no key generation yet: start the server once.')
    total ??= await countValuesOfOtherGenerations(db, active)
    onProgress({ done, total: Math.max(done, total) })
    const values = await listValuesOfOtherGenerations(db, active, [...unreadable.keys()], REENCRYPT_BATCH)
    if (values.length === 0) return { done, unreadable: [...unreadable.values()] }
    for (const value of values) {
      try {
        if (await reencrypt(vault, value)) done += 1
      } catch (error) {
        if (!(error instanceof CorruptEnvelope)) throw error
        // Of a generation that is newer than what was loaded: the next batch knows it.
        if (!keyring.generationIds.includes(BigInt(value.generation_id))) continue
        unreadable.set(value.secret_id, `${value.app}/${value.kind}/${value.owner_uid}/${value.name}`)
      }
    }
  }
}
