import { readFile } from 'node:fs/promises'
import path from 'node:path'
import sealedBox from 'tweetnacl-sealedbox-js'
import { type Config, loadConfig } from '../../src/config.ts'
import { attachEmbedded } from '../../src/store/embedded/embedded-postgres.ts'
import { ADMIN_TOKEN } from './server.ts'

// What is in the database that is measured: names only, so that both sides find the same.

export const OWNER = 'admin'
/** Repositories with 100 secrets each: for reading, and for writing new values. */
export const REPOSITORIES = 50
export const SECRETS = 100
/** Repositories to make new secrets in. */
export const EMPTY_REPOSITORIES = 1000
export const VALUE_BYTES = 1024

export const repository = (index: number) => `web-${index % REPOSITORIES}`
export const emptyRepository = (index: number) => `empty-${index % EMPTY_REPOSITORIES}`
export const secret = (index: number) => `SECRET_${String(index % SECRETS).padStart(3, '0')}`
/** Repositories of the organization, all of them selected for one of its secrets, ten for the other. */
export const ORGANIZATION = 'acme'
export const SELECTED = { MANY_SELECTED: 1000, FEW_SELECTED: 10 } as const
export type SelectedSecret = keyof typeof SELECTED
export const newSecret = (index: number) => `NEW_${index}`

export interface SealedBody {
  encrypted_value: string
  key_id: string
}

export async function call(url: string, method: string, target: string, body?: object): Promise<Response> {
  const response = await fetch(url + target, {
    method,
    headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    ...(body && { body: JSON.stringify(body) })
  })
  if (!response.ok) throw new Error(`${method} ${target} answered ${response.status}`)
  return response
}

async function seal(url: string, collection: string, value: Uint8Array): Promise<SealedBody> {
  const response = await call(url, 'GET', `${collection}/public-key`)
  const { key, key_id } = (await response.json()) as { key: string; key_id: string }
  const box = sealedBox.seal(value, Buffer.from(key, 'base64'))
  return { encrypted_value: Buffer.from(box).toString('base64'), key_id }
}

/** Makes repositories and secrets through the API; gives a sealed body for each repository. */
export async function furnish(
  url: string,
  sizes: { repositories: number; secrets: number; emptyRepositories: number }
): Promise<Map<string, string>> {
  const value = new Uint8Array(VALUE_BYTES).fill(0x61)
  const bodies = new Map<string, string>()
  const make = async (repo: string, secrets: number) => {
    await call(url, 'POST', '/user/repos', { name: repo, private: true })
    const collection = `/repos/${OWNER}/${repo}/codespaces/secrets`
    const body = await seal(url, collection, value)
    bodies.set(repo, JSON.stringify(body))
    for (let index = 0; index < secrets; index++) {
      await call(url, 'PUT', `${collection}/${secret(index)}`, body)
    }
  }
  await inParallel(sizes.repositories, (index) => make(repository(index), sizes.secrets))
  await inParallel(sizes.emptyRepositories, (index) => make(emptyRepository(index), 0))
  return bodies
}

const FURNISHERS = 8

/** Does something for each index, several at a time. */
export async function inParallel(count: number, work: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: FURNISHERS }, async () => {
      while (next < count) await work(next++)
    })
  )
}

/** Makes an organization with repositories and two secrets; gives the ids of the repositories. */
export async function furnishOrganization(url: string): Promise<number[]> {
  await call(url, 'POST', '/admin/organizations', { login: ORGANIZATION, admin: OWNER })
  const ids: number[] = []
  for (let index = 0; index < SELECTED.MANY_SELECTED; index++) {
    const response = await call(url, 'POST', `/orgs/${ORGANIZATION}/repos`, {
      name: `service-${index}`,
      private: true
    })
    ids.push(((await response.json()) as { id: number }).id)
  }
  const collection = `/orgs/${ORGANIZATION}/codespaces/secrets`
  const body = await seal(url, collection, new Uint8Array(VALUE_BYTES))
  for (const [name, count] of Object.entries(SELECTED)) {
    const selected_repository_ids = ids.slice(0, count)
    await call(url, 'PUT', `${collection}/${name}`, {
      ...body,
      visibility: 'selected',
      selected_repository_ids
    })
  }
  return ids
}

export function selectionPath(name: SelectedSecret): string {
  return `/orgs/${ORGANIZATION}/codespaces/secrets/${name}/repositories`
}

export interface Attached {
  connection: { host: string; port: number; user: string; database: string; password: string }
  close(): Promise<void>
}

/** The embedded database of a server that runs. */
export async function attach(dataDir: string): Promise<Attached> {
  return await attachEmbedded({ dataDir, log: () => {} })
}

export function benchConfig(dataDir: string): Config {
  return loadConfig({ COFFER_DATA_DIR: dataDir, COFFER_MAX_SECRETS: '100000', COFFER_LOG_LEVEL: 'silent' })
    .config
}

export async function superuserUrl(
  dataDir: string,
  { host, port, database }: Attached['connection']
): Promise<string> {
  const { superuser } = JSON.parse(await readFile(path.join(dataDir, 'keys', 'postgres.json'), 'utf8'))
  return `postgres://postgres:${superuser}@localhost:${port}/${database}?host=${encodeURIComponent(host)}`
}
