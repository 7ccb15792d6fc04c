import { type Kysely, sql } from 'kysely'
import { statement } from './statement.ts'
import type { Database } from './tables.ts'

/** A window as it is after a statement, by the database's clock, which all servers share. */
export interface WindowRow {
  used: number
  /** whether the limit was reached before, so that this one was not counted */
  refused: boolean
  /** when it ends, in whole seconds since 1970 */
  reset: number
  remaining_ms: number
}

interface WindowKey {
  subject: string
  resource: string
}

const RESET = sql<number>`extract(epoch from resets_at)::bigint`
const REMAINING_MS = sql<number>`(extract(epoch from resets_at - now()) * 1000)::float8`

/** A window that begins now: it ends with a whole second, so that who waits for the one announced is let in. */
const endOfWindow = (seconds: number) =>
  sql<Date>`to_timestamp(ceil(extract(epoch from now())::float8 + ${seconds}::float8))`

/**
 * Counts one request, if the limit allows it, in the present window or in a new one. The row's lock is what makes
 * it exact, however many servers ask at once.
 */
export const countInWindow = statement<WindowKey & { limit: number; seconds: number }, WindowRow>(
  (_db, { subject, resource, limit, seconds }) => sql`
    insert into rate_limits as w (subject, resource, used, refused, resets_at)
    values (${subject}, ${resource}, 1, false, ${endOfWindow(seconds)})
    on conflict (subject, resource) do update set
      used = case when w.resets_at <= now() then 1 when w.used >= ${limit} then w.used else w.used + 1 end,
      refused = w.resets_at > now() and w.used >= ${limit},
      resets_at = case when w.resets_at <= now() then excluded.resets_at else w.resets_at end
    returning used, refused, ${RESET} as reset, ${REMAINING_MS} as remaining_ms`
)

/** Takes one back, as long as its window lasts. */
export const giveBackToWindow = statement<WindowKey & { reset: number }, { used: number }>(
  (_db, { subject, resource, reset }) => sql`
    update rate_limits set used = used - 1
    where subject = ${subject} and resource = ${resource} and resets_at = to_timestamp(${reset}) and used > 0
    returning used`
)

/** The present windows of a subject; a resource without one has what a first request would begin. */
export const readWindows = statement<
  { subject: string; resources: readonly string[]; seconds: number },
  { resource: string; used: number; reset: number }
>(
  (_db, { subject, resources, seconds }) => sql`
    select r.resource, coalesce(w.used, 0) as used,
      extract(epoch from coalesce(w.resets_at, ${endOfWindow(seconds)}))::bigint as reset
    from unnest(${resources}::text[]) as r (resource)
    left join rate_limits w on w.subject = ${subject} and w.resource = r.resource and w.resets_at > now()`
)

/** Removes windows that are over. It waits for nobody, so it cannot be part of a deadlock. */
export async function deleteEndedWindows(db: Kysely<Database>): Promise<void> {
  await sql`
    delete from rate_limits where ctid = any(array(
      select ctid from rate_limits where resets_at <= now() for update skip locked))`.execute(db)
}
