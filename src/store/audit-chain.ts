import { type Kysely, sql, type Transaction } from 'kysely'
import { statement } from './statement.ts'
import type { Database } from './tables.ts'

const SEALER_LOCK = 7_245_003

/** False while another node seals; held until the transaction ends. */
export async function trySealerLock(tx: Transaction<Database>): Promise<boolean> {
  const { rows } = await sql<{
    free: boolean
  }>`select pg_try_advisory_xact_lock(${SEALER_LOCK}) as free`.execute(tx)
  return rows[0]!.free
}

/** How far the sealer is: all before (transaction, event) is sealed, and what `adopted_id` says besides. */
export interface SealerPosition {
  /** foreign records up to this id were gone through; null: all were */
  adopted_id: number | null
  transaction_id: string
  event_id: number
}

/**
 * Where the sealer goes on. In a database that is new to it, or to its cluster, it begins anew, and goes through
 * foreign records first; what is sealed already stays so.
 */
export async function getSealerPosition(tx: Transaction<Database>): Promise<SealerPosition> {
  const known = await tx
    .selectFrom('audit_sealer')
    .select(['adopted_id', 'transaction_id', 'event_id'])
    .where('cluster', '=', sql<string>`audit_cluster()`)
    .executeTakeFirst()
  if (known) return known
  const { rows } = await sql<SealerPosition>`
    insert into audit_sealer (cluster, adopted_id, transaction_id, event_id) values (audit_cluster(), 0, '0', 0)
    on conflict (only_row) do update set cluster = excluded.cluster, adopted_id = excluded.adopted_id,
      transaction_id = excluded.transaction_id, event_id = excluded.event_id
    returning adopted_id, transaction_id, event_id`.execute(tx)
  return rows[0]!
}

/**
 * A record that was not written by the transaction that it names came here by a dump: that id is another cluster's,
 * and says nothing here. PostgreSQL itself keeps by which transaction a row came, without the epoch.
 */
const FOREIGN = sql`(e.xmin::text::bigint <> e.transaction_id::text::numeric % 4294967296
  or e.transaction_id >= pg_snapshot_xmax(pg_current_snapshot()))`

/** A record of the log, in the order in which the sealer meets it. */
export interface Examined {
  id: number
  transaction_id: string
  stream_uid: string
  /** null: it is not to be sealed, or is already */
  canonical: Buffer | null
}

/** The next records whose transactions, and all before them, have ended. */
export const listSettled = statement<SealerPosition & { limit: number }, Examined>(
  (_, { transaction_id, event_id, limit }) => sql`
    select e.id, e.transaction_id, e.stream_uid, case when c.event_id is null then e.canonical end as canonical
    from (
      select id, transaction_id, stream_uid, canonical from audit_events
      where (transaction_id, id) > (${transaction_id}::xid8, ${event_id}::bigint)
        and transaction_id < pg_snapshot_xmin(pg_current_snapshot())
      order by transaction_id, id limit ${limit}::bigint
    ) e left join audit_chain c on c.event_id = e.id
    order by e.transaction_id, e.id`
)

/** The next records by id; `canonical` is null for those that are this cluster's own, too. */
export const listForeign = statement<{ after: number; limit: number }, Examined>(
  (_, { after, limit }) => sql`
    select e.id, e.transaction_id, e.stream_uid,
      case when e.is_foreign and c.event_id is null then e.canonical end as canonical
    from (
      select id, transaction_id, stream_uid, canonical, ${FOREIGN} as is_foreign from audit_events e
      where id > ${after}::bigint order by id limit ${limit}::bigint
    ) e left join audit_chain c on c.event_id = e.id
    order by e.id`
)

/** Whether there is anything for the sealer to do; one look at an index when there is not. */
export async function hasUnsealed(db: Kysely<Database>): Promise<boolean> {
  const { rows } = await sql<{ due: boolean }>`
    select coalesce((
      select s.adopted_id is not null or exists (
        select 1 from audit_events e
        where (e.transaction_id, e.id) > (s.transaction_id, s.event_id)
          and e.transaction_id < pg_snapshot_xmin(pg_current_snapshot()))
      from audit_sealer s), true) as due`.execute(db)
  return rows[0]!.due
}

export interface StreamHead {
  stream_uid: string
  sequence: number
  hash: Buffer
}

interface End {
  sequence: number
  hash: Buffer
}

