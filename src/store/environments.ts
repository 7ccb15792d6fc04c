import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import { type Acting, actingOrganization } from './acting.ts'
import { type AuditRow, auditedEach, auditRecords } from './audit.ts'
import { statement } from './statement.ts'
import type { Database, OrganizationRole } from './tables.ts'
import { deleteTokensOfEnvironments } from './tokens.ts'

/** An environment, with what its JSON shows and what access to it depends on. */
export interface EnvironmentFacts {
  environment_id: number
  environment_uid: string
  organization_id: number
  organization_uid: string
  /** the actor's in the organization */
  role: OrganizationRole
  name: string
  creator_kind: string
  creator_uid: string
  project_id: number | null
  project_uid: string | null
  repository_id: number | null
  runner_uid: string | null
  environment_class_uid: string | null
  environment_role: string
  session_id: string
  annotations: Record<string, string>
  original_context_url: string
  spec: object
  chosen_secrets: object | null
  own_secrets: boolean
  resolution: object[]
  desired_phase: string
  phase: string
  spec_version: number
  status_version: number
  status: object
  activity: object | null
  created_at: Date
  last_started_at: Date
  archived_at: Date | null
  lockdown_at: Date | null
}

function environmentsIn(db: Kysely<Database>, acting: Acting) {
  return actingOrganization(db, acting)
    .innerJoin('environments as e', 'e.organization_id', 'o.id')
    .leftJoin('projects as p', 'p.id', 'e.project_id')
    .leftJoin('runners as r', 'r.id', 'e.runner_id')
    .leftJoin('environment_classes as c', 'c.id', 'e.environment_class_id')
    .select([
      'e.id as environment_id',
      'e.uid as environment_uid',
      'e.organization_id',
      'o.uid as organization_uid',
      sql<OrganizationRole>`coalesce(m.role, 'member')`.as('role'),
      'e.name',
      'e.creator_kind',
      'e.creator_uid',
      'e.project_id',
      'p.uid as project_uid',
      'e.repository_id',
      'r.uid as runner_uid',
      'c.uid as environment_class_uid',
      'e.role as environment_role',
      'e.session_id',
      'e.annotations',
      'e.original_context_url',
      'e.spec',
      'e.chosen_secrets',
      'e.own_secrets',
      'e.resolution',
      'e.desired_phase',
      'e.phase',
      'e.spec_version',
      'e.status_version',
      'e.status',
      'e.activity',
      'e.created_at',
      'e.last_started_at',
      'e.archived_at',
      'e.lockdown_at'
    ])
}

const byUid = statement<Acting & { environmentUid: string }, EnvironmentFacts>((db, parameter) =>
  environmentsIn(db, parameter).where('e.uid', '=', parameter.environmentUid)
)

/** Only where it is in the organization that the token acts in; whether the actor may know of it is not asked. */
export async function findEnvironment(
  db: Kysely<Database>,
  acting: Acting,
  environmentUid: string
): Promise<EnvironmentFacts | undefined> {
  const { tokenId, actorId } = acting
  const [row] = await byUid(db, { tokenId, actorId, environmentUid })
  return row
}

export interface EnvironmentFilter {
  /** those of this creator alone, who sees no others; undefined: of all */
  ownUid?: string | undefined
  runnerUids?: readonly string[] | undefined
  phases?: readonly string[] | undefined
  creatorUids?: readonly string[] | undefined
  projectUids?: readonly string[] | undefined
  runnerKinds?: readonly string[] | undefined
  archived?: boolean | undefined
  createdBefore?: string | undefined
  roles?: readonly string[] | undefined
  lockdownBefore?: string | undefined
  /** in uid, name, repository or branch, whatever the case */
  search?: string | undefined
  sessionIds?: readonly string[] | undefined
}

