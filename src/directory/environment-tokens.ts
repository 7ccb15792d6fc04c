import type { Kysely } from 'kysely'
import { hashToken, lastEight, makeToken } from '../auth/token.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import type { Database } from '../store/tables.ts'
import { insertToken } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'

/** The environment that a token is for. */
export interface EnvironmentBearer {
  environment_id: number
  environment_uid: string
  organization_id: number
  organization_uid: string
}

/**
 * Makes a token for an environment. It reads the values of the secrets that the environment receives, as long as it
 * receives them, and it ends with the environment if it does not end before.
 *
 * @returns the token, which is shown once and stored nowhere
 * @throws NotFound when the environment is gone, Unauthenticated when the principal's token is
 */
export async function issueEnvironmentToken(
  db: Kysely<Database>,
  principal: Principal,
  { environment_id, environment_uid, organization_id, organization_uid }: EnvironmentBearer,
  lifetimeSeconds: number
): Promise<{ token: string; expiresAt: Date }> {
  const token = makeToken('environment')
  return await inTheNameOf(db, principal, async (tx) => {
    const { id, expires_at } = await insertToken(tx, {
      hash: hashToken(token),
      kind: 'environment',
      accountId: organization_id,
      organizationId: organization_id,
      environmentId: environment_id,
      lastEight: lastEight(token),
      issuedByUid: principal.uid,
      lifetimeSeconds
    })
    await insertAuditEvents(tx, [
      {
        streamUid: organization_uid,
        principal,
        action: 'token.create',
        subjectUid: environment_uid,
        name: `${environment_uid}#${id}`
      }
    ])
    return { token, expiresAt: expires_at! }
  })
}
