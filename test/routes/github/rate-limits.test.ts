import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, request as httpRequest } from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { type RawBuilder, sql } from 'kysely'
import t, { type Test } from 'tap'
import type { RateLimitSettings } from '../../../src/auth/rate-limits.ts'
import { makeToken } from '../../../src/auth/token.ts'
import { schemaValidator, validator } from '../../github-description.ts'
import { startSecondNode, startTestServer, type TestServer, type TestServerOptions } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const HEADERS = ['limit', 'remaining', 'reset', 'used', 'resource'].map((name) => `x-ratelimit-${name}`)
const LIMITS: RateLimitSettings = { core: 50, codespaces: 50, graphql: 50, address: 20, store: 'database' }

type Answer = Awaited<ReturnType<TestServer['request']>>

async function start(t: Test, limits: Partial<RateLimitSettings> = {}, options: TestServerOptions = {}) {
  const server = await startTestServer(t, {
    logLevel: 'warn',
    rateLimits: { ...LIMITS, ...limits },
    ...options
  })
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  return { server, mona, repositoryId, token, get: (url: string) => server.request('GET', url, { token }) }
}

const rateHeaders = ({ headers }: Answer) => Object.keys(headers).filter((name) => /^x-ratelimit/.test(name))

/** What an answer tells of its limit, as numbers. */
function standing({ headers }: Answer) {
  const [limit, remaining, reset, used] = HEADERS.slice(0, 4).map((name) => Number(headers[name]))
  return { limit, remaining, reset, used, resource: headers['x-ratelimit-resource'] }
}

function hasUsed(t: Test, answer: Answer, used: number, name: string, limit = 50): void {
  t.match(standing(answer), { limit, used, remaining: limit - used }, name)
}

async function rows({ db }: TestServer) {
  const all = await db.selectFrom('rate_limits').select(['subject', 'resource', 'used']).execute()
  return all.map(({ subject, resource, used }) => `${subject} ${resource} ${used}`).sort()
}

/** Moves the end of every window. */
async function setEnd({ db }: TestServer, end: RawBuilder<Date>): Promise<void> {
  await db.updateTable('rate_limits').set({ resets_at: end }).execute()
}

t.test('without limits nothing is counted, and no answer speaks of them', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const token = await server.createToken(await server.createUser('mona'), { scopes: ['codespace'] })
  for (const [url, credentials] of [
    ['/user', token],
    ['/user', undefined],
    ['/meta', token],
    ['/nothing', token],
    [REPO, token],
    ['/rate_limit', token]
  ] as const) {
    t.same(rateHeaders(await server.request('GET', url, { token: credentials })), [], url)
  }
  t.same(await rows(server), [])
})

t.test('every answer to a token tells where it stands, whatever its status', async (t) => {
  const { server, mona, token } = await start(t)
  const body = await server.seal(USER, token, 'value')
  const stranger = await server.createToken(mona, { scopes: [] })
  await server.request('PATCH', '/repos/mona/web', { token, body: { name: 'site' } })
  const send = async (status: number, method: 'GET' | 'HEAD' | 'PUT' | 'DELETE', url: string, rest = {}) => {
    const answer = await server.request(method, url, { token, ...rest })
    t.equal(answer.statusCode, status, `${method} ${url}`)
    t.strictSame(rateHeaders(answer).sort(), [...HEADERS].sort(), `${method} ${url}: ${status}`)
    return answer
  }
  const before = standing(await send(200, 'GET', USER))
  t.match(before, { limit: 50, resource: 'codespaces' })
  t.ok(Math.abs(before.reset! - Date.now() / 1000 - 3600) < 30)

  let { used } = before
  const attempts = [
    [201, 'PUT', `${USER}/A`, { body }],
    [204, 'PUT', `${USER}/A`, { body }],
    [200, 'GET', `${USER}/A`],
    [200, 'HEAD', `${USER}/A`],
    [301, 'GET', REPO],
    [400, 'PUT', `${USER}/A`, { body: '{' }],
    [404, 'GET', `${USER}/NOTHING`],
    [404, 'GET', '/repos/mona/nothing/codespaces/secrets'],
    [412, 'PUT', `${USER}/A`, { body, headers: { 'if-match': '"x"' } }],
    [422, 'PUT', `${USER}/A`, { body: { ...body, key_id: '1' } }],
    [204, 'DELETE', `${USER}/A`]
  ] as const
  for (const [status, method, url, rest] of attempts) {
    const answer = await send(status, method, url, rest)
    used! += 1
    t.match(standing(answer), { used, remaining: 50 - used!, reset: before.reset }, `${method} ${url}`)
  }
  const forbidden = await send(403, 'GET', USER, { token: stranger })
  hasUsed(t, forbidden, 1, 'another token has a count of its own')
  t.equal(forbidden.json().message, 'Must have admin rights to Repository.')
})

