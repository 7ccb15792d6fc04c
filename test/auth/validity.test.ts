import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t from 'tap'
import { Authenticator } from '../../src/auth/authenticate.ts'
import { FailedLogins } from '../../src/auth/failed-logins.ts'
import { hashToken } from '../../src/auth/token.ts'
import { storeFirstToken } from '../../src/directory/tokens.ts'
import { SYSTEM, startTestServer, type TestServer } from '../helper.ts'

const ADDRESS = '127.0.0.1'

function makeAuthenticator({ db }: TestServer) {
  const events = { failures: 0, touchErrors: 0 }
  const authenticator = new Authenticator(db, new FailedLogins(), {
    onFailure: () => {
      events.failures += 1
    },
    onTouchError: () => {
      events.touchErrors += 1
    }
  })
  return { authenticator, events }
}

async function withToken(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const status = async (path = '/user') => (await server.request('GET', path, { token })).statusCode
  return { server, mona, token, status }
}

t.test('an expired token is refused at each use, also while it is cached', async (t) => {
  const { server, token, status } = await withToken(t)
  const body = await server.seal('/user/codespaces/secrets', token, 'value')
  const expiresAt = Date.now() + 1500
  await server.db
    .updateTable('tokens')
    .set({ expires_at: new Date(expiresAt) })
    .where('hash', '=', hashToken(token))
    .execute()
  server.app.authenticator.forget([hashToken(token).toString('base64')])
  // asked all the time, it is cached when it expires
  while (Date.now() < expiresAt) {
    const answer = await status()
    if (Date.now() < expiresAt) t.equal(answer, 200)
    await sleep(20)
  }
  t.equal(await status(), 401)
  const put = await server.request('PUT', '/user/codespaces/secrets/A', { token, body })
  t.equal(put.statusCode, 401)
  t.same(await server.db.selectFrom('secrets').select('id').execute(), [])
  server.app.authenticator.forget([hashToken(token).toString('base64')])
  t.equal(await status(), 401, 'no longer cached')
})

t.test('a token without an end and one that ends later are valid', async (t) => {
  const { server, token, status } = await withToken(t)
  t.equal(await status(), 200)
  await server.db
    .updateTable('tokens')
    .set({ expires_at: null })
    .where('hash', '=', hashToken(token))
    .execute()
  server.app.authenticator.forget([hashToken(token).toString('base64')])
  const response = await server.request('GET', '/user', { token })
  t.equal(response.statusCode, 200)
  t.equal(response.headers['github-authentication-token-expiration'], undefined)
})

t.test('a token of another epoch of the instance is void', async (t) => {
  const { server, token, status } = await withToken(t)
  t.equal(await status(), 200)
  await server.db.updateTable('instance').set({ epoch: sql<number>`epoch + 1` }).execute()
  server.app.authenticator.forget([hashToken(token).toString('base64')])
  t.equal(await status(), 401)
})

t.test('a revoked token is refused within a second, whoever keeps asking', async (t) => {
  const { server, token, status } = await withToken(t)
  t.equal(await status(), 200)
  await server.db.deleteFrom('tokens').where('hash', '=', hashToken(token)).execute()
  const revokedAt = performance.now()
  let refusedAfter: number | undefined
  while (refusedAfter === undefined && performance.now() - revokedAt < 20_000) {
    const askedAfter = performance.now() - revokedAt
    if ((await status()) === 401) refusedAfter = askedAfter
    else t.ok(askedAfter < 1000, `still valid when asked after ${Math.round(askedAfter)} ms`)
    await sleep(50)
  }
  t.ok(refusedAfter !== undefined, 'asking again does not prolong it')
})

t.test('a token that is forgotten is looked up again at once', async (t) => {
  const { server, token } = await withToken(t)
  const { authenticator, events } = makeAuthenticator(server)
  const header = `Bearer ${token}`
  t.equal((await authenticator.authenticate(header, ADDRESS)).login, 'mona')
  await server.db.deleteFrom('tokens').where('hash', '=', hashToken(token)).execute()
  t.equal((await authenticator.authenticate(header, ADDRESS)).login, 'mona', 'cached')
  authenticator.forget(['not-a-hash', hashToken('another').toString('base64')])
  t.equal((await authenticator.authenticate(header, ADDRESS)).login, 'mona', "another's hash changes nothing")
  authenticator.forget([hashToken(token).toString('base64')])
  await t.rejects(authenticator.authenticate(header, ADDRESS), { code: 'unauthenticated' })
  t.equal(events.failures, 1)
})

