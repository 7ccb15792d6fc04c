import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import { type Acting, actingOrganization } from './acting.ts'
import { type Statement, statement } from './statement.ts'
import type { Database, ProjectRole } from './tables.ts'

/** One class of environments that a project allows; null: a runner on the user's own machine. */
export interface ProjectClass {
  environment_class_uid: string | null
  sort_order: number
}

/** A project with the role that an actor has on it. */
export interface ProjectFacts {
  project_id: number
  project_uid: string
  organization_id: number
  organization_uid: string
  project_role: ProjectRole | null
  name: string
  initializer: object
  devcontainer_file_path: string
  automations_file_path: string
  technical_description: string
  prebuild_configuration: object | null
  recommended_editors: object | null
  creator_kind: string
  creator_uid: string | null
  created_at: Date
  updated_at: Date
  classes: ProjectClass[]
  used_by: ProjectUsers
}

/** Who has environments of a project: the newest first, ten at most, and how many in all. */
export interface ProjectUsers {
  subjects: { kind: string; uid: string }[]
  total: number
}

/** As much of a project as access to its secrets depends on, and where that is recorded. */
export type ProjectHead = Pick<ProjectFacts, 'project_uid' | 'organization_uid' | 'project_role'>

/**
 * The role of an actor on the project `p`: the highest of what its groups have. Owners of the organization are admins
 * of all its projects. Everyone is its members and its service accounts, not what else acts in it.
 *
 * @param memberRole the column with the actor's role in the organization
 */
export function projectRole(actorId: number | RawBuilder<number>, memberRole = 'm.role') {
  return sql<ProjectRole | null>`case when ${sql.ref(memberRole)} = 'admin' then 'admin' else (
    select pp.role from project_policies pp join groups g on g.id = pp.group_id
    where pp.project_id = p.id and (
      (g.everyone and (${sql.ref(memberRole)} is not null
        or exists (select 1 from service_accounts everybody where everybody.id = ${actorId})))
      or exists (select 1 from group_members gm where gm.group_id = g.id
        and (gm.account_id = ${actorId} or gm.service_account_id = ${actorId})))
    order by array_position(array['admin', 'editor', 'user'], pp.role) limit 1) end`
}

const USED_BY = sql<ProjectUsers>`(
  with users as (select e.creator_kind as kind, e.creator_uid as uid, max(e.id) as newest from environments e
    where e.project_id = p.id group by 1, 2)
  select json_build_object('total', (select count(*) from users), 'subjects', coalesce((
    select json_agg(json_build_object('kind', u.kind, 'uid', u.uid) order by u.newest desc)
    from (select * from users order by newest desc limit 10) u), '[]')))`

function projectsSeenBy(db: Kysely<Database>, acting: Acting) {
  return actingOrganization(db, acting)
    .innerJoin('projects as p', 'p.organization_id', 'o.id')
    .select([
      'p.id as project_id',
      'p.uid as project_uid',
      'p.organization_id',
      'o.uid as organization_uid',
      projectRole(acting.actorId).as('project_role'),
      'p.name',
      'p.initializer',
      'p.devcontainer_file_path',
      'p.automations_file_path',
      'p.technical_description',
      'p.prebuild_configuration',
      'p.recommended_editors',
      'p.creator_kind',
      'p.creator_uid',
      'p.created_at',
      'p.updated_at',
      sql<ProjectClass[]>`coalesce((select json_agg(json_build_object(
          'environment_class_uid', c.uid, 'sort_order', pc.sort_order) order by pc.sort_order, pc.position)
        from project_environment_classes pc left join environment_classes c on c.id = pc.environment_class_id
        where pc.project_id = p.id), '[]')`.as('classes'),
      USED_BY.as('used_by')
    ])
}

const byUid: Statement<Acting & { projectUid: string }, ProjectFacts> = statement((db, parameter) =>
  projectsSeenBy(db, parameter).where('p.uid', '=', parameter.projectUid)
)

/** Only where it is in the organization that the token acts in. */
export async function findProject(
  db: Kysely<Database>,
  acting: Acting,
  projectUid: string
): Promise<ProjectFacts | undefined> {
  const [row] = await byUid(db, { ...acting, projectUid })
  return row
}

const heads: Statement<Acting & { projectUid: string }, ProjectHead> = statement((db, parameter) =>
  actingOrganization(db, parameter)
    .innerJoin('projects as p', 'p.organization_id', 'o.id')
    .select([
      'p.uid as project_uid',
      'o.uid as organization_uid',
      projectRole(parameter.actorId).as('project_role')
    ])
    .where('p.uid', '=', parameter.projectUid)
)

