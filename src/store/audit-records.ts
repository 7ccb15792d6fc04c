import { type Kysely, type RawBuilder, sql } from 'kysely'
import { statement } from './statement.ts'
import type { Database } from './tables.ts'

/** A record in the form of the canonical bytes: bytes in hexadecimal, times in ISO 8601. */
interface StoredRecord {
  id: number
  canonical: Buffer
  columns: Record<string, string | number | null>
}

/** A link of the chain with its record; null: the record is gone. */
export interface SealedRecord {
  stream_uid: string
  sequence: number
  hash: Buffer
  event_id: number
  record: StoredRecord | null
}

type RecordRow = Record<string, string | number | null> & { id: number | null; canonical: Buffer | null }

const COLUMNS = sql`e.id, e.canonical, e.stream_uid as record_stream_uid, e.actor_kind, e.actor_uid, e.actor_login,
  e.token_id, e.issued_by_uid, e.action, e.outcome, e.collection, e.subject_uid, e.name, e.value_version,
  encode(e.envelope_sha256, 'hex') as envelope_sha256, e.repository_uid, e.address, e.occurrences, e.request_id,
  to_char(e.occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as occurred_at`

function recordOf(row: RecordRow): StoredRecord | null {
  const { id, canonical, record_stream_uid, occurred_at, ...columns } = row
  if (id === null || canonical === null) return null
  // Microseconds only where there are any: whoever wrote the record had milliseconds.
  const time = (occurred_at as string).replace(/000Z$/, 'Z')
  return { id, canonical, columns: { ...columns, stream_uid: record_stream_uid!, occurred_at: time } }
}

type SealedRow = RecordRow & { chain_stream_uid: string; sequence: number; hash: Buffer; event_id: number }

function sealed(where: RawBuilder<unknown>, limit: number) {
  return sql<SealedRow>`
    select c.stream_uid as chain_stream_uid, c.sequence, c.hash, c.event_id, ${COLUMNS}
    from (
      select stream_uid, sequence, hash, event_id from audit_chain
      where ${where} order by stream_uid, sequence limit ${limit}::bigint
    ) c left join audit_events e on e.id = c.event_id
    order by c.stream_uid, c.sequence`
}

const sealedOfAll = statement<{ streamUid: string; after: number; limit: number }, SealedRow>(
  (_, { streamUid, after, limit }) =>
    sealed(sql`(stream_uid, sequence) > (${streamUid}::uuid, ${after}::bigint)`, limit)
)

const sealedOfOne = statement<{ streamUid: string; after: number; limit: number }, SealedRow>(
  (_, { streamUid, after, limit }) =>
    sealed(sql`stream_uid = ${streamUid}::uuid and sequence > ${after}::bigint`, limit)
)

function sealedRecord({ chain_stream_uid, sequence, hash, event_id, ...record }: SealedRow): SealedRecord {
  return { stream_uid: chain_stream_uid, sequence, hash, event_id, record: recordOf(record as RecordRow) }
}

/** What comes in the chains behind this place: stream after stream, in the order of their uids. */
export async function listSealed(
  db: Kysely<Database>,
  { streamUid, sequence }: { streamUid: string; sequence: number },
  limit: number
): Promise<SealedRecord[]> {
  return (await sealedOfAll(db, { streamUid, after: sequence, limit })).map(sealedRecord)
}

/** What comes in the chain of one stream behind this place. */
export async function listSealedOf(
  db: Kysely<Database>,
  streamUid: string,
  after: number,
  limit: number
): Promise<SealedRecord[]> {
  return (await sealedOfOne(db, { streamUid, after, limit })).map(sealedRecord)
}

/** Records that the sealer has passed and that are in no chain: somebody put them there later. */
export async function listStrays(
  db: Kysely<Database>,
  after: number,
  limit: number
): Promise<{ id: number; canonical: Buffer; columns: Record<string, string | number | null> }[]> {
  const { rows } = await sql<RecordRow>`
    select ${COLUMNS} from audit_events e cross join audit_sealer s
    where e.id > ${after}::bigint and s.adopted_id is null
      and (e.transaction_id, e.id) <= (s.transaction_id, s.event_id)
      and not exists (select 1 from audit_chain c where c.event_id = e.id)
    order by e.id limit ${limit}::bigint`.execute(db)
  return rows.map((row) => recordOf(row)!)
}

/** How many records are in no chain: those that wait for the sealer, and those that were put there later. */
export async function countUnchained(db: Kysely<Database>): Promise<number> {
  const { unchained } = await db
    .selectFrom('audit_events as e')
    .select((eb) => eb.fn.countAll<number>().as('unchained'))
    .where(({ not, exists, selectFrom }) =>
      not(exists(selectFrom('audit_chain as c').select('c.event_id').whereRef('c.event_id', '=', 'e.id')))
    )
    .executeTakeFirstOrThrow()
  return unchained
}
