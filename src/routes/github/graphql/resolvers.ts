import { hasRole } from '../../../auth/access.ts'
import type { Actor } from '../../../auth/actor.ts'
import { Unauthenticated } from '../../../errors.ts'
import type { Account } from '../../../store/accounts.ts'
import type { RepositoryFacts } from '../../../store/repositories.ts'
import { nodeId } from '../account-presenter.ts'
import { toSecond } from '../secret-presenter.ts'
import { fieldError } from './errors.ts'
import type { Lookups } from './lookups.ts'
import { type ConnectionArguments, connectRepositories } from './repositories.ts'

/** What resolvers know of the request. */
export interface QueryContext {
  actor: Actor
  lookups: Lookups
  /** where pages for people would be, without a slash at the end */
  pages: string
}

/** An account, or as much of it as a repository tells of its owner. */
type Owner = Pick<Account, 'id' | 'login' | 'kind'> | Account

const NAMES = /^[A-Za-z0-9._-]{1,100}$/

/** Clients read the names out of this text; what cannot be one is not repeated. */
function noRepository(owner: string, name: string): Error {
  const told = NAMES.test(owner) && NAMES.test(name) ? `the name '${owner}/${name}'` : 'that name'
  return fieldError('NOT_FOUND', `Could not resolve to a Repository with ${told}.`)
}

function noAccount(kind: string, login: string): Error {
  const told = NAMES.test(login) ? `the login of '${login}'` : 'that login'
  return fieldError('NOT_FOUND', `Could not resolve to ${kind} with ${told}.`)
}

/** What cannot be a name is not looked for; PostgreSQL's text, for one, holds no NUL. */
function canExist(...names: readonly string[]): boolean {
  return names.every((name) => NAMES.test(name))
}

async function findAccountNamed(
  { lookups }: QueryContext,
  login: string,
  kind?: Account['kind']
): Promise<Account | undefined> {
  const account = canExist(login) ? await lookups.account(login) : undefined
  return kind === undefined || account?.kind === kind ? account : undefined
}

async function getAccount(owner: Owner, { lookups }: QueryContext): Promise<Account> {
  if ('created_at' in owner) return owner
  const account = await lookups.account(owner.login)
  // removed between two statements of the query
  if (account?.id !== owner.id) throw noAccount('an account', owner.login)
  return account
}

const Query = {
  viewer: async (_root: unknown, _args: unknown, { actor, lookups }: QueryContext) => {
    const account = await lookups.account(actor.login)
    // deleted while the token was still taken for valid
    if (account?.id !== actor.accountId) throw new Unauthenticated(true)
    return account
  },
  repository: async (
    _root: unknown,
    { owner, name, followRenames }: { owner: string; name: string; followRenames?: boolean | null },
    { lookups }: QueryContext
  ) => {
    const found = canExist(owner, name)
      ? await lookups.repository({ owner, repo: name }, followRenames ?? true)
      : undefined
    if (!found) throw noRepository(owner, name)
    return found
  },
  user: async (_root: unknown, { login }: { login: string }, context: QueryContext) => {
    const account = await findAccountNamed(context, login, 'user')
    if (!account) throw noAccount('a User', login)
    return account
  },
  organization: async (_root: unknown, { login }: { login: string }, context: QueryContext) => {
    const account = await findAccountNamed(context, login, 'organization')
    if (!account) throw noAccount('an Organization', login)
    return account
  },
  repositoryOwner: (_root: unknown, { login }: { login: string }, context: QueryContext) =>
    findAccountNamed(context, login)
}

