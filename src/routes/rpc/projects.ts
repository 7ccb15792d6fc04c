import type { Static } from '@sinclair/typebox'
import { ACCESS, requireProjectAccess } from '../../auth/access.ts'
import type { EnvironmentSpec } from '../../environments/spec.ts'
import { CofferError, NotFound, Unavailable } from '../../errors.ts'
import {
  changeProjectPolicy,
  createProject,
  createProjectPolicy,
  removeProject,
  removeProjectPolicy,
  updateProjectSettings
} from '../../projects/projects.ts'
import { isTemporaryDatabaseError } from '../../store/database.ts'
import type { EnvironmentFacts } from '../../store/environments.ts'
import {
  countProjects,
  findProject,
  listProjectPolicies,
  listProjects,
  type ProjectFacts
} from '../../store/projects.ts'
import { CountRequest, CountResponse, count } from './count.ts'
import { invalid } from './decode.ts'
import { getEnvironment } from './environments.ts'
import { Ids, Search, some } from './filters.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact } from './present.ts'
import {
  allowedClasses,
  CreateProjectRequest,
  Project,
  ProjectEnvironmentClass,
  ProjectPolicy,
  ProjectRole,
  presentClasses,
  presentPolicy,
  presentProject,
  roleOf,
  UpdateProjectRequest,
  valuesOf
} from './project-messages.ts'
import { RunnerKind } from './runner-messages.ts'
import { Empty, Int32, List, Message, required, Text, Uuid, withExample } from './schema.ts'
import { readOrder, Sort } from './sort.ts'

// Projects: what environments are made from. https://ona.com/docs/ona/projects/overview

const MAX_BULK = 100

const AWAY = new Unavailable().message

const ListProjectsRequest = Message('ListProjectsRequest', {
  pagination: PaginationRequest,
  filter: Message('ListProjectsRequest.Filter', {
    projectIds: Ids,
    search: Search('the name, the id or the repository'),
    runnerIds: Ids,
    runnerKinds: List(RunnerKind, { max: 25 }),
    specRemoteUris: List(Text({ max: 2048 }), { max: 25 }),
    creatorIds: Ids
  }),
  sort: { ...Sort, description: 'By `id`; `popularity` is taken for it' },
  count: CountRequest
})

const ProjectRequest = { projectId: Uuid({ required: true }) }
const PolicyRequest = { ...ProjectRequest, groupId: Uuid({ required: true }) }
const PolicyRoleRequest = {
  ...PolicyRequest,
  role: required(ProjectRole)
}

function failure(name: string, member: 'name' | 'projectId') {
  return Message(`${name}.Failure`, {
    index: Int32({ description: 'The place in the request, from 0' }),
    [member]: Text(),
    error: Text()
  })
}

function filterOf(input: Static<typeof ListProjectsRequest>) {
  const { projectIds, search, runnerIds, runnerKinds, specRemoteUris, creatorIds } = input.filter ?? {}
  return {
    projectUids: some(projectIds),
    creatorUids: some(creatorIds),
    runnerUids: some(runnerIds),
    runnerKinds: some(runnerKinds),
    remoteUris: some(specRemoteUris),
    search: search || undefined
  }
}

/** What a project is made with that makes environments like this one. */
function creationOf(environment: EnvironmentFacts, name: string | undefined) {
  const { content, devcontainer, automationsFile, machine } = environment.spec as EnvironmentSpec
  return {
    name: name ?? environment.name.slice(0, 80),
    initializer: content?.initializer ?? {},
    devcontainerFilePath: devcontainer?.devcontainerFilePath,
    automationsFilePath: automationsFile?.automationsFilePath,
    environmentClass: { environmentClassId: machine?.class }
  } as Static<typeof CreateProjectRequest>
}