interface EndsRow {
  stream_uid: string
  sequence: number | null
  hash: Buffer | null
  last_sequence: number | null
  last_hash: Buffer | null
}

const ends = statement<{ streamUids: string[] }, EndsRow>(
  (_, { streamUids }) => sql`
    select u.stream_uid, s.sequence, s.hash, c.sequence as last_sequence, c.hash as last_hash
    from unnest(${streamUids}::uuid[]) u (stream_uid)
    left join audit_streams s on s.stream_uid = u.stream_uid
    left join lateral (
      select sequence, hash from audit_chain where stream_uid = u.stream_uid order by sequence desc limit 1
    ) c on true`
)

/** The end of each stream as it is recorded, and its last link. They differ when somebody altered one of them. */
export async function listEnds(
  tx: Transaction<Database>,
  streamUids: ReadonlySet<string>
): Promise<{ stream_uid: string; recorded: End | undefined; last: End | undefined }[]> {
  const rows = await ends(tx, { streamUids: [...streamUids] })
  return rows.map(({ stream_uid, sequence, hash, last_sequence, last_hash }) => ({
    stream_uid,
    recorded: endOf(sequence, hash),
    last: endOf(last_sequence, last_hash)
  }))
}

function endOf(sequence: number | null, hash: Buffer | null): End | undefined {
  return sequence === null || hash === null ? undefined : { sequence, hash }
}

/** A new link of the chain. */
export interface ChainRow extends StreamHead {
  event_id: number
}

const insertLinks = statement<
  { ids: number[]; streamUids: string[]; sequences: number[]; hashes: Buffer[] },
  never
>(
  (_, { ids, streamUids, sequences, hashes }) => sql`
    insert into audit_chain (event_id, stream_uid, sequence, hash)
    select * from unnest(${ids}::bigint[], ${streamUids}::uuid[], ${sequences}::bigint[], ${hashes}::bytea[])`
)

const upsertHeads = statement<{ streamUids: string[]; sequences: number[]; hashes: Buffer[] }, never>(
  (_, { streamUids, sequences, hashes }) => sql`
    insert into audit_streams (stream_uid, sequence, hash)
    select * from unnest(${streamUids}::uuid[], ${sequences}::bigint[], ${hashes}::bytea[])
    on conflict (stream_uid) do update set sequence = excluded.sequence, hash = excluded.hash`
)

const updatePosition = statement<SealerPosition, never>(
  (_, { adopted_id, transaction_id, event_id }) => sql`
    update audit_sealer set adopted_id = ${adopted_id}::bigint, transaction_id = ${transaction_id}::xid8,
      event_id = ${event_id}::bigint`
)

/** Stores links, heads and position: all of one batch, whichever streams it is about. */
export async function storeLinks(
  tx: Transaction<Database>,
  links: readonly ChainRow[],
  heads: readonly StreamHead[],
  position: SealerPosition
): Promise<void> {
  if (links.length > 0) {
    await insertLinks(tx, {
      ids: links.map(({ event_id }) => event_id),
      streamUids: links.map(({ stream_uid }) => stream_uid),
      sequences: links.map(({ sequence }) => sequence),
      hashes: links.map(({ hash }) => hash)
    })
    await upsertHeads(tx, {
      streamUids: heads.map(({ stream_uid }) => stream_uid),
      sequences: heads.map(({ sequence }) => sequence),
      hashes: heads.map(({ hash }) => hash)
    })
  }
  await updatePosition(tx, { ...position })
}

/** The age of the oldest record that is not sealed; undefined when all are. */
export async function findSealingDelay(db: Kysely<Database>): Promise<number | undefined> {
  const { rows } = await sql<{ seconds: number }>`
    select extract(epoch from clock_timestamp() - e.occurred_at)::float8 as seconds
    from audit_sealer s cross join lateral (
      select occurred_at from audit_events
      where (transaction_id, id) > (s.transaction_id, s.event_id) order by transaction_id, id limit 1
    ) e`.execute(db)
  return rows[0]?.seconds
}

/** The heads of all streams, some at a time, in the order of their uids. */
export async function listHeads(
  db: Kysely<Database>,
  after: string | undefined,
  limit: number
): Promise<StreamHead[]> {
  return await db
    .selectFrom('audit_streams')
    .select(['stream_uid', 'sequence', 'hash'])
    .$if(after !== undefined, (query) => query.where('stream_uid', '>', after!))
    .orderBy('stream_uid')
    .limit(limit)
    .execute()
}
