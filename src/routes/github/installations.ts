import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import {
  addRepositoryToInstallation,
  removeRepositoryFromInstallation
} from '../../directory/installations.ts'
import { NotFound } from '../../errors.ts'
import { findInstallation, type Installation, listInstallations } from '../../store/installations.ts'
import { findOrganization } from '../../store/organizations.ts'
import { findRepository } from '../../store/repositories.ts'
import { apiPrefix, foundOrganization, foundRepository, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findIn, findInOrganization, readId } from './guard.ts'
import { InstallationList, presentInstallation } from './integration-presenter.ts'
import { readPage, setLinks } from './pagination.ts'
import { NoContent, OrganizationParams, PageQuery, responses } from './schemas.ts'

// What people see and change of the Apps on their accounts. https://docs.github.com/rest/apps/installations

const DOCS = 'https://docs.github.com/rest'
const TAGS = ['apps']

const Params = Type.Object({ installation_id: Type.Integer(), repository_id: Type.Integer() })

export const installationRoutes: GitHubRoutes = (app, { db, authenticator }) => {
  /** The installation of a path, on the account that owns the repository of the path. */
  const getInstallation = async (request: FastifyRequest): Promise<Installation> => {
    const installationId = readId((request.params as { installation_id: string }).installation_id)
    if (installationId === undefined) throw new NotFound()
    const accountId = foundRepository(request).owner_id
    const installation = await findInstallation(db, { installationId, accountId })
    if (!installation) throw new NotFound()
    return installation
  }

  for (const { method, change, operation, title } of [
    {
      method: 'PUT',
      change: addRepositoryToInstallation,
      operation: 'add-repo-to-installation',
      title: 'Add a repository to an app installation'
    },
    {
      method: 'DELETE',
      change: removeRepositoryFromInstallation,
      operation: 'remove-repo-from-installation',
      title: 'Remove a repository from an app installation'
    }
  ] as const) {
    app.route({
      method,
      url: '/user/installations/:installation_id/repositories/:repository_id',
      config: {
        access: 'repository:install',
        find: (request) =>
          findIn(request, async (locator) => ({
            repository: await findRepository(db, request.actor.accountId, locator)
          })),
        docs: `${DOCS}/apps/installations#${title.toLowerCase().replaceAll(' ', '-')}`
      },
      schema: {
        tags: TAGS,
        operationId: `apps/${operation}-for-authenticated-user`,
        summary: title,
        params: Params,
        response: responses({ 204: NoContent })
      },
      handler: async (request, reply) => {
        const installation = await getInstallation(request)
        authenticator.forget(await change(db, principal(request), installation, foundRepository(request)))
        return reply.code(204).send()
      }
    })
  }

  for (const path of ['/orgs/:org', '/organizations/:organization_id']) {
    const hide = path.startsWith('/organizations')
    app.get(
      `${path}/installations`,
      {
        config: {
          access: 'organization-installations:read',
          find: (request) =>
            findInOrganization(request, async (locator) => ({
              organization: await findOrganization(db, request.actor.accountId, locator)
            })),
          docs: `${DOCS}/orgs/orgs#list-app-installations-for-an-organization`
        },
        schema: {
          tags: TAGS,
          hide,
          ...(!hide && { params: OrganizationParams }),
          operationId: 'orgs/list-app-installations',
          summary: 'List app installations for an organization, for its owners',
          querystring: PageQuery,
          response: responses({ 200: InstallationList })
        }
      },
      async (request, reply) => {
        const page = readPage(request)
        const accountId = foundOrganization(request).organization_id
        const { total, installations } = await listInstallations(db, { accountId }, page)
        setLinks(request, reply, page, total, `/organizations/${accountId}/installations`)
        const base = app.baseUrl() + apiPrefix(request)
        return {
          total_count: total,
          installations: installations.map((installation) => presentInstallation(base, installation))
        }
      }
    )
  }
}
