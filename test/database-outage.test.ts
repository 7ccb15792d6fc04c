import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { buildApp } from '../src/app.ts'
import type { RateLimitSettings } from '../src/auth/rate-limits.ts'
import { createLogger } from '../src/logger.ts'
import { loadGenerations } from '../src/secrets/generations.ts'
import { openDatabase } from '../src/store/database.ts'
import { isConsistent } from './consistency.ts'
import { type Direction, Gate } from './gate.ts'
import { sealFor, startTestServer, type TestRequest, type TestServer } from './helper.ts'
import { sendRaw } from './raw-http.ts'
import { isRefusal, type Refusal, stored } from './routes/github/refusal.ts'

t.setTimeout(120_000)

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const VALUE = 'MARKER-of-an-outage-77c0'
const AWAY: Refusal = { status: 503, message: 'Service temporarily unavailable. Try again shortly.' }

interface Stage {
  /** with a way to the database of its own, which stays */
  server: TestServer
  /** what is tested, behind the gate */
  app: FastifyInstance
  gate: Gate
  log: string[]
  token: string
  monaUid: string
  repositoryId: number
  repositoryUid: string
  request(
    method: 'GET' | 'PUT' | 'DELETE' | 'POST',
    url: string,
    request?: TestRequest
  ): ReturnType<TestServer['request']>
}

interface StageOptions {
  poolSize?: number
  rateLimits?: RateLimitSettings
}

async function start(t: Test, { poolSize = 5, rateLimits }: StageOptions = {}): Promise<Stage> {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })

  const gate = new Gate(server.databaseUrl)
  await gate.open()
  const db = openDatabase({ connection: gate.url, poolSize, prepare: true })
  const log: string[] = []
  const app = await buildApp({
    db,
    keyring: server.keyring,
    reloadGenerations: () => loadGenerations(db, server.keyring),
    limits: server.vault.limits,
    tokenLifetimes: { defaultDays: 90, maxDays: 366 },
    rateLimits,
    logger: createLogger('trace', { write: (line: string) => void log.push(line) })
  })
  t.teardown(async () => {
    await app.close()
    await db.destroy()
    gate.cut()
  })
  return {
    server,
    app,
    gate,
    log,
    token,
    monaUid: mona.uid,
    repositoryId,
    repositoryUid: uid,
    request: async (method, url, { token, body, headers } = {}) =>
      await app.inject({
        method,
        url,
        headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
        ...(body !== undefined && { payload: typeof body === 'string' ? body : JSON.stringify(body) })
      })
  }
}

function isAway(t: Test, response: Awaited<ReturnType<TestServer['request']>>, name: string): void {
  isRefusal(t, response, AWAY, name)
  t.equal(response.headers['retry-after'], '1', `${name}: retry-after`)
}

/** How often the server says that it found the database away. */
async function unavailableTotal(stage: Stage): Promise<number> {
  const { body } = await stage.request('GET', '/metrics')
  return Number(/^coffer_database_unavailable_total (\d+)$/m.exec(body)![1])
}

t.test('while the database is away every operation says so, and all is well when it is back', async (t) => {
  const stage = await start(t)
  const { server, gate, request, token } = stage
  const body = await server.seal(USER, token, VALUE)
  const repoBody = await server.seal(REPO, token, VALUE)
  t.equal((await request('PUT', `${USER}/KEPT`, { token, body })).statusCode, 201)
  t.equal((await request('GET', '/readyz')).statusCode, 200)
  const before = await stored(server.db)

  for (const way of ['cut while idle', 'cut again']) {
    gate.cut()
    const attempts = [
      ['POST', '/graphql', { query: '{viewer{login}}' }],
      ['POST', '/graphql', { query: '{__typename a:repository(owner:"mona",name:"web"){id}}' }],
      ['GET', '/user', undefined],
      ['GET', USER, undefined],
      ['GET', `${USER}/KEPT`, undefined],
      ['PUT', `${USER}/KEPT`, body],
      ['PUT', `${USER}/NEW`, body],
      ['PUT', `${USER}/KEPT/repositories`, { selected_repository_ids: [stage.repositoryId] }],
      ['DELETE', `${USER}/KEPT`, undefined],
      ['PUT', `${REPO}/NEW`, repoBody],
      ['GET', REPO, undefined],
      ['POST', '/user/repos', { name: 'fresh' }]
    ] as const
    for (const [method, url, body] of attempts) {
      isAway(t, await request(method, url, { token, body }), `${way}: ${method} ${url}`)
    }
    const parallel = await Promise.all(
      Array.from({ length: 20 }, (_, n) => request('PUT', `${USER}/P${n}`, { token, body }))
    )
    for (const response of parallel) isAway(t, response, `${way}: one of many`)
    const ready = await request('GET', '/readyz')
    t.equal(ready.statusCode, 503)
    t.strictSame(ready.json(), { status: 'not ready', checks: { database: false, keyring: true } })
    t.equal((await request('GET', '/healthz')).statusCode, 200, 'the process itself is well')
    t.strictSame(await stored(server.db), before, 'nothing changed')

    await gate.restore()
    t.equal((await request('GET', '/readyz')).statusCode, 200, 'ready again, at once')
    t.equal((await request('PUT', `${USER}/KEPT`, { token, body })).statusCode, 204, 'and writes, at once')
    t.equal((await server.reveal('user', stage.monaUid, 'KEPT'))?.toString(), VALUE)
    Object.assign(before, await stored(server.db))
  }
  t.equal(await unavailableTotal(stage), 64)
  await isConsistent(t, server.db)
  const lines = stage.log.map((line) => JSON.parse(line))
  t.strictSame(
    lines.filter(({ level }) => level === 'error' || level === 'fatal'),
    [],
    'it is no defect'
  )
  t.notMatch(stage.log.join(''), VALUE)
})

