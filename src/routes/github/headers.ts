import type { FastifyReply, FastifyRequest } from 'fastify'
import type { AccessRule } from '../../auth/access.ts'
import type { Actor } from '../../auth/actor.ts'
import { NotAcceptable, type Standing, UnsupportedApiVersion } from '../../errors.ts'

export const API_VERSIONS = ['2022-11-28', '2026-03-10'] as const
export type ApiVersion = (typeof API_VERSIONS)[number]
const DEFAULT_API_VERSION: ApiVersion = '2022-11-28'

const EXPOSED = [
  'ETag',
  'Link',
  'Location',
  'Retry-After',
  'X-GitHub-OTP',
  'X-RateLimit-Limit',
  'X-RateLimit-Remaining',
  'X-RateLimit-Used',
  'X-RateLimit-Resource',
  'X-RateLimit-Reset',
  'X-OAuth-Scopes',
  'X-Accepted-OAuth-Scopes',
  'X-Poll-Interval',
  'X-GitHub-Media-Type',
  'X-GitHub-SSO',
  'X-GitHub-Request-Id',
  'Deprecation',
  'Sunset'
].join(', ')

/** On every answer of the API, whatever it is. */
const COMMON = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': EXPOSED,
  'x-frame-options': 'deny',
  'x-content-type-options': 'nosniff',
  'x-xss-protection': '0',
  'referrer-policy': 'origin-when-cross-origin, strict-origin-when-cross-origin',
  'content-security-policy': "default-src 'none'"
}

/** On answers to GET and HEAD. */
const READING = {
  ...COMMON,
  'cache-control': 'private, max-age=60, s-maxage=60',
  vary: 'Accept, Authorization, Cookie, X-GitHub-OTP, Accept-Encoding, Accept, X-Requested-With'
}

const PREFLIGHT = {
  'access-control-allow-methods': 'GET, POST, PATCH, PUT, DELETE',
  'access-control-allow-headers':
    'Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Unmodified-Since, ' +
    'Accept-Encoding, X-GitHub-OTP, X-Requested-With, User-Agent, X-GitHub-Api-Version',
  'access-control-max-age': '86400'
}

export function setCommonHeaders(request: FastifyRequest, reply: FastifyReply): void {
  const reading = request.method === 'GET' || request.method === 'HEAD'
  reply.headers(reading ? READING : COMMON).header('x-github-request-id', request.id)
}

export function setPreflightHeaders(reply: FastifyReply): void {
  reply.headers(PREFLIGHT)
}

/** Which of the two versions a request asks for; throws for any other. */
export function readApiVersion(request: FastifyRequest): ApiVersion {
  const asked = request.headers['x-github-api-version']
  if (asked === undefined || asked === '') return DEFAULT_API_VERSION
  const known = API_VERSIONS.find((version) => version === asked)
  if (!known) throw new UnsupportedApiVersion(API_VERSIONS)
  return known
}

/**
 * What `X-GitHub-Media-Type` tells, from Accept. Everything that JSON can answer is accepted, the empty header
 * and previews of any name included.
 */
export function readMediaType(request: FastifyRequest): string {
  const accept = request.headers.accept
  if (!accept || accept === '*/*') return 'github.v3; format=json'
  const types = accept.split(',').map((type) => type.split(';')[0]!.trim().toLowerCase())
  if (!types.some(isJson)) throw new NotAcceptable()
  const named = /application\/vnd\.github\.([a-z0-9-]+)/.exec(accept.toLowerCase())?.[1]
  const version = named === undefined ? 'v3' : named
  return `github.${version}; format=json`
}

function isJson(type: string): boolean {
  return (
    type === '' ||
    type === '*/*' ||
    type === 'application/*' ||
    type === 'application/json' ||
    type.startsWith('application/vnd.github') ||
    /^application\/[^/]+\+json$/.test(type)
  )
}

/** What an operation accepts, for either kind of token. */
export interface AcceptedHeaders {
  scopes: string
  permission: string | undefined
}

export function acceptedHeaders({ scopes, permission }: AccessRule): AcceptedHeaders {
  return { scopes: scopes.join(', '), permission: permission && `${permission.name}=${permission.level}` }
}

/** What the token has and what the operation accepts; the names of scopes for classic tokens alone. */
export function setTokenHeaders(reply: FastifyReply, { token }: Actor, accepted: AcceptedHeaders): void {
  if (token.kind === 'classic') {
    reply.header('x-oauth-scopes', token.scopeNames)
    reply.header('x-accepted-oauth-scopes', accepted.scopes)
  } else if (accepted.permission) {
    reply.header('x-accepted-github-permissions', accepted.permission)
  }
  if (token.expiration) reply.header('github-authentication-token-expiration', token.expiration)
}

/** Who was let in before the operator lowered the limit may have used more than it. */
export function remainingOf({ limit, used }: Standing): number {
  return Math.max(0, limit - used)
}

export function setRateLimitHeaders(reply: FastifyReply, standing: Standing): void {
  reply.headers({
    'x-ratelimit-limit': standing.limit,
    'x-ratelimit-remaining': remainingOf(standing),
    'x-ratelimit-reset': standing.reset,
    'x-ratelimit-used': standing.used,
    'x-ratelimit-resource': standing.resource
  })
}
