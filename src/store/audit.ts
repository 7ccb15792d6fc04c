import type { Transaction } from 'kysely'
import type { Database } from './tables.ts'

/** Who acts, with which token, in which request. */
export interface Principal {
  kind: 'user' | 'system'
  uid: string | null
  tokenId: number | null
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
    .orderBy('id')
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

/** A row of `audit_events`, in the order of `AUDIT_COLUMNS`. */
export type AuditRow = ReturnType<typeof auditRow>

/**
 * The row of an event, as of now. `canonical` is a JSON array with a fixed order of members; it is stored as
 * it was written, so that what a chain hashes never depends on how a database prints things.
 */
export function auditRow(event: AuditEvent) {
  const occurredAt = new Date()
  const { principal } = event
  const outcome = event.outcome ?? 'allowed'
  const canonical = Buffer.from(
    JSON.stringify([
      'coffer/audit/v1',
      event.streamUid,
      principal.kind,
      principal.uid,
      principal.tokenId,
      principal.issuedByUid,
      event.action,
      outcome,
      event.collection ?? null,
      event.subjectUid ?? null,
      event.name ?? null,
      event.valueVersion ?? null,
      event.envelopeSha256?.toString('hex') ?? null,
      principal.requestId,
      occurredAt.toISOString()
    ])
  )
  return {
    stream_uid: event.streamUid,
    actor_kind: principal.kind as string,
    actor_uid: principal.uid,
    token_id: principal.tokenId,
    issued_by_uid: principal.issuedByUid,
    action: event.action,
    outcome: outcome as string,
    collection: event.collection ?? null,
    subject_uid: event.subjectUid ?? null,
    name: event.name ?? null,
    value_version: event.valueVersion ?? null,
    envelope_sha256: event.envelopeSha256 ?? null,
    request_id: principal.requestId,
    occurred_at: occurredAt,
    canonical
  }
}

/** PostgreSQL takes 65,535 parameters in a statement, and each record has fifteen. */
const EVENTS_PER_STATEMENT = 1000

/** Records events in the transaction of the change that they are about. */
export async function insertAuditEvents(
  tx: Transaction<Database>,
  events: readonly AuditEvent[]
): Promise<void> {
  for (let start = 0; start < events.length; start += EVENTS_PER_STATEMENT) {
    const rows = events.slice(start, start + EVENTS_PER_STATEMENT).map(auditRow)
    await tx.insertInto('audit_events').values(rows).execute()
  }
}