/** The same, for what is about its secrets and not about itself. */
export async function findProjectHead(
  db: Kysely<Database>,
  acting: Acting,
  projectUid: string
): Promise<ProjectHead | undefined> {
  const [row] = await heads(db, { ...acting, projectUid })
  return row
}

export interface ProjectFilter {
  projectUids?: readonly string[] | undefined
  creatorUids?: readonly string[] | undefined
  runnerUids?: readonly string[] | undefined
  runnerKinds?: readonly string[] | undefined
  remoteUris?: readonly string[] | undefined
  /** in name, uid or repository, whatever the case */
  search?: string | undefined
}

function filtered(db: Kysely<Database>, acting: Acting, filter: ProjectFilter) {
  let query = projectsSeenBy(db, acting).where(sql<boolean>`${projectRole(acting.actorId)} is not null`)
  const { projectUids, creatorUids, runnerUids, runnerKinds, remoteUris, search } = filter
  if (projectUids) query = query.where('p.uid', '=', sql<string>`any(${projectUids}::uuid[])`)
  if (creatorUids) query = query.where('p.creator_uid', '=', sql<string>`any(${creatorUids}::uuid[])`)
  if (runnerUids || runnerKinds) {
    query = query.where(
      sql<boolean>`exists (select 1 from project_environment_classes pc
        join environment_classes c on c.id = pc.environment_class_id join runners r on r.id = c.runner_id
        where pc.project_id = p.id and (${runnerUids ?? null}::uuid[] is null or r.uid = any(${runnerUids ?? null}::uuid[]))
          and (${runnerKinds ?? null}::text[] is null or r.kind = any(${runnerKinds ?? null}::text[])))`
    )
  }
  const remotes = sql`jsonb_array_elements(p.initializer -> 'specs') spec`
  if (remoteUris) {
    query = query.where(
      sql<boolean>`exists (select 1 from ${remotes} where spec -> 'git' ->> 'remoteUri' = any(${remoteUris}::text[]))`
    )
  }
  if (search !== undefined) {
    query = query.where(
      sql<boolean>`(strpos(lower(p.name), lower(${search})) > 0 or strpos(p.uid::text, lower(${search})) > 0
        or exists (select 1 from ${remotes} where strpos(
          lower(concat(spec -> 'git' ->> 'remoteUri', spec -> 'contextUrl' ->> 'url')), lower(${search})) > 0))`
    )
  }
  return query
}

/** Projects that the actor sees, by id, behind one. */
export async function listProjects(
  db: Kysely<Database>,
  acting: Acting,
  filter: ProjectFilter,
  { after, descending, limit }: { after: number | undefined; descending: boolean; limit: number }
): Promise<ProjectFacts[]> {
  let query = filtered(db, acting, filter)
  if (after !== undefined) query = query.where('p.id', descending ? '<' : '>', after)
  return await query
    .orderBy('p.id', descending ? 'desc' : 'asc')
    .limit(limit)
    .execute()
}

/** How many of them there are; at most one more than `atMost` are counted. */
export async function countProjects(
  db: Kysely<Database>,
  acting: Acting,
  filter: ProjectFilter,
  atMost: number
): Promise<number> {
  const some = filtered(db, acting, filter)
    .clearSelect()
    .select('p.id')
    .limit(atMost + 1)
  const { total } = await db
    .selectFrom(some.as('some'))
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  return total
}

const lock = statement<{ projectUid: string }, { id: number }>((db, { projectUid }) =>
  db.selectFrom('projects').select('id').where('uid', '=', projectUid).forNoKeyUpdate()
)

/** Locks the row, so that nothing is added to what the project owns; false when it is gone. */
export async function lockProject(tx: Transaction<Database>, projectUid: string): Promise<boolean> {
  return (await lock(tx, { projectUid })).length > 0
}

/** What of a project is set, as it is stored. */
export interface ProjectValues {
  name: string
  initializer: object
  devcontainer_file_path: string
  automations_file_path: string
  technical_description: string
  prebuild_configuration: object | null
  recommended_editors: object | null
}

