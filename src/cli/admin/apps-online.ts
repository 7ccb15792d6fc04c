import { NotFound } from '../../errors.ts'
import { type ApiClient, type ApiRequest, ask, segment } from '../api-client.ts'
import type {
  AppAdministration,
  AppSummary,
  Grant,
  InstallationSummary,
  KeySummary
} from './app-administration.ts'

const PER_PAGE = 100

type AppBody = Omit<AppSummary, 'owner'> & { owner: { login: string } }
type InstallationBody = Omit<InstallationSummary, 'account'> & { account: { login: string } }

/** Administration of Apps by the calls that Coffer has for it: GitHub has web pages. */
export function onlineApps(client: ApiClient): AppAdministration {
  const call = <T = unknown>(request: ApiRequest) => ask<T>(client, request)

  const all = async <T>(path: string, notFound?: string): Promise<T[]> => {
    const found: T[] = []
    for (let page = 1; ; page++) {
      const url = `${path}?per_page=${PER_PAGE}&page=${page}`
      const listed = await call<T[]>({ method: 'GET', path: url, ...(notFound && { notFound }) })
      found.push(...listed)
      if (listed.length < PER_PAGE) return found
    }
  }

  const installationsOf = (slug: string) =>
    all<InstallationBody>(`${pathOf(slug)}/installations`, noApp(slug))

  const installationPath = async (slug: string, account: string): Promise<string> => {
    const installations = await installationsOf(slug)
    const found = installations.find(
      (installation) => installation.account.login.toLowerCase() === account.toLowerCase()
    )
    if (!found) throw new NotFound(`${slug} is not installed on ${account}.`)
    return `/admin/installations/${found.id}`
  }

  return {
    async create({ name, owner, description, permissions }) {
      const body = { name, owner, description, permissions }
      const made = await call<AppBody & { key: KeySummary; pem: string }>({
        method: 'POST',
        path: '/admin/apps',
        body
      })
      return { ...summarizeApp(made), key: made.key, pem: made.pem }
    },

    async list() {
      return (await all<AppBody>('/admin/apps')).map(summarizeApp)
    },

    async update(slug, { description, permissions }) {
      const body = { description, permissions }
      return summarizeApp(
        await call<AppBody>({ method: 'PATCH', path: pathOf(slug), body, notFound: noApp(slug) })
      )
    },

    async delete(slug) {
      await call({ method: 'DELETE', path: pathOf(slug), notFound: noApp(slug) })
    },

    async listKeys(slug) {
      return await call<KeySummary[]>({
        method: 'GET',
        path: `${pathOf(slug)}/keys`,
        notFound: noApp(slug)
      })
    },

    async createKey(slug) {
      return await call<KeySummary & { pem: string }>({
        method: 'POST',
        path: `${pathOf(slug)}/keys`,
        notFound: noApp(slug)
      })
    },

    async deleteKey(slug, keyId) {
      const notFound = `There is no App ${slug}, or it has no key ${keyId}.`
      await call({ method: 'DELETE', path: `${pathOf(slug)}/keys/${keyId}`, notFound })
    },

    async listInstallations(slug) {
      return (await installationsOf(slug)).map(summarizeInstallation)
    },

    async install(slug, account, grant) {
      const body = { account, ...bodyOf(grant) }
      const path = `${pathOf(slug)}/installations`
      return summarizeInstallation(
        await call<InstallationBody>({ method: 'POST', path, body, notFound: noApp(slug) })
      )
    },

    async changeInstallation(slug, account, grant) {
      const path = await installationPath(slug, account)
      return summarizeInstallation(
        await call<InstallationBody>({ method: 'PATCH', path, body: bodyOf(grant) })
      )
    },

    async suspend(slug, account) {
      await call({ method: 'PUT', path: `${await installationPath(slug, account)}/suspended` })
    },

    async unsuspend(slug, account) {
      await call({ method: 'DELETE', path: `${await installationPath(slug, account)}/suspended` })
    },

    async uninstall(slug, account) {
      await call({ method: 'DELETE', path: await installationPath(slug, account) })
    }
  }
}

function pathOf(slug: string): string {
  return `/admin/apps/${segment(slug)}`
}

function noApp(slug: string): string {
  return `There is no App ${slug}.`
}

function bodyOf({ repositories, permissions }: Grant) {
  return {
    ...(repositories === 'all' ? { all_repositories: true } : { repositories }),
    permissions
  }
}

function summarizeApp(app: AppBody): AppSummary {
  const { id, slug, client_id, owner, permissions, installations_count } = app
  return { id, slug, client_id, owner: owner.login, permissions, installations_count }
}

function summarizeInstallation(installation: InstallationBody): InstallationSummary {
  const { id, account, repository_selection, permissions, suspended_at } = installation
  return { id, account: account.login, repository_selection, permissions, suspended_at }
}
