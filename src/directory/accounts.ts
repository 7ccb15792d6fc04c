import type { Kysely, Transaction } from 'kysely'
import { LOGIN, LOGIN_RULE } from '../config.ts'
import { InvalidInput, NotFound } from '../errors.ts'
import {
  type Account,
  deleteAccount,
  findAccount,
  findAccounts,
  insertAccount,
  lockAccount,
  updateAccountName
} from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { isUniqueViolation } from '../store/database.ts'
import { lockEnvironmentsOn } from '../store/environments.ts'
import { upsertMembership } from '../store/organizations.ts'
import { lockProjectsOf } from '../store/projects.ts'
import { listOwnedRepositoryUids } from '../store/repositories.ts'
import { lockServiceAccountsOf } from '../store/service-accounts.ts'
import type { Database } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'
import { furnishOrganization, HOSTED_RUNNER } from './furnishing.ts'
import { removeInstallations } from './installations.ts'
import { removeAppsOf } from './integrations.ts'
import { removeEnvironments } from './owned-environments.ts'
import { removeProjectRow } from './owned-projects.ts'
import { removeSecrets } from './owned-secrets.ts'
import { removeRepositoryRow } from './repositories.ts'
import { removeServiceAccountRow } from './service-accounts.ts'
import { forgetTokens, revokeAll, revokeTokens } from './tokens.ts'

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

const MAX_LOGIN_LENGTH = 39
const CANDIDATES = 50
/** So often somebody else may take the same login at the same moment. */
const LOGIN_TRIES = 10

/** The login that a name makes: without accents, and with a hyphen for what a login does not have. */
function loginOf(name: string): string {
  const plain = name.normalize('NFKD').replaceAll(/\p{M}+/gu, '')
  const words = plain.split(/[^A-Za-z0-9]+/).filter((word) => word !== '')
  return words.join('-').slice(0, MAX_LOGIN_LENGTH).replace(/-$/, '') || 'organization'
}

/** The login itself, or the first with a number behind it that nobody has. */
async function findFreeLogin(db: Kysely<Database>, login: string): Promise<string> {
  for (let first = 1; ; first += CANDIDATES) {
    const candidates = Array.from({ length: CANDIDATES }, (_, at) => {
      const suffix = first + at === 1 ? '' : `-${first + at}`
      return login.slice(0, MAX_LOGIN_LENGTH - suffix.length).replace(/-$/, '') + suffix
    })
    const taken = await findAccounts(db, candidates)
    const free = candidates.find((_, at) => !taken[at])
    if (free) return free
  }
}

/** The same with a login that is made from the name, and is one that nobody has. */
export async function createNamedOrganization(
  db: Kysely<Database>,
  principal: Principal,
  { name, admin }: { name: string; admin: string }
): Promise<Account> {
  for (let tries = 1; ; tries++) {
    const login = await findFreeLogin(db, loginOf(name))
    try {
      return await createOrganization(db, principal, { login, name, admin })
    } catch (error) {
      const taken = error instanceof InvalidInput && error.violations[0]?.code === 'already_exists'
      if (!taken || tries === LOGIN_TRIES) throw error
    }
  }
}

/** Gives an organization another name; its login stays. */
export async function renameOrganization(
  db: Kysely<Database>,
  principal: Principal,
  { id, uid, login }: Pick<Account, 'id' | 'uid' | 'login'>,
  name: string
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, uid))) throw new NotFound()
    await updateAccountName(tx, id, name)
    await insertAuditEvents(tx, [
      { streamUid: uid, principal, action: 'organization.update', subjectUid: uid, name: login }
    ])
  })
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
 * Removes an organization with its memberships and groups, its environments, its Apps and what is installed on it, its secrets, its
 * repositories, projects and service accounts with theirs, and the tokens that act in it; its members stay users.
 *
 * @returns the hashes of the revoked tokens, as caches hold them
 */
export async function removeOrganization(
  db: Kysely<Database>,
  principal: Principal,
  organization: Pick<Account, 'id' | 'uid' | 'login'>
): Promise<string[]> {
  const { id: organizationId } = organization
  return await inTheNameOf(
    db,
    principal,
    async (tx) => {
      const revoked = await revokeTokens(tx, principal, { organizationId, bearers: 'accounts' })
      revoked.push(...(await revokeTokens(tx, principal, { organizationId, bearers: 'machines' })))
      revoked.push(...(await removeAccount(tx, principal, { ...organization, kind: 'organization' })))
      return revoked
    },
    { revokes: true }
  )
}

/** What an organization alone owns: projects, and who is no account but acts in it, with their tokens. */
async function clearOrganization(
  tx: Transaction<Database>,
  principal: Principal,
  { id, uid }: Pick<Account, 'id' | 'uid'>
): Promise<string[]> {
  for (const project of await lockProjectsOf(tx, id)) await removeProjectRow(tx, principal, uid, project)
  const revoked: string[] = []
  for (const serviceAccount of await lockServiceAccountsOf(tx, id)) {
    revoked.push(...(await removeServiceAccountRow(tx, principal, uid, serviceAccount)))
  }
  revoked.push(...(await revokeTokens(tx, principal, { organizationId: id, bearers: 'all' })))
  return revoked
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
  if (kind === 'organization') {
    const environments = await lockEnvironmentsOn(tx, 'organization', id)
    revoked.push(...(await forgetTokens(tx, await removeEnvironments(tx, principal, environments))))
  }
  await removeSecrets(tx, principal, uid, kind, uid)
  for (const repository of await listOwnedRepositoryUids(tx, id)) {
    await removeRepositoryRow(tx, principal, uid, repository)
  }
  if (kind === 'organization') revoked.push(...(await clearOrganization(tx, principal, account)))
  await deleteAccount(tx, id)
  await insertAuditEvents(tx, [
    { streamUid: uid, principal, action: `${kind}.remove`, subjectUid: uid, name: login }
  ])
  return revoked
}
