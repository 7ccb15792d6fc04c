import type { Kysely, Transaction } from 'kysely'
import { FULL_SCOPES } from '../auth/access.ts'
import { hashToken, lastEight, makeToken } from '../auth/token.ts'
import { Conflict, InvalidInput, NotFound } from '../errors.ts'
import { lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import {
  findServiceAccount,
  insertServiceAccount,
  lockServiceAccountOf,
  type ServiceAccount,
  suspendServiceAccount,
  updateServiceAccount
} from '../store/service-accounts.ts'
import type { Database } from '../store/tables.ts'
import {
  deleteExpiredTokens,
  deleteToken,
  findToken,
  insertToken,
  type TokenDescription
} from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'
import { removeSecrets } from './owned-secrets.ts'
import { forgetTokens, revokeTokens, tokenEvents } from './tokens.ts'

// Who acts for itself in one organization: what automation runs as.

const ACCESS_TOKEN_SECONDS = 1_800
/** More than are made at a time, so that those that ended never pile up. */
const CLEARED_AT_A_TIME = 100

type Organization = Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>

function event(
  principal: Principal,
  organizationUid: string,
  { uid, name }: Pick<ServiceAccount, 'uid' | 'name'>,
  action: string
) {
  return { streamUid: organizationUid, principal, action: `service_account.${action}`, subjectUid: uid, name }
}

/** Makes a service account, which ends when it is said to; throws `InvalidInput` for a time that is over. */
export async function createServiceAccount(
  db: Kysely<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Organization,
  { name, description, validUntil }: { name: string; description: string; validUntil: Date }
): Promise<ServiceAccount> {
  if (validUntil.getTime() <= Date.now()) {
    const message = 'must be in the future'
    throw new InvalidInput(`validUntil: ${message}`, [{ field: 'validUntil', code: 'invalid', message }])
  }
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization_uid))) throw new NotFound()
    const serviceAccount = await insertServiceAccount(tx, {
      organization_id,
      name,
      description,
      creator_kind: principal.kind,
      creator_uid: principal.uid,
      valid_until: validUntil
    })
    await insertAuditEvents(tx, [event(principal, organization_uid, serviceAccount, 'create')])
    return serviceAccount
  })
}

async function requireServiceAccount(
  tx: Transaction<Database>,
  { organization_id }: Organization,
  serviceAccountUid: string
): Promise<ServiceAccount> {
  const serviceAccount = await lockServiceAccountOf(tx, organization_id, serviceAccountUid)
  if (serviceAccount) return serviceAccount
  throw new NotFound('There is no such service account in the organization.')
}

/** Changes what is given; throws `NotFound` when there is no such service account any more. */
export async function changeServiceAccount(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  serviceAccountUid: string,
  values: { name?: string; description?: string }
): Promise<ServiceAccount> {
  return await inTheNameOf(db, principal, async (tx) => {
    const present = await requireServiceAccount(tx, organization, serviceAccountUid)
    if (Object.keys(values).length === 0) return present
    const changed = { ...present, ...values }
    await updateServiceAccount(tx, present.id, values)
    await insertAuditEvents(tx, [event(principal, organization.organization_uid, changed, 'update')])
    return changed
  })
}

/**
 * Deletes a service account with its tokens, its secrets and its place in groups; its name stays. Throws `NotFound`
 * when there is none any more.
 *
 * @returns the hashes of the revoked tokens, as caches hold them
 */
export async function removeServiceAccount(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  serviceAccountUid: string
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    const serviceAccount = await requireServiceAccount(tx, organization, serviceAccountUid)
    return await removeServiceAccountRow(tx, principal, organization.organization_uid, serviceAccount)
  })
}

