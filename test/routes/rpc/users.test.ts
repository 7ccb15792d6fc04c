import t, { type Test } from 'tap'
import { hashToken } from '../../../src/auth/token.ts'
import { inTheNameOf } from '../../../src/directory/change.ts'
import { revokeAll } from '../../../src/directory/tokens.ts'
import { SYSTEM, startSecondNode } from '../../helper.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'
import { makeEnvironment, makeRunner, makeServiceAccount } from './machines.ts'

t.setTimeout(240_000)

const CREATE = 'UserService/CreatePersonalAccessToken'
const LIST = 'UserService/ListPersonalAccessTokens'
const GET = 'UserService/GetPersonalAccessToken'
const DELETE = 'UserService/DeletePersonalAccessToken'
const IDENTITY = 'IdentityService/GetAuthenticatedIdentity'
const DAY_MS = 86_400_000

async function mint(
  { call }: Pick<OnaServer, 'call'>,
  token: string,
  wish: object = {}
): Promise<{ token: string; id: string }> {
  const made = await call(CREATE, token, wish)
  if (made.status !== 200) throw new Error(`not made: ${made.status}`)
  const listed = await call(LIST, token, { pagination: { pageSize: 100 } })
  return { token: made.body.token, id: listed.body.personalAccessTokens.at(-1).id }
}

async function tokenEvents({ db }: OnaServer) {
  return await db
    .selectFrom('audit_events')
    .select(['action', 'stream_uid', 'subject_uid', 'actor_uid', 'name'])
    .where('action', 'like', 'token.%')
    .orderBy('id')
    .execute()
}

t.test('a user sees itself and the members of its organization', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme, db } = server
  await db
    .updateTable('accounts')
    .set({ name: 'Mia M.', email: 'mia@example.com' })
    .where('id', '=', member.account.id)
    .execute()
  const mia = {
    id: member.account.uid,
    organizationId: acme.uid,
    name: 'Mia M.',
    status: 'USER_STATUS_ACTIVE',
    email: 'mia@example.com'
  }
  const self = await call('UserService/GetAuthenticatedUser', member.token)
  t.match(self.body.user, { ...mia, createdAt: /^20.*Z$/ })
  const get = (token: string, userId: unknown) => call('UserService/GetUser', token, { userId })
  t.match((await get(member.token, member.account.uid)).body.user, mia)
  t.match((await get(owner.token, member.account.uid)).body.user, mia)
  t.match((await get(member.token, owner.account.uid)).body.user, { name: 'olga', organizationId: acme.uid })

  const missing = { status: 404, body: { code: 'not_found' } }
  const unknown = '00000000-0000-4000-8000-000000000000'
  for (const id of [stranger.account.uid, acme.uid, unknown]) {
    t.match(await get(owner.token, id), missing, 'neither a stranger, nor what is no user')
  }
  t.match(await get(stranger.token, member.account.uid), missing)
  for (const id of [undefined, '', 'x']) {
    t.match(await get(owner.token, id), { status: 400, body: { code: 'invalid_argument' } })
  }
})

t.test('of others only those learn who may read the organization', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme } = server
  const get = (token: string, userId: string) => call('UserService/GetUser', token, { userId })
  const weak = await server.createToken(member.account, { scopes: ['codespace'] })
  t.equal((await get(weak, member.account.uid)).status, 200, 'oneself with any token')
  t.match(await get(weak, owner.account.uid), { status: 403, body: { message: /read:org/ } })
  const serviceAccount = await makeServiceAccount(server, owner.token)
  t.match((await get(serviceAccount.token, owner.account.uid)).body.user, { name: 'olga' })
  for (const { token } of [await makeEnvironment(server, acme), await makeRunner(server, acme)]) {
    t.match(await get(token, owner.account.uid), { status: 403, body: { code: 'permission_denied' } })
    t.equal((await call('UserService/GetAuthenticatedUser', token)).status, 403, 'what is no user has none')
  }
  const denied = await call('UserService/GetAuthenticatedUser', serviceAccount.token)
  t.match(denied, { status: 403, body: { message: /token of a user/ } })
})

