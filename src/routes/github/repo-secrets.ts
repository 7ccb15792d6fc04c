import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { NotFound } from '../../errors.ts'
import { type Collection, collectionName } from '../../secrets/collection.ts'
import { lookupGitHubName, requireGitHubName } from '../../secrets/names.ts'
import { put, remove } from '../../secrets/vault.ts'
import { findRepository } from '../../store/repositories.ts'
import { findRepositorySecret, listRepositorySecrets } from '../../store/secrets.ts'
import { readIfMatch } from './conditional.ts'
import { type Found, foundRepository, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findIn } from './guard.ts'
import { readPage, setLinks } from './pagination.ts'
import {
  DateTime,
  EmptyObject,
  EncryptedValue,
  KeyId,
  NoContent,
  PageQuery,
  PublicKey,
  RepositoryParams,
  responses,
  SecretName
} from './schemas.ts'
import { presentHead, presentSecret, setSecretTag } from './secret-presenter.ts'

// Secrets of a repository. https://docs.github.com/rest/codespaces/repository-secrets

const DOCS = 'https://docs.github.com/rest/codespaces/repository-secrets'

const RepoSecret = Type.Object({ name: Type.String(), created_at: DateTime, updated_at: DateTime })
const RepoSecretList = Type.Object({ total_count: Type.Integer(), secrets: Type.Array(RepoSecret) })
const SecretParams = Type.Object({ ...RepositoryParams.properties, secret_name: SecretName })
const PutRepoSecret = Type.Object({ encrypted_value: EncryptedValue, key_id: KeyId })

function collectionOf(request: FastifyRequest): Collection {
  const { repository_uid, owner_uid } = foundRepository(request)
  return { app: 'codespaces', kind: 'repository', ownerUid: repository_uid, streamUid: owner_uid }
}

export const repoSecretRoutes: GitHubRoutes = (app, { db, keyring, vault, metrics }) => {
  const query = (request: FastifyRequest) => ({ actorId: request.actor.accountId, app: 'codespaces' })

  const findPage = (request: FastifyRequest): Promise<Found> =>
    findIn(request, async (locator) => {
      const row = await listRepositorySecrets(db, locator, { ...query(request), ...readPage(request) })
      return row && { repository: row, page: row }
    })

  const findSecret = (request: FastifyRequest): Promise<Found> =>
    findIn(request, async (locator) => {
      const { secret_name } = request.params as { secret_name: string }
      const secretName = lookupGitHubName(secret_name)
      if (secretName === undefined) {
        return { repository: await findRepository(db, request.actor.accountId, locator) }
      }
      const found = await findRepositorySecret(db, locator, { ...query(request), secretName })
      return found && { repository: found.facts, secret: found.secret }
    })

  const findOnly = (request: FastifyRequest): Promise<Found> =>
    findIn(request, async (locator) => ({
      repository: await findRepository(db, request.actor.accountId, locator)
    }))

  for (const path of ['/repos/:owner/:repo', '/repositories/:repository_id']) {
    const hide = path.startsWith('/repositories')
    const common = { tags: ['repository secrets'], hide }

    app.get(
      `${path}/codespaces/secrets`,
      {
        config: {
          access: 'repository-secrets',
          find: findPage,
          docs: `${DOCS}#list-repository-secrets`
        },
        schema: {
          ...common,
          operationId: 'codespaces/list-repo-secrets',
          summary: 'List repository secrets',
          querystring: PageQuery,
          ...(!hide && { params: RepositoryParams }),
          response: responses({ 200: RepoSecretList })
        }
      },
      async (request, reply) => {
        const { total, secrets } = request.found.page!
        const { repository_id } = foundRepository(request)
        setLinks(
          request,
          reply,
          readPage(request),
          total,
          `/repositories/${repository_id}/codespaces/secrets`
        )
        return { total_count: total, secrets: secrets.map(presentSecret) }
      }
    )

    app.get(
      `${path}/codespaces/secrets/public-key`,
      {
        config: {
          access: 'repository-public-key',
          find: findOnly,
          docs: `${DOCS}#get-a-repository-public-key`
        },
        schema: {
          ...common,
          operationId: 'codespaces/get-repo-public-key',
          summary: 'Get a repository public key',
          ...(!hide && { params: RepositoryParams }),
          response: responses({ 200: PublicKey })
        }
      },
      async (request) => {
        const { keyId, publicKey } = keyring.collectionKey(collectionName(collectionOf(request)))
        return { key_id: keyId, key: publicKey.toString('base64') }
      }
    )

    app.get(
      `${path}/codespaces/secrets/:secret_name`,
      {
        config: {
          access: 'repository-secrets',
          find: findSecret,
          docs: `${DOCS}#get-a-repository-secret`
        },
        schema: {
          ...common,
          operationId: 'codespaces/get-repo-secret',
          summary: 'Get a repository secret',
          ...(!hide && { params: SecretParams }),
          response: responses({ 200: RepoSecret })
        }
      },
      async (request, reply) => {
        const { secret } = request.found
        if (!secret) throw new NotFound()
        setSecretTag(reply, secret)
        return presentHead(secret)
      }
    )

    app.put<{ Body: Static<typeof PutRepoSecret>; Params: { secret_name: string } }>(
      `${path}/codespaces/secrets/:secret_name`,
      {
        config: {
          access: 'repository-secrets',
          find: findSecret,
          docs: `${DOCS}#create-or-update-a-repository-secret`
        },
        schema: {
          ...common,
          operationId: 'codespaces/create-or-update-repo-secret',
          summary: 'Create or update a repository secret',
          ...(!hide && { params: SecretParams }),
          body: PutRepoSecret,
          response: responses({ 201: EmptyObject, 204: NoContent })
        }
      },
      async (request, reply) => {
        const { created } = await put(vault, {
          principal: principal(request),
          collection: collectionOf(request),
          name: requireGitHubName(request.params.secret_name),
          value: { keyId: request.body.key_id, sealedBox: request.body.encrypted_value },
          found: request.found.secret,
          ifMatch: readIfMatch(request)
        })
        metrics.secretWritten(created ? 'create' : 'update')
        return created ? reply.code(201).send({}) : reply.code(204).send()
      }
    )

    app.delete<{ Params: { secret_name: string } }>(
      `${path}/codespaces/secrets/:secret_name`,
      {
        config: {
          access: 'repository-secrets',
          find: findSecret,
          docs: `${DOCS}#delete-a-repository-secret`
        },
        schema: {
          ...common,
          operationId: 'codespaces/delete-repo-secret',
          summary: 'Delete a repository secret',
          ...(!hide && { params: SecretParams }),
          response: responses({ 204: NoContent })
        }
      },
      async (request, reply) => {
        const found = request.found.secret
        if (!found) throw new NotFound()
        await remove(vault, {
          principal: principal(request),
          collection: collectionOf(request),
          name: found.secret_name,
          found,
          ifMatch: readIfMatch(request)
        })
        metrics.secretWritten('remove')
        return reply.code(204).send()
      }
    )
  }
}