function columnsOf({
  initializer,
  prebuild_configuration,
  recommended_editors,
  ...rest
}: Partial<ProjectValues>) {
  const json = (value: object | null) => (value === null ? null : JSON.stringify(value))
  return {
    ...rest,
    ...(initializer && { initializer: JSON.stringify(initializer) }),
    ...(prebuild_configuration !== undefined && { prebuild_configuration: json(prebuild_configuration) }),
    ...(recommended_editors !== undefined && { recommended_editors: json(recommended_editors) })
  }
}

export async function insertProject(
  tx: Transaction<Database>,
  values: Pick<ProjectValues, 'name' | 'initializer'> &
    Partial<ProjectValues> & { organization_id: number; creator_kind: string; creator_uid: string | null }
): Promise<{ id: number; uid: string }> {
  const { organization_id, creator_kind, creator_uid, name, initializer, ...rest } = values
  return await tx
    .insertInto('projects')
    .values({
      organization_id,
      creator_kind,
      creator_uid,
      name,
      ...columnsOf(rest),
      initializer: JSON.stringify(initializer)
    })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
}

export async function updateProject(
  tx: Transaction<Database>,
  projectId: number,
  values: Partial<ProjectValues>
): Promise<void> {
  await tx
    .updateTable('projects')
    .set({ ...columnsOf(values), updated_at: sql<Date>`now()` })
    .where('id', '=', projectId)
    .execute()
}

export async function deleteProject(tx: Transaction<Database>, projectId: number): Promise<void> {
  await tx.deleteFrom('projects').where('id', '=', projectId).execute()
}

/** The uids of an organization's projects, locked in order of id. */
export async function lockProjectsOf(
  tx: Transaction<Database>,
  organizationId: number
): Promise<{ id: number; uid: string; name: string }[]> {
  return await tx
    .selectFrom('projects')
    .select(['id', 'uid', 'name'])
    .where('organization_id', '=', organizationId)
    .orderBy('id')
    .forNoKeyUpdate()
    .execute()
}

/** Replaces the classes that a project allows. */
export async function replaceProjectClasses(
  tx: Transaction<Database>,
  projectId: number,
  classes: readonly { environmentClassId: number | null; sortOrder: number }[]
): Promise<void> {
  await tx.deleteFrom('project_environment_classes').where('project_id', '=', projectId).execute()
  if (classes.length === 0) return
  await tx
    .insertInto('project_environment_classes')
    .values(
      classes.map(({ environmentClassId, sortOrder }, position) => ({
        project_id: projectId,
        position,
        environment_class_id: environmentClassId,
        sort_order: sortOrder
      }))
    )
    .execute()
}

export interface ProjectPolicy {
  group_id: number
  group_uid: string
  role: ProjectRole
}

/** Policies of a project by group, behind an id. */
export async function listProjectPolicies(
  db: Kysely<Database>,
  projectId: number,
  page: { after: number; limit: number }
): Promise<ProjectPolicy[]> {
  return await db
    .selectFrom('project_policies as pp')
    .innerJoin('groups as g', 'g.id', 'pp.group_id')
    .select(['pp.group_id', 'g.uid as group_uid', 'pp.role'])
    .where('pp.project_id', '=', projectId)
    .where('pp.group_id', '>', page.after)
    .orderBy('pp.group_id')
    .limit(page.limit)
    .execute()
}

/** False when the group has a role on the project already. */
export async function insertProjectPolicy(
  tx: Transaction<Database>,
  projectId: number,
  groupId: number,
  role: ProjectRole
): Promise<boolean> {
  const row = await tx
    .insertInto('project_policies')
    .values({ project_id: projectId, group_id: groupId, role })
    .onConflict((oc) => oc.doNothing())
    .returning('role')
    .executeTakeFirst()
  return row !== undefined
}

/** False when the group has no role on the project. */
export async function updateProjectPolicy(
  tx: Transaction<Database>,
  projectId: number,
  groupId: number,
  role: ProjectRole
): Promise<boolean> {
  const { numUpdatedRows } = await tx
    .updateTable('project_policies')
    .set({ role })
    .where('project_id', '=', projectId)
    .where('group_id', '=', groupId)
    .executeTakeFirstOrThrow()
  return numUpdatedRows > 0n
}

/** False when the group has no role on the project. */
export async function deleteProjectPolicy(
  tx: Transaction<Database>,
  projectId: number,
  groupId: number
): Promise<boolean> {
  const { numDeletedRows } = await tx
    .deleteFrom('project_policies')
    .where('project_id', '=', projectId)
    .where('group_id', '=', groupId)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}
