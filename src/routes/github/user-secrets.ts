import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import type { Actor } from '../../auth/actor.ts'
import { sightOf } from '../../auth/actor.ts'
import { InvalidInput, NotFound } from '../../errors.ts'
import { type Collection, collectionName } from '../../secrets/collection.ts'
import { lookupGitHubName, requireGitHubName } from '../../secrets/names.ts'
import {
  addRepository,
  applySelection,
  parseRepositoryIds,
  removeRepository,
  requireSelectable,
  requireSelectableRepository,
  type SelectionChange,
  updateSelection
} from '../../secrets/selection.ts'
import { put, remove } from '../../secrets/vault.ts'
import { findSecret, listSecrets, type SecretHead } from '../../store/secrets.ts'
import { listSelection } from '../../store/selections.ts'
import type { Visibility } from '../../store/tables.ts'
import { missing } from './body.ts'
import { readIfMatch } from './conditional.ts'
import { apiPrefix, type Found, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { readId } from './guard.ts'
import { readApiVersion } from './headers.ts'
import { readPage, setLinks } from './pagination.ts'
import { MinimalRepository, presentRepository } from './repository-presenter.ts'
import {
  DateTime,
  EmptyObject,
  EncryptedValue,
  KeyId,
  NoContent,
  PageQuery,
  PublicKey,
  RepositoryIds,
  responses,
  SecretName,
  Uri,
  Visibility as VisibilitySchema
} from './schemas.ts'
import { presentHead, presentSecret, setSecretTag } from './secret-presenter.ts'

// Secrets of the authenticated user. https://docs.github.com/rest/codespaces/secrets

const DOCS = 'https://docs.github.com/rest/codespaces/secrets'
const PATH = '/user/codespaces/secrets'

const UserSecret = Type.Object({
  name: Type.String(),
  created_at: DateTime,
  updated_at: DateTime,
  visibility: VisibilitySchema,
  selected_repositories_url: Uri
})
const UserSecretList = Type.Object({ total_count: Type.Integer(), secrets: Type.Array(UserSecret) })
const SecretParams = Type.Object({ secret_name: SecretName })
const RepositoryParams = Type.Object({ secret_name: SecretName, repository_id: Type.Integer() })
const UserVisibility = Type.Union([Type.Literal('all'), Type.Literal('selected')], {
  description: 'An extension: `all` gives the secret to every repository; `selected` is what GitHub knows'
})
const PutUserSecret = Type.Object({
  encrypted_value: Type.Optional(EncryptedValue),
  key_id: Type.Optional(KeyId),
  selected_repository_ids: Type.Optional(RepositoryIds),
  visibility: Type.Optional(UserVisibility)
})
type PutUserSecret = Static<typeof PutUserSecret>
const SetRepositories = Type.Object({ selected_repository_ids: RepositoryIds })
const RepositoryList = Type.Object({
  total_count: Type.Integer(),
  repositories: Type.Array(MinimalRepository)
})

function collectionOf({ accountUid }: Actor): Collection {
  return { app: 'codespaces', kind: 'user', ownerUid: accountUid, streamUid: accountUid }
}

/** Selecting repositories makes a secret `selected`, whatever it was: who names some does not mean all. */
function readChange(body: Pick<PutUserSecret, 'selected_repository_ids' | 'visibility'>): SelectionChange {
  const ids = body.selected_repository_ids
  const repositoryIds = ids === undefined ? undefined : parseRepositoryIds(ids)
  if (body.visibility === 'all' && repositoryIds?.length) {
    throw new InvalidInput('Validation Failed', [
      {
        field: 'selected_repository_ids',
        code: 'custom',
        message: 'selected_repository_ids can be given only when visibility is selected'
      }
    ])
  }
  return { repositoryIds, visibility: body.visibility ?? (repositoryIds && 'selected') }
}

export const userSecretRoutes: GitHubRoutes = (app, { db, keyring, vault, metrics }) => {
  const find = async (request: FastifyRequest): Promise<Found> => {
    const { secret_name } = request.params as { secret_name: string }
    const secretName = lookupGitHubName(secret_name)
    if (secretName === undefined) return {}
    return { secret: await findSecret(db, { ...collectionOf(request.actor), secretName }) }
  }

  const requireFound = (request: FastifyRequest): SecretHead => {
    const { secret } = request.found
    if (!secret) throw new NotFound()
    return secret
  }

  const present = (
    request: FastifyRequest,
    secret: ReturnType<typeof presentSecret>,
    visibility: Visibility | null
  ) => ({
    ...secret,
    visibility: visibility ?? 'selected',
    selected_repositories_url: `${app.baseUrl()}${apiPrefix(request)}${PATH}/${secret.name}/repositories`
  })

  app.get(
    PATH,
    {
      config: {
        access: 'user-secrets:read',
        find: async (request) => ({
          page: await listSecrets(db, { ...collectionOf(request.actor), ...readPage(request) })
        }),
        docs: `${DOCS}#list-secrets-for-the-authenticated-user`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/list-secrets-for-authenticated-user',
        summary: 'List secrets for the authenticated user',
        querystring: PageQuery,
        response: responses({ 200: UserSecretList })
      }
    },
    async (request, reply) => {
      const { total, secrets } = request.found.page!
      setLinks(request, reply, readPage(request), total, PATH)
      return {
        total_count: total,
        secrets: secrets.map((secret) => present(request, presentSecret(secret), secret.visibility))
      }
    }
  )

  app.get(
    `${PATH}/public-key`,
    {
      config: {
        access: 'user-secrets:read',
        docs: `${DOCS}#get-public-key-for-the-authenticated-user`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/get-public-key-for-authenticated-user',
        summary: 'Get public key for the authenticated user',
        response: responses({ 200: PublicKey })
      }
    },
    async (request) => {
      const { keyId, publicKey } = keyring.collectionKey(collectionName(collectionOf(request.actor)))
      return { key_id: keyId, key: publicKey.toString('base64') }
    }
  )

  app.get(
    `${PATH}/:secret_name`,
    {
      config: {
        access: 'user-secrets:read',
        find,
        docs: `${DOCS}#get-a-secret-for-the-authenticated-user`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/get-secret-for-authenticated-user',
        summary: 'Get a secret for the authenticated user',
        params: SecretParams,
        response: responses({ 200: UserSecret })
      }
    },
    async (request, reply) => {
      const secret = requireFound(request)
      setSecretTag(reply, secret)
      return present(request, presentHead(secret), secret.visibility)
    }
  )

  app.put<{ Body: PutUserSecret; Params: { secret_name: string } }>(
    `${PATH}/:secret_name`,
    {
      config: {
        access: 'user-secrets:write',
        find,
        docs: `${DOCS}#create-or-update-a-secret-for-the-authenticated-user`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/create-or-update-secret-for-authenticated-user',
        summary: 'Create or update a secret for the authenticated user',
        description:
          'For a secret that exists, `encrypted_value` may be absent when `selected_repository_ids` or ' +
          '`visibility` is present: the value stays, and so does `updated_at`.',
        params: SecretParams,
        body: PutUserSecret,
        response: responses({ 201: EmptyObject, 204: NoContent })
      }
    },
    async (request, reply) => {
      const { body, actor } = request
      const name = requireGitHubName(request.params.secret_name)
      const change = readChange(body)
      const write = {
        principal: principal(request),
        collection: collectionOf(actor),
        name,
        ifMatch: readIfMatch(request)
      }
      if (body.encrypted_value === undefined) {
        const found = request.found.secret
        if (!found || !change.visibility) throw missing(['encrypted_value'])
        await requireSelectable(db, actor, change.repositoryIds ?? [], found.secret_id)
        await updateSelection(db, write, change)
        return reply.code(204).send()
      }
      if (body.key_id === undefined) throw missing(['key_id'])
      await requireSelectable(db, actor, change.repositoryIds ?? [], request.found.secret?.secret_id)
      const { created } = await put(vault, {
        ...write,
        value: { keyId: body.key_id, sealedBox: body.encrypted_value },
        found: request.found.secret,
        initialVisibility: change.visibility ?? 'selected',
        alongside: change.visibility && ((tx, secretId) => applySelection(tx, secretId, change))
      })
      metrics.secretWritten(created ? 'create' : 'update')
      return created ? reply.code(201).send({}) : reply.code(204).send()
    }
  )

  app.delete(
    `${PATH}/:secret_name`,
    {
      config: {
        access: 'user-secrets:write',
        find,
        docs: `${DOCS}#delete-a-secret-for-the-authenticated-user`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/delete-secret-for-authenticated-user',
        summary: 'Delete a secret for the authenticated user',
        params: SecretParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const found = requireFound(request)
      await remove(vault, {
        principal: principal(request),
        collection: collectionOf(request.actor),
        name: found.secret_name,
        found,
        ifMatch: readIfMatch(request)
      })
      metrics.secretWritten('remove')
      return reply.code(204).send()
    }
  )

  app.get(
    `${PATH}/:secret_name/repositories`,
    {
      config: {
        access: 'user-secrets:read',
        find,
        docs: `${DOCS}#list-selected-repositories-for-a-user-secret`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/list-repositories-for-secret-for-authenticated-user',
        summary: 'List selected repositories for a user secret',
        params: SecretParams,
        querystring: PageQuery,
        response: responses({ 200: RepositoryList })
      }
    },
    async (request, reply) => {
      const secret = requireFound(request)
      const page = readPage(request)
      const { total, repositories } = await listSelection(db, sightOf(request.actor), secret.secret_id, page)
      setLinks(request, reply, page, total, `${PATH}/${secret.secret_name}/repositories`)
      const base = app.baseUrl() + apiPrefix(request)
      const version = readApiVersion(request)
      return {
        total_count: total,
        repositories: repositories.map((facts) => presentRepository(base, facts, version))
      }
    }
  )

  app.put<{ Body: Static<typeof SetRepositories>; Params: { secret_name: string } }>(
    `${PATH}/:secret_name/repositories`,
    {
      config: {
        access: 'user-secrets:write',
        find,
        docs: `${DOCS}#set-selected-repositories-for-a-user-secret`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/set-repositories-for-secret-for-authenticated-user',
        summary: 'Set selected repositories for a user secret',
        params: SecretParams,
        body: SetRepositories,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const secret = requireFound(request)
      const change = readChange(request.body)
      await requireSelectable(db, request.actor, change.repositoryIds ?? [], secret.secret_id)
      await updateSelection(db, selectionRequest(request, secret), change)
      return reply.code(204).send()
    }
  )

  const selectionRequest = (request: FastifyRequest, secret: SecretHead) => ({
    principal: principal(request),
    collection: collectionOf(request.actor),
    name: secret.secret_name,
    ifMatch: readIfMatch(request)
  })

  const repositoryOf = (request: FastifyRequest): number => {
    const id = readId((request.params as { repository_id: string }).repository_id)
    if (id === undefined) throw new NotFound()
    return id
  }

  app.put(
    `${PATH}/:secret_name/repositories/:repository_id`,
    {
      config: {
        access: 'user-secrets:write',
        find,
        docs: `${DOCS}#add-a-selected-repository-to-a-user-secret`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/add-repository-for-secret-for-authenticated-user',
        summary: 'Add a selected repository to a user secret',
        params: RepositoryParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const secret = requireFound(request)
      const repositoryId = repositoryOf(request)
      await requireSelectableRepository(db, request.actor, repositoryId, secret.secret_id)
      await addRepository(db, selectionRequest(request, secret), repositoryId)
      return reply.code(204).send()
    }
  )

  app.delete(
    `${PATH}/:secret_name/repositories/:repository_id`,
    {
      config: {
        access: 'user-secrets:write',
        find,
        docs: `${DOCS}#remove-a-selected-repository-from-a-user-secret`
      },
      schema: {
        tags: ['user secrets'],
        operationId: 'codespaces/remove-repository-for-secret-for-authenticated-user',
        summary: 'Remove a selected repository from a user secret',
        params: RepositoryParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const secret = requireFound(request)
      await removeRepository(db, selectionRequest(request, secret), repositoryOf(request))
      return reply.code(204).send()
    }
  )
}