t.test('a token is made, shown once, listed, got and revoked', async (t) => {
  const server = await startOnaServer(t)
  const { call, member, acme, db } = server
  const made = await call(CREATE, member.token, {
    userId: member.account.uid,
    description: 'laptop',
    validFor: '7776000s'
  })
  t.equal(made.status, 200)
  t.strictSame(Object.keys(made.body), ['token'])
  t.match(made.body.token, /^coffer_pat_/)
  const row = await db
    .selectFrom('tokens')
    .selectAll()
    .where('hash', '=', hashToken(made.body.token))
    .executeTakeFirstOrThrow()
  t.match(row, { kind: 'classic', read_only: false, organization_id: acme.id, issued_by_uid: null })
  t.strictSame(row.scopes, ['repo', 'codespace', 'admin:org', 'read:audit_log'])
  const lifetime = row.expires_at!.getTime() - row.created_at.getTime()
  t.equal(lifetime, 90 * DAY_MS)

  const { personalAccessTokens } = (await call(LIST, member.token, {})).body
  t.equal(personalAccessTokens.length, 2, 'those that an administrator made, too')
  const [, pat] = personalAccessTokens
  t.strictSame(pat, {
    id: row.uid,
    userId: member.account.uid,
    description: 'laptop',
    creator: { id: member.account.uid, principal: 'PRINCIPAL_USER' },
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at!.toISOString()
  })
  t.notMatch(JSON.stringify(personalAccessTokens), /coffer_pat_/)
  t.strictSame((await call(GET, member.token, { personalAccessTokenId: pat.id })).body, { pat })

  t.equal((await call(IDENTITY, made.body.token)).status, 200)
  const deleted = await call(DELETE, member.token, { personalAccessTokenId: pat.id })
  t.strictSame([deleted.status, deleted.body], [200, {}])
  t.equal((await call(IDENTITY, made.body.token)).status, 401, 'at once')
  for (const method of [GET, DELETE]) {
    t.match(await call(method, member.token, { personalAccessTokenId: pat.id }), {
      status: 404,
      body: { code: 'not_found' }
    })
  }
  const { uid } = member.account
  const events = (await tokenEvents(server)).filter(({ actor_uid }) => actor_uid === uid)
  const common = { stream_uid: uid, subject_uid: uid, actor_uid: uid, name: `mia#${row.id}` }
  t.strictSame(events, [
    { action: 'token.create', ...common },
    { action: 'token.revoke', ...common }
  ])
})

t.test('how long it lives', async (t) => {
  const server = await startOnaServer(t)
  const { call, member } = server
  const lifetimeDays = async (wish: object) => {
    const { id } = await mint(server, member.token, wish)
    const { pat } = (await call(GET, member.token, { personalAccessTokenId: id })).body
    return (Date.parse(pat.expiresAt) - Date.parse(pat.createdAt)) / DAY_MS
  }
  t.equal(await lifetimeDays({}), 30)
  t.equal(await lifetimeDays({ validFor: null }), 30)
  t.equal(await lifetimeDays({ validFor: '0s' }), 30)
  t.equal(await lifetimeDays({ valid_for: '86400s' }), 1)
  for (const validFor of ['7776001s', '7776000.5s', '-1s', '0.5s', '30', 30, 'P30D', '99999999999s']) {
    const refused = await call(CREATE, member.token, { validFor })
    t.match(
      refused,
      { status: 400, body: { code: 'invalid_argument', message: /^validFor: / } },
      `${validFor}`
    )
  }
})

t.test('the operator’s limit counts too', async (t) => {
  const server = await startOnaServer(t, { tokenLifetimes: { defaultDays: 7, maxDays: 14 } })
  const { call, member } = server
  const { id } = await mint(server, member.token)
  const { pat } = (await call(GET, member.token, { personalAccessTokenId: id })).body
  t.equal((Date.parse(pat.expiresAt) - Date.parse(pat.createdAt)) / DAY_MS, 14)
  t.equal((await call(CREATE, member.token, { validFor: `${14 * 86_400}s` })).status, 200)
  const refused = await call(CREATE, member.token, { validFor: `${14 * 86_400 + 1}s` })
  t.match(refused, { status: 400, body: { message: /COFFER_TOKEN_MAX_DAYS/ } })
})

