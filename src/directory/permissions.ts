import { includesPermissions, isPermission, PERMISSIONS } from '../auth/scopes.ts'
import { InvalidInput } from '../errors.ts'
import type { Permissions } from '../store/tables.ts'

function invalid(message: string): InvalidInput {
  return new InvalidInput('Validation Failed', [{ field: 'permissions', code: 'invalid', message }])
}

/** Permissions as somebody wrote them; throws `InvalidInput` for a name or a level that there is not. */
export function requirePermissions(permissions: Readonly<Record<string, string>>): Permissions {
  for (const [name, level] of Object.entries(permissions)) {
    if (!isPermission(name))
      throw invalid(`permissions may only contain ${Object.keys(PERMISSIONS).join(', ')}`)
    if (!(PERMISSIONS[name] as readonly string[]).includes(level)) {
      throw invalid(`the level of ${name} is one of ${PERMISSIONS[name].join(', ')}`)
    }
  }
  return permissions as Permissions
}

/** The same for an App, which may always see what its repositories are called. */
export function requireAppPermissions(permissions: Readonly<Record<string, string>>): Permissions {
  return { ...requirePermissions(permissions), metadata: 'read' }
}

/** Throws `InvalidInput` unless all that is asked for is granted; the message says what is. */
export function requireWithin(granted: Permissions, asked: Permissions, whose: string): void {
  if (!includesPermissions(granted, asked))
    throw invalid(`permissions may be at most ${whose}: ${describePermissions(granted)}`)
}

/** As a person reads them. */
export function describePermissions(permissions: Permissions): string {
  return Object.entries(permissions)
    .map((pair) => pair.join('='))
    .join(', ')
}
