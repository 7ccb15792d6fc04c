import type { Kysely } from 'kysely'
import { fingerprintOf } from '../../auth/app-key.ts'
import {
  changeInstallation,
  installApp,
  suspendInstallation,
  uninstallApp,
  unsuspendInstallation
} from '../../directory/installations.ts'
import { addKey, changeApp, registerApp, removeApp, removeKey } from '../../directory/integrations.ts'
import { NotFound, RefusedToStart } from '../../errors.ts'
import { type Account, findAccount } from '../../store/accounts.ts'
import type { Principal } from '../../store/audit.ts'
import { findInstallation, type Installation, listInstallations } from '../../store/installations.ts'
import {
  type CountedIntegration,
  findIntegration,
  type IntegrationKey,
  listIntegrations,
  listKeys
} from '../../store/integrations.ts'
import type { Database } from '../../store/tables.ts'
import type {
  AppAdministration,
  AppSummary,
  Grant,
  InstallationSummary,
  KeySummary
} from './app-administration.ts'

/** More than there are: the operator sees all. */
const EVERYTHING = { limit: 1_000_000, offset: 0 }

/** Administration of Apps on the database itself, by the same functions as the routes call. */
export function offlineApps(db: Kysely<Database>, operator: Principal): AppAdministration {
  const getApp = async (slug: string): Promise<CountedIntegration> => {
    const integration = await findIntegration(db, slug)
    if (integration) return integration
    throw new NotFound(`There is no App ${slug}.`)
  }

  const getAccount = async (login: string): Promise<Account> => {
    const account = await findAccount(db, login)
    if (account) return account
    throw new NotFound(`There is no user or organization ${login}.`)
  }

  const getInstallation = async (slug: string, login: string): Promise<Installation> => {
    const { integration_id } = await getApp(slug)
    const { id, login: stored } = await getAccount(login)
    const installation = await findInstallation(db, { integrationId: integration_id, accountId: id })
    if (installation) return installation
    throw new NotFound(`${slug} is not installed on ${stored}.`)
  }

  return {
    async create({ name, owner, description, permissions }) {
      const account = await getAccount(owner)
      const { slug, key } = await registerApp(db, operator, account, {
        name,
        permissions,
        ...(description !== undefined && { description })
      })
      return { ...summarizeApp(await getApp(slug)), key: summarizeKey(key), pem: key.pem }
    },

    async list() {
      return (await listIntegrations(db, EVERYTHING)).integrations.map(summarizeApp)
    },

    async update(slug, change) {
      await changeApp(db, operator, await getApp(slug), change)
      return summarizeApp(await getApp(slug))
    },

    async delete(slug) {
      await removeApp(db, operator, await getApp(slug))
    },

    async listKeys(slug) {
      return (await listKeys(db, (await getApp(slug)).integration_id)).map(summarizeKey)
    },

    async createKey(slug) {
      const key = await addKey(db, operator, await getApp(slug))
      return { ...summarizeKey(key), pem: key.pem }
    },

    async deleteKey(slug, keyId) {
      const integration = await getApp(slug)
      await removeKey(db, operator, integration, keyId).catch((error) => {
        throw error instanceof NotFound ? new NotFound(`${slug} has no key ${keyId}.`) : error
      })
    },

    async listInstallations(slug) {
      const { integration_id } = await getApp(slug)
      const { installations } = await listInstallations(db, { integrationId: integration_id }, EVERYTHING)
      return installations.map(summarizeInstallation)
    },

    async install(slug, login, { repositories, permissions }) {
      const integration = await getApp(slug)
      const account = await getAccount(login)
      if (!repositories) throw new RefusedToStart('Say which repositories: some, or all.')
      await installApp(db, operator, integration, account, { selection: repositories, permissions })
      return summarizeInstallation(await getInstallation(slug, login))
    },

    async changeInstallation(slug, login, grant) {
      await changeInstallation(db, operator, await getInstallation(slug, login), selectionOf(grant))
      return summarizeInstallation(await getInstallation(slug, login))
    },

    async suspend(slug, login) {
      await suspendInstallation(db, operator, await getInstallation(slug, login), 'administrator')
    },

    async unsuspend(slug, login) {
      await unsuspendInstallation(db, operator, await getInstallation(slug, login), 'administrator')
    },

    async uninstall(slug, login) {
      await uninstallApp(db, operator, await getInstallation(slug, login))
    }
  }
}

function selectionOf({ repositories, permissions }: Grant) {
  return { ...(repositories && { selection: repositories }), permissions }
}

function second(text: string): string {
  return `${text.slice(0, 10)}T${text.slice(11, 19)}Z`
}

function summarizeApp(integration: CountedIntegration): AppSummary {
  const { integration_id, slug, client_id, owner_login, permissions, installations_count } = integration
  return { id: integration_id, slug, client_id, owner: owner_login, permissions, installations_count }
}

function summarizeKey({ id, public_key, created_at, valid }: IntegrationKey): KeySummary {
  return { id, fingerprint: fingerprintOf(public_key), created_at: second(created_at), valid }
}

function summarizeInstallation(installation: Installation): InstallationSummary {
  const { installation_id, account_login, all_repositories, permissions, suspended_at } = installation
  return {
    id: installation_id,
    account: account_login,
    repository_selection: all_repositories ? 'all' : 'selected',
    permissions,
    suspended_at: suspended_at && second(suspended_at)
  }
}
