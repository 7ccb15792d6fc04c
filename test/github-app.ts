import { createPrivateKey, hash, type KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import { type AppKey, makeAppKey } from '../src/auth/app-key.ts'
import { insertIntegration, insertKey } from '../src/store/integrations.ts'
import type { Permissions } from '../src/store/tables.ts'
import { getAccount, type TestServer } from './helper.ts'

// GitHub Apps for tests: installed as an administrator does, and signing as an App does.

export interface TestApp {
  id: number
  slug: string
  clientId: string
  pem: string
  keyId: number
}

export interface Claims {
  iss?: unknown
  iat?: unknown
  exp?: unknown
}

/** Asks as the administrator; throws for any answer that is no success. */
export async function asAdmin<T>(
  server: TestServer,
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  url: string,
  body?: object
): Promise<T> {
  const response = await server.request(method, url, { token: server.admin.token, body })
  if (response.statusCode >= 300) throw new Error(`${method} ${url}: ${response.statusCode} ${response.body}`)
  return (response.body === '' ? undefined : response.json()) as T
}

/** Making one takes long, so the Apps of each server have the same ones, in the order of their registration. */
const keys: Promise<AppKey>[] = []
const registered = new WeakMap<TestServer, number>()

/** Without the endpoint, which makes a key for each; the tests of the endpoint do that. */
export async function registerTestApp(
  server: TestServer,
  name: string,
  permissions: Record<string, string>,
  owner = 'root'
): Promise<TestApp> {
  const number = registered.get(server) ?? 0
  registered.set(server, number + 1)
  keys[number] ??= makeAppKey()
  const { pem, publicKey } = await keys[number]
  const slug = name.toLowerCase().replaceAll(' ', '-')
  const clientId = `Iv1.${hash('sha256', slug, 'hex').slice(0, 16)}`
  const account = await getAccount(server.db, owner)
  return await server.db.transaction().execute(async (tx) => {
    const { id } = await insertIntegration(tx, {
      owner_id: account.id,
      slug,
      client_id: clientId,
      name,
      description: null,
      permissions: { ...(permissions as Permissions), metadata: 'read' }
    })
    const { id: keyId } = await insertKey(tx, id, publicKey)
    return { id, slug, clientId, pem, keyId }
  })
}

/** @param repositories names; undefined: all */
export async function installTestApp(
  server: TestServer,
  { slug }: Pick<TestApp, 'slug'>,
  account: string,
  repositories?: readonly string[],
  permissions?: Record<string, string>
): Promise<number> {
  const { id } = await asAdmin<{ id: number }>(server, 'POST', `/admin/apps/${slug}/installations`, {
    account,
    ...(repositories ? { repositories } : { all_repositories: true }),
    ...(permissions && { permissions })
  })
  return id
}

/** The moment, in seconds, as the claims of a JWT give it. */
export function seconds(): number {
  return Math.floor(Date.now() / 1000)
}

/** A JWT as clients make it, with claims changed or, when undefined, left out. */
export async function signJwt(
  { id, pem }: Pick<TestApp, 'id' | 'pem'>,
  claims: Claims = {},
  { alg = 'RS256', key }: { alg?: string; key?: KeyObject | Uint8Array } = {}
): Promise<string> {
  const now = seconds()
  const payload = JSON.parse(JSON.stringify({ iat: now - 30, exp: now + 570, iss: String(id), ...claims }))
  return await new SignJWT(payload).setProtectedHeader({ alg, typ: 'JWT' }).sign(key ?? createPrivateKey(pem))
}

/** A JWT of any header and payload, with any signature: for what no library would make. */
export function forgeJwt(header: unknown, payload: unknown, signature: string | Buffer = ''): string {
  const encode = (part: unknown) =>
    Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')
  return `${encode(header)}.${encode(payload)}.${Buffer.from(signature).toString('base64url')}`
}

export interface Minted {
  token: string
  expires_at: string
  permissions: Record<string, string>
  repository_selection: string
  repositories?: { id: number; name: string }[]
}

/** Throws unless the token is minted. */
export async function mint(
  server: TestServer,
  app: TestApp,
  installationId: number,
  narrowing?: object
): Promise<Minted> {
  const response = await server.request('POST', `/app/installations/${installationId}/access_tokens`, {
    token: await signJwt(app),
    ...(narrowing && { body: narrowing })
  })
  if (response.statusCode !== 201) throw new Error(`${response.statusCode} ${response.body}`)
  return response.json()
}
