import type { FastifyRequest } from 'fastify'
import { type App, appsOf } from '../../apps.ts'
import { environmentOf } from '../../store/deployment-environments.ts'
import { type EnvironmentLocator, environmentSecrets } from '../../store/secrets-of-owner.ts'
import { type Found, foundEnvironment, foundRepository } from './context.ts'
import { EnvironmentParams, findEnvironmentOf, readEnvironmentName } from './deployment-environments.ts'
import type { GitHubDependencies, GitHubRoutes } from './github.ts'
import { findIn } from './guard.ts'
import type { SecretOwner } from './secret-owner.ts'
import { presentSecret, SecretItem } from './secret-presenter.ts'
import { secretRoutes } from './secret-routes.ts'

// Secrets of a deployment environment. https://docs.github.com/rest/actions/secrets

function owner(app: App, { db }: GitHubDependencies): SecretOwner {
  const asked = (request: FastifyRequest) => ({ actorId: request.actor.accountId, app })
  const locate = (
    request: FastifyRequest,
    find: (locator: EnvironmentLocator) => Promise<Found | undefined>
  ): Promise<Found> => {
    const environmentName = readEnvironmentName(request)
    return environmentName === undefined
      ? findEnvironmentOf(db)(request)
      : findIn(request, (locator) => find({ ...locator, environmentName }))
  }
  return {
    app,
    kind: 'deployment-environment',
    paths: ['/repos/:owner/:repo', '/repositories/:repository_id'].map(
      (path) => `${path}/environments/:environment_name/secrets`
    ),
    params: EnvironmentParams.properties,
    operations: {
      list: [`${app}/list-environment-secrets`, 'List environment secrets'],
      publicKey: [`${app}/get-environment-public-key`, 'Get an environment public key'],
      get: [`${app}/get-environment-secret`, 'Get an environment secret'],
      put: [`${app}/create-or-update-environment-secret`, 'Create or update an environment secret'],
      delete: [`${app}/delete-environment-secret`, 'Delete an environment secret']
    },
    item: SecretItem,
    present: (_request, secret) => presentSecret(secret),
    location(request) {
      const name = encodeURIComponent(foundEnvironment(request).environment_name)
      return `/repositories/${foundRepository(request).repository_id}/environments/${name}/secrets`
    },
    collection(request) {
      const { environment_uid } = foundEnvironment(request)
      const { owner_uid, repository_uid } = foundRepository(request)
      return {
        app,
        kind: 'deployment-environment',
        ownerUid: environment_uid,
        streamUid: owner_uid,
        repositoryUid: repository_uid
      }
    },
    find: {
      owner: findEnvironmentOf(db),
      secret: (request, secretName) =>
        secretName === undefined
          ? findEnvironmentOf(db)(request)
          : locate(request, async (locator) => {
              const found = await environmentSecrets.find(db, locator, { ...asked(request), secretName })
              return (
                found && {
                  repository: found.facts,
                  environment: environmentOf(found.facts),
                  secret: found.secret
                }
              )
            }),
      page: (request, { limit, offset }) =>
        locate(request, async (locator) => {
          const row = await environmentSecrets.list(db, locator, { ...asked(request), limit, offset })
          return row && { repository: row, environment: environmentOf(row), page: row }
        })
    }
  }
}

export const environmentSecretRoutes: GitHubRoutes = (app, dependencies) => {
  for (const name of appsOf('deployment-environment')) {
    secretRoutes(app, dependencies, owner(name, dependencies))
  }
}
