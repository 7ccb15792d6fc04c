import type { Static } from '@sinclair/typebox'
import { ACCESS, requireOrganizationAccess } from '../../auth/access.ts'
import { createNamedOrganization, removeOrganization, renameOrganization } from '../../directory/accounts.ts'
import { changeMembershipRole, removeMembership } from '../../directory/memberships.ts'
import { NotFound } from '../../errors.ts'
import { findActingOrganization } from '../../store/acting.ts'
import {
  countMembers,
  findOrganization,
  listMembersInOrder,
  type MemberDescription,
  type MemberFilter,
  type MemberOrder,
  type OrganizationFacts
} from '../../store/organizations.ts'
import type { OrganizationRole as Role } from '../../store/tables.ts'
import { CountRequest, CountResponse, count } from './count.ts'
import { invalid } from './decode.ts'
import { Ids, Search, SortOrder, some } from './filters.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact, timestamp } from './present.ts'
import { Bool, Empty, Enum, List, Message, required, Text, Timestamp, Uuid } from './schema.ts'
import { UserStatus } from './users.ts'

// Organizations: the same accounts that GitHub's API knows. https://ona.com/docs/ona/organizations/overview

const OrganizationTier = Enum('ORGANIZATION_TIER', {
  ORGANIZATION_TIER_FREE: 1,
  ORGANIZATION_TIER_ENTERPRISE: 2,
  ORGANIZATION_TIER_CORE: 3,
  ORGANIZATION_TIER_FREE_ONA: 4
})

const OrganizationRole = Enum('ORGANIZATION_ROLE', {
  ORGANIZATION_ROLE_ADMIN: 1,
  ORGANIZATION_ROLE_MEMBER: 2
})

const ROLES: Readonly<Record<string, Role>> = {
  ORGANIZATION_ROLE_ADMIN: 'admin',
  ORGANIZATION_ROLE_MEMBER: 'member'
}
const ROLE_NAMES = { admin: 'ORGANIZATION_ROLE_ADMIN', member: 'ORGANIZATION_ROLE_MEMBER' } as const

const InviteDomains = Message('InviteDomains', { domains: List(Text({ max: 253 }), { max: 100 }) })

const Organization = Message('Organization', {
  id: Uuid(),
  name: Text({ description: 'Without one: the login' }),
  createdAt: Timestamp(),
  updatedAt: Timestamp(),
  tier: OrganizationTier
})

const OrganizationMember = Message('OrganizationMember', {
  userId: Uuid(),
  role: OrganizationRole,
  memberSince: Timestamp(),
  fullName: Text({ description: 'Without one: the login' }),
  email: Text({ description: 'Empty where it is not known' }),
  status: UserStatus,
  loginProvider: Text()
})

const Name = { min: 3, max: 80 }

const OrganizationRequest = {
  organizationId: Uuid({ required: true, description: 'The one that the token acts in' })
}

const ListMembersRequest = Message('ListMembersRequest', {
  pagination: PaginationRequest,
  ...OrganizationRequest,
  filter: Message('ListMembersRequest.Filter', {
    search: Search('the name, the login or the email address'),
    statuses: List(UserStatus, { max: 25, description: 'All members are active' }),
    roles: List(OrganizationRole, { max: 25 }),
    userIds: Ids,
    excludeGroupIds: Ids
  }),
  sort: Message('ListMembersRequest.Sort', {
    field: Enum('SORT_FIELD', { SORT_FIELD_NAME: 1, SORT_FIELD_DATE_JOINED: 2 }),
    order: SortOrder
  }),
  count: CountRequest
})
type ListMembersRequest = Static<typeof ListMembersRequest>

/** Where the tokens come from that users log in with. */
const LOGIN_PROVIDER = 'coffer'

function presentOrganization(facts: OrganizationFacts): Static<typeof Organization> {
  return {
    id: facts.organization_uid,
    name: facts.organization_name ?? facts.login,
    createdAt: timestamp(facts.organization_created_at),
    updatedAt: timestamp(facts.organization_updated_at),
    tier: 'ORGANIZATION_TIER_ENTERPRISE'
  }
}

/** SDKs take all of these for given, an address that is not known too. */
function presentMember(member: MemberDescription): Static<typeof OrganizationMember> {
  return {
    userId: member.uid,
    role: ROLE_NAMES[member.role],
    memberSince: timestamp(member.member_since),
    fullName: member.name ?? member.login,
    email: member.email ?? '',
    status: 'USER_STATUS_ACTIVE',
    loginProvider: LOGIN_PROVIDER
  }
}

function filterOf({ filter = {} }: ListMembersRequest): MemberFilter {
  const { search, roles, userIds, excludeGroupIds } = filter
  return {
    search: search || undefined,
    roles: some(roles)?.flatMap((role) => ROLES[role] ?? []),
    userUids: some(userIds),
    withoutGroupUids: some(excludeGroupIds)
  }
}

/** Whoever asks comes first, unless another order is asked for. */
function orderOf({ sort }: ListMembersRequest, { actor }: Call): MemberOrder {
  if (!sort?.field && !sort?.order) return { by: 'name', firstId: actor.accountId }
  const by = sort.field === 'SORT_FIELD_DATE_JOINED' ? 'joined' : 'name'
  return { by, descending: sort.order === 'SORT_ORDER_DESC' }
}

