import type { Static } from '@sinclair/typebox'
import { ACCESS, requireAccess } from '../../auth/access.ts'
import { inTheNameOf } from '../../directory/change.ts'
import { storeEnvironmentToken } from '../../directory/environment-tokens.ts'
import {
  askEnvironment,
  type Creator,
  changeEnvironment,
  createEnvironment,
  enterEnvironment,
  markActive,
  removeEnvironment
} from '../../environments/service.ts'
import { Forbidden, NotFound } from '../../errors.ts'
import {
  countEnvironments,
  type EnvironmentFacts,
  type EnvironmentKey,
  findEnvironment,
  listEnvironments
} from '../../store/environments.ts'
import { findProject } from '../../store/projects.ts'
import { CountRequest, CountResponse, count } from './count.ts'
import { invalid } from './decode.ts'
import { listMethod } from './environment-classes.ts'
import {
  CreateEnvironmentFromProjectRequest,
  CreateEnvironmentRequest,
  Environment,
  EnvironmentPhase,
  EnvironmentRole,
  MarkEnvironmentActiveRequest,
  presentEnvironment,
  readChoice,
  readSpec,
  UpdateEnvironmentRequest
} from './environment-messages.ts'
import { Ids, Search, SortOrder, some } from './filters.ts'
import { type Call, type Method, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact } from './present.ts'
import { RunnerKind } from './runner-messages.ts'
import { Bool, Empty, Enum, List, Message, required, Text, Timestamp, Uuid } from './schema.ts'

// Environments: what is made from projects, and receives their secrets.
// https://ona.com/docs/ona/environments/overview

const TOKEN_SECONDS = 3600

export const EnvironmentRequest = { environmentId: Uuid({ required: true }) }

const ListEnvironmentsRequest = Message('ListEnvironmentsRequest', {
  pagination: PaginationRequest,
  filter: Message('ListEnvironmentsRequest.Filter', {
    runnerIds: Ids,
    statusPhases: List(required(EnvironmentPhase), { max: 25 }),
    creatorIds: Ids,
    projectIds: Ids,
    runnerKinds: List(required(RunnerKind), { max: 25 }),
    archivalStatus: {
      ...Enum('ARCHIVAL_STATUS', {
        ARCHIVAL_STATUS_ACTIVE: 1,
        ARCHIVAL_STATUS_ARCHIVED: 2,
        ARCHIVAL_STATUS_ALL: 3
      }),
      description: 'Unset: those that are not archived'
    },
    createdBefore: Timestamp(),
    roles: List(required(EnvironmentRole), { max: 25 }),
    lockdownBefore: Timestamp(),
    search: Search('the id, the name, the repository or the branch'),
    sessionIds: List(Text({ required: true, max: 255 }), { max: 25 })
  }),
  sort: Message('ListEnvironmentsRequest.Sort', {
    field: Enum('SORT_FIELD', { SORT_FIELD_ID: 1, SORT_FIELD_ARCHIVED_AT: 2 }),
    order: SortOrder
  }),
  count: CountRequest
})

const ARCHIVED: Readonly<Record<string, boolean | undefined>> = {
  ARCHIVAL_STATUS_ARCHIVED: true,
  ARCHIVAL_STATUS_ALL: undefined
}

function filterOf({ filter = {} }: Static<typeof ListEnvironmentsRequest>, call: Call) {
  const { archivalStatus = 'ARCHIVAL_STATUS_ACTIVE' } = filter
  return {
    ownUid: call.organization.role === 'admin' ? undefined : call.actor.accountUid,
    runnerUids: some(filter.runnerIds),
    phases: some(filter.statusPhases),
    creatorUids: some(filter.creatorIds),
    projectUids: some(filter.projectIds),
    runnerKinds: some(filter.runnerKinds),
    archived: archivalStatus in ARCHIVED ? ARCHIVED[archivalStatus] : false,
    createdBefore: filter.createdBefore,
    roles: some(filter.roles),
    lockdownBefore: filter.lockdownBefore,
    search: filter.search || undefined,
    sessionIds: some(filter.sessionIds)
  }
}

const NONE = 'There is no such environment that this token may know of.'

