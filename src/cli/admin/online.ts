import { RefusedToStart } from '../../errors.ts'
import { type ApiClient, type ApiRequest, ask, segment } from '../api-client.ts'
import {
  type AccountSummary,
  type Administration,
  fullName,
  type RepositoryName,
  type RepositorySummary,
  type TokenSummary,
  type UserSummary
} from './administration.ts'
import { onlineApps } from './apps-online.ts'

const PER_PAGE = 100

/** Administration by the calls that GitHub's API and GitHub Enterprise Server's have for it. */
export function onlineAdministration(client: ApiClient): Administration {
  const call = <T = unknown>(request: ApiRequest) => ask<T>(client, request)
  return {
    apps: onlineApps(client),

    async createUser({ login, email, name, siteAdmin }) {
      const body = { login, email, name, site_admin: siteAdmin }
      const user = await call<UserSummary>({ method: 'POST', path: '/admin/users', body })
      return { id: user.id, login: user.login, site_admin: user.site_admin }
    },

    async deleteUser(login) {
      await call({ method: 'DELETE', path: `/admin/users/${segment(login)}`, notFound: noUser(login) })
    },

    async createOrganization(login, owner) {
      const body = { login, admin: owner }
      const organization = await call<AccountSummary>({ method: 'POST', path: '/admin/organizations', body })
      return { id: organization.id, login: organization.login }
    },

    async createToken(login, { scopes, permissions, repositories, allRepositories, note, expiresInDays }) {
      const issued = await call<Omit<TokenSummary, 'kind'> & { permissions?: Record<string, string> }>({
        method: 'POST',
        path: `/admin/users/${segment(login)}/authorizations`,
        body: {
          scopes,
          permissions,
          repositories: repositories?.map(fullName),
          all_repositories: allRepositories,
          note,
          expires: expiresInDays
        },
        notFound: noUser(login)
      })
      return {
        id: issued.id,
        token: issued.token,
        kind: permissions ? 'fine-grained' : 'classic',
        scopes: issued.scopes,
        permissions: issued.permissions ?? {},
        note: issued.note,
        token_last_eight: issued.token_last_eight,
        expires_at: issued.expires_at
      }
    },

    async revokeTokens(login) {
      const path = `/admin/users/${segment(login)}/authorizations`
      await call({ method: 'DELETE', path, notFound: noUser(login) })
    },

    async createRepository(repository, isPrivate) {
      const path = await collectionOf(client, repository)
      const body = { name: repository.name, private: isPrivate }
      return summarize(await call<RepositorySummary>({ method: 'POST', path, body }))
    },

    async deleteRepository(repository) {
      await call({ method: 'DELETE', path: pathOf(repository), notFound: noRepository(repository) })
    },

    async listRepositories() {
      const repositories: RepositorySummary[] = []
      for (let page = 1; ; page++) {
        const path = `/user/repos?per_page=${PER_PAGE}&page=${page}`
        const listed = await call<RepositorySummary[]>({ method: 'GET', path })
        repositories.push(...listed.map(summarize))
        if (listed.length < PER_PAGE) return repositories
      }
    },

    async setCollaborator(repository, login, role) {
      await call({
        method: 'PUT',
        path: `${pathOf(repository)}/collaborators/${segment(login)}`,
        body: { permission: role },
        notFound: `${noUser(login)} Or: ${noRepository(repository)}`
      })
    },

    async removeCollaborator(repository, login) {
      await call({
        method: 'DELETE',
        path: `${pathOf(repository)}/collaborators/${segment(login)}`,
        notFound: `${noUser(login)} Or: ${noRepository(repository)}`
      })
    }
  }
}

/** Where a repository of this owner is made: the API makes them for the token's account and organizations only. */
async function collectionOf(client: ApiClient, { owner }: RepositoryName): Promise<string> {
  const { login } = await ask<AccountSummary>(client, { method: 'GET', path: '/user' })
  if (login.toLowerCase() === owner.toLowerCase()) return '/user/repos'
  const account = await ask<AccountSummary & { type: string }>(client, {
    method: 'GET',
    path: `/users/${segment(owner)}`,
    notFound: `There is no user or organization ${owner}.`
  })
  if (account.type === 'Organization') return `/orgs/${segment(owner)}/repos`
  throw new RefusedToStart(
    `The token belongs to ${login}, and the API makes repositories for the token's own account and for ` +
      `organizations only. Use a token of ${owner}:\n` +
      `  COFFER_TOKEN=$(npx coffer admin token create ${owner} --scopes repo) npx coffer admin repo create …\n` +
      'or add --offline while no server runs.'
  )
}

function pathOf({ owner, name }: RepositoryName): string {
  return `/repos/${segment(owner)}/${segment(name)}`
}

function summarize({ id, full_name, private: flag }: RepositorySummary): RepositorySummary {
  return { id, full_name, private: flag }
}

function noUser(login: string): string {
  return `There is no user ${login}.`
}

function noRepository(repository: RepositoryName): string {
  return (
    `There is no repository ${fullName(repository)} that the token's account can see; --offline sees all, while ` +
    'no server runs.'
  )
}
