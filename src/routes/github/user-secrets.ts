import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { type App, appsOf } from '../../apps.ts'
import type { GitHubCollection } from '../../secrets/collection.ts'
import { findSecret, listSecrets } from '../../store/secrets.ts'
import { apiPrefix } from './context.ts'
import type { GitHubDependencies, GitHubRoutes } from './github.ts'
import { Uri, Visibility } from './schemas.ts'
import type { SecretOwner } from './secret-owner.ts'
import { presentSecret, SecretItem } from './secret-presenter.ts'
import { secretRoutes } from './secret-routes.ts'

// Secrets of the authenticated user. https://docs.github.com/rest/codespaces/secrets

const UserSecret = Type.Object({
  ...SecretItem.properties,
  visibility: Visibility,
  selected_repositories_url: Uri
})
const UserVisibility = Type.Union([Type.Literal('all'), Type.Literal('selected')], {
  description: 'An extension: `all` gives the secret to every repository; `selected` is what GitHub knows'
})

function owner(app: App, { db }: GitHubDependencies): SecretOwner {
  const path = `/user/${app}/secrets`
  const collection = ({ actor }: FastifyRequest): GitHubCollection => ({
    app,
    kind: 'user',
    ownerUid: actor.accountUid,
    streamUid: actor.accountUid
  })
  return {
    app,
    kind: 'user',
    paths: [path],
    params: {},
    operations: {
      list: [`${app}/list-secrets-for-authenticated-user`, 'List secrets for the authenticated user'],
      publicKey: [
        `${app}/get-public-key-for-authenticated-user`,
        'Get public key for the authenticated user'
      ],
      get: [`${app}/get-secret-for-authenticated-user`, 'Get a secret for the authenticated user'],
      put: [
        `${app}/create-or-update-secret-for-authenticated-user`,
        'Create or update a secret for the authenticated user'
      ],
      delete: [`${app}/delete-secret-for-authenticated-user`, 'Delete a secret for the authenticated user']
    },
    item: UserSecret,
    present: (request, secret) => ({
      ...presentSecret(secret),
      visibility: secret.visibility ?? 'selected',
      selected_repositories_url: `${request.server.baseUrl()}${apiPrefix(request)}${path}/${secret.name}/repositories`
    }),
    location: () => path,
    collection,
    find: {
      async secret(request, secretName) {
        if (secretName === undefined) return {}
        return { secret: await findSecret(db, { ...collection(request), secretName }) }
      },
      async page(request, { limit, offset }) {
        return { page: await listSecrets(db, { ...collection(request), limit, offset }) }
      }
    },
    selection: {
      operations: {
        list: [
          `${app}/list-repositories-for-secret-for-authenticated-user`,
          'List selected repositories for a user secret'
        ],
        set: [
          `${app}/set-repositories-for-secret-for-authenticated-user`,
          'Set selected repositories for a user secret'
        ],
        add: [
          `${app}/add-repository-for-secret-for-authenticated-user`,
          'Add a selected repository to a user secret'
        ],
        remove: [
          `${app}/remove-repository-for-secret-for-authenticated-user`,
          'Remove a selected repository from a user secret'
        ]
      },
      visibility: UserVisibility,
      initial: 'selected',
      ownRepositories: false,
      selectsByNaming: true
    }
  }
}

export const userSecretRoutes: GitHubRoutes = (app, dependencies) => {
  for (const name of appsOf('user')) secretRoutes(app, dependencies, owner(name, dependencies))
}
