import type { Kysely, Transaction } from 'kysely'
import { Forbidden, InvalidInput, NotFound } from '../errors.ts'
import { type Account, findAccount, lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { deleteCollaborator, upsertCollaborator } from '../store/collaborators.ts'
import { isUniqueViolation } from '../store/database.ts'
import { lockEnvironmentsOf } from '../store/deployment-environments.ts'
import { lockEnvironmentsOn } from '../store/environments.ts'
import { giveRepository } from '../store/installations.ts'
import { findOrganization } from '../store/organizations.ts'
import {
  deleteRedirect,
  deleteRepository,
  insertRedirect,
  insertRepository,
  lockRepository,
  type RepositoryFacts,
  updateRepository
} from '../store/repositories.ts'
import type { Database, RepositoryRole } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'
import { removeSecrets } from './owned-secrets.ts'

const NAME = /^[A-Za-z0-9._-]{1,100}$/

function requireName(name: string): void {
  if (NAME.test(name) && name !== '.' && name !== '..') return
  throw new InvalidInput('Validation Failed', [
    {
      field: 'name',
      code: 'invalid',
      message: 'name may only contain letters, digits, ".", "-" and "_", and is 100 characters at most'
    }
  ])
}

function nameTaken(error: unknown): never {
  if (!isUniqueViolation(error, 'repositories_owner_id_name_key_key')) throw error
  throw new InvalidInput('Repository creation failed.', [
    { field: 'name', code: 'custom', message: 'name already exists on this account' }
  ])
}

/**
 * Gives the id of the new repository.
 *
 * @param installationId of the installation that makes it: what it makes is given to it
 */
export async function createRepository(
  db: Kysely<Database>,
  principal: Principal,
  owner: Pick<Account, 'id' | 'uid'>,
  values: { name: string; private: boolean; description?: string | null },
  installationId?: number
): Promise<number> {
  requireName(values.name)
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, owner.uid))) throw new NotFound()
    const { id, uid } = await insertRepository(tx, {
      owner_id: owner.id,
      name: values.name,
      private: values.private,
      description: values.description ?? null
    })
    await deleteRedirect(tx, owner.id, values.name)
    if (installationId !== undefined) await giveRepository(tx, installationId, id)
    await insertAuditEvents(tx, [
      { streamUid: owner.uid, principal, action: 'repository.create', subjectUid: uid, name: values.name }
    ])
    return id
  }).catch(nameTaken)
}

/** The organization in which this actor may make repositories: a member, or an installation on it. */
export async function requireOrganizationToCreateIn(
  db: Kysely<Database>,
  actorId: number,
  login: string
): Promise<Pick<Account, 'id' | 'uid'>> {
  const organization = await findOrganization(db, actorId, { org: login })
  if (!organization) throw new NotFound()
  if (organization.role) return { id: organization.organization_id, uid: organization.organization_uid }
  throw new Forbidden('You need to be a member of the organization to create repositories in it.')
}

export interface RepositoryChange {
  name?: string
  private?: boolean
  description?: string | null
  default_branch?: string
}

/** Changes a repository; its secrets stay with it, and its old name leads to it. */
export async function changeRepository(
  db: Kysely<Database>,
  principal: Principal,
  facts: RepositoryFacts,
  change: RepositoryChange
): Promise<void> {
  const { name } = change
  if (name !== undefined) requireName(name)
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockRepository(tx, facts.repository_uid))) throw new NotFound()
    await updateRepository(tx, facts.repository_id, change)
    if (name !== undefined && name.toLowerCase() !== facts.name.toLowerCase()) {
      await insertRedirect(tx, facts.owner_id, facts.name, facts.repository_id)
      await deleteRedirect(tx, facts.owner_id, name)
    }
    await insertAuditEvents(tx, [
      {
        streamUid: facts.owner_uid,
        principal,
        action: 'repository.update',
        subjectUid: facts.repository_uid,
        name: name ?? facts.name
      }
    ])
  }).catch(nameTaken)
}

export async function removeRepository(
  db: Kysely<Database>,
  principal: Principal,
  facts: RepositoryFacts
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockRepository(tx, facts.repository_uid))) throw new NotFound()
    const repository = { id: facts.repository_id, uid: facts.repository_uid, name: facts.name }
    await removeRepositoryRow(tx, principal, facts.owner_uid, repository)
  })
}

/** Removes a locked repository with its secrets and those of its environments, and records each. */
export async function removeRepositoryRow(
  tx: Transaction<Database>,
  principal: Principal,
  ownerUid: string,
  repository: { id: number; uid: string; name: string }
): Promise<void> {
  await lockEnvironmentsOn(tx, 'repository', repository.id)
  for (const { uid } of await lockEnvironmentsOf(tx, repository.id)) {
    await removeSecrets(tx, principal, ownerUid, 'deployment-environment', uid, repository.uid)
  }
  await removeSecrets(tx, principal, ownerUid, 'repository', repository.uid)
  await deleteRepository(tx, repository.id)
  await insertAuditEvents(tx, [
    {
      streamUid: ownerUid,
      principal,
      action: 'repository.remove',
      subjectUid: repository.uid,
      name: repository.name
    }
  ])
}

async function requireUser(db: Kysely<Database>, login: string): Promise<Account> {
  const account = await findAccount(db, login)
  if (account?.kind !== 'user') throw new NotFound()
  return account
}

/** Gives a user a role, at once; throws `NotFound` when there is no such user. */
export async function setCollaborator(
  db: Kysely<Database>,
  principal: Principal,
  facts: RepositoryFacts,
  login: string,
  role: RepositoryRole
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    const account = await requireUser(tx, login)
    if (account.id === facts.owner_id) {
      throw new InvalidInput('Validation Failed', [
        { field: 'username', code: 'invalid', message: 'Repository owner cannot be a collaborator' }
      ])
    }
    if (!(await lockRepository(tx, facts.repository_uid))) throw new NotFound()
    await upsertCollaborator(tx, facts.repository_id, account.id, role)
    await insertAuditEvents(tx, [collaboratorEvent(principal, facts, account, `collaborator.set.${role}`)])
  })
}

/** Takes a user's role away; taking what is not there changes nothing. */
export async function removeCollaborator(
  db: Kysely<Database>,
  principal: Principal,
  facts: RepositoryFacts,
  login: string
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    const account = await requireUser(tx, login)
    if (!(await deleteCollaborator(tx, facts.repository_id, account.id))) return
    await insertAuditEvents(tx, [collaboratorEvent(principal, facts, account, 'collaborator.remove')])
  })
}

function collaboratorEvent(principal: Principal, facts: RepositoryFacts, account: Account, action: string) {
  return {
    streamUid: facts.owner_uid,
    principal,
    action,
    collection: `repository/${facts.repository_uid}`,
    subjectUid: account.uid,
    name: account.login
  }
}