function filtered(db: Kysely<Database>, acting: Acting, filter: EnvironmentFilter) {
  let query = environmentsIn(db, acting)
  const { ownUid, archived, search } = filter
  const among = (values: readonly string[], type: 'uuid' | 'text') =>
    sql<string>`any(${values}::${sql.raw(type)}[])`
  if (ownUid !== undefined) query = query.where('e.creator_uid', '=', ownUid)
  if (filter.runnerUids) query = query.where('r.uid', '=', among(filter.runnerUids, 'uuid'))
  if (filter.phases) query = query.where('e.phase', '=', among(filter.phases, 'text'))
  if (filter.creatorUids) query = query.where('e.creator_uid', '=', among(filter.creatorUids, 'uuid'))
  if (filter.projectUids) query = query.where('p.uid', '=', among(filter.projectUids, 'uuid'))
  if (filter.runnerKinds) query = query.where('r.kind', '=', among(filter.runnerKinds, 'text'))
  if (filter.roles) query = query.where('e.role', '=', among(filter.roles, 'text'))
  if (filter.sessionIds) query = query.where('e.session_id', '=', among(filter.sessionIds, 'text'))
  if (archived !== undefined) query = query.where('e.archived_at', archived ? 'is not' : 'is', null)
  if (filter.createdBefore) {
    query = query.where('e.created_at', '<', sql<Date>`${filter.createdBefore}::timestamptz`)
  }
  if (filter.lockdownBefore) {
    query = query.where('e.lockdown_at', '<', sql<Date>`${filter.lockdownBefore}::timestamptz`)
  }
  if (search !== undefined) {
    query = query.where(
      sql<boolean>`(strpos(lower(e.name), lower(${search})) > 0 or strpos(e.uid::text, lower(${search})) > 0
        or exists (select 1 from jsonb_array_elements(e.spec -> 'content' -> 'initializer' -> 'specs') one(source)
          where strpos(lower(concat_ws(' ', source -> 'git' ->> 'remoteUri', source -> 'git' ->> 'cloneTarget',
            source -> 'contextUrl' ->> 'url')), lower(${search})) > 0))`
    )
  }
  return query
}

/** Where a page of environments ended. */
export type EnvironmentKey = readonly [archivedAt: string, id: number]

export interface EnvironmentOrder {
  by: 'id' | 'archived_at'
  descending: boolean
}

/** By age, or by when they were archived, which those that are not were never. */
export async function listEnvironments(
  db: Kysely<Database>,
  acting: Acting,
  filter: EnvironmentFilter,
  { by, descending }: EnvironmentOrder,
  { after, limit }: { after: EnvironmentKey | undefined; limit: number }
): Promise<(EnvironmentFacts & { archived: string })[]> {
  // As text with all digits, so that the key of a page is exact.
  const archived = sql<string>`coalesce(to_char(e.archived_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), '')`
  const direction = descending ? 'desc' : 'asc'
  let query = filtered(db, acting, filter).select(archived.as('archived'))
  if (after) {
    const [archivedAt, id] = after
    const compare = sql.raw(descending ? '<' : '>')
    query =
      by === 'id'
        ? query.where('e.id', descending ? '<' : '>', id)
        : query.where(sql<boolean>`(${archived}, e.id) ${compare} (${archivedAt}::text, ${id}::bigint)`)
  }
  if (by === 'archived_at') query = query.orderBy(archived, direction)
  return await query.orderBy('e.id', direction).limit(limit).execute()
}

/** How many of them there are; at most one more than `atMost` are counted. */
export async function countEnvironments(
  db: Kysely<Database>,
  acting: Acting,
  filter: EnvironmentFilter,
  atMost: number
): Promise<number> {
  const some = filtered(db, acting, filter)
    .clearSelect()
    .select('e.id')
    .limit(atMost + 1)
  const { total } = await db
    .selectFrom(some.as('some'))
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  return total
}

/** What a change of an environment needs of it, locked. */
export interface LockedEnvironment {
  environment_id: number
  environment_uid: string
  organization_id: number
  organization_uid: string
  name: string
  spec: object
  desired_phase: string
  phase: string
  archived_at: Date | null
  lease_epoch: number
  creator_uid: string
  held_own_secrets: boolean
}

