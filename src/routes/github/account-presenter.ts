import { type Static, Type } from '@sinclair/typebox'
import type { Account } from '../../store/accounts.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import { DateTime, Nullable, Uri } from './schemas.ts'
import { toSecond } from './secret-presenter.ts'

/** GitHub's node ids: opaque to clients, made as GitHub first made them. */
export function nodeId(type: string, id: number): string {
  return Buffer.from(`0${type.length}:${type}${id}`).toString('base64')
}

const URLS = [
  'followers_url',
  'following_url',
  'gists_url',
  'starred_url',
  'subscriptions_url',
  'organizations_url',
  'repos_url',
  'events_url',
  'received_events_url'
] as const

const SUFFIX: Record<(typeof URLS)[number], string> = {
  followers_url: '/followers',
  following_url: '/following{/other_user}',
  gists_url: '/gists{/gist_id}',
  starred_url: '/starred{/owner}{/repo}',
  subscriptions_url: '/subscriptions',
  organizations_url: '/orgs',
  repos_url: '/repos',
  events_url: '/events{/privacy}',
  received_events_url: '/received_events'
}

export const SimpleUser = Type.Object({
  login: Type.String(),
  id: Type.Integer(),
  node_id: Type.String(),
  avatar_url: Uri,
  gravatar_id: Nullable(Type.String()),
  url: Uri,
  html_url: Uri,
  ...Object.fromEntries(URLS.map((name) => [name, Type.String()])),
  type: Type.String(),
  site_admin: Type.Boolean()
})
export type SimpleUser = Static<typeof SimpleUser> & Record<string, unknown>

/** Where pages for people would be: the server itself, without the prefix of the API. */
function pagesOf(base: string): string {
  return base.replace(/\/api\/v3$/, '')
}

export function presentSimpleUser(
  base: string,
  account: Pick<Account, 'id' | 'login' | 'kind' | 'site_admin'>
): SimpleUser {
  const url = `${base}/users/${account.login}`
  return {
    login: account.login,
    id: account.id,
    node_id: nodeId(account.kind === 'user' ? 'User' : 'Organization', account.id),
    avatar_url: `${pagesOf(base)}/avatars/u/${account.id}`,
    gravatar_id: '',
    url,
    html_url: `${pagesOf(base)}/${account.login}`,
    ...Object.fromEntries(URLS.map((name) => [name, url + SUFFIX[name]])),
    type: account.kind === 'user' ? 'User' : 'Organization',
    site_admin: account.site_admin
  }
}

export const PublicUser = Type.Object({
  ...SimpleUser.properties,
  name: Nullable(Type.String()),
  company: Nullable(Type.String()),
  blog: Nullable(Type.String()),
  location: Nullable(Type.String()),
  email: Nullable(Type.String()),
  hireable: Nullable(Type.Boolean()),
  bio: Nullable(Type.String()),
  public_repos: Type.Integer(),
  public_gists: Type.Integer(),
  followers: Type.Integer(),
  following: Type.Integer(),
  created_at: DateTime,
  updated_at: DateTime
})

export function presentPublicUser(base: string, account: Account) {
  return {
    ...presentSimpleUser(base, account),
    name: account.name,
    company: null,
    blog: null,
    location: null,
    email: account.email,
    hireable: null,
    bio: null,
    public_repos: 0,
    public_gists: 0,
    followers: 0,
    following: 0,
    created_at: toSecond(account.created_at),
    updated_at: toSecond(account.updated_at)
  }
}

export const OrganizationSimple = Type.Object({
  login: Type.String(),
  id: Type.Integer(),
  node_id: Type.String(),
  url: Uri,
  repos_url: Uri,
  events_url: Uri,
  hooks_url: Type.String(),
  issues_url: Type.String(),
  members_url: Type.String(),
  public_members_url: Type.String(),
  avatar_url: Type.String(),
  description: Nullable(Type.String())
})

export function presentOrganization(base: string, account: Pick<Account, 'id' | 'login'>) {
  const url = `${base}/orgs/${account.login}`
  return {
    login: account.login,
    id: account.id,
    node_id: nodeId('Organization', account.id),
    url,
    repos_url: `${url}/repos`,
    events_url: `${url}/events`,
    hooks_url: `${url}/hooks`,
    issues_url: `${url}/issues`,
    members_url: `${url}/members{/member}`,
    public_members_url: `${url}/public_members{/member}`,
    avatar_url: `${pagesOf(base)}/avatars/u/${account.id}`,
    description: null
  }
}

export const OrganizationFull = Type.Object({
  ...OrganizationSimple.properties,
  name: Type.Optional(Type.String()),
  html_url: Uri,
  type: Type.String(),
  has_organization_projects: Type.Boolean(),
  has_repository_projects: Type.Boolean(),
  public_repos: Type.Integer(),
  public_gists: Type.Integer(),
  followers: Type.Integer(),
  following: Type.Integer(),
  archived_at: Nullable(DateTime),
  created_at: DateTime,
  updated_at: DateTime
})

export function presentFullOrganization(base: string, facts: OrganizationFacts) {
  const { organization_id, login, organization_name } = facts
  return {
    ...presentOrganization(base, { id: organization_id, login }),
    ...(organization_name !== null && { name: organization_name }),
    html_url: `${pagesOf(base)}/${login}`,
    type: 'Organization',
    has_organization_projects: false,
    has_repository_projects: false,
    public_repos: 0,
    public_gists: 0,
    followers: 0,
    following: 0,
    archived_at: null,
    created_at: toSecond(facts.organization_created_at),
    updated_at: toSecond(facts.organization_updated_at)
  }
}
