import {
  APP_NAMES,
  APPS,
  type App,
  type AppRules,
  collectionRules,
  type GitHubCollectionKind
} from '../apps.ts'
import { Forbidden, NotFound } from '../errors.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import type { RepositoryFacts } from '../store/repositories.ts'
import type { OrganizationRole, ProjectRole, RepositoryRole } from '../store/tables.ts'
import { type Actor, reaches, reachesPrivate } from './actor.ts'
import { includesLevel, type Level, type Permission, type Scope } from './scopes.ts'
import { type Bearer, TOKEN_KINDS } from './token-kinds.ts'

/** What an operation asks for: one of the scopes of a classic token, or the permission of any other. */
export interface AccessRule {
  /**
   * What is decided about: nothing but the token, the site, one repository, one organization, or one project.
   * `integration` is for GitHub Apps themselves, which have no token but sign a JWT.
   */
  on: 'nobody' | 'token' | 'site' | 'repository' | 'organization' | 'project' | 'integration'
  /** whose token it must be; none: anybody's */
  by?: Bearer
  /** any of these will do, what implies them too; none: no scope is needed */
  scopes: readonly Scope[]
  /** instead of `scopes`, on a public repository */
  publicScopes?: readonly Scope[]
  /** all of these, instead of any of `scopes`; a token without scopes does not do */
  everyScope?: readonly Scope[]
  permission?: { name: Permission; level: Level }
  /** the least role on the repository */
  role?: RepositoryRole
  /** the least role in the organization; none: whoever asks */
  organizationRole?: OrganizationRole
  /** the least role on the project */
  projectRole?: ProjectRole
}

type SecretAccess = 'read' | 'public-key' | 'write'

/** The rules for secrets, by kind of owner; scopes are GitHub's, roles as `docs/compatibility.md` lists them. */
const SECRETS: Record<GitHubCollectionKind, (access: SecretAccess) => Omit<AccessRule, 'permission'>> = {
  repository: inRepository,
  'deployment-environment': inRepository,
  organization: () => ({ on: 'organization', scopes: ['admin:org'], organizationRole: 'admin' }),
  user: () => ({ on: 'token', by: 'user', scopes: ['codespace', 'codespace:secrets'] })
}

function inRepository(access: SecretAccess): Omit<AccessRule, 'permission'> {
  return access === 'public-key'
    ? { on: 'repository', scopes: ['repo'], publicScopes: [], role: 'read' }
    : { on: 'repository', scopes: ['repo'], role: 'write' }
}

function secretRule(app: App, kind: GitHubCollectionKind, access: SecretAccess): AccessRule {
  const { permission, readLevel } = collectionRules(app, kind)
  return {
    ...SECRETS[kind](access),
    permission: { name: permission, level: access === 'write' ? 'write' : readLevel }
  }
}

export type SecretAccessName = `${App}/${GitHubCollectionKind}:${SecretAccess}`

const SECRET_ACCESS = Object.fromEntries(
  APP_NAMES.flatMap((app) =>
    (Object.keys((APPS[app] as AppRules).collections) as GitHubCollectionKind[]).flatMap((kind) =>
      (['read', 'public-key', 'write'] as const).map((access) => [
        `${app}/${kind}:${access}`,
        secretRule(app, kind, access)
      ])
    )
  )
) as Record<SecretAccessName, AccessRule>

/** What a personal access token of Ona's API has; the site is not administered with it. */
export const FULL_SCOPES: readonly Scope[] = ['repo', 'codespace', 'admin:org', 'read:audit_log']

const READS_ORGANIZATION = {
  scopes: ['read:org'],
  permission: { name: 'organization_administration', level: 'read' }
} as const
const WRITES_ORGANIZATION = {
  scopes: ['admin:org'],
  permission: { name: 'organization_administration', level: 'write' }
} as const

