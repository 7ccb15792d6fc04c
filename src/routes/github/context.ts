import type { FastifyRequest } from 'fastify'
import { ACCESS, type AccessName, type AccessRule } from '../../auth/access.ts'
import { type Actor, principalOf } from '../../auth/actor.ts'
import { NotFound } from '../../errors.ts'
import type { TokenPrincipal } from '../../secrets/vault.ts'
import type { Principal } from '../../store/audit.ts'
import type { DeploymentEnvironment } from '../../store/deployment-environments.ts'
import type { Installation } from '../../store/installations.ts'
import type { Integration } from '../../store/integrations.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import type { RepositoryFacts } from '../../store/repositories.ts'
import type { SecretHead, SecretPage } from '../../store/secrets.ts'

/** What the guard finds for a request, in one query, before access is decided. */
export interface Found {
  repository?: RepositoryFacts | undefined
  organization?: OrganizationFacts | undefined
  environment?: DeploymentEnvironment | undefined
  installation?: Installation | undefined
  secret?: SecretHead | undefined
  page?: SecretPage | undefined
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** the permission that the operation needs; a guarded route without one does not boot */
    access?: AccessName
    /** whether it changes nothing, whatever its method: a token that only reads may call it */
    reads?: true
    /** finds what access depends on, together with what the handler shows */
    find?: (request: FastifyRequest) => Promise<Found>
    /** page of GitHub's reference that an error refers to */
    docs?: string
  }
  interface FastifyRequest {
    actor: Actor
    /** instead of the actor, where a GitHub App asks for itself */
    integration: Integration
    found: Found
  }
}

/** Set on the raw request by `rewriteUrl`: the prefix by which the request came. */
export const API_PREFIX = Symbol('prefix of the API')

export function apiPrefix(request: FastifyRequest): string {
  return (request.raw as { [API_PREFIX]?: string })[API_PREFIX] ?? ''
}

/** Who writes, and what the operation needs of the token until the write commits. */
export function principal(request: FastifyRequest): TokenPrincipal {
  const rule: AccessRule = ACCESS[request.routeOptions.config.access!]
  const needs = {
    permission: rule.permission ?? null,
    repositoryId: request.found.repository?.repository_id ?? null
  }
  return principalOf(request.actor, request.id, needs) as TokenPrincipal
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

/** The installation that the guard found, of the App that asks. */
export function foundInstallation(request: FastifyRequest): Installation {
  return request.found.installation!
}

/** Who writes, where a GitHub App asks for itself. */
export function appPrincipal({ integration, id }: FastifyRequest): Principal {
  return { kind: 'app', uid: integration.integration_uid, tokenId: null, issuedByUid: null, requestId: id }
}
