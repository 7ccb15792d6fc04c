import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { sql } from 'kysely'
import t from 'tap'
import { FailedLogins } from '../../src/auth/failed-logins.ts'
import { makeToken } from '../../src/auth/token.ts'
import { DatabaseWindows } from '../../src/auth/windows.ts'
import { openDatabase } from '../../src/store/database.ts'
import { createTestDatabase, startSecondNode, startTestServer, type TestServer } from '../helper.ts'

const ALLOWED = 30

function ask(server: TestServer, token: string | undefined, address: string, forwarded?: string) {
  return server.app.inject({
    method: 'GET',
    url: '/user',
    remoteAddress: address,
    headers: {
      ...(token && { authorization: `token ${token}` }),
      ...(forwarded && { 'x-forwarded-for': forwarded })
    }
  })
}

/** The statuses of so many wrong tokens from an address. */
async function guess(
  server: TestServer,
  count: number,
  address: string,
  forwarded?: (index: number) => string
) {
  const statuses: number[] = []
  for (let index = 0; index < count; index += 1) {
    const response = await ask(server, makeToken('classic'), address, forwarded?.(index))
    statuses.push(response.statusCode)
  }
  return statuses
}

const times = (count: number, status: number) => Array<number>(count).fill(status)

t.test('too many failed logins from an address are answered with 403 and retry-after', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  t.same(await guess(server, ALLOWED, '10.0.0.1'), times(ALLOWED, 401))
  const response = await ask(server, 'garbage', '10.0.0.1')
  t.equal(response.statusCode, 403)
  t.same(response.json(), {
    message: 'Maximum number of login attempts exceeded. Please try again later.',
    documentation_url: 'https://docs.github.com/rest/users/users#get-the-authenticated-user',
    status: '403'
  })
  const seconds = Number(response.headers['retry-after'])
  t.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60, `retry-after: ${seconds}`)
  t.equal(response.headers['x-oauth-scopes'], undefined)
})

t.test('guessing from an address never blocks a valid token from there', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const [used, fresh] = await Promise.all(
    [0, 1].map(() => server.createToken(mona, { scopes: ['codespace'] }))
  )
  t.equal((await ask(server, used, '10.0.0.1')).statusCode, 200)
  await guess(server, ALLOWED + 10, '10.0.0.1')
  t.equal((await ask(server, makeToken('classic'), '10.0.0.1')).statusCode, 403)
  t.equal((await ask(server, used, '10.0.0.1')).statusCode, 200)
  t.equal((await ask(server, fresh, '10.0.0.1')).statusCode, 200, 'one that was never seen before too')
  t.equal((await ask(server, undefined, '10.0.0.1')).statusCode, 401, 'no credentials are no failed login')
  t.equal((await ask(server, makeToken('classic'), '10.0.0.1')).statusCode, 403, 'success resets nothing')
})

t.test('requests without credentials are not counted', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  for (let index = 0; index < ALLOWED + 5; index += 1) {
    t.equal((await ask(server, undefined, '10.0.0.1')).statusCode, 401)
  }
  t.equal((await ask(server, makeToken('classic'), '10.0.0.1')).statusCode, 401)
})

t.test('each address has its own count', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  t.equal((await guess(server, ALLOWED + 1, '10.0.0.1')).at(-1), 403)
  t.same(await guess(server, 2, '10.0.0.2'), [401, 401])
  t.equal((await ask(server, 'garbage', '::1')).statusCode, 401)
})

t.test('X-Forwarded-For counts for nothing unless the proxy is trusted', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const statuses = await guess(server, ALLOWED + 2, '10.0.0.1', (index) => `192.0.2.${index}`)
  t.same(statuses, [...times(ALLOWED, 401), 403, 403], 'one address, whatever it claims')
})

t.test('behind a trusted proxy the address is the last one that it did not add itself', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn', trustedProxies: ['10.0.0.0/8'] })
  const forged = await guess(server, ALLOWED + 1, '10.0.0.1', (index) => `198.51.100.${index}, 192.0.2.1`)
  t.same(forged, [...times(ALLOWED, 401), 403], 'what a client puts before is not believed')
  t.equal((await ask(server, 'garbage', '10.0.0.1', '192.0.2.2')).statusCode, 401, 'another client')
  t.equal((await ask(server, 'garbage', '10.9.9.9', '192.0.2.1')).statusCode, 403, 'by another trusted proxy')
  t.equal(
    (await ask(server, 'garbage', '203.0.113.1', '192.0.2.1')).statusCode,
    401,
    'by one that is not trusted'
  )
})

