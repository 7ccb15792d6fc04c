import { RefusedToStart } from '../../errors.ts'
import { type ApiClient, type ApiRequest, ask, type Server, segment } from '../api-client.ts'
import { fullName, type RepositoryName } from '../names.ts'
import {
  type AccountSummary,
  type Administration,
  type MemberSummary,
  ORGANIZATION_ROLES,
  type RepositorySummary,
  type TokenSummary,
  type UserSummary
} from './administration.ts'
import { onlineApps } from './apps-online.ts'

const PER_PAGE = 100

const REMEDIES: ApiClient['remedies'] = {
  unreachable: 'Set COFFER_URL to where the server is; --offline works on the database while no server runs.',
  wrongUrl: 'Set COFFER_URL.',
  token: 'Set COFFER_TOKEN, or COFFER_TOKEN_FILE, to a valid token of an administrator.'
}

interface List {
  path: string
  /** ends with & */
  query?: string
  notFound?: string
}

/** Administration by the calls that GitHub's API and GitHub Enterprise Server's have for it. */
export function onlineAdministration(server: Server): Administration {
  const client: ApiClient = { ...server, expected: 'Coffer server', remedies: REMEDIES }
  const call = <T = unknown>(request: ApiRequest) => ask<T>(client, request)

  const listAll = async <T>({ path, query = '', notFound }: List): Promise<T[]> => {
    const all: T[] = []
    for (let page = 1; ; page++) {
      const url = `${path}?${query}per_page=${PER_PAGE}&page=${page}`
      const listed = await call<T[]>({ method: 'GET', path: url, ...(notFound && { notFound }) })
      all.push(...listed)
      if (listed.length < PER_PAGE) return all
    }
  }

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

    async deleteOrganization(login) {
      await call({ method: 'DELETE', path: `/orgs/${segment(login)}`, notFound: noOrganization(login) })
    },

    async listMembers(organization) {
      const members: MemberSummary[] = []
      for (const role of ORGANIZATION_ROLES) {
        const listed = await listAll<AccountSummary>({
          path: `/orgs/${segment(organization)}/members`,
          query: `role=${role}&`,
          notFound: noOrganization(organization)
        })
        members.push(...listed.map(({ id, login }) => ({ id, login, role })))
      }
      return members
    },

    async setMember(organization, login, role) {
      await call({
        method: 'PUT',
        path: membershipPath(organization, login),
        body: { role },
        notFound: `${noUser(login)} Or: ${noOrganization(organization)}`
      })
    },

    async removeMember(organization, login) {
      await call({
        method: 'DELETE',
        path: membershipPath(organization, login),
        notFound: `${login} is no member of ${organization}. Or: ${noOrganization(organization)}`
      })
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
      return (await listAll<RepositorySummary>({ path: '/user/repos' })).map(summarize)
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

function membershipPath(organization: string, login: string): string {
  return `/orgs/${segment(organization)}/memberships/${segment(login)}`
}

function noOrganization(login: string): string {
  return (
    `There is no organization ${login} to which the token's account belongs. Use a token of an owner:\n` +
    '  COFFER_TOKEN=$(npx coffer admin token create OWNER --scopes admin:org) npx coffer admin org …\n' +
    '  --offline works on all, while no server runs.'
  )
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
