import { type Static, Type } from '@sinclair/typebox'
import { NotFound, Unauthenticated } from '../../errors.ts'
import { findAccount } from '../../store/accounts.ts'
import { PublicUser, presentPublicUser } from './account-presenter.ts'
import { apiPrefix } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { readLogin } from './guard.ts'
import { responses } from './schemas.ts'

// Users and organizations, as far as clients look them up. https://docs.github.com/rest/users/users

const DOCS = 'https://docs.github.com/rest'
const TAGS = ['directory']

const UserParams = Type.Object({ username: Type.String() })

export const accountRoutes: GitHubRoutes = (app, { db }) => {
  app.get(
    '/user',
    {
      config: { access: 'user', docs: `${DOCS}/users/users#get-the-authenticated-user` },
      schema: {
        tags: TAGS,
        operationId: 'users/get-authenticated',
        summary: 'Get the authenticated user',
        response: responses({ 200: PublicUser })
      }
    },
    async (request) => {
      const { accountId, login } = request.actor
      const account = await findAccount(db, login)
      // deleted while the token was still taken for valid
      if (account?.id !== accountId) throw new Unauthenticated(true)
      return presentPublicUser(app.baseUrl() + apiPrefix(request), account)
    }
  )

  app.get<{ Params: Static<typeof UserParams> }>(
    '/users/:username',
    {
      config: { access: 'authenticated', docs: `${DOCS}/users/users#get-a-user` },
      schema: {
        tags: TAGS,
        operationId: 'users/get-by-username',
        summary: 'Get a user or an organization',
        params: UserParams,
        response: responses({ 200: PublicUser })
      }
    },
    async (request) => {
      const account = await findAccount(db, readLogin(request.params.username))
      if (!account) throw new NotFound()
      // GitHub shows an address only where its owner made it public, which there is no way to do here
      const email = account.id === request.actor.accountId ? account.email : null
      return presentPublicUser(app.baseUrl() + apiPrefix(request), { ...account, email })
    }
  )
}
