import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { removeUser } from '../../../src/directory/accounts.ts'
import { schemaValidator } from '../../github-description.ts'
import { getAccount, SYSTEM, startTestServer, type TestServer } from '../../helper.ts'
import { stored } from './refusal.ts'

const simpleUser = schemaValidator('simple-user')
const organizationSimple = schemaValidator('organization-simple')
const authorization = schemaValidator('authorization')

const HOUR = 3_600_000
const DAY = 24 * HOUR

async function auditOf({ db }: TestServer, streamUid: string, actions: string) {
  return await db
    .selectFrom('audit_events')
    .select(['action', 'name', 'actor_uid', 'subject_uid', 'issued_by_uid', 'token_id'])
    .where('stream_uid', '=', streamUid)
    .where('action', 'like', actions)
    .orderBy('id')
    .execute()
}

function issue(server: TestServer, login: string, body: unknown = {}, token = server.admin.token) {
  return server.request('POST', `/admin/users/${login}/authorizations`, { token, body })
}

function revoke(server: TestServer, login: string) {
  return server.request('DELETE', `/admin/users/${login}/authorizations`, { token: server.admin.token })
}

t.test('a site administrator makes users', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const { token, account } = server.admin
  const created = await server.request('POST', '/api/v3/admin/users', {
    token,
    body: { login: 'Mona-Lisa', email: 'mona@example.org', name: 'Mona' }
  })
  t.equal(created.statusCode, 201)
  t.same(simpleUser(created.json()), [])
  t.match(created.json(), {
    login: 'Mona-Lisa',
    type: 'User',
    site_admin: false,
    url: 'http://coffer.test/api/v3/users/Mona-Lisa'
  })
  const mona = await getAccount(server.db, 'mona-lisa')
  t.match(mona, { login: 'Mona-Lisa', email: 'mona@example.org', name: 'Mona', id: created.json().id })
  t.match(await auditOf(server, mona.uid, 'user.%'), [{ action: 'user.create', actor_uid: account.uid }])

  const other = await server.request('POST', '/admin/users', {
    token,
    body: { login: 'boss', site_admin: true }
  })
  t.equal(other.json().site_admin, true)
  t.equal(
    await server.db.selectFrom('memberships').select('account_id').executeTakeFirst(),
    undefined,
    'a new user belongs to no organization'
  )
})

t.test('a login that is malformed or taken is refused, and nothing changes', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  await server.createOrganization('acme', mona)
  const before = await stored(server.db)
  const logins = ['MONA', 'acme', '', '-a', 'a-', 'a--b', 'a b', 'a/b', 'ä', 'a\0', 'x'.repeat(40), 7, null]
  for (const login of [...logins, undefined]) {
    for (const [path, rest] of [
      ['users', {}],
      ['organizations', { admin: 'mona' }]
    ] as const) {
      const response = await server.request('POST', `/admin/${path}`, {
        token: server.admin.token,
        body: { login, ...rest }
      })
      t.equal(response.statusCode, 422, `${path} ${JSON.stringify(login)}`)
      t.equal(response.json().errors[0].field, 'login')
    }
  }
  t.same(await stored(server.db), before)
})

t.test('a site administrator makes organizations with an owner', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const create = (body: unknown) =>
    server.request('POST', '/admin/organizations', { token: server.admin.token, body })
  const created = await create({ login: 'acme', admin: 'Mona', profile_name: 'Acme' })
  t.equal(created.statusCode, 201)
  t.same(organizationSimple(created.json()), [])
  const acme = await getAccount(server.db, 'acme')
  t.match(acme, { id: created.json().id, kind: 'organization', name: 'Acme' })
  t.match(await server.db.selectFrom('memberships').selectAll().execute(), [
    { organization_id: acme.id, account_id: mona.id, role: 'admin' }
  ])

  const before = await stored(server.db)
  for (const admin of ['absent', 'acme', undefined, '']) {
    const response = await create({ login: 'other', admin })
    t.equal(response.statusCode, 422, `admin ${admin}`)
    t.equal(response.json().errors[0].field, 'admin')
  }
  t.same(await stored(server.db), before)
})

