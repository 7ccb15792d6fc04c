import { isDeepStrictEqual } from 'node:util'
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import { APP_NAMES, APPS } from '../apps.ts'

/** The apps beside Codespaces. */
function siblings() {
  return APP_NAMES.filter((app) => app !== 'codespaces').map((app) => {
    const { title } = APPS[app]
    return { name: `${title} secrets`, description: `The same for ${title}, kept apart` }
  })
}

/** The description that `/docs` shows and `openapi/github.json` holds. */
export function openApiOptions(version: string): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Coffer: GitHub API',
        version,
        description:
          "GitHub's Codespaces secrets API, and what its clients call around it, served by Coffer. The same paths " +
          'are served below `/api/v3`. Values are sealed by the client with a libsodium sealed box, and are never ' +
          'given back.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' }
      },
      servers: [{ url: '/' }, { url: '/api/v3' }],
      tags: [
        { name: 'repository secrets', description: 'Secrets of a repository' },
        { name: 'user secrets', description: 'Secrets of the authenticated user, for selected repositories' },
        {
          name: 'organization secrets',
          description: 'Secrets of an organization, for some or all repositories'
        },
        ...siblings(),
        { name: 'directory', description: 'Accounts, repositories and collaborators' },
        { name: 'apps', description: 'GitHub Apps: what they ask for themselves, and their installations' },
        { name: 'audit log', description: 'What was done and what was denied' },
        { name: 'administration', description: 'For site administrators' },
        { name: 'graphql', description: "As much of GitHub's GraphQL API as clients of secrets ask for" },
        { name: 'meta', description: 'The server itself' }
      ],
      components: {
        securitySchemes: {
          token: {
            type: 'http',
            scheme: 'bearer',
            description:
              'A token of Coffer. For what Apps ask for themselves: a JWT that the App signed with RS256, whose iss is its ' +
              'id or its client id'
          }
        }
      },
      security: [{ token: [] }]
    },
    hideUntagged: true,
    transformObject: (document) =>
      'openapiObject' in document
        ? withSharedErrors(document.openapiObject as Description)
        : document.swaggerObject
  }
}

interface Description {
  paths?: Record<string, Record<string, { responses?: Record<string, unknown> }>>
  components?: { responses?: Record<string, unknown> }
}

/** Says each error once, since all operations have the same: the description is a third of its size for it. */
function withSharedErrors(description: Description): Description {
  const shared: Record<string, unknown> = {}
  for (const operations of Object.values(description.paths ?? {})) {
    for (const { responses = {} } of Object.values(operations)) {
      for (const [status, response] of Object.entries(responses)) {
        if (Number(status) < 400) continue
        shared[status] ??= response
        if (isDeepStrictEqual(shared[status], response)) {
          responses[status] = { $ref: `#/components/responses/${status}` }
        }
      }
    }
  }
  return { ...description, components: { ...description.components, responses: shared } }
}