t.test('an answer that the client had already does not count', async (t) => {
  const { server, token } = await start(t, { core: 2 })
  const first = await server.request('GET', '/user', { token })
  hasUsed(t, first, 1, 'the first', 2)
  const headers = { 'if-none-match': String(first.headers.etag) }
  for (let index = 0; index < 5; index += 1) {
    const method = index % 2 ? 'HEAD' : 'GET'
    const unchanged = await server.request(method, '/user', { token, headers })
    t.equal(unchanged.statusCode, 304)
    hasUsed(t, unchanged, 1, `unchanged ${index}`, 2)
    t.equal(standing(unchanged).reset, standing(first).reset)
  }
  hasUsed(
    t,
    await server.request('GET', '/user', { token, headers: { 'if-none-match': '"x"' } }),
    2,
    'new',
    2
  )
  const refused = await server.request('GET', '/user', { token, headers })
  t.equal(refused.statusCode, 403, 'over the limit nothing is looked up')

  const open = await server.request('GET', '/meta')
  const again = await server.request('GET', '/meta', {
    headers: { 'if-none-match': String(open.headers.etag) }
  })
  t.equal(again.statusCode, 304)
  hasUsed(t, again, 2, 'without a token it counts', 20)
})

t.test('an answer stands, and is counted, where it cannot be given back', async (t) => {
  const { server, token } = await start(t)
  await sql`create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$`.execute(
    server.db
  )
  await sql`create trigger refuse before update on rate_limits for each row
    when (new.used < old.used) execute function refuse()`.execute(server.db)
  const { headers } = await server.request('GET', '/user', { token })
  const unchanged = await server.request('GET', '/user', {
    token,
    headers: { 'if-none-match': String(headers.etag) }
  })
  t.equal(unchanged.statusCode, 304)
  hasUsed(t, unchanged, 2, 'as it is')
  hasUsed(t, await server.request('GET', '/user', { token }), 3, 'the next')
  t.equal(server.log.filter((line) => line.includes('a 304 was counted')).length, 1)
})

t.test('over the limit a request is refused in GitHub’s form, and does nothing', async (t) => {
  const { server, token, get } = await start(t, { codespaces: 2 })
  const body = await server.seal(USER, token, 'value')
  t.equal((await get(USER)).statusCode, 200)
  for (const [name, method] of [
    ['asked', 'PUT'],
    ['from memory', 'PUT'],
    ['a read', 'GET']
  ] as const) {
    const refused = await server.request(method, `${USER}/A`, { token, body })
    t.equal(refused.statusCode, 403, name)
    const { reset, ...rest } = standing(refused)
    t.strictSame(rest, { limit: 2, remaining: 0, used: 2, resource: 'codespaces' }, name)
    t.equal(refused.headers['content-type'], 'application/json; charset=utf-8')
    t.same(schemaValidator('basic-error')(refused.json()), [])
    const until = new Date(reset! * 1000).toISOString().replace('.000', '')
    const tokenId = /token ID (\d+):/.exec(refused.json().message)?.[1]
    t.strictSame(refused.json(), {
      message: `API rate limit exceeded for token ID ${tokenId}: 2 requests an hour (codespaces). It resets at ${until}.`,
      documentation_url: 'https://docs.github.com/rest/overview/rate-limits-for-the-rest-api',
      status: '403'
    })
    t.notMatch(refused.json().message, /secondary/i, 'which clients would take for another kind of limit')
    const seconds = Number(refused.headers['retry-after'])
    t.ok(Math.abs(seconds - (reset! - Date.now() / 1000)) < 30, `retry-after: ${seconds}`)
  }
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [], 'nothing was written')
  t.equal((await get('/user')).statusCode, 200, 'other resources are not concerned')
  const { body: metrics } = await server.request('GET', '/metrics')
  t.match(metrics, /^coffer_rate_limited_requests_total\{by="token"\} 3$/m)
})