/** An environment of the actor's own, or any of the organization for its owners. */
export async function getEnvironment(
  { db }: Pick<OnaDependencies, 'db'>,
  call: Pick<Call, 'actor' | 'acting'>,
  environmentUid: string
): Promise<EnvironmentFacts> {
  const { actor, acting } = call
  const found = await findEnvironment(db, acting, environmentUid)
  if (found && (found.role === 'admin' || found.creator_uid === actor.accountUid)) return found
  throw new NotFound(NONE)
}

/** The same, or the environment that the token is for. */
async function seeEnvironment(
  dependencies: OnaDependencies,
  call: Call,
  environmentUid: string
): Promise<EnvironmentFacts> {
  const { actor, acting } = call
  if (actor.kind !== 'environment') {
    requireAccess(actor, ACCESS['environment:use'])
    return await getEnvironment(dependencies, call, environmentUid)
  }
  const found =
    environmentUid === actor.accountUid
      ? await findEnvironment(dependencies.db, acting, environmentUid)
      : undefined
  if (!found) throw new NotFound(NONE)
  return found
}

export function creatorOf(
  { gitHosts, hostedRefusal }: OnaDependencies,
  { principal, organization, actor }: Call
): Creator {
  return {
    principal,
    organization,
    actorId: actor.accountId,
    gitHosts: gitHosts(),
    hostedRefusal: hostedRefusal()
  }
}

