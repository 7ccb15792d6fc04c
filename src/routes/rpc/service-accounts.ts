import type { Static } from '@sinclair/typebox'
import {
  changeServiceAccount,
  createServiceAccount,
  createServiceAccountAccessToken,
  createServiceAccountToken,
  removeServiceAccount,
  removeServiceAccountToken
} from '../../directory/service-accounts.ts'
import { Forbidden, NotFound } from '../../errors.ts'
import { findActingOrganization } from '../../store/acting.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import {
  findServiceAccount,
  listServiceAccounts,
  type ServiceAccount as ServiceAccountRow
} from '../../store/service-accounts.ts'
import { findToken, listTokens, type TokenDescription } from '../../store/tokens.ts'
import { secondsOf } from './decode.ts'
import { Ids, Search, some } from './filters.ts'
import { NO_ORGANIZATION } from './guard.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact, Subject, subject, timestamp } from './present.ts'
import { Bool, Duration, Empty, List, Message, required, Text, Timestamp, Uuid } from './schema.ts'

// Service accounts: what automation runs as, in one organization. https://ona.com/docs/ona/organizations/service-accounts

const DAY_SECONDS = 86_400
/** As far as "without an end" is asked for, in seconds. */
const MAX_VALID_FOR = 2_524_608_000

const Name = { min: 1, max: 64 }
const Description = Text({ max: 500 })

const ServiceAccount = Message('ServiceAccount', {
  id: Uuid(),
  organizationId: Uuid(),
  name: Text(),
  description: Text(),
  creator: Subject,
  createdAt: Timestamp(),
  validUntil: Timestamp(),
  suspended: Bool({ description: 'It was deleted' })
})

const ServiceAccountToken = Message('ServiceAccountToken', {
  id: Uuid(),
  serviceAccountId: Uuid(),
  description: Text(),
  creator: Subject,
  createdAt: Timestamp(),
  expiresAt: Timestamp(),
  lastUsed: Timestamp({ description: 'To the hour' })
})

const ServiceAccountRequest = { serviceAccountId: Uuid({ required: true }) }
const TokenRequest = { serviceAccountTokenId: Uuid({ required: true }) }

function present(
  { organization_uid }: Pick<OrganizationFacts, 'organization_uid'>,
  row: ServiceAccountRow
): Static<typeof ServiceAccount> {
  return compact({
    id: row.uid,
    organizationId: organization_uid,
    name: row.name,
    description: row.description,
    creator: subject(row.creator_kind, row.creator_uid),
    createdAt: timestamp(row.created_at),
    validUntil: row.valid_until && timestamp(row.valid_until),
    suspended: row.suspended_at !== null
  })
}

/** Whoever took the service account's place to make it is its creator. */
function presentToken(
  serviceAccountId: string,
  token: Omit<TokenDescription, 'id'>
): Static<typeof ServiceAccountToken> {
  const { issued_by_uid } = token
  return compact({
    id: token.uid,
    serviceAccountId,
    description: token.note,
    creator: issued_by_uid ? subject('user', issued_by_uid) : subject('service-account', serviceAccountId),
    createdAt: timestamp(token.created_at),
    expiresAt: token.expires_at && timestamp(token.expires_at),
    lastUsed: token.last_used_at && timestamp(token.last_used_at)
  })
}

