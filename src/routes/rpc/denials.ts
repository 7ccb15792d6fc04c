import type { FastifyRequest } from 'fastify'
import type { Denial } from '../../audit/denials.ts'
import { Forbidden, NotFound, TooManyFailedLogins, Unauthenticated } from '../../errors.ts'

/**
 * What the audit log has of a request that ended with this error; undefined: nothing. What was denied in the
 * organization that the token acts in is in its stream; what the actor may not know of is in the actor's own.
 */
export function denialOf(error: unknown, request: FastifyRequest): Denial | undefined {
  const { call, ip } = request
  const { operationId } = request.routeOptions.schema as { operationId?: string }
  const common = { ...(operationId && { name: operationId }), ...(ip && { address: ip }) }
  if (error instanceof TooManyFailedLogins || (error instanceof Unauthenticated && error.presented)) {
    const anonymous = { kind: 'anonymous', uid: null, tokenId: null, issuedByUid: null } as const
    return { ...common, action: 'login.failed', principal: { ...anonymous, requestId: request.id } }
  }
  if (!call?.actor || !(error instanceof Forbidden || error instanceof NotFound)) return undefined
  const { principal, actor } = call
  const known = call.organization ?? call.project ?? call.secretsOf
  const organization = error instanceof Forbidden ? known : undefined
  // Who is no account has no stream of its own: that of the instance.
  const streamUid = organization?.organization_uid ?? (actor.kind === 'user' ? actor.accountUid : undefined)
  return { ...common, action: 'access.denied', principal, ...(streamUid && { streamUid }) }
}
