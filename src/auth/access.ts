import { Forbidden, NotFound } from '../errors.ts'
import type { RepositoryFacts } from '../store/repositories.ts'
import type { RepositoryRole } from '../store/tables.ts'
import { type Actor, reachesPrivate } from './actor.ts'
import type { Permission, Scope } from './scopes.ts'

/** What an operation asks for: one of the scopes of a classic token, or the permission of a fine-grained one. */
export interface AccessRule {
  /** what is decided about: nothing but the token, the site, or one repository */
  on: 'nobody' | 'token' | 'site' | 'repository'
  /** any of these will do, what implies them too; none: no scope is needed */
  scopes: readonly Scope[]
  /** instead of `scopes`, on a public repository */
  publicScopes?: readonly Scope[]
  permission?: { name: Permission; level: 'read' | 'write' }
  /** the least role on the repository */
  role?: RepositoryRole
}

/**
 * Every permission that a route may declare. Scopes and levels are those of GitHub's documentation; roles are
 * as `docs/compatibility.md` lists them.
 */
export const ACCESS = {
  /** no token is needed */
  open: { on: 'nobody', scopes: [] },
  /** any valid token */
  authenticated: { on: 'token', scopes: [] },
  'user-secrets:read': {
    on: 'token',
    scopes: ['codespace', 'codespace:secrets'],
    permission: { name: 'codespaces_user_secrets', level: 'read' }
  },
  'user-secrets:write': {
    on: 'token',
    scopes: ['codespace', 'codespace:secrets'],
    permission: { name: 'codespaces_user_secrets', level: 'write' }
  },
  /** GitHub asks fine-grained tokens for write even to read */
  'repository-secrets': {
    on: 'repository',
    scopes: ['repo'],
    permission: { name: 'codespaces_secrets', level: 'write' },
    role: 'write'
  },
  'repository-public-key': {
    on: 'repository',
    scopes: ['repo'],
    publicScopes: [],
    permission: { name: 'codespaces_secrets', level: 'write' },
    role: 'read'
  },
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
    scopes: ['public_repo', 'repo'],
    permission: { name: 'administration', level: 'write' }
  },
  site_admin: { on: 'site', scopes: ['site_admin'] }
} as const satisfies Record<string, AccessRule>

export type AccessName = keyof typeof ACCESS

const RANK: Record<RepositoryRole, number> = { read: 1, triage: 2, write: 3, maintain: 4, admin: 5 }

const NO_RIGHTS = 'Must have admin rights to Repository.'
const NO_PERMISSION = 'Resource not accessible by personal access token'

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

export function hasPermission(actor: Actor, name: Permission, level: 'read' | 'write'): boolean {
  const granted = actor.token.permissions[name]
  return granted === 'write' || granted === level
}

/** What the token allows, whatever it is used on. */
function requireToken(actor: Actor, rule: AccessRule, scopes: readonly Scope[]): void {
  if (actor.token.kind === 'classic') {
    if (scopes.length > 0 && !scopes.some((scope) => actor.token.scopes.has(scope)))
      throw new Forbidden(NO_RIGHTS)
  } else if (rule.permission && !hasPermission(actor, rule.permission.name, rule.permission.level)) {
    throw new Forbidden(NO_PERMISSION)
  }
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
  if (rule.permission && actor.token.kind === 'fine-grained' && !reachesPrivate(actor, facts.repository_id)) {
    throw new Forbidden(NO_PERMISSION)
  }
  if (rule.role && !hasRole(facts, rule.role)) throw new Forbidden(NO_RIGHTS)
}
