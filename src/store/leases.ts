import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import { type LockedEnvironment, lockedEnvironments } from './environments.ts'
import { statement } from './statement.ts'
import type { Database } from './tables.ts'
import { deleteTokensOfEnvironments } from './tokens.ts'

// Who works on which environment.

/** Whose environments: a runner's, or those of the servers themselves in every organization. */
export type RunnerReference = { runnerId: number } | 'hosted'

function isOf(runners: RunnerReference) {
  return runners === 'hosted'
    ? sql<boolean>`e.runner_id in (select h.id from runners h where h.hosted)`
    : sql<boolean>`e.runner_id = ${runners.runnerId}::bigint`
}

/** How long a lease holds; one who is dead has heard nothing for so long, and is not waited for any longer. */
const LEASE = sql`interval '20 seconds'`

/** An environment for the process that has its lease. */
export interface LeasedEnvironment {
  environment_id: number
  environment_uid: string
  organization_id: number
  organization_uid: string
  runner_id: number
  runner_uid: string
  name: string
  lease_epoch: number
  spec: object
  resolution: object[]
  desired_phase: string
  phase: string
  spec_version: number
}

interface Taking {
  holder: string
  atMost: number
}

function taking(runners: RawBuilder<boolean>, { holder, atMost }: Taking) {
  return sql`
    with taken as (
      update environments e
      set lease_holder = ${holder}::uuid, lease_epoch = lease_epoch + 1, lease_until = now() + ${LEASE}
      where e.id in (
        select e.id from environments e join runners r on r.id = e.runner_id
        where ${runners} and r.desired_phase = 'RUNNER_PHASE_ACTIVE'
          and (e.lease_until is null or e.lease_until < now())
          and not (e.desired_phase = 'ENVIRONMENT_PHASE_STOPPED' and e.phase = 'ENVIRONMENT_PHASE_STOPPED')
        order by e.id limit ${atMost}::bigint for update of e skip locked)
      returning e.*),
    leased as (
      select * from taken
      union all
      select e.* from environments e
      where e.lease_holder = ${holder}::uuid and ${runners} and e.id not in (select id from taken))
    select e.id as environment_id, e.uid as environment_uid, e.organization_id, o.uid as organization_uid,
      r.id as runner_id, r.uid as runner_uid, e.name, e.lease_epoch, e.spec, e.resolution, e.desired_phase, e.phase,
      e.spec_version
    from leased e join accounts o on o.id = e.organization_id join runners r on r.id = e.runner_id
    order by e.id` as RawBuilder<LeasedEnvironment>
}

const takingHosted = statement<Taking, LeasedEnvironment>((_, parameter) => taking(isOf('hosted'), parameter))
const takingOf = statement<Taking & { runnerId: number }, LeasedEnvironment>((_, parameter) =>
  taking(isOf({ runnerId: parameter.runnerId }), parameter)
)

/**
 * Takes environments that nobody works on, as many as are wanted, the oldest first; gives all that the holder has the
 * lease of then.
 */
export async function takeLeases(
  tx: Transaction<Database>,
  runners: RunnerReference,
  holder: string,
  atMost: number
): Promise<LeasedEnvironment[]> {
  if (runners === 'hosted') return await takingHosted(tx, { holder, atMost })
  return await takingOf(tx, { holder, atMost, runnerId: runners.runnerId })
}

/** Prolongs leases, one that has run out too when nobody took it; gives the uids of those that are the holder's. */
export async function prolongLeases(
  db: Kysely<Database>,
  runners: RunnerReference,
  holder: string,
  leases: readonly { environmentId: string; epoch: number }[]
): Promise<string[]> {
  // In order of id, as who removes several locks them.
  const { rows } = await sql<{ uid: string }>`
    with kept as (
      select e.id from environments e
      join unnest(${leases.map(({ environmentId }) => environmentId)}::uuid[],
        ${leases.map(({ epoch }) => epoch)}::integer[]) as held(uid, epoch)
        on e.uid = held.uid and e.lease_epoch = held.epoch
      where e.lease_holder = ${holder}::uuid and ${isOf(runners)}
      order by e.id for no key update of e)
    update environments e set lease_until = now() + ${LEASE} from kept where e.id = kept.id returning e.uid`.execute(
    db
  )
  return rows.map(({ uid }) => uid)
}

