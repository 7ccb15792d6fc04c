import { Type } from '@sinclair/typebox'
import { apiPrefix } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { API_VERSIONS } from './headers.ts'
import { responses } from './schemas.ts'

// What clients ask of the server itself. https://docs.github.com/rest/meta/meta

const DOCS = 'https://docs.github.com/rest/meta/meta'
const TAGS = ['meta']

/** The release of GitHub Enterprise Server whose forms these are; some clients look for features by it. */
const INSTALLED_VERSION = '3.19.0'

const ROOT = {
  current_user_url: '/user',
  codespaces_user_secrets_url: '/user/codespaces/secrets',
  codespaces_repository_secrets_url: '/repos/{owner}/{repo}/codespaces/secrets',
  current_user_repositories_url: '/user/repos{?visibility,page,per_page}',
  organization_url: '/orgs/{org}',
  repository_url: '/repos/{owner}/{repo}',
  user_url: '/users/{user}'
} as const

const Root = Type.Object(Object.fromEntries(Object.keys(ROOT).map((name) => [name, Type.String()])))
const Meta = Type.Object({
  verifiable_password_authentication: Type.Boolean(),
  installed_version: Type.String(),
  coffer_version: Type.String()
})

export const openMetaRoutes: GitHubRoutes = (app, { version }) => {
  app.get(
    '/meta',
    {
      config: { access: 'open', docs: `${DOCS}#get-apiname-meta-information` },
      schema: {
        tags: TAGS,
        operationId: 'meta/get',
        summary: 'What this server is',
        security: [],
        response: responses({ 200: Meta })
      }
    },
    async () => ({
      verifiable_password_authentication: false,
      installed_version: INSTALLED_VERSION,
      coffer_version: version
    })
  )

  app.get(
    '/versions',
    {
      config: { access: 'open', docs: `${DOCS}#get-all-api-versions` },
      schema: {
        tags: TAGS,
        operationId: 'meta/get-all-versions',
        summary: 'Supported API versions, the newest first',
        security: [],
        response: responses({ 200: Type.Array(Type.String()) })
      }
    },
    async () => [...API_VERSIONS].reverse()
  )
}

export const metaRoutes: GitHubRoutes = (app) => {
  app.get(
    '/',
    {
      config: { access: 'authenticated', docs: `${DOCS}#github-api-root` },
      schema: {
        tags: TAGS,
        operationId: 'meta/root',
        summary: 'Where things are',
        response: responses({ 200: Root })
      }
    },
    async (request) => {
      const base = app.baseUrl() + apiPrefix(request)
      return Object.fromEntries(Object.entries(ROOT).map(([name, path]) => [name, base + path]))
    }
  )
}
