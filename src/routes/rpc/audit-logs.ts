import type { Static } from '@sinclair/typebox'
import { type LogPage, type LogRequest, readLog } from '../../audit/log.ts'
import { NotFound } from '../../errors.ts'
import { resourceOf, resourcesOfTypes } from '../../events/resources.ts'
import { findLogRow, type LogConditions, type LogRow } from '../../store/audit-log.ts'
import { invalid } from './decode.ts'
import { type Method, method } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact, Principal, principalKinds, principalName, timestamp } from './present.ts'
import { ResourceType } from './resource-types.ts'
import { Enum, List, Message, Text, Timestamp, Uuid } from './schema.ts'
import { readOrder, Sort } from './sort.ts'

// The audit log of an organization, as Ona's API shows it: what was done. What was refused is no change, and is shown
// by GitHub's API.

const AuditLogEntry = Message('ListAuditLogsResponse.AuditLogEntry', {
  id: Text({ description: 'The number of the record' }),
  actorId: Uuid(),
  actorPrincipal: Principal,
  subjectId: Uuid(),
  subjectType: { ...ResourceType, description: "Unset for what Ona's API has no name for" },
  action: Text(),
  createdAt: Timestamp(),
  kind: Enum('AUDIT_LOG_ENTRY_KIND', {
    AUDIT_LOG_ENTRY_KIND_AGENT_SECURITY_EXEC_BLOCKED: 1,
    AUDIT_LOG_ENTRY_KIND_AGENT_SECURITY_EXEC_AUDITED: 2,
    AUDIT_LOG_ENTRY_KIND_RESOURCE_CHANGE: 3,
    AUDIT_LOG_ENTRY_KIND_CREDENTIAL_ACCESS: 4,
    AUDIT_LOG_ENTRY_KIND_ENVIRONMENT_VETO: 5
  })
})

const Ids = List(Uuid({ required: true }), { max: 25 })

const Filter = Message('ListAuditLogsRequest.Filter', {
  actorIds: Ids,
  actorPrincipals: List(Principal, { max: 25 }),
  subjectIds: Ids,
  subjectTypes: List(ResourceType, { max: 25 }),
  from: Timestamp({ description: 'Inclusive' }),
  to: Timestamp({ description: 'Exclusive' })
})

/** How often the log is read on for one page where nothing fits, some 40,000 records each time. */
const MAX_READS = 25

function presentEntry(row: LogRow): Static<typeof AuditLogEntry> {
  return compact({
    id: String(row.id),
    actorId: row.actor_uid,
    actorPrincipal: principalName(row.actor_kind),
    subjectId: row.subject_uid,
    subjectType: resourceOf(row.action, row.collection)?.type,
    action: row.action,
    createdAt: timestamp(new Date(Number(row.at) / 1000)),
    kind:
      row.action === 'secret.read'
        ? ('AUDIT_LOG_ENTRY_KIND_CREDENTIAL_ACCESS' as const)
        : ('AUDIT_LOG_ENTRY_KIND_RESOURCE_CHANGE' as const)
  })
}

const WHAT_WAS_DONE: LogConditions = { outcomes: { any: ['allowed'] } }

function conditionsOf(filter: Static<typeof Filter>): LogConditions {
  const { actorIds = [], actorPrincipals = [], subjectIds = [], subjectTypes = [] } = filter
  return {
    ...WHAT_WAS_DONE,
    ...(actorIds.length > 0 && { actorUids: { any: actorIds } }),
    ...(actorPrincipals.length > 0 && { actorKinds: { any: actorPrincipals.flatMap(principalKinds) } }),
    ...(subjectIds.length > 0 && { subjectUids: { any: subjectIds } }),
    ...(subjectTypes.length > 0 && { subjects: { any: resourcesOfTypes(subjectTypes) } })
  }
}

export function listAuditLogs({ db, pages }: OnaDependencies): Method {
  /** An empty page would end a client's list, so what is rare is looked for until something of it is found. */
  const read = async (request: LogRequest): Promise<LogPage> => {
    let from = request.cursor
    for (let reads = 0; reads < MAX_READS; reads++) {
      const page = await readLog(db, { ...request, ...(from && { cursor: from }) })
      if (page.events.length > 0 || !page.next) return page
      from = { side: 'after', position: page.next }
    }
    throw invalid('filter', 'fits nothing in very many records; say from and to, so that they are fewer')
  }
  return method({
    name: 'ListAuditLogs',
    summary: 'List what was done in the organization, newest first',
    access: 'audit-log:read',
    reads: true,
    request: Message('ListAuditLogsRequest', {
      pagination: PaginationRequest,
      filter: Filter,
      sort: { ...Sort, description: 'By `createdAt`' }
    }),
    response: Message('ListAuditLogsResponse', {
      entries: List(AuditLogEntry),
      pagination: PaginationResponse
    }),
    async handle(input, call) {
      const page = pages.open<readonly [string, number]>(call, input)
      const { filter = {}, sort } = input
      const order = readOrder(sort, 'createdAt') ?? 'desc'
      const [at, id] = page.after ?? []
      const { events, next } = await read({
        streamUid: call.organization.organization_uid,
        ...(filter.from && { since: new Date(filter.from) }),
        ...(filter.to && { until: new Date(filter.to) }),
        conditions: conditionsOf(filter),
        order,
        limit: page.limit - 1,
        ...(at !== undefined && { cursor: { side: 'after', position: { at, id: id! } } })
      })
      return compact({
        entries: events.map(presentEntry),
        pagination: page.goOn(next && [next.at, next.id])
      })
    }
  })
}

const RECORD_NUMBER = /^[1-9][0-9]{0,14}$/

export function getAuditLog({ db }: OnaDependencies): Method {
  return method({
    name: 'GetAuditLog',
    summary: 'Get one entry of the audit log',
    access: 'audit-log:read',
    reads: true,
    request: Message('GetAuditLogRequest', { auditLogEntryId: Text({ required: true, max: 255 }) }),
    response: Message('GetAuditLogResponse', { entry: AuditLogEntry }),
    async handle({ auditLogEntryId }, { organization }) {
      const streamUids = { any: [organization.organization_uid] }
      const row = RECORD_NUMBER.test(auditLogEntryId!)
        ? await findLogRow(db, Number(auditLogEntryId), { ...WHAT_WAS_DONE, streamUids })
        : undefined
      if (!row) throw new NotFound('There is no such entry in the audit log of the organization.')
      return { entry: presentEntry(row) }
    }
  })
}
