import { APP_NAMES, APPS, type App, type AppRules, type CollectionKind, collectionRules } from '../apps.ts'
import { Forbidden, NotFound } from '../errors.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import type { RepositoryFacts } from '../store/repositories.ts'
import type { OrganizationRole, RepositoryRole } from '../store/tables.ts'
import { type Actor, reaches, reachesPrivate } from './actor.ts'
import { includesLevel, type Level, type Permission, type Scope } from './scopes.ts'
import { TOKEN_KINDS } from './token-kinds.ts'

/** What an operation asks for: one of the scopes of a classic token, or the permission of any other. */
export interface AccessRule {
  /**
   * What is decided about: nothing but the token, the site, one repository, or one organization. `integration` is
   * for GitHub Apps themselves, which have no token but sign a JWT.
   */
  on: 'nobody' | 'token' | 'site' | 'repository' | 'organization' | 'integration'
  /** whose token it must be; none: anybody's */
  by?: 'user' | 'installation'
  /** any of these will do, what implies them too; none: no scope is needed */
  scopes: readonly Scope[]
  /** instead of `scopes`, on a public repository */
  publicScopes?: readonly Scope[]
  permission?: { name: Permission; level: Level }
  /** the least role on the repository */
  role?: RepositoryRole
  /** the least role in the organization; none: whoever asks */
  organizationRole?: OrganizationRole
}

type SecretAccess = 'read' | 'public-key' | 'write'

/** The rules for secrets, by kind of owner; scopes are GitHub's, roles as `docs/compatibility.md` lists them. */
const SECRETS: Record<CollectionKind, (access: SecretAccess) => Omit<AccessRule, 'permission'>> = {
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

function secretRule(app: App, kind: CollectionKind, access: SecretAccess): AccessRule {
  const { permission, readLevel } = collectionRules(app, kind)
  return {
    ...SECRETS[kind](access),
    permission: { name: permission, level: access === 'write' ? 'write' : readLevel }
  }
}

export type SecretAccessName = `${App}/${CollectionKind}:${SecretAccess}`

const SECRET_ACCESS = Object.fromEntries(
  APP_NAMES.flatMap((app) =>
    (Object.keys((APPS[app] as AppRules).collections) as CollectionKind[]).flatMap((kind) =>
      (['read', 'public-key', 'write'] as const).map((access) => [
        `${app}/${kind}:${access}`,
        secretRule(app, kind, access)
      ])
    )
  )
) as Record<SecretAccessName, AccessRule>

/** Every permission that a route may declare. */
export const ACCESS = {
  ...SECRET_ACCESS,
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
    throw new Forbidden(rule.by === 'installation' ? NO_INSTALLATION : refusal)
  }
  const allowed =
    limitedBy === 'scopes'
      ? scopes.length === 0 || scopes.some((scope) => actor.token.scopes.has(scope))
      : !rule.permission || hasPermission(actor, rule.permission.name, rule.permission.level)
  if (!allowed) throw new Forbidden(refusal)
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
