import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import type { Denials } from '../../audit/denials.ts'
import { ACCESS, requireAccess } from '../../auth/access.ts'
import { principalOf } from '../../auth/actor.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import { reasonToRefuse } from '../../environments/resolution.ts'
import { Forbidden, Unauthenticated } from '../../errors.ts'
import { describeError } from '../../logger.ts'
import type { Metrics } from '../../metrics.ts'
import type { Deliveries, TokenPrincipal } from '../../secrets/vault.ts'
import { isTemporaryDatabaseError } from '../../store/database.ts'
import type { Database } from '../../store/tables.ts'
import { denialOf } from './denials.ts'
import { errorAnswer } from './errors.ts'
import { asRevoked } from './guard.ts'
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

export interface ValueReaderDependencies {
  db: Kysely<Database>
  authenticator: Authenticator
  deliveries: Deliveries
  denials: Denials
  metrics: Metrics
  logger: Logger
  /** for the records, as a request has one */
  makeRequestId: () => string
}

/**
 * GetSecretValue of the same process, without the way over HTTP: the same token, the same checks, the same records, of
 * what is refused too.
 *
 * @throws what the method answers as an error
 */
export function valueReader({
  db,
  authenticator,
  deliveries,
  denials,
  metrics,
  logger,
  makeRequestId
}: ValueReaderDependencies): (accessToken: string, secretUid: string) => Promise<Buffer> {
  return async (accessToken, secretUid) => {
    const requestId = makeRequestId()
    const call: Partial<Call> = {}
    try {
      const actor = await authenticator.find(accessToken)
      if (!actor) throw new Unauthenticated(true)
      const principal = principalOf(actor, requestId) as TokenPrincipal
      Object.assign(call, { actor, principal })
      requireAccess(actor, ACCESS.environment)
      return await readValue(deliveries, { actor, principal }, secretUid)
    } catch (thrown) {
      const error = await asRevoked(db, thrown, call)
      const denial = denialOf(error, { requestId, operationId: 'SecretService/GetSecretValue', call })
      if (denial) denials.record(denial)
      if (isTemporaryDatabaseError(error)) metrics.databaseUnavailable()
      else if (errorAnswer(error).status >= 500) {
        logger.error({ reqId: requestId, err: describeError(error) }, 'request failed')
      }
      throw error
    }
  }
}