const RepositoryOwner = {
  __resolveType: ({ kind }: Owner) => (kind === 'user' ? 'User' : 'Organization'),
  avatarUrl: ({ id }: Owner, _args: unknown, { pages }: QueryContext) => `${pages}/avatars/u/${id}`,
  id: ({ kind, id }: Owner) => nodeId(kind === 'user' ? 'User' : 'Organization', id),
  repositories: ({ id }: Owner, args: ConnectionArguments, { lookups }: QueryContext) =>
    connectRepositories(lookups, id, args),
  resourcePath: ({ login }: Owner) => `/${login}`,
  url: ({ login }: Owner, _args: unknown, { pages }: QueryContext) => `${pages}/${login}`
}

/** What users and organizations have besides. */
const ACCOUNT = {
  createdAt: async (owner: Owner, _args: unknown, context: QueryContext) =>
    toSecond((await getAccount(owner, context)).created_at),
  databaseId: ({ id }: Owner) => id,
  name: async (owner: Owner, _args: unknown, context: QueryContext) =>
    (await getAccount(owner, context)).name,
  updatedAt: async (owner: Owner, _args: unknown, context: QueryContext) =>
    toSecond((await getAccount(owner, context)).updated_at)
}

const User = {
  ...ACCOUNT,
  email: async (owner: Owner, _args: unknown, context: QueryContext) =>
    owner.id === context.actor.accountId ? ((await getAccount(owner, context)).email ?? '') : '',
  isSiteAdmin: async (owner: Owner, _args: unknown, context: QueryContext) =>
    (await getAccount(owner, context)).site_admin,
  isViewer: ({ id }: Owner, _args: unknown, { actor }: QueryContext) => id === actor.accountId
}

const Organization = { ...ACCOUNT, description: () => null }

const no = () => false
const none = () => 0

const Repository = {
  createdAt: (facts: RepositoryFacts) => toSecond(facts.repository_created_at),
  databaseId: (facts: RepositoryFacts) => facts.repository_id,
  defaultBranchRef: (facts: RepositoryFacts) => ({ name: facts.default_branch, prefix: 'refs/heads/' }),
  forkCount: none,
  hasDiscussionsEnabled: no,
  hasIssuesEnabled: no,
  hasProjectsEnabled: no,
  hasWikiEnabled: no,
  id: (facts: RepositoryFacts) => nodeId('Repository', facts.repository_id),
  isArchived: no,
  isDisabled: no,
  isFork: no,
  isInOrganization: (facts: RepositoryFacts) => facts.owner_kind === 'organization',
  isMirror: no,
  isPrivate: (facts: RepositoryFacts) => facts.private,
  isTemplate: no,
  mergeCommitAllowed: no,
  nameWithOwner: (facts: RepositoryFacts) => `${facts.owner_login}/${facts.name}`,
  owner: (facts: RepositoryFacts): Owner => ({
    id: facts.owner_id,
    login: facts.owner_login,
    kind: facts.owner_kind
  }),
  pushedAt: (facts: RepositoryFacts) => toSecond(facts.repository_updated_at),
  rebaseMergeAllowed: no,
  resourcePath: (facts: RepositoryFacts) => `/${facts.owner_login}/${facts.name}`,
  squashMergeAllowed: no,
  sshUrl: (facts: RepositoryFacts, _args: unknown, { pages }: QueryContext) =>
    `git@${new URL(pages).host}:${facts.owner_login}/${facts.name}.git`,
  stargazerCount: none,
  updatedAt: (facts: RepositoryFacts) => toSecond(facts.repository_updated_at),
  url: (facts: RepositoryFacts, _args: unknown, { pages }: QueryContext) =>
    `${pages}/${facts.owner_login}/${facts.name}`,
  viewerCanAdminister: (facts: RepositoryFacts) => hasRole(facts, 'admin'),
  viewerPermission: (facts: RepositoryFacts) =>
    (facts.role ?? (facts.private ? null : 'read'))?.toUpperCase(),
  visibility: (facts: RepositoryFacts) => (facts.private ? 'PRIVATE' : 'PUBLIC')
}

/** Fields without one are members of the same name; those that are not there are null. */
export const RESOLVERS = { Query, RepositoryOwner, User, Organization, Repository }
