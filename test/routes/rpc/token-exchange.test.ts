import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { makeExchangeToken, makeToken } from '../../../src/auth/token.ts'
import { startSecondNode } from '../../helper.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'

const EXCHANGE = 'IdentityService/ExchangeToken'

async function register(server: OnaServer): Promise<{ runnerId: string; exchangeToken: string }> {
  const { body } = await server.call('RunnerService/CreateRunner', server.owner.token, {
    name: 'Linux',
    provider: 'RUNNER_PROVIDER_LINUX_HOST'
  })
  return { runnerId: body.runner.runnerId, exchangeToken: body.exchangeToken }
}

async function runnerTokens(server: OnaServer) {
  return await server.db.selectFrom('tokens').selectAll().where('runner_id', 'is not', null).execute()
}

t.test('a runner gets its token, by the official client', async (t) => {
  const server = await startOnaServer(t)
  const { runnerId, exchangeToken } = await register(server)
  const url = await server.listen()
  const { accessToken } = await sdk(url, 'none').identity.exchangeToken({ exchangeToken })
  t.match(accessToken, /^coffer_run_[0-9A-Za-z]{49}$/)
  const [token, ...more] = await runnerTokens(server)
  t.strictSame(more, [])
  t.match(token, {
    kind: 'runner',
    account_id: server.acme.id,
    organization_id: server.acme.id,
    scopes: [],
    issued_by_uid: server.owner.account.uid
  })
  t.strictSame(token!.hash, createHash('sha256').update(accessToken!).digest())
  t.equal(Math.round((token!.expires_at!.getTime() - token!.created_at.getTime()) / 1000), 86_400)
  t.strictSame(await server.db.selectFrom('runner_exchange_tokens').select('hash').execute(), [])

  const denied = await server.call('RunnerService/ListRunners', accessToken)
  t.equal(denied.body.code, 'permission_denied', 'it is known, and has no right of a member')
  const { status } = (await server.call('RunnerService/GetRunner', server.owner.token, { runnerId })).body
    .runner
  t.match(status, { phase: 'RUNNER_PHASE_ACTIVE', updatedAt: /Z$/ }, 'it was heard of')

  const record = await server.db
    .selectFrom('audit_events')
    .selectAll()
    .where('action', '=', 'runner.token.exchange')
    .executeTakeFirstOrThrow()
  t.match(record, {
    stream_uid: server.acme.uid,
    actor_kind: 'runner',
    actor_uid: runnerId,
    actor_login: 'Linux',
    token_id: null,
    issued_by_uid: server.owner.account.uid,
    subject_uid: runnerId,
    name: `Linux#${token!.id}`,
    address: '127.0.0.1',
    outcome: 'allowed'
  })
  for (const secret of [exchangeToken, accessToken!]) {
    t.notMatch(server.log.join(''), secret)
    t.notMatch(JSON.stringify(await server.db.selectFrom('audit_events').selectAll().execute()), secret)
  }
})

t.test('what is no exchange token, or no more, is refused alike', async (t) => {
  const server = await startOnaServer(t)
  const { runnerId, exchangeToken } = await register(server)
  const another = async () =>
    (await server.call('RunnerService/CreateRunnerToken', server.owner.token, { runnerId })).body
      .exchangeToken as string
  const refused = async (token: string, comment: string) => {
    const { status, body, headers } = await server.call(EXCHANGE, undefined, { exchangeToken: token })
    t.equal(status, 401, comment)
    t.match(body, { code: 'unauthenticated', message: /^The exchange token is not valid/ })
    t.equal(headers['x-should-retry'], 'false')
    return body
  }
  t.equal((await server.call(EXCHANGE, undefined, { exchangeToken })).status, 200)
  const second = await refused(exchangeToken, 'a second time')
  t.strictSame(await refused(makeExchangeToken(), 'unknown'), second)
  const wrong = `${exchangeToken.slice(0, -1)}${exchangeToken.endsWith('0') ? '1' : '0'}`
  t.strictSame(await refused(wrong, 'a wrong checksum'), second)
  t.strictSame(await refused(server.owner.token, 'a token of a user'), second)
  t.strictSame(await refused(makeToken('runner'), 'a token of a runner'), second)
  t.strictSame(await refused('\u{1f600}', 'nothing of the kind'), second)

  const ended = await another()
  await server.db
    .updateTable('runner_exchange_tokens')
    .set({ expires_at: sql<Date>`now() - interval '1 second'` })
    .execute()
  t.strictSame(await refused(ended, 'ended'), second)
  await another()
  const left = await server.db.selectFrom('runner_exchange_tokens').select('expires_at').execute()
  t.equal(left.length, 1, 'what ended is cleared away')
  t.equal((await runnerTokens(server)).length, 1)

  for (const message of [
    {},
    { exchangeToken: '' },
    { exchangeToken: 7 },
    { exchangeToken: 'x'.repeat(256) }
  ]) {
    t.equal((await server.call(EXCHANGE, undefined, message)).body.code, 'invalid_argument')
  }

  const old = await another()
  await server.db.updateTable('instance').set({ epoch: sql<number>`epoch + 1` }).execute()
  t.strictSame(await refused(old, 'of before a restore'), second)
})