export function organizationService({ db, pages, authenticator }: OnaDependencies): Service {
  const accountOf = ({ organization }: Call) => {
    const { organization_id, organization_uid, login } = organization
    return { id: organization_id, uid: organization_uid, login }
  }

  return {
    name: 'OrganizationService',
    description: 'Organizations and their members',
    methods: [
      method({
        name: 'CreateOrganization',
        summary: 'Create an organization and own it; a token that is made for another one keeps acting there',
        access: 'organizations:create',
        request: Message('CreateOrganizationRequest', {
          name: Text({
            required: true,
            ...Name,
            description: "Its login on GitHub's API is made of it: letters, digits and hyphens"
          }),
          joinOrganization: Bool({
            description: 'Whether the answer has the membership, which is made anyway'
          }),
          inviteAccountsWithMatchingDomain: Bool({ description: 'Ignored: there are no invitations' })
        }),
        response: Message('CreateOrganizationResponse', {
          organization: Organization,
          member: OrganizationMember
        }),
        async handle({ name, joinOrganization }, { principal, actor }) {
          const wish = { name: name!, admin: actor.login }
          const { id } = await createNamedOrganization(db, principal, wish)
          const facts = await findOrganization(db, actor.accountId, { organizationId: id })
          if (!facts) throw new NotFound()
          const order = { by: 'name' } as const
          const page = { after: undefined, limit: 1 }
          const [member] = await listMembersInOrder(db, id, { userUids: [actor.accountUid] }, order, page)
          return {
            organization: presentOrganization(facts),
            ...(joinOrganization && member && { member: presentMember(member) })
          }
        }
      }),
      method({
        name: 'GetOrganization',
        summary: 'Get the organization that the token acts in',
        access: 'organization:read',
        reads: true,
        request: Message('GetOrganizationRequest', OrganizationRequest),
        response: Message('GetOrganizationResponse', { organization: Organization }),
        handle: async (_input, { organization }) => ({ organization: presentOrganization(organization) })
      }),
      method({
        name: 'UpdateOrganization',
        summary: 'Give an organization another name',
        access: 'organization:administer',
        request: Message('UpdateOrganizationRequest', {
          ...OrganizationRequest,
          name: Text({ ...Name, description: 'Unset: it stays' }),
          inviteDomains: InviteDomains
        }),
        response: Message('UpdateOrganizationResponse', { organization: Organization }),
        async handle({ name, inviteDomains }, call) {
          if (some(inviteDomains?.domains)) {
            throw invalid('inviteDomains', 'is not supported by this server: there are no invitations')
          }
          if (name !== undefined) await renameOrganization(db, call.principal, accountOf(call), name)
          const facts = await findActingOrganization(db, call.acting)
          if (!facts) throw new NotFound()
          return { organization: presentOrganization(facts) }
        }
      }),
      method({
        name: 'DeleteOrganization',
        summary: 'Delete an organization with all that it has, and the tokens that are made for it',
        access: 'organization:administer',
        request: Message('DeleteOrganizationRequest', OrganizationRequest),
        response: Empty,
        async handle(_input, call) {
          authenticator.forget(await removeOrganization(db, call.principal, accountOf(call)))
          return {}
        }
      }),
      method({
        name: 'ListMembers',
        summary: 'List the members of the organization by name, oneself first',
        access: 'organization:read',
        reads: true,
        request: ListMembersRequest,
        response: Message('ListMembersResponse', {
          pagination: PaginationResponse,
          members: List(OrganizationMember),
          count: CountResponse
        }),
        async handle(input, call) {
          const { organization_id } = call.organization
          const page = pages.open<readonly [string, number]>(call, input)
          const statuses = some(input.filter?.statuses)
          if (statuses && !statuses.includes('USER_STATUS_ACTIVE')) return { pagination: {} }
          const filter = filterOf(input)
          const found = await listMembersInOrder(db, organization_id, filter, orderOf(input, call), page)
          const { rows, pagination } = page.close(found, ({ sort_key, id }) => [sort_key, id])
          return compact({
            pagination,
            members: rows.map(presentMember),
            count: await count(input, page, (atMost) => countMembers(db, organization_id, filter, atMost))
          })
        }
      }),
      method({
        name: 'SetRole',
        summary: 'Give a member another role; the last owner stays one',
        access: 'organization:administer',
        request: Message('SetRoleRequest', {
          ...OrganizationRequest,
          userId: Uuid({ required: true }),
          role: required(OrganizationRole)
        }),
        response: Empty,
        async handle({ userId, role }, call) {
          const user = { uid: userId! }
          await changeMembershipRole(db, call.principal, accountOf(call), user, ROLES[role!]!)
          return {}
        }
      }),
      method({
        name: 'LeaveOrganization',
        summary: 'End one’s own membership, or as an owner that of somebody else; the last owner stays',
        access: 'organization:leave',
        request: Message('LeaveOrganizationRequest', { userId: Uuid({ required: true }) }),
        response: Empty,
        async handle({ userId }, call) {
          const { actor, organization, principal } = call
          if (userId !== actor.accountUid) {
            requireOrganizationAccess(actor, ACCESS['organization:administer'], organization)
          }
          await removeMembership(db, principal, accountOf(call), { uid: userId! })
          return {}
        }
      })
    ]
  }
}
