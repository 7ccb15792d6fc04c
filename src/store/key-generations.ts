import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'

export interface GenerationRow {
  id: string
  state: 'pending' | 'active' | 'retired'
  wrapped: Buffer
  fingerprint: string
  /** by the database's clock; null: no end is set */
  accepts_boxes_for_ms: number | null
}

/** Every generation that still has its material. */
export async function listGenerations(db: Kysely<Database>): Promise<GenerationRow[]> {
  return (await db
    .selectFrom('key_generations as g')
    .innerJoin('key_material as m', 'm.generation_id', 'g.id')
    .select([
      'g.id',
      'g.state',
      'm.wrapped',
      'm.fingerprint',
      sql<number | null>`(extract(epoch from g.accepts_boxes_until - now()) * 1000)::float8`.as(
        'accepts_boxes_for_ms'
      )
    ])
    .orderBy('g.created_at')
    .execute()) as GenerationRow[]
}

export interface GenerationStatus {
  id: string
  state: 'pending' | 'active' | 'retired' | 'destroyed'
  created_at: Date
  activated_at: Date | null
  retired_at: Date | null
  destroyed_at: Date | null
  accepts_boxes_until: Date | null
  fingerprint: string | null
  secrets: number
  /** by the database's clock */
  retired_for_ms: number | null
}

export async function listGenerationStatus(db: Kysely<Database>): Promise<GenerationStatus[]> {
  return await db
    .selectFrom('key_generations as g')
    .leftJoin('key_material as m', 'm.generation_id', 'g.id')
    .select([
      'g.id',
      'g.state',
      'g.created_at',
      'g.activated_at',
      'g.retired_at',
      'g.destroyed_at',
      'g.accepts_boxes_until',
      'm.fingerprint',
      sql<number>`(select count(*) from secrets s where s.generation_id = g.id)`.as('secrets'),
      sql<number | null>`(extract(epoch from now() - g.retired_at) * 1000)::float8`.as('retired_for_ms')
    ])
    .orderBy('g.created_at')
    .execute()
}

export interface NewGeneration {
  id: string
  wrapped: Buffer
  fingerprint: string
}

/** Refuses with unique violation `key_generations_one_pending` or `…_one_active` when there is one. */
export async function insertGeneration(
  tx: Transaction<Database>,
  { id, wrapped, fingerprint }: NewGeneration,
  state: { state: 'active' } | { state: 'pending'; replaces: string }
): Promise<void> {
  await tx
    .insertInto('key_generations')
    .values({
      id,
      state: state.state,
      replaces: state.state === 'pending' ? state.replaces : null,
      activated_at: state.state === 'active' ? sql<Date>`now()` : null
    })
    .execute()
  await tx.insertInto('key_material').values({ generation_id: id, wrapped, fingerprint }).execute()
}

export async function findActiveGenerationId(db: Kysely<Database>): Promise<string | undefined> {
  const row = await db
    .selectFrom('key_generations')
    .select('id')
    .where('state', '=', 'active')
    .executeTakeFirst()
  return row?.id
}

/** Whether it is the active one; if so, it stays that until the transaction ends. */
export async function lockActiveGeneration(tx: Transaction<Database>, id: string): Promise<boolean> {
  const row = await tx
    .selectFrom('key_generations')
    .select('id')
    .where('id', '=', id)
    .where('state', '=', 'active')
    .forShare()
    .executeTakeFirst()
  return row !== undefined
}

export interface PendingGeneration {
  id: string
  replaces: string
  age_ms: number
}

export async function findPendingGeneration(db: Kysely<Database>): Promise<PendingGeneration | undefined> {
  return (await db
    .selectFrom('key_generations')
    .select([
      'id',
      'replaces',
      sql<number>`(extract(epoch from clock_timestamp() - created_at) * 1000)::float8`.as('age_ms')
    ])
    .where('state', '=', 'pending')
    .executeTakeFirst()) as PendingGeneration | undefined
}

