import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { AccountKind, Database } from './tables.ts'

/** A place in the log: between two records. Microseconds since 1970, as text. */
export interface LogPosition {
  at: string
  id: number
}

/** The records that an index leads to: those with one of these values, or all. */
export type Driver =
  | { by: 'repository' | 'actor' | 'stream'; uids: readonly string[] }
  | { by: 'action'; streamUid: string; actions: readonly string[] }
  | { by: 'time' }
  | { by: 'number'; id: number }

/** What else must hold of a record; uids and names, each list undefined when it does not matter. */
export interface LogConditions {
  streamUids?: Bounds
  actorUids?: Bounds
  repositoryUids?: Bounds
  /** names of actions, or beginnings of them that end with a dot */
  actions?: Bounds
  outcomes?: Bounds
  actorKinds?: Bounds
  subjectUids?: Bounds
  /** what records are about */
  subjects?: { any: readonly Subject[] }
}

/** Records whose action begins so, and whose collection, where that is said. */
export interface Subject {
  action: string
  collection?: string
}

interface Bounds {
  any?: readonly string[]
  none?: readonly string[]
}

/** The two actions that the index of actions leaves out. */
export const FREQUENT_ACTIONS: readonly string[] = ['secret.create', 'secret.update']

export interface LogQuery {
  driver: Driver
  conditions: LogConditions
  since?: Date | undefined
  until?: Date | undefined
  /** go on behind this place */
  from?: LogPosition | undefined
  direction: 'asc' | 'desc'
  /** how many records to examine */
  window: number
  limit: number
}

/** One record as a page shows it. */
export interface LogRow extends LogPosition {
  action: string
  outcome: string
  actor_kind: string
  actor_uid: string | null
  /** as it was then, or as it is now */
  actor: string | null
  actor_id: number | null
  token_id: number | null
  collection: string | null
  subject_uid: string | null
  name: string | null
  value_version: number | null
  address: string | null
  occurrences: number | null
  request_id: string | null
  stream_login: string | null
  stream_kind: AccountKind | null
  stream_id: number | null
  repository: string | null
  sequence: number | null
  hash: Buffer | null
  /** whether it is one that was asked for; if not, it is there as the last one of the window */
  matches: boolean
  /** the window was full with it: what comes behind it was not examined */
  last: boolean
}

const COLUMNS = sql.raw(
  [
    'id, occurred_at, stream_uid, actor_kind, actor_uid, actor_login, token_id, action, outcome, collection',
    'subject_uid, name, value_version, repository_uid, address, occurrences, request_id'
  ].join(', ')
)

function timeOf(at: string) {
  return sql`timestamptz 'epoch' + ${at}::bigint * interval '1 microsecond'`
}

/** The next records behind a place that an index leads to, so many at most. */
function driven({ driver, since, until, from, direction, window }: LogQuery): RawBuilder<unknown> {
  const forward = direction === 'asc'
  const order = forward ? sql`occurred_at, id` : sql`occurred_at desc, id desc`
  const range = [
    ...(since ? [sql`and occurred_at >= ${since}`] : []),
    ...(until ? [sql`and occurred_at < ${until}`] : []),
    ...(from
      ? [sql`and (occurred_at, id) ${forward ? sql`>` : sql`<`} (${timeOf(from.at)}, ${from.id}::bigint)`]
      : [])
  ]
  const next = (which: RawBuilder<unknown>) => sql`
    select ${COLUMNS} from audit_events where ${which} ${sql.join(range, sql` `)}
    order by ${order} limit ${window}`
  if (driver.by === 'time') return next(sql`true`)
  if (driver.by === 'number') return next(sql`id = ${driver.id}::bigint`)
  const values =
    driver.by === 'action' ? sql`unnest(${driver.actions}::text[])` : sql`unnest(${driver.uids}::uuid[])`
  const which = {
    repository: () => sql`repository_uid = v.value`,
    actor: () => sql`actor_uid = v.value`,
    stream: () => sql`stream_uid = v.value`,
    // Word for word the condition of the index.
    action:
      () => sql`stream_uid = ${driver.by === 'action' ? driver.streamUid : null}::uuid and action = v.value
      and action not in ('secret.create', 'secret.update')`
  }[driver.by]()
  return sql`select e.* from ${values} v (value) cross join lateral (${next(which)}) e order by ${order} limit ${window}`
}

function conditionsOf(conditions: LogConditions): RawBuilder<unknown> {
  const all: RawBuilder<unknown>[] = [sql`true`]
  const add = (column: string, type: 'uuid' | 'text', bounds: Bounds | undefined) => {
    const list = (values: readonly string[]) =>
      sql`(${sql.ref(column)} = any (${values}::${sql.raw(type)}[]))`
    if (bounds?.any) all.push(list(bounds.any))
    if (bounds?.none?.length) all.push(sql`${list(bounds.none)} is not true`)
  }
  add('stream_uid', 'uuid', conditions.streamUids)
  add('actor_uid', 'uuid', conditions.actorUids)
  add('repository_uid', 'uuid', conditions.repositoryUids)
  add('outcome', 'text', conditions.outcomes)
  add('actor_kind', 'text', conditions.actorKinds)
  add('subject_uid', 'uuid', conditions.subjectUids)
  if (conditions.subjects) all.push(isAboutOneOf(conditions.subjects.any))
  const { any, none } = conditions.actions ?? {}
  if (any) all.push(actionIn(any))
  if (none?.length) all.push(sql`not ${actionIn(none)}`)
  return sql.join(all, sql` and `)
}

