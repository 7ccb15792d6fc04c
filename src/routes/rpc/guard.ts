import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import {
  ACCESS,
  type AccessRule,
  requireAccess,
  requireOrganizationAccess,
  requireProjectAccess
} from '../../auth/access.ts'
import { type Actor, principalOf } from '../../auth/actor.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import { addressSubject, type RateLimits, tokenSubject } from '../../auth/rate-limits.ts'
import { Forbidden, NotFound, Unauthenticated } from '../../errors.ts'
import type { TokenPrincipal } from '../../secrets/vault.ts'
import { findActingOrganization } from '../../store/acting.ts'
import { findProject } from '../../store/projects.ts'
import type { Database } from '../../store/tables.ts'
import { isTokenThere } from '../../store/tokens.ts'
import type { Call, Method, StreamMethod } from './method.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** of a method of Ona's API, once it is known who asks */
    call: Call | undefined
  }
}

export interface GuardDependencies {
  db: Kysely<Database>
  authenticator: Authenticator
  rateLimits: RateLimits | undefined
}

const NO_APPS = 'Tokens of GitHub Apps are for GitHub’s API; use the token of a user or of a service account.'
export const NO_ORGANIZATION =
  'This token acts in no organization: its account is a member of none. Ask an owner of one to add it.'
const READ_ONLY = 'This token only reads.'

/**
 * Who asks, and whether the token and the role in the organization allow it: settled before a message is read. What
 * depends on the message follows in `settleMessage`. A method that is open to all asks for no token, and looks at none.
 */
export function settleAccess(dependencies: GuardDependencies, method: Method | StreamMethod) {
  const rule: AccessRule = ACCESS[method.access]
  return async (request: FastifyRequest): Promise<void> => {
    if (rule.on === 'nobody') {
      await dependencies.rateLimits?.count(addressSubject(request.ip), 'core')
      request.call = { http: request } as Call
      return
    }
    const actor = await authenticate(dependencies, request)
    const acting = { tokenId: actor.token.id, actorId: actor.accountId }
    const principal = principalOf(actor, request.id) as TokenPrincipal
    request.call = { actor, acting, principal, http: request } as Call
    if (actor.kind === 'installation') throw new Forbidden(NO_APPS)
    if (actor.token.readOnly && !method.reads) throw new Forbidden(READ_ONLY)
    requireAccess(actor, rule)
    if (rule.on === 'organization') await settleOrganization(dependencies.db, request.call, rule)
  }
}

async function authenticate(
  { authenticator, rateLimits }: GuardDependencies,
  request: FastifyRequest
): Promise<Actor> {
  const { authorization } = request.headers
  try {
    const actor =
      authenticator.recall(authorization) ?? (await authenticator.authenticate(authorization, request.ip))
    // What a runner asks is nobody's to choose: it follows from what environments do.
    if (actor.kind !== 'runner') await rateLimits?.count(tokenSubject(actor.token.id), 'core')
    return actor
  } catch (error) {
    if (error instanceof Unauthenticated) await rateLimits?.count(addressSubject(request.ip), 'core')
    throw error
  }
}

/** Where no token is asked for: a valid one counts all the same, and guessing is a failed login here, too. */
export async function countAnybody(dependencies: GuardDependencies, request: FastifyRequest): Promise<void> {
  try {
    await authenticate(dependencies, request)
  } catch (error) {
    if (!(error instanceof Unauthenticated)) throw error
  }
}

async function settleOrganization(db: Kysely<Database>, call: Call, rule: AccessRule): Promise<void> {
  const organization = await findActingOrganization(db, call.acting)
  if (!organization) throw new Forbidden(NO_ORGANIZATION)
  requireOrganizationAccess(call.actor, rule, organization)
  call.organization = organization
}

/** What the message says it is about: a project, or an organization, which can only be that of the token. */
export async function settleMessage(
  { db }: GuardDependencies,
  method: Method | StreamMethod,
  input: { projectId?: string; organizationId?: string },
  call: Call
): Promise<void> {
  const rule: AccessRule = ACCESS[method.access]
  const { organizationId } = input
  if (rule.on === 'organization' && organizationId && organizationId !== call.organization.organization_uid) {
    throw new NotFound('This token acts in no organization of that id.')
  }
  if (rule.on !== 'project') return
  const project = await findProject(db, call.acting, input.projectId!)
  if (!project?.project_role)
    throw new NotFound('There is no such project in the organization of this token.')
  requireProjectAccess(call.actor, rule, project)
  call.project = project
}

/**
 * What a token reaches nothing of any more because it was revoked a moment ago, while it is remembered as valid, is
 * refused as that.
 */
export async function asRevoked<E>(
  db: Kysely<Database>,
  error: E,
  call: Partial<Call> | null | undefined
): Promise<E | Unauthenticated> {
  if (!(call?.actor && (error instanceof Forbidden || error instanceof NotFound))) return error
  const isThere = await isTokenThere(db, call.actor.token.id).catch(() => true)
  return isThere ? error : new Unauthenticated(true)
}

export function decorate(app: FastifyInstance): void {
  app.decorateRequest('call')
}
