import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import {
  AlreadyExists,
  BodyTooLarge,
  ClassNotAllowed,
  CofferError,
  Conflict,
  Forbidden,
  InvalidInput,
  LastOwner,
  LeaseTaken,
  LimitExceeded,
  NotFound,
  PreconditionFailed,
  RateLimited,
  TooManyFailedLogins,
  Unauthenticated,
  Unavailable,
  Unimplemented,
  UnreadableBody,
  type Violation
} from '../../errors.ts'
import { describeError } from '../../logger.ts'
import { isTemporaryDatabaseError } from '../../store/database.ts'
import { allowedClasses, badRequest, type ErrorDetail, retryInfo } from './error-details.ts'

/** Connect's codes with their statuses, https://connectrpc.com/docs/protocol#error-codes */
export const STATUSES = {
  canceled: 499,
  unknown: 500,
  invalid_argument: 400,
  deadline_exceeded: 504,
  not_found: 404,
  already_exists: 409,
  permission_denied: 403,
  resource_exhausted: 429,
  failed_precondition: 400,
  aborted: 409,
  out_of_range: 400,
  unimplemented: 501,
  internal: 500,
  unavailable: 503,
  data_loss: 500,
  unauthenticated: 401
} as const
export type Code = keyof typeof STATUSES

export interface ErrorBody {
  code: Code
  message: string
  details?: ErrorDetail[]
}

interface Answer extends ErrorBody {
  /** other than that of the code */
  status?: number
  /** undefined: the same request fails again */
  retryAfterSeconds?: number
}

/** SDKs have no limit on how long they sleep for a `retry-after`; past this they are told not to. */
const MAX_PATIENCE_SECONDS = 5

/** The first that fits. */
const CODES: readonly [abstract new (...parameters: never[]) => CofferError, Code][] = [
  [Unauthenticated, 'unauthenticated'],
  [InvalidInput, 'invalid_argument'],
  [UnreadableBody, 'invalid_argument'],
  [BodyTooLarge, 'resource_exhausted'],
  [LimitExceeded, 'failed_precondition'],
  [Conflict, 'failed_precondition'],
  [AlreadyExists, 'already_exists'],
  [PreconditionFailed, 'aborted'],
  [LeaseTaken, 'aborted'],
  [Unimplemented, 'unimplemented']
]

function answerOf(error: CofferError): Answer {
  const { message } = error
  if (error instanceof NotFound) {
    return { code: 'not_found', message: message === UNNAMED ? NOT_HERE : message }
  }
  if (error instanceof ClassNotAllowed) {
    return { code: 'failed_precondition', message, details: [allowedClasses(error.allowed)] }
  }
  if (error instanceof LastOwner) return { code: 'failed_precondition', message }
  if (error instanceof Forbidden) return { code: 'permission_denied', message: error.reason }
  if (error instanceof Unavailable) {
    return { code: 'unavailable', message, retryAfterSeconds: error.retryAfterSeconds }
  }
  if (error instanceof RateLimited || error instanceof TooManyFailedLogins) {
    const { retryAfterSeconds } = error
    return { code: 'resource_exhausted', message, retryAfterSeconds, details: [retryInfo(retryAfterSeconds)] }
  }
  if (error instanceof InvalidInput) return invalidAnswer(message, error.violations)
  const code = CODES.find(([type]) => error instanceof type)?.[1] ?? 'internal'
  return { code, message: code === 'internal' ? DEFECT : message }
}

function invalidAnswer(message: string, violations: readonly Violation[]): Answer {
  if (violations.length === 0) return { code: 'invalid_argument', message }
  const named = violations.map((violation) => `${violation.field}: ${violation.message}`).join('; ')
  const taken = violations.every(({ code }) => code === 'already_exists')
  return {
    code: taken ? 'already_exists' : 'invalid_argument',
    message: violations.every((violation) => message.includes(violation.message)) ? message : named,
    details: [badRequest(violations)]
  }
}

const UNNAMED = new NotFound().message
const NOT_HERE = 'There is nothing of that id that this token may know of.'
const DEFECT = 'The server failed; its log has the request id.'
const INTERNAL: Answer = { code: 'internal', message: DEFECT }

/** The same for what is no request of the framework: the status and the body. */
export function errorAnswer(error: unknown): { status: number; body: ErrorBody } {
  const unavailable = isTemporaryDatabaseError(error) ? new Unavailable() : undefined
  const known = error instanceof CofferError ? error : unavailable
  const { code, message, details, status } = known ? answerOf(known) : INTERNAL
  return { status: status ?? STATUSES[code], body: { code, message, ...(details && { details }) } }
}

function send(reply: FastifyReply, { code, message, details, status, retryAfterSeconds }: Answer): void {
  if (retryAfterSeconds !== undefined) reply.header('retry-after', retryAfterSeconds)
  const again = retryAfterSeconds !== undefined && retryAfterSeconds <= MAX_PATIENCE_SECONDS
  reply
    .code(status ?? STATUSES[code])
    .header('x-should-retry', String(again))
    .type('application/json')
    .serializer(JSON.stringify)
    .send({ code, message, ...(details && { details }) } satisfies ErrorBody)
}

/** Errors of the framework itself, in words that do not quote the request. */
const CLIENT_ERRORS: Record<number, { code: Code; message: string }> = {
  408: { code: 'deadline_exceeded', message: 'The request came too slowly.' },
  413: { code: 'resource_exhausted', message: 'The request body is too large.' }
}

/**
 * Turns whatever was thrown into Connect's form. What is no error of ours is a defect, or the database's: logged
 * without its message, answered with a fixed sentence.
 */
export function handleError(error: FastifyError | Error, request: FastifyRequest, reply: FastifyReply): void {
  const { statusCode } = error as FastifyError
  if (error instanceof CofferError) {
    if (error.status >= 500 && !(error instanceof Unimplemented)) {
      request.log.error({ reqId: request.id, err: describeError(error) }, 'request failed')
    }
    if (error instanceof RateLimited) request.server.metrics.requestLimited(error.counted)
    send(reply, answerOf(error))
  } else if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    send(
      reply,
      CLIENT_ERRORS[statusCode] ?? { code: 'invalid_argument', message: 'The request cannot be read.' }
    )
  } else if (isTemporaryDatabaseError(error)) {
    request.server.metrics.databaseUnavailable()
    request.log.warn({ reqId: request.id, code: describeError(error).code }, 'database unavailable')
    send(reply, answerOf(new Unavailable()))
  } else {
    request.log.error({ reqId: request.id, err: describeError(error) }, 'request failed')
    send(reply, INTERNAL)
  }
}

/** Whoever asks for a method that is not here learns so without a token, as for any other path. */
export function answerUnknownMethod(request: FastifyRequest, reply: FastifyReply): void {
  if (request.method !== 'POST') {
    reply.header('allow', 'POST')
    send(reply, { code: 'unimplemented', status: 405, message: 'Methods are called with POST.' })
    return
  }
  send(reply, { code: 'unimplemented', status: 404, message: 'This server has no such method.' })
}

/** Connect with protobuf is the other dialect of the same paths. */
export function answerUnknownEncoding(reply: FastifyReply): void {
  reply.header('accept-post', 'application/json')
  send(reply, {
    code: 'unimplemented',
    status: 415,
    message: 'This server reads JSON: send content-type application/json.'
  })
}
