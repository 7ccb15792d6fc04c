import type { Kysely } from 'kysely'
import {
  type Driver,
  FREQUENT_ACTIONS,
  findAccountUids,
  findRepositoryUids,
  type LogConditions,
  type LogPosition,
  type LogRow,
  listLog
} from '../store/audit-log.ts'
import type { Database } from '../store/tables.ts'
import type { AuditFilter, Terms } from './phrase.ts'

/** How many records are examined at once, and how often, for one page: what is rare is looked for page by page. */
const WINDOW = 5_000
const WINDOWS = 8

export interface LogRequest {
  /** the log of one account; undefined: of the whole instance */
  streamUid?: string
  /** a search by names */
  filter?: AuditFilter
  /** what else must hold */
  conditions?: LogConditions
  /** inclusive; that of the filter counts instead */
  since?: Date
  /** exclusive; that of the filter counts instead */
  until?: Date
  /** newest first, or oldest first */
  order: 'desc' | 'asc'
  limit: number
  /** go on behind this record of the page before, or in front of this one of the page after */
  cursor?: { side: 'after' | 'before'; position: LogPosition }
}

export interface LogPage {
  events: LogRow[]
  /** undefined: nothing follows */
  next: LogPosition | undefined
  /** undefined: nothing comes before */
  previous: LogPosition | undefined
}

interface Plan {
  driver: Driver
  conditions: LogConditions
  /** every record that the driver leads to is one that is asked for */
  exact: boolean
}

/**
 * A page of the log, in the order of time. Its cost does not depend on how much is in the log: an index leads to the
 * records, and where a condition has none, so many are examined at most. A page may be short for that, or empty, and
 * still have a next one.
 */
export async function readLog(db: Kysely<Database>, request: LogRequest): Promise<LogPage> {
  const { filter, order, limit, cursor } = request
  const plan = await planOf(db, request)
  const backwards = cursor?.side === 'before'
  if (!plan) return { events: [], next: undefined, previous: undefined }
  const { found, rest } = await search(db, plan, {
    since: filter?.since ?? request.since,
    until: filter?.until ?? request.until,
    from: cursor?.position,
    direction: (order === 'asc') === backwards ? 'desc' : 'asc',
    limit
  })
  const events = backwards ? found.reverse() : found
  const [first, last] = [events[0], events.at(-1)]
  return backwards
    ? { events, previous: rest, next: last ?? cursor.position }
    : { events, next: rest, previous: cursor && (first ?? cursor.position) }
}

/** Records that match, and from where on there may be more of them. */
async function search(
  db: Kysely<Database>,
  { driver, conditions, exact }: Plan,
  query: {
    since: Date | undefined
    until: Date | undefined
    from: LogPosition | undefined
    direction: 'asc' | 'desc'
    limit: number
  }
): Promise<{ found: LogRow[]; rest: LogPosition | undefined }> {
  const found: LogRow[] = []
  let from = query.from
  for (let windows = 0; windows < WINDOWS; windows++) {
    const wanted = query.limit + 1 - found.length
    const window = exact ? wanted : WINDOW
    const rows = await listLog(db, { ...query, driver, conditions, from, window, limit: wanted })
    found.push(...rows.filter(({ matches }) => matches))
    if (found.length > query.limit) {
      return { found: found.slice(0, query.limit), rest: found[query.limit - 1] }
    }
    from = rows.at(-1)
    if (exact || !from || !rows.at(-1)!.last) return { found, rest: undefined }
  }
  return { found, rest: from }
}

/** Which index to use, and what else must hold; undefined when nothing can match. */
async function planOf(db: Kysely<Database>, request: LogRequest): Promise<Plan | undefined> {
  const { streamUid, filter } = request
  const conditions = { ...(filter && (await conditionsOf(db, filter))), ...request.conditions }
  if (streamUid !== undefined) {
    const { any, none = [] } = conditions.streamUids ?? {}
    const visible = (!any || any.includes(streamUid)) && !none.includes(streamUid)
    conditions.streamUids = { any: visible ? [streamUid] : [] }
  }
  const lists = Object.values(conditions) as ({ any?: readonly unknown[] } | undefined)[]
  if (lists.some((bounds) => bounds?.any?.length === 0)) return undefined
  const driver = driverOf(conditions)
  return { driver, conditions, exact: isCovered(driver, conditions) }
}

async function conditionsOf(db: Kysely<Database>, filter: AuditFilter): Promise<LogConditions> {
  return {
    actorUids: await boundsOf(filter.actor, (logins) => findAccountUids(db, logins)),
    repositoryUids: await boundsOf(filter.repo, (names) => findRepositories(db, names)),
    streamUids: await boundsOf(filter.org, (logins) => findAccountUids(db, logins)),
    actions: await boundsOf(filter.action, async (names) => names.map((name) => name.replace(/\.\*$/, '.'))),
    outcomes: await boundsOf(filter.outcome, async (outcomes) => outcomes)
  }
}

async function boundsOf(
  { any, none }: Terms,
  resolve: (terms: readonly string[]) => Promise<readonly string[]>
): Promise<{ any?: readonly string[]; none?: readonly string[] }> {
  return {
    ...(any.length > 0 && { any: [...new Set(await resolve(any))] }),
    ...(none.length > 0 && { none: await resolve(none) })
  }
}

async function findRepositories(db: Kysely<Database>, names: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const name of names) {
    const [owner = '', repo = ''] = name.split('/')
    found.push(...(await findRepositoryUids(db, await findAccountUids(db, [owner]), repo)))
  }
  return [...new Set(found)]
}

function driverOf({ repositoryUids, actorUids, streamUids, actions }: LogConditions): Driver {
  if (repositoryUids?.any) return { by: 'repository', uids: repositoryUids.any }
  if (actorUids?.any) return { by: 'actor', uids: actorUids.any }
  const streams = streamUids?.any
  const [streamUid] = streams ?? []
  const rare = actions?.any?.every((action) => !action.endsWith('.') && !FREQUENT_ACTIONS.includes(action))
  if (actions?.any && rare && streams?.length === 1) {
    return { by: 'action', streamUid: streamUid!, actions: actions.any }
  }
  return streams ? { by: 'stream', uids: streams } : { by: 'time' }
}

/** Whether the driver leads to nothing but what the conditions let through. */
function isCovered(driver: Driver, conditions: LogConditions): boolean {
  const covered: Record<Driver['by'], (keyof LogConditions)[]> = {
    repository: ['repositoryUids'],
    actor: ['actorUids'],
    stream: ['streamUids'],
    action: ['streamUids', 'actions'],
    time: [],
    number: []
  }
  return (Object.entries(conditions) as [keyof LogConditions, { any?: unknown; none?: unknown }][]).every(
    ([name, { any, none }]) => none === undefined && (any === undefined || covered[driver.by].includes(name))
  )
}