t.test('the count of an address begins anew when its window is over', async (t) => {
  const failed = new FailedLogins(undefined, 40)
  for (let index = 0; index < ALLOWED; index += 1) t.equal(await failed.record('10.0.0.1'), undefined)
  t.equal(await failed.record('10.0.0.1'), 1)
  t.equal(await failed.record('10.0.0.2'), undefined, 'another address')
  await sleep(60)
  t.equal(await failed.record('10.0.0.1'), undefined)
})

t.test('an IPv6 network of 64 bits counts as one address', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const statuses: number[] = []
  for (let index = 0; index < ALLOWED + 1; index += 1) {
    statuses.push((await ask(server, makeToken('classic'), `2001:db8:1:2::${index.toString(16)}`)).statusCode)
  }
  t.same(statuses, [...times(ALLOWED, 401), 403])
  t.equal((await ask(server, 'garbage', '2001:db8:1:3::1')).statusCode, 401, 'the network beside it')
})

t.test('two servers share the count, and neither locks out a valid token', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const second = await startSecondNode(t, server)
  const nodes = [server.app, second]
  const send = async (app: FastifyInstance, credentials: string, remoteAddress = '10.0.0.1') =>
    await app.inject({ url: '/user', remoteAddress, headers: { authorization: `token ${credentials}` } })

  const answers = await Promise.all(
    Array.from({ length: ALLOWED }, (_, index) => send(nodes[index % 2]!, makeToken('classic')))
  )
  t.same(
    answers.map(({ statusCode }) => statusCode),
    times(ALLOWED, 401)
  )
  for (const app of nodes) {
    const refused = await send(app, 'garbage')
    t.equal(refused.statusCode, 403)
    t.match(refused.json().message, /login attempts exceeded/)
    const seconds = Number(refused.headers['retry-after'])
    t.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 61, `retry-after: ${seconds}`)
    t.equal((await send(app, token)).statusCode, 200, 'a valid token')
    t.equal((await send(app, 'garbage', '10.0.0.2')).statusCode, 401, 'another address')
  }
})

const sharedRows = (db: TestServer['db']) =>
  sql<{ subject: string; used: number; xmin: string }>`
    select subject, used, xmin::text from rate_limits where resource = 'failed-logins'`
    .execute(db)
    .then(({ rows }) => rows)

t.test('who is over the limit writes no more', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  await guess(server, ALLOWED + 1, '10.0.0.1')
  const before = await sharedRows(server.db)
  t.match(before, [{ subject: 'address 10.0.0.1', used: ALLOWED }])
  t.same(await guess(server, 20, '10.0.0.1'), times(20, 403))
  t.same(await sharedRows(server.db), before)
})

t.test('a flood from many addresses is shared up to a bound, and counted here all the same', async (t) => {
  const { db } = await createTestDatabase(t)
  const failed = new FailedLogins(new DatabaseWindows(db))
  const began = Math.floor(performance.now() / 1000)
  const addresses = Array.from({ length: 400 }, (_, index) => `10.1.${index >> 8}.${index & 255}`)
  await Promise.all(addresses.map((address) => failed.record(address)))
  const seconds = Math.floor(performance.now() / 1000) - began + 1
  const shared = (await sharedRows(db)).length
  t.ok(shared >= 100 && shared <= 100 * seconds, `${shared} in ${seconds} s`)
  const last = addresses.at(-1)!
  for (let index = 1; index < ALLOWED; index += 1) t.equal(await failed.record(last), undefined)
  t.type(await failed.record(last), 'number')
})

t.test('without its database a server counts for itself', async (t) => {
  const db = openDatabase({ connection: 'postgres://127.0.0.1:1/none', poolSize: 1, prepare: true })
  t.teardown(() => db.destroy())
  const failed = new FailedLogins(new DatabaseWindows(db))
  for (let index = 0; index < ALLOWED; index += 1) t.equal(await failed.record('10.0.0.1'), undefined)
  t.type(await failed.record('10.0.0.1'), 'number')
})
