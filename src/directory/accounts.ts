import type { Kysely, Transaction } from 'kysely'
import { LOGIN, LOGIN_RULE } from '../config.ts'
import { InvalidInput, NotFound } from '../errors.ts'
import { type Account, deleteAccount, findAccount, insertAccount, lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { isUniqueViolation } from '../store/database.ts'
import { upsertMembership } from '../store/organizations.ts'
import { listOwnedRepositoryUids } from '../store/repositories.ts'
import type { Database } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'
import { furnishOrganization, HOSTED_RUNNER } from './furnishing.ts'
import { removeInstallations } from './installations.ts'
import { removeAppsOf } from './integrations.ts'
import { removeSecrets } from './owned-secrets.ts'
import { removeRepositoryRow } from './repositories.ts'
import { revokeAll } from './tokens.ts'

function requireLogin(login: string, field: string): void {
  if (LOGIN.test(login)) return
  throw new InvalidInput('Validation Failed', [{ field, code: 'invalid', message: `${field} ${LOGIN_RULE}` }])
}

export interface NewAccount {
  login: string
  name?: string
  email?: string
  siteAdmin?: boolean
}

async function insert(
  tx: Transaction<Database>,
  principal: Principal,
  kind: 'user' | 'organization',
  { login, name, email, siteAdmin }: NewAccount
): Promise<Account> {
  const account = await insertAccount(tx, {
    kind,
    login,
    ...(name !== undefined && { name }),
    ...(email !== undefined && { email }),
    ...(siteAdmin !== undefined && { site_admin: siteAdmin })
  })
  await insertAuditEvents(tx, [
    {
      streamUid: account.uid,
      principal,
      action: `${kind}.create`,
      subjectUid: account.uid,
      name: account.login
    }
  ])
  return account
}

function loginTaken(error: unknown): never {
  if (!isUniqueViolation(error, 'accounts_login_key_key')) throw error
  throw new InvalidInput('Validation Failed', [
    { field: 'login', code: 'already_exists', message: 'login is already taken' }
  ])
}

/** A user, in a transaction that does more. */
export async function createUserRow(
  tx: Transaction<Database>,
  principal: Principal,
  account: NewAccount
): Promise<Account> {
  requireLogin(account.login, 'login')
  return await insert(tx, principal, 'user', account)
}

/** Throws `InvalidInput` when the login is malformed or taken. */
export async function createUser(
  db: Kysely<Database>,
  principal: Principal,
  account: NewAccount
): Promise<Account> {
  return await inTheNameOf(db, principal, (tx) => createUserRow(tx, principal, account)).catch(loginTaken)
}

/** A new organization with its first owner. */
export async function createOrganization(
  db: Kysely<Database>,
  principal: Principal,
  account: NewAccount & { admin: string }
): Promise<Account> {
  requireLogin(account.login, 'login')
  return await inTheNameOf(db, principal, async (tx) => {
    const owner = await findAccount(tx, account.admin)
    if (owner?.kind !== 'user') {
      throw new InvalidInput('Validation Failed', [
        { field: 'admin', code: 'invalid', message: 'admin is not the login of a user' }
      ])
    }
    return await createOrganizationRow(tx, principal, account, owner, HOSTED_RUNNER)
  }).catch(loginTaken)
}

/** An organization of a valid login with its first owner and what every one has, in a transaction that does more. */
export async function createOrganizationRow(
  tx: Transaction<Database>,
  principal: Principal,
  account: NewAccount,
  owner: Pick<Account, 'id'>,
  runnerName: string
): Promise<Account> {
  const organization = await insert(tx, principal, 'organization', account)
  await upsertMembership(tx, organization.id, owner.id, 'admin')
  await furnishOrganization(tx, principal, organization, runnerName)
  return organization
}

/**
 * Removes a user with its tokens, its Apps, its secrets, its repositories and theirs; the audit keeps the names.
 *
 * @returns the hashes of the revoked tokens, as caches hold them
 */
export async function removeUser(
  db: Kysely<Database>,
  principal: Principal,
  login: string
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    const account = await findAccount(tx, login)
    if (account?.kind !== 'user') throw new NotFound()
    const revoked = await revokeAll(tx, principal, account)
    revoked.push(...(await removeAccount(tx, principal, account)))
    return revoked
  })
}

/**
 * Removes an organization with its memberships, its Apps and what is installed on it, the tokens of its runners and
 * of whoever else acts for itself in it, its secrets, its repositories and theirs; its members stay users.
 *
 * @returns the hashes of the revoked tokens, as caches hold them
 */
export async function removeOrganization(
  db: Kysely<Database>,
  principal: Principal,
  organization: Pick<Account, 'id' | 'uid' | 'login'>
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    const revoked = await revokeAll(tx, principal, organization)
    revoked.push(...(await removeAccount(tx, principal, { ...organization, kind: 'organization' })))
    return revoked
  })
}

/**
 * Who adds to the account holds its lock, after that of its token: it adds before this, or not at all. Secrets go
 * before the repositories that they may have selected, as who selects locks them in this order.
 */
async function removeAccount(
  tx: Transaction<Database>,
  principal: Principal,
  account: Pick<Account, 'id' | 'uid' | 'kind' | 'login'>
): Promise<string[]> {
  const { id, uid, kind, login } = account
  const revoked = await removeAppsOf(tx, principal, account)
  revoked.push(...(await removeInstallations(tx, principal, { accountId: id })))
  if (!(await lockAccount(tx, uid))) throw new NotFound()
  await removeSecrets(tx, principal, uid, kind, uid)
  for (const repository of await listOwnedRepositoryUids(tx, id)) {
    await removeRepositoryRow(tx, principal, uid, repository)
  }
  await deleteAccount(tx, id)
  await insertAuditEvents(tx, [
    { streamUid: uid, principal, action: `${kind}.remove`, subjectUid: uid, name: login }
  ])
  return revoked
}