t.test('resources are counted apart', async (t) => {
  const { server, repositoryId, token, get } = await start(t, { core: 40, codespaces: 30 })
  const counted: [string, string, number][] = [
    ['/user', 'core', 40],
    ['/repos/mona/web', 'core', 40],
    ['/api/v3/user', 'core', 40],
    ['/meta', 'core', 40],
    [USER, 'codespaces', 30],
    [`${USER}/public-key`, 'codespaces', 30],
    [`/api/v3${REPO}`, 'codespaces', 30],
    [`/repositories/${repositoryId}/codespaces/secrets`, 'codespaces', 30]
  ]
  const used: Record<string, number> = { core: 0, codespaces: 0 }
  for (const [url, resource, limit] of counted) {
    used[resource]! += 1
    t.match(standing(await get(url)), { resource, limit, used: used[resource] }, url)
  }
  t.same(
    (await rows(server)).map((row) => row.replace(/^token \d+ /, '')),
    ['codespaces 4', 'core 4']
  )
  t.equal((await server.request('GET', '/user', { token })).statusCode, 200)
})

t.test('without a valid token the address is counted, and never stands in the way of one', async (t) => {
  const { server, token } = await start(t, { address: 5 })
  const ask = (url: string, credentials?: string, remoteAddress = '192.0.2.1') =>
    server.app.inject({
      url,
      remoteAddress,
      headers: { ...(credentials && { authorization: `Bearer ${credentials}` }) }
    })
  const asked = [
    ['/user', undefined, 401],
    ['/user', makeToken('classic'), 401],
    ['/meta', undefined, 200],
    ['/meta', makeToken('classic'), 200],
    ['/nothing', undefined, 404]
  ] as const
  for (const [index, [url, credentials, status]] of asked.entries()) {
    const answer = await ask(url, credentials)
    t.equal(answer.statusCode, status, url)
    t.match(standing(answer), { limit: 5, used: index + 1, remaining: 4 - index, resource: 'core' }, url)
  }
  for (const url of ['/user', '/meta', '/nothing', '/user/', REPO]) {
    const refused = await ask(url)
    t.equal(refused.statusCode, 403, url)
    t.match(standing(refused), { limit: 5, used: 5, remaining: 0 })
    t.match(refused.json().message, /^API rate limit exceeded for your address, without a valid token: 5 /)
    t.notMatch(refused.body, '192.0.2.1')
  }
  for (const url of ['/user', '/meta', '/nothing', '/user/']) {
    const answer = await ask(url, token)
    t.not(answer.statusCode, 403, url)
    t.equal(standing(answer).limit, 50, `${url}: with a token that is valid`)
  }
  t.equal((await ask('/user', undefined, '192.0.2.2')).statusCode, 401, 'another address')
  const { body: metrics } = await server.request('GET', '/metrics')
  t.match(metrics, /^coffer_rate_limited_requests_total\{by="address"\} 5$/m)
})

t.test('guessing is a failed login wherever a token would show, and costs no second count', async (t) => {
  const { server } = await start(t, { address: 1000 })
  const guess = (url: string) => server.request('GET', url, { token: makeToken('classic') })
  const statuses = { '/meta': 200, '/nothing': 404, '/user': 401 }
  for (let index = 0; index < 10; index += 1) {
    for (const [url, status] of Object.entries(statuses)) t.equal((await guess(url)).statusCode, status)
  }
  for (const url of Object.keys(statuses)) {
    const refused = await guess(url)
    t.equal(refused.statusCode, 403, url)
    t.match(refused.json().message, /login attempts exceeded/)
    t.same(rateHeaders(refused), [])
  }
  t.same(await rows(server), ['address 127.0.0.1 core 30', 'address 127.0.0.1 failed-logins 30'])
})

