import type { Kysely, Transaction } from 'kysely'
import { AlreadyExists, Conflict, NotFound } from '../errors.ts'
import { findAccountByUid, lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { isUniqueViolation } from '../store/database.ts'
import {
  deleteGroup,
  deleteGroupMember,
  findGroupMembership,
  type Group,
  type GroupSubject,
  insertGroup,
  insertGroupMember,
  lockGroup,
  updateGroup
} from '../store/groups.ts'
import { findMembershipRole, type OrganizationFacts } from '../store/organizations.ts'
import { lockServiceAccountOf } from '../store/service-accounts.ts'
import type { Database } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'

// Groups of an organization's users and service accounts, which get roles on projects.

type Organization = Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>

function event(
  principal: Principal,
  { organization_uid }: Organization,
  { uid, name }: Pick<Group, 'uid' | 'name'>,
  action: string,
  member?: Pick<GroupSubject, 'login'>
) {
  return {
    streamUid: organization_uid,
    principal,
    action: `group.${action}`,
    subjectUid: uid,
    name: member ? `${name}: ${member.login}` : name
  }
}

function nameTaken(error: unknown): never {
  if (!isUniqueViolation(error, 'groups_organization_id_name_key')) throw error
  throw new AlreadyExists('There is a group of that name in the organization already.')
}

function requireChangeable({ everyone }: Group): void {
  if (!everyone) return
  throw new Conflict('This group is everyone in the organization; it is not changed, and not deleted.')
}

/** Makes a group without members; throws `AlreadyExists` when there is one of that name. Gives its uid. */
export async function createGroup(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  { name, description }: { name: string; description: string }
): Promise<string> {
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization.organization_uid))) throw new NotFound()
    const group = await insertGroup(tx, { organization_id: organization.organization_id, name, description })
    await insertAuditEvents(tx, [event(principal, organization, group, 'create')])
    return group.uid
  }).catch(nameTaken)
}

async function requireGroup(
  tx: Transaction<Database>,
  { organization_id }: Organization,
  groupUid: string
): Promise<Group> {
  const group = await lockGroup(tx, organization_id, groupUid)
  if (!group) throw new NotFound('There is no such group in the organization.')
  requireChangeable(group)
  return group
}

/**
 * Changes what is given of a group.
 *
 * @throws NotFound when it is gone, AlreadyExists when another one has the name, Conflict for that of everyone
 */
export async function changeGroup(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  groupUid: string,
  values: { name?: string | undefined; description?: string | undefined }
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    const group = await requireGroup(tx, organization, groupUid)
    await updateGroup(tx, group.id, values)
    const { uid, name } = group
    await insertAuditEvents(tx, [
      event(principal, organization, { uid, name: values.name ?? name }, 'update')
    ])
  }).catch(nameTaken)
}

/** Removes a group with the roles that it has on projects; throws `NotFound` when it is gone, `Conflict` as above. */
export async function removeGroup(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  groupUid: string
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    const group = await requireGroup(tx, organization, groupUid)
    await deleteGroup(tx, group.id)
    await insertAuditEvents(tx, [event(principal, organization, group, 'remove')])
  })
}

/** A member of the organization, or one of its service accounts; throws `NotFound` for others. */
async function requireSubject(
  tx: Transaction<Database>,
  { organization_id }: Organization,
  { kind, uid }: Pick<GroupSubject, 'kind' | 'uid'>
): Promise<GroupSubject> {
  if (kind === 'service-account') {
    const found = await lockServiceAccountOf(tx, organization_id, uid)
    if (found) return { id: found.id, uid, kind, login: found.name }
    throw new NotFound('There is no such service account in the organization.')
  }
  const account = await findAccountByUid(tx, uid)
  if (account && (await findMembershipRole(tx, organization_id, account.id))) {
    return { id: account.id, uid, kind, login: account.login }
  }
  throw new NotFound('There is no such member of the organization.')
}

/**
 * Adds a member of the organization, or a service account, to a group. The organization is locked, so that nobody
 * leaves it meanwhile.
 *
 * @throws NotFound for who is neither, AlreadyExists for who is in the group, Conflict for that of everyone
 */
export async function addGroupMember(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  groupUid: string,
  asked: Pick<GroupSubject, 'kind' | 'uid'>
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization.organization_uid))) throw new NotFound()
    const group = await requireGroup(tx, organization, groupUid)
    const subject = await requireSubject(tx, organization, asked)
    if (!(await insertGroupMember(tx, group.id, subject))) {
      throw new AlreadyExists('This is a member of the group already.')
    }
    await insertAuditEvents(tx, [event(principal, organization, group, 'member.add', subject)])
  })
}

/** Ends a membership of a group; throws `NotFound` when there is none, `Conflict` for that of everyone. */
export async function removeGroupMember(
  db: Kysely<Database>,
  principal: Principal,
  organization: Organization,
  membershipUid: string
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    const found = await findGroupMembership(tx, organization.organization_id, membershipUid)
    if (!found) throw new NotFound('There is no such membership in the organization.')
    const { group, membership } = found
    requireChangeable(group)
    if (!(await deleteGroupMember(tx, membershipUid))) throw new NotFound()
    await insertAuditEvents(tx, [event(principal, organization, group, 'member.remove', membership)])
  })
}
