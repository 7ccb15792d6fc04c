import type { Kysely, Transaction } from 'kysely'
import { inTheNameOf } from '../directory/change.ts'
import { removeProjectRow } from '../directory/owned-projects.ts'
import { AlreadyExists, InvalidInput, NotFound } from '../errors.ts'
import { lockAccount } from '../store/accounts.ts'
import type { Acting } from '../store/acting.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { findEnvironmentClasses, findFirstEnvironmentClass } from '../store/environment-classes.ts'
import { findGroup, type Group } from '../store/groups.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import {
  deleteProjectPolicy,
  findProject,
  insertProject,
  insertProjectPolicy,
  lockProject,
  type ProjectFacts,
  type ProjectValues,
  replaceProjectClasses,
  updateProject,
  updateProjectPolicy
} from '../store/projects.ts'
import type { Database, ProjectRole } from '../store/tables.ts'

/** A class of environments that a project allows, as it is asked for. */
export interface AllowedClass {
  /** undefined: a runner on the user's own machine */
  environmentClassUid: string | undefined
  /** lower comes first */
  order: number
}

type Project = Pick<
  ProjectFacts,
  'project_id' | 'project_uid' | 'organization_id' | 'organization_uid' | 'name'
>

function event(principal: Principal, project: Project, action: string) {
  const { organization_uid, project_uid, name } = project
  return { streamUid: organization_uid, principal, action, subjectUid: project_uid, name }
}

/** One change of a project at a time, recorded; throws `NotFound` when it is gone. */
async function changeProject<T>(
  db: Kysely<Database>,
  principal: Principal,
  project: Project,
  action: string,
  change: (tx: Transaction<Database>) => Promise<T>
): Promise<T> {
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockProject(tx, project.project_uid))) throw new NotFound()
    const result = await change(tx)
    await insertAuditEvents(tx, [event(principal, project, action)])
    return result
  })
}

/**
 * Makes a project. Without classes it allows the organization's first one.
 *
 * @returns what was made; read before the commit, so that nothing can fail behind it
 * @throws InvalidInput for a class that the organization does not have
 */
export async function createProject(
  db: Kysely<Database>,
  principal: Principal,
  acting: Acting,
  organization: Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>,
  values: Pick<ProjectValues, 'name' | 'initializer'> & Partial<ProjectValues>,
  classes: readonly AllowedClass[] | undefined
): Promise<ProjectFacts> {
  const { organization_id, organization_uid } = organization
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization_uid))) throw new NotFound()
    const { id, uid } = await insertProject(tx, {
      ...values,
      organization_id,
      creator_kind: principal.kind,
      creator_uid: principal.uid
    })
    const allowed = classes
      ? await requireClasses(tx, organization_id, classes)
      : await defaultClasses(tx, organization_id)
    await replaceProjectClasses(tx, id, allowed)
    const project = { project_id: id, project_uid: uid, organization_id, organization_uid, name: values.name }
    await insertAuditEvents(tx, [event(principal, project, 'project.create')])
    const made = await findProject(tx, acting, uid)
    // The organization that the token acts in changed meanwhile.
    if (!made) throw new NotFound()
    return made
  })
}

async function defaultClasses(tx: Transaction<Database>, organizationId: number) {
  const environmentClassId = await findFirstEnvironmentClass(tx, organizationId)
  return environmentClassId === undefined ? [] : [{ environmentClassId, sortOrder: 0 }]
}

async function requireClasses(
  tx: Transaction<Database>,
  organizationId: number,
  classes: readonly AllowedClass[]
) {
  const uids = classes.flatMap(({ environmentClassUid }) => environmentClassUid ?? [])
  const known = await findEnvironmentClasses(tx, organizationId, uids)
  return classes.map(({ environmentClassUid, order }) => {
    if (environmentClassUid === undefined) return { environmentClassId: null, sortOrder: order }
    const found = known.get(environmentClassUid)
    if (!found) throw invalidClass('names no environment class of this organization')
    if (!found.enabled) throw invalidClass('names an environment class that is disabled')
    return { environmentClassId: found.id, sortOrder: order }
  })
}

function invalidClass(message: string): InvalidInput {
  const field = 'environmentClassId'
  return new InvalidInput(`${field}: ${message}`, [{ field, code: 'invalid', message }])
}

/** Changes what is given of a project; throws `NotFound` when it is gone. */
export async function updateProjectSettings(
  db: Kysely<Database>,
  principal: Principal,
  project: Project,
  values: Partial<ProjectValues>,
  classes: readonly AllowedClass[] | undefined
): Promise<void> {
  await changeProject(db, principal, project, 'project.update', async (tx) => {
    await updateProject(tx, project.project_id, values)
    if (!classes) return
    const allowed = await requireClasses(tx, project.organization_id, classes)
    await replaceProjectClasses(tx, project.project_id, allowed)
  })
}

/** Removes a project with its secrets; throws `NotFound` when it is gone. */
export async function removeProject(
  db: Kysely<Database>,
  principal: Principal,
  project: Project
): Promise<void> {
  const { project_id, project_uid, organization_uid, name } = project
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockProject(tx, project_uid))) throw new NotFound()
    await removeProjectRow(tx, principal, organization_uid, { id: project_id, uid: project_uid, name })
  })
}

async function requireGroup(
  tx: Transaction<Database>,
  { organization_id }: Project,
  groupUid: string
): Promise<Group> {
  const group = await findGroup(tx, organization_id, groupUid)
  if (!group) throw new NotFound('There is no such group in the organization.')
  return group
}

const NO_POLICY = 'The group has no role on the project.'

/** Gives a group a role; throws `AlreadyExists` when it has one. */
export async function createProjectPolicy(
  db: Kysely<Database>,
  principal: Principal,
  project: Project,
  groupUid: string,
  role: ProjectRole
): Promise<void> {
  await changeProject(db, principal, project, `project.policy.set.${role}`, async (tx) => {
    const { id } = await requireGroup(tx, project, groupUid)
    if (await insertProjectPolicy(tx, project.project_id, id, role)) return
    throw new AlreadyExists('The group has a role on the project already; update it.')
  })
}

/** Gives a group another role; throws `NotFound` when it has none. */
export async function changeProjectPolicy(
  db: Kysely<Database>,
  principal: Principal,
  project: Project,
  groupUid: string,
  role: ProjectRole
): Promise<void> {
  await changeProject(db, principal, project, `project.policy.set.${role}`, async (tx) => {
    const { id } = await requireGroup(tx, project, groupUid)
    if (!(await updateProjectPolicy(tx, project.project_id, id, role))) throw new NotFound(NO_POLICY)
  })
}

/** Takes a group's role away; throws `NotFound` when it has none. */
export async function removeProjectPolicy(
  db: Kysely<Database>,
  principal: Principal,
  project: Project,
  groupUid: string
): Promise<void> {
  await changeProject(db, principal, project, 'project.policy.remove', async (tx) => {
    const { id } = await requireGroup(tx, project, groupUid)
    if (!(await deleteProjectPolicy(tx, project.project_id, id))) throw new NotFound(NO_POLICY)
  })
}