t.test('nobody sees, makes or revokes the tokens of others', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger } = server
  const { id } = await mint(server, member.token, { description: 'mine' })
  for (const { token } of [owner, stranger]) {
    for (const method of [GET, DELETE]) {
      const refused = await call(method, token, { personalAccessTokenId: id })
      t.match(refused, { status: 404, body: { code: 'not_found' } })
    }
    const listed = await call(LIST, token, { filter: { userIds: [member.account.uid] } })
    t.strictSame(listed.body, { pagination: {} })
    const made = await call(CREATE, token, { userId: member.account.uid })
    t.match(made, { status: 403, body: { code: 'permission_denied' } })
  }
  const both = { filter: { userIds: [owner.account.uid, member.account.uid] } }
  const own = (await call(LIST, owner.token, both)).body.personalAccessTokens
  t.strictSame(
    own.map(({ userId }: { userId: string }) => userId),
    [owner.account.uid]
  )
  t.match((await call(GET, member.token, { personalAccessTokenId: id })).body.pat, { description: 'mine' })
})

t.test('tokens that act for others on an account are not its own', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, acme, db } = server
  const machine = await makeServiceAccount(server, owner.token)
  const others = [machine, await makeEnvironment(server, acme), await makeRunner(server, acme)]
  const { personalAccessTokens } = (await call(LIST, owner.token, {})).body
  t.equal(personalAccessTokens.length, 1)
  for (const { token } of others) {
    const { uid } = await db
      .selectFrom('tokens')
      .select('uid')
      .where('hash', '=', hashToken(token))
      .executeTakeFirstOrThrow()
    t.equal((await call(DELETE, owner.token, { personalAccessTokenId: uid })).status, 404)
    for (const method of [CREATE, LIST]) t.equal((await call(method, token, {})).status, 403, method)
  }
  const revoked = await server.request('DELETE', '/admin/users/olga/authorizations', {
    token: server.admin.token
  })
  t.equal(revoked.statusCode, 204)
  t.equal((await call(IDENTITY, owner.token)).status, 401)
  const own = await inTheNameOf(db, SYSTEM, (tx) => revokeAll(tx, SYSTEM, acme))
  t.strictSame(own, [], 'an organization has none of its own')
  for (const { token } of others) t.equal((await call(IDENTITY, token)).status, 200)
})

t.test('a token that may less makes none that may more', async (t) => {
  const server = await startOnaServer(t)
  const { call, member } = server
  const weak = [
    await server.createToken(member.account, { scopes: ['repo', 'codespace', 'admin:org'] }),
    await server.createToken(member.account, { scopes: ['codespace'] }),
    await server.createToken(member.account, {
      permissions: { organization_administration: 'write', administration: 'write' },
      allRepositories: true
    })
  ]
  for (const token of weak) {
    for (const method of [CREATE, LIST]) {
      t.match(await call(method, token, {}), { status: 403, body: { code: 'permission_denied' } }, method)
    }
  }
  const root = await call(CREATE, server.admin.token, {})
  const admin = await server.request('POST', '/admin/users', {
    token: root.body.token,
    body: { login: 'eve' }
  })
  t.equal(admin.statusCode, 403, 'the site is not administered with it')
})

t.test('whoever issued a token is named in those that it makes', async (t) => {
  const server = await startOnaServer(t)
  const { call, member, admin, db } = server
  const issued = await server.request('POST', '/admin/users/mia/authorizations', {
    token: admin.token,
    body: { scopes: ['repo', 'codespace', 'admin:org', 'read:audit_log'] }
  })
  const { id } = await mint({ call }, issued.json().token)
  const { pat } = (await call(GET, member.token, { personalAccessTokenId: id })).body
  t.strictSame(pat.creator, { id: admin.account.uid, principal: 'PRINCIPAL_USER' })
  const event = await db
    .selectFrom('audit_events')
    .select(['actor_uid', 'issued_by_uid'])
    .where('action', '=', 'token.create')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst()
  t.strictSame(event, { actor_uid: member.account.uid, issued_by_uid: admin.account.uid })
})

