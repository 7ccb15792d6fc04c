import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import type { CollectionKind } from '../apps.ts'
import { projectRole } from './projects.ts'
import type { DeliverableValue } from './secrets.ts'
import { statement } from './statement.ts'
import type { CredentialProxy, Database, Mount, ProjectRole, RepositoryRole, Visibility } from './tables.ts'

// What decides which secrets an environment receives, as it is now.

/** Who an environment is made by, from what. */
export interface EnvironmentOrigin {
  organizationId: number
  creatorKind: string
  creatorUid: string
  projectId: number | null
  repositoryId: number | null
  /** whether the creator's own secrets may come in at all */
  ownSecrets: boolean
}

/** The creator's standing, and whose secrets could come in. */
export interface ResolutionContext {
  organization_uid: string
  creator_kind: string
  creator_uid: string
  own_secrets: boolean
  /** a member of the organization, or a service account of it that is neither suspended nor past its time */
  creator_here: boolean
  project_uid: string | null
  project_role: ProjectRole | null
  repository_id: number | null
  repository_uid: string | null
  repository_private: boolean | null
  /** whether the repository is the organization's */
  repository_here: boolean
  /** the creator's on the repository */
  repository_role: RepositoryRole | null
}

/** @param origin a table or a query with the columns of an environment that say where it comes from */
function contextOf(origin: RawBuilder<unknown>) {
  return sql`select o.uid as organization_uid, e.creator_kind, e.creator_uid, e.own_secrets,
      (m.role is not null or s.id is not null) as creator_here,
      p.uid as project_uid,
      case when p.id is not null then ${projectRole(sql<number>`coalesce(u.id, s.id)`)} end as project_role,
      r.id as repository_id, r.uid as repository_uid, r.private as repository_private,
      coalesce(r.owner_id = o.id, false) as repository_here,
      case when r.owner_id = u.id or rm.role = 'admin' then 'admin' when c.role is not null then c.role
        when rm.role = 'member' then 'read' end as repository_role
    from ${origin}
      join accounts o on o.id = e.organization_id
      left join accounts u on e.creator_kind = 'user' and u.uid = e.creator_uid and u.kind = 'user'
      left join service_accounts s on e.creator_kind = 'service-account' and s.uid = e.creator_uid
        and s.organization_id = o.id and s.suspended_at is null
        and (s.valid_until is null or s.valid_until > now())
      left join memberships m on m.organization_id = o.id and m.account_id = u.id
      left join projects p on p.id = e.project_id and p.organization_id = o.id
      left join repositories r on r.id = e.repository_id
      left join collaborators c on c.repository_id = r.id and c.account_id = u.id
      left join memberships rm on rm.organization_id = r.owner_id and rm.account_id = u.id`
}

const contexts = statement<EnvironmentOrigin, ResolutionContext>(
  (_, parameter) =>
    contextOf(sql`(select ${parameter.organizationId}::bigint as organization_id,
      ${parameter.creatorKind}::text as creator_kind, ${parameter.creatorUid}::uuid as creator_uid,
      ${parameter.projectId}::bigint as project_id, ${parameter.repositoryId}::bigint as repository_id,
      ${parameter.ownSecrets}::boolean as own_secrets) e`) as RawBuilder<ResolutionContext>
)

/** Undefined when the organization is gone. */
export async function findResolutionContext(
  db: Kysely<Database>,
  origin: EnvironmentOrigin
): Promise<ResolutionContext | undefined> {
  const { organizationId, creatorKind, creatorUid, projectId, repositoryId, ownSecrets } = origin
  const parameters = { organizationId, creatorKind, creatorUid, projectId, repositoryId, ownSecrets }
  const [row] = await contexts(db, parameters)
  return row
}

/** A secret that could come in. */
export interface CandidateSecret {
  secret_id: number
  secret_uid: string
  kind: CollectionKind
  secret_name: string
  mount: Mount
  mount_target: string | null
  credential_proxy: CredentialProxy | null
  visibility: Visibility | null
  value_version: number
  /** whether it is for the repository, where it is for selected ones */
  selected: boolean
}

const CANDIDATE = sql`s.id as secret_id, s.uid as secret_uid, s.kind, s.name as secret_name, s.mount, s.mount_target,
  s.credential_proxy, s.visibility, s.value_version`

function isSelected(repositoryId: RawBuilder<number | null> | number | null) {
  return sql`exists (select 1 from secret_repositories x
    where x.secret_id = s.id and x.repository_id = ${repositoryId}::bigint) as selected`
}

const candidates = statement<
  { kinds: readonly string[]; ownerUids: readonly string[]; repositoryId: number | null },
  CandidateSecret
>(
  (_, parameter) =>
    sql`select ${CANDIDATE}, ${isSelected(parameter.repositoryId)}
      from unnest(${parameter.kinds}::text[], ${parameter.ownerUids}::uuid[]) as owner(kind, uid)
        join secrets s on s.app = 'codespaces' and s.kind = owner.kind and s.owner_uid = owner.uid
      order by s.kind, s.name` as RawBuilder<CandidateSecret>
)

