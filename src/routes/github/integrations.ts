import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { suspendInstallation, uninstallApp, unsuspendInstallation } from '../../directory/installations.ts'
import { NotFound, Renamed } from '../../errors.ts'
import { findAccount } from '../../store/accounts.ts'
import {
  findInstallation,
  findInstallationOnRepository,
  listInstallations
} from '../../store/installations.ts'
import { findIntegration } from '../../store/integrations.ts'
import { findRenamedRepository, findRepository } from '../../store/repositories.ts'
import { apiPrefix, appPrincipal, foundInstallation } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findOwnInstallation, readLocator, readLogin } from './guard.ts'
import {
  InstallationItem,
  IntegrationItem,
  presentInstallation,
  presentIntegration
} from './integration-presenter.ts'
import { readPage, setLinks } from './pagination.ts'
import { NoContent, PageQuery, RepositoryParams, responses } from './schemas.ts'

// What a GitHub App asks for itself, with a JWT that it signed. https://docs.github.com/rest/apps/apps

const DOCS = 'https://docs.github.com/rest/apps/apps'
const COMMON = { tags: ['apps'] }

/** An App sees as an account without any role: for what is found by its name alone. */
const NOBODY = 0
export const InstallationParams = Type.Object({ installation_id: Type.Integer() })

function anchorOf(title: string): string {
  return title.toLowerCase().replaceAll(' ', '-')
}