export function environmentService(dependencies: OnaDependencies): Service {
  const { db, pages, authenticator, liveUpdates } = dependencies
  const create = async (
    call: Call,
    input: Static<typeof CreateEnvironmentFromProjectRequest>,
    projectUid: string | undefined
  ) => {
    const project = projectUid === undefined ? undefined : await findProject(db, call.acting, projectUid)
    if (projectUid !== undefined && !project?.project_role) {
      throw new NotFound('There is no such project in the organization of this token.')
    }
    const { id, uid } = await createEnvironment(db, creatorOf(dependencies, call), {
      spec: readSpec(input.spec),
      project,
      name: input.name,
      sessionId: input.sessionId,
      annotations: input.annotations ?? {},
      choice: readChoice(input.spec)
    })
    liveUpdates.lookAgain(id)
    return { environment: presentEnvironment(await getEnvironment(dependencies, call, uid)) }
  }
  const asks = (name: string, summary: string, wish: Parameters<typeof askEnvironment>[3]): Method =>
    method({
      name,
      summary,
      access: 'environment:use',
      request: Message(`${name}Request`, EnvironmentRequest),
      response: Empty,
      async handle({ environmentId }, call) {
        const environment = await getEnvironment(dependencies, call, environmentId!)
        await askEnvironment(db, call.principal, environment, wish)
        if (wish === 'start') liveUpdates.lookAgain(environment.environment_id)
        return {}
      }
    })
  const givesToken = (name: string, summary: string, purpose: 'access' | 'logs'): Method =>
    method({
      name,
      summary,
      access: 'environment:use',
      request: Message(`${name}Request`, EnvironmentRequest),
      response: Message(`${name}Response`, {
        accessToken: Text({ description: 'Shown once; lives for an hour' })
      }),
      async handle({ environmentId }, { principal, ...call }) {
        const environment = await getEnvironment(dependencies, call, environmentId!)
        const { token } = await inTheNameOf(db, principal, async (tx) => {
          await enterEnvironment(tx, principal, environment, 'enter')
          const terms = { purpose, lifetimeSeconds: TOKEN_SECONDS }
          return await storeEnvironmentToken(tx, principal, environment, terms)
        })
        return { accessToken: token }
      }
    })

  return {
    name: 'EnvironmentService',
    description: 'Environments: what is made from projects, and receives their secrets',
    methods: [
      method({
        name: 'CreateEnvironmentFromProject',
        summary: 'Create an environment from a project',
        access: 'environments',
        request: CreateEnvironmentFromProjectRequest,
        response: Message('CreateEnvironmentFromProjectResponse', { environment: Environment }),
        handle: async (input, call) => await create(call, input, input.projectId!)
      }),
      method({
        name: 'CreateEnvironment',
        summary: 'Create an environment that is of no project',
        access: 'environments',
        request: CreateEnvironmentRequest,
        response: Message('CreateEnvironmentResponse', { environment: Environment }),
        handle: async (input, call) => await create(call, input, undefined)
      }),
      method({
        name: 'GetEnvironment',
        summary: 'Get an environment',
        access: 'environment:see',
        reads: true,
        request: Message('GetEnvironmentRequest', EnvironmentRequest),
        response: Message('GetEnvironmentResponse', { environment: Environment }),
        handle: async ({ environmentId }, call) => ({
          environment: presentEnvironment(await seeEnvironment(dependencies, call, environmentId!))
        })
      }),
      method({
        name: 'ListEnvironments',
        summary: "List one's own environments, or for owners those of the organization, newest first",
        access: 'environments',
        reads: true,
        request: ListEnvironmentsRequest,
        response: Message('ListEnvironmentsResponse', {
          pagination: PaginationResponse,
          environments: List(Environment),
          count: CountResponse
        }),
        async handle(input, call) {
          const page = pages.open<EnvironmentKey>(call, input)
          const filter = filterOf(input, call)
          const by = input.sort?.field === 'SORT_FIELD_ARCHIVED_AT' ? 'archived_at' : 'id'
          const order = { by, descending: input.sort?.order !== 'SORT_ORDER_ASC' } as const
          const place = { after: page.after, limit: page.limit }
          const found = await listEnvironments(db, call.acting, filter, order, place)
          const { rows, pagination } = page.close(found, (row) => [row.archived, row.environment_id])
          return compact({
            pagination,
            environments: rows.map(presentEnvironment),
            count: await count(input, page, (atMost) => countEnvironments(db, call.acting, filter, atMost))
          })
        }
      }),
      asks('StartEnvironment', 'Start an environment', 'start'),
      asks('StopEnvironment', 'Stop an environment', 'stop'),
      method({
        name: 'UpdateEnvironment',
        summary: 'Change an environment; what is unset stays',
        access: 'environment:use',
        request: UpdateEnvironmentRequest,
        response: Empty,
        async handle({ environmentId, metadata, spec }, call) {
          const environment = await getEnvironment(dependencies, call, environmentId!)
          await changeEnvironment(db, call.principal, environment, {
            name: metadata?.name,
            spec,
            lockdownAt: readLockdown(metadata?.lockdownAt, environment),
            actorId: call.actor.accountId,
            gitHosts: dependencies.gitHosts()
          })
          liveUpdates.lookAgain(environment.environment_id)
          return {}
        }
      }),
      method({
        name: 'DeleteEnvironment',
        summary: 'Delete an environment, which is stopped first',
        access: 'environment:use',
        request: Message('DeleteEnvironmentRequest', {
          ...EnvironmentRequest,
          force: Bool({ description: 'At once, whatever its runner does' })
        }),
        response: Empty,
        async handle({ environmentId, force }, call) {
          const environment = await getEnvironment(dependencies, call, environmentId!)
          if (!force) await askEnvironment(db, call.principal, environment, 'delete')
          else authenticator.forget(await removeEnvironment(db, call.principal, environment))
          return {}
        }
      }),
      method({
        name: 'MarkEnvironmentActive',
        summary: 'Tell that somebody is at work in an environment',
        access: 'environment:see',
        request: MarkEnvironmentActiveRequest,
        response: Empty,
        async handle({ environmentId, activitySignal }, call) {
          const environment = await seeEnvironment(dependencies, call, environmentId!)
          await markActive(db, call.principal, environment, {
            ...activitySignal,
            timestamp: activitySignal?.timestamp ?? new Date().toISOString()
          })
          return {}
        }
      }),
      givesToken('CreateEnvironmentAccessToken', 'Make a token to enter an environment with', 'access'),
      givesToken('CreateEnvironmentLogsToken', 'Make a token for the logs of an environment', 'logs'),
      asks('ArchiveEnvironment', 'Archive an environment; one that runs is stopped', 'archive'),
      asks('UnarchiveEnvironment', 'Take an environment out of the archive', 'unarchive'),
      listMethod(dependencies)
    ]
  }
}

/** Undefined: it stays; null: there is none any more. */
function readLockdown(
  lockdownAt: string | undefined,
  { role }: Pick<EnvironmentFacts, 'role'>
): string | null | undefined {
  if (lockdownAt === undefined) return undefined
  if (role !== 'admin') throw new Forbidden('metadata.lockdownAt is for owners of the organization.')
  const time = Date.parse(lockdownAt)
  if (time === 0) return null
  if (time < Date.now())
    throw invalid('metadata.lockdownAt', 'must be in the future, or 1970-01-01T00:00:00Z')
  return lockdownAt
}
