import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import {
  changeInstallation,
  installApp,
  suspendInstallation,
  uninstallApp,
  unsuspendInstallation
} from '../../directory/installations.ts'
import { addKey, changeApp, registerApp, removeApp, removeKey } from '../../directory/integrations.ts'
import { InvalidInput, NotFound } from '../../errors.ts'
import { findAccount } from '../../store/accounts.ts'
import { findInstallation, type Installation, listInstallations } from '../../store/installations.ts'
import {
  type CountedIntegration,
  findIntegration,
  listIntegrations,
  listKeys
} from '../../store/integrations.ts'
import { apiPrefix, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { isStorable, readId, readLogin } from './guard.ts'
import {
  InstallationItem,
  IntegrationItem,
  KeyItem,
  Permissions,
  presentInstallation,
  presentIntegration,
  presentKey
} from './integration-presenter.ts'
import { readPage, setLinks } from './pagination.ts'
import { NoContent, Nullable, PageQuery, responses } from './schemas.ts'

// GitHub Apps, as an administrator registers and installs them: an extension, since GitHub has web pages for it.

const CONFIG = { access: 'site_admin' } as const
const TAGS = ['administration']
const EXTENSION = 'An extension: GitHub has web pages for this.'

const Description = Type.Optional(Nullable(Type.String()))
const NewApp = Type.Object({
  name: Type.String({ description: '34 characters at most; its slug is made of it' }),
  owner: Type.String({ description: 'The login of the user or the organization that owns the App' }),
  description: Description,
  permissions: Permissions
})
const AppChange = Type.Object({ description: Description, permissions: Type.Optional(Permissions) })
const AppParams = Type.Object({ app_slug: Type.String() })
const KeyParams = Type.Object({ ...AppParams.properties, key_id: Type.Integer() })
const InstallationParams = Type.Object({ installation_id: Type.Integer() })

const Pem = Type.String({
  description: 'The private key, PKCS#1 in PEM: shown this once, and stored nowhere'
})
const RegisteredApp = Type.Object({ ...IntegrationItem.properties, key: KeyItem, pem: Pem })
const NewKey = Type.Object({ ...KeyItem.properties, pem: Pem })

const Selection = {
  repositories: Type.Optional(
    Type.Array(Type.String(), {
      maxItems: 1000,
      description: 'Names, without their owner, of repositories that the account owns'
    })
  ),
  all_repositories: Type.Optional(
    Type.Literal(true, { description: 'Instead: all that the account owns, now and later' })
  ),
  permissions: Type.Optional(Permissions)
}
const NewInstallation = Type.Object({
  account: Type.String({ description: 'The login of a user or an organization' }),
  ...Selection
})
const InstallationChange = Type.Object(Selection)
type InstallationChange = Static<typeof InstallationChange>

function invalid(field: string, message: string): InvalidInput {
  return new InvalidInput('Validation Failed', [{ field, code: 'invalid', message }])
}

function readSelection({ repositories, all_repositories }: InstallationChange) {
  if (repositories && all_repositories) {
    throw invalid('repositories', 'give repositories or all_repositories, not both')
  }
  return all_repositories ? ('all' as const) : repositories
}

export const adminAppRoutes: GitHubRoutes = (app, { db, authenticator }) => {
  const base = (request: FastifyRequest) => app.baseUrl() + apiPrefix(request)

  const requireAccount = async (login: string, field: string) => {
    const account = isStorable(login) ? await findAccount(db, login) : undefined
    if (account) return account
    throw invalid(field, `${field} is not the login of a user or an organization`)
  }

  const getApp = async (request: FastifyRequest): Promise<CountedIntegration> => {
    const { app_slug } = request.params as { app_slug: string }
    const integration = await findIntegration(db, readLogin(app_slug))
    if (!integration) throw new NotFound()
    return integration
  }

  const getInstallation = async (request: FastifyRequest): Promise<Installation> => {
    const installationId = readId((request.params as { installation_id: string }).installation_id)
    const installation =
      installationId === undefined ? undefined : await findInstallation(db, { installationId })
    if (!installation) throw new NotFound()
    return installation
  }

  const presentById = async (request: FastifyRequest, installationId: number) => {
    const installation = await findInstallation(db, { installationId })
    if (!installation) throw new NotFound()
    return presentInstallation(base(request), installation)
  }

  app.post<{ Body: Static<typeof NewApp> }>(
    '/admin/apps',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/create-app',
        summary: 'Register a GitHub App, with its first key',
        description: EXTENSION,
        body: NewApp,
        response: responses({ 201: RegisteredApp })
      }
    },
    async (request, reply) => {
      const { owner, name, description, permissions } = request.body
      const account = await requireAccount(owner, 'owner')
      const { slug, key } = await registerApp(db, principal(request), account, {
        name,
        permissions,
        ...(description !== undefined && { description })
      })
      const integration = await findIntegration(db, slug)
      if (!integration) throw new NotFound()
      const { pem, ...publicPart } = key
      const shown = presentIntegration(base(request), integration)
      return reply.code(201).send({ ...shown, key: presentKey(publicPart), pem })
    }
  )

  app.get(
    '/admin/apps',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/list-apps',
        summary: 'List GitHub Apps',
        description: EXTENSION,
        querystring: PageQuery,
        response: responses({ 200: Type.Array(IntegrationItem) })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const { total, integrations } = await listIntegrations(db, page)
      setLinks(request, reply, page, total, '/admin/apps')
      return integrations.map((integration) => presentIntegration(base(request), integration))
    }
  )

  app.patch<{ Body: Static<typeof AppChange> }>(
    '/admin/apps/:app_slug',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/update-app',
        summary: 'Change what a GitHub App asks for',
        description: `${EXTENSION} Installations lose at once what the App loses, and gain nothing by themselves.`,
        params: AppParams,
        body: AppChange,
        response: responses({ 200: IntegrationItem })
      }
    },
    async (request) => {
      const { description, permissions } = request.body
      authenticator.forget(
        await changeApp(db, principal(request), await getApp(request), {
          ...(description !== undefined && { description }),
          ...(permissions && { permissions })
        })
      )
      return presentIntegration(base(request), await getApp(request))
    }
  )

  app.delete(
    '/admin/apps/:app_slug',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/delete-app',
        summary: 'Delete a GitHub App with its keys, installations and tokens',
        description: EXTENSION,
        params: AppParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      authenticator.forget(await removeApp(db, principal(request), await getApp(request)))
      return reply.code(204).send()
    }
  )

  app.get(
    '/admin/apps/:app_slug/keys',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/list-app-keys',
        summary: 'List the keys of a GitHub App',
        description: EXTENSION,
        params: AppParams,
        response: responses({ 200: Type.Array(KeyItem) })
      }
    },
    async (request) => (await listKeys(db, (await getApp(request)).integration_id)).map(presentKey)
  )

  app.post(
    '/admin/apps/:app_slug/keys',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/create-app-key',
        summary: 'Make one more key for a GitHub App',
        description: `${EXTENSION} The keys that it has stay valid until they are deleted.`,
        params: AppParams,
        response: responses({ 201: NewKey })
      }
    },
    async (request, reply) => {
      const { pem, ...key } = await addKey(db, principal(request), await getApp(request))
      return reply.code(201).send({ ...presentKey(key), pem })
    }
  )

  app.delete<{ Params: { key_id: string } }>(
    '/admin/apps/:app_slug/keys/:key_id',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/delete-app-key',
        summary: 'Delete a key of a GitHub App: what it signs is refused at once',
        description: EXTENSION,
        params: KeyParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const integration = await getApp(request)
      const keyId = readId(request.params.key_id)
      if (keyId === undefined) throw new NotFound()
      await removeKey(db, principal(request), integration, keyId)
      return reply.code(204).send()
    }
  )

  app.post<{ Body: Static<typeof NewInstallation> }>(
    '/admin/apps/:app_slug/installations',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/install-app',
        summary: 'Install a GitHub App on an account',
        description: `${EXTENSION} Without \`permissions\` it gets all that the App asks for.`,
        params: AppParams,
        body: NewInstallation,
        response: responses({ 201: InstallationItem })
      }
    },
    async (request, reply) => {
      const integration = await getApp(request)
      const account = await requireAccount(request.body.account, 'account')
      const selection = readSelection(request.body)
      if (!selection) throw invalid('repositories', 'give repositories, or all_repositories: true')
      const { permissions } = request.body
      const id = await installApp(db, principal(request), integration, account, { selection, permissions })
      return reply.code(201).send(await presentById(request, id))
    }
  )

  app.get(
    '/admin/apps/:app_slug/installations',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/list-app-installations',
        summary: 'List the installations of a GitHub App',
        description: EXTENSION,
        params: AppParams,
        querystring: PageQuery,
        response: responses({ 200: Type.Array(InstallationItem) })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const { integration_id, slug } = await getApp(request)
      const { total, installations } = await listInstallations(db, { integrationId: integration_id }, page)
      setLinks(request, reply, page, total, `/admin/apps/${slug}/installations`)
      return installations.map((installation) => presentInstallation(base(request), installation))
    }
  )

  app.patch<{ Body: InstallationChange }>(
    '/admin/installations/:installation_id',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/update-installation',
        summary: 'Change the repositories or the permissions of an installation',
        description: `${EXTENSION} It acts at once, for tokens that were minted before, too.`,
        params: InstallationParams,
        body: InstallationChange,
        response: responses({ 200: InstallationItem })
      }
    },
    async (request) => {
      const installation = await getInstallation(request)
      const selection = readSelection(request.body)
      const { permissions } = request.body
      const change = { ...(selection && { selection }), permissions }
      authenticator.forget(await changeInstallation(db, principal(request), installation, change))
      return await presentById(request, installation.installation_id)
    }
  )

  app.delete(
    '/admin/installations/:installation_id',
    {
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: 'coffer/uninstall-app',
        summary: 'Remove an installation with its tokens',
        description: EXTENSION,
        params: InstallationParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      authenticator.forget(await uninstallApp(db, principal(request), await getInstallation(request)))
      return reply.code(204).send()
    }
  )

  for (const { method, change, operation, summary } of [
    {
      method: 'PUT',
      change: suspendInstallation,
      operation: 'suspend',
      summary: 'Suspend an installation: only an administrator lifts that'
    },
    {
      method: 'DELETE',
      change: unsuspendInstallation,
      operation: 'unsuspend',
      summary: 'Lift the suspension of an installation, whoever suspended it'
    }
  ] as const) {
    app.route({
      method,
      url: '/admin/installations/:installation_id/suspended',
      config: CONFIG,
      schema: {
        tags: TAGS,
        operationId: `coffer/${operation}-installation`,
        summary,
        description: EXTENSION,
        params: InstallationParams,
        response: responses({ 204: NoContent })
      },
      handler: async (request, reply) => {
        const installation = await getInstallation(request)
        authenticator.forget(await change(db, principal(request), installation, 'administrator'))
        return reply.code(204).send()
      }
    })
  }
}
