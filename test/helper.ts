import { randomBytes, randomUUID } from 'node:crypto'
import type { FastifyInstance, InjectOptions } from 'fastify'
import { type Kysely, sql } from 'kysely'
import type { Response as LightMyRequestResponse } from 'light-my-request'
import type { Test } from 'tap'
import sealedBox from 'tweetnacl-sealedbox-js'
import { buildApp, notificationHandlers } from '../src/app.ts'
import type { App, CollectionKind } from '../src/apps.ts'
import type { RateLimitSettings } from '../src/auth/rate-limits.ts'
import { SCOPES } from '../src/auth/scopes.ts'
import { createOrganization, createUser } from '../src/directory/accounts.ts'
import { setMembership } from '../src/directory/memberships.ts'
import { createRepository, setCollaborator } from '../src/directory/repositories.ts'
import { issueToken, type TokenLifetimes, type TokenRequest } from '../src/directory/tokens.ts'
import { Keyring } from '../src/keyring/index.ts'
import { localMasterKey } from '../src/keyring/master-key.ts'
import { createLogger } from '../src/logger.ts'
import { ensureGeneration, loadGenerations } from '../src/secrets/generations.ts'
import { reveal, type Vault } from '../src/secrets/vault.ts'
import { type Account, findAccount } from '../src/store/accounts.ts'
import type { Principal } from '../src/store/audit.ts'
import { openDatabase } from '../src/store/database.ts'
import { Listener } from '../src/store/listener.ts'
import { findRepository } from '../src/store/repositories.ts'
import type { Database, OrganizationRole, RepositoryRole } from '../src/store/tables.ts'

export const SYSTEM: Principal = {
  kind: 'system',
  uid: null,
  tokenId: null,
  issuedByUid: null,
  requestId: null
}
const LIFETIMES = { defaultDays: 90, maxDays: 366 }

/** A database of its own for a test, made from the migrated template and dropped at the end. */
export async function createTestDatabase(t: Test): Promise<{ url: string; db: Kysely<Database> }> {
  const server = process.env.TEST_DATABASE_URL
  const template = process.env.TEST_TEMPLATE
  if (!server || !template) throw new Error('run the tests with: npm test -- FILE')
  const name = `coffer_test_${randomUUID().replaceAll('-', '')}`
  const target = new URL(server)
  target.pathname = `/${name}`
  await onServer(server, `create database "${name}" template "${template}"`)
  const db = openDatabase({ connection: target.href, poolSize: 10, prepare: true })
  t.teardown(async () => {
    await db.destroy()
    await onServer(server, `drop database if exists "${name}" with (force)`)
  })
  return { url: target.href, db }
}

async function onServer(url: string, statement: string): Promise<void> {
  const admin = openDatabase({ connection: url, poolSize: 1, prepare: false })
  try {
    await sql.raw(statement).execute(admin)
  } finally {
    await admin.destroy()
  }
}

export interface TestRequest {
  token?: string | undefined
  body?: unknown
  headers?: Record<string, string>
}

/** A server with a database, a keyring and an administrator of its own, and what tests do with it. */
export interface TestServer {
  app: FastifyInstance
  db: Kysely<Database>
  databaseUrl: string
  keyring: Keyring
  vault: Vault
  /** every log line so far */
  log: string[]
  admin: { account: Account; token: string }
  /** injected: without a socket */
  request(
    method: InjectOptions['method'],
    url: string,
    request?: TestRequest
  ): Promise<LightMyRequestResponse>
  /** listens on loopback; gives the URL */
  listen(): Promise<string>
  createUser(login: string, options?: { siteAdmin?: boolean }): Promise<Account>
  createToken(account: Account, request: TokenRequest): Promise<string>
  createRepository(owner: Account, name: string, options?: { private?: boolean }): Promise<number>
  createOrganization(login: string, admin: Account): Promise<Account>
  addMember(organization: Account, user: Account, role?: OrganizationRole): Promise<void>
  setRole(owner: Account, name: string, user: Account, role: RepositoryRole): Promise<void>
  /** seals for the collection whose secrets are below this path, e.g. `/user/codespaces/secrets` */
  seal(
    path: string,
    token: string,
    value: string | Uint8Array
  ): Promise<{ encrypted_value: string; key_id: string }>
  /** the value that is stored, as bytes */
  reveal(kind: CollectionKind, ownerUid: string, name: string, app?: App): Promise<Buffer | undefined>
}

export interface TestServerOptions {
  maxSecrets?: number
  maxValueBytes?: number
  /** null: where the server listens */
  publicUrl?: string | null
  logLevel?: string
  trustedProxies?: string[]
  tls?: { cert: Buffer; key: Buffer }
  rateLimits?: RateLimitSettings
  tokenLifetimes?: TokenLifetimes
  /** hears what the database tells */
  events?: boolean
  eventKeepaliveMs?: number
}

