import type { Static } from '@sinclair/typebox'
import { Enum, EXAMPLE_UUID, Message, Uuid, withExample } from './schema.ts'

/** How rows become proto3 JSON: what several messages share. */

export const Principal = Enum('PRINCIPAL', {
  PRINCIPAL_ACCOUNT: 1,
  PRINCIPAL_USER: 2,
  PRINCIPAL_RUNNER: 3,
  PRINCIPAL_ENVIRONMENT: 4,
  PRINCIPAL_SERVICE_ACCOUNT: 5,
  PRINCIPAL_RUNNER_MANAGER: 6
})
export type PrincipalName = Static<typeof Principal>

export const Subject = Message('Subject', {
  id: withExample(Uuid(), EXAMPLE_UUID),
  principal: withExample(Principal, 'PRINCIPAL_USER')
})

const PRINCIPALS: Readonly<Record<string, PrincipalName>> = {
  user: 'PRINCIPAL_USER',
  runner: 'PRINCIPAL_RUNNER',
  environment: 'PRINCIPAL_ENVIRONMENT',
  'service-account': 'PRINCIPAL_SERVICE_ACCOUNT'
}

/** Ona's name of a kind of principal; undefined where it has none. */
export function principalName(kind: string): PrincipalName | undefined {
  return PRINCIPALS[kind]
}

/** The kinds of principals that have this name in Ona's API. */
export function principalKinds(name: PrincipalName): string[] {
  return Object.keys(PRINCIPALS).filter((kind) => PRINCIPALS[kind] === name)
}

/** Who did something; undefined when nobody did whom Ona's API could name. */
export function subject(kind: string, uid: string | null): Static<typeof Subject> | undefined {
  if (uid === null) return undefined
  const principal = PRINCIPALS[kind]
  return principal ? { id: uid, principal } : { id: uid }
}

/**
 * RFC 3339 in UTC with milliseconds.
 *
 * @param time a Date, or the store's text: UTC, without zone, with up to six digits of a second
 */
export function timestamp(time: Date | string): string {
  if (time instanceof Date) return time.toISOString()
  return `${time.slice(0, 10)}T${time.slice(11, 19)}.${time.slice(20, 23).padEnd(3, '0')}Z`
}

type Compact<T> = { [K in keyof T]?: NonNullable<T[K]> }

/** Without what is unset or has its type's default: SDKs take an empty list for a list of something. */
export function compact<T extends object>(message: T): Compact<T> {
  const present: Record<string, unknown> = {}
  // Without Object.entries, whose pairs cost more than all else here: there is a message for each row of a list.
  for (const name of Object.keys(message)) {
    const value = (message as Record<string, unknown>)[name]
    if (!isDefault(value)) present[name] = value
  }
  return present as Compact<T>
}

function isDefault(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0
  return value === undefined || value === null || value === '' || value === false || value === 0
}

/** The same at every depth, for a message that was stored as it came: in it, keys of maps may have any name. */
export function compactAll<T>(stored: T): T {
  if (Array.isArray(stored)) return stored.map(compactAll) as T
  if (typeof stored !== 'object' || stored === null) return stored
  const members = Object.entries(stored).map(([name, value]) => [name, compactAll(value)] as const)
  return Object.fromEntries(members.filter(([, value]) => !isDefault(value))) as T
}
