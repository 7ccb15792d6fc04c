import { ACCESS, requireAccess } from '../../auth/access.ts'
import { principalOf } from '../../auth/actor.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import { reasonToRefuse } from '../../environments/resolution.ts'
import { Forbidden } from '../../errors.ts'
import type { Deliveries, TokenPrincipal } from '../../secrets/vault.ts'
import type { Call } from './method.ts'

const READS_NOTHING = 'This token of an environment reads no values.'

/** What GetSecretValue gives: the exact bytes, which the caller zeroes when done. */
export async function readValue(
  deliveries: Deliveries,
  { principal, actor }: Pick<Call, 'principal' | 'actor'>,
  secretUid: string
): Promise<Buffer> {
  const { purpose } = actor.token
  if (purpose !== 'deliver' && purpose !== 'inside') throw new Forbidden(READS_NOTHING)
  return await deliveries.read({
    principal,
    environmentId: actor.accountId,
    secretUid,
    refuse: (received) => reasonToRefuse(received, purpose)
  })
}

/**
 * GetSecretValue of the same process, without the way over HTTP: the same token, the same checks, the same record.
 *
 * @param makeRequestId for the record, as a request has one
 */
export function valueReader(
  authenticator: Authenticator,
  deliveries: Deliveries,
  makeRequestId: () => string
): (accessToken: string, secretUid: string) => Promise<Buffer> {
  return async (accessToken, secretUid) => {
    const authorization = `Bearer ${accessToken}`
    const actor =
      authenticator.recall(authorization) ?? (await authenticator.authenticate(authorization, undefined))
    requireAccess(actor, ACCESS.environment)
    const principal = principalOf(actor, makeRequestId()) as TokenPrincipal
    return await readValue(deliveries, { principal, actor }, secretUid)
  }
}
