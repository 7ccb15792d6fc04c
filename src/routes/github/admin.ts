import { type Static, Type } from '@sinclair/typebox'
import { createOrganization, createUser, removeUser } from '../../directory/accounts.ts'
import { inTheNameOf } from '../../directory/change.ts'
import { type IssuedToken, issueToken, revokeAll } from '../../directory/tokens.ts'
import { InvalidInput, NotFound } from '../../errors.ts'
import { type Account, findAccount } from '../../store/accounts.ts'
import { findRepository } from '../../store/repositories.ts'
import {
  OrganizationSimple,
  presentOrganization,
  presentSimpleUser,
  SimpleUser
} from './account-presenter.ts'
import { apiPrefix, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { readLogin } from './guard.ts'
import { DateTime, NoContent, Nullable, responses } from './schemas.ts'

// GitHub Enterprise Server's administration. https://docs.github.com/enterprise-server/rest/enterprise-admin

const DOCS = 'https://docs.github.com/enterprise-server@3.19/rest/enterprise-admin'
const TAGS = ['administration']

const NewUser = Type.Object({
  login: Type.String(),
  email: Type.Optional(Nullable(Type.String({ maxLength: 320 }))),
  name: Type.Optional(Type.String({ maxLength: 255 })),
  site_admin: Type.Optional(Type.Boolean({ description: 'An extension: may administer this server' }))
})
const NewOrganization = Type.Object({
  login: Type.String(),
  admin: Type.String({ description: 'The login of the user who will own the organization' }),
  profile_name: Type.Optional(Type.String({ maxLength: 255 }))
})
const UserParams = Type.Object({ username: Type.String() })
const NewAuthorization = Type.Object({
  scopes: Type.Optional(Nullable(Type.Array(Type.String(), { maxItems: 100 }))),
  permissions: Type.Optional(
    Type.Record(Type.String(), Type.String(), {
      description: 'An extension: makes a fine-grained token with these permissions, name → level'
    })
  ),
  repositories: Type.Optional(
    Type.Array(Type.String(), {
      maxItems: 1000,
      description: 'An extension: the repositories of a fine-grained token, as owner/name'
    })
  ),
  all_repositories: Type.Optional(
    Type.Boolean({ description: 'An extension: the fine-grained token reaches all that its account reaches' })
  ),
  note: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
  expires: Type.Optional(Type.Integer({ description: 'An extension: lifetime in days' }))
})
type NewAuthorization = Static<typeof NewAuthorization>
const Authorization = Type.Object({
  id: Type.Integer(),
  url: Type.String(),
  app: Type.Object({ name: Type.String(), url: Type.String(), client_id: Type.String() }),
  token: Type.String({ description: 'Shown this once' }),
  hashed_token: Nullable(Type.String()),
  token_last_eight: Type.String(),
  note: Nullable(Type.String()),
  note_url: Nullable(Type.String()),
  created_at: DateTime,
  updated_at: DateTime,
  scopes: Type.Array(Type.String()),
  permissions: Type.Optional(Type.Record(Type.String(), Type.String())),
  fingerprint: Nullable(Type.String()),
  expires_at: Nullable(DateTime)
})

function second(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`
}

function presentAuthorization(base: string, issued: IssuedToken): Static<typeof Authorization> {
  const at = second(issued.createdAt)
  return {
    id: issued.id,
    url: `${base}/authorizations/${issued.id}`,
    app: { name: 'Coffer', url: base, client_id: '00000000000000000000' },
    token: issued.token,
    hashed_token: null,
    token_last_eight: issued.lastEight,
    note: issued.note,
    note_url: null,
    created_at: at,
    updated_at: at,
    scopes: issued.scopes,
    ...(issued.kind === 'fine-grained' && { permissions: issued.permissions }),
    fingerprint: null,
    expires_at: issued.expiresAt && second(issued.expiresAt)
  }
}

export const adminRoutes: GitHubRoutes = (app, { db, authenticator, tokenLifetimes }) => {
  const requireUser = async (login: string): Promise<Account> => {
    const account = await findAccount(db, readLogin(login))
    if (account?.kind !== 'user') throw new NotFound()
    return account
  }

  /** What the account of the token sees, so that a token never learns of more. */
  const repositoryIds = async (account: Account, names: readonly string[]): Promise<number[]> => {
    const ids: number[] = []
    for (const name of names) {
      const [owner = '', repo = '', ...rest] = name.split('/')
      const storable = rest.length === 0 && !name.includes('\0')
      const facts = storable ? await findRepository(db, account.id, { owner, repo }) : undefined
      if (!facts || (facts.private && !facts.role)) {
        throw new InvalidInput('Validation Failed', [
          {
            field: 'repositories',
            code: 'custom',
            message:
              'repositories names one, as owner/name, that does not exist or that the account cannot see'
          }
        ])
      }
      ids.push(facts.repository_id)
    }
    return ids
  }

  app.post<{ Body: Static<typeof NewUser> }>(
    '/admin/users',
    {
      config: { access: 'site_admin', docs: `${DOCS}/users#create-a-user` },
      schema: {
        tags: TAGS,
        operationId: 'enterprise-admin/create-user',
        summary: 'Create a user',
        body: NewUser,
        response: responses({ 201: SimpleUser })
      }
    },
    async (request, reply) => {
      const { login, email, name, site_admin } = request.body
      const account = await createUser(db, principal(request), {
        login,
        ...(email && { email: withoutNul(email, 'email') }),
        ...(name !== undefined && { name: withoutNul(name, 'name') }),
        ...(site_admin !== undefined && { siteAdmin: site_admin })
      })
      return reply.code(201).send(presentSimpleUser(app.baseUrl() + apiPrefix(request), account))
    }
  )

  app.delete<{ Params: Static<typeof UserParams> }>(
    '/admin/users/:username',
    {
      config: { access: 'site_admin', docs: `${DOCS}/users#delete-a-user` },
      schema: {
        tags: TAGS,
        operationId: 'enterprise-admin/delete-user',
        summary: 'Delete a user with tokens, secrets and repositories',
        params: UserParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const login = readLogin(request.params.username)
      if (login.toLowerCase() === request.actor.login.toLowerCase()) {
        throw new InvalidInput('You cannot delete the account that you are using.')
      }
      authenticator.forget(await removeUser(db, principal(request), login))
      return reply.code(204).send()
    }
  )

  app.post<{ Body: Static<typeof NewOrganization> }>(
    '/admin/organizations',
    {
      config: { access: 'site_admin', docs: `${DOCS}/orgs#create-an-organization` },
      schema: {
        tags: TAGS,
        operationId: 'enterprise-admin/create-org',
        summary: 'Create an organization',
        body: NewOrganization,
        response: responses({ 201: OrganizationSimple })
      }
    },
    async (request, reply) => {
      const { login, admin, profile_name } = request.body
      const account = await createOrganization(db, principal(request), {
        login,
        admin: readLogin(admin),
        ...(profile_name !== undefined && { name: withoutNul(profile_name, 'profile_name') })
      })
      return reply.code(201).send(presentOrganization(app.baseUrl() + apiPrefix(request), account))
    }
  )

  app.post<{ Body: NewAuthorization; Params: Static<typeof UserParams> }>(
    '/admin/users/:username/authorizations',
    {
      config: { access: 'site_admin', docs: `${DOCS}/users#create-an-impersonation-oauth-token` },
      schema: {
        tags: TAGS,
        operationId: 'enterprise-admin/create-impersonation-o-auth-token',
        summary: 'Issue one more token for a user',
        params: UserParams,
        body: NewAuthorization,
        response: responses({ 201: Authorization })
      }
    },
    async (request, reply) => {
      const account = await requireUser(request.params.username)
      const { scopes, permissions, repositories, all_repositories, note, expires } = request.body
      const issued = await issueToken(
        db,
        principal(request),
        account,
        {
          scopes: scopes ?? [],
          ...(permissions && { permissions }),
          repositoryIds: await repositoryIds(account, repositories ?? []),
          ...(all_repositories !== undefined && { allRepositories: all_repositories }),
          ...(note && { note: withoutNul(note, 'note') }),
          ...(expires !== undefined && { expiresInDays: expires })
        },
        tokenLifetimes
      )
      return reply.code(201).send(presentAuthorization(app.baseUrl() + apiPrefix(request), issued))
    }
  )

  app.delete<{ Params: Static<typeof UserParams> }>(
    '/admin/users/:username/authorizations',
    {
      config: { access: 'site_admin', docs: `${DOCS}/users#delete-an-impersonation-oauth-token` },
      schema: {
        tags: TAGS,
        operationId: 'enterprise-admin/delete-impersonation-o-auth-token',
        summary: 'Revoke every token of a user',
        params: UserParams,
        response: responses({ 204: NoContent })
      }
    },
    async (request, reply) => {
      const account = await requireUser(request.params.username)
      const who = principal(request)
      authenticator.forget(await inTheNameOf(db, who, (tx) => revokeAll(tx, who, account)))
      return reply.code(204).send()
    }
  )
}

function withoutNul(text: string, field: string): string {
  if (!text.includes('\0')) return text
  throw new InvalidInput('Validation Failed', [{ field, code: 'custom', message: `${field} holds a NUL` }])
}
