import { type Static, Type } from '@sinclair/typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type LogRequest, readLog } from '../../audit/log.ts'
import { parsePhrase } from '../../audit/phrase.ts'
import { InvalidInput } from '../../errors.ts'
import { findOrganization } from '../../store/organizations.ts'
import { AuditLogEvent, cursorOf, parseCursor, presentEvent } from './audit-log-presenter.ts'
import { apiPrefix, foundOrganization } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findInOrganization } from './guard.ts'
import { readPage } from './pagination.ts'
import { OrganizationParams, responses } from './schemas.ts'

// The audit log, in the form of GitHub Enterprise Cloud's. https://docs.github.com/enterprise-cloud@latest/rest/orgs/orgs

const DOCS = 'https://docs.github.com/enterprise-cloud@latest/rest'
const TAGS = ['audit log']

const AuditLogQuery = Type.Object({
  phrase: Type.Optional(
    Type.String({
      description: 'Qualifiers action, actor, repo, created, org and outcome; a minus before one negates it'
    })
  ),
  include: Type.Optional(Type.String({ description: 'web, git or all; there are no git events here' })),
  after: Type.Optional(Type.String({ description: 'A cursor from the Link header' })),
  before: Type.Optional(Type.String({ description: 'A cursor from the Link header' })),
  order: Type.Optional(Type.String({ description: 'desc: newest first, or asc' })),
  per_page: Type.Optional(Type.Integer({ default: 30, description: 'Results per page, at most 100' }))
})
type AuditLogQuery = { [K in keyof Static<typeof AuditLogQuery>]?: unknown }

export const auditLogRoutes: GitHubRoutes = (app, { db }) => {
  const read = async (
    request: FastifyRequest,
    reply: FastifyReply,
    log: { path: string; streamUid?: string; showAddress: boolean }
  ) => {
    const asked = readQuery(request)
    // Git events are those of a git server; this is none.
    if (asked.include === 'git') return []
    const { streamUid } = log
    const page = await readLog(db, { ...asked.log, ...(streamUid !== undefined && { streamUid }) })
    setCursorLinks(request, reply, log.path, page)
    return page.events.map((row) => presentEvent(row, log))
  }

  for (const path of ['/orgs/:org', '/organizations/:organization_id']) {
    const hide = path.startsWith('/organizations')
    app.get(
      `${path}/audit-log`,
      {
        config: {
          access: 'audit-log:read',
          find: (request) =>
            findInOrganization(request, async (locator) => ({
              organization: await findOrganization(db, request.actor.accountId, locator)
            })),
          docs: `${DOCS}/orgs/orgs#get-the-audit-log-for-an-organization`
        },
        schema: {
          tags: TAGS,
          hide,
          operationId: 'orgs/get-audit-log',
          summary: 'Get the audit log of an organization, for its owners',
          ...(!hide && { params: OrganizationParams }),
          querystring: AuditLogQuery,
          response: responses({ 200: Type.Array(AuditLogEvent) })
        }
      },
      async (request, reply) => {
        const { organization_id, organization_uid } = foundOrganization(request)
        return await read(request, reply, {
          path: `/organizations/${organization_id}/audit-log`,
          streamUid: organization_uid,
          showAddress: false
        })
      }
    )
  }

  app.get(
    '/admin/audit-log',
    {
      config: {
        access: 'site_admin',
        docs: `${DOCS}/enterprise-admin/audit-log#get-the-audit-log-for-an-enterprise`
      },
      schema: {
        tags: TAGS,
        operationId: 'enterprise-admin/get-audit-log',
        summary: 'Get the audit log of the whole server, for site administrators',
        querystring: AuditLogQuery,
        response: responses({ 200: Type.Array(AuditLogEvent) })
      }
    },
    async (request, reply) => await read(request, reply, { path: '/admin/audit-log', showAddress: true })
  )
}

/** As every query is read, what is out of range is the default; but a phrase or a cursor that is wrong is refused. */
function readQuery(request: FastifyRequest): { include: unknown; log: LogRequest } {
  const { phrase, include, after, before, order } = request.query as AuditLogQuery
  if (after !== undefined && before !== undefined)
    throw invalid('before', 'after and before do not go together')
  const text = after ?? before
  const position = typeof text === 'string' && text !== '' ? parseCursor(text) : undefined
  if (text !== undefined && text !== '' && !position) {
    throw invalid(
      after === undefined ? 'before' : 'after',
      'it is no cursor of an audit log; take one from a Link header'
    )
  }
  return {
    include,
    log: {
      filter: parsePhrase(typeof phrase === 'string' ? phrase : ''),
      order: order === 'asc' ? 'asc' : 'desc',
      limit: readPage(request).limit,
      ...(position && { cursor: { side: after === undefined ? 'before' : 'after', position } })
    }
  }
}

function invalid(field: string, message: string): InvalidInput {
  return new InvalidInput('Validation Failed', [{ field, code: 'invalid', message }])
}

/** Next and prev, with the query's other parameters kept. */
function setCursorLinks(
  request: FastifyRequest,
  reply: FastifyReply,
  path: string,
  { next, previous }: Awaited<ReturnType<typeof readLog>>
): void {
  const link = (side: 'after' | 'before', cursor: string, relation: string) => {
    const query = new URLSearchParams(request.url.split('?')[1] ?? '')
    query.delete('after')
    query.delete('before')
    query.set(side, cursor)
    return `<${request.server.baseUrl()}${apiPrefix(request)}${path}?${query}>; rel="${relation}"`
  }
  const links = [
    ...(next ? [link('after', cursorOf(next), 'next')] : []),
    ...(previous ? [link('before', cursorOf(previous), 'prev')] : [])
  ]
  if (links.length > 0) reply.header('link', links.join(', '))
}
