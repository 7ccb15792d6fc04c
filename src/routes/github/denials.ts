import type { FastifyRequest } from 'fastify'
import type { Denial } from '../../audit/denials.ts'
import { ACCESS, type AccessRule, canSee } from '../../auth/access.ts'
import { principalOf } from '../../auth/actor.ts'
import { Forbidden, NotFound, TooManyFailedLogins, Unauthenticated } from '../../errors.ts'

/**
 * What the audit log has of a request that ended with this error; undefined: nothing. What the actor may know of is
 * recorded in the owner's stream. What it may not know of is recorded in the actor's own, in the same words whether
 * it exists or not, so that nobody who reads a stream learns of what others have.
 */
export function denialOf(error: unknown, request: FastifyRequest): Denial | undefined {
  const { actor, ip } = request
  const operation = request.routeOptions.schema as { operationId?: string } | undefined
  const common = {
    ...(operation?.operationId && { name: operation.operationId }),
    ...(ip && { address: ip })
  }
  if (error instanceof TooManyFailedLogins || (error instanceof Unauthenticated && error.presented)) {
    return { ...common, action: 'login.failed', principal: { ...ANONYMOUS, requestId: request.id } }
  }
  if (!actor || !(error instanceof Forbidden || isInvisible(error, request))) return undefined
  return {
    ...common,
    action: 'access.denied',
    principal: principalOf(actor, request.id),
    streamUid: actor.accountUid,
    ...(error instanceof Forbidden && knownOwner(request))
  }
}

const ANONYMOUS = { kind: 'anonymous', uid: null, tokenId: null, issuedByUid: null } as const

function ruleOf({ routeOptions }: FastifyRequest): AccessRule | undefined {
  return routeOptions.config.access && ACCESS[routeOptions.config.access]
}

/** Whether it was not found because the actor may not know of it, or might not if it existed. */
function isInvisible(error: unknown, request: FastifyRequest): boolean {
  const rule = ruleOf(request)
  if (!(error instanceof NotFound) || !rule || !request.found) return false
  const { repository, organization } = request.found
  if (rule.on === 'repository') return !repository || !canSee(request.actor, repository)
  return (
    rule.on === 'organization' && (!organization || (!!rule.organizationRole && organization.role === null))
  )
}

/** Whose the thing is that the actor knows of. */
function knownOwner({ actor, found }: FastifyRequest): { streamUid?: string; repositoryUid?: string } {
  const { repository, organization } = found ?? {}
  if (repository && canSee(actor, repository)) {
    return { streamUid: repository.owner_uid, repositoryUid: repository.repository_uid }
  }
  return organization?.role ? { streamUid: organization.organization_uid } : {}
}
