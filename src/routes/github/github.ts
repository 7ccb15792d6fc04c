import type { FastifyInstance, FastifyPluginCallback } from 'fastify'
import type { Kysely } from 'kysely'
import type { Denials } from '../../audit/denials.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import type { RateLimits } from '../../auth/rate-limits.ts'
import type { TokenLifetimes } from '../../directory/tokens.ts'
import { NotFound } from '../../errors.ts'
import type { Keyring } from '../../keyring/index.ts'
import type { Metrics } from '../../metrics.ts'
import type { Vault } from '../../secrets/vault.ts'
import type { Database } from '../../store/tables.ts'
import { accountRoutes } from './accounts.ts'
import { adminRoutes } from './admin.ts'
import { adminAppRoutes } from './admin-apps.ts'
import { auditLogRoutes } from './audit-log.ts'
import { ignoreContentType, readBodies } from './body.ts'
import { collaboratorRoutes } from './collaborators.ts'
import { answerConditionally } from './conditional.ts'
import { denialOf } from './denials.ts'
import { deploymentEnvironmentRoutes } from './deployment-environments.ts'
import { environmentSecretRoutes } from './environment-secrets.ts'
import { handleError } from './errors.ts'
import { graphqlRoutes } from './graphql.ts'
import { guard } from './guard.ts'
import { readApiVersion, readMediaType, setCommonHeaders, setPreflightHeaders } from './headers.ts'
import { installationTokenRoutes } from './installation-tokens.ts'
import { installationRoutes } from './installations.ts'
import { integrationRoutes } from './integrations.ts'
import { Limiter } from './limiter.ts'
import { membershipRoutes } from './memberships.ts'
import { metaRoutes, openMetaRoutes } from './meta.ts'
import { organizationSecretRoutes } from './organization-secrets.ts'
import { organizationRoutes } from './organizations.ts'
import { rateLimitRoutes } from './rate-limit.ts'
import { repositoryRoutes } from './repositories.ts'
import { repositorySecretRoutes } from './repository-secrets.ts'
import { userSecretRoutes } from './user-secrets.ts'

export interface GitHubDependencies {
  db: Kysely<Database>
  keyring: Keyring
  vault: Vault
  authenticator: Authenticator
  /** undefined: none are set, and nothing is counted */
  rateLimits: RateLimits | undefined
  metrics: Metrics
  denials: Denials
  tokenLifetimes: TokenLifetimes
  version: string
}

export type GitHubRoutes = (app: FastifyInstance, dependencies: GitHubDependencies) => void

const RESOURCES: readonly GitHubRoutes[] = [
  repositorySecretRoutes,
  userSecretRoutes,
  organizationSecretRoutes,
  environmentSecretRoutes,
  repositoryRoutes,
  deploymentEnvironmentRoutes,
  collaboratorRoutes,
  accountRoutes,
  organizationRoutes,
  membershipRoutes,
  integrationRoutes,
  installationTokenRoutes,
  installationRoutes,
  adminRoutes,
  graphqlRoutes,
  adminAppRoutes,
  auditLogRoutes,
  metaRoutes,
  openMetaRoutes,
  rateLimitRoutes
]

/** GitHub's API in a scope of its own: its way of reading bodies, its headers, its errors, its guard. */
export function gitHubApi(dependencies: GitHubDependencies): FastifyPluginCallback {
  return (app, _options, done) => {
    const { db, authenticator, rateLimits } = dependencies
    const limiter = rateLimits && new Limiter(rateLimits, authenticator)
    readBodies(app)
    app.setErrorHandler<Error>((error, request, reply) => {
      const denial = denialOf(error, request)
      if (denial) dependencies.denials.record(denial)
      handleError(error, request, reply)
    })
    app.addHook('onRequest', (request, reply, next) => {
      setCommonHeaders(request, reply)
      try {
        reply.header('x-github-api-version-selected', readApiVersion(request))
        reply.header('x-github-media-type', readMediaType(request))
      } catch (error) {
        next(error as Error)
        return
      }
      ignoreContentType(request)
      next()
    })
    app.addHook('onSend', (request, reply, payload, next) => {
      next(null, answerConditionally(request, reply, payload))
    })
    limiter?.install(app)
    app.register((guarded, _scopeOptions, ready) => {
      guard(guarded, db, authenticator, limiter)
      for (const routes of RESOURCES) routes(guarded, dependencies)
      ready()
    })
    app.options('*', { schema: { hide: true } }, (_request, reply) => {
      setPreflightHeaders(reply)
      reply.code(204).send()
    })
    app.setNotFoundHandler({ ...(limiter && { preHandler: limiter.countAnybody }) }, () => {
      throw new NotFound()
    })
    done()
  }
}
