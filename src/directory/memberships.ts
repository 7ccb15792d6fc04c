import type { Kysely, Transaction } from 'kysely'
import { LastOwner, NotFound } from '../errors.ts'
import { type Account, findAccount, findAccountByUid, lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import {
  countOtherOwners,
  deleteMembership,
  findMembershipRole,
  upsertMembership
} from '../store/organizations.ts'
import type { Database, OrganizationRole } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'

interface Organization {
  id: number
  uid: string
}

/** Names a user: by login, as GitHub's API does, or by uid. */
export type UserLocator = string | { uid: string }

async function requireUser(db: Kysely<Database>, user: UserLocator): Promise<Account> {
  const account =
    typeof user === 'string' ? await findAccount(db, user) : await findAccountByUid(db, user.uid)
  if (account?.kind !== 'user') throw new NotFound()
  return account
}

/** One change of an organization's members at a time, so that its last owner stays whoever asks at once. */
async function changeMembership(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  user: UserLocator,
  change: (tx: Transaction<Database>, account: Account, role: OrganizationRole | undefined) => Promise<string>
): Promise<Account> {
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization.uid))) throw new NotFound()
    const account = await requireUser(tx, user)
    const action = await change(tx, account, await findMembershipRole(tx, organization.id, account.id))
    await insertAuditEvents(tx, [
      { streamUid: organization.uid, principal, action, subjectUid: account.uid, name: account.login }
    ])
    return account
  })
}

async function requireOtherOwner(
  tx: Transaction<Database>,
  organization: Organization,
  account: Account
): Promise<void> {
  if ((await countOtherOwners(tx, organization.id, account.id)) > 0) return
  throw new LastOwner()
}

/** Makes a user a member with this role, at once: there are no invitations. */
export async function setMembership(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  login: string,
  role: OrganizationRole
): Promise<Account> {
  return await changeMembership(db, principal, organization, login, async (tx, account, present) => {
    if (present === 'admin' && role === 'member') await requireOtherOwner(tx, organization, account)
    await upsertMembership(tx, organization.id, account.id, role)
    return `membership.set.${role}`
  })
}

/** Gives a member another role; throws `NotFound` when the user is none. */
export async function changeMembershipRole(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  user: UserLocator,
  role: OrganizationRole
): Promise<void> {
  await changeMembership(db, principal, organization, user, async (tx, account, present) => {
    if (!present) throw new NotFound()
    if (present === 'admin' && role === 'member') await requireOtherOwner(tx, organization, account)
    await upsertMembership(tx, organization.id, account.id, role)
    return `membership.set.${role}`
  })
}

/** Makes a user an owner, in a transaction that does more. */
export async function addOwner(
  tx: Transaction<Database>,
  principal: Principal,
  organization: Organization,
  { id, uid, login }: Account
): Promise<void> {
  await upsertMembership(tx, organization.id, id, 'admin')
  await insertAuditEvents(tx, [
    {
      streamUid: organization.uid,
      principal,
      action: 'membership.set.admin',
      subjectUid: uid,
      name: login
    }
  ])
}

/**
 * Ends a membership, with the roles on the organization's repositories and the place in its groups; throws `NotFound`
 * when there is none.
 */
export async function removeMembership(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  user: UserLocator
): Promise<void> {
  await changeMembership(db, principal, organization, user, async (tx, account, present) => {
    if (!present) throw new NotFound()
    if (present === 'admin') await requireOtherOwner(tx, organization, account)
    await deleteMembership(tx, organization.id, account.id)
    return 'membership.remove'
  })
}