/** The same for one that is locked: its tokens come after it, as nobody who holds one of them waits for it. */
export async function removeServiceAccountRow(
  tx: Transaction<Database>,
  principal: Principal,
  organizationUid: string,
  serviceAccount: ServiceAccount
): Promise<string[]> {
  const { id, uid } = serviceAccount
  await suspendServiceAccount(tx, id)
  await removeSecrets(tx, principal, organizationUid, 'service-account', uid)
  const revoked = await revokeTokens(tx, principal, { serviceAccountId: id })
  await insertAuditEvents(tx, [event(principal, organizationUid, serviceAccount, 'remove')])
  return revoked
}

interface NewToken {
  note: string
  lifetimeSeconds: number
  issuedByUid: string | null
}

async function mint(
  tx: Transaction<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Organization,
  { id, uid, name, valid_until }: ServiceAccount,
  { note, lifetimeSeconds, issuedByUid }: NewToken
): Promise<{ token: string; description: TokenDescription }> {
  if (valid_until && valid_until.getTime() <= Date.now()) {
    throw new Conflict('The service account is valid no longer. Create another one.')
  }
  const token = makeToken('service-account')
  const row = await insertToken(tx, {
    hash: hashToken(token),
    kind: 'service-account',
    accountId: organization_id,
    organizationId: organization_id,
    serviceAccountId: id,
    scopes: FULL_SCOPES,
    note,
    lastEight: lastEight(token),
    issuedByUid,
    lifetimeSeconds,
    notAfter: valid_until
  })
  const bearer = { uid, login: name, streamUid: organization_uid }
  await insertAuditEvents(tx, tokenEvents(principal, bearer, 'token.create', row.id))
  const shown = { note, read_only: false, issued_by_uid: issuedByUid, last_used_at: null }
  return { token, description: { ...row, ...shown } }
}

/** Makes a token for half an hour with which somebody acts as a service account; records who. Shown once. */
export async function createServiceAccountAccessToken(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  serviceAccountUid: string
): Promise<string> {
  return await inTheNameOf(db, principal, async (tx) => {
    const serviceAccount = await requireServiceAccount(tx, organization, serviceAccountUid)
    await deleteExpiredTokens(tx, { serviceAccountId: serviceAccount.id }, CLEARED_AT_A_TIME)
    const { token } = await mint(tx, principal, organization, serviceAccount, {
      note: 'Access token',
      lifetimeSeconds: ACCESS_TOKEN_SECONDS,
      issuedByUid: principal.uid
    })
    return token
  })
}

/**
 * Makes one more token of the service account that asks for it; it ends with the account at the latest. The token
 * that asks is locked, so whoever revokes all of them finds the new one.
 */
export async function createServiceAccountToken(
  db: Kysely<Database>,
  principal: Principal & { uid: string },
  organization: Organization,
  { note, lifetimeSeconds }: Pick<NewToken, 'note' | 'lifetimeSeconds'>
): Promise<{ token: string; description: TokenDescription }> {
  return await inTheNameOf(db, principal, async (tx) => {
    const serviceAccount = await findServiceAccount(tx, organization.organization_id, principal.uid)
    if (!serviceAccount) throw new NotFound()
    const { issuedByUid } = principal
    return await mint(tx, principal, organization, serviceAccount, { note, lifetimeSeconds, issuedByUid })
  })
}

/** Revokes a token of the service account that asks for it; gives its hash, as caches hold it. */
export async function removeServiceAccountToken(
  db: Kysely<Database>,
  principal: Principal & { uid: string },
  { organization_uid }: Organization,
  serviceAccount: { id: number; name: string },
  tokenUid: string
): Promise<string[]> {
  return await inTheNameOf(
    db,
    principal,
    async (tx) => {
      const token = await findToken(tx, { serviceAccountId: serviceAccount.id }, tokenUid)
      const hash = token && (await deleteToken(tx, token.id))
      if (!hash) throw new NotFound()
      const bearer = { uid: principal.uid, login: serviceAccount.name, streamUid: organization_uid }
      await insertAuditEvents(tx, tokenEvents(principal, bearer, 'token.revoke', token.id))
      return await forgetTokens(tx, [hash])
    },
    { revokes: true }
  )
}