function actionIn(actions: readonly string[]): RawBuilder<unknown> {
  const beginnings = actions.filter((action) => action.endsWith('.'))
  const names = actions.filter((action) => !action.endsWith('.'))
  return sql`(action = any (${names}::text[]) or exists (
    select 1 from unnest(${beginnings}::text[]) b where starts_with(action, b)))`
}

function isAboutOneOf(subjects: readonly Subject[]): RawBuilder<unknown> {
  const beginnings = (member: keyof Subject) => subjects.map((subject) => subject[member] ?? '')
  return sql`exists (
    select 1 from unnest(${beginnings('action')}::text[], ${beginnings('collection')}::text[]) b (action_part, collection_part)
    where starts_with(action, b.action_part) and starts_with(coalesce(collection, ''), b.collection_part))`
}

/**
 * The next records that were asked for, out of a window of those that an index leads to; and, when there are fewer
 * of them than `limit`, the last one of the window, if it was full: from there on nothing was examined.
 */
export async function listLog(db: Kysely<Database>, query: LogQuery): Promise<LogRow[]> {
  const { direction, limit, window, conditions } = query
  const order = direction === 'asc' ? sql`occurred_at, id` : sql`occurred_at desc, id desc`
  const { rows } = await sql<LogRow>`
    select (extract(epoch from w.occurred_at) * 1000000)::bigint::text as at, w.id, w.action, w.outcome, w.actor_kind,
      w.actor_uid, coalesce(w.actor_login, a.login) as actor, a.id as actor_id, w.token_id, w.collection,
      w.subject_uid, w.name, w.value_version, w.address, w.occurrences, w.request_id, s.login as stream_login,
      s.kind as stream_kind, s.id as stream_id, coalesce(o.login || '/' || r.name, s.login || '/' || gone.name) as repository,
      c.sequence, c.hash, w.matches, w.place = ${window} as last
    from (
      select d.*, row_number() over (order by ${order}) as place, coalesce(${conditionsOf(conditions)}, false) as matches
      from (${driven(query)}) d order by ${order}
    ) w
    left join audit_chain c on c.event_id = w.id
    left join accounts a on a.uid = w.actor_uid
    left join accounts s on s.uid = w.stream_uid
    left join repositories r on r.uid = w.repository_uid
    left join accounts o on o.id = r.owner_id
    left join lateral (
      select e.name from audit_events e
      where r.uid is null and e.repository_uid = w.repository_uid and e.action = 'repository.remove'
      order by e.occurred_at desc, e.id desc limit 1
    ) gone on true
    where w.matches or w.place = ${window}
    order by w.occurred_at ${sql.raw(direction)}, w.id ${sql.raw(direction)} limit ${limit}`.execute(db)
  return rows
}

/** One record, if all this holds of it. */
export async function findLogRow(
  db: Kysely<Database>,
  id: number,
  conditions: LogConditions
): Promise<LogRow | undefined> {
  const driver = { by: 'number', id } as const
  const rows = await listLog(db, { driver, conditions, direction: 'asc', window: 1, limit: 1 })
  return rows.find(({ matches }) => matches)
}

/** The uids of all accounts that have or had one of these logins, in lower case. */
export async function findAccountUids(db: Kysely<Database>, logins: readonly string[]): Promise<string[]> {
  const { rows } = await sql<{ uid: string }>`
    select uid from accounts where login_key = any (${logins}::text[])
    union
    select subject_uid from audit_events
    where lower(name collate "C") = any (${logins}::text[])
      and action in ('user.create', 'organization.create', 'repository.create', 'repository.update')
      and action in ('user.create', 'organization.create')`.execute(db)
  return rows.map(({ uid }) => uid)
}

/** The uids of all repositories that these owners have or had under this name, in lower case. */
export async function findRepositoryUids(
  db: Kysely<Database>,
  ownerUids: readonly string[],
  name: string
): Promise<string[]> {
  const { rows } = await sql<{ uid: string }>`
    select r.uid from repositories r join accounts o on o.id = r.owner_id
    where r.name_key = ${name} and o.uid = any (${ownerUids}::uuid[])
    union
    select subject_uid from audit_events
    where lower(name collate "C") = ${name} and stream_uid = any (${ownerUids}::uuid[])
      and action in ('user.create', 'organization.create', 'repository.create', 'repository.update')
      and action in ('repository.create', 'repository.update')`.execute(db)
  return rows.map(({ uid }) => uid)
}