/** What methods of Ona's API ask for: most are about the organization that the token acts in. */
const ONA_ACCESS = {
  /** what depends on whose the secret is, which the method asks for itself */
  secret: { on: 'token', scopes: [] },
  /** what depends on what is watched, which the method asks for itself */
  events: { on: 'token', scopes: [] },
  /** environments: to make and to list them; who makes one receives secrets, so no fine-grained token does it */
  environments: { on: 'organization', scopes: [], everyScope: ['codespace'], organizationRole: 'member' },
  /** one environment, whose creator and the owners of the organization may; the method asks for that itself */
  'environment:use': { on: 'token', scopes: [], everyScope: ['codespace'] },
  /** the same, or the environment itself */
  'environment:see': { on: 'token', scopes: [] },
  /** the runner itself */
  runner: { on: 'organization', by: 'runner', scopes: [] },
  /** the token of an environment: nobody else reads values */
  environment: { on: 'token', by: 'environment', scopes: [] },
  'codespaces/project:read': { on: 'project', ...READS_ORGANIZATION, projectRole: 'user' },
  'codespaces/project:write': { on: 'project', ...WRITES_ORGANIZATION, projectRole: 'editor' },
  'codespaces/service-account:read': { on: 'organization', ...READS_ORGANIZATION, organizationRole: 'admin' },
  'codespaces/service-account:write': {
    on: 'organization',
    ...WRITES_ORGANIZATION,
    organizationRole: 'admin'
  },
  'project:use': { on: 'project', ...READS_ORGANIZATION, projectRole: 'user' },
  'project:edit': { on: 'project', ...WRITES_ORGANIZATION, projectRole: 'editor' },
  'project:administer': { on: 'project', ...WRITES_ORGANIZATION, projectRole: 'admin' },
  /** several at once, each of which is asked for its own role */
  'projects:change': { on: 'organization', ...WRITES_ORGANIZATION, organizationRole: 'member' },
  'organization:read': { on: 'organization', ...READS_ORGANIZATION, organizationRole: 'member' },
  'organization:administer': { on: 'organization', ...WRITES_ORGANIZATION, organizationRole: 'admin' },
  /** users themselves; who takes others out is asked to administer besides */
  'organization:leave': {
    on: 'organization',
    by: 'user',
    ...WRITES_ORGANIZATION,
    organizationRole: 'member'
  },
  'organizations:create': { on: 'token', by: 'user', ...WRITES_ORGANIZATION },
  'personal-access-tokens': { on: 'token', by: 'user', scopes: [], everyScope: FULL_SCOPES },
  'service-account': { on: 'token', by: 'service-account', scopes: [] }
} as const satisfies Record<string, AccessRule>

/** Every permission that a route may declare. */
export const ACCESS = {
  ...SECRET_ACCESS,
  ...ONA_ACCESS,
  /** no token is needed */
  open: { on: 'nobody', scopes: [] },
  /** any valid token */
  authenticated: { on: 'token', scopes: [] },
  /** any valid token of a user */
  user: { on: 'token', by: 'user', scopes: [] },
  /** any valid token of an installation */
  installation: { on: 'token', by: 'installation', scopes: [] },
  /** a JWT that a GitHub App signed */
  integration: { on: 'integration', scopes: [] },
  'repository:read': {
    on: 'repository',
    scopes: ['repo'],
    publicScopes: [],
    role: 'read'
  },
  'repository:write': {
    on: 'repository',
    scopes: ['repo'],
    publicScopes: ['repo', 'public_repo'],
    permission: { name: 'administration', level: 'read' },
    role: 'write'
  },
  'repository:admin': {
    on: 'repository',
    scopes: ['repo'],
    publicScopes: ['repo', 'public_repo'],
    permission: { name: 'administration', level: 'write' },
    role: 'admin'
  },
  'repositories:create': {
    on: 'token',
    by: 'user',
    scopes: ['public_repo', 'repo'],
    permission: { name: 'administration', level: 'write' }
  },
  'organization-repositories:create': {
    on: 'token',
    scopes: ['public_repo', 'repo'],
    permission: { name: 'administration', level: 'write' }
  },
  /** which repositories an installation has is for users to say, and never for installations */
  'repository:install': {
    on: 'repository',
    by: 'user',
    scopes: ['repo'],
    permission: { name: 'administration', level: 'write' },
    role: 'admin'
  },
  'organization-installations:read': {
    on: 'organization',
    scopes: ['read:org'],
    permission: { name: 'organization_administration', level: 'read' },
    organizationRole: 'admin'
  },
  'organization:see': { on: 'organization', scopes: [] },
  'organization:admin': {
    on: 'organization',
    by: 'user',
    scopes: ['admin:org'],
    permission: { name: 'organization_administration', level: 'write' },
    organizationRole: 'admin'
  },
  /** those of the token's own account */
  'organizations:list': { on: 'token', by: 'user', scopes: ['read:org'] },
  'members:read': {
    on: 'organization',
    scopes: ['read:org'],
    permission: { name: 'members', level: 'read' },
    organizationRole: 'member'
  },
  'members:write': {
    on: 'organization',
    scopes: ['admin:org'],
    permission: { name: 'members', level: 'write' },
    organizationRole: 'admin'
  },
  'audit-log:read': {
    on: 'organization',
    scopes: ['read:audit_log', 'admin:org'],
    permission: { name: 'organization_administration', level: 'read' },
    organizationRole: 'admin'
  },
  site_admin: { on: 'site', scopes: ['site_admin'] }
} as const satisfies Record<string, AccessRule>

