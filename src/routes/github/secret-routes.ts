import { type Static, type TObject, Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type CollectionRules, collectionRules } from '../../apps.ts'
import { collectionName } from '../../secrets/collection.ts'
import { requireGitHubName } from '../../secrets/names.ts'
import { alongside, requireSelectable, updateSelection } from '../../secrets/selection.ts'
import { put, remove } from '../../secrets/vault.ts'
import { missing } from './body.ts'
import type { GitHubDependencies } from './github.ts'
import { readPage, setLinks } from './pagination.ts'
import {
  EmptyObject,
  EncryptedValue,
  KeyId,
  NoContent,
  PageQuery,
  PublicKey,
  RepositoryIds,
  responses,
  SecretName
} from './schemas.ts'
import { described, findSecretOf, requireSecret, type SecretOwner, writeOf } from './secret-owner.ts'
import { itemOf, setSecretTag } from './secret-presenter.ts'
import { readChange, type SelectionBody, selectionRoutes } from './selection-routes.ts'

// The operations that every collection of secrets has. What differs is said by the owner, and by the table of apps.

type PutBody = SelectionBody & { encrypted_value?: string; key_id?: string }

/** What PUT takes: the value, and for whom, where the owner's secrets can be for selected repositories. */
function putBody(owner: SecretOwner, { valueOptional }: CollectionRules): TObject {
  const value = { encrypted_value: EncryptedValue, key_id: KeyId }
  return Type.Object({
    ...(valueOptional ? Type.Partial(Type.Object(value)).properties : value),
    ...(owner.selection && {
      visibility: Type.Optional(owner.selection.visibility),
      selected_repository_ids: Type.Optional(RepositoryIds)
    })
  })
}

const VALUE_OPTIONAL =
  'For a secret that exists, `encrypted_value` may be absent when `selected_repository_ids` or `visibility` is ' +
  'present: the value stays, and so does `updated_at`.'

export function secretRoutes(
  app: FastifyInstance,
  dependencies: GitHubDependencies,
  owner: SecretOwner
): void {
  const { db, keyring, vault, metrics } = dependencies
  const { selection, operations } = owner
  const rules = collectionRules(owner.app, owner.kind)
  const access = `${owner.app}/${owner.kind}` as const
  const List = Type.Object({ total_count: Type.Integer(), secrets: Type.Array(owner.item) })
  const find = findSecretOf(owner)
  const params = { secret_name: SecretName }

  const write = async (
    request: FastifyRequest,
    name: string,
    body: PutBody
  ): Promise<{ created: boolean }> => {
    const found = request.found.secret
    const common = writeOf(owner, request, name)
    const { collection } = common
    const change = selection ? readChange(selection, body) : {}
    const changed = change.visibility !== undefined || change.repositoryIds !== undefined
    await requireSelectable(db, request.actor, collection, change.repositoryIds ?? [], found?.secret_id)
    if (body.encrypted_value === undefined) {
      if (!found || !changed) throw missing(['encrypted_value'])
      await updateSelection(db, common, change)
      return { created: false }
    }
    if (body.key_id === undefined) throw missing(['key_id'])
    const initialVisibility = change.visibility ?? selection?.initial ?? found?.visibility ?? undefined
    if (selection && !initialVisibility) throw missing(['visibility'])
    return await put(vault, {
      ...common,
      value: { keyId: body.key_id, sealedBox: body.encrypted_value },
      found,
      ...(initialVisibility && { initialVisibility }),
      ...(changed && { alongside: alongside(change) })
    })
  }

  for (const path of owner.paths) {
    const describe = described.bind(undefined, owner, path === owner.paths[0])

    const list = describe(operations.list, { querystring: PageQuery, response: responses({ 200: List }) })
    app.get(
      path,
      {
        config: {
          access: `${access}:read`,
          find: (request) => owner.find.page(request, readPage(request)),
          docs: list.docs
        },
        schema: list.schema
      },
      async (request, reply) => {
        const { total, secrets } = request.found.page!
        setLinks(request, reply, readPage(request), total, owner.location(request))
        return { total_count: total, secrets: secrets.map((secret) => owner.present(request, secret)) }
      }
    )

    const publicKey = describe(operations.publicKey, { response: responses({ 200: PublicKey }) })
    app.get(
      `${path}/public-key`,
      {
        config: {
          access: `${access}:public-key`,
          ...(owner.find.owner && { find: owner.find.owner }),
          docs: publicKey.docs
        },
        schema: publicKey.schema
      },
      async (request) => {
        const key = keyring.collectionKey(collectionName(owner.collection(request)))
        return { key_id: key.keyId, key: key.publicKey.toString('base64') }
      }
    )

    const get = describe(operations.get, { params, response: responses({ 200: owner.item }) })
    app.get(
      `${path}/:secret_name`,
      { config: { access: `${access}:read`, find, docs: get.docs }, schema: get.schema },
      async (request, reply) => {
        const secret = requireSecret(request)
        setSecretTag(reply, secret)
        return owner.present(request, itemOf(secret))
      }
    )

    const update = describe(operations.put, {
      params,
      ...(rules.valueOptional && { description: VALUE_OPTIONAL }),
      body: putBody(owner, rules),
      response: responses({ 201: EmptyObject, 204: NoContent })
    })
    app.put<{ Body: PutBody; Params: Static<TObject<typeof params>> }>(
      `${path}/:secret_name`,
      { config: { access: `${access}:write`, find, docs: update.docs }, schema: update.schema },
      async (request, reply) => {
        const { created } = await write(request, requireGitHubName(request.params.secret_name), request.body)
        if (request.body.encrypted_value !== undefined) metrics.secretWritten(created ? 'create' : 'update')
        return created ? reply.code(201).send({}) : reply.code(204).send()
      }
    )

    const removal = describe(operations.delete, { params, response: responses({ 204: NoContent }) })
    app.delete(
      `${path}/:secret_name`,
      { config: { access: `${access}:write`, find, docs: removal.docs }, schema: removal.schema },
      async (request, reply) => {
        const found = requireSecret(request)
        await remove(vault, { ...writeOf(owner, request, found.secret_name), found })
        metrics.secretWritten('remove')
        return reply.code(204).send()
      }
    )
  }
  if (selection) selectionRoutes(app, dependencies, owner, selection)
}
