import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { sightOf } from '../../auth/actor.ts'
import {
  changeRepository,
  createRepository,
  removeRepository,
  requireOrganizationToCreateIn
} from '../../directory/repositories.ts'
import { Forbidden, InvalidInput, NotFound } from '../../errors.ts'
import { findRepository, listRepositories, type RepositoryFacts } from '../../store/repositories.ts'
import { apiPrefix, foundRepository, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findIn, readLogin } from './guard.ts'
import { readApiVersion } from './headers.ts'
import { readPage, setLinks } from './pagination.ts'
import { MinimalRepository, presentRepository } from './repository-presenter.ts'
import { NoContent, Nullable, PageQuery, RepositoryParams, responses } from './schemas.ts'

// Repositories: no more of them than secrets need. https://docs.github.com/rest/repos/repos

const DOCS = 'https://docs.github.com/rest/repos/repos'
const TAGS = ['directory']

const OrganizationParams = Type.Object({ org: Type.String() })
const NewRepository = Type.Object({
  name: Type.String(),
  private: Type.Optional(Type.Boolean()),
  visibility: Type.Optional(Type.Union([Type.Literal('public'), Type.Literal('private')])),
  description: Type.Optional(Nullable(Type.String()))
})
type NewRepository = Static<typeof NewRepository>
const RepositoryChange = Type.Object({
  name: Type.Optional(Type.String()),
  private: Type.Optional(Type.Boolean()),
  visibility: Type.Optional(Type.Union([Type.Literal('public'), Type.Literal('private')])),
  description: Type.Optional(Nullable(Type.String())),
  default_branch: Type.Optional(Type.String({ minLength: 1 }))
})
type RepositoryChange = Static<typeof RepositoryChange>
const MAX_DESCRIPTION = 350

function isPrivate({ private: flag, visibility }: Pick<NewRepository, 'private' | 'visibility'>) {
  return visibility ? visibility === 'private' : flag
}

