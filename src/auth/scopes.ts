import { APPS, type SecretPermission } from '../apps.ts'
import type { Permissions } from '../store/tables.ts'

/** Classic scopes, each with what it implies. https://docs.github.com/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps */
const IMPLIES = {
  repo: ['public_repo'],
  public_repo: [],
  codespace: ['codespace:secrets'],
  'codespace:secrets': [],
  'admin:org': ['write:org', 'read:org'],
  'write:org': ['read:org'],
  'read:org': [],
  'read:audit_log': [],
  site_admin: []
} as const satisfies Record<string, readonly string[]>

export type Scope = keyof typeof IMPLIES
export const SCOPES = Object.keys(IMPLIES) as Scope[]

export function isScope(text: string): text is Scope {
  return Object.hasOwn(IMPLIES, text)
}

export function withImplied(scopes: readonly string[]): ReadonlySet<Scope> {
  const known = scopes.filter(isScope)
  return new Set(known.flatMap((scope) => [scope, ...IMPLIES[scope]]))
}

/** Sorted, without those that another one implies, as `X-OAuth-Scopes` shows them. */
export function normalized(scopes: Iterable<Scope>): Scope[] {
  const given = [...new Set(scopes)]
  const implied = new Set<string>(given.flatMap((scope) => [...IMPLIES[scope]]))
  return given.filter((scope) => !implied.has(scope)).sort()
}

export type Level = 'read' | 'write'

/** Permissions that are about no app's secrets, with the levels they come in. */
const DIRECTORY_PERMISSIONS = {
  metadata: ['read'],
  administration: ['read', 'write'],
  members: ['read', 'write'],
  organization_administration: ['read', 'write']
} as const satisfies Record<string, readonly Level[]>

export type Permission = keyof typeof DIRECTORY_PERMISSIONS | SecretPermission

/** Permissions of fine-grained tokens and Apps that mean something here, by GitHub's names. */
export const PERMISSIONS = {
  ...DIRECTORY_PERMISSIONS,
  ...Object.fromEntries(
    Object.values(APPS).flatMap(({ collections }) =>
      Object.values(collections).map(({ permission }) => [permission, ['read', 'write']])
    )
  )
} as Readonly<Record<Permission, readonly Level[]>>

export function isPermission(text: string): text is Permission {
  return Object.hasOwn(PERMISSIONS, text)
}

/** Whether a level is granted: who may write may read. */
export function includesLevel(granted: string | undefined, level: string): boolean {
  return granted === 'write' || granted === level
}

/** What both allow. */
export function commonPermissions(one: Permissions, other: Permissions): Permissions {
  const common: Permissions = {}
  for (const [name, level] of Object.entries(one)) {
    if (!Object.hasOwn(other, name)) continue
    common[name] = includesLevel(other[name], level) ? level : other[name]!
  }
  return common
}

/** Whether everything that is asked for is granted. */
export function includesPermissions(granted: Permissions, asked: Permissions): boolean {
  return Object.entries(asked).every(
    ([name, level]) => Object.hasOwn(granted, name) && includesLevel(granted[name], level)
  )
}
