import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { sightOf } from '../../auth/actor.ts'
import { removeOrganization } from '../../directory/accounts.ts'
import { findOrganization, listMembers, listOrganizationsOf } from '../../store/organizations.ts'
import { listRepositories } from '../../store/repositories.ts'
import {
  OrganizationFull,
  OrganizationSimple,
  presentFullOrganization,
  presentOrganization,
  presentSimpleUser,
  SimpleUser
} from './account-presenter.ts'
import { apiPrefix, type Found, foundOrganization, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findInOrganization } from './guard.ts'
import { readApiVersion } from './headers.ts'
import { readPage, setLinks } from './pagination.ts'
import { MinimalRepository, presentRepository } from './repository-presenter.ts'
import { EmptyObject, OrganizationParams, PageQuery, responses } from './schemas.ts'

// Organizations, as far as clients look them up. https://docs.github.com/rest/orgs/orgs

const DOCS = 'https://docs.github.com/rest'
const TAGS = ['directory']

export const organizationRoutes: GitHubRoutes = (app, { db, authenticator }) => {
  const base = (request: FastifyRequest) => app.baseUrl() + apiPrefix(request)
  const find = (request: FastifyRequest): Promise<Found> =>
    findInOrganization(request, async (locator) => ({
      organization: await findOrganization(db, request.actor.accountId, locator)
    }))

  for (const path of ['/orgs/:org', '/organizations/:organization_id']) {
    const hide = path.startsWith('/organizations')
    const common = { tags: TAGS, hide, ...(!hide && { params: OrganizationParams }) }

    app.get(
      path,
      {
        config: { access: 'organization:see', find, docs: `${DOCS}/orgs/orgs#get-an-organization` },
        schema: {
          ...common,
          operationId: 'orgs/get',
          summary: 'Get an organization',
          response: responses({ 200: OrganizationFull })
        }
      },
      async (request) => presentFullOrganization(base(request), foundOrganization(request))
    )

    app.delete(
      path,
      {
        config: { access: 'organization:admin', find, docs: `${DOCS}/orgs/orgs#delete-an-organization` },
        schema: {
          ...common,
          operationId: 'orgs/delete',
          summary: 'Delete an organization with its secrets and repositories',
          description: "Done when it is answered; the status is GitHub's.",
          response: responses({ 202: EmptyObject })
        }
      },
      async (request, reply) => {
        const { organization_id, organization_uid, login } = foundOrganization(request)
        const organization = { id: organization_id, uid: organization_uid, login }
        authenticator.forget(await removeOrganization(db, principal(request), organization))
        return reply.code(202).send({})
      }
    )

    app.get(
      `${path}/repos`,
      {
        config: {
          access: 'organization:see',
          find,
          docs: `${DOCS}/repos/repos#list-organization-repositories`
        },
        schema: {
          ...common,
          operationId: 'repos/list-for-org',
          summary: 'List repositories of an organization',
          querystring: Type.Object({
            ...PageQuery.properties,
            type: Type.Optional(Type.String({ description: 'all, public or private' }))
          }),
          response: responses({ 200: Type.Array(MinimalRepository) })
        }
      },
      async (request, reply) => {
        const page = readPage(request)
        const { organization_id } = foundOrganization(request)
        const { type } = request.query as { type?: string }
        const { total, repositories } = await listRepositories(db, sightOf(request.actor), {
          ownerId: organization_id,
          ...(type === 'public' || type === 'private' ? { visibility: type } : {}),
          ...page
        })
        setLinks(request, reply, page, total, `/organizations/${organization_id}/repos`)
        return repositories.map((facts) => presentRepository(base(request), facts, readApiVersion(request)))
      }
    )

    app.get(
      `${path}/members`,
      {
        config: { access: 'members:read', find, docs: `${DOCS}/orgs/members#list-organization-members` },
        schema: {
          ...common,
          operationId: 'orgs/list-members',
          summary: 'List members of an organization, for its members',
          querystring: Type.Object({
            ...PageQuery.properties,
            role: Type.Optional(Type.String({ description: 'all, admin or member' }))
          }),
          response: responses({ 200: Type.Array(SimpleUser) })
        }
      },
      async (request, reply) => {
        const page = readPage(request)
        const { organization_id } = foundOrganization(request)
        const { role } = request.query as { role?: string }
        const { total, members } = await listMembers(db, organization_id, {
          ...(role === 'admin' || role === 'member' ? { role } : {}),
          ...page
        })
        setLinks(request, reply, page, total, `/organizations/${organization_id}/members`)
        return members.map((member) => presentSimpleUser(base(request), member))
      }
    )
  }

  app.get(
    '/user/orgs',
    {
      config: {
        access: 'organizations:list',
        docs: `${DOCS}/orgs/orgs#list-organizations-for-the-authenticated-user`
      },
      schema: {
        tags: TAGS,
        operationId: 'orgs/list-for-authenticated-user',
        summary: 'List organizations of the authenticated user',
        querystring: PageQuery,
        response: responses({ 200: Type.Array(OrganizationSimple) })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const { total, organizations } = await listOrganizationsOf(db, request.actor.accountId, page)
      setLinks(request, reply, page, total, '/user/orgs')
      return organizations.map(({ organization_id, login }) =>
        presentOrganization(base(request), { id: organization_id, login })
      )
    }
  )
}