t.test('what cannot be a token is refused without asking the database', async (t) => {
  const { server } = await withToken(t)
  const { authenticator, events } = makeAuthenticator(server)
  const unreachable = new Authenticator(
    new Proxy(server.db, {
      get() {
        throw new Error('asked')
      }
    }),
    new FailedLogins(),
    { onFailure: () => {}, onTouchError: () => {} }
  )
  for (const token of ['garbage', `coffer_pat_${'0'.repeat(49)}`, 'x'.repeat(256), 'a.b.c']) {
    for (const one of [authenticator, unreachable]) {
      await t.rejects(one.authenticate(`Bearer ${token}`, ADDRESS), { code: 'unauthenticated' })
    }
  }
  t.equal(events.failures, 4)
  await t.rejects(unreachable.authenticate(undefined, ADDRESS), { code: 'unauthenticated', presented: false })
  await t.rejects(unreachable.authenticate(`Bearer ${'x'.repeat(32)}`, ADDRESS), { message: 'asked' })
})

t.test("an operator's own token works with every scope, and does not end", async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const boss = await server.createUser('boss', { siteAdmin: true })
  for (const token of [
    randomBytes(16).toString('hex'),
    `${'-_'.repeat(100)}${randomBytes(24).toString('base64url')}`
  ]) {
    const made = await server.db.transaction().execute((tx) => storeFirstToken(tx, SYSTEM, boss, token, 90))
    t.equal(made, undefined)
    const response = await server.request('GET', '/user', { token })
    t.equal(response.statusCode, 200)
    t.equal(response.headers['x-oauth-scopes'], 'admin:org, codespace, read:audit_log, repo, site_admin')
    t.equal(response.headers['github-authentication-token-expiration'], undefined)
  }
})

t.test('the time of last use is recorded coarsely', async (t) => {
  const { server, token, status } = await withToken(t)
  const lastUse = async () => {
    const row = await server.db
      .selectFrom('tokens')
      .select('last_used_at')
      .where('hash', '=', hashToken(token))
      .executeTakeFirstOrThrow()
    return row.last_used_at
  }
  const settled = async (wanted: (time: Date | null) => boolean) => {
    for (let waits = 0; waits < 100 && !wanted(await lastUse()); waits += 1) await sleep(20)
    return await lastUse()
  }
  const useAfresh = async () => {
    server.app.authenticator.forget([hashToken(token).toString('base64')])
    t.equal(await status(), 200)
  }
  t.equal(await lastUse(), null)
  await useAfresh()
  const first = await settled((time) => time !== null)
  t.ok(first && Math.abs(first.getTime() - Date.now()) < 10_000)

  await useAfresh()
  await sleep(200)
  t.same(await lastUse(), first, 'not written again within the hour')

  const past = new Date(Date.now() - 61 * 60_000)
  await server.db
    .updateTable('tokens')
    .set({ last_used_at: past })
    .where('hash', '=', hashToken(token))
    .execute()
  await useAfresh()
  const next = await settled((time) => time!.getTime() > past.getTime())
  t.ok(next && next.getTime() > past.getTime() + 60 * 60_000)
})

t.test('a role that is taken away is gone at the next request, while the token is cached', async (t) => {
  const { server, mona } = await withToken(t)
  const hubot = await server.createUser('hubot')
  const id = await server.createRepository(mona, 'web')
  await server.setRole(mona, 'web', hubot, 'write')
  const token = await server.createToken(hubot, { scopes: ['repo'] })
  const list = async () =>
    (await server.request('GET', '/repos/mona/web/codespaces/secrets', { token })).statusCode
  t.equal(await list(), 200)
  await server.db.deleteFrom('collaborators').where('repository_id', '=', id).execute()
  t.equal(await list(), 404)
})

t.test(
  'who asks with the same token at the same moment shares a lookup, until it is forgotten',
  async (t) => {
    const { server, token } = await withToken(t)
    const { authenticator } = makeAuthenticator(server)
    const key = hashToken(token).toString('base64')
    let lookups = 0
    const asked = server.db.withPlugin({
      transformQuery: ({ node }) => {
        lookups += 1
        return node
      },
      transformResult: async ({ result }) => result
    })
    const counting = makeAuthenticator({ ...server, db: asked } as TestServer).authenticator
    const ask = () => counting.authenticate(`Bearer ${token}`, ADDRESS)
    const together = await Promise.all(Array.from({ length: 20 }, ask))
    t.equal(new Set(together).size, 1)
    t.ok(lookups <= 2, 'one lookup, and one note of its use')

    const before = authenticator.authenticate(`Bearer ${token}`, ADDRESS).catch(() => {})
    await server.db.deleteFrom('tokens').where('hash', '=', hashToken(token)).execute()
    authenticator.forget([key])
    await before
    t.equal(authenticator.recall(`Bearer ${token}`), undefined, 'what was looked up before is not kept')
    await t.rejects(authenticator.authenticate(`Bearer ${token}`, ADDRESS), { code: 'unauthenticated' })
  }
)