t.test(
  'addresses are those that trusted proxies tell, networks of 64 bits, or the unix socket',
  async (t) => {
    const { server } = await start(t, {}, { trustedProxies: ['10.0.0.0/8'] })
    const ask = (remoteAddress: string, forwarded?: string) =>
      server.app.inject({
        url: '/meta',
        remoteAddress,
        headers: { ...(forwarded && { 'x-forwarded-for': forwarded }) }
      })
    await ask('192.0.2.1')
    await ask('10.0.0.1', '192.0.2.1')
    await ask('192.0.2.1', '198.51.100.7')
    await ask('2001:db8:0:1::1')
    await ask('10.0.0.1', '2001:db8:0:1:ffff::2')
    await ask('10.0.0.1', `${'x'.repeat(500)}`)

    const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-limits-'))
    t.teardown(() => rm(folder, { recursive: true }))
    const socket = path.join(folder, 's')
    const listener = createServer((request, response) => server.app.routing(request, response))
    await new Promise<void>((resolve) => listener.listen(socket, resolve))
    t.teardown(() => void listener.close())
    const status = await new Promise((resolve, reject) => {
      httpRequest({ socketPath: socket, path: '/meta', agent: false }, (response) => {
        response.resume().once('end', () => resolve(response.statusCode))
      })
        .once('error', reject)
        .end()
    })
    t.equal(status, 200)
    t.same(await rows(server), [
      'address 192.0.2.1 core 3',
      'address 2001:db8:0:1::/64 core 2',
      'address local core 1',
      'address unknown core 1'
    ])
  }
)

t.test('what serves the operator is not limited, nor a preflight', async (t) => {
  const { server } = await start(t, { address: 1 })
  await server.request('GET', '/meta')
  t.equal((await server.request('GET', '/meta')).statusCode, 403)
  for (const url of ['/healthz', '/readyz', '/metrics', '/docs/json']) {
    const answer = await server.request('GET', url)
    t.equal(answer.statusCode, 200, url)
    t.same(rateHeaders(answer), [], url)
  }
  t.equal((await server.request('OPTIONS', '/user')).statusCode, 204)
})

t.test('two servers on one database allow exactly as many as the limit says', async (t) => {
  const { server, token } = await start(t, { core: 40 })
  const second = await startSecondNode(t, server, { rateLimits: { ...LIMITS, core: 40 } })
  const nodes = [server.app, second]
  const headers = { authorization: `Bearer ${token}` }
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, index) => nodes[index % 2]!.inject({ url: '/user', headers }))
  )
  const allowed = answers.filter(({ statusCode }) => statusCode === 200)
  t.same(
    allowed.map((answer) => standing(answer).used).sort((a, b) => a! - b!),
    Array.from({ length: 40 }, (_, index) => index + 1),
    'each of the forty was counted once'
  )
  const refused = answers.filter(({ statusCode }) => statusCode === 403)
  t.equal(refused.length, 60)
  for (const answer of refused) t.match(standing(answer), { used: 40, remaining: 0 })
  t.equal(new Set(answers.map((answer) => standing(answer).reset)).size, 1, 'and of one window')
})

t.test('two servers count parallel answers of 304 for nothing', async (t) => {
  const { server, token } = await start(t, { core: 60 })
  const second = await startSecondNode(t, server, { rateLimits: { ...LIMITS, core: 60 } })
  const nodes = [server.app, second]
  const etag = String((await server.request('GET', '/user', { token })).headers.etag)
  const headers = { authorization: `Bearer ${token}`, 'if-none-match': etag }
  const url = '/user'
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, index) => nodes[index % 2]!.inject({ url, headers }))
  )
  t.same(
    answers.map(({ statusCode }) => statusCode),
    Array(50).fill(304)
  )
  hasUsed(t, await server.request('GET', '/user', { token }), 2, 'one before, one after', 60)
})

