import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { removeMembership, setMembership } from '../../directory/memberships.ts'
import { NotFound } from '../../errors.ts'
import { type Account, findAccount } from '../../store/accounts.ts'
import { findMembershipRole, findOrganization } from '../../store/organizations.ts'
import type { OrganizationRole } from '../../store/tables.ts'
import {
  OrganizationSimple,
  presentOrganization,
  presentSimpleUser,
  SimpleUser
} from './account-presenter.ts'
import { apiPrefix, type Found, foundOrganization, principal } from './context.ts'
import type { GitHubRoutes } from './github.ts'
import { findInOrganization, readLogin } from './guard.ts'
import { NoContent, OrganizationParams, responses, Uri } from './schemas.ts'

// Who belongs to an organization, and who owns it. https://docs.github.com/rest/orgs/members

const DOCS = 'https://docs.github.com/rest/orgs/members'

const Params = Type.Object({ ...OrganizationParams.properties, username: Type.String() })
type Params = Static<typeof Params>
const Role = Type.Union([Type.Literal('admin'), Type.Literal('member')])
const SetMembership = Type.Object({ role: Type.Optional(Role) })
const Membership = Type.Object({
  url: Uri,
  state: Type.Literal('active'),
  role: Role,
  organization_url: Uri,
  organization: OrganizationSimple,
  user: SimpleUser
})

export const membershipRoutes: GitHubRoutes = (app, { db }) => {
  const find = (request: FastifyRequest): Promise<Found> =>
    findInOrganization(request, async (locator) => ({
      organization: await findOrganization(db, request.actor.accountId, locator)
    }))

  const organizationOf = (request: FastifyRequest) => {
    const { organization_id, organization_uid, login } = foundOrganization(request)
    return { id: organization_id, uid: organization_uid, login }
  }

  const present = (request: FastifyRequest, account: Account, role: OrganizationRole) => {
    const base = app.baseUrl() + apiPrefix(request)
    const organization = presentOrganization(base, organizationOf(request))
    return {
      url: `${organization.url}/memberships/${account.login}`,
      state: 'active' as const,
      role,
      organization_url: organization.url,
      organization,
      user: presentSimpleUser(base, account)
    }
  }

  for (const base of ['/orgs/:org', '/organizations/:organization_id']) {
    const hide = base.startsWith('/organizations')
    const path = `${base}/memberships/:username`
    const common = { tags: ['directory'], hide, ...(!hide && { params: Params }) }

    app.get<{ Params: Params }>(
      path,
      {
        config: {
          access: 'members:read',
          find,
          docs: `${DOCS}#get-organization-membership-for-a-user`
        },
        schema: {
          ...common,
          operationId: 'orgs/get-membership-for-user',
          summary: 'Get the membership of a user',
          response: responses({ 200: Membership })
        }
      },
      async (request) => {
        const account = await findAccount(db, readLogin(request.params.username))
        const role = account && (await findMembershipRole(db, organizationOf(request).id, account.id))
        if (!role) throw new NotFound()
        return present(request, account, role)
      }
    )

    app.put<{ Params: Params; Body: Static<typeof SetMembership> }>(
      path,
      {
        config: {
          access: 'members:write',
          find,
          docs: `${DOCS}#set-organization-membership-for-a-user`
        },
        schema: {
          ...common,
          operationId: 'orgs/set-membership-for-user',
          summary: 'Make a user a member or an owner',
          description: 'At once: there are no invitations.',
          body: SetMembership,
          response: responses({ 200: Membership })
        }
      },
      async (request) => {
        const { role = 'member' } = request.body
        const login = readLogin(request.params.username)
        const account = await setMembership(db, principal(request), organizationOf(request), login, role)
        return present(request, account, role)
      }
    )

    app.delete<{ Params: Params }>(
      path,
      {
        config: {
          access: 'members:write',
          find,
          docs: `${DOCS}#remove-organization-membership-for-a-user`
        },
        schema: {
          ...common,
          operationId: 'orgs/remove-membership-for-user',
          summary: 'End the membership of a user, with its roles on repositories of the organization',
          response: responses({ 204: NoContent })
        }
      },
      async (request, reply) => {
        const login = readLogin(request.params.username)
        await removeMembership(db, principal(request), organizationOf(request), login)
        return reply.code(204).send()
      }
    )
  }
}
