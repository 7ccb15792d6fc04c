import { type Static, Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { sightOf } from '../../auth/actor.ts'
import { NotFound } from '../../errors.ts'
import {
  addRepository,
  parseRepositoryIds,
  removeRepository,
  requireNameable,
  requireSelectable,
  requireSelectableRepository,
  type SelectionChange,
  setRepositories,
  updateSelection
} from '../../secrets/selection.ts'
import { listSelection } from '../../store/selections.ts'
import type { Visibility } from '../../store/tables.ts'
import { apiPrefix } from './context.ts'
import type { GitHubDependencies } from './github.ts'
import { readId } from './guard.ts'
import { readApiVersion } from './headers.ts'
import { readPage, setLinks } from './pagination.ts'
import { MinimalRepository, presentRepository } from './repository-presenter.ts'
import { NoContent, PageQuery, RepositoryIds, responses, SecretName } from './schemas.ts'
import {
  described,
  findSecretOf,
  requireSecret,
  type SecretOwner,
  type SecretSelection,
  writeOf
} from './secret-owner.ts'

// The repositories that receive a secret, where its owner selects them.

export interface SelectionBody {
  visibility?: Visibility
  selected_repository_ids?: Static<typeof RepositoryIds>
}

const SetRepositories = Type.Object({ selected_repository_ids: RepositoryIds })
const RepositoryList = Type.Object({
  total_count: Type.Integer(),
  repositories: Type.Array(MinimalRepository)
})

/** What a PUT says about who receives the secret; repositories are named for `selected` alone. */
export function readChange({ selectsByNaming }: SecretSelection, body: SelectionBody): SelectionChange {
  const ids = body.selected_repository_ids
  const repositoryIds = ids === undefined ? undefined : parseRepositoryIds(ids)
  if (body.visibility && repositoryIds?.length) requireNameable(body.visibility)
  const named = selectsByNaming && repositoryIds ? 'selected' : undefined
  return { repositoryIds, visibility: body.visibility ?? named }
}

export function selectionRoutes(
  app: FastifyInstance,
  { db }: GitHubDependencies,
  owner: SecretOwner,
  selection: SecretSelection
): void {
  const { operations } = selection
  const access = `${owner.app}/${owner.kind}` as const
  const find = findSecretOf(owner)
  const one = { secret_name: SecretName, repository_id: Type.Integer() }

  const repositoryOf = (request: FastifyRequest): number => {
    const id = readId((request.params as { repository_id: string }).repository_id)
    if (id === undefined) throw new NotFound()
    return id
  }

  for (const collection of owner.paths) {
    const path = `${collection}/:secret_name/repositories`
    const describe = described.bind(undefined, owner, collection === owner.paths[0])

    const list = describe(operations.list, {
      params: { secret_name: SecretName },
      querystring: PageQuery,
      response: responses({ 200: RepositoryList })
    })
    app.get(
      path,
      { config: { access: `${access}:read`, find, docs: list.docs }, schema: list.schema },
      async (request, reply) => {
        const secret = requireSecret(request)
        const page = readPage(request)
        const sight = sightOf(request.actor)
        const allVisible = selection.ownRepositories && sight.privateAmong === null
        const { total, repositories } = await listSelection(db, sight, secret.secret_id, {
          ...page,
          allVisible
        })
        setLinks(request, reply, page, total, `${owner.location(request)}/${secret.secret_name}/repositories`)
        const base = app.baseUrl() + apiPrefix(request)
        const version = readApiVersion(request)
        return {
          total_count: total,
          repositories: repositories.map((facts) => presentRepository(base, facts, version))
        }
      }
    )

    const set = describe(operations.set, {
      params: { secret_name: SecretName },
      body: SetRepositories,
      response: responses({ 204: NoContent })
    })
    app.put<{ Body: Static<typeof SetRepositories> }>(
      path,
      { config: { access: `${access}:write`, find, docs: set.docs }, schema: set.schema },
      async (request, reply) => {
        const secret = requireSecret(request)
        const write = writeOf(owner, request, secret.secret_name)
        const ids = parseRepositoryIds(request.body.selected_repository_ids)
        await requireSelectable(db, request.actor, write.collection, ids, secret.secret_id)
        if (selection.selectsByNaming) {
          await updateSelection(db, write, { repositoryIds: ids, visibility: 'selected' })
        } else {
          await setRepositories(db, write, ids)
        }
        return reply.code(204).send()
      }
    )

    const add = describe(operations.add, { params: one, response: responses({ 204: NoContent }) })
    app.put(
      `${path}/:repository_id`,
      { config: { access: `${access}:write`, find, docs: add.docs }, schema: add.schema },
      async (request, reply) => {
        const secret = requireSecret(request)
        const repositoryId = repositoryOf(request)
        const write = writeOf(owner, request, secret.secret_name)
        await requireSelectableRepository(db, request.actor, write.collection, repositoryId, secret.secret_id)
        await addRepository(db, write, repositoryId)
        return reply.code(204).send()
      }
    )

    const removal = describe(operations.remove, { params: one, response: responses({ 204: NoContent }) })
    app.delete(
      `${path}/:repository_id`,
      { config: { access: `${access}:write`, find, docs: removal.docs }, schema: removal.schema },
      async (request, reply) => {
        const secret = requireSecret(request)
        await removeRepository(db, writeOf(owner, request, secret.secret_name), repositoryOf(request))
        return reply.code(204).send()
      }
    )
  }
}
