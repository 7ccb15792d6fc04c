import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { hasRole } from '../../auth/access.ts'
import { removeCollaborator, setCollaborator } from '../../directory/repositories.ts'
import { InvalidInput, NotFound } from '../../errors.ts'
import { findAccount } from '../../store/accounts.ts'
import { listCollaborators } from '../../store/collaborators.ts'
import { findRepository } from '../../store/repositories.ts'
import type { RepositoryRole } from '../../store/tables.ts'
import { presentSimpleUser, SimpleUser } from './account-presenter.ts'
import { apiPrefix, foundRepository, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findIn, readLogin } from './guard.ts'
import { readPage, setLinks } from './pagination.ts'
import { NoContent, PageQuery, RepositoryParams, responses } from './schemas.ts'

// Collaborators and their roles; both act at once. https://docs.github.com/rest/collaborators/collaborators

const DOCS = 'https://docs.github.com/rest/collaborators/collaborators'
const TAGS = ['directory']

/** GitHub's names for permissions → roles; the roles' own names are taken too. */
const ROLES: Record<string, RepositoryRole> = {
  pull: 'read',
  read: 'read',
  triage: 'triage',
  push: 'write',
  write: 'write',
  maintain: 'maintain',
  admin: 'admin'
}

const CollaboratorParams = Type.Object({ ...RepositoryParams.properties, username: Type.String() })
const SetCollaborator = Type.Object({
  permission: Type.Optional(
    Type.String({ description: 'pull, triage, push (the default), maintain or admin' })
  )
})
const Collaborator = Type.Object({ ...SimpleUser.properties, role_name: Type.String() })
const CollaboratorPermission = Type.Object({
  permission: Type.String(),
  role_name: Type.String(),
  user: Collaborator
})

export const collaboratorRoutes: GitHubRoutes = (app, { db }) => {
  const find = (request: FastifyRequest) =>
    findIn(request, async (locator) => ({
      repository: await findRepository(db, request.actor.accountId, locator)
    }))

  /** The role that the user of the path has: as the repository sees it, not as the asking actor does. */
  const roleOfUser = async (request: FastifyRequest) => {
    const { username } = request.params as Static<typeof CollaboratorParams>
    const account = await findAccount(db, readLogin(username))
    if (account?.kind !== 'user') throw new NotFound()
    const { repository_id } = foundRepository(request)
    const facts = await findRepository(db, account.id, { repositoryId: repository_id })
    return { account, facts }
  }

  const PATH = '/repos/:owner/:repo/collaborators'

  app.get(
    PATH,
    {
      config: { access: 'repository:write', find, docs: `${DOCS}#list-repository-collaborators` },
      schema: {
        tags: TAGS,
        operationId: 'repos/list-collaborators',
        summary: 'List repository collaborators',
        params: RepositoryParams,
        querystring: PageQuery,
        response: responses({ 200: Type.Array(Collaborator) })
      }
    },
    async (request, reply) => {
      const page = readPage(request)
      const { repository_id } = foundRepository(request)
      const { total, collaborators } = await listCollaborators(db, repository_id, page)
      setLinks(request, reply, page, total, `/repositories/${repository_id}/collaborators`)
      const base = app.baseUrl() + apiPrefix(request)
      return collaborators.map((collaborator) => ({
        ...presentSimpleUser(base, collaborator),
        role_name: collaborator.role
      }))
    }
  )

  app.get(
    `${PATH}/:username`,
    {
      config: {
        access: 'repository:write',
        find,
        docs: `${DOCS}#check-if-a-user-is-a-repository-collaborator`
      },
      schema: {
        tags: TAGS,
        operationId: 'repos/check-collaborator',
        summary: 'Check if a user is a repository collaborator',
        params: CollaboratorParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const { facts } = await roleOfUser(request)
      if (!facts?.role) throw new NotFound()
      return reply.code(204).send()
    }
  )

  app.get(
    `${PATH}/:username/permission`,
    {
      config: {
        access: 'repository:write',
        find,
        docs: `${DOCS}#get-repository-permissions-for-a-user`
      },
      schema: {
        tags: TAGS,
        operationId: 'repos/get-collaborator-permission-level',
        summary: 'Get repository permissions for a user',
        params: CollaboratorParams,
        response: responses({ 200: CollaboratorPermission })
      }
    },
    async (request) => {
      const { account, facts } = await roleOfUser(request)
      const role = facts?.role ?? (facts && hasRole(facts, 'read') ? 'read' : undefined)
      const legacy = { read: 'read', triage: 'read', write: 'write', maintain: 'write', admin: 'admin' }
      const role_name = role ?? 'none'
      return {
        permission: role ? legacy[role] : 'none',
        role_name,
        user: { ...presentSimpleUser(app.baseUrl() + apiPrefix(request), account), role_name }
      }
    }
  )

  app.put<{ Body: Static<typeof SetCollaborator>; Params: Static<typeof CollaboratorParams> }>(
    `${PATH}/:username`,
    {
      config: { access: 'repository:admin', find, docs: `${DOCS}#add-a-repository-collaborator` },
      schema: {
        tags: TAGS,
        operationId: 'repos/add-collaborator',
        summary: 'Give a user a role on a repository, at once',
        params: CollaboratorParams,
        body: SetCollaborator,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const { permission = 'push' } = request.body
      const role = Object.hasOwn(ROLES, permission) ? ROLES[permission] : undefined
      if (!role) {
        throw new InvalidInput('Validation Failed', [
          {
            field: 'permission',
            code: 'custom',
            message: 'permission is one of pull, triage, push, maintain, admin'
          }
        ])
      }
      const login = readLogin(request.params.username)
      await setCollaborator(db, principal(request), foundRepository(request), login, role)
      return reply.code(204).send()
    }
  )

  app.delete<{ Params: Static<typeof CollaboratorParams> }>(
    `${PATH}/:username`,
    {
      config: { access: 'repository:admin', find, docs: `${DOCS}#remove-a-repository-collaborator` },
      schema: {
        tags: TAGS,
        operationId: 'repos/remove-collaborator',
        summary: 'Take the role of a user away, at once',
        params: CollaboratorParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const login = readLogin(request.params.username)
      await removeCollaborator(db, principal(request), foundRepository(request), login)
      return reply.code(204).send()
    }
  )
}