/** As a query, for those who find it in another way. */
export function lockedEnvironments(tx: Transaction<Database>) {
  return tx
    .selectFrom('environments as e')
    .innerJoin('accounts as o', 'o.id', 'e.organization_id')
    .select([
      'e.id as environment_id',
      'e.uid as environment_uid',
      'e.organization_id',
      'o.uid as organization_uid',
      'e.name',
      'e.spec',
      'e.desired_phase',
      'e.phase',
      'e.archived_at',
      'e.lease_epoch',
      'e.creator_uid',
      'e.held_own_secrets'
    ])
    .forUpdate('e')
}

/** Locks an environment, so that nobody else changes it; undefined when it is gone. */
export async function lockEnvironment(
  tx: Transaction<Database>,
  environmentId: number
): Promise<LockedEnvironment | undefined> {
  return await lockedEnvironments(tx).where('e.id', '=', environmentId).executeTakeFirst()
}

export interface NewEnvironment {
  environment_uid: string
  organization_id: number
  project_id: number | null
  runner_id: number
  environment_class_id: number
  repository_id: number | null
  creator_kind: string
  creator_uid: string
  name: string
  session_id: string
  annotations: Readonly<Record<string, string>>
  original_context_url: string
  spec: object
  chosen_secrets: object | undefined
  own_secrets: boolean
  /** what it receives */
  resolution: readonly object[]
  /** all that its tokens may read */
  secretIds: readonly number[]
  /** whether there are some of its creator's own among these */
  held_own_secrets: boolean
}

const making = statement<
  Omit<NewEnvironment, 'annotations' | 'spec' | 'chosen_secrets' | 'resolution'> & {
    annotations: string
    spec: string
    chosen_secrets: string | null
    resolution: string
    records: string
  },
  { id: number }
>(
  (_, parameter) =>
    sql`
    with written as (
      insert into environments (uid, organization_id, project_id, runner_id, environment_class_id, repository_id,
        creator_kind, creator_uid, name, session_id, annotations, original_context_url, spec, chosen_secrets,
        own_secrets, resolution, held_own_secrets)
      values (${parameter.environment_uid}, ${parameter.organization_id}, ${parameter.project_id},
        ${parameter.runner_id}, ${parameter.environment_class_id}, ${parameter.repository_id},
        ${parameter.creator_kind}, ${parameter.creator_uid}, ${parameter.name}, ${parameter.session_id},
        ${parameter.annotations}, ${parameter.original_context_url}, ${parameter.spec}, ${parameter.chosen_secrets},
        ${parameter.own_secrets}, ${parameter.resolution}, ${parameter.held_own_secrets})
      returning id, 1 as no),
    given as (
      insert into environment_secrets (environment_id, secret_id)
        select w.id, given.id from written w, unnest(${parameter.secretIds}::bigint[]) as given(id)),
    recorded as (${auditedEach(parameter.records)})
    select id from written` as RawBuilder<{ id: number }>
)

/** With what it receives and the record of it, by one statement; gives its id. */
export async function insertEnvironment(
  tx: Transaction<Database>,
  environment: NewEnvironment,
  record: AuditRow
): Promise<number> {
  const { annotations, spec, chosen_secrets, resolution } = environment
  const [made] = await making(tx, {
    ...environment,
    annotations: JSON.stringify(annotations),
    spec: JSON.stringify(spec),
    chosen_secrets: chosen_secrets ? JSON.stringify(chosen_secrets) : null,
    resolution: JSON.stringify(resolution),
    records: auditRecords([record])
  })
  return made!.id
}

/** What can be changed of an environment; times are the database's. */
export interface EnvironmentChange {
  name?: string
  spec?: object
  desiredPhase?: string
  /** the observed one */
  phase?: string
  started?: boolean
  active?: boolean
  archived?: boolean
  lockdownAt?: string | null
  activity?: object
  ownSecrets?: boolean
  /** null: of none that is known here */
  repositoryId?: number | null
  /** whether what a runner acts on changes */
  newVersion: boolean
}

