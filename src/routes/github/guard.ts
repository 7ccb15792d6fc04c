import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import {
  ACCESS,
  type AccessRule,
  canSee,
  requireAccess,
  requireOrganizationAccess,
  requireRepositoryAccess
} from '../../auth/access.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import { appSubject, tokenSubject } from '../../auth/rate-limits.ts'
import { Forbidden, NotFound, Renamed } from '../../errors.ts'
import { findInstallation } from '../../store/installations.ts'
import type { OrganizationLocator } from '../../store/organizations.ts'
import { findRenamedRepository, type RepositoryLocator } from '../../store/repositories.ts'
import type { Database } from '../../store/tables.ts'
import type { Found } from './context.ts'
import { acceptedHeaders, setTokenHeaders } from './headers.ts'
import type { Limiter, RouteLimiter } from './limiter.ts'

/**
 * Who asks, what it is about, and whether that is allowed: settled before a body is read. A route that does not
 * declare the permission it needs stops the boot.
 */
export function guard(
  app: FastifyInstance,
  db: Kysely<Database>,
  authenticator: Authenticator,
  limiter?: Limiter
): void {
  app.decorateRequest('actor')
  app.decorateRequest('integration')
  app.decorateRequest('found')

  app.addHook('onRoute', (route) => {
    const { url, method, config } = route
    if (!config?.access) throw new Error(`${method} ${url} declares no access`)
    const rule: AccessRule = ACCESS[config.access]
    if (rule.on === 'nobody') {
      if (limiter) route.onRequest = limiter.countAnybody
      return
    }
    if ((rule.on === 'repository' || rule.on === 'organization') && !config.find) {
      throw new Error(`${method} ${url} does not find the ${rule.on} that it is about`)
    }
    const limit = config.uncounted ? undefined : limiter?.forRoute(url)
    const settle = settleAccess(db, authenticator, rule, config.find, limit)
    route.onRequest = limit ? limit.around(settle) : settle
  })
}

/** Methods that change nothing. */
const READING = new Set(['GET', 'HEAD'])

type Find = (request: FastifyRequest) => Promise<Found>

/** Made once for each route, since what a route declares does not change from request to request. */
function settleAccess(
  db: Kysely<Database>,
  authenticator: Authenticator,
  rule: AccessRule,
  find?: Find,
  limit?: RouteLimiter
) {
  const accepted = acceptedHeaders(rule)
  return async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    // A trailing slash is an empty parameter to the router, and no route to clients.
    if (Object.values(request.params as Record<string, string>).includes('')) throw new NotFound()
    const { authorization } = request.headers
    if (rule.on === 'integration') {
      const integration = await authenticator.authenticateApp(authorization, request.ip)
      request.integration = integration
      limit?.begin(request, reply, appSubject(integration.integration_id))
      request.found = find ? await find(request) : {}
      return
    }
    const actor =
      authenticator.recall(authorization) ?? (await authenticator.authenticate(authorization, request.ip))
    request.actor = actor
    setTokenHeaders(reply, actor, accepted)
    limit?.begin(request, reply, tokenSubject(actor.token.id))
    if (actor.token.readOnly && !READING.has(request.method) && !request.routeOptions.config.reads) {
      throw new Forbidden('This token only reads.')
    }
    if (rule.on === 'token' || rule.on === 'site') {
      requireAccess(actor, rule)
      request.found = find ? await find(request) : {}
      return
    }
    request.found = await find!(request)
    const { repository, organization } = request.found
    if (rule.on === 'organization') {
      requireOrganizationAccess(actor, rule, organization)
      return
    }
    if (!repository) await redirectRenamed(db, request)
    requireRepositoryAccess(actor, rule, repository)
  }
}

/** An old name leads to the repository, for those who may see it. */
async function redirectRenamed(db: Kysely<Database>, request: FastifyRequest): Promise<void> {
  const locator = readLocator(request)
  if (!locator || !('repo' in locator)) return
  const renamed = await findRenamedRepository(db, request.actor.accountId, locator.owner, locator.repo)
  if (renamed && canSee(request.actor, renamed)) throw new Renamed(renamed.repository_id)
}

/** The repository that a path names; undefined when its number cannot be one. */
export function readLocator(request: FastifyRequest): RepositoryLocator | undefined {
  const { owner, repo, repository_id } = request.params as Record<string, string | undefined>
  if (owner !== undefined && repo !== undefined) {
    return isStorable(owner) && isStorable(repo) ? { owner, repo } : undefined
  }
  const repositoryId = readId(repository_id)
  return repositoryId === undefined ? undefined : { repositoryId }
}

/** The organization that a path names; undefined when nothing can be like it. */
function readOrganizationLocator(request: FastifyRequest): OrganizationLocator | undefined {
  const { org, organization_id } = request.params as Record<string, string | undefined>
  if (org !== undefined) return isStorable(org) ? { org } : undefined
  const organizationId = readId(organization_id)
  return organizationId === undefined ? undefined : { organizationId }
}

/** PostgreSQL's text holds no NUL. */
export function isStorable(text: string): boolean {
  return !text.includes('\0')
}

/** A decimal id of a path; undefined when nothing can have it. */
export function readId(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9]{1,16}$/.test(text)) return undefined
  const id = Number(text)
  return Number.isSafeInteger(id) && id > 0 ? id : undefined
}

/** Runs a query about the repository of a path, if the path can name one. */
export async function findIn(
  request: FastifyRequest,
  find: (locator: RepositoryLocator) => Promise<Found | undefined>
): Promise<Found> {
  const locator = readLocator(request)
  return (locator && (await find(locator))) ?? {}
}

/** Runs a query about the organization of a path, if the path can name one. */
export async function findInOrganization(
  request: FastifyRequest,
  find: (locator: OrganizationLocator) => Promise<Found | undefined>
): Promise<Found> {
  const locator = readOrganizationLocator(request)
  return (locator && (await find(locator))) ?? {}
}

/** Finds the installation of a path; throws unless it is one of the App that asks. */
export function findOwnInstallation(db: Kysely<Database>) {
  return async ({ params, integration }: FastifyRequest): Promise<Found> => {
    const installationId = readId((params as { installation_id: string }).installation_id)
    if (installationId === undefined) throw new NotFound()
    const integrationId = integration.integration_id
    const installation = await findInstallation(db, { installationId, integrationId })
    if (!installation) throw new NotFound()
    return { installation }
  }
}

/** The login of a path; throws when none can be like it. */
export function readLogin(text: string): string {
  if (!isStorable(text)) throw new NotFound()
  return text
}
