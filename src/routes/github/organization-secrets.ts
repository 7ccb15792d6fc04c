import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { type App, appsOf } from '../../apps.ts'
import { findOrganization } from '../../store/organizations.ts'
import { organizationSecrets } from '../../store/secrets-of-owner.ts'
import { apiPrefix, type Found, foundOrganization } from './context.ts'
import type { GitHubDependencies, GitHubRoutes } from './github.ts'
import { findInOrganization } from './guard.ts'
import { OrganizationParams, Uri, Visibility } from './schemas.ts'
import type { SecretOwner } from './secret-owner.ts'
import { presentSecret, SecretItem } from './secret-presenter.ts'
import { secretRoutes } from './secret-routes.ts'

// Secrets of an organization. https://docs.github.com/rest/codespaces/organization-secrets

const OrganizationSecret = Type.Object({
  ...SecretItem.properties,
  visibility: Visibility,
  selected_repositories_url: Type.Optional(Uri)
})

function owner(app: App, { db }: GitHubDependencies): SecretOwner {
  const asked = (request: FastifyRequest) => ({ actorId: request.actor.accountId, app })
  const findOwner = (request: FastifyRequest): Promise<Found> =>
    findInOrganization(request, async (locator) => ({
      organization: await findOrganization(db, request.actor.accountId, locator)
    }))
  return {
    app,
    kind: 'organization',
    paths: ['/orgs/:org', '/organizations/:organization_id'].map((path) => `${path}/${app}/secrets`),
    params: OrganizationParams.properties,
    operations: {
      list: [`${app}/list-org-secrets`, 'List organization secrets'],
      publicKey: [`${app}/get-org-public-key`, 'Get an organization public key'],
      get: [`${app}/get-org-secret`, 'Get an organization secret'],
      put: [`${app}/create-or-update-org-secret`, 'Create or update an organization secret'],
      delete: [`${app}/delete-org-secret`, 'Delete an organization secret']
    },
    item: OrganizationSecret,
    present(request, secret) {
      const base = request.server.baseUrl() + apiPrefix(request)
      const path = `/orgs/${foundOrganization(request).login}/${app}/secrets/${secret.name}/repositories`
      return {
        ...presentSecret(secret),
        visibility: secret.visibility,
        ...(secret.visibility === 'selected' && { selected_repositories_url: base + path })
      }
    },
    location: (request) => `/organizations/${foundOrganization(request).organization_id}/${app}/secrets`,
    collection(request) {
      const { organization_uid } = foundOrganization(request)
      return { app, kind: 'organization', ownerUid: organization_uid, streamUid: organization_uid }
    },
    find: {
      owner: findOwner,
      secret: (request, secretName) =>
        secretName === undefined
          ? findOwner(request)
          : findInOrganization(request, async (locator) => {
              const found = await organizationSecrets.find(db, locator, { ...asked(request), secretName })
              return found && { organization: found.facts, secret: found.secret }
            }),
      page: (request, { limit, offset }) =>
        findInOrganization(request, async (locator) => {
          const row = await organizationSecrets.list(db, locator, { ...asked(request), limit, offset })
          return row && { organization: row, page: row }
        })
    },
    selection: {
      operations: {
        list: [
          `${app}/list-selected-repos-for-org-secret`,
          'List selected repositories for an organization secret'
        ],
        set: [
          `${app}/set-selected-repos-for-org-secret`,
          'Set selected repositories for an organization secret'
        ],
        add: [`${app}/add-selected-repo-to-org-secret`, 'Add selected repository to an organization secret'],
        remove: [
          `${app}/remove-selected-repo-from-org-secret`,
          'Remove selected repository from an organization secret'
        ]
      },
      visibility: Visibility,
      ownRepositories: true,
      selectsByNaming: false
    }
  }
}

export const organizationSecretRoutes: GitHubRoutes = (app, dependencies) => {
  for (const name of appsOf('organization')) secretRoutes(app, dependencies, owner(name, dependencies))
}