export function serviceAccountService({
  db,
  pages,
  authenticator,
  tokenLifetimes
}: OnaDependencies): Service {
  const getServiceAccount = async ({ organization }: Call, uid: string): Promise<ServiceAccountRow> => {
    const found = await findServiceAccount(db, organization.organization_id, uid)
    if (found) return found
    throw new NotFound('There is no such service account in the organization.')
  }
  /** Where a service account acts; its tokens are made for nothing else. */
  const organizationOf = async ({ acting }: Call): Promise<OrganizationFacts> => {
    const organization = await findActingOrganization(db, acting)
    if (organization) return organization
    throw new Forbidden(NO_ORGANIZATION)
  }
  const tokensOf = ({ actor }: Call) => ({ serviceAccountId: actor.accountId })
  const lifetimeOf = (validFor: string | undefined): number => {
    const { defaultDays, maxDays } = tokenLifetimes
    const asked = validFor === undefined ? 0 : secondsOf(validFor)
    return Math.min(asked || defaultDays * DAY_SECONDS, maxDays * DAY_SECONDS)
  }

  return {
    name: 'ServiceAccountService',
    description: 'Service accounts, and their tokens',
    methods: [
      method({
        name: 'CreateServiceAccount',
        summary: 'Create a service account',
        access: 'organization:administer',
        request: Message('CreateServiceAccountRequest', {
          name: Text({ required: true, ...Name }),
          description: Description,
          validUntil: required(Timestamp({ description: 'In the future; nobody acts as it afterwards' }))
        }),
        response: Message('CreateServiceAccountResponse', { serviceAccount: ServiceAccount }),
        async handle({ name, description = '', validUntil }, { principal, organization }) {
          const wish = { name: name!, description, validUntil: new Date(validUntil!) }
          const serviceAccount = await createServiceAccount(db, principal, organization, wish)
          return { serviceAccount: present(organization, serviceAccount) }
        }
      }),
      method({
        name: 'GetServiceAccount',
        summary: 'Get a service account, one that was deleted too',
        access: 'organization:read',
        reads: true,
        request: Message('GetServiceAccountRequest', ServiceAccountRequest),
        response: Message('GetServiceAccountResponse', { serviceAccount: ServiceAccount }),
        handle: async ({ serviceAccountId }, call) => ({
          serviceAccount: present(call.organization, await getServiceAccount(call, serviceAccountId!))
        })
      }),
      method({
        name: 'ListServiceAccounts',
        summary: 'List service accounts, oldest first',
        access: 'organization:read',
        reads: true,
        request: Message('ListServiceAccountsRequest', {
          pagination: PaginationRequest,
          filter: Message('ListServiceAccountsRequest.Filter', {
            includeSuspended: Bool({ description: 'Those that were deleted, too' }),
            serviceAccountIds: Ids,
            search: Search('the name, the description or the id')
          })
        }),
        response: Message('ListServiceAccountsResponse', {
          pagination: PaginationResponse,
          serviceAccounts: List(ServiceAccount)
        }),
        async handle(input, call) {
          const { organization } = call
          const page = pages.open<readonly [number]>(call, input)
          const { includeSuspended, serviceAccountIds, search } = input.filter ?? {}
          const found = await listServiceAccounts(
            db,
            organization.organization_id,
            { includeSuspended, serviceAccountUids: some(serviceAccountIds), search: search || undefined },
            { after: page.after?.[0] ?? 0, limit: page.limit }
          )
          const { rows, pagination } = page.close(found, ({ id }) => [id])
          return compact({ pagination, serviceAccounts: rows.map((row) => present(organization, row)) })
        }
      }),
      method({
        name: 'UpdateServiceAccount',
        summary: 'Change name or description of a service account; what is unset stays',
        access: 'organization:administer',
        request: Message('UpdateServiceAccountRequest', {
          ...ServiceAccountRequest,
          name: Text(Name),
          description: Description
        }),
        response: Message('UpdateServiceAccountResponse', { serviceAccount: ServiceAccount }),
        async handle({ serviceAccountId, ...values }, { principal, organization }) {
          const changed = await changeServiceAccount(db, principal, organization, serviceAccountId!, values)
          return { serviceAccount: present(organization, changed) }
        }
      }),
      method({
        name: 'DeleteServiceAccount',
        summary: 'Delete a service account with its tokens and secrets; it is shown as suspended',
        access: 'organization:administer',
        request: Message('DeleteServiceAccountRequest', ServiceAccountRequest),
        response: Empty,
        async handle({ serviceAccountId }, { principal, organization }) {
          const revoked = await removeServiceAccount(db, principal, organization, serviceAccountId!)
          authenticator.forget(revoked)
          return {}
        }
      }),
      method({
        name: 'CreateServiceAccountAccessToken',
        summary: 'Make a token for half an hour with which to act as a service account; it is shown once',
        access: 'organization:administer',
        request: Message('CreateServiceAccountAccessTokenRequest', ServiceAccountRequest),
        response: Message('CreateServiceAccountAccessTokenResponse', { token: Text() }),
        handle: async ({ serviceAccountId }, { principal, organization }) => ({
          token: await createServiceAccountAccessToken(db, principal, organization, serviceAccountId!)
        })
      }),
      method({
        name: 'CreateServiceAccountToken',
        summary: 'Make a token of the service account that asks; it is shown once',
        access: 'service-account',
        request: Message('CreateServiceAccountTokenRequest', {
          description: Text({ max: 1024 }),
          validFor: Duration({
            least: 1,
            most: MAX_VALID_FOR,
            orZero: true,
            description:
              'Unset or 0s: COFFER_TOKEN_DEFAULT_DAYS. It ends with the service account, and after ' +
              'COFFER_TOKEN_MAX_DAYS, at the latest'
          })
        }),
        response: Message('CreateServiceAccountTokenResponse', {
          token: Text(),
          serviceAccountToken: ServiceAccountToken
        }),
        async handle({ description = '', validFor }, call) {
          const wish = { note: description, lifetimeSeconds: lifetimeOf(validFor) }
          const organization = await organizationOf(call)
          const made = await createServiceAccountToken(db, call.principal, organization, wish)
          return {
            token: made.token,
            serviceAccountToken: presentToken(call.actor.accountUid, made.description)
          }
        }
      }),
      method({
        name: 'ListServiceAccountTokens',
        summary: 'List tokens of the service account that asks, oldest first',
        access: 'service-account',
        reads: true,
        request: Message('ListServiceAccountTokensRequest', { pagination: PaginationRequest }),
        response: Message('ListServiceAccountTokensResponse', {
          tokens: List(ServiceAccountToken),
          pagination: PaginationResponse
        }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const after = page.after?.[0] ?? 0
          const found = await listTokens(db, tokensOf(call), { after, limit: page.limit })
          const { rows, pagination } = page.close(found, ({ id }) => [id])
          const { accountUid } = call.actor
          return compact({ tokens: rows.map((token) => presentToken(accountUid, token)), pagination })
        }
      }),
      method({
        name: 'GetServiceAccountToken',
        summary: 'Get what is known of a token of the service account that asks',
        access: 'service-account',
        reads: true,
        request: Message('GetServiceAccountTokenRequest', TokenRequest),
        response: Message('GetServiceAccountTokenResponse', { token: ServiceAccountToken }),
        async handle({ serviceAccountTokenId }, call) {
          const token = await findToken(db, tokensOf(call), serviceAccountTokenId!)
          if (!token) throw new NotFound()
          return { token: presentToken(call.actor.accountUid, token) }
        }
      }),
      method({
        name: 'DeleteServiceAccountToken',
        summary: 'Revoke a token of the service account that asks, at once',
        access: 'service-account',
        request: Message('DeleteServiceAccountTokenRequest', TokenRequest),
        response: Empty,
        async handle({ serviceAccountTokenId }, call) {
          const { actor, principal } = call
          const organization = await organizationOf(call)
          const bearer = { id: actor.accountId, name: actor.login }
          authenticator.forget(
            await removeServiceAccountToken(db, principal, organization, bearer, serviceAccountTokenId!)
          )
          return {}
        }
      })
    ]
  }
}
