import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { ACCESS, type AccessRule } from '../../auth/access.ts'
import {
  CofferError,
  Forbidden,
  ImproperlyEncrypted,
  InvalidInput,
  NotAcceptable,
  RateLimited,
  Renamed,
  TooManyFailedLogins,
  Unauthenticated,
  Unavailable,
  UnknownKey,
  type Violation
} from '../../errors.ts'
import { describeError } from '../../logger.ts'
import { isTemporaryDatabaseError } from '../../store/database.ts'
import { apiPrefix } from './context.ts'
import { setCommonHeaders, setRateLimitHeaders } from './headers.ts'

const REFERENCE = 'https://docs.github.com/rest'

/** GitHub's form of an error; `errors` only where something in the input is wrong. */
export interface ErrorBody {
  message: string
  errors?: { resource: string; field: string; code: string; message: string }[]
  documentation_url: string
  status: string
}

export function errorBody(
  status: number,
  message: string,
  docs: string | undefined,
  violations: readonly Violation[] = []
): ErrorBody {
  return {
    message,
    ...(violations.length > 0 && {
      errors: violations.map(({ field, code, message }) => ({ resource: 'Secret', field, code, message }))
    }),
    documentation_url: docs ?? REFERENCE,
    status: String(status)
  }
}

/** What in the input an error is about, so that a client can point to it. */
function violationsOf(error: CofferError): readonly Violation[] {
  if (error instanceof InvalidInput) return error.violations
  if (error instanceof ImproperlyEncrypted) {
    return [{ field: 'encrypted_value', code: 'custom', message: error.reason }]
  }
  if (error instanceof UnknownKey) {
    return [
      {
        field: 'key_id',
        code: 'custom',
        message:
          'key_id names no key that is accepted now; fetch the public key again and seal the value for it'
      }
    ]
  }
  return []
}

/** Wrong credentials and unknown routes point to the reference as a whole, everything else to the operation. */
function docsOf(error: CofferError, request: FastifyRequest): string | undefined {
  if (error instanceof NotAcceptable) return 'https://docs.github.com/v3/media'
  if (error instanceof RateLimited) return `${REFERENCE}/overview/rate-limits-for-the-rest-api`
  const general = error instanceof Unauthenticated && error.presented
  return general ? undefined : request.routeOptions.config.docs
}

function answer(request: FastifyRequest, reply: FastifyReply, error: CofferError): void {
  if (error instanceof Unavailable || error instanceof TooManyFailedLogins) {
    reply.header('retry-after', error.retryAfterSeconds)
  }
  if (error instanceof RateLimited) {
    request.server.metrics.requestLimited(error.counted)
    setRateLimitHeaders(reply, error.standing)
    reply.header('retry-after', error.retryAfterSeconds)
  }
  if (error instanceof Forbidden && !reply.hasHeader('x-accepted-oauth-scopes')) {
    const name = request.routeOptions.config.access
    const rule: AccessRule | undefined = name && ACCESS[name]
    if (rule && rule.scopes.length > 0 && request.actor?.token.kind === 'classic') {
      reply.header('x-accepted-oauth-scopes', rule.scopes.join(', '))
    }
  }
  // The compiled serializer puts what is optional last; GitHub's order has `errors` second.
  reply
    .code(error.status)
    .type('application/json; charset=utf-8')
    .serializer(JSON.stringify)
    .send(errorBody(error.status, error.message, docsOf(error, request), violationsOf(error)))
}

/** By number, as GitHub's own redirects; 307 keeps the method and the body where there may be one. */
function redirect(request: FastifyRequest, reply: FastifyReply, { repositoryId, message }: Renamed): void {
  const { owner, repo } = request.params as { owner: string; repo: string }
  const segments = request.url.split('?')[0]!.split('/').slice(4)
  const search = request.url.slice(request.url.split('?')[0]!.length)
  const rest = owner && repo && segments.length > 0 ? `/${segments.join('/')}` : ''
  const url = `${request.server.baseUrl()}${apiPrefix(request)}/repositories/${repositoryId}${rest}${search}`
  const status = request.method === 'GET' || request.method === 'HEAD' ? 301 : 307
  reply
    .code(status)
    .header('location', url)
    .send({
      message: status === 301 ? message : 'Temporary Redirect',
      url,
      documentation_url: `${REFERENCE}/guides/best-practices-for-using-the-rest-api#follow-redirects`
    })
}

/**
 * Turns whatever was thrown into GitHub's form. What is no error of ours is a defect, or the database's: logged
 * without its message, answered with a fixed sentence.
 */
export function handleError(error: FastifyError | Error, request: FastifyRequest, reply: FastifyReply): void {
  const { statusCode } = error as FastifyError
  if (error instanceof Renamed) {
    redirect(request, reply, error)
  } else if (error instanceof CofferError) {
    if (error.status >= 500)
      request.log.error({ reqId: request.id, err: describeError(error) }, 'request failed')
    answer(request, reply, error)
  } else if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    // Before the database's: a client that hangs up while it sends has the code of a connection reset, too.
    const message = CLIENT_ERRORS[statusCode] ?? 'Bad Request'
    reply.code(statusCode).send(errorBody(statusCode, message, request.routeOptions.config.docs))
  } else if (isTemporaryDatabaseError(error)) {
    request.server.metrics.databaseUnavailable()
    request.log.warn({ reqId: request.id, code: describeError(error).code }, 'database unavailable')
    answer(request, reply, new Unavailable())
  } else {
    request.log.error({ reqId: request.id, err: describeError(error) }, 'request failed')
    reply.code(500).send(errorBody(500, 'Server Error', request.routeOptions.config.docs))
  }
}

/** Errors of the framework itself, in words that do not quote the request. */
const CLIENT_ERRORS: Record<number, string> = {
  400: 'Problems parsing JSON',
  404: 'Not Found',
  408: 'Request Timeout',
  413: 'The request body is too large.',
  414: 'Not Found'
}

/** A request that the router cannot even decode: malformed percent-encoding, an endless parameter. */
export function handleRouterError(_error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  setCommonHeaders(request, reply)
  reply.code(404).send(errorBody(404, 'Not Found', undefined))
}
