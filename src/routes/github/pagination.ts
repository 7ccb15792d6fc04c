import type { FastifyReply, FastifyRequest } from 'fastify'
import { apiPrefix } from './context.ts'

const DEFAULT_PER_PAGE = 30
const MAX_PER_PAGE = 100

export interface PageRequest {
  page: number
  perPage: number
  limit: number
  offset: number
}

function positive(text: unknown): number | undefined {
  if (typeof text !== 'string' || !/^[0-9]{1,9}$/.test(text)) return undefined
  const number = Number(text)
  return number >= 1 ? number : undefined
}

/** The page that a query asks for. Too many per page are cut, everything else out of range is the default. */
export function readPage(request: FastifyRequest): PageRequest {
  const query = request.query as Record<string, unknown>
  const perPage = Math.min(positive(query.per_page) ?? DEFAULT_PER_PAGE, MAX_PER_PAGE)
  const page = positive(query.page) ?? 1
  return { page, perPage, limit: perPage, offset: (page - 1) * perPage }
}

/**
 * Sets the Link header as GitHub does: prev, next, last, first, each where it applies; the query's order and
 * its other parameters are kept. `path` is the numeric form of the request's path, without prefix.
 */
export function setLinks(
  request: FastifyRequest,
  reply: FastifyReply,
  { page, perPage }: PageRequest,
  total: number,
  path: string
): void {
  const last = Math.max(1, Math.ceil(total / perPage))
  const links: string[] = []
  const query = new URLSearchParams(request.url.split('?')[1] ?? '')
  const link = (number: number, relation: string) => {
    query.set('page', String(number))
    links.push(`<${request.server.baseUrl()}${apiPrefix(request)}${path}?${query}>; rel="${relation}"`)
  }
  if (page > 1) link(page - 1, 'prev')
  if (page < last) link(page + 1, 'next')
  if (page < last) link(last, 'last')
  else if (page > last) link(last, 'last')
  if (page > 1) link(1, 'first')
  if (links.length > 0) reply.header('link', links.join(', '))
}