t.test('a new window begins with the first request after the old one', async (t) => {
  const { server, get } = await start(t, { core: 2 })
  hasUsed(t, await get('/user'), 1, 'first', 2)
  hasUsed(t, await get('/user'), 2, 'second', 2)
  await setEnd(server, sql`now()`)
  const fresh = await get('/user')
  hasUsed(t, fresh, 1, 'after it', 2)
  t.ok(standing(fresh).reset! > Date.now() / 1000 + 3500)
  hasUsed(t, await get('/user'), 2, 'the last', 2)
  t.equal((await get('/user')).statusCode, 403)
})

t.test('who waits as long as retry-after says is let in', async (t) => {
  const { server, get } = await start(t, { core: 1 })
  t.equal((await get('/user')).statusCode, 200)
  await setEnd(server, sql`date_trunc('second', now()) + interval '1 second'`)
  const refused = await get('/user')
  t.equal(refused.statusCode, 403)
  t.equal(refused.headers['retry-after'], '1')
  const wait = standing(refused).reset! * 1000 - Date.now()
  t.ok(wait <= 1000)
  await new Promise((resolve) => setTimeout(resolve, wait + 20))
  t.equal((await get('/user')).statusCode, 200)
})

t.test('/rate_limit shows all, counts nothing, and answers over the limit, too', async (t) => {
  const { server, token, get } = await start(t, { core: 2, codespaces: 30, graphql: 40 })
  const empty = await get('/rate_limit')
  t.equal(empty.statusCode, 200)
  t.same(validator('rate-limit/get', 200)(empty.json()), [])
  t.same(schemaValidator('rate-limit-overview')(empty.json()), [])
  t.match(empty.json().rate, { limit: 2, used: 0, remaining: 2 })
  t.ok(Math.abs(empty.json().rate.reset - Date.now() / 1000 - 3600) < 30)
  t.same(await rows(server), [])

  await get(USER)
  for (let index = 0; index < 3; index += 1) await get('/user')
  for (let index = 0; index < 3; index += 1) {
    const answer = await get('/api/v3/rate_limit')
    t.equal(answer.statusCode, 200)
    t.match(answer.json(), {
      resources: {
        core: { limit: 2, used: 2, remaining: 0 },
        codespaces: { limit: 30, used: 1, remaining: 29 },
        graphql: { limit: 40, used: 0, remaining: 40 },
        search: { limit: 0, used: 0, remaining: 0 }
      },
      rate: { limit: 2, used: 2, remaining: 0 }
    })
    t.match(standing(answer), { limit: 2, used: 2, remaining: 0, resource: 'core' })
    t.equal(standing(answer).reset, answer.json().resources.core.reset)
  }
  const newer = await server.request('GET', '/rate_limit', {
    token,
    headers: { 'x-github-api-version': '2026-03-10' }
  })
  t.equal(newer.json().rate, undefined, 'gone in the newer version')
  t.equal(newer.json().resources.core.used, 2)
  t.equal((await server.request('GET', '/rate_limit')).statusCode, 401)
})

t.test('each token has a count of its own, fine-grained ones too', async (t) => {
  const { server, mona } = await start(t, { core: 1 })
  for (const request of [
    { scopes: ['codespace'] },
    { permissions: { codespaces_secrets: 'write' } }
  ] as const) {
    const token = await server.createToken(mona, { ...request } as Parameters<typeof server.createToken>[1])
    t.equal((await server.request('GET', '/user', { token })).statusCode, 200)
    t.equal((await server.request('GET', '/user', { token })).statusCode, 403)
  }
})

t.test('kept in memory, the rules are the same, and the database is not written to', async (t) => {
  const { server, token, get } = await start(t, { core: 30, store: 'memory' })
  const answers = await Promise.all(Array.from({ length: 50 }, () => get('/user')))
  t.equal(answers.filter(({ statusCode }) => statusCode === 200).length, 30)
  t.equal(answers.filter(({ statusCode }) => statusCode === 403).length, 20)
  const first = await get(USER)
  const headers = { 'if-none-match': String(first.headers.etag) }
  hasUsed(t, await server.request('GET', USER, { token, headers }), 1, '304')
  t.match((await get('/rate_limit')).json().resources, { core: { used: 30 }, codespaces: { used: 1 } })
  t.same(await rows(server), [])
})
