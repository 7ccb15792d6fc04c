import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'

/** How long a runner that was seen counts as active. */
const SEEN_LATELY = sql`interval '30 seconds'`

/** Which of Ona's phases a runner can be in here. */
export type RunnerPhase = 'RUNNER_PHASE_CREATED' | 'RUNNER_PHASE_INACTIVE' | 'RUNNER_PHASE_ACTIVE'

/** A runner of an organization, with what its JSON shows. */
export interface RunnerFacts {
  runner_id: number
  runner_uid: string
  name: string
  kind: string
  provider: string
  /** the servers themselves */
  hosted: boolean
  desired_phase: string
  /** what it is in, by the database's clock */
  phase: RunnerPhase
  configuration: Record<string, unknown>
  creator_kind: string
  creator_uid: string | null
  last_seen_at: Date | null
  created_at: Date
  updated_at: Date
}

/** The phase of the runner `r`: the servers themselves are always there, any other one has to be seen. */
export const runnerPhase = sql<RunnerPhase>`case
  when not r.hosted and r.last_seen_at is null then 'RUNNER_PHASE_CREATED'
  when r.desired_phase = 'RUNNER_PHASE_ACTIVE' and (r.hosted or r.last_seen_at > now() - ${SEEN_LATELY})
    then 'RUNNER_PHASE_ACTIVE'
  else 'RUNNER_PHASE_INACTIVE' end`

function runnersOf(db: Kysely<Database>, organizationId: number) {
  return db
    .selectFrom('runners as r')
    .where('r.organization_id', '=', organizationId)
    .select([
      'r.id as runner_id',
      'r.uid as runner_uid',
      'r.name',
      'r.kind',
      'r.provider',
      'r.hosted',
      'r.desired_phase',
      runnerPhase.as('phase'),
      'r.configuration',
      'r.creator_kind',
      'r.creator_uid',
      'r.last_seen_at',
      'r.created_at',
      'r.updated_at'
    ])
}

/** Only where it is a runner of the organization. */
export async function findRunner(
  db: Kysely<Database>,
  organizationId: number,
  runnerUid: string
): Promise<RunnerFacts | undefined> {
  return await runnersOf(db, organizationId).where('r.uid', '=', runnerUid).executeTakeFirst()
}

/** The same, locked: nothing is added to what it owns, and nobody else changes it. */
export async function lockRunner(
  tx: Transaction<Database>,
  organizationId: number,
  runnerUid: string
): Promise<RunnerFacts | undefined> {
  return await runnersOf(tx, organizationId)
    .where('r.uid', '=', runnerUid)
    .forNoKeyUpdate('r')
    .executeTakeFirst()
}

export interface RunnerFilter {
  creatorUids?: readonly string[] | undefined
  kinds?: readonly string[] | undefined
  providers?: readonly string[] | undefined
}

/** Runners of an organization by id, behind one. */
export async function listRunners(
  db: Kysely<Database>,
  organizationId: number,
  { creatorUids, kinds, providers }: RunnerFilter,
  { after, limit }: { after: number; limit: number }
): Promise<RunnerFacts[]> {
  let query = runnersOf(db, organizationId).where('r.id', '>', after)
  if (creatorUids) query = query.where('r.creator_uid', '=', sql<string>`any(${creatorUids}::uuid[])`)
  if (kinds) query = query.where('r.kind', '=', sql<string>`any(${kinds}::text[])`)
  if (providers) query = query.where('r.provider', '=', sql<string>`any(${providers}::text[])`)
  return await query.orderBy('r.id').limit(limit).execute()
}

/** What of a runner is set, as it is stored. */
export interface RunnerValues {
  name: string
  desired_phase: string
  configuration: object
}

export async function insertRunner(
  tx: Transaction<Database>,
  {
    configuration,
    ...values
  }: RunnerValues & {
    organization_id: number
    kind: string
    provider: string
    hosted: boolean
    creator_kind: string
    creator_uid: string | null
  }
): Promise<{ id: number; uid: string }> {
  return await tx
    .insertInto('runners')
    .values({ ...values, configuration: JSON.stringify(configuration) })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
}

export async function updateRunner(
  tx: Transaction<Database>,
  runnerId: number,
  { configuration, ...values }: Partial<RunnerValues>
): Promise<void> {
  await tx
    .updateTable('runners')
    .set({
      ...values,
      ...(configuration && { configuration: JSON.stringify(configuration) }),
      updated_at: sql<Date>`now()`
    })
    .where('id', '=', runnerId)
    .execute()
}

/** That a runner was heard of. */
export async function touchRunner(tx: Transaction<Database>, runnerId: number): Promise<void> {
  await tx.updateTable('runners').set({ last_seen_at: sql<Date>`now()` }).where('id', '=', runnerId).execute()
}

/** Waits for those who make something of a locked runner, and lets nobody begin to. */
export async function excludeUsersOfRunner(tx: Transaction<Database>, runnerId: number): Promise<void> {
  await tx.selectFrom('runners').select('id').where('id', '=', runnerId).forUpdate().execute()
}

/** Removes a runner with its classes, its exchange tokens and its tokens. */
export async function deleteRunner(tx: Transaction<Database>, runnerId: number): Promise<void> {
  await tx.deleteFrom('runners').where('id', '=', runnerId).execute()
}

/** An exchange token, of which only the hash is stored. It ends with the instance's epoch, as any token. */
export async function insertExchangeToken(
  tx: Transaction<Database>,
  token: { hash: Buffer; runnerId: number; issuedByUid: string | null; lifetimeSeconds: number }
): Promise<void> {
  await tx
    .insertInto('runner_exchange_tokens')
    .values({
      hash: token.hash,
      runner_id: token.runnerId,
      issued_by_uid: token.issuedByUid,
      epoch: sql<number>`(select epoch from instance)`,
      expires_at: sql<Date>`now() + make_interval(secs => ${token.lifetimeSeconds}::double precision)`
    })
    .execute()
}

/** Those of a runner that nothing can be done with any more, so that they do not pile up. */
export async function deleteEndedExchangeTokens(tx: Transaction<Database>, runnerId: number): Promise<void> {
  await tx
    .deleteFrom('runner_exchange_tokens')
    .where('runner_id', '=', runnerId)
    .where('expires_at', '<', sql<Date>`now()`)
    .execute()
}

/** Whose runner an exchange token is for, whether or not it still is good. */
export async function findRunnerOfExchangeToken(
  db: Kysely<Database>,
  hash: Buffer
): Promise<{ runner_uid: string; organization_id: number; organization_uid: string } | undefined> {
  return await db
    .selectFrom('runner_exchange_tokens as x')
    .innerJoin('runners as r', 'r.id', 'x.runner_id')
    .innerJoin('accounts as o', 'o.id', 'r.organization_id')
    .select(['r.uid as runner_uid', 'o.id as organization_id', 'o.uid as organization_uid'])
    .where('x.hash', '=', hash)
    .executeTakeFirst()
}

/** Uses an exchange token up; undefined when it has been, has ended, or is void after a restore. */
export async function takeExchangeToken(
  tx: Transaction<Database>,
  hash: Buffer
): Promise<{ issued_by_uid: string | null } | undefined> {
  return await tx
    .deleteFrom('runner_exchange_tokens as x')
    .using('instance as i')
    .whereRef('x.epoch', '=', 'i.epoch')
    .where('x.hash', '=', hash)
    .where('x.expires_at', '>', sql<Date>`now()`)
    .returning('x.issued_by_uid')
    .executeTakeFirst()
}