export const integrationRoutes: GitHubRoutes = (app, { db, authenticator }) => {
  const base = (request: FastifyRequest) => app.baseUrl() + apiPrefix(request)

  const find = findOwnInstallation(db)

  app.get(
    '/app',
    {
      config: { access: 'integration', docs: `${DOCS}#get-the-authenticated-app` },
      schema: {
        ...COMMON,
        operationId: 'apps/get-authenticated',
        summary: 'Get the authenticated app',
        response: responses({ 200: IntegrationItem })
      }
    },
    async (request) => {
      const integration = await findIntegration(db, request.integration.slug)
      if (!integration) throw new NotFound()
      return presentIntegration(base(request), integration)
    }
  )

  app.get(
    '/app/installations',
    {
      config: { access: 'integration', docs: `${DOCS}#list-installations-for-the-authenticated-app` },
      schema: {
        ...COMMON,
        operationId: 'apps/list-installations',
        summary: 'List installations for the authenticated app',
        querystring: PageQuery,
        response: responses({ 200: Type.Array(InstallationItem) })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const integrationId = request.integration.integration_id
      const { total, installations } = await listInstallations(db, { integrationId }, page)
      setLinks(request, reply, page, total, '/app/installations')
      return installations.map((installation) => presentInstallation(base(request), installation))
    }
  )

  app.get(
    '/app/installations/:installation_id',
    {
      config: {
        access: 'integration',
        find,
        docs: `${DOCS}#get-an-installation-for-the-authenticated-app`
      },
      schema: {
        ...COMMON,
        operationId: 'apps/get-installation',
        summary: 'Get an installation for the authenticated app',
        params: InstallationParams,
        response: responses({ 200: InstallationItem })
      }
    },
    async (request) => presentInstallation(base(request), foundInstallation(request))
  )

  app.delete(
    '/app/installations/:installation_id',
    {
      config: {
        access: 'integration',
        find,
        docs: `${DOCS}#delete-an-installation-for-the-authenticated-app`
      },
      schema: {
        ...COMMON,
        operationId: 'apps/delete-installation',
        summary: 'Uninstall the app from an account, which revokes the tokens',
        params: InstallationParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      authenticator.forget(await uninstallApp(db, appPrincipal(request), foundInstallation(request)))
      return reply.code(204).send()
    }
  )

  for (const [method, operation, title, change] of [
    ['PUT', 'suspend', 'Suspend an app installation', suspendInstallation],
    ['DELETE', 'unsuspend', 'Unsuspend an app installation', unsuspendInstallation]
  ] as const) {
    app.route({
      method,
      url: '/app/installations/:installation_id/suspended',
      config: { access: 'integration', find, docs: `${DOCS}#${anchorOf(title)}` },
      schema: {
        ...COMMON,
        operationId: `apps/${operation}-installation`,
        summary: title,
        params: InstallationParams,
        response: responses({ 204: NoContent })
      },
      handler: async (request, reply) => {
        authenticator.forget(await change(db, appPrincipal(request), foundInstallation(request), 'app'))
        return reply.code(204).send()
      }
    })
  }

  const finders = [
    {
      path: '/repos/:owner/:repo/installation',
      params: RepositoryParams,
      operation: 'get-repo-installation',
      title: 'Get a repository installation for the authenticated app'
    },
    { path: '/repositories/:repository_id/installation' }
  ]
  for (const { path, params, operation, title } of finders) {
    app.get(
      path,
      {
        config: {
          access: 'integration',
          docs: `${DOCS}#get-a-repository-installation-for-the-authenticated-app`
        },
        schema: {
          ...COMMON,
          hide: !operation,
          ...(operation && { params, operationId: `apps/${operation}`, summary: title }),
          response: responses({ 200: InstallationItem })
        }
      },
      async (request) => {
        const { integration_id } = request.integration
        const locator = readLocator(request)
        if (!locator) throw new NotFound()
        const present = await findRepository(db, NOBODY, locator)
        const renamed =
          !present && 'repo' in locator
            ? await findRenamedRepository(db, NOBODY, locator.owner, locator.repo)
            : undefined
        const repositoryId = (present ?? renamed)?.repository_id
        const installation =
          repositoryId === undefined
            ? undefined
            : await findInstallationOnRepository(db, integration_id, repositoryId)
        if (!installation) throw new NotFound()
        if (renamed) throw new Renamed(renamed.repository_id)
        return presentInstallation(base(request), installation)
      }
    )
  }

  for (const { path, parameter, kinds, operation, title } of [
    {
      path: '/orgs/:org/installation',
      parameter: 'org',
      kinds: ['organization'],
      operation: 'get-org-installation',
      title: 'Get an organization installation for the authenticated app'
    },
    {
      path: '/users/:username/installation',
      parameter: 'username',
      // Clients that do not know what an account is ask here.
      kinds: ['user', 'organization'],
      operation: 'get-user-installation',
      title: 'Get a user installation for the authenticated app'
    }
  ]) {
    app.get(
      path,
      {
        config: { access: 'integration', docs: `${DOCS}#${anchorOf(title)}` },
        schema: {
          ...COMMON,
          operationId: `apps/${operation}`,
          summary: title,
          params: Type.Object({ [parameter]: Type.String() }),
          response: responses({ 200: InstallationItem })
        }
      },
      async (request) => {
        const login = (request.params as Record<string, string>)[parameter]!
        const account = await findAccount(db, readLogin(login))
        if (!account || !kinds.includes(account.kind)) throw new NotFound()
        const { integration_id } = request.integration
        const installation = await findInstallation(db, {
          integrationId: integration_id,
          accountId: account.id
        })
        if (!installation) throw new NotFound()
        return presentInstallation(base(request), installation)
      }
    )
  }

  app.get<{ Params: { app_slug: string } }>(
    '/apps/:app_slug',
    {
      config: { access: 'authenticated', docs: `${DOCS}#get-an-app` },
      schema: {
        tags: ['apps'],
        operationId: 'apps/get-by-slug',
        summary: 'Get an app',
        params: Type.Object({ app_slug: Type.String() }),
        response: responses({ 200: IntegrationItem })
      }
    },
    async (request) => {
      const integration = await findIntegration(db, readLogin(request.params.app_slug))
      if (!integration) throw new NotFound()
      const { installations_count, ...shown } = presentIntegration(base(request), integration)
      return shown
    }
  )
}
