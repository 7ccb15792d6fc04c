import { isDeepStrictEqual } from 'node:util'
import type { Kysely, Transaction } from 'kysely'
import {
  type EnvironmentOrigin,
  findResolutionContext,
  findResolvable,
  listCandidates,
  lockForResolution,
  type ReceivedSecret,
  storeResolution
} from '../store/resolution.ts'
import type { Database, EnvironmentTokenPurpose, Mount } from '../store/tables.ts'
import {
  type Choice,
  ownersOf,
  type Resolution,
  type ResolvedSecret,
  reasonToWithhold,
  resolve
} from './resolve.ts'

// Resolution with what it is asked of: the store as it is now.

const NOTHING: Resolution = { secrets: [], readable: [], explanations: [] }

/** What an environment of that origin would receive now. */
export async function resolveNow(
  db: Kysely<Database>,
  origin: EnvironmentOrigin,
  choice: Choice | null
): Promise<Resolution> {
  const context = await findResolutionContext(db, origin)
  if (!context) return NOTHING
  const candidates = await listCandidates(db, ownersOf(context), context.repository_id)
  return resolve(context, candidates, choice)
}

/**
 * Resolves an environment again, and gives its spec a new version when something came out of that; false when
 * nothing did, or it is gone. Whoever calls this holds no lock on the environment but this transaction's.
 */
export async function resolveAgain(tx: Transaction<Database>, environmentId: number): Promise<boolean> {
  const environment = await lockForResolution(tx, environmentId)
  if (!environment) return false
  const { chosenSecrets, resolution } = environment
  const { secrets, readable } = await resolveNow(tx, environment, chosenSecrets as Choice | null)
  if (isDeepStrictEqual(secrets, resolution)) return false
  await storeResolution(tx, environmentId, secrets, {
    secretIds: readable,
    ownSecrets: holdsOwnSecrets(secrets)
  })
  return true
}

/** Whether there are some of the creator's own among these. */
export function holdsOwnSecrets(secrets: readonly ResolvedSecret[]): boolean {
  return secrets.some(({ origin }) => origin === 'user' || origin === 'service-account')
}

/**
 * The same, and a lock and a transaction only for an environment that is to change: most of those that are looked at
 * are as they should be.
 */
export async function bringUpToDate(db: Kysely<Database>, environmentId: number): Promise<boolean> {
  const environment = await findResolvable(db, environmentId)
  if (!environment) return false
  const { secrets } = await resolveNow(db, environment, environment.chosenSecrets as Choice | null)
  if (isDeepStrictEqual(secrets, environment.resolution)) return false
  return await db.transaction().execute((tx) => resolveAgain(tx, environmentId))
}

/** What is read from inside an environment; the rest is there already, or not for who is there. */
const READ_INSIDE: readonly Mount[] = ['api-only', 'git']

/** Why an environment does not receive a secret any more that it was given, asked at each read; undefined: it does. */
export function reasonToRefuse(
  received: ReceivedSecret,
  purpose: EnvironmentTokenPurpose
): string | undefined {
  if (purpose === 'inside' && !READ_INSIDE.includes(received.mount)) return 'it is not read from inside'
  return reasonToWithhold(received, received)
}
