import type { FastifyRequest } from 'fastify'
import type { AccessName } from '../../auth/access.ts'
import { type Actor, principalOf } from '../../auth/actor.ts'
import { NotFound } from '../../errors.ts'
import type { TokenPrincipal } from '../../secrets/vault.ts'
import type { DeploymentEnvironment } from '../../store/deployment-environments.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import type { RepositoryFacts } from '../../store/repositories.ts'
import type { SecretHead, SecretPage } from '../../store/secrets.ts'

/** What the guard finds for a request, in one query, before access is decided. */
export interface Found {
  repository?: RepositoryFacts | undefined
  organization?: OrganizationFacts | undefined
  environment?: DeploymentEnvironment | undefined
  secret?: SecretHead | undefined
  page?: SecretPage | undefined
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** the permission that the operation needs; a guarded route without one does not boot */
    access?: AccessName
    /** finds what access depends on, together with what the handler shows */
    find?: (request: FastifyRequest) => Promise<Found>
    /** page of GitHub's reference that an error refers to */
    docs?: string
  }
  interface FastifyRequest {
    actor: Actor
    found: Found
  }
}

/** Set on the raw request by `rewriteUrl`: the prefix by which the request came. */
export const API_PREFIX = Symbol('prefix of the API')

export function apiPrefix(request: FastifyRequest): string {
  return (request.raw as { [API_PREFIX]?: string })[API_PREFIX] ?? ''
}

export function principal(request: FastifyRequest): TokenPrincipal {
  return principalOf(request.actor, request.id) as TokenPrincipal
}

/** The repository that the guard found and allowed. */
export function foundRepository(request: FastifyRequest): RepositoryFacts {
  return request.found.repository!
}

/** The organization that the guard found and allowed. */
export function foundOrganization(request: FastifyRequest): OrganizationFacts {
  return request.found.organization!
}

/** The deployment environment of the repository that the guard allowed; throws when it has none of that name. */
export function foundEnvironment(request: FastifyRequest): DeploymentEnvironment {
  const { environment } = request.found
  if (!environment) throw new NotFound()
  return environment
}
