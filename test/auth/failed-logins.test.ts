import t from 'tap'
import { FailedLogins } from '../../src/auth/failed-logins.ts'
import { makeToken } from '../../src/auth/token.ts'
import { startTestServer, type TestServer } from '../helper.ts'

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

t.test('the count begins anew after a minute', async (t) => {
  const failed = new FailedLogins()
  for (let index = 0; index < ALLOWED; index += 1) t.equal(failed.record('a'), undefined)
  const seconds = failed.record('a')
  t.ok(seconds !== undefined && seconds > 55 && seconds <= 60)
  t.equal(failed.record('b'), undefined)
})