export function projectService({ db, pages }: OnaDependencies): Service {
  const getProject = async ({ acting }: Call, projectUid: string): Promise<ProjectFacts> => {
    const project = await findProject(db, acting, projectUid)
    if (!project) throw new NotFound('There is no such project in the organization of this token.')
    return project
  }
  const create = async (call: Call, input: Static<typeof CreateProjectRequest>) => {
    const values = valuesOf(input) as Parameters<typeof createProject>[4]
    const classes = input.environmentClass && allowedClasses([input.environmentClass])
    const { principal, acting, organization } = call
    return presentProject(
      await createProject(db, principal, acting, organization, values, some(classes)),
      true
    )
  }
  const update = async (call: Call, project: ProjectFacts, input: Static<typeof UpdateProjectRequest>) => {
    const classes = input.environmentClass && allowedClasses([input.environmentClass])
    await updateProjectSettings(db, call.principal, project, valuesOf(input), some(classes))
    return presentProject(await getProject(call, project.project_uid), true)
  }
  /** One after the other, each for itself. */
  const inBulk = async <T, R>(items: readonly T[], run: (item: T) => Promise<R>) => {
    const done: R[] = []
    const failed: { index: number; item: T; error: string }[] = []
    for (const [index, item] of items.entries()) {
      try {
        done.push(await run(item))
      } catch (error) {
        if (isTemporaryDatabaseError(error) && done.length > 0) {
          // What was done is told: a client that tried all again would do it twice.
          const rest = items.slice(index)
          failed.push(...rest.map((item, n) => ({ index: index + n, item, error: AWAY })))
          break
        }
        if (!(error instanceof CofferError) || error.status >= 500 || error.status === 401) throw error
        failed.push({ index, item, error: error.message })
      }
    }
    return { done, failed }
  }
  const ofCall = async (call: Call, projectUid: string, access: 'project:edit' | 'project:administer') => {
    const project = await findProject(db, call.acting, projectUid)
    requireProjectAccess(call.actor, ACCESS[access], project)
    return project!
  }

  return {
    name: 'ProjectService',
    description: 'Projects: what environments are made from, and who may use them',
    methods: [
      method({
        name: 'CreateProject',
        summary: 'Create a project',
        access: 'organization:administer',
        request: CreateProjectRequest,
        response: Message('CreateProjectResponse', { project: Project }),
        handle: async (input, call) => ({ project: await create(call, input) })
      }),
      method({
        name: 'CreateProjectFromEnvironment',
        summary: 'Create a project that makes environments as one that is there',
        access: 'organization:administer',
        request: Message('CreateProjectFromEnvironmentRequest', {
          environmentId: Uuid({ required: true }),
          name: withExample(Text({ min: 1, max: 80, description: "Unset: the environment's" }), 'web')
        }),
        response: Message('CreateProjectFromEnvironmentResponse', { project: Project }),
        async handle({ environmentId, name }, call) {
          const environment = await getEnvironment({ db }, call, environmentId!)
          return { project: await create(call, creationOf(environment, name)) }
        }
      }),
      method({
        name: 'GetProject',
        summary: 'Get a project',
        access: 'project:use',
        reads: true,
        request: Message('GetProjectRequest', ProjectRequest),
        response: Message('GetProjectResponse', { project: Project }),
        handle: async (_input, { project }) => ({ project: presentProject(project) })
      }),
      method({
        name: 'ListProjects',
        summary: 'List the projects that one has a role on, oldest first',
        access: 'organization:read',
        reads: true,
        request: ListProjectsRequest,
        response: Message('ListProjectsResponse', {
          pagination: PaginationResponse,
          projects: List(Project),
          count: CountResponse
        }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const filter = filterOf(input)
          const descending = readOrder(input.sort, 'id', 'popularity') === 'desc'
          const found = await listProjects(db, call.acting, filter, {
            after: page.after?.[0],
            descending,
            limit: page.limit
          })
          const { rows, pagination } = page.close(found, ({ project_id }) => [project_id])
          return compact({
            pagination,
            projects: rows.map((row) => presentProject(row)),
            count: await count(input, page, (atMost) => countProjects(db, call.acting, filter, atMost))
          })
        }
      }),
      method({
        name: 'UpdateProject',
        summary: 'Change settings of a project; what is unset stays',
        access: 'project:edit',
        request: UpdateProjectRequest,
        response: Message('UpdateProjectResponse', { project: Project }),
        handle: async (input, call) => ({ project: await update(call, call.project, input) })
      }),
      method({
        name: 'DeleteProject',
        summary: 'Delete a project with its secrets',
        access: 'project:administer',
        request: Message('DeleteProjectRequest', ProjectRequest),
        response: Empty,
        async handle(_input, { principal, project }) {
          await removeProject(db, principal, project)
          return {}
        }
      }),
      method({
        name: 'CreateProjects',
        summary: 'Create several projects, each for itself',
        access: 'organization:administer',
        request: Message('CreateProjectsRequest', {
          projects: List(CreateProjectRequest, { required: true, min: 1, max: MAX_BULK })
        }),
        response: Message('CreateProjectsResponse', {
          createdProjects: List(Project),
          failedProjects: List(failure('CreateProjectsResponse', 'name'))
        }),
        async handle({ projects }, call) {
          const { done, failed } = await inBulk(projects!, (input) => create(call, input))
          return compact({
            createdProjects: done,
            failedProjects: failed.map(({ index, item, error }) => compact({ index, name: item.name, error }))
          })
        }
      }),
      method({
        name: 'UpdateProjects',
        summary: 'Change several projects, each for itself',
        access: 'projects:change',
        request: Message('UpdateProjectsRequest', {
          projects: List(UpdateProjectRequest, { required: true, min: 1, max: MAX_BULK })
        }),
        response: Message('UpdateProjectsResponse', {
          updatedProjects: List(Project),
          failedProjects: List(failure('UpdateProjectsResponse', 'projectId'))
        }),
        async handle({ projects }, call) {
          const { done, failed } = await inBulk(projects!, async (input) =>
            update(call, await ofCall(call, input.projectId!, 'project:edit'), input)
          )
          return compact({
            updatedProjects: done,
            failedProjects: failed.map(({ index, item, error }) =>
              compact({ index, projectId: item.projectId, error })
            )
          })
        }
      }),
      method({
        name: 'DeleteProjects',
        summary: 'Delete several projects with their secrets, each for itself',
        access: 'projects:change',
        request: Message('DeleteProjectsRequest', {
          projectIds: List(Uuid({ required: true }), { required: true, min: 1, max: MAX_BULK })
        }),
        response: Message('DeleteProjectsResponse', {
          deletedProjectIds: List(Uuid()),
          failedProjects: List(failure('DeleteProjectsResponse', 'projectId'))
        }),
        async handle({ projectIds }, call) {
          const { done, failed } = await inBulk(projectIds!, async (projectId) => {
            await removeProject(db, call.principal, await ofCall(call, projectId, 'project:administer'))
            return projectId
          })
          return compact({
            deletedProjectIds: done,
            failedProjects: failed.map(({ index, item, error }) => compact({ index, projectId: item, error }))
          })
        }
      }),
      method({
        name: 'ListProjectEnvironmentClasses',
        summary: 'List the classes of environments that a project allows, by their order',
        access: 'project:use',
        reads: true,
        request: Message('ListProjectEnvironmentClassesRequest', {
          pagination: PaginationRequest,
          ...ProjectRequest
        }),
        response: Message('ListProjectEnvironmentClassesResponse', {
          pagination: PaginationResponse,
          projectEnvironmentClasses: List(ProjectEnvironmentClass)
        }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const start = page.after?.[0] ?? 0
          const classes = presentClasses(call.project).map((shown, index) => ({ shown, index }))
          const found = classes.slice(start, start + page.limit)
          const { rows, pagination } = page.close(found, ({ index }) => [index + 1])
          return compact({ pagination, projectEnvironmentClasses: rows.map(({ shown }) => shown) })
        }
      }),
      method({
        name: 'UpdateProjectEnvironmentClasses',
        summary: 'Replace the classes of environments that a project allows',
        access: 'project:edit',
        request: Message('UpdateProjectEnvironmentClassesRequest', {
          ...ProjectRequest,
          projectEnvironmentClasses: List(ProjectEnvironmentClass, { required: true, min: 1, max: 30 })
        }),
        response: Empty,
        async handle({ projectEnvironmentClasses }, { principal, project }) {
          const classes = allowedClasses(projectEnvironmentClasses!)
          if (classes.length < projectEnvironmentClasses!.length) {
            throw invalid('projectEnvironmentClasses', 'each must have environmentClassId or localRunner')
          }
          await updateProjectSettings(db, principal, project, {}, classes)
          return {}
        }
      }),
      method({
        name: 'ListProjectPolicies',
        summary: 'List the roles that groups have on a project',
        access: 'project:use',
        reads: true,
        request: Message('ListProjectPoliciesRequest', { pagination: PaginationRequest, ...ProjectRequest }),
        response: Message('ListProjectPoliciesResponse', {
          pagination: PaginationResponse,
          policies: List(ProjectPolicy)
        }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const after = page.after?.[0] ?? 0
          const found = await listProjectPolicies(db, call.project.project_id, { after, limit: page.limit })
          const { rows, pagination } = page.close(found, ({ group_id }) => [group_id])
          return compact({ pagination, policies: rows.map(presentPolicy) })
        }
      }),
      method({
        name: 'CreateProjectPolicy',
        summary: 'Give a group a role on a project',
        access: 'project:administer',
        request: Message('CreateProjectPolicyRequest', PolicyRoleRequest),
        response: Message('CreateProjectPolicyResponse', { policy: ProjectPolicy }),
        async handle({ groupId, role }, { principal, project }) {
          await createProjectPolicy(db, principal, project, groupId!, roleOf(role!))
          return { policy: { groupId: groupId!, role: role! } }
        }
      }),
      method({
        name: 'UpdateProjectPolicy',
        summary: 'Give a group another role on a project',
        access: 'project:administer',
        request: Message('UpdateProjectPolicyRequest', PolicyRoleRequest),
        response: Message('UpdateProjectPolicyResponse', { policy: ProjectPolicy }),
        async handle({ groupId, role }, { principal, project }) {
          await changeProjectPolicy(db, principal, project, groupId!, roleOf(role!))
          return { policy: { groupId: groupId!, role: role! } }
        }
      }),
      method({
        name: 'DeleteProjectPolicy',
        summary: 'Take the role of a group on a project away',
        access: 'project:administer',
        request: Message('DeleteProjectPolicyRequest', PolicyRequest),
        response: Empty,
        async handle({ groupId }, { principal, project }) {
          await removeProjectPolicy(db, principal, project, groupId!)
          return {}
        }
      })
    ]
  }
}
