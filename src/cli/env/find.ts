import { RefusedToStart } from '../../errors.ts'
import type { ApiClient } from '../api-client.ts'
import { shortOf } from '../api-errors.ts'
import { call, listAll } from './client.ts'
import { phaseOf } from './describe.ts'
import { getEnvironment } from './follow.ts'
import type { Environment, ExplainedSecret, Project } from './messages.ts'

// What somebody means by a name or an id.

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export function isId(text: string): boolean {
  return UUID.test(text)
}

export async function findEnvironment(client: ApiClient, nameOrId: string): Promise<Environment> {
  if (isId(nameOrId)) return await getEnvironment(client, nameOrId)
  const filter = { search: nameOrId, archivalStatus: 'ARCHIVAL_STATUS_ALL' }
  const method = 'gitpod.v1.EnvironmentService/ListEnvironments'
  const found = await listAll<Environment>(client, method, { filter }, 'environments')
  const named = found.filter(({ metadata }) => metadata?.name === nameOrId)
  // One that goes makes room for its name.
  const staying = named.filter(({ spec }) => spec?.desiredPhase !== 'ENVIRONMENT_PHASE_DELETED')
  return requireOne(staying.length > 0 ? staying : named, {
    kind: 'environment',
    name: nameOrId,
    describe: (environment) => {
      const { createdAt, archivedAt } = environment.metadata ?? {}
      return [phaseOf(environment), archivedAt && 'archived', createdAt && `made ${createdAt}`]
    }
  })
}

export async function findProject(client: ApiClient, nameOrId: string): Promise<Project> {
  if (isId(nameOrId)) {
    const method = 'gitpod.v1.ProjectService/GetProject'
    const { project } = await call<{ project: Project }>(client, method, { projectId: nameOrId })
    return project ?? {}
  }
  const method = 'gitpod.v1.ProjectService/ListProjects'
  const found = await listAll<Project>(client, method, { filter: { search: nameOrId } }, 'projects')
  return requireOne(
    found.filter(({ metadata }) => metadata?.name === nameOrId),
    { kind: 'project', name: nameOrId, describe: ({ initializer }) => [remoteOf(initializer)] }
  )
}

/** One of those that an environment of the project would receive. */
export async function findSecretId(client: ApiClient, project: Project, nameOrId: string): Promise<string> {
  if (isId(nameOrId)) return nameOrId
  const explained = await explainSecrets(client, { projectId: project.id! })
  const found = requireOne(
    explained.filter(({ name, result }) => name === nameOrId && result === 'wins'),
    {
      kind: 'secret',
      name: nameOrId,
      where: `that an environment of ${shortOf(project.metadata?.name ?? '')} would receive`,
      describe: ({ mount, target, origin }) => [mount, target, origin && `from the ${origin}`]
    }
  )
  return found.id!
}

export async function explainSecrets(
  client: ApiClient,
  of: { environmentId: string } | { projectId: string }
): Promise<ExplainedSecret[]> {
  const method = 'coffer.v1.ResolutionService/ExplainSecrets'
  return (await call<{ secrets: ExplainedSecret[] }>(client, method, of)).secrets ?? []
}

/** Names of projects by their ids, as far as this token may know them. */
export async function listProjectNames(client: ApiClient): Promise<Map<string | undefined, string>> {
  const method = 'gitpod.v1.ProjectService/ListProjects'
  const projects = await listAll<Project>(client, method, {}, 'projects')
  return new Map(projects.map(({ id, metadata }) => [id, shortOf(metadata?.name ?? '')]))
}

interface Meant<T> {
  kind: string
  name: string
  where?: string
  /** what tells candidates apart, beside their ids */
  describe: (candidate: T) => (string | undefined | false)[]
}

function requireOne<T extends { id?: string }>(
  found: readonly T[],
  { kind, name, where, describe }: Meant<T>
): T {
  const [one] = found
  if (one && found.length === 1) return one
  const sought = [`${kind} called ${shortOf(name)}`, where ?? 'that this token may know of'].join(' ')
  if (!one) throw new RefusedToStart(`There is no ${sought}.`)
  const candidates = found.map((candidate) =>
    [`  ${candidate.id}`, ...describe(candidate)].filter((part) => part).join('  ')
  )
  throw new RefusedToStart(`There are ${found.length} of this name. Give the id:\n${candidates.join('\n')}`)
}

function remoteOf(initializer: Project['initializer']): string | undefined {
  const [spec] = initializer?.specs ?? []
  const remote = spec?.git?.remoteUri || spec?.contextUrl?.url
  return remote && shortOf(remote)
}
