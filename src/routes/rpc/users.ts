import type { Static } from '@sinclair/typebox'
import { ACCESS, requireOrganizationAccess } from '../../auth/access.ts'
import {
  createPersonalAccessToken,
  removePersonalAccessToken
} from '../../directory/personal-access-tokens.ts'
import type { TokenLifetimes } from '../../directory/tokens.ts'
import { Forbidden, NotFound } from '../../errors.ts'
import { type Account, findAccountByUid } from '../../store/accounts.ts'
import { findActingOrganization } from '../../store/acting.ts'
import { findMembershipRole, type OrganizationFacts } from '../../store/organizations.ts'
import { findToken, listTokens, type TokenDescription } from '../../store/tokens.ts'
import { invalid, secondsOf } from './decode.ts'
import { Ids } from './filters.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact, Subject, subject, timestamp } from './present.ts'
import { Bool, Duration, Empty, Enum, List, Message, Text, Timestamp, Uuid } from './schema.ts'

// Users and the tokens that they make for themselves.
// https://ona.com/docs/ona/integrations/personal-access-token

const DAY_SECONDS = 86_400
const DEFAULT_DAYS = 30
const MAX_DAYS = 90

export const UserStatus = Enum('USER_STATUS', {
  USER_STATUS_ACTIVE: 1,
  USER_STATUS_SUSPENDED: 2,
  USER_STATUS_LEFT: 3
})

const User = Message('User', {
  id: Uuid(),
  organizationId: Uuid({ description: 'The one that the token acts in' }),
  name: Text({ description: 'Without one: the login' }),
  createdAt: Timestamp(),
  status: UserStatus,
  email: Text()
})

const PersonalAccessToken = Message('PersonalAccessToken', {
  id: Uuid(),
  userId: Uuid(),
  description: Text(),
  creator: Subject,
  createdAt: Timestamp(),
  expiresAt: Timestamp({ description: 'Unset: it does not end' }),
  lastUsed: Timestamp({ description: 'To the hour' }),
  readOnly: Bool()
})

const TokenRequest = { personalAccessTokenId: Uuid({ required: true }) }

function presentUser(account: Account, organization: OrganizationFacts | undefined): Static<typeof User> {
  const { uid, name, login, email, created_at } = account
  return compact({
    id: uid,
    organizationId: organization?.organization_uid,
    name: name ?? login,
    createdAt: timestamp(created_at),
    status: 'USER_STATUS_ACTIVE' as const,
    email
  })
}

function presentToken(userId: string, token: TokenDescription): Static<typeof PersonalAccessToken> {
  return compact({
    id: token.uid,
    userId,
    description: token.note,
    creator: subject('user', token.issued_by_uid ?? userId),
    createdAt: timestamp(token.created_at),
    expiresAt: token.expires_at && timestamp(token.expires_at),
    lastUsed: token.last_used_at && timestamp(token.last_used_at),
    readOnly: token.read_only
  })
}

/** How long a token lives, in seconds; throws `InvalidInput` for longer than the operator allows. */
function lifetimeOf(validFor: string | undefined, { maxDays }: TokenLifetimes): number {
  const asked = validFor === undefined ? 0 : secondsOf(validFor)
  if (asked === 0) return Math.min(DEFAULT_DAYS, maxDays) * DAY_SECONDS
  const most = maxDays * DAY_SECONDS
  if (asked <= most) return asked
  throw invalid('validFor', `must be at most ${most}s, the limit that COFFER_TOKEN_MAX_DAYS sets`)
}

