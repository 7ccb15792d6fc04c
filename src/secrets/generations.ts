import { type Kysely, sql } from 'kysely'
import { Conflict, NotFound, RefusedToStart } from '../errors.ts'
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
  type PendingGeneration,
  replaceWrapping
} from '../store/key-generations.ts'
import {
  countValuesOfOtherGenerations,
  listValuesOfOtherGenerations
} from '../store/secrets.ts'
import type { Database } from '../store/tables.ts'
import { reencrypt, type Vault } from './vault.ts'

/** How often a server reads the generations and reports which of them it can open with. */
export const REFRESH_INTERVAL_MS = 5_000
/** A node that has not reported for this long no longer counts; a pending generation this old need not wait. */
const PATIENCE_MS = 3 * REFRESH_INTERVAL_MS
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
  if (expectedActive && expectedActive !== active) {
    throw new Conflict(`Key generation ${active} is active, not ${expectedActive}: somebody has rotated already.`)
  }
  const { id, wrapped, fingerprint } = await makeGeneration(keyring.wrappingKey)
  const generation = { id: id.toString(), wrapped, fingerprint }
  try {
    await db.transaction().execute(async (tx) => {
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

export type RotationProgress =
  | { state: 'none' }
  | { state: 'waiting'; live: number; ready: number }
  | { state: 'activated'; id: string }

/** Makes a pending generation active once every live node can open with it, or has had time to. */
export async function activateWhenReady(db: Kysely<Database>, graceSeconds: number): Promise<RotationProgress> {
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
  if (!generation || generation.state === 'destroyed') throw new NotFound()
  if (generation.state !== 'retired') {
    throw new Conflict(`Key generation ${id} is ${generation.state}; only a retired one can be destroyed.`)
  }
  if (generation.retired_at && Date.now() - generation.retired_at.getTime() < PATIENCE_MS) {
    throw new Conflict(`Key generation ${id} was retired just now; wait ${PATIENCE_MS / 1000} seconds.`)
  }
  try {
    await db.transaction().execute(async (tx) => {
      await destroyGeneration(tx, id)
      await audit(tx, 'key.destroy', id)
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

/**
 * Encrypts all stored values under the active generation. It may be interrupted and run again, beside a server
 * that writes: each value is its own compare-and-swap.
 */
export async function reencryptAll(
  vault: Pick<Vault, 'db' | 'keyring'>,
  onProgress: (progress: ReencryptProgress) => void
): Promise<number> {
  const active = await findActiveGenerationId(vault.db)
  if (!active) throw new RefusedToStart('There is no key generation yet: start the server once.')
  const total = await countValuesOfOtherGenerations(vault.db, active)
  let done = 0
  onProgress({ done, total })
  for (;;) {
    const values = await listValuesOfOtherGenerations(vault.db, active, REENCRYPT_BATCH)
    if (values.length === 0) return done
    for (const value of values) if (await reencrypt(vault, value)) done += 1
    onProgress({ done, total: Math.max(done, total) })
  }
}