t.test('a token that only reads', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, acme } = server
  const { token, id } = await mint(server, owner.token, { readOnly: true })
  t.equal((await call(GET, token, { personalAccessTokenId: id })).body.pat.readOnly, true)
  t.equal((await call(LIST, token, {})).status, 200)
  const refused = { status: 403, body: { code: 'permission_denied', message: /only reads/ } }
  const changes: [string, object][] = [
    [CREATE, {}],
    [DELETE, { personalAccessTokenId: id }],
    ['OrganizationService/UpdateOrganization', { organizationId: acme.uid, name: 'Other' }],
    ['OrganizationService/CreateOrganization', { name: 'Other' }],
    ['OrganizationService/DeleteOrganization', { organizationId: acme.uid }],
    ['GroupService/CreateGroup', { name: 'makers' }],
    ['ServiceAccountService/CreateServiceAccount', { name: 'ci', validUntil: '2099-01-01T00:00:00Z' }],
    ['SecretService/CreateSecret', {}],
    ['ProjectService/CreateProject', {}]
  ]
  for (const [method, message] of changes) t.match(await call(method, token, message), refused, method)
  for (const method of [
    'GroupService/ListGroups',
    'SecretService/ListSecrets',
    'ProjectService/ListProjects'
  ]) {
    t.equal((await call(method, token, {})).status, 200, method)
  }
})

t.test('nothing is changed with it on GitHub’s API either', async (t) => {
  const server = await startOnaServer(t)
  const { owner, acme, member } = server
  await server.createRepository(acme, 'web')
  const box = await server.seal('/orgs/acme/codespaces/secrets', owner.token, 'v')
  const body = { ...box, visibility: 'all' }
  const secret = '/orgs/acme/codespaces/secrets/KEPT'
  t.equal((await server.request('PUT', secret, { token: owner.token, body })).statusCode, 201)
  const { token } = await mint(server, owner.token, { readOnly: true })
  const before = await server.db
    .selectFrom('audit_events')
    .select('id')
    .where('outcome', '=', 'allowed')
    .execute()
  const changes = [
    ['PUT', secret, body],
    ['DELETE', secret, undefined],
    ['PUT', '/orgs/acme/codespaces/secrets/NEW', body],
    ['PUT', '/user/codespaces/secrets/NEW', body],
    ['POST', '/orgs/acme/repos', { name: 'more' }],
    ['POST', '/user/repos', { name: 'more' }],
    ['PATCH', '/repos/acme/web', { private: false }],
    ['PUT', '/orgs/acme/memberships/mia', { role: 'admin' }],
    ['DELETE', '/orgs/acme/memberships/mia', undefined],
    ['DELETE', '/repos/acme/web', undefined],
    ['DELETE', '/orgs/acme', undefined]
  ] as const
  for (const [method, url, body] of changes) {
    const response = await server.request(method, url, { token, ...(body && { body }) })
    t.equal(response.statusCode, 403, `${method} ${url}`)
    t.equal(response.json().message, 'This token only reads.')
  }
  const after = await server.db
    .selectFrom('audit_events')
    .select('id')
    .where('outcome', '=', 'allowed')
    .execute()
  t.strictSame(after, before, 'and nothing was')

  for (const url of [
    '/user',
    '/orgs/acme',
    secret,
    '/orgs/acme/codespaces/secrets',
    '/orgs/acme/codespaces/secrets/public-key',
    '/user/codespaces/secrets',
    '/repos/acme/web',
    '/orgs/acme/members',
    '/orgs/acme/audit-log'
  ]) {
    t.equal((await server.request('GET', url, { token })).statusCode, 200, url)
  }
  t.equal((await server.request('HEAD', '/user', { token })).statusCode, 200)
  const viewer = await server.request('POST', '/graphql', {
    token,
    body: { query: '{ viewer { login } repository(owner: "acme", name: "web") { id } }' },
    headers: { 'content-type': 'application/json' }
  })
  t.match(viewer.json(), { data: { viewer: { login: 'olga' }, repository: { id: String } } })
  t.ok(member)
})

t.test('a revoked token is refused on every node at once', async (t) => {
  const server = await startOnaServer(t)
  const { call, member } = server
  const second = await startSecondNode(t, server)
  const { token, id } = await mint(server, member.token)
  const onSecond = () =>
    second.inject({
      method: 'POST',
      url: `/api/gitpod.v1.${IDENTITY}`,
      headers: { authorization: `Bearer ${token}` }
    })
  t.equal((await onSecond()).statusCode, 200)
  t.equal((await call(DELETE, member.token, { personalAccessTokenId: id })).status, 200)
  t.equal((await call(IDENTITY, token)).status, 401)
  for (;;) {
    const { statusCode } = await onSecond()
    if (statusCode === 401) break
    t.equal(statusCode, 200, 'a cache forgets when it is told')
  }
})