export type AccessName = keyof typeof ACCESS

const RANK: Record<RepositoryRole, number> = { read: 1, triage: 2, write: 3, maintain: 4, admin: 5 }

const PROJECT_RANK: Record<ProjectRole, number> = { user: 1, editor: 2, admin: 3 }

const NO_RIGHTS = 'Must have admin rights to Repository.'
const NO_OWNER = 'Must be an owner of the organization.'
const NO_INSTALLATION = 'You must authenticate with an installation access token.'

export function hasRole(facts: Pick<RepositoryFacts, 'private' | 'role'>, least: RepositoryRole): boolean {
  const role = facts.role ?? (facts.private ? undefined : 'read')
  return role !== undefined && RANK[role] >= RANK[least]
}

/** Private repositories are seen with a role, by a token that reaches them; public ones by everybody. */
export function canSee(
  actor: Actor,
  facts: Pick<RepositoryFacts, 'private' | 'role' | 'repository_id'>
): boolean {
  return !facts.private || (facts.role !== null && reachesPrivate(actor, facts.repository_id))
}

export function hasPermission(actor: Actor, name: Permission, level: Level): boolean {
  return includesLevel(actor.token.permissions[name], level)
}

/** What the token allows, whatever it is used on. */
function requireToken(actor: Actor, rule: AccessRule, scopes: readonly Scope[]): void {
  const { limitedBy, bearer, refusal } = TOKEN_KINDS[actor.token.kind]
  if (rule.by && rule.by !== bearer) {
    throw new Forbidden(
      rule.by === 'installation' ? NO_INSTALLATION : refusal,
      `This needs the token of ${BEARER_NAMES[rule.by]}.`
    )
  }
  const { everyScope, permission } = rule
  if (everyScope) {
    if (limitedBy === 'scopes' && everyScope.every((scope) => actor.token.scopes.has(scope))) return
    throw new Forbidden(refusal, `This needs a token with the scopes ${everyScope.join(', ')}.`)
  }
  if (limitedBy === 'permissions') {
    if (!permission || hasPermission(actor, permission.name, permission.level)) return
    throw new Forbidden(
      refusal,
      `This needs a token with the permission ${permission.name}: ${permission.level}.`
    )
  }
  if (scopes.length === 0 || scopes.some((scope) => actor.token.scopes.has(scope))) return
  throw new Forbidden(refusal, `This needs a token with the scope ${scopes.join(' or ')}.`)
}

export const BEARER_NAMES: Record<Bearer, string> = {
  user: 'a user',
  installation: 'an installation of a GitHub App',
  'service-account': 'a service account',
  environment: 'an environment',
  runner: 'a runner'
}

/** Throws unless the token allows what the rule asks, for rules that are about no repository. */
export function requireAccess(actor: Actor, rule: AccessRule): void {
  if (rule.on === 'site') {
    const allowed = actor.siteAdmin && actor.token.kind === 'classic' && actor.token.scopes.has('site_admin')
    if (!allowed) throw new Forbidden('Must be a site administrator, with a token of scope site_admin.')
    return
  }
  requireToken(actor, rule, rule.scopes)
}

