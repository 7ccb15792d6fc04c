import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { hashToken, makeToken } from '../../../src/auth/token.ts'
import { startTestServer, type TestServer } from '../../helper.ts'
import { isRefusal, type Refusal, refuses } from './refusal.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const BAD: Refusal = { status: 401, message: 'Bad credentials' }
const NONE: Refusal = { status: 401, message: 'Requires authentication' }

async function start(t: Test) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  const body = await server.seal(USER, token, 'value')
  const attempts = [
    { method: 'GET', url: '/user' },
    { method: 'GET', url: USER },
    { method: 'PUT', url: `${USER}/NEW`, body },
    { method: 'DELETE', url: `${USER}/NEW` },
    { method: 'GET', url: REPO },
    { method: 'PUT', url: `${REPO}/NEW`, body },
    { method: 'PUT', url: `${REPO}/NEW`, body: 'no JSON: credentials come first' },
    { method: 'POST', url: '/user/repos', body: { name: 'fresh' } },
    { method: 'POST', url: '/admin/users', body: { login: 'fresh' } }
  ] as const
  return { server, mona, token, attempts }
}

t.test('without credentials nothing is done', async (t) => {
  const { server, token, attempts } = await start(t)
  for (const attempt of attempts) {
    await refuses(t, server, attempt, NONE, `${attempt.method} ${attempt.url}, no header`)
    const empty = { ...attempt, headers: { authorization: '' } }
    await refuses(t, server, empty, NONE, `${attempt.method} ${attempt.url}, an empty header`)
    const inQuery = `${attempt.url}?access_token=${token}&token=${token}&authorization=Bearer%20${token}`
    await refuses(
      t,
      server,
      { ...attempt, url: inQuery, secret: [token] },
      NONE,
      `${attempt.method} ${attempt.url}, in the query`
    )
    const elsewhere = {
      cookie: `token=${token}`,
      'x-api-key': token,
      'private-token': token,
      'proxy-authorization': `Bearer ${token}`
    }
    await refuses(
      t,
      server,
      { ...attempt, headers: elsewhere, secret: [token] },
      NONE,
      `${attempt.method} ${attempt.url}, elsewhere`
    )
  }
})

const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`

t.test('wrong credentials are refused, and never shown', async (t) => {
  let current = await start(t)
  const { token } = current
  const flipped = token.slice(0, -10) + (token.at(-10) === 'A' ? 'B' : 'A') + token.slice(-9)
  const wrong = [
    `Bearer ${makeToken('classic')}`,
    `token ${makeToken('fine-grained')}`,
    `Bearer ${flipped}`,
    `Bearer ${token.slice(0, -1)}`,
    `Bearer ${token}A`,
    `Bearer ${token.toUpperCase()}`,
    `Bearer ${token} ${token}`,
    `Bearer ${token},${token}`,
    `Bearer "${token}"`,
    `Bearer\t${token}`,
    'Bearer',
    'Bearer ',
    'token ',
    token,
    `Digest ${token}`,
    `${token} Bearer`,
    basic(`mona:${flipped}`),
    basic(`${flipped}:`),
    basic('mona:password-MARKER'),
    basic(''),
    basic(':'),
    'Basic MARKER%%%',
    `Bearer ${'M'.repeat(255)}`,
    `Bearer ${'M'.repeat(8000)}`,
    'Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJtb25hIn0.',
    "Bearer ' OR 1=1 --",
    'Bearer \u00fc\u00fc\u00fc'
  ]
  for (const [number, authorization] of wrong.entries()) {
    // After 30 failures from one address the answer is another one.
    if (number % 8 === 7) current = await start(t)
    const { server, attempts } = current
    const secret = [token, 'MARKER', authorization.slice(-20)].filter((text) => text.trim().length >= 6)
    for (const attempt of number === 0 ? attempts : [attempts[0], attempts[2]]) {
      const name = `${attempt.method} ${attempt.url}, ${authorization.slice(0, 30)}`
      await refuses(t, server, { ...attempt, headers: { authorization }, secret }, BAD, name)
    }
  }
})

/** Everything that a valid token is allowed is refused once it became invalid. */
async function isVoidAfter(
  t: Test,
  change: (server: TestServer, token: string) => Promise<unknown>
): Promise<void> {
  const { server, token, attempts } = await start(t)
  t.equal((await server.request('GET', USER, { token })).statusCode, 200, 'valid before')
  await change(server, token)
  await sleep(1050)
  for (const attempt of attempts) {
    await refuses(t, server, { ...attempt, token, secret: [token] }, BAD, `${attempt.method} ${attempt.url}`)
  }
}

t.test('an expired token is refused', (t) =>
  isVoidAfter(t, (server, token) =>
    server.db
      .updateTable('tokens')
      .set({ expires_at: sql<Date>`now() - interval '1 second'` })
      .where('hash', '=', hashToken(token))
      .execute()
  )
)

t.test('a token that expires while it is cached is refused at that moment', async (t) => {
  const { server, mona } = await start(t)
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const soon = new Date(Date.now() + 300)
  await server.db
    .updateTable('tokens')
    .set({ expires_at: soon })
    .where('hash', '=', hashToken(token))
    .execute()
  t.equal((await server.request('GET', USER, { token })).statusCode, 200)
  await sleep(350)
  isRefusal(t, await server.request('GET', USER, { token }), BAD, 'within the second of the cache')
})

t.test('a revoked token is refused', (t) =>
  isVoidAfter(t, async (server) => {
    const url = '/admin/users/mona/authorizations'
    const { statusCode } = await server.request('DELETE', url, { token: server.admin.token })
    t.equal(statusCode, 204)
  })
)

t.test('a token of an older epoch of the instance is refused', (t) =>
  isVoidAfter(t, (server) => server.db.updateTable('instance').set({ epoch: 2 }).execute())
)

t.test(
  'too many failures from an address are told to wait, and block no valid token from there',
  async (t) => {
    const { server, token } = await start(t)
    for (let n = 0; n < 30; n++) {
      isRefusal(
        t,
        await server.request('GET', '/user', { token: makeToken('classic') }),
        BAD,
        `failure ${n + 1}`
      )
    }
    const refused = await server.request('GET', '/user', { token: makeToken('classic') })
    isRefusal(
      t,
      refused,
      { status: 403, message: 'Maximum number of login attempts exceeded. Please try again later.' },
      'the 31st'
    )
    const seconds = Number(refused.headers['retry-after'])
    t.ok(seconds >= 1 && seconds <= 60, `retry-after: ${seconds}`)
    t.equal((await server.request('GET', '/user', { token })).statusCode, 200)
    isRefusal(t, await server.request('GET', '/user'), NONE, 'and none at all is told so')
  }
)