/**
 * Compare-and-swap: makes the pending generation active if the one it replaces still is. The old one opens
 * boxes for `graceSeconds` more. False when somebody else was faster.
 */
export async function activateGeneration(
  tx: Transaction<Database>,
  pending: { id: string; replaces: string },
  graceSeconds: number
): Promise<boolean> {
  const { numUpdatedRows } = await tx
    .updateTable('key_generations')
    .set({
      state: 'retired',
      retired_at: sql<Date>`now()`,
      accepts_boxes_until: sql<Date>`now() + make_interval(secs => ${graceSeconds}::double precision)`
    })
    .where('id', '=', pending.replaces)
    .where('state', '=', 'active')
    .executeTakeFirstOrThrow()
  if (numUpdatedRows === 0n) return false
  await tx
    .updateTable('key_generations')
    .set({ state: 'active', activated_at: sql<Date>`now()` })
    .where('id', '=', pending.id)
    .where('state', '=', 'pending')
    .execute()
  return true
}

/** How long a retired generation opens boxes, from when it was retired. False when it is so already. */
export async function replaceGrace(
  tx: Transaction<Database>,
  id: string,
  graceSeconds: number
): Promise<boolean> {
  const until = sql<Date>`retired_at + make_interval(secs => ${graceSeconds}::double precision)`
  const { numUpdatedRows } = await tx
    .updateTable('key_generations')
    .set({ accepts_boxes_until: until })
    .where('id', '=', id)
    .where('state', '=', 'retired')
    .where('accepts_boxes_until', 'is distinct from', until)
    .executeTakeFirstOrThrow()
  return numUpdatedRows > 0n
}

export async function replaceWrapping(
  tx: Transaction<Database>,
  id: string,
  previousFingerprint: string,
  wrapping: { wrapped: Buffer; fingerprint: string }
): Promise<boolean> {
  const { numUpdatedRows } = await tx
    .updateTable('key_material')
    .set(wrapping)
    .where('generation_id', '=', id)
    .where('fingerprint', '=', previousFingerprint)
    .executeTakeFirstOrThrow()
  return numUpdatedRows > 0n
}

/** Refuses with a foreign key violation while a secret is encrypted under it. */
export async function destroyGeneration(tx: Transaction<Database>, id: string): Promise<boolean> {
  await tx.deleteFrom('key_material').where('generation_id', '=', id).execute()
  const { numUpdatedRows } = await tx
    .updateTable('key_generations')
    .set({ state: 'destroyed', destroyed_at: sql<Date>`now()` })
    .where('id', '=', id)
    .where('state', '=', 'retired')
    .executeTakeFirstOrThrow()
  return numUpdatedRows > 0n
}

// ---- nodes: which servers run, and what each can open ----

export async function reportNode(
  db: Kysely<Database>,
  uid: string,
  generationIds: readonly string[]
): Promise<void> {
  await db
    .insertInto('nodes')
    .values({ uid, generation_ids: [...generationIds], reported_at: sql<Date>`now()` })
    .onConflict((oc) =>
      oc.column('uid').doUpdateSet({ generation_ids: [...generationIds], reported_at: sql<Date>`now()` })
    )
    .execute()
}

export async function deleteNode(db: Kysely<Database>, uid: string): Promise<void> {
  await db.deleteFrom('nodes').where('uid', '=', uid).execute()
}

/** Live nodes, and how many of them can open with the generation. Forgets those that are gone. */
export async function countNodes(
  db: Kysely<Database>,
  generationId: string,
  liveWithinMs: number
): Promise<{ live: number; ready: number }> {
  const since = sql<Date>`now() - make_interval(secs => ${liveWithinMs / 1000}::double precision)`
  await db.deleteFrom('nodes').where('reported_at', '<=', since).execute()
  return await db
    .selectFrom('nodes')
    .select((eb) => eb.fn.countAll<number>().as('live'))
    .select(sql<number>`count(*) filter (where ${generationId}::bigint = any(generation_ids))`.as('ready'))
    .where('reported_at', '>', since)
    .executeTakeFirstOrThrow()
}
