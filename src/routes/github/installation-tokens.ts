import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { reachOf } from '../../auth/actor.ts'
import { mintToken, type Narrowing, revokeOwnToken } from '../../directory/installation-tokens.ts'
import { InvalidInput, Unauthenticated } from '../../errors.ts'
import { parseRepositoryIds } from '../../secrets/selection.ts'
import { findInstallation, type Installation } from '../../store/installations.ts'
import { listRepositories } from '../../store/repositories.ts'
import { apiPrefix, appPrincipal, foundInstallation, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findOwnInstallation } from './guard.ts'
import { readApiVersion } from './headers.ts'
import { Permissions } from './integration-presenter.ts'
import { InstallationParams } from './integrations.ts'
import { readPage, setLinks } from './pagination.ts'
import { MinimalRepository, presentRepository } from './repository-presenter.ts'
import { DateTime, NoContent, PageQuery, responses } from './schemas.ts'

// Tokens of installations: made by the App's JWT, ended by themselves. https://docs.github.com/rest/apps/installations

const DOCS = 'https://docs.github.com/rest/apps'
const TAGS = ['apps']

/** As on GitHub. */
const MAX_REPOSITORIES = 500

const NewToken = Type.Object({
  repositories: Type.Optional(
    Type.Array(Type.String(), {
      maxItems: MAX_REPOSITORIES,
      description: 'Names, without their owner: the token reaches these alone'
    })
  ),
  repository_ids: Type.Optional(
    Type.Array(Type.Union([Type.Integer(), Type.String()]), {
      maxItems: MAX_REPOSITORIES,
      description: 'The same by id, as integers or decimal strings'
    })
  ),
  permissions: Type.Optional(
    Type.Record(Type.String(), Type.String(), { description: 'Name → level: the token has these alone' })
  )
})
type NewToken = Static<typeof NewToken>
const Token = Type.Object({
  token: Type.String({ description: 'Shown this once' }),
  expires_at: DateTime,
  permissions: Permissions,
  repository_selection: Type.String({ description: 'all or selected' }),
  repositories: Type.Optional(Type.Array(MinimalRepository))
})
const RepositoryList = Type.Object({
  total_count: Type.Integer(),
  repository_selection: Type.String({ description: 'all or selected' }),
  repositories: Type.Array(MinimalRepository)
})

/** What a token is narrowed to. An empty list means all to GitHub, and none to whoever sends it: it is refused. */
function readNarrowing({ repositories, repository_ids, permissions }: NewToken): Narrowing {
  for (const [field, given] of Object.entries({ repositories, repository_ids })) {
    if (given?.length !== 0) continue
    const message = `${field} is empty; leave it out for a token that reaches all that the installation has`
    throw new InvalidInput('Validation Failed', [{ field, code: 'invalid', message }])
  }
  const ids = repository_ids && parseRepositoryIds(repository_ids, 'repository_ids')
  const named = { ...(ids && { ids }), ...(repositories && { names: repositories }) }
  return { permissions, ...((ids || repositories) && { repositories: named }) }
}

export const installationTokenRoutes: GitHubRoutes = (app, { db, authenticator }) => {
  const present = (request: FastifyRequest) => {
    const base = app.baseUrl() + apiPrefix(request)
    const version = readApiVersion(request)
    return (facts: Parameters<typeof presentRepository>[1]) => presentRepository(base, facts, version)
  }

  /** The one whose token asks. */
  const getOwnInstallation = async ({ actor }: FastifyRequest): Promise<Installation> => {
    const installation = await findInstallation(db, { installationId: actor.accountId })
    // removed while the token was still taken for valid
    if (!installation) throw new Unauthenticated(true)
    return installation
  }

  app.post<{ Body: NewToken }>(
    '/app/installations/:installation_id/access_tokens',
    {
      config: {
        access: 'integration',
        find: findOwnInstallation(db),
        docs: `${DOCS}/apps#create-an-installation-access-token-for-an-app`
      },
      schema: {
        tags: TAGS,
        operationId: 'apps/create-installation-access-token',
        summary: 'Create an installation access token for an app, for an hour',
        params: InstallationParams,
        body: NewToken,
        response: responses({ 201: Token })
      }
    },
    async (request, reply) => {
      const installation = foundInstallation(request)
      const minted = await mintToken(db, appPrincipal(request), installation, readNarrowing(request.body))
      return reply.code(201).send({
        token: minted.token,
        expires_at: `${minted.expiresAt.toISOString().slice(0, 19)}Z`,
        permissions: minted.permissions,
        repository_selection: minted.allRepositories ? 'all' : 'selected',
        ...(minted.repositories && { repositories: minted.repositories.map(present(request)) })
      })
    }
  )

  app.get(
    '/installation/repositories',
    {
      config: {
        access: 'installation',
        docs: `${DOCS}/installations#list-repositories-accessible-to-the-app-installation`
      },
      schema: {
        tags: TAGS,
        operationId: 'apps/list-repos-accessible-to-installation',
        summary: 'List repositories accessible to the app installation',
        querystring: PageQuery,
        response: responses({ 200: RepositoryList })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const { token } = request.actor
      const { all_repositories } = await getOwnInstallation(request)
      const { total, repositories } = await listRepositories(db, reachOf(request.actor), page)
      setLinks(request, reply, page, total, '/installation/repositories')
      return {
        total_count: total,
        repository_selection: all_repositories && token.repositoryIds === null ? 'all' : 'selected',
        repositories: repositories.map(present(request))
      }
    }
  )

  app.delete(
    '/installation/token',
    {
      config: {
        access: 'installation',
        docs: `${DOCS}/installations#revoke-an-installation-access-token`
      },
      schema: {
        tags: TAGS,
        operationId: 'apps/revoke-installation-access-token',
        summary: 'Revoke the token that asks for it',
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const installation = await getOwnInstallation(request)
      authenticator.forget(await revokeOwnToken(db, principal(request), installation))
      return reply.code(204).send()
    }
  )
}
