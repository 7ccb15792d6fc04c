import type { Denial } from '../../audit/denials.ts'
import { Forbidden, NotFound, TooManyFailedLogins, Unauthenticated } from '../../errors.ts'
import type { Call } from './method.ts'

/** A request that ended with an error, as far as it is known. */
export interface Refused {
  requestId: string
  address?: string | undefined
  /** the method, with its service */
  operationId: string | undefined
  call: Partial<Call> | undefined
}

/**
 * What the audit log has of a request that ended with this error; undefined: nothing. What was denied in the
 * organization that the token acts in is in its stream; what the actor may not know of is in the actor's own.
 */
export function denialOf(
  error: unknown,
  { requestId, address, operationId, call }: Refused
): Denial | undefined {
  const common = { ...(operationId && { name: operationId }), ...(address && { address }) }
  if (error instanceof TooManyFailedLogins || (error instanceof Unauthenticated && error.presented)) {
    const anonymous = { kind: 'anonymous', uid: null, tokenId: null, issuedByUid: null } as const
    return { ...common, action: 'login.failed', principal: { ...anonymous, requestId } }
  }
  if (!call?.actor || !call.principal || !(error instanceof Forbidden || error instanceof NotFound)) {
    return undefined
  }
  const { principal, actor } = call
  const known = call.organization ?? call.project ?? call.secretsOf
  const organization = error instanceof Forbidden ? known : undefined
  // Who is no account has no stream of its own: that of the instance.
  const streamUid = organization?.organization_uid ?? (actor.kind === 'user' ? actor.accountUid : undefined)
  return { ...common, action: 'access.denied', principal, ...(streamUid && { streamUid }) }
}