t.test('administration is for site administrators with a token of scope site_admin alone', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const { account } = server.admin
  const mona = await server.createUser('mona')
  const everything = {
    codespaces_secrets: 'write',
    codespaces_user_secrets: 'write',
    administration: 'write'
  }
  const refused: [number, string | undefined][] = [
    [401, undefined],
    [403, await server.createToken(mona, { scopes: ['site_admin', 'repo', 'admin:org'] })],
    [403, await server.createToken(account, { scopes: ['repo', 'admin:org', 'codespace'] })],
    [403, await server.createToken(account, { permissions: everything, allRepositories: true })]
  ]
  const requests: ['POST' | 'DELETE', string, unknown?][] = [
    ['POST', '/admin/users', { login: 'new' }],
    ['POST', '/admin/organizations', { login: 'new', admin: 'mona' }],
    ['POST', '/admin/users/mona/authorizations', { scopes: ['repo'] }],
    ['POST', '/admin/users/root/authorizations', { scopes: ['site_admin'] }],
    ['DELETE', '/admin/users/mona/authorizations'],
    ['DELETE', '/admin/users/mona'],
    ['DELETE', '/admin/users/absent']
  ]
  const before = await stored(server.db)
  for (const [status, token] of refused) {
    for (const [method, url, body] of requests) {
      const response = await server.request(method, url, { token, body })
      t.equal(response.statusCode, status, `${method} ${url}`)
      if (status === 403 && response.headers['x-oauth-scopes'] !== undefined) {
        t.equal(response.headers['x-accepted-oauth-scopes'], 'site_admin')
      }
    }
  }
  t.same(await stored(server.db), before)
})

t.test(
  'a deleted user takes tokens, secrets and repositories along, and the audit keeps the names',
  async (t) => {
    const server = await startTestServer(t, { logLevel: 'warn' })
    const mona = await server.createUser('mona')
    const hubot = await server.createUser('hubot')
    await server.createRepository(mona, 'web')
    await server.createRepository(hubot, 'other')
    await server.setRole(hubot, 'other', mona, 'admin')
    const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
    for (const path of [
      '/user/codespaces/secrets',
      '/repos/mona/web/codespaces/secrets',
      '/repos/hubot/other/codespaces/secrets'
    ]) {
      const name = `OF_${path.split('/')[2]!.toUpperCase()}`
      const body = await server.seal(path, token, 'value')
      t.equal((await server.request('PUT', `${path}/${name}`, { token, body })).statusCode, 201)
    }
    t.equal((await server.request('GET', '/user', { token })).statusCode, 200)

    const remove = (login: string) =>
      server.request('DELETE', `/admin/users/${login}`, { token: server.admin.token })
    t.equal((await remove('MONA')).statusCode, 204)
    const after = await server.request('GET', '/user', { token })
    t.equal(after.statusCode, 401, 'at once')
    t.equal((await server.request('GET', '/user/codespaces/secrets', { token })).statusCode, 401)
    t.same(await server.db.selectFrom('secrets').select('name').execute(), [{ name: 'OF_HUBOT' }])
    t.same(await server.db.selectFrom('repositories').select('name').execute(), [{ name: 'other' }])
    t.same(await server.db.selectFrom('collaborators').selectAll().execute(), [])
    t.same(await server.db.selectFrom('tokens').select('id').where('account_id', '=', mona.id).execute(), [])
    t.same(
      (await auditOf(server, mona.uid, '%.remove')).map(({ action, name }) => `${action} ${name}`).sort(),
      ['repository.remove web', 'secret.remove OF_CODESPACES', 'secret.remove OF_MONA', 'user.remove mona']
    )

    const before = await stored(server.db)
    t.equal((await remove('mona')).statusCode, 404)
    t.equal((await remove('absent')).statusCode, 404)
    t.equal((await remove('root')).statusCode, 422, 'the account in use')
    await server.createOrganization('acme', hubot)
    t.equal((await remove('acme')).statusCode, 404, 'an organization is no user')
    t.ok(await getAccount(server.db, 'acme'))
    t.equal((await stored(server.db)).secrets, before.secrets)

    const again = await server.createUser('mona')
    const fresh = await server.createToken(again, { scopes: ['repo', 'codespace'] })
    t.same((await server.request('GET', '/user/codespaces/secrets', { token: fresh })).json().secrets, [])
    t.equal((await server.request('GET', '/repos/hubot/other', { token: fresh })).statusCode, 404)
  }
)