export async function updateEnvironment(
  tx: Transaction<Database>,
  environmentId: number,
  change: EnvironmentChange
): Promise<void> {
  const now = sql<Date>`now()`
  await tx
    .updateTable('environments')
    .set({
      ...(change.name !== undefined && { name: change.name }),
      ...(change.spec && { spec: JSON.stringify(change.spec) }),
      ...(change.desiredPhase !== undefined && { desired_phase: change.desiredPhase }),
      ...(change.phase !== undefined && {
        phase: change.phase,
        status_version: sql<number>`status_version + 1`
      }),
      ...(change.started && { last_started_at: now }),
      ...((change.started || change.active) && { last_active_at: now }),
      ...(change.archived !== undefined && { archived_at: change.archived ? now : null }),
      ...(change.lockdownAt !== undefined && {
        lockdown_at: change.lockdownAt === null ? null : sql<Date>`${change.lockdownAt}::timestamptz`
      }),
      ...(change.activity && { activity: JSON.stringify(change.activity) }),
      ...(change.ownSecrets !== undefined && { own_secrets: change.ownSecrets }),
      ...(change.repositoryId !== undefined && { repository_id: change.repositoryId }),
      ...(change.newVersion && { spec_version: sql<number>`spec_version + 1` })
    })
    .where('id', '=', environmentId)
    .execute()
}

/** Somebody is still at work in it: nothing that anybody needs a record of. */
export async function touchEnvironment(db: Kysely<Database>, environmentId: number): Promise<void> {
  await db
    .updateTable('environments')
    .set({ last_active_at: sql<Date>`now()` })
    .where('id', '=', environmentId)
    .execute()
}

/** With its tokens; gives their hashes, for the caches. */
export async function deleteEnvironment(tx: Transaction<Database>, environmentId: number): Promise<Buffer[]> {
  const tokens = await tx
    .deleteFrom('tokens')
    .where('environment_id', '=', environmentId)
    .returning('hash')
    .execute()
  await tx.deleteFrom('environments').where('id', '=', environmentId).execute()
  return tokens.map(({ hash }) => hash)
}

/** Whether the environment `e` is still to run, but has not been used for longer than its timeout. */
const isIdle = sql<boolean>`(e.desired_phase = 'ENVIRONMENT_PHASE_RUNNING' and e.phase = 'ENVIRONMENT_PHASE_RUNNING'
  and e.timeout_seconds > 0 and extract(epoch from now() - e.last_active_at) > e.timeout_seconds)`

export async function listIdle(db: Kysely<Database>, atMost: number): Promise<number[]> {
  const rows = await db
    .selectFrom('environments as e')
    .select('e.id')
    .where(isIdle)
    .orderBy('e.id')
    .limit(atMost)
    .execute()
  return rows.map(({ id }) => id)
}

/** The same for one, locked; undefined when somebody came back, or stopped it, since it was found. */
export async function lockIdle(
  tx: Transaction<Database>,
  environmentId: number
): Promise<LockedEnvironment | undefined> {
  return await lockedEnvironments(tx).where('e.id', '=', environmentId).where(isIdle).executeTakeFirst()
}

/** The tokens of an environment that is to be removed; the hashes, for the caches. */
export async function deleteTokensOfEnvironment(
  tx: Transaction<Database>,
  environmentId: number
): Promise<Buffer[]> {
  return await deleteTokensOfEnvironments(tx, sql<boolean>`e.id = ${environmentId}::bigint`)
}

/** The same for all environments of a runner. */
export async function deleteTokensOfEnvironmentsOn(
  tx: Transaction<Database>,
  runnerId: number
): Promise<Buffer[]> {
  return await deleteTokensOfEnvironments(tx, sql<boolean>`e.runner_id = ${runnerId}::bigint`)
}

const OWNERS = {
  organization: 'e.organization_id',
  runner: 'e.runner_id',
  project: 'e.project_id',
  repository: 'e.repository_id'
} as const

/**
 * Locks the environments that hang on something, in order of id, for who removes that: before anything else of it is
 * removed, since whoever changes an environment holds it first, and then what it hangs on.
 */
export async function lockEnvironmentsOn(
  tx: Transaction<Database>,
  owner: keyof typeof OWNERS,
  id: number
): Promise<LockedEnvironment[]> {
  return await lockedEnvironments(tx).where(OWNERS[owner], '=', id).orderBy('e.id').execute()
}
