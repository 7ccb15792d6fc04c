import type { Static } from '@sinclair/typebox'
import { type EnvironmentClassFacts, listEnvironmentClasses } from '../../store/environment-classes.ts'
import { some } from './filters.ts'
import { type Method, method } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact } from './present.ts'
import { RunnerKind, RunnerProvider } from './runner-messages.ts'
import { Bool, List, Message, required, Text, Uuid } from './schema.ts'

// Classes of environments, which two services list.

export const EnvironmentClassConfiguration = List(
  Message('FieldValue', { key: Text({ required: true, max: 255 }), value: Text({ max: 4096 }) }),
  { max: 100, description: 'What the runner makes of it' }
)

export const EnvironmentClass = Message('EnvironmentClass', {
  id: Uuid(),
  runnerId: Uuid(),
  displayName: Text(),
  description: Text(),
  configuration: EnvironmentClassConfiguration,
  enabled: Bool({ description: 'Whether environments can be made of it' })
})

export function presentEnvironmentClass(row: EnvironmentClassFacts): Static<typeof EnvironmentClass> {
  return compact({
    id: row.environment_class_uid,
    runnerId: row.runner_uid,
    displayName: row.display_name,
    description: row.description,
    configuration: row.configuration.map(compact),
    enabled: row.enabled
  })
}

const ListEnvironmentClassesRequest = Message('ListEnvironmentClassesRequest', {
  pagination: PaginationRequest,
  filter: Message('ListEnvironmentClassesRequest.Filter', {
    runnerIds: List(Uuid({ required: true }), { max: 25 }),
    runnerKinds: List(required(RunnerKind), { max: 25 }),
    runnerProviders: List(required(RunnerProvider), { max: 25 }),
    enabled: Bool({ description: 'Those that are, or those that are not; unset: all' }),
    canCreateEnvironments: Bool({
      description: 'Those that environments can be made of now: enabled, on a runner that is active'
    })
  })
})

function filterOf({ filter = {} }: Static<typeof ListEnvironmentClassesRequest>) {
  const { runnerIds, runnerKinds, runnerProviders, enabled, canCreateEnvironments } = filter
  return {
    runnerUids: some(runnerIds),
    runnerKinds: some(runnerKinds),
    runnerProviders: some(runnerProviders),
    enabled,
    usable: canCreateEnvironments
  }
}

export function listMethod({ db, pages }: OnaDependencies): Method {
  return method({
    name: 'ListEnvironmentClasses',
    summary: 'List the classes of environments of the organization, oldest first',
    access: 'organization:read',
    reads: true,
    request: ListEnvironmentClassesRequest,
    response: Message('ListEnvironmentClassesResponse', {
      pagination: PaginationResponse,
      environmentClasses: List(EnvironmentClass)
    }),
    async handle(input, call) {
      const page = pages.open<readonly [number]>(call, input)
      const place = { after: page.after?.[0] ?? 0, limit: page.limit }
      const { organization_id } = call.organization
      const found = await listEnvironmentClasses(db, organization_id, filterOf(input), place)
      const { rows, pagination } = page.close(found, ({ environment_class_id }) => [environment_class_id])
      return compact({ pagination, environmentClasses: rows.map(presentEnvironmentClass) })
    }
  })
}