t.test('each call issues one more token, shown once and stored as a hash', async (t) => {
  const server = await startTestServer(t, { logLevel: 'trace' })
  const mona = await server.createUser('mona')
  const first = await issue(server, 'Mona', { scopes: ['repo', 'public_repo', 'codespace'], note: 'laptop' })
  t.equal(first.statusCode, 201)
  t.same(authorization(first.json()), [])
  const { token, ...rest } = first.json()
  t.match(token, /^coffer_pat_[0-9A-Za-z]{49}$/)
  t.match(rest, {
    token_last_eight: token.slice(-8),
    scopes: ['codespace', 'repo'],
    note: 'laptop',
    hashed_token: null
  })
  t.equal((await server.request('GET', '/user', { token })).json().login, 'mona')

  const second = await issue(server, 'mona', { scopes: null })
  t.equal(second.statusCode, 201)
  t.same(second.json().scopes, [])
  t.not(second.json().token, token)
  t.equal((await server.request('GET', '/user', { token })).statusCode, 200, 'the first one still works')

  const { account } = server.admin
  for (const stream of [mona.uid, account.uid]) {
    t.match(
      (await auditOf(server, stream, 'token.create')).filter(({ actor_uid }) => actor_uid === account.uid),
      [
        { name: `mona#${rest.id}`, subject_uid: mona.uid },
        { name: `mona#${second.json().id}`, subject_uid: mona.uid }
      ],
      'in both streams'
    )
  }
  const rows = await server.db.selectFrom('tokens').selectAll().where('account_id', '=', mona.id).execute()
  t.equal(rows.length, 2)
  for (const row of rows) t.equal(row.issued_by_uid, account.uid)
  const everything = JSON.stringify([
    rows.map((row) => ({ ...row, hash: row.hash.toString('latin1') })),
    await server.db.selectFrom('audit_events').selectAll().execute(),
    server.log
  ])
  t.notOk(everything.includes(token.slice(11, 54)), 'neither stored nor logged')
})

t.test('what an issued token does is recorded with who issued it', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const { token, id } = (await issue(server, 'mona', { scopes: ['codespace'] })).json()
  const body = await server.seal('/user/codespaces/secrets', token, 'value')
  await server.request('PUT', '/user/codespaces/secrets/A', { token, body })
  t.match(await auditOf(server, mona.uid, 'secret.%'), [
    { actor_uid: mona.uid, issued_by_uid: server.admin.account.uid, token_id: id }
  ])

  const own = await issue(server, 'root', { scopes: ['repo'] })
  const row = await server.db
    .selectFrom('tokens')
    .select('issued_by_uid')
    .where('id', '=', own.json().id)
    .executeTakeFirst()
  t.equal(row?.issued_by_uid, null, 'a token for oneself is issued by nobody else')
})

t.test(
  'a token for somebody else lives an hour, unless the account is new or a lifetime is asked for',
  async (t) => {
    const server = await startTestServer(t, { logLevel: 'warn' })
    await server.createUser('mona')
    const lifetime = async (login: string, body: unknown = {}) => {
      const response = await issue(server, login, body)
      t.equal(response.statusCode, 201)
      const { id, expires_at, created_at } = response.json()
      const row = await server.db
        .selectFrom('tokens')
        .select('expires_at')
        .where('id', '=', id)
        .executeTakeFirstOrThrow()
      t.equal(`${row.expires_at!.toISOString().slice(0, 19)}Z`, expires_at)
      return Date.parse(expires_at) - Date.parse(created_at)
    }
    t.equal(await lifetime('mona'), 90 * DAY, 'the first one of a new account')
    t.equal(await lifetime('mona'), HOUR)
    t.equal(await lifetime('mona', { expires: 7 }), 7 * DAY)
    t.equal(await lifetime('mona', { expires: 366 }), 366 * DAY)
    t.equal(await lifetime('root'), 90 * DAY, 'for oneself')
    t.equal((await revoke(server, 'mona')).statusCode, 204)
    t.equal(await lifetime('mona'), HOUR, 'an account is not new because its tokens were revoked')

    const before = await stored(server.db)
    for (const expires of [0, -1, 367, 1.5, '7', 2 ** 53, true]) {
      const response = await issue(server, 'mona', { expires })
      t.equal(response.statusCode, 422, JSON.stringify(expires))
      t.equal(response.json().errors[0].field, 'expires')
    }
    t.same(await stored(server.db), before)
  }
)

t.test('an answer names when its token ends', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  await server.createUser('mona')
  const { token, expires_at } = (await issue(server, 'mona', { expires: 3 })).json()
  const { headers } = await server.request('GET', '/user', { token })
  t.equal(
    headers['github-authentication-token-expiration'],
    `${expires_at.slice(0, 10)} ${expires_at.slice(11, 19)} UTC`
  )
})

t.test('a fine-grained token has permissions and a list of repositories', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'listed')
  await server.createRepository(mona, 'other')
  const permissions = { codespaces_secrets: 'write' }
  const issued = await issue(server, 'mona', { permissions, repositories: ['MONA/listed', 'mona/listed'] })
  t.equal(issued.statusCode, 201)
  t.same(authorization(issued.json()), [])
  t.match(issued.json(), { token: /^coffer_fgt_/, scopes: [], permissions })
  const status = async (repository: string, token: string) =>
    (await server.request('GET', `/repos/mona/${repository}/codespaces/secrets`, { token })).statusCode
  t.equal(await status('listed', issued.json().token), 200)
  t.equal(await status('other', issued.json().token), 404)

  const all = (await issue(server, 'mona', { permissions, all_repositories: true })).json().token
  t.equal(await status('other', all), 200)
  const none = (await issue(server, 'mona', { permissions })).json().token
  t.equal(await status('listed', none), 404, 'no list is an empty list')
})