t.test('of many who use one at once, one wins', async (t) => {
  const server = await startOnaServer(t)
  const node = await startSecondNode(t, server)
  for (let round = 0; round < 3; round++) {
    const before = (await runnerTokens(server)).length
    const { exchangeToken } = await register(server)
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        (index % 2 ? node : server.app).inject({
          method: 'POST',
          url: `/api/gitpod.v1.${EXCHANGE}`,
          payload: JSON.stringify({ exchangeToken })
        })
      )
    )
    const statuses = answers.map(({ statusCode }) => statusCode).sort()
    t.strictSame(statuses, [200, ...Array.from({ length: 9 }, () => 401)])
    t.equal((await runnerTokens(server)).length, before + 1)
  }
})

t.test('no token is asked for, and an exchange token is none', async (t) => {
  const server = await startOnaServer(t)
  const { exchangeToken } = await register(server)
  for (const method of ['RunnerService/ListRunners', 'SecretService/ListSecrets']) {
    t.equal((await server.call(method, exchangeToken)).status, 401)
  }
  t.equal((await server.request('GET', '/user', { token: exchangeToken })).statusCode, 401)
  const { status, body } = await server.call(EXCHANGE, makeToken('runner'), { exchangeToken })
  t.equal(status, 200, 'whatever the header says')
  t.match(body.accessToken, /^coffer_run_/)
})

t.test('guessing is counted by address, and locks nobody out', async (t) => {
  const server = await startOnaServer(t)
  const { exchangeToken } = await register(server)
  const guess = () => server.call(EXCHANGE, undefined, { exchangeToken: makeExchangeToken() })
  for (let guessed = 0; guessed < 30; guessed++) t.equal((await guess()).status, 401)
  const { status, body, headers } = await guess()
  t.equal(status, 429)
  t.equal(body.code, 'resource_exhausted')
  t.ok(Number(headers['retry-after']) >= 1)
  t.equal((await server.call(EXCHANGE, undefined, { exchangeToken })).status, 200)
  await server.app.close()
  const failures = await server.db
    .selectFrom('audit_events')
    .select(['actor_kind', 'name', 'occurrences'])
    .where('action', '=', 'login.failed')
    .execute()
  t.match(failures[0], { actor_kind: 'anonymous', name: EXCHANGE })
})

t.test('with rate limits, requests are counted by address', async (t) => {
  const server = await startOnaServer(t, {
    rateLimits: { core: 1000, codespaces: 1000, graphql: 1000, address: 2, store: 'memory' }
  })
  const { exchangeToken } = await register(server)
  t.equal((await server.call(EXCHANGE, undefined, { exchangeToken: makeExchangeToken() })).status, 401)
  t.equal((await server.call(EXCHANGE, undefined, { exchangeToken })).status, 200)
  const { status, body } = await server.call(EXCHANGE, undefined, { exchangeToken: makeExchangeToken() })
  t.equal(status, 429)
  t.equal(body.code, 'resource_exhausted')
})

t.test('the token of a runner ends with its organization', async (t) => {
  const server = await startOnaServer(t)
  const { exchangeToken } = await register(server)
  const unused = (await register(server)).exchangeToken
  const { accessToken } = (await server.call(EXCHANGE, undefined, { exchangeToken })).body
  t.equal((await server.call('RunnerService/ListRunners', accessToken)).status, 403)
  const removed = await server.request('DELETE', '/orgs/acme', { token: server.owner.token })
  t.equal(removed.statusCode, 202)
  t.equal((await server.call('RunnerService/ListRunners', accessToken)).status, 401, 'at once')
  t.equal((await server.call(EXCHANGE, undefined, { exchangeToken: unused })).status, 401)
  const records = await server.db
    .selectFrom('audit_events')
    .select('action')
    .where('stream_uid', '=', server.acme.uid)
    .where('action', '=', 'token.revoke')
    .execute()
  t.equal(records.length, 1)
})
