import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import { putEnvironment, removeEnvironment } from '../../directory/deployment-environments.ts'
import { NotFound } from '../../errors.ts'
import {
  type DeploymentEnvironment,
  findEnvironment,
  listEnvironments
} from '../../store/deployment-environments.ts'
import { findRepository } from '../../store/repositories.ts'
import type { Database } from '../../store/tables.ts'
import { nodeId } from './account-presenter.ts'
import { apiPrefix, type Found, foundEnvironment, foundRepository, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findIn, isStorable } from './guard.ts'
import { readPage, setLinks } from './pagination.ts'
import { DateTime, NoContent, Nullable, PageQuery, RepositoryParams, responses, Uri } from './schemas.ts'
import { toSecond } from './secret-presenter.ts'

// Deployment environments: their names, for the secrets that they hold. https://docs.github.com/rest/deployments/environments

const DOCS = 'https://docs.github.com/rest/deployments/environments'

export const EnvironmentParams = Type.Object({
  ...RepositoryParams.properties,
  environment_name: Type.String({
    description: 'The name, percent-encoded where it has slashes; case does not matter'
  })
})
const Environment = Type.Object({
  id: Type.Integer(),
  node_id: Type.String(),
  name: Type.String(),
  url: Uri,
  html_url: Uri,
  created_at: DateTime,
  updated_at: DateTime,
  protection_rules: Type.Array(Type.Object({})),
  deployment_branch_policy: Nullable(Type.Object({})),
  can_admins_bypass: Type.Boolean()
})
const EnvironmentList = Type.Object({ total_count: Type.Integer(), environments: Type.Array(Environment) })

/** The name in a path; undefined when no environment can have it. */
export function readEnvironmentName(request: FastifyRequest): string | undefined {
  const { environment_name } = request.params as { environment_name: string }
  return isStorable(environment_name) ? environment_name : undefined
}

/** Finds the repository of a path and, for those who may see it, the environment. */
export function findEnvironmentOf(db: Kysely<Database>) {
  return (request: FastifyRequest): Promise<Found> =>
    findIn(request, async (locator) => {
      const repository = await findRepository(db, request.actor.accountId, locator)
      const name = readEnvironmentName(request)
      if (!repository || name === undefined) return { repository }
      return { repository, environment: await findEnvironment(db, repository.repository_id, name) }
    })
}

export const deploymentEnvironmentRoutes: GitHubRoutes = (app, { db }) => {
  const present = (
    request: FastifyRequest,
    environment: DeploymentEnvironment
  ): Static<typeof Environment> => {
    const { owner_login, name } = foundRepository(request)
    const base = app.baseUrl()
    const encoded = encodeURIComponent(environment.environment_name)
    return {
      id: environment.environment_id,
      node_id: nodeId('Environment', environment.environment_id),
      name: environment.environment_name,
      url: `${base}${apiPrefix(request)}/repos/${owner_login}/${name}/environments/${encoded}`,
      html_url: `${base}/${owner_login}/${name}/deployments/activity_log?environments_filter=${encoded}`,
      created_at: toSecond(environment.environment_created_at),
      updated_at: toSecond(environment.environment_updated_at),
      protection_rules: [],
      deployment_branch_policy: null,
      can_admins_bypass: true
    }
  }
  const find = findEnvironmentOf(db)
  const findOwner = (request: FastifyRequest): Promise<Found> =>
    findIn(request, async (locator) => ({
      repository: await findRepository(db, request.actor.accountId, locator)
    }))

  for (const base of ['/repos/:owner/:repo', '/repositories/:repository_id']) {
    const hide = base.startsWith('/repositories')
    const common = { tags: ['directory'], hide, ...(!hide && { params: EnvironmentParams }) }
    const path = `${base}/environments/:environment_name`

    app.get(
      `${base}/environments`,
      {
        config: { access: 'repository:read', find: findOwner, docs: `${DOCS}#list-environments` },
        schema: {
          ...common,
          ...(!hide && { params: RepositoryParams }),
          operationId: 'repos/get-all-environments',
          summary: 'List deployment environments',
          querystring: PageQuery,
          response: responses({ 200: EnvironmentList })
        }
      },
      async (request, reply) => {
        const page = readPage(request)
        const { repository_id } = foundRepository(request)
        const { total, environments } = await listEnvironments(db, repository_id, page)
        setLinks(request, reply, page, total, `/repositories/${repository_id}/environments`)
        return {
          total_count: total,
          environments: environments.map((environment) => present(request, environment))
        }
      }
    )

    app.get(
      path,
      {
        config: { access: 'repository:read', find, docs: `${DOCS}#get-an-environment` },
        schema: {
          ...common,
          operationId: 'repos/get-environment',
          summary: 'Get a deployment environment',
          response: responses({ 200: Environment })
        }
      },
      async (request) => present(request, foundEnvironment(request))
    )

    app.put(
      path,
      {
        config: {
          access: 'repository:admin',
          find: findOwner,
          docs: `${DOCS}#create-or-update-an-environment`
        },
        schema: {
          ...common,
          operationId: 'repos/create-or-update-environment',
          summary: 'Create a deployment environment, or keep it',
          description: 'Protection rules are accepted and not kept: nothing is deployed from here.',
          body: Type.Object({}),
          response: responses({ 200: Environment })
        }
      },
      async (request) => {
        const name = readEnvironmentName(request)
        if (name === undefined) throw new NotFound()
        const facts = foundRepository(request)
        await putEnvironment(db, principal(request), facts, name)
        const environment = await findEnvironment(db, facts.repository_id, name)
        if (!environment) throw new NotFound()
        return present(request, environment)
      }
    )

    app.delete(
      path,
      {
        config: { access: 'repository:admin', find, docs: `${DOCS}#delete-an-environment` },
        schema: {
          ...common,
          operationId: 'repos/delete-an-environment',
          summary: 'Delete a deployment environment with its secrets',
          response: responses({ 204: NoContent })
        }
      },
      async (request, reply) => {
        await removeEnvironment(db, principal(request), foundRepository(request), foundEnvironment(request))
        return reply.code(204).send()
      }
    )
  }
}