/** All secrets of these owners. */
export async function listCandidates(
  db: Kysely<Database>,
  owners: readonly { kind: CollectionKind; ownerUid: string }[],
  repositoryId: number | null
): Promise<CandidateSecret[]> {
  return await candidates(db, {
    kinds: owners.map(({ kind }) => kind),
    ownerUids: owners.map(({ ownerUid }) => ownerUid),
    repositoryId
  })
}

/** A secret that an environment was given, with its value, and with what decides whether it still is. */
export type ReceivedSecret = ResolutionContext & CandidateSecret & DeliverableValue

const received = statement<{ environmentId: number; secretUids: readonly string[] }, ReceivedSecret>(
  (_, parameter) =>
    sql`with k as materialized (
        ${contextOf(sql`(select * from environments where id = ${parameter.environmentId}::bigint) e`)})
      select ${CANDIDATE}, ${isSelected(sql<number>`k.repository_id`)}, k.*, s.uid, s.app, s.owner_uid, s.name,
        s.envelope, s.row_version,
        case s.kind when 'user' then s.owner_uid when 'repository' then (
          select a.uid from repositories r join accounts a on a.id = r.owner_id where r.uid = s.owner_uid)
          else k.organization_uid end as stream_uid
      from k join secrets s on s.uid = any(${parameter.secretUids}::uuid[])
        join environment_secrets es on es.secret_id = s.id
          and es.environment_id = ${parameter.environmentId}::bigint` as RawBuilder<ReceivedSecret>
)

/** Those of these that the environment was given. */
export async function listReceived(
  db: Kysely<Database>,
  environmentId: number,
  secretUids: readonly string[]
): Promise<ReceivedSecret[]> {
  return await received(db, { environmentId, secretUids })
}

/** An environment that is to be resolved. */
export interface ResolvableEnvironment extends EnvironmentOrigin {
  environmentId: number
  chosenSecrets: object | null
  resolution: object[]
}

function resolvable(db: Kysely<Database>, environmentId: number) {
  return db
    .selectFrom('environments')
    .select([
      'id as environmentId',
      'organization_id as organizationId',
      'creator_kind as creatorKind',
      'creator_uid as creatorUid',
      'project_id as projectId',
      'repository_id as repositoryId',
      'own_secrets as ownSecrets',
      'chosen_secrets as chosenSecrets',
      'resolution'
    ])
    .where('id', '=', environmentId)
}

export async function findResolvable(
  db: Kysely<Database>,
  environmentId: number
): Promise<ResolvableEnvironment | undefined> {
  return await resolvable(db, environmentId).executeTakeFirst()
}

export async function lockForResolution(
  tx: Transaction<Database>,
  environmentId: number
): Promise<ResolvableEnvironment | undefined> {
  return await resolvable(tx, environmentId).forUpdate().executeTakeFirst()
}

const storing = statement<
  { environmentId: number; resolution: string; secretIds: readonly number[]; ownSecrets: boolean },
  unknown
>(
  (_, parameter) => sql`
    with environment as (
      update environments set resolution = ${parameter.resolution}::jsonb, spec_version = spec_version + 1,
        held_own_secrets = held_own_secrets or ${parameter.ownSecrets}::boolean
      where id = ${parameter.environmentId}::bigint returning id),
    lost as (
      delete from environment_secrets es using environment e
      where es.environment_id = e.id and es.secret_id <> all(${parameter.secretIds}::bigint[]))
    insert into environment_secrets (environment_id, secret_id)
      select e.id, given.id from environment e, unnest(${parameter.secretIds}::bigint[]) as given(id)
      on conflict do nothing`
)

/**
 * Stores what an environment receives: all that its tokens may read.
 *
 * @param ownSecrets whether there are some of its creator's own among these
 */
export async function storeResolution(
  tx: Transaction<Database>,
  environmentId: number,
  resolution: readonly object[],
  { secretIds, ownSecrets }: { secretIds: readonly number[]; ownSecrets: boolean }
): Promise<void> {
  await storing(tx, { environmentId, resolution: JSON.stringify(resolution), secretIds, ownSecrets })
}

/** Ids of the environments, not stopped ones, that secrets of a collection could come into; null: of all collections. */
export async function listResolvable(
  db: Kysely<Database>,
  collection: { kind: string; ownerUid: string } | null,
  { after, limit }: { after: number; limit: number }
): Promise<number[]> {
  const conditions: Readonly<Record<string, RawBuilder<boolean>>> = collection
    ? {
        user: sql`e.creator_uid = ${collection.ownerUid}::uuid`,
        'service-account': sql`e.creator_uid = ${collection.ownerUid}::uuid`,
        project: sql`e.project_id = (select p.id from projects p where p.uid = ${collection.ownerUid}::uuid)`,
        repository: sql`e.repository_id = (select r.id from repositories r where r.uid = ${collection.ownerUid}::uuid)`,
        organization: sql`e.organization_id = (select o.id from accounts o where o.uid = ${collection.ownerUid}::uuid)`
      }
    : {}
  const condition = collection ? (conditions[collection.kind] ?? sql`false`) : sql`true`
  const { rows } = await sql<{ id: number }>`select e.id from environments e
    where ${condition} and e.id > ${after}::bigint
      and e.desired_phase = 'ENVIRONMENT_PHASE_RUNNING' order by e.id limit ${limit}::bigint`.execute(db)
  return rows.map(({ id }) => id)
}
