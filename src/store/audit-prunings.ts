import { type Kysely, sql, type Transaction } from 'kysely'
import type { StreamHead } from './audit-chain.ts'
import type { Database } from './tables.ts'

const PRUNING_LOCK = 7_245_004

/** Up to where a stream was removed after its time. */
export interface PruningRow {
  stream_uid: string
  through: number
  hash: Buffer
  before: Date
  pruned_at: Date
  key: string
  signature: Buffer
}

/** False while another node removes records; held until the transaction ends. */
export async function tryPruningLock(tx: Transaction<Database>): Promise<boolean> {
  const { rows } = await sql<{
    free: boolean
  }>`select pg_try_advisory_xact_lock(${PRUNING_LOCK}) as free`.execute(tx)
  return rows[0]!.free
}

/** Now by the database's clock, and a number of days before that. */
export async function findCutOff(
  tx: Transaction<Database>,
  days: number
): Promise<{ now: Date; before: Date }> {
  const { rows } = await sql<{ now: Date; before: Date }>`
    select now, now - make_interval(days => ${days}::integer) as before
    from (select date_trunc('milliseconds', clock_timestamp()) as now) clock`.execute(tx)
  return rows[0]!
}

/**
 * Streams whose first record that is left is older than this, in the order of their uids, each with the place
 * before it: where the last removal ended.
 */
export async function listPrunable(
  tx: Transaction<Database>,
  before: Date,
  after: string | undefined,
  limit: number
): Promise<{ stream_uid: string; through: number | null; hash: Buffer | null }[]> {
  const { rows } = await sql<{ stream_uid: string; through: number | null; hash: Buffer | null }>`
    select s.stream_uid, p.through, p.hash from audit_streams s
    cross join lateral (
      select c.event_id from audit_chain c where c.stream_uid = s.stream_uid order by c.sequence limit 1
    ) first
    join audit_events e on e.id = first.event_id
    left join audit_prunings p on p.stream_uid = s.stream_uid
    where e.occurred_at < ${before} and (${after ?? null}::uuid is null or s.stream_uid > ${after ?? null}::uuid)
    order by s.stream_uid limit ${limit}`.execute(tx)
  return rows
}

/** Removes the beginning of a stream, and stores the signed word that it was removed. */
export async function removeThrough(tx: Transaction<Database>, pruning: PruningRow): Promise<void> {
  const { stream_uid, through } = pruning
  // The triggers let only this pass, and only until the transaction ends.
  await sql`select set_config('coffer.prunes_audit', 'on', true)`.execute(tx)
  await sql`
    with links as (
      delete from audit_chain where stream_uid = ${stream_uid}::uuid and sequence <= ${through} returning event_id)
    delete from audit_events where id in (select event_id from links)`.execute(tx)
  await tx
    .insertInto('audit_prunings')
    .values(pruning)
    .onConflict((oc) => oc.column('stream_uid').doUpdateSet(pruning))
    .execute()
}

export async function listPrunings(
  db: Kysely<Database>,
  after: string | undefined,
  limit: number
): Promise<PruningRow[]> {
  return await db
    .selectFrom('audit_prunings')
    .select(['stream_uid', 'through', 'hash', 'before', 'pruned_at', 'key', 'signature'])
    .$if(after !== undefined, (query) => query.where('stream_uid', '>', after!))
    .orderBy('stream_uid')
    .limit(limit)
    .execute()
}

/** A stream with its end, and what was removed of it. */
export type StreamSummary = StreamHead & { pruning: PruningRow | undefined }