t.test('a connection that is cut at any point of a write leaves the whole of it or nothing', async (t) => {
  const stage = await start(t, { poolSize: 1 })
  const { server, gate, request, token, repositoryId } = stage
  const key = (await request('GET', `${USER}/public-key`, { token })).json()
  const repoKey = (await request('GET', `${REPO}/public-key`, { token })).json()
  const seal = ({ key, key_id }: { key: string; key_id: string }, value: string) => ({
    encrypted_value: sealFor(key, value),
    key_id
  })
  const outcomes: Record<string, number> = {}
  let number = 0

  /** One write, cut before its n-th piece of traffic; false when it was over before. */
  const cutAt = async (
    n: number,
    direction: Direction,
    kind: 'create' | 'update' | 'selection' | 'remove' | 'repository'
  ) => {
    const name = `W${number++}`
    if (kind !== 'create' && kind !== 'repository') {
      await server.request('PUT', `${USER}/${name}`, { token, body: seal(key, 'before') })
    }
    t.equal((await request('GET', '/readyz')).statusCode, 200)
    let pieces = 0
    let wasCut = false
    gate.onTraffic = (way) => {
      if (way === direction) pieces += 1
      wasCut ||= way === direction && pieces === n
      return wasCut
    }
    const value = `${VALUE} ${name}`
    const attempt = {
      create: () =>
        request('PUT', `${USER}/${name}`, {
          token,
          body: { ...seal(key, value), selected_repository_ids: [repositoryId] }
        }),
      update: () => request('PUT', `${USER}/${name}`, { token, body: seal(key, value) }),
      selection: () =>
        request('PUT', `${USER}/${name}`, {
          token,
          body: { ...seal(key, value), selected_repository_ids: [repositoryId] }
        }),
      remove: () => request('DELETE', `${USER}/${name}`, { token }),
      repository: () => request('PUT', `${REPO}/${name}`, { token, body: seal(repoKey, value) })
    }
    const response = await attempt[kind]()
    await gate.restore()
    if (response.statusCode >= 300) isAway(t, response, `${kind}, ${direction} ${n}`)
    const outcome = `${kind} ${response.statusCode}`
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    const owner = kind === 'repository' ? stage.repositoryUid : stage.monaUid
    const now = (await server.reveal(kind === 'repository' ? 'repository' : 'user', owner, name))?.toString()
    const selected = await sql<{ total: number }>`
      select count(*) as total from secret_repositories join secrets s on s.id = secret_id where s.name = ${name}`.execute(
      server.db
    )
    const stateNow = `${now ?? 'absent'}, ${selected.rows[0]!.total} selected`
    const states = {
      create: ['absent, 0 selected', `${value}, 1 selected`],
      update: ['before, 0 selected', `${value}, 0 selected`],
      selection: ['before, 0 selected', `${value}, 1 selected`],
      remove: ['before, 0 selected', 'absent, 0 selected'],
      repository: ['absent, 0 selected', `${value}, 0 selected`]
    }[kind]
    t.ok(states.includes(stateNow), `${kind}, ${direction} ${n}: ${response.statusCode}, ${stateNow}`)
    if (response.statusCode < 300) t.equal(stateNow, states[1], 'what was acknowledged is there')
    return wasCut
  }

  for (const kind of ['create', 'update', 'selection', 'remove', 'repository'] as const) {
    for (const direction of ['query', 'result'] as const) {
      let n = 1
      while ((await cutAt(n, direction, kind)) && n < 40) n += 1
      t.ok(n > 1 && n < 40, `${kind}: ${n - 1} points where a ${direction} was cut`)
    }
  }
  t.comment(JSON.stringify(outcomes))
  await isConsistent(t, server.db)
})

