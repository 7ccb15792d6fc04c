import type { Kysely, Transaction } from 'kysely'
import { Forbidden, InvalidInput, NotFound } from '../errors.ts'
import type { Account } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { isUniqueViolation } from '../store/database.ts'
import {
  deleteInstallation,
  findOwnedRepositories,
  giveRepository,
  type Installation,
  type InstallationFilter,
  insertInstallation,
  lockInstallation,
  lockInstallations,
  type RepositoryNames,
  replaceGivenRepositories,
  setSuspension,
  takeRepository,
  updateInstallation
} from '../store/installations.ts'
import { type Integration, lockIntegration } from '../store/integrations.ts'
import type { RepositoryFacts } from '../store/repositories.ts'
import type { Database, Permissions } from '../store/tables.ts'
import { listTokenHashes } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'
import { requireAppPermissions, requireWithin } from './permissions.ts'
import { forgetTokens } from './tokens.ts'

// What a GitHub App may do on an account. Every change acts at once, for tokens that were minted before, too.

/** Which repositories an installation has: all that the account owns, now and later, or these. */
export type Selection = 'all' | readonly string[]

/** A name of a repository, without its owner, as GitHub's API names one in an installation. */
const REPOSITORY_NAME = /^[A-Za-z0-9._-]{1,100}$/

/** What can be asked for at all: nothing else has ever been the name or the number of a repository. */
export function askable({ ids = [], names = [] }: RepositoryNames): RepositoryNames {
  return {
    ids: ids.filter((id) => id > 0 && Number.isSafeInteger(id)),
    names: names.filter((name) => REPOSITORY_NAME.test(name))
  }
}

/** Whether every one that was named is among those that were found; logins and names have no case. */
export function allFound(
  { ids = [], names = [] }: RepositoryNames,
  found: readonly { id: number; name_key: string }[]
): boolean {
  const foundIds = new Set(found.map(({ id }) => id))
  const foundNames = new Set(found.map(({ name_key }) => name_key))
  return ids.every((id) => foundIds.has(id)) && names.every((name) => foundNames.has(name.toLowerCase()))
}

async function requireOwned(
  tx: Transaction<Database>,
  accountId: number,
  names: readonly string[]
): Promise<number[]> {
  const found = await findOwnedRepositories(tx, accountId, askable({ names }))
  if (names.length > 0 && allFound({ names }, found)) return found.map(({ id }) => id)
  throw new InvalidInput('Validation Failed', [
    {
      field: 'repositories',
      code: 'invalid',
      message: 'repositories are names, without an owner, of one or more repositories that the account owns'
    }
  ])
}

/** Records what was done with an installation, for the account on which it is. */
export async function recordInstallation(
  tx: Transaction<Database>,
  principal: Principal,
  installation: Pick<Installation, 'account_uid' | 'installation_uid' | 'slug'>,
  action: string
): Promise<void> {
  const { account_uid, installation_uid, slug } = installation
  await insertAuditEvents(tx, [
    { streamUid: account_uid, principal, action, subjectUid: installation_uid, name: slug }
  ])
}

/** Lets every node forget the tokens of installations, which are other ones when this commits. */
export async function forgetInstallations(
  tx: Transaction<Database>,
  installationIds: readonly number[]
): Promise<string[]> {
  return await forgetTokens(tx, await listTokenHashes(tx, installationIds))
}

export interface NewInstallation {
  selection: Selection
  /** undefined: all that the App asks for */
  permissions?: Readonly<Record<string, string>> | undefined
}

/** Gives the installation's id; throws `InvalidInput` for what the App does not ask for, or the account does not own. */
export async function installApp(
  db: Kysely<Database>,
  principal: Principal,
  integration: Integration,
  account: Pick<Account, 'id' | 'uid'>,
  { selection, permissions }: NewInstallation
): Promise<number> {
  const asked = permissions && requireAppPermissions(permissions)
  return await inTheNameOf(db, principal, async (tx) => {
    const app = await lockIntegration(tx, integration.integration_id)
    if (!app) throw new NotFound()
    if (asked) requireWithin(app.permissions, asked, 'those of the App')
    const { id, uid } = await insertInstallation(tx, {
      integration_id: integration.integration_id,
      account_id: account.id,
      all_repositories: selection === 'all',
      permissions: asked ?? app.permissions
    })
    if (selection !== 'all') {
      await replaceGivenRepositories(tx, id, await requireOwned(tx, account.id, selection))
    }
    const installation = { account_uid: account.uid, installation_uid: uid, slug: integration.slug }
    await recordInstallation(tx, principal, installation, 'installation.create')
    return id
  }).catch((error) => {
    if (!isUniqueViolation(error, 'installations_integration_id_account_id_key')) throw error
    throw new InvalidInput('Validation Failed', [
      {
        field: 'account',
        code: 'already_exists',
        message: 'the App is installed on this account already; change that installation, or remove it'
      }
    ])
  })
}