/** Lets go of leases; who takes them next has another epoch. */
export async function giveUpLeases(
  tx: Transaction<Database>,
  runners: RunnerReference,
  holder: string,
  leases: readonly { environmentId: string; epoch: number }[]
): Promise<void> {
  await sql`update environments e set lease_until = null, lease_holder = null
    from unnest(${leases.map(({ environmentId }) => environmentId)}::uuid[],
      ${leases.map(({ epoch }) => epoch)}::integer[]) as held(uid, epoch)
    where e.uid = held.uid and e.lease_epoch = held.epoch and e.lease_holder = ${holder}::uuid and ${isOf(runners)}`.execute(
    tx
  )
}

/** Those of these that are there. */
export async function listExisting(
  db: Kysely<Database>,
  runners: RunnerReference,
  uids: readonly string[]
): Promise<string[]> {
  const rows = await db
    .selectFrom('environments as e')
    .select('e.uid')
    .where('e.uid', '=', sql<string>`any(${uids}::uuid[])`)
    .where(isOf(runners))
    .execute()
  return rows.map(({ uid }) => uid)
}

interface Telling {
  environmentUid: string
  leaseEpoch: number
  phase: string
  status: string
  /** of which one has to be the present one */
  phasesBefore: readonly string[]
}

function telling(runners: RawBuilder<boolean>, told: Telling) {
  return sql`update environments e
    set phase = ${told.phase}, status = ${told.status}::jsonb, status_version = status_version + 1
    where e.uid = ${told.environmentUid}::uuid and e.lease_epoch = ${told.leaseEpoch}::integer
      and e.lease_holder is not null and ${runners} and e.phase = any(${told.phasesBefore}::text[])
    returning e.id` as RawBuilder<{ id: number }>
}

const tellingHosted = statement<Telling, { id: number }>((_, parameter) => telling(isOf('hosted'), parameter))
const tellingOf = statement<Telling & { runnerId: number }, { id: number }>((_, parameter) =>
  telling(isOf({ runnerId: parameter.runnerId }), parameter)
)

/**
 * Stores what whoever has the lease says of an environment; false when that has another epoch by now, or the
 * environment was in none of these phases before.
 */
export async function updateStatus(
  db: Kysely<Database>,
  runners: RunnerReference,
  { status, ...told }: Omit<Telling, 'status'> & { status: object }
): Promise<boolean> {
  const parameters = { ...told, status: JSON.stringify(status) }
  const rows =
    runners === 'hosted'
      ? await tellingHosted(db, parameters)
      : await tellingOf(db, { ...parameters, runnerId: runners.runnerId })
  return rows.length > 0
}

/** Locks an environment for whoever has its lease; undefined when that has another epoch by now. */
export async function lockLeasedEnvironment(
  tx: Transaction<Database>,
  environmentUid: string,
  leaseEpoch: number,
  runners: RunnerReference
): Promise<LockedEnvironment | undefined> {
  return await lockedEnvironments(tx)
    .where('e.uid', '=', environmentUid)
    .where('e.lease_epoch', '=', leaseEpoch)
    .where('e.lease_holder', 'is not', null)
    .where(isOf(runners))
    .executeTakeFirst()
}

/** The process that has the lease now, and whose it is; undefined when nobody has. */
export async function findHolder(
  db: Kysely<Database>,
  environmentId: number
): Promise<{ runner: number | 'hosted'; holder: string } | undefined> {
  const row = await db
    .selectFrom('environments as e')
    .innerJoin('runners as r', 'r.id', 'e.runner_id')
    .select(['e.lease_holder as holder', 'r.id', 'r.hosted'])
    .where('e.id', '=', environmentId)
    .where('e.lease_until', '>', sql<Date>`now()`)
    .executeTakeFirst()
  return row?.holder ? { runner: row.hosted ? 'hosted' : row.id, holder: row.holder } : undefined
}

/** The tokens of an environment that is to be removed by whoever has its lease; the hashes, for the caches. */
export async function deleteTokensOfLeased(
  tx: Transaction<Database>,
  environmentUid: string,
  leaseEpoch: number,
  runners: RunnerReference
): Promise<Buffer[]> {
  const leased = sql<boolean>`e.uid = ${environmentUid}::uuid and e.lease_epoch = ${leaseEpoch}::integer
    and ${isOf(runners)}`
  return await deleteTokensOfEnvironments(tx, leased)
}