async function listenFor(t: Test, app: FastifyInstance, databaseUrl: string): Promise<void> {
  const listener = new Listener(databaseUrl, notificationHandlers(app), () => app.events.reset())
  await listener.start()
  t.teardown(() => listener.close())
}

export async function startTestServer(t: Test, options: TestServerOptions = {}): Promise<TestServer> {
  const { url: databaseUrl, db } = await createTestDatabase(t)
  const keyring = new Keyring([localMasterKey(randomBytes(32))])
  await ensureGeneration(db, keyring)
  await loadGenerations(db, keyring)
  const log: string[] = []
  const limits = { maxValueBytes: options.maxValueBytes ?? 49_152, maxSecrets: options.maxSecrets }
  const reloadGenerations = () => loadGenerations(db, keyring)
  const app = await buildApp({
    db,
    keyring,
    reloadGenerations,
    limits,
    tokenLifetimes: options.tokenLifetimes ?? LIFETIMES,
    logger: createLogger(options.logLevel ?? 'trace', { write: (line: string) => void log.push(line) }),
    publicUrl: options.publicUrl === null ? undefined : (options.publicUrl ?? 'http://coffer.test'),
    ...(options.trustedProxies && { trustedProxies: options.trustedProxies }),
    ...(options.tls && { tls: options.tls }),
    rateLimits: options.rateLimits,
    eventKeepaliveMs: options.eventKeepaliveMs
  })
  t.teardown(() => app.close())
  if (options.events) await listenFor(t, app, databaseUrl)

  const account = await createUser(db, SYSTEM, { login: 'root', siteAdmin: true })
  const vault: Vault = { db, keyring, limits, reloadGenerations }
  const server: TestServer = {
    app,
    db,
    databaseUrl,
    keyring,
    vault,
    log,
    admin: { account, token: (await issueToken(db, SYSTEM, account, { scopes: SCOPES }, LIFETIMES)).token },
    async request(method, url, { token, body, headers } = {}) {
      return await app.inject({
        method: method ?? 'GET',
        url,
        headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
        ...(body !== undefined && { payload: typeof body === 'string' ? body : JSON.stringify(body) })
      })
    },
    listen: () => app.listen({ host: '127.0.0.1', port: 0 }),
    createUser: (login, { siteAdmin = false } = {}) => createUser(db, SYSTEM, { login, siteAdmin }),
    async createToken(account, request) {
      return (await issueToken(db, SYSTEM, account, request, LIFETIMES)).token
    },
    createRepository: (owner, name, { private: flag = true } = {}) =>
      createRepository(db, SYSTEM, owner, { name, private: flag }),
    createOrganization: (login, admin) => createOrganization(db, SYSTEM, { login, admin: admin.login }),
    async addMember(organization, user, role = 'member') {
      await setMembership(db, SYSTEM, organization, user.login, role)
    },
    async setRole(owner, name, user, role) {
      const facts = await findRepository(db, owner.id, { owner: owner.login, repo: name })
      await setCollaborator(db, SYSTEM, facts!, user.login, role)
    },
    async seal(path, token, value) {
      const response = await server.request('GET', `${path}/public-key`, { token })
      const { key, key_id } = response.json()
      return { encrypted_value: sealFor(key, value), key_id }
    },
    reveal: (kind, ownerUid, name, app = 'codespaces') => reveal(vault, { app, kind, ownerUid }, name)
  }
  return server
}

/** A second server, with a pool of its own, on the database of the first. */
export async function startSecondNode(
  t: Test,
  { databaseUrl, keyring, vault }: TestServer,
  options: Pick<TestServerOptions, 'rateLimits' | 'events' | 'eventKeepaliveMs'> = {}
): Promise<FastifyInstance> {
  const db = openDatabase({ connection: databaseUrl, poolSize: 10, prepare: true })
  const app = await buildApp({
    db,
    keyring,
    reloadGenerations: () => loadGenerations(db, keyring),
    limits: vault.limits,
    tokenLifetimes: LIFETIMES,
    rateLimits: options.rateLimits,
    eventKeepaliveMs: options.eventKeepaliveMs,
    publicUrl: 'http://coffer.test',
    logger: createLogger('warn', { write: () => {} })
  })
  t.teardown(async () => {
    await app.close()
    await db.destroy()
  })
  if (options.events) await listenFor(t, app, databaseUrl)
  return app
}

/** Base64 of a sealed box for a public key in base64. */
export function sealFor(publicKey: string, value: string | Uint8Array): string {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value
  return Buffer.from(sealedBox.seal(bytes, Buffer.from(publicKey, 'base64'))).toString('base64')
}

export async function getAccount(db: Kysely<Database>, login: string): Promise<Account> {
  const account = await findAccount(db, login)
  if (!account) throw new Error(`no account ${login}`)
  return account
}
