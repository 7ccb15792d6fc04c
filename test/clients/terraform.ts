import { sealFor } from '../helper.ts'
import { ErrorResponse, type GoGitHub, goTime } from './go-github.ts'

// Resources of integrations/github as sequences of requests: what the provider does to create, refresh, update, import
// and destroy them, and how it sees that something was changed behind its back.

interface Secret {
  name: string
  created_at: string
  updated_at: string
  visibility?: string
}

interface Repositories {
  total_count: number
  repositories: { id: number }[]
}

/** What the configuration says. */
export interface Config {
  secretName: string
  value: string
  visibility?: 'all' | 'private' | 'selected'
  /** undefined: the attribute is not there */
  repositoryIds?: number[]
}

/** What Terraform keeps of a resource. */
export interface State {
  id: string
  createdAt: string
  updatedAt: string
  /** only in resources that are updated in place */
  remoteUpdatedAt?: string
  visibility?: string
  repositoryIds?: number[]
}

/** Where the secrets are, and which of the provider's resources it is. */
export interface Resource {
  /** `repos/acme/web/codespaces/secrets` */
  path: string
  kind: 'repository' | 'user' | 'organization'
  /**
   * `recreate`, as those of Codespaces: a secret that was changed outside is dropped from the state and made again.
   * `update`, as those of Actions and Dependabot: both times are kept, and it is updated in place.
   */
  onDrift: 'recreate' | 'update'
}

/** GET, where 404 means that it is gone. */
async function find<T>(client: GoGitHub, path: string): Promise<T | undefined> {
  try {
    return (await client.do<T>('GET', path)).value
  } catch (error) {
    if (error instanceof ErrorResponse && error.status === 404) return undefined
    throw error
  }
}

async function listRepositories(client: GoGitHub, path: string, perPage: number): Promise<number[]> {
  const all = await client.all<Repositories>(`${path}/repositories`, perPage, ({ repositories }) =>
    repositories.map(({ id }) => id)
  )
  return all as number[]
}

async function put(client: GoGitHub, { path }: Resource, config: Config): Promise<void> {
  const { value } = await client.do<{ key_id: string; key: string }>('GET', `${path}/public-key`)
  // EncryptedSecret, whose empty members Go leaves out
  await client.do('PUT', `${path}/${config.secretName}`, {
    key_id: value.key_id,
    encrypted_value: sealFor(value.key, config.value),
    ...(config.visibility && { visibility: config.visibility }),
    ...(config.repositoryIds?.length && { selected_repository_ids: config.repositoryIds })
  })
}

export async function create(client: GoGitHub, resource: Resource, config: Config): Promise<State> {
  await put(client, resource, config)
  const state = await read(client, resource, {
    id: config.secretName,
    createdAt: '',
    updatedAt: '',
    ...(config.repositoryIds && { repositoryIds: config.repositoryIds })
  })
  if (!state) throw new Error('Provider produced inconsistent result after apply: Root object was present')
  return state
}

/** The refreshed state; undefined: it is gone, or changed, and Terraform will plan to create it. */
export async function read(client: GoGitHub, resource: Resource, state: State): Promise<State | undefined> {
  const path = `${resource.path}/${state.id}`
  const secret = await find<Secret>(client, path)
  if (!secret) return undefined
  const updatedAt = goTime(secret.updated_at)
  const next: State = {
    ...state,
    createdAt: goTime(secret.created_at),
    updatedAt: state.updatedAt || updatedAt
  }
  if (secret.visibility && resource.kind === 'organization') next.visibility = secret.visibility
  if (resource.onDrift === 'update') {
    if (next.visibility === 'selected' && state.repositoryIds?.length) {
      next.repositoryIds = await listRepositories(client, path, 100)
    }
    return { ...next, remoteUpdatedAt: updatedAt }
  }
  if (resource.kind === 'user' || next.visibility === 'selected') {
    next.repositoryIds = await listRepositories(client, path, 30)
  }
  return next.updatedAt === updatedAt ? next : undefined
}

/** What `terraform plan` says after a refresh. */
export function isDrifted(state: State): boolean {
  return state.remoteUpdatedAt !== undefined && state.remoteUpdatedAt !== state.updatedAt
}

/** In place: the value again, with everything else that is configured. */
export async function update(
  client: GoGitHub,
  resource: Resource,
  config: Config,
  state: State
): Promise<State> {
  await put(client, resource, config)
  const { updatedAt: _, ...rest } = state
  const next = await read(client, resource, { ...rest, updatedAt: '' })
  if (!next) throw new Error('it was there a moment ago')
  return next
}

export async function destroy(client: GoGitHub, { path }: Resource, state: State): Promise<void> {
  await client.do('DELETE', `${path}/${state.id}`)
}

/** `terraform import ADDRESS NAME`: it is read, and its value stays unknown. */
export async function importSecret(client: GoGitHub, resource: Resource, name: string): Promise<State> {
  const { value } = await client.do<Secret>('GET', `${resource.path}/${name}`)
  const state = { id: name, createdAt: goTime(value.created_at), updatedAt: goTime(value.updated_at) }
  const refreshed = await read(client, resource, state)
  if (!refreshed) throw new Error('changed between two reads')
  return refreshed
}

/** `github_…_organization_secret_repositories`: the selection as a resource of its own. */
export const secretRepositories = {
  async apply(client: GoGitHub, path: string, repositoryIds: number[]): Promise<number[]> {
    await client.do('PUT', `${path}/repositories`, { selected_repository_ids: repositoryIds })
    return await listRepositories(client, path, 100)
  },
  read: (client: GoGitHub, path: string) => listRepositories(client, path, 100),
  destroy: (client: GoGitHub, path: string) =>
    client.do('PUT', `${path}/repositories`, { selected_repository_ids: [] })
}

/** Data sources: `…_public_key` and `…_secrets`. */
export const data = {
  publicKey: async (client: GoGitHub, path: string) =>
    (await client.do<{ key_id: string; key: string }>('GET', `${path}/public-key`)).value,
  secrets: async (client: GoGitHub, path: string, perPage = 100) =>
    (await client.all<{ secrets: Secret[] }>(path, perPage, ({ secrets }) => secrets)) as Secret[]
}
