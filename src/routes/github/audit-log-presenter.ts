import { type Static, Type } from '@sinclair/typebox'
import type { LogPosition, LogRow } from '../../store/audit-log.ts'

/** GitHub's form of a record, with what only Coffer has behind it. What is not known is absent, as on GitHub. */
export const AuditLogEvent = Type.Object({
  '@timestamp': Type.Integer({ description: 'When it happened: milliseconds since 1970' }),
  action: Type.String(),
  actor: Type.Optional(Type.String({ description: 'The login of who acted' })),
  actor_id: Type.Optional(Type.Integer()),
  created_at: Type.Integer({ description: 'The same as @timestamp' }),
  _document_id: Type.String({ description: 'Names the record; it is also its cursor, for after and before' }),
  name: Type.Optional(
    Type.String({ description: 'Of what it is about: a secret, an account, an operation' })
  ),
  operation_type: Type.String({ description: 'create, modify, remove, access, authentication or restore' }),
  org: Type.Optional(Type.String()),
  org_id: Type.Optional(Type.Integer()),
  repo: Type.Optional(Type.String({ description: 'The repository as owner/name' })),
  user: Type.Optional(Type.String({ description: 'The user who is affected' })),
  outcome: Type.String({ description: 'An extension: allowed or denied' }),
  actor_kind: Type.String({ description: 'An extension: user, system, or anonymous' }),
  actor_ip: Type.Optional(Type.String({ description: 'Of denied requests, for site administrators' })),
  occurrences: Type.Optional(Type.Integer({ description: 'An extension: so many requests in one record' })),
  collection: Type.Optional(Type.String({ description: 'An extension: whose secrets it is about' })),
  value_version: Type.Optional(Type.Integer({ description: 'An extension: which value of the secret' })),
  token_id: Type.Optional(Type.Integer()),
  request_id: Type.Optional(Type.String()),
  sequence: Type.Optional(
    Type.Integer({ description: 'An extension: the place in the sealed log; a second later at most' })
  ),
  hash: Type.Optional(Type.String({ description: 'An extension: the hash of the chain at this place' }))
})

/** A place in the log, as a cursor: opaque to clients. */
export function cursorOf({ at, id }: LogPosition): string {
  return Buffer.from(`${at}.${id}`).toString('base64url')
}

/** Undefined when the text is no cursor. */
export function parseCursor(text: string): LogPosition | undefined {
  const [, at, id] =
    /^(-?\d{1,17})\.(\d{1,15})$/.exec(Buffer.from(text, 'base64url').toString('latin1')) ?? []
  return at === undefined || id === undefined ? undefined : { at, id: Number(id) }
}

const OPERATIONS: readonly [RegExp, string][] = [
  [/^login\./, 'authentication'],
  [/^access\./, 'access'],
  [/\.restore$/, 'restore'],
  [/\.(create|add)$/, 'create'],
  [/\.(remove|revoke|destroy|prune)$/, 'remove']
]

/** Actions whose name is the login of the user that they affect. */
const ABOUT_USERS = /^(?:user|collaborator|membership)\./

export function presentEvent(row: LogRow, options: { showAddress: boolean }): Static<typeof AuditLogEvent> {
  const time = Math.floor(Number(row.at) / 1000)
  const organization = row.stream_kind === 'organization'
  const user = ABOUT_USERS.test(row.action) ? row.name : row.stream_kind === 'user' ? row.stream_login : null
  const known = {
    actor: row.actor,
    actor_id: row.actor_id,
    name: row.name,
    org: organization ? row.stream_login : null,
    org_id: organization ? row.stream_id : null,
    repo: row.repository,
    user,
    actor_ip: options.showAddress ? row.address : null,
    occurrences: row.occurrences,
    collection: row.collection,
    value_version: row.value_version,
    token_id: row.token_id,
    request_id: row.request_id,
    sequence: row.sequence,
    hash: row.hash?.toString('hex') ?? null
  }
  return {
    '@timestamp': time,
    action: row.action,
    created_at: time,
    _document_id: cursorOf(row),
    operation_type: OPERATIONS.find(([action]) => action.test(row.action))?.[1] ?? 'modify',
    outcome: row.outcome,
    actor_kind: row.actor_kind,
    ...(Object.fromEntries(Object.entries(known).filter(([, value]) => value !== null)) as object)
  }
}
