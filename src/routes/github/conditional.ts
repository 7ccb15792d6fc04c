import { hash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'

/** Weak tag of an answer from its bytes. */
export function bodyTag(payload: string | Buffer): string {
  return `W/"${hash('sha256', payload, 'hex')}"`
}

/** The opaque parts of a list of entity tags, weak or not, joined by commas; `*` stays. */
export function readIfMatch(request: FastifyRequest): string | undefined {
  const header = request.headers['if-match']
  if (header === undefined) return undefined
  return header
    .split(',')
    .map((tag) =>
      tag
        .trim()
        .replace(/^W\//, '')
        .replace(/^"(.*)"$/, '$1')
    )
    .join(',')
}

function matches(header: string, tag: string): boolean {
  const opaque = tag.replace(/^W\//, '')
  return header.split(',').some((candidate) => {
    const trimmed = candidate.trim()
    return trimmed === '*' || trimmed.replace(/^W\//, '') === opaque
  })
}

/** Tags an answer to GET or HEAD, and turns it into 304 when the client has it (RFC 9110, 13.1.2). */
export function answerConditionally(request: FastifyRequest, reply: FastifyReply, payload: unknown): unknown {
  const reading = request.method === 'GET' || request.method === 'HEAD'
  if (!reading || reply.statusCode !== 200 || typeof payload !== 'string') return payload
  const tag = (reply.getHeader('etag') as string | undefined) ?? bodyTag(payload)
  reply.header('etag', tag)
  const ifNoneMatch = request.headers['if-none-match']
  if (ifNoneMatch === undefined || !matches(ifNoneMatch, tag)) return payload
  reply.code(304).removeHeader('content-type').removeHeader('content-length')
  // For HEAD, Fastify takes the length from the payload, drops it afterwards, and fails on null.
  return request.method === 'HEAD' ? payload : null
}