/**
 * Decides for a repository and its collections, whichever API asks.
 *
 * @throws NotFound when the actor may not know that it exists
 * @throws Forbidden when it may know, but its token or its role does not allow this
 */
export function requireRepositoryAccess(
  actor: Actor,
  rule: AccessRule,
  facts: RepositoryFacts | undefined
): asserts facts is RepositoryFacts {
  if (!facts || !canSee(actor, facts)) throw new NotFound()
  requireToken(actor, rule, facts.private ? rule.scopes : (rule.publicScopes ?? rule.scopes))
  const { limitedBy, refusal } = TOKEN_KINDS[actor.token.kind]
  if (rule.permission && limitedBy === 'permissions' && !reaches(actor, facts)) throw new Forbidden(refusal)
  if (rule.role && !hasRole(facts, rule.role)) throw new Forbidden(NO_RIGHTS)
}

/**
 * Decides for an organization and its collections. That it exists is no secret, but what it holds is to all who are
 * not its members.
 *
 * @throws NotFound when the actor may not know what it is about
 * @throws Forbidden when it may know, but its token or its role does not allow this
 */
export function requireOrganizationAccess(
  actor: Actor,
  rule: AccessRule,
  facts: OrganizationFacts | undefined
): asserts facts is OrganizationFacts {
  if (!facts || (rule.organizationRole && facts.role === null)) throw new NotFound()
  requireToken(actor, rule, rule.scopes)
  if (rule.organizationRole === 'admin' && facts.role !== 'admin') throw new Forbidden(NO_OWNER)
}

/** What access to a project depends on; `project_role` is the actor's; null: none. */
export interface ProjectAccess {
  project_role: ProjectRole | null
}

/**
 * Decides for a project and its collection.
 *
 * @throws NotFound when the actor may not know that it exists
 * @throws Forbidden when it may know, but its token or its role does not allow this
 */
export function requireProjectAccess(actor: Actor, rule: AccessRule, facts: ProjectAccess | undefined): void {
  if (!facts?.project_role) throw new NotFound()
  requireToken(actor, rule, rule.scopes)
  const { projectRole } = rule
  if (projectRole && PROJECT_RANK[facts.project_role] < PROJECT_RANK[projectRole]) {
    throw new Forbidden(`This needs the role ${projectRole} on the project.`)
  }
}

/** What access to a collection that Ona's API knows depends on. */
export interface CollectionFacts {
  kind: 'user' | 'organization' | 'project' | 'service-account'
  ownerUid: string
  /** the one that the token acts in; undefined: none */
  organization: OrganizationFacts | undefined
  /** the actor's role on the project that is the owner; null: none, or it is in another organization */
  projectRole?: ProjectRole | null
  /** whether the service account that is the owner is in the organization */
  serviceAccountHere?: boolean
}

/**
 * Decides for a collection by the rules that GitHub's API has for it, where it has any.
 *
 * @throws NotFound when the actor may not know that its owner exists
 * @throws Forbidden when it may know, but its token or its role does not allow this
 */
export function requireCollectionAccess(actor: Actor, wish: 'read' | 'write', facts: CollectionFacts): void {
  const { kind, ownerUid, organization } = facts
  const rule: AccessRule = ACCESS[`codespaces/${kind}:${wish}`]
  switch (kind) {
    case 'user':
      if (ownerUid !== actor.accountUid) throw new NotFound()
      requireAccess(actor, rule)
      return
    case 'project':
      requireProjectAccess(actor, rule, { project_role: facts.projectRole ?? null })
      return
    case 'organization':
      if (organization?.organization_uid !== ownerUid) throw new NotFound()
      requireOrganizationAccess(actor, rule, organization)
      return
    case 'service-account':
      if (!facts.serviceAccountHere) throw new NotFound()
      // Its own are its own business.
      if (ownerUid === actor.accountUid) requireAccess(actor, rule)
      else requireOrganizationAccess(actor, rule, organization)
  }
}

/** Whether one of the above lets the actor through. */
export function isAllowed(require: () => void): boolean {
  try {
    require()
    return true
  } catch (error) {
    if (error instanceof Forbidden || error instanceof NotFound) return false
    throw error
  }
}