export function userService({ db, pages, authenticator, tokenLifetimes }: OnaDependencies): Service {
  const getUser = async (uid: string): Promise<Account> => {
    const account = await findAccountByUid(db, uid)
    if (account?.kind === 'user') return account
    throw new NotFound('There is no such user in the organization of this token.')
  }
  const accountOf = ({ actor }: Call) => ({ id: actor.accountId, uid: actor.accountUid, login: actor.login })

  return {
    name: 'UserService',
    description: 'Users, and their personal access tokens',
    methods: [
      method({
        name: 'GetAuthenticatedUser',
        summary: 'Get the user of the token',
        access: 'user',
        reads: true,
        request: Message('GetAuthenticatedUserRequest', {}),
        response: Message('GetAuthenticatedUserResponse', { user: User }),
        async handle(_input, { actor, acting }) {
          const organization = await findActingOrganization(db, acting)
          return { user: presentUser(await getUser(actor.accountUid), organization) }
        }
      }),
      method({
        name: 'GetUser',
        summary: 'Get oneself, or a member of the organization',
        access: 'authenticated',
        reads: true,
        request: Message('GetUserRequest', { userId: Uuid({ required: true }) }),
        response: Message('GetUserResponse', { user: User }),
        async handle({ userId }, call) {
          const { actor, acting } = call
          const organization = await findActingOrganization(db, acting)
          if (userId !== actor.accountUid) {
            requireOrganizationAccess(actor, ACCESS['organization:read'], organization)
            call.organization = organization
          }
          const account = await getUser(userId!)
          const isMember =
            organization && (await findMembershipRole(db, organization.organization_id, account.id))
          if (userId !== actor.accountUid && !isMember) throw new NotFound()
          return { user: presentUser(account, organization) }
        }
      }),
      method({
        name: 'CreatePersonalAccessToken',
        summary:
          'Make a token of oneself, for the organization that the asking one acts in; it is shown once',
        access: 'personal-access-tokens',
        request: Message('CreatePersonalAccessTokenRequest', {
          userId: Uuid({ description: 'Oneself; unset: the same' }),
          description: Text({ max: 1024 }),
          validFor: Duration({
            least: 1,
            most: MAX_DAYS * DAY_SECONDS,
            orZero: true,
            description: `Unset or 0s: ${DEFAULT_DAYS} days. At most ${MAX_DAYS} days, and COFFER_TOKEN_MAX_DAYS`
          }),
          readOnly: Bool({ description: 'Nothing is changed with it, on neither API' })
        }),
        response: Message('CreatePersonalAccessTokenResponse', { token: Text() }),
        async handle({ userId, description = '', validFor, readOnly = false }, call) {
          const { actor, acting, principal } = call
          if (userId && userId !== actor.accountUid)
            throw new Forbidden('A user makes tokens of itself alone.')
          const lifetimeSeconds = lifetimeOf(validFor, tokenLifetimes)
          const organization = await findActingOrganization(db, acting)
          const wish = { description, lifetimeSeconds, readOnly }
          const token = await createPersonalAccessToken(db, principal, accountOf(call), organization, wish)
          return { token }
        }
      }),
      method({
        name: 'GetPersonalAccessToken',
        summary: 'Get what is known of one of one’s own tokens',
        access: 'personal-access-tokens',
        reads: true,
        request: Message('GetPersonalAccessTokenRequest', TokenRequest),
        response: Message('GetPersonalAccessTokenResponse', { pat: PersonalAccessToken }),
        async handle({ personalAccessTokenId }, { actor }) {
          const token = await findToken(db, { accountId: actor.accountId }, personalAccessTokenId!)
          if (!token) throw new NotFound()
          return { pat: presentToken(actor.accountUid, token) }
        }
      }),
      method({
        name: 'ListPersonalAccessTokens',
        summary: 'List one’s own tokens, oldest first',
        access: 'personal-access-tokens',
        reads: true,
        request: Message('ListPersonalAccessTokensRequest', {
          pagination: PaginationRequest,
          filter: Message('ListPersonalAccessTokensRequest.Filter', { userIds: Ids })
        }),
        response: Message('ListPersonalAccessTokensResponse', {
          pagination: PaginationResponse,
          personalAccessTokens: List(PersonalAccessToken)
        }),
        async handle(input, call) {
          const { accountId, accountUid } = call.actor
          const page = pages.open<readonly [number]>(call, input)
          const { userIds = [] } = input.filter ?? {}
          const own = userIds.length === 0 || userIds.includes(accountUid)
          const after = page.after?.[0] ?? 0
          const found = own ? await listTokens(db, { accountId }, { after, limit: page.limit }) : []
          const { rows, pagination } = page.close(found, ({ id }) => [id])
          return compact({
            pagination,
            personalAccessTokens: rows.map((token) => presentToken(accountUid, token))
          })
        }
      }),
      method({
        name: 'DeletePersonalAccessToken',
        summary: 'Revoke one of one’s own tokens, at once',
        access: 'personal-access-tokens',
        request: Message('DeletePersonalAccessTokenRequest', TokenRequest),
        response: Empty,
        async handle({ personalAccessTokenId }, call) {
          const revoked = await removePersonalAccessToken(
            db,
            call.principal,
            accountOf(call),
            personalAccessTokenId!
          )
          authenticator.forget(revoked)
          return {}
        }
      })
    ]
  }
}
