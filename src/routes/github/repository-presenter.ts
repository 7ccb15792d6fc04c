import { type TSchema, Type } from '@sinclair/typebox'
import { hasRole } from '../../auth/access.ts'
import type { RepositoryFacts } from '../../store/repositories.ts'
import { nodeId, presentSimpleUser, SimpleUser } from './account-presenter.ts'
import type { ApiVersion } from './headers.ts'
import { DateTime, Nullable } from './schemas.ts'
import { toSecond } from './secret-presenter.ts'

/** Member of the JSON → what follows the repository's own URL, as a URI template. */
const URLS = {
  archive_url: '/{archive_format}{/ref}',
  assignees_url: '/assignees{/user}',
  blobs_url: '/git/blobs{/sha}',
  branches_url: '/branches{/branch}',
  collaborators_url: '/collaborators{/collaborator}',
  comments_url: '/comments{/number}',
  commits_url: '/commits{/sha}',
  compare_url: '/compare/{base}...{head}',
  contents_url: '/contents/{+path}',
  contributors_url: '/contributors',
  deployments_url: '/deployments',
  downloads_url: '/downloads',
  events_url: '/events',
  forks_url: '/forks',
  git_commits_url: '/git/commits{/sha}',
  git_refs_url: '/git/refs{/sha}',
  git_tags_url: '/git/tags{/sha}',
  hooks_url: '/hooks',
  issue_comment_url: '/issues/comments{/number}',
  issue_events_url: '/issues/events{/number}',
  issues_url: '/issues{/number}',
  keys_url: '/keys{/key_id}',
  labels_url: '/labels{/name}',
  languages_url: '/languages',
  merges_url: '/merges',
  milestones_url: '/milestones{/number}',
  notifications_url: '/notifications{?since,all,participating}',
  pulls_url: '/pulls{/number}',
  releases_url: '/releases{/id}',
  stargazers_url: '/stargazers',
  statuses_url: '/statuses/{sha}',
  subscribers_url: '/subscribers',
  subscription_url: '/subscription',
  tags_url: '/tags',
  teams_url: '/teams',
  trees_url: '/git/trees{/sha}'
} as const

const COUNTS = [
  'forks',
  'forks_count',
  'network_count',
  'open_issues',
  'open_issues_count',
  'size',
  'stargazers_count',
  'subscribers_count',
  'watchers',
  'watchers_count'
] as const

const FEATURES = ['has_issues', 'has_projects', 'has_wiki', 'has_pages', 'has_discussions'] as const

const Permissions = Type.Object({
  admin: Type.Boolean(),
  maintain: Type.Boolean(),
  push: Type.Boolean(),
  triage: Type.Boolean(),
  pull: Type.Boolean()
})

function each<T extends TSchema>(names: readonly string[], schema: T): Record<string, T> {
  return Object.fromEntries(names.map((name) => [name, schema]))
}

/** GitHub's minimal-repository, with what its full form requires besides. */
export const MinimalRepository = Type.Object({
  id: Type.Integer(),
  node_id: Type.String(),
  name: Type.String(),
  full_name: Type.String(),
  owner: SimpleUser,
  private: Type.Boolean(),
  html_url: Type.String(),
  description: Nullable(Type.String()),
  fork: Type.Boolean(),
  url: Type.String(),
  ...each(Object.keys(URLS), Type.String()),
  git_url: Type.String(),
  ssh_url: Type.String(),
  clone_url: Type.String(),
  svn_url: Type.String(),
  mirror_url: Nullable(Type.String()),
  homepage: Nullable(Type.String()),
  language: Nullable(Type.String()),
  license: Type.Null(),
  topics: Type.Array(Type.String()),
  ...each(COUNTS, Type.Integer()),
  ...each(FEATURES, Type.Boolean()),
  has_downloads: Type.Optional(Type.Boolean()),
  is_template: Type.Boolean(),
  archived: Type.Boolean(),
  disabled: Type.Boolean(),
  visibility: Type.String(),
  default_branch: Type.String(),
  role_name: Type.Optional(Type.String()),
  permissions: Permissions,
  created_at: DateTime,
  updated_at: DateTime,
  pushed_at: DateTime
})

/** @param base the server's URL with the prefix by which the request came */
export function presentRepository(base: string, facts: RepositoryFacts, version: ApiVersion) {
  const pages = base.replace(/\/api\/v3$/, '')
  const fullName = `${facts.owner_login}/${facts.name}`
  const url = `${base}/repos/${fullName}`
  const { host } = new URL(pages)
  const role = facts.role ?? (facts.private ? null : 'read')
  return {
    id: facts.repository_id,
    node_id: nodeId('Repository', facts.repository_id),
    name: facts.name,
    full_name: fullName,
    owner: presentSimpleUser(base, {
      id: facts.owner_id,
      login: facts.owner_login,
      kind: facts.owner_kind,
      site_admin: false
    }),
    private: facts.private,
    html_url: `${pages}/${fullName}`,
    description: facts.description,
    fork: false,
    url,
    ...Object.fromEntries(Object.entries(URLS).map(([name, suffix]) => [name, url + suffix])),
    git_url: `git://${host}/${fullName}.git`,
    ssh_url: `git@${host}:${fullName}.git`,
    clone_url: `${pages}/${fullName}.git`,
    svn_url: `${pages}/${fullName}`,
    mirror_url: null,
    homepage: null,
    language: null,
    license: null,
    topics: [],
    ...Object.fromEntries(COUNTS.map((name) => [name, 0])),
    ...Object.fromEntries(FEATURES.map((name) => [name, false])),
    ...(version === '2022-11-28' && { has_downloads: false }),
    is_template: false,
    archived: false,
    disabled: false,
    visibility: facts.private ? 'private' : 'public',
    default_branch: facts.default_branch,
    ...(role && { role_name: role }),
    permissions: {
      admin: hasRole(facts, 'admin'),
      maintain: hasRole(facts, 'maintain'),
      push: hasRole(facts, 'write'),
      triage: hasRole(facts, 'triage'),
      pull: hasRole(facts, 'read')
    },
    created_at: toSecond(facts.repository_created_at),
    updated_at: toSecond(facts.repository_updated_at),
    pushed_at: toSecond(facts.repository_updated_at)
  }
}
