import { type RawBuilder, sql } from 'kysely'
import { statement } from './statement.ts'
import type { EnvironmentTokenPurpose } from './tables.ts'

export interface NewEnvironmentToken {
  hash: Buffer
  environmentId: number
  organizationId: number
  purpose: EnvironmentTokenPurpose
  leaseEpoch: number | null
  lastEight: string
  issuedByUid: string | null
  lifetimeSeconds: number
  /** how long one that delivers is good for when there is a newer one */
  supersededSeconds: number
}

/**
 * A token of an environment. Those that nothing can be done with any more go, and those that were for a lease that is
 * over; of those for its processes, ones that others have taken the place of stay for as long as a program may have
 * read them. One that delivers lets those before it end soon: who works on the environment may be about to use one, and
 * takes the newest from then on.
 */
export const insertEnvironmentToken = statement<NewEnvironmentToken, { id: number; expires_at: Date }>(
  (_, parameter) =>
    sql`
    with ended as (
      delete from tokens where id in (
        select t.id from tokens t join environments e on e.id = t.environment_id
        where e.id = ${parameter.environmentId}::bigint
          and (t.expires_at < now() or t.lease_epoch < e.lease_epoch
            or t.purpose = 'inside' and t.created_at < now() - interval '1 hour')
        for update of t skip locked)
      returning id),
    superseded as (
      update tokens set expires_at = now() + make_interval(secs => ${parameter.supersededSeconds}::double precision)
      where ${parameter.purpose}::text = 'deliver' and id in (
        select t.id from tokens t where t.environment_id = ${parameter.environmentId}::bigint and t.purpose = 'deliver'
          and t.expires_at > now() + make_interval(secs => ${parameter.supersededSeconds}::double precision)
          and t.id not in (select id from ended)
        for no key update skip locked))
    insert into tokens (hash, kind, account_id, organization_id, environment_id, purpose, lease_epoch, last_eight,
      issued_by_uid, epoch, expires_at)
    values (${parameter.hash}, 'environment', ${parameter.organizationId}::bigint,
      ${parameter.organizationId}::bigint, ${parameter.environmentId}::bigint, ${parameter.purpose}::text,
      ${parameter.leaseEpoch}::integer, ${parameter.lastEight}, ${parameter.issuedByUid}::uuid,
      (select epoch from instance),
      now() + make_interval(secs => ${parameter.lifetimeSeconds}::double precision))
    returning id, expires_at` as RawBuilder<{ id: number; expires_at: Date }>
)