t.test('a token that cannot be is refused, and nothing changes', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const hubot = await server.createUser('hubot')
  await server.createRepository(hubot, 'hidden')
  await server.createRepository(mona, 'own')
  await server.createOrganization('acme', mona)
  const before = await stored(server.db)
  const permissions = { codespaces_secrets: 'write' }
  const cases: [body: unknown, field: string][] = [
    [{ scopes: ['everything'] }, 'scopes'],
    [{ scopes: 'repo' }, 'scopes'],
    [{ scopes: ['repo', '__proto__'] }, 'scopes'],
    [{ permissions: { everything: 'write' } }, 'permissions'],
    [{ permissions: { codespaces_secrets: 'admin' } }, 'permissions'],
    [{ permissions: { constructor: 'write' } }, 'permissions'],
    [{ permissions: { metadata: 'write' } }, 'permissions'],
    [{ permissions, repositories: ['hubot/hidden'] }, 'repositories'],
    [{ permissions, repositories: ['mona/absent'] }, 'repositories'],
    [{ permissions, repositories: ['own'] }, 'repositories'],
    [{ permissions, repositories: ['mona/own/x'] }, 'repositories'],
    [{ note: 'x'.repeat(256) }, 'note'],
    [{ note: 'a\0' }, 'note']
  ]
  for (const [body, field] of cases) {
    const response = await issue(server, 'mona', body)
    t.equal(response.statusCode, 422, JSON.stringify(body))
    t.equal(response.json().errors[0].field, field)
  }
  const hidden = await issue(server, 'mona', { permissions, repositories: ['hubot/hidden'] })
  const absent = await issue(server, 'mona', { permissions, repositories: ['hubot/absent'] })
  t.equal(hidden.body, absent.body, 'what the account cannot see is answered like what is absent')
  for (const login of ['absent', 'acme', 'a%00']) {
    t.equal((await issue(server, login)).statusCode, 404, login)
    t.equal((await revoke(server, login)).statusCode, 404, login)
  }
  t.same(await stored(server.db), before)
})

t.test('revoking takes every token of the account, at once on this server, and no secret', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const hubot = await server.createUser('hubot')
  const tokens = [
    (await issue(server, 'mona', { scopes: ['codespace'] })).json().token,
    (await issue(server, 'mona', { permissions: { codespaces_user_secrets: 'write' } })).json().token
  ]
  const theirs = await server.createToken(hubot, { scopes: [] })
  const body = await server.seal('/user/codespaces/secrets', tokens[0], 'value')
  await server.request('PUT', '/user/codespaces/secrets/A', { token: tokens[0], body })
  for (const token of tokens) t.equal((await server.request('GET', '/user', { token })).statusCode, 200)

  t.equal((await revoke(server, 'MONA')).statusCode, 204)
  for (const token of tokens) {
    const response = await server.request('GET', '/user', { token })
    t.equal(response.statusCode, 401)
    t.equal(response.json().message, 'Bad credentials')
    const put = await server.request('PUT', '/user/codespaces/secrets/A', { token, body })
    t.equal(put.statusCode, 401)
  }
  t.equal((await server.request('GET', '/user', { token: theirs })).statusCode, 200, "others' stay")
  t.equal((await server.reveal('user', mona.uid, 'A'))?.toString(), 'value')
  const { account } = server.admin
  for (const stream of [mona.uid, account.uid]) {
    t.equal((await auditOf(server, stream, 'token.revoke')).length, 2, 'in both streams')
  }
  t.equal((await revoke(server, 'mona')).statusCode, 204, 'none left is fine')
})

t.test('a token that was revoked by another server is refused within a second', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const body = await server.seal('/user/codespaces/secrets', token, 'value')
  await server.db.deleteFrom('tokens').where('account_id', '=', mona.id).execute()
  const write = await server.request('PUT', '/user/codespaces/secrets/A', { token, body })
  t.equal(write.statusCode, 401, 'a write looks again at once')
  await sleep(1000)
  t.equal((await server.request('GET', '/user', { token })).statusCode, 401)
  t.same(await server.db.selectFrom('secrets').select('id').execute(), [])
})

t.test('of an account that another server deleted, a token that is still cached tells nothing', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  t.equal((await server.request('GET', '/user', { token })).statusCode, 200)
  await removeUser(server.db, SYSTEM, 'mona')
  await server.createUser('mona')
  t.equal((await server.request('GET', '/user', { token })).statusCode, 401, 'nor of its successor')
  const made = await server.request('POST', '/user/repos', { token, body: { name: 'web' } })
  t.equal(made.statusCode, 401)
  t.same(await server.db.selectFrom('repositories').select('id').execute(), [])
})
