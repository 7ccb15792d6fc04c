import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { fastify } from 'fastify'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { buildApp } from '../../src/app.ts'
import { tokenCacheKey } from '../../src/auth/token.ts'
import { createLogger } from '../../src/logger.ts'
import { openKeyring } from '../../src/open.ts'
import { loadGenerations } from '../../src/secrets/generations.ts'
import { types } from '../../src/store/database.ts'
import type { Database } from '../../src/store/tables.ts'
import type { Request } from './load.ts'
import { createSecret, enterOna, getSecretValue, listSecrets, type OnaWorld, SECRET_SERVICE } from './ona.ts'
import { ADMIN_TOKEN } from './server.ts'
import {
  attach,
  benchConfig,
  emptyRepository,
  newSecret,
  ORGANIZATION,
  OWNER,
  repository,
  secret,
  selectionPath,
  VALUE_BYTES
} from './world.ts'

/**
 * The floor of each operation: a bare Fastify route that runs exactly the statements of the real one, in the
 * same round trips. They are recorded from the real application, one request each, so that they cannot differ.
 * Parameters are the recorded ones, but for those that must move for the same rows to be touched.
 */

interface Recorded {
  text: string
  values: unknown[]
}

const dataDir = process.argv[2]!
const attached = await attach(dataDir)
const config = benchConfig(dataDir)

// ---- record ----

/** Beside the secrets that the server makes. */
const RECORDED_NAME = `FLOOR_${randomBytes(4).toString('hex')}`

const recording: Recorded[] = []

class RecordingClient extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: the overloads of pg's query cannot be repeated in a subclass
  override query(text: any, values?: any, callback?: any): any {
    if (typeof text === 'string') recording.push({ text, values: Array.isArray(values) ? values : [] })
    return super.query(text, values, callback)
  }
}

async function record(): Promise<{ recorded: Record<string, Recorded[]>; ona: OnaWorld }> {
  const pool = new pg.Pool({
    ...attached.connection,
    max: 1,
    types,
    Client: RecordingClient
  } as pg.PoolConfig)
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  const keyring = await openKeyring(config, db)
  await loadGenerations(db, keyring)
  const app = await buildApp({
    db,
    keyring,
    reloadGenerations: async () => {},
    limits: { maxValueBytes: config.maxValueBytes, maxSecrets: config.maxSecrets },
    tokenLifetimes: { defaultDays: 90, maxDays: 366 },
    logger: createLogger('silent')
  })
  const ask = async ({ method, path, body, token = ADMIN_TOKEN }: Request) => {
    const authorization = `Bearer ${token}`
    // The token is known, as it nearly always is: asked for just now.
    app.authenticator.forget([tokenCacheKey(token)])
    await app.authenticator.authenticate(authorization, undefined)
    recording.length = 0
    const response = await app.inject({
      method,
      url: path,
      headers: { authorization },
      ...(body && { payload: body })
    })
    if (response.statusCode >= 300) throw new Error(`${method} ${path} answered ${response.statusCode}`)
    return { statements: [...recording], response }
  }
  const request = async (method: Request['method'], path: string, body?: string) =>
    await ask({ method, path, ...(body && { body }) })
  const { default: sealedBox } = await import('tweetnacl-sealedbox-js')
  const secrets = `/repos/${OWNER}/${repository(0)}/codespaces/secrets`
  const empty = `/repos/${OWNER}/${emptyRepository(0)}/codespaces/secrets`
  const body = async (path: string) => {
    const { key, key_id } = (await request('GET', `${path}/public-key`)).response.json()
    const box = sealedBox.seal(new Uint8Array(1024), Buffer.from(key, 'base64'))
    return JSON.stringify({ encrypted_value: Buffer.from(box).toString('base64'), key_id })
  }
  const allRepositories = async () => {
    const rows = await db
      .selectFrom('repositories as r')
      .innerJoin('accounts as o', 'o.id', 'r.owner_id')
      .select('r.id')
      .where('o.login', '=', ORGANIZATION)
      .execute()
    return JSON.stringify({ selected_repository_ids: rows.map(({ id }) => id) })
  }
  const ona = await enterOna(db)
  // The first use of a token is noted, beside what it is used for.
  await request('GET', secrets)
  await ask(getSecretValue(ona))
  const recorded = {
    'public key': (await request('GET', `${secrets}/public-key`)).statements,
    'get one': (await request('GET', `${secrets}/${secret(0)}`)).statements,
    'list 100': (await request('GET', `${secrets}?per_page=100`)).statements,
    'put, update': (await request('PUT', `${secrets}/${secret(0)}`, await body(secrets))).statements,
    'put, create': (await request('PUT', `${empty}/${newSecret(0)}`, await body(empty))).statements,
    'select 1000': (await request('PUT', selectionPath('MANY_SELECTED'), await allRepositories())).statements,
    CreateSecret: (await ask(createSecret(ona, RECORDED_NAME, 0))).statements,
    ListSecrets: (await ask(listSecrets(ona, 100))).statements,
    GetSecretValue: (await ask(getSecretValue(ona))).statements
  }
  await app.close()
  await db.destroy()
  return { recorded, ona }
}

const { recorded, ona } = await record()

// ---- replay ----

const pool = new pg.Pool({ ...attached.connection, max: config.poolSize, types } as pg.PoolConfig)
const names = new Map<string, string>()

