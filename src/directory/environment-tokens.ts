import type { Kysely, Transaction } from 'kysely'
import { hashToken, lastEight, makeToken } from '../auth/token.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { insertEnvironmentToken } from '../store/environment-tokens.ts'
import type { Database, EnvironmentTokenPurpose } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'

/** The environment that a token is for. */
export interface EnvironmentBearer {
  environment_id: number
  environment_uid: string
  organization_id: number
  organization_uid: string
}

export type EnvironmentTokenTerms = { lifetimeSeconds: number } & (
  | { purpose: 'deliver'; leaseEpoch: number }
  | { purpose: Exclude<EnvironmentTokenPurpose, 'deliver'> }
)

/** How long one that delivers is good for when there is a newer one. */
const SUPERSEDED_SECONDS = 600

/**
 * Makes a token for an environment, in the transaction of what it is for. One that delivers reads the values of the
 * secrets that the environment receives, for as long as it receives them and the lease has that epoch. All end with
 * the environment if they do not end before.
 *
 * @returns the token, which is shown once and stored nowhere
 */
export async function storeEnvironmentToken(
  tx: Transaction<Database>,
  principal: Principal,
  { environment_id, environment_uid, organization_id, organization_uid }: EnvironmentBearer,
  terms: EnvironmentTokenTerms
): Promise<{ token: string; expiresAt: Date }> {
  const token = makeToken('environment')
  const [stored] = await insertEnvironmentToken(tx, {
    hash: hashToken(token),
    environmentId: environment_id,
    organizationId: organization_id,
    purpose: terms.purpose,
    leaseEpoch: terms.purpose === 'deliver' ? terms.leaseEpoch : null,
    lastEight: lastEight(token),
    issuedByUid: principal.uid,
    lifetimeSeconds: terms.lifetimeSeconds,
    supersededSeconds: SUPERSEDED_SECONDS
  })
  const { id, expires_at } = stored!
  await insertAuditEvents(tx, [
    {
      streamUid: organization_uid,
      principal,
      action: 'token.create',
      subjectUid: environment_uid,
      name: `${environment_uid}#${id}`
    }
  ])
  return { token, expiresAt: expires_at }
}

/**
 * The same as a change of its own.
 *
 * @throws NotFound when the environment is gone, Unauthenticated when the principal's token is
 */
export async function issueEnvironmentToken(
  db: Kysely<Database>,
  principal: Principal,
  bearer: EnvironmentBearer,
  terms: EnvironmentTokenTerms
): Promise<{ token: string; expiresAt: Date }> {
  return await inTheNameOf(db, principal, (tx) => storeEnvironmentToken(tx, principal, bearer, terms))
}
