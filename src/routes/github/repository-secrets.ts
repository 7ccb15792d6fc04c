import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { APPS, type App, type AppRules, appsOf } from '../../apps.ts'
import { findRepository } from '../../store/repositories.ts'
import { listReceivedSecrets, repositorySecrets } from '../../store/secrets-of-owner.ts'
import { type Found, foundRepository } from './context.ts'
import type { GitHubDependencies, GitHubRoutes } from './github.ts'
import { findIn } from './guard.ts'
import { readPage, setLinks } from './pagination.ts'
import { PageQuery, RepositoryParams, responses } from './schemas.ts'
import { described, type OperationName, type SecretOwner } from './secret-owner.ts'
import { presentSecret, SecretItem } from './secret-presenter.ts'
import { secretRoutes } from './secret-routes.ts'

// Secrets of a repository. https://docs.github.com/rest/codespaces/repository-secrets

const REPOSITORIES = ['/repos/:owner/:repo', '/repositories/:repository_id']

function owner(app: App, { db }: GitHubDependencies): SecretOwner {
  const asked = (request: FastifyRequest) => ({ actorId: request.actor.accountId, app })
  const findOwner = (request: FastifyRequest): Promise<Found> =>
    findIn(request, async (locator) => ({
      repository: await findRepository(db, request.actor.accountId, locator)
    }))
  return {
    app,
    kind: 'repository',
    paths: REPOSITORIES.map((path) => `${path}/${app}/secrets`),
    params: RepositoryParams.properties,
    operations: {
      list: [`${app}/list-repo-secrets`, 'List repository secrets'],
      publicKey: [`${app}/get-repo-public-key`, 'Get a repository public key'],
      get: [`${app}/get-repo-secret`, 'Get a repository secret'],
      put: [`${app}/create-or-update-repo-secret`, 'Create or update a repository secret'],
      delete: [`${app}/delete-repo-secret`, 'Delete a repository secret']
    },
    item: SecretItem,
    present: (_request, secret) => presentSecret(secret),
    location: (request) => `/repositories/${foundRepository(request).repository_id}/${app}/secrets`,
    collection(request) {
      const { repository_uid, owner_uid } = foundRepository(request)
      return { app, kind: 'repository', ownerUid: repository_uid, streamUid: owner_uid }
    },
    find: {
      owner: findOwner,
      secret: (request, secretName) =>
        secretName === undefined
          ? findOwner(request)
          : findIn(request, async (locator) => {
              const found = await repositorySecrets.find(db, locator, { ...asked(request), secretName })
              return found && { repository: found.facts, secret: found.secret }
            }),
      page: (request, { limit, offset }) =>
        findIn(request, async (locator) => {
          const row = await repositorySecrets.list(db, locator, { ...asked(request), limit, offset })
          return row && { repository: row, page: row }
        })
    }
  }
}

const RECEIVED: OperationName = ['list-repo-organization-secrets', 'List repository organization secrets']
const ReceivedList = Type.Object({ total_count: Type.Integer(), secrets: Type.Array(SecretItem) })

/** The organization's secrets that the repository receives, without what they say of other repositories. */
const receivedSecretRoutes: (...parameters: [...Parameters<GitHubRoutes>, owner: SecretOwner]) => void = (
  app,
  { db },
  repository
) => {
  const path = (base: string) => `${base}/${repository.app}/organization-secrets`
  for (const base of REPOSITORIES) {
    const [name, title] = RECEIVED
    const { docs, schema } = described(
      repository,
      base === REPOSITORIES[0],
      [`${repository.app}/${name}`, title],
      {
        querystring: PageQuery,
        response: responses({ 200: ReceivedList })
      }
    )
    app.get(
      path(base),
      {
        config: { access: `${repository.app}/repository:read`, find: repository.find.owner!, docs },
        schema
      },
      async (request, reply) => {
        const page = readPage(request)
        const facts = foundRepository(request)
        const [received] = await listReceivedSecrets(db, {
          app: repository.app,
          ownerUid: facts.owner_uid,
          repositoryId: facts.repository_id,
          repositoryPrivate: facts.private,
          limit: page.limit,
          offset: page.offset
        })
        const { total, secrets } = received!
        setLinks(request, reply, page, total, path(`/repositories/${facts.repository_id}`))
        return { total_count: total, secrets: secrets.map(presentSecret) }
      }
    )
  }
}

export const repositorySecretRoutes: GitHubRoutes = (app, dependencies) => {
  for (const name of appsOf('repository')) {
    const repository = owner(name, dependencies)
    secretRoutes(app, dependencies, repository)
    if ((APPS[name] as AppRules).listsOrganizationSecrets) receivedSecretRoutes(app, dependencies, repository)
  }
}
