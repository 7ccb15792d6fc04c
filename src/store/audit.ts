import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'
import type { TokenCheck, TokenNeeds } from './tokens.ts'

/** Who acts, with which token, in which request; `app` is a GitHub App that signed for itself. */
export interface Principal {
  kind:
    | 'user'
    | 'installation'
    | 'service-account'
    | 'environment'
    | 'runner'
    | 'app'
    | 'system'
    | 'anonymous'
  uid: string | null
  /** as it is now; the record keeps it when the account is gone */
  login?: string | null
  tokenId: number | null
  /** of an installation: what it must still allow when a write commits */
  needs?: TokenNeeds
  issuedByUid: string | null
  requestId: string | null
}

/** One record of the audit log. Never holds a value. */
export interface AuditEvent {
  /** uid of the account whose log this belongs to, or of the instance */
  streamUid: string
  principal: Principal
  action: string
  outcome?: 'allowed' | 'denied'
  collection?: string
  subjectUid?: string
  name?: string
  valueVersion?: number
  envelopeSha256?: Buffer
  /** the repository that it is about, where neither collection nor subject tell */
  repositoryUid?: string
  /** where the request came from */
  address?: string
  /** of how many things of the same kind this is the one record */
  occurrences?: number
}

/** Whether something was ever recorded; found at once when it happened early. */
export async function hasAuditEvent(
  tx: Transaction<Database>,
  streamUid: string,
  action: string
): Promise<boolean> {
  const row = await tx
    .selectFrom('audit_events')
    .select('id')
    .where('stream_uid', '=', streamUid)
    .where('action', '=', action)
    .orderBy('occurred_at')
    .orderBy('id')
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

/**
 * What the canonical form of a record holds after its label: names of columns, in order. It never changes under a
 * label that was used; a column more is another label. What a form does not hold is null in its records.
 */
export const CANONICAL_FORMS = {
  'coffer/audit/v1': [
    'stream_uid',
    'actor_kind',
    'actor_uid',
    'token_id',
    'issued_by_uid',
    'action',
    'outcome',
    'collection',
    'subject_uid',
    'name',
    'value_version',
    'envelope_sha256',
    'request_id',
    'occurred_at'
  ],
  'coffer/audit/v2': [
    'stream_uid',
    'actor_kind',
    'actor_uid',
    'actor_login',
    'token_id',
    'issued_by_uid',
    'action',
    'outcome',
    'collection',
    'subject_uid',
    'name',
    'value_version',
    'envelope_sha256',
    'repository_uid',
    'address',
    'occurrences',
    'request_id',
    'occurred_at'
  ]
} as const

const FORM = 'coffer/audit/v2'

export type CanonicalColumn = (typeof CANONICAL_FORMS)[typeof FORM][number]

/** A row of `audit_events`, without what the database adds. */
export type AuditRow = ReturnType<typeof auditRow>

/**
 * The row of an event, as of now. `canonical` is a JSON array with a fixed order of members; it is stored as
 * it was written, so that what a chain hashes never depends on how a database prints things.
 */
export function auditRow(event: AuditEvent) {
  const { principal } = event
  const row = {
    stream_uid: event.streamUid,
    actor_kind: principal.kind as string,
    actor_uid: principal.uid,
    actor_login: principal.login ?? null,
    token_id: principal.tokenId,
    issued_by_uid: principal.issuedByUid,
    action: event.action,
    outcome: (event.outcome ?? 'allowed') as string,
    collection: event.collection ?? null,
    subject_uid: event.subjectUid ?? null,
    name: event.name ?? null,
    value_version: event.valueVersion ?? null,
    envelope_sha256: event.envelopeSha256 ?? null,
    repository_uid: repositoryOf(event) ?? null,
    address: event.address ?? null,
    occurrences: event.occurrences ?? null,
    request_id: principal.requestId,
    occurred_at: new Date()
  }
  const { envelope_sha256, occurred_at } = row
  const texts = {
    ...row,
    envelope_sha256: envelope_sha256?.toString('hex') ?? null,
    occurred_at: occurred_at.toISOString()
  }
  const members = CANONICAL_FORMS[FORM].map((column) => texts[column])
  return { ...row, canonical: Buffer.from(JSON.stringify([FORM, ...members])) }
}

const REPOSITORY_COLLECTION = /(?:^|\/)repository\/([^/]+)$/

function repositoryOf({ repositoryUid, collection, action, subjectUid }: AuditEvent): string | undefined {
  if (repositoryUid !== undefined) return repositoryUid
  if (action.startsWith('repository.')) return subjectUid
  return collection === undefined ? undefined : REPOSITORY_COLLECTION.exec(collection)?.[1]
}

/** PostgreSQL takes 65,535 parameters in a statement, and each record has nineteen. */
const EVENTS_PER_STATEMENT = 1000

/** Records events in the transaction of the change that they are about, or those that are about none. */
export async function insertAuditEvents(tx: Kysely<Database>, events: readonly AuditEvent[]): Promise<void> {
  for (let start = 0; start < events.length; start += EVENTS_PER_STATEMENT) {
    const rows = events.slice(start, start + EVENTS_PER_STATEMENT).map(auditRow)
    await tx.insertInto('audit_events').values(rows).execute()
  }
}

/** The parameters of a statement that writes its audit record itself: those of the row. */
export type WithAudit<P> = P & Omit<AuditRow, 'token_id'> & TokenCheck

const COLUMNS =
  sql.raw(`stream_uid, actor_kind, actor_uid, actor_login, token_id, issued_by_uid, action, outcome,
  collection, subject_uid, name, value_version, envelope_sha256, repository_uid, address, occurrences, request_id,
  occurred_at, canonical`)

/** Rows as a parameter of `auditedEach`. */
export function auditRecords(rows: readonly AuditRow[]): string {
  const bytea = (bytes: Buffer | null) => bytes && `\\x${bytes.toString('hex')}`
  return JSON.stringify(
    rows.map(({ envelope_sha256, canonical, ...row }) => ({
      ...row,
      envelope_sha256: bytea(envelope_sha256),
      canonical: bytea(canonical)
    }))
  )
}

/** Inserts an audit record for each `no` that `written` has: the number, from 1, of a row of `auditRecords`. */
export function auditedEach(records: string) {
  return sql`insert into audit_events (${COLUMNS})
    select ${COLUMNS} from json_populate_recordset(null::audit_events, ${records}::json) with ordinality
    where ordinality in (select no from written) order by ordinality`
}

/** Inserts the audit record when `written` has a row; the parameters of the row are those of `AuditRow`. */
export function audited(row: Omit<AuditRow, 'token_id'> & { token_id: number }) {
  return sql`insert into audit_events (${COLUMNS})
    select ${row.stream_uid}::uuid, ${row.actor_kind}::text, ${row.actor_uid}::uuid, ${row.actor_login}::text,
      ${row.token_id}::bigint, ${row.issued_by_uid}::uuid, ${row.action}::text, ${row.outcome}::text,
      ${row.collection}::text, ${row.subject_uid}::uuid, ${row.name}::text, ${row.value_version}::integer,
      ${row.envelope_sha256}::bytea, ${row.repository_uid}::uuid, ${row.address}::text,
      ${row.occurrences}::integer, ${row.request_id}::text, ${row.occurred_at}::timestamptz,
      ${row.canonical}::bytea
    from written
    returning id`
}