t.test('what cannot be counted is told to try again, and is counted when it can be', async (t) => {
  const rateLimits = { core: 4, codespaces: 4, graphql: 4, address: 4, store: 'database' } as const
  const { gate, request, token } = await start(t, { rateLimits })
  const first = await request('GET', '/user', { token })
  t.equal(first.headers['x-ratelimit-used'], '1')
  const headers = { 'if-none-match': String(first.headers.etag) }
  gate.cut()
  isAway(t, await request('GET', '/user', { token }), 'with a token')
  isAway(t, await request('GET', '/user', { token, headers }), 'with a token, conditionally')
  isAway(t, await request('GET', '/user'), 'without one')
  isAway(t, await request('GET', '/meta'), 'where none is needed')
  t.equal((await request('GET', '/healthz')).statusCode, 200)
  await gate.restore()
  t.equal((await request('GET', '/user', { token })).headers['x-ratelimit-used'], '2')
  t.equal((await request('GET', '/user')).headers['x-ratelimit-used'], '1')
})

t.test('a pool that is all taken is told to try again, and is well afterwards', async (t) => {
  const stage = await start(t, { poolSize: 1 })
  const { server, request, token } = stage
  const body = await server.seal(USER, token, VALUE)
  t.equal((await request('PUT', `${USER}/HELD`, { token, body })).statusCode, 201)
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const holding = server.db.transaction().execute(async (tx) => {
    await sql`select 1 from secrets where name = 'HELD' for update`.execute(tx)
    await held
  })
  await sleep(100)
  const waiting = request('PUT', `${USER}/HELD`, { token, body })
  await sleep(100)
  isAway(t, await request('GET', USER, { token }), 'no connection is free')
  release()
  await holding
  t.equal((await waiting).statusCode, 204)
  t.equal((await request('GET', USER, { token })).statusCode, 200)
})

t.test("a body that is not sent to its end changes nothing, and is nobody else's fault", async (t) => {
  const stage = await start(t)
  const { server, app, token } = stage
  Object.assign(app.server, { requestTimeout: 400, headersTimeout: 400, connectionsCheckingInterval: 100 })
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const body = JSON.stringify(await server.seal(USER, token, VALUE))
  const head = (length: number) =>
    `PUT ${USER}/SLOW HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${length}\r\n` +
    'Connection: close\r\n\r\n'
  const before = await stored(server.db)

  const slow = await sendRaw(url, head(body.length) + body.slice(0, 20), async (socket) => {
    for (const letter of body.slice(20, 60)) {
      if (socket.destroyed) return
      socket.write(letter)
      await sleep(50)
    }
  })
  isRefusal(t, slow!, { status: 408, message: 'Request Timeout' }, 'a body that comes too slowly')
  t.equal(slow!.headers.connection, 'close')
  const silent = await sendRaw(url, 'PUT /user')
  isRefusal(t, silent!, { status: 408, message: 'Request Timeout' }, 'a head that does not end')

  for (const sent of ['', body.slice(0, 20), body.slice(0, -1)]) {
    const answer = await sendRaw(url, head(body.length) + sent, async (socket) => {
      await sleep(50)
      socket.resetAndDestroy()
    })
    t.equal(answer, undefined, `aborted after ${sent.length} bytes`)
  }
  for (const sent of ['', body.slice(0, 20)]) {
    await sendRaw(url, head(body.length) + sent, async (socket) => {
      await sleep(50)
      socket.end()
    })
  }
  t.strictSame(await stored(server.db), before, 'nothing changed')
  t.equal(await unavailableTotal(stage), 0, 'the database was never away')
  t.strictSame(
    stage.log
      .map((line) => JSON.parse(line))
      .filter(({ level }) => ['warn', 'error', 'fatal'].includes(level)),
    []
  )

  const inTime = await sendRaw(url, head(body.length) + body.slice(0, 20), async (socket) => {
    await sleep(100)
    socket.write(body.slice(20))
  })
  t.equal(inTime!.statusCode, 201, 'a body in two pieces is one')
  t.equal((await server.reveal('user', stage.monaUid, 'SLOW'))?.toString(), VALUE)
})