t.test('a token may revoke itself, once', async (t) => {
  const server = await startOnaServer(t)
  const { call, member } = server
  const { token, id } = await mint(server, member.token)
  const answers = await Promise.all(
    Array.from({ length: 4 }, () => call(DELETE, token, { personalAccessTokenId: id }))
  )
  t.strictSame(answers.map(({ status }) => status).sort(), [200, 401, 401, 401])
  t.equal((await call(IDENTITY, token)).status, 401)
  t.equal((await tokenEvents(server)).filter(({ action }) => action === 'token.revoke').length, 1)
})

t.test('whoever revokes all tokens while one makes others misses none', async (t) => {
  const server = await startOnaServer(t)
  const { call, member, admin, db } = server
  const work = Array.from({ length: 20 }, () => call(CREATE, member.token, {}))
  const revoked = await server.request('DELETE', '/admin/users/mia/authorizations', { token: admin.token })
  t.equal(revoked.statusCode, 204)
  const answers = await Promise.all(work)
  const left = await db
    .selectFrom('tokens')
    .select('id')
    .where('account_id', '=', member.account.id)
    .execute()
  t.strictSame(left, [])
  for (const { status } of answers) t.ok(status === 200 || status === 401, `${status}`)
  const made = answers.flatMap(({ status, body }) => (status === 200 ? [body.token] : []))
  for (const each of made.slice(0, 3)) t.equal((await call(IDENTITY, each)).status, 401)
  const events = await tokenEvents(server)
  const names = (action: string) => events.filter((event) => event.action === action).map(({ name }) => name)
  const created = new Set(names('token.create').filter((name) => name?.startsWith('mia#')))
  t.strictSame(new Set(names('token.revoke')), created, 'each is recorded')
})

t.test('pages of tokens, by the official client', async (t) => {
  const server = await startOnaServer(t)
  const { member } = server
  for (let n = 0; n < 7; n++) await mint(server, member.token, { description: `n${n}` })
  const client = sdk(await server.listen(), member.token)
  const listed: string[] = []
  for await (const pat of client.users.pats.list({ pagination: { pageSize: 3 } })) {
    if (pat.description) listed.push(pat.description)
  }
  t.strictSame(listed, ['n0', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6'])
  const page = await client.users.pats.list({ pageSize: 8 })
  t.equal(page.personalAccessTokens.length, 8)
  t.notOk(page.pagination?.nextToken)
  const { id } = page.personalAccessTokens.at(-1)!
  t.match((await client.users.pats.get({ personalAccessTokenId: id! })).pat, { description: 'n6' })
  t.strictSame(await client.users.pats.delete({ personalAccessTokenId: id! }), {})
  await t.rejects(client.users.pats.get({ personalAccessTokenId: id! }), { status: 404, code: 'not_found' })
})

t.test('what is wrong with a wish is told by its field', async (t: Test) => {
  const server = await startOnaServer(t)
  const { call, member } = server
  const refused = async (method: string, message: object, field: string) => {
    const { status, body } = await call(method, member.token, message)
    t.equal(status, 400, JSON.stringify(message))
    t.match(body, { code: 'invalid_argument', details: [{ type: 'google.rpc.BadRequest' }] })
    t.match(body.message, new RegExp(`^${field}`))
  }
  await refused(CREATE, { description: 'x'.repeat(1025) }, 'description: ')
  await refused(CREATE, { description: 'a\0b' }, 'description: ')
  await refused(CREATE, { userId: 'mia' }, 'userId: ')
  await refused(CREATE, { readOnly: 'yes' }, 'readOnly: ')
  await refused(GET, {}, 'personalAccessTokenId: ')
  await refused(DELETE, { personalAccessTokenId: '' }, 'personalAccessTokenId: ')
  await refused(LIST, { filter: { userIds: ['x'] } }, 'filter.userIds\\[0\\]: ')
})