function prepared({ text }: Recorded, values: unknown[]): pg.QueryConfig {
  if (values.length === 0) return { text }
  let name = names.get(text)
  if (!name) {
    name = createHash('sha256').update(text).digest('base64url').slice(0, 22)
    names.set(text, name)
  }
  return { name, text, values }
}

type Row = Record<string, unknown>
type Bind = (values: unknown[], previous: Row | undefined) => unknown[]

async function replay(statements: Recorded[], bind: Bind): Promise<Row[]> {
  const inTransaction = statements.some(({ text }) => text === 'begin')
  const first = statements[0]!
  let result = await pool.query(prepared(first, bind(first.values, undefined)))
  if (!inTransaction) {
    for (const statement of statements.slice(1)) {
      const previous = result.rows[0] as Row | undefined
      result = await pool.query(prepared(statement, bind(statement.values, previous)))
    }
    return result.rows
  }
  const client = await pool.connect()
  try {
    const previous = result.rows[0] as Row | undefined
    for (const statement of statements.slice(1)) {
      result = await client.query(prepared(statement, bind(statement.values, previous)))
    }
    return result.rows
  } finally {
    client.release()
  }
}

const fixed: Bind = (values) => values

/** The recorded values that stand for what a request names, or for what the statement before has found. */
const update = recorded['put, update']!
const create = recorded['put, create']!
const [updated] = (await pool.query(prepared(update[0]!, update[0]!.values))).rows as Row[]
const rowVersionIndex = parameterIndex(update[1]!, /row_version = \$(\d+)::integer/)
const insertedUid = insertedUidOf(create)
const lockedOwner = create.find(({ text }) => text.includes('for no key update'))!.values[0]

function parameterIndex({ text }: Recorded, pattern: RegExp): number {
  return Number(pattern.exec(text)![1]) - 1
}

function insertedUidOf(statements: Recorded[]): unknown {
  const insert = statements.find(({ text }) => text.includes('insert into secrets'))!
  return insert.values[parameterIndex(insert, /select \$(\d+)::uuid, \$/)]
}

function replacing(values: unknown[], replacements: ReadonlyMap<unknown, unknown>): unknown[] {
  return values.map((value) => (replacements.has(value) ? replacements.get(value) : value))
}

function bindUpdate(repo: string, name: string): Bind {
  const named = new Map([
    [repository(0), repo],
    [secret(0), name]
  ])
  return (values, previous) => {
    if (!previous) return replacing(values, named)
    const bound = replacing(values, new Map([[updated!.secret_id, previous.secret_id]]))
    bound[rowVersionIndex] = previous.row_version
    return bound
  }
}

function bindCreate(repo: string, name: string): Bind {
  const named: [unknown, unknown][] = [
    [emptyRepository(0), repo],
    [newSecret(0), name],
    [insertedUid, randomUUID()]
  ]
  return (values, previous) =>
    replacing(values, new Map(previous ? [...named, [lockedOwner, previous.repository_uid]] : named))
}

const createdUid = insertedUidOf(recorded.CreateSecret!)

function bindCreateSecret(projectUid: string, name: string): Bind {
  const named = new Map<unknown, unknown>([
    [ona.emptyUids[0], projectUid],
    [RECORDED_NAME, name],
    [createdUid, randomUUID()]
  ])
  return (values) => replacing(values, named)
}

const app = fastify()
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))

const path = '/repos/:owner/:repo/codespaces/secrets'
app.get(`${path}/public-key`, async () => {
  await replay(recorded['public key']!, fixed)
  return { key_id: '1704273144566984742', key: 'A'.repeat(44) }
})
app.get(`${path}/:name`, async () => {
  const [row] = await replay(recorded['get one']!, fixed)
  return { name: row!.secret_name, created_at: row!.created_at, updated_at: row!.updated_at }
})
app.get(path, async () => {
  const [row] = await replay(recorded['list 100']!, fixed)
  return { total_count: row!.total, secrets: row!.secrets }
})
app.put(`${path}/:name`, async (request, reply) => {
  const { repo, name } = request.params as { repo: string; name: string }
  if (name.startsWith('SECRET_')) {
    const rows = await replay(update, bindUpdate(repo, name))
    return reply.code(rows.length > 0 ? 204 : 409).send()
  }
  await replay(create, bindCreate(repo, name))
  return reply.code(201).send({})
})
app.put(selectionPath('MANY_SELECTED'), async (_request, reply) => {
  await replay(recorded['select 1000']!, fixed)
  return reply.code(204).send()
})

let created = 0
app.post(`${SECRET_SERVICE}/CreateSecret`, async () => {
  const projectUid = ona.emptyUids[created % ona.emptyUids.length]!
  const name = `${RECORDED_NAME}_${created++}`
  await replay(recorded.CreateSecret!, bindCreateSecret(projectUid, name))
  return { secret: { name, scope: { projectId: projectUid } } }
})
app.post(`${SECRET_SERVICE}/ListSecrets`, async () => {
  return { secrets: await replay(recorded.ListSecrets!, fixed) }
})
app.post(`${SECRET_SERVICE}/GetSecretValue`, async () => {
  await replay(recorded.GetSecretValue!, fixed)
  return { value: 'a'.repeat(VALUE_BYTES) }
})

await app.listen({ host: '127.0.0.1', port: 0 })
const address = app.server.address() as { port: number }
console.log(`ready http://127.0.0.1:${address.port}`)
process.on('SIGTERM', async () => {
  await app.close()
  await pool.end()
  await attached.close()
  process.exit(0)
})