/** One change of an installation at a time, and none while a write by one of its tokens commits. */
async function change(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  action: string,
  apply: (
    tx: Transaction<Database>,
    locked: NonNullable<Awaited<ReturnType<typeof lockInstallation>>>
  ) => Promise<void>
): Promise<string[]> {
  const { installation_id } = installation
  return await inTheNameOf(db, principal, async (tx) => {
    const locked = await lockInstallation(tx, installation_id, 'change')
    if (!locked) throw new NotFound()
    await apply(tx, locked)
    await recordInstallation(tx, principal, installation, action)
    return await forgetInstallations(tx, [installation_id])
  })
}

/**
 * Changes what an installation may do.
 *
 * @returns here and below: the hashes of tokens that changed with it, as caches hold them
 */
export async function changeInstallation(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  { selection, permissions }: Partial<NewInstallation>
): Promise<string[]> {
  const asked: Permissions | undefined = permissions && requireAppPermissions(permissions)
  const { installation_id, integration_id, account_id } = installation
  return await inTheNameOf(db, principal, async (tx) => {
    // The App before its installation, as by who changes the App.
    const app = await lockIntegration(tx, integration_id)
    if (!app || !(await lockInstallation(tx, installation_id, 'change'))) throw new NotFound()
    if (asked) requireWithin(app.permissions, asked, 'those of the App')
    await updateInstallation(tx, installation_id, {
      ...(asked && { permissions: asked }),
      ...(selection && { all_repositories: selection === 'all' })
    })
    if (selection) {
      const ids = selection === 'all' ? [] : await requireOwned(tx, account_id, selection)
      await replaceGivenRepositories(tx, installation_id, ids)
    }
    await recordInstallation(tx, principal, installation, 'installation.update')
    return await forgetInstallations(tx, [installation_id])
  })
}

/** Suspends; what is suspended already stays so, and an App does not take over what an administrator did. */
export async function suspendInstallation(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  by: 'app' | 'administrator'
): Promise<string[]> {
  return await change(db, principal, installation, 'installation.suspend', async (tx, locked) => {
    const stays = locked.suspended_by === 'administrator'
    await setSuspension(tx, installation.installation_id, stays ? 'administrator' : by)
  })
}

/** Lifts a suspension; an App only its own. */
export async function unsuspendInstallation(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  by: 'app' | 'administrator'
): Promise<string[]> {
  return await change(db, principal, installation, 'installation.unsuspend', async (tx, locked) => {
    if (by === 'app' && locked.suspended_by === 'administrator') {
      throw new Forbidden('An administrator suspended this installation, and only one can lift that.')
    }
    await setSuspension(tx, installation.installation_id, null)
  })
}

/** Gives one repository more to an installation on its owner; what it has already, it keeps. */
export async function addRepositoryToInstallation(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  { repository_id }: RepositoryFacts
): Promise<string[]> {
  return await change(db, principal, installation, 'installation.repository.add', async (tx, locked) => {
    if (!locked.all_repositories) await giveRepository(tx, installation.installation_id, repository_id)
  })
}

/** Takes one repository from an installation; throws `NotFound` when it did not have it. */
export async function removeRepositoryFromInstallation(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  { repository_id }: RepositoryFacts
): Promise<string[]> {
  return await change(db, principal, installation, 'installation.repository.remove', async (tx, locked) => {
    if (locked.all_repositories) {
      throw new InvalidInput('The installation is for all repositories. Change it to selected ones first.')
    }
    if (!(await takeRepository(tx, installation.installation_id, repository_id))) throw new NotFound()
  })
}

/** Removes an installation with its tokens; gives their hashes. */
export async function uninstallApp(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockInstallation(tx, installation.installation_id, 'change'))) throw new NotFound()
    return await removeRow(tx, principal, installation)
  })
}

async function removeRow(
  tx: Transaction<Database>,
  principal: Principal,
  installation: Pick<Installation, 'installation_id' | 'installation_uid' | 'account_uid' | 'slug'>
): Promise<string[]> {
  const revoked = await forgetInstallations(tx, [installation.installation_id])
  await deleteInstallation(tx, installation.installation_id)
  await recordInstallation(tx, principal, installation, 'installation.remove')
  return revoked
}

/** Removes all installations of Apps, or on an account, that are about to be removed; gives the hashes of tokens. */
export async function removeInstallations(
  tx: Transaction<Database>,
  principal: Principal,
  filter: InstallationFilter
): Promise<string[]> {
  const revoked: string[] = []
  for (const installation of await lockInstallations(tx, filter)) {
    revoked.push(...(await removeRow(tx, principal, installation)))
  }
  return revoked
}
