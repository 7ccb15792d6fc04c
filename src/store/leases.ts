import { type Kysely, sql, type Transaction } from 'kysely'
import { type LockedEnvironment, lockedEnvironments } from './environments.ts'
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

const LEASED = [
  'e.id as environment_id',
  'e.uid as environment_uid',
  'e.organization_id',
  'o.uid as organization_uid',
  'r.id as runner_id',
  'r.uid as runner_uid',
  'e.name',
  'e.lease_epoch',
  'e.spec',
  'e.resolution',
  'e.desired_phase',
  'e.phase',
  'e.spec_version'
] as const

/** Takes environments that nobody works on, as many as are wanted, the oldest first; gives their ids. */
export async function takeLeases(
  tx: Transaction<Database>,
  runners: RunnerReference,
  holder: string,
  atMost: number
): Promise<number[]> {
  if (atMost === 0) return []
  const { rows } = await sql<{ id: number }>`
    update environments set lease_holder = ${holder}::uuid, lease_epoch = lease_epoch + 1, lease_until = now() + ${LEASE}
    where id in (
      select e.id from environments e join runners r on r.id = e.runner_id
      where ${isOf(runners)} and r.desired_phase = 'RUNNER_PHASE_ACTIVE'
        and (e.lease_until is null or e.lease_until < now())
        and not (e.desired_phase = 'ENVIRONMENT_PHASE_STOPPED' and e.phase = 'ENVIRONMENT_PHASE_STOPPED')
      order by e.id limit ${atMost}::bigint for update of e skip locked)
    returning id`.execute(tx)
  return rows.map(({ id }) => id)
}

/** What a holder has the lease of. */
export async function listLeased(
  db: Kysely<Database>,
  runners: RunnerReference,
  holder: string
): Promise<LeasedEnvironment[]> {
  return await db
    .selectFrom('environments as e')
    .innerJoin('accounts as o', 'o.id', 'e.organization_id')
    .innerJoin('runners as r', 'r.id', 'e.runner_id')
    .select(LEASED)
    .where('e.lease_holder', '=', holder)
    .where(isOf(runners))
    .orderBy('e.id')
    .execute()
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