function requireText({ description, default_branch }: RepositoryChange): void {
  if (description && (description.length > MAX_DESCRIPTION || description.includes('\0'))) {
    throw new InvalidInput('Validation Failed', [
      {
        field: 'description',
        code: 'custom',
        message: `description is ${MAX_DESCRIPTION} characters at most, and holds no NUL`
      }
    ])
  }
  if (default_branch !== undefined && !/^[^\0\s~^:?*[\\]{1,255}$/.test(default_branch)) {
    throw new InvalidInput('Validation Failed', [
      { field: 'default_branch', code: 'custom', message: 'default_branch is not the name of a branch' }
    ])
  }
}

export const repositoryRoutes: GitHubRoutes = (app, { db }) => {
  const find = (request: FastifyRequest) =>
    findIn(request, async (locator) => ({
      repository: await findRepository(db, request.actor.accountId, locator)
    }))

  const present = (request: FastifyRequest, facts: RepositoryFacts) =>
    presentRepository(app.baseUrl() + apiPrefix(request), facts, readApiVersion(request))

  const presentById = async (request: FastifyRequest, repositoryId: number) => {
    const facts = await findRepository(db, request.actor.accountId, { repositoryId })
    if (!facts) throw new NotFound()
    return present(request, facts)
  }

  for (const path of ['/repos/:owner/:repo', '/repositories/:repository_id']) {
    const hide = path.startsWith('/repositories')
    const common = { tags: TAGS, hide, ...(!hide && { params: RepositoryParams }) }

    app.get(
      path,
      {
        config: { access: 'repository:read', find, docs: `${DOCS}#get-a-repository` },
        schema: {
          ...common,
          operationId: 'repos/get',
          summary: 'Get a repository',
          response: responses({ 200: MinimalRepository })
        }
      },
      async (request) => present(request, foundRepository(request))
    )

    app.patch<{ Body: RepositoryChange }>(
      path,
      {
        config: { access: 'repository:admin', find, docs: `${DOCS}#update-a-repository` },
        schema: {
          ...common,
          operationId: 'repos/update',
          summary: 'Rename a repository, or change who sees it',
          description: 'Secrets stay with the repository; its old name leads to it.',
          body: RepositoryChange,
          response: responses({ 200: MinimalRepository })
        }
      },
      async (request) => {
        const { name, description, default_branch } = request.body
        const facts = foundRepository(request)
        requireText(request.body)
        const flag = isPrivate(request.body)
        await changeRepository(db, principal(request), facts, {
          ...(name !== undefined && { name }),
          ...(flag !== undefined && { private: flag }),
          ...(description !== undefined && { description }),
          ...(default_branch !== undefined && { default_branch })
        })
        return await presentById(request, facts.repository_id)
      }
    )

    app.delete(
      path,
      {
        config: { access: 'repository:admin', find, docs: `${DOCS}#delete-a-repository` },
        schema: {
          ...common,
          operationId: 'repos/delete',
          summary: 'Delete a repository with its secrets',
          response: responses({ 204: NoContent })
        }
      },
      async (request, reply) => {
        await removeRepository(db, principal(request), foundRepository(request))
        return reply.code(204).send()
      }
    )
  }

  app.get(
    '/user/repos',
    {
      config: {
        access: 'user',
        docs: `${DOCS}#list-repositories-for-the-authenticated-user`
      },
      schema: {
        tags: TAGS,
        operationId: 'repos/list-for-authenticated-user',
        summary: 'List repositories on which the authenticated user has a role',
        querystring: PageQuery,
        response: responses({ 200: Type.Array(MinimalRepository) })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const { visibility } = request.query as { visibility?: string }
      const { total, repositories } = await listRepositories(db, sightOf(request.actor), {
        ...(visibility === 'public' || visibility === 'private' ? { visibility } : {}),
        ...page
      })
      setLinks(request, reply, page, total, '/user/repos')
      return repositories.map((facts) => present(request, facts))
    }
  )

  const requireScopeFor = (request: FastifyRequest, wantsPrivate: boolean): void => {
    const { token } = request.actor
    if (wantsPrivate && token.kind === 'classic' && !token.scopes.has('repo')) {
      throw new Forbidden('A private repository needs a token with the scope repo.')
    }
  }

  app.post<{ Body: NewRepository }>(
    '/user/repos',
    {
      config: {
        access: 'repositories:create',
        docs: `${DOCS}#create-a-repository-for-the-authenticated-user`
      },
      schema: {
        tags: TAGS,
        operationId: 'repos/create-for-authenticated-user',
        summary: 'Create a repository for the authenticated user',
        body: NewRepository,
        response: responses({ 201: MinimalRepository })
      }
    },
    async (request, reply) => {
      const { name, description = null } = request.body
      requireText(request.body)
      const flag = isPrivate(request.body) ?? false
      requireScopeFor(request, flag)
      const owner = { id: request.actor.accountId, uid: request.actor.accountUid }
      const id = await createRepository(db, principal(request), owner, { name, private: flag, description })
      const created = await presentById(request, id)
      return reply.code(201).header('location', created.url).send(created)
    }
  )

  app.post<{ Body: NewRepository; Params: Static<typeof OrganizationParams> }>(
    '/orgs/:org/repos',
    {
      config: {
        access: 'organization-repositories:create',
        docs: `${DOCS}#create-an-organization-repository`
      },
      schema: {
        tags: TAGS,
        operationId: 'repos/create-in-org',
        summary: 'Create a repository in an organization',
        params: OrganizationParams,
        body: NewRepository,
        response: responses({ 201: MinimalRepository })
      }
    },
    async (request, reply) => {
      const { name, description = null } = request.body
      requireText(request.body)
      const flag = isPrivate(request.body) ?? false
      requireScopeFor(request, flag)
      const login = readLogin(request.params.org)
      const { accountId, kind } = request.actor
      const organization = await requireOrganizationToCreateIn(db, accountId, login)
      const values = { name, private: flag, description }
      const installationId = kind === 'installation' ? accountId : undefined
      const id = await createRepository(db, principal(request), organization, values, installationId)
      const created = await presentById(request, id)
      return reply.code(201).header('location', created.url).send(created)
    }
  )
}
