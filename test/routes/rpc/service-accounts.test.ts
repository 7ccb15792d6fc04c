import t from 'tap'
import { hashToken } from '../../../src/auth/token.ts'
import { isConsistent } from '../../consistency.ts'
import { startSecondNode } from '../../helper.ts'
import { type OnaServer, startOnaServer } from './helper.ts'
import { makeServiceAccount } from './machines.ts'

t.setTimeout(240_000)

const SERVICE = 'ServiceAccountService'
const CREATE = `${SERVICE}/CreateServiceAccount`
const GET = `${SERVICE}/GetServiceAccount`
const LIST = `${SERVICE}/ListServiceAccounts`
const UPDATE = `${SERVICE}/UpdateServiceAccount`
const DELETE = `${SERVICE}/DeleteServiceAccount`
const ACCESS_TOKEN = `${SERVICE}/CreateServiceAccountAccessToken`
const CREATE_TOKEN = `${SERVICE}/CreateServiceAccountToken`
const LIST_TOKENS = `${SERVICE}/ListServiceAccountTokens`
const GET_TOKEN = `${SERVICE}/GetServiceAccountToken`
const DELETE_TOKEN = `${SERVICE}/DeleteServiceAccountToken`
const IDENTITY = 'IdentityService/GetAuthenticatedIdentity'

const NOT_FOUND = { status: 404, body: { code: 'not_found' } }
const DENIED = { status: 403, body: { code: 'permission_denied' } }
const INVALID = { status: 400, body: { code: 'invalid_argument' } }
const VALID_UNTIL = '2099-01-01T00:00:00.000Z'
const UNKNOWN = '00000000-0000-4000-8000-000000000000'
const DAY_MS = 86_400_000

async function eventsOf({ db }: OnaServer, subjectUid: string): Promise<string[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(['action', 'name', 'stream_uid'])
    .where('subject_uid', '=', subjectUid)
    .orderBy('id')
    .execute()
  return rows.map(({ action, name }) => `${action} ${name?.replace(/#\d+$/, '')}`)
}

t.test('an owner makes, changes and deletes service accounts; who belongs to it sees them', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme } = server
  const made = await call(CREATE, owner.token, {
    name: 'ci-pipeline',
    description: 'builds',
    validUntil: '2099-01-01T01:00:00+01:00'
  })
  t.equal(made.status, 200)
  const { serviceAccount } = made.body
  t.match(serviceAccount.createdAt, /^20.*Z$/)
  const { id, createdAt } = serviceAccount
  t.strictSame(serviceAccount, {
    id,
    organizationId: acme.uid,
    name: 'ci-pipeline',
    description: 'builds',
    creator: { id: owner.account.uid, principal: 'PRINCIPAL_USER' },
    createdAt,
    validUntil: VALID_UNTIL
  })
  const { token } = (await call(ACCESS_TOKEN, owner.token, { serviceAccountId: id })).body
  for (const each of [owner.token, member.token, token]) {
    t.strictSame((await call(GET, each, { serviceAccountId: id })).body, { serviceAccount })
    t.strictSame((await call(LIST, each, {})).body, { pagination: {}, serviceAccounts: [serviceAccount] })
  }
  const changed = await call(UPDATE, owner.token, { serviceAccountId: id, name: 'cd' })
  t.strictSame(changed.body, { serviceAccount: { ...serviceAccount, name: 'cd' } }, 'what is unset stays')
  const cleared = await call(UPDATE, owner.token, { serviceAccountId: id, description: '' })
  t.notOk('description' in cleared.body.serviceAccount)
  t.equal((await call(UPDATE, owner.token, { serviceAccountId: id })).status, 200)

  t.strictSame((await call(DELETE, owner.token, { serviceAccountId: id })).body, {})
  t.strictSame((await call(LIST, owner.token, {})).body, { pagination: {} })
  const gone = { ...cleared.body.serviceAccount, suspended: true }
  t.strictSame((await call(GET, member.token, { serviceAccountId: id })).body, { serviceAccount: gone })
  const all = await call(LIST, member.token, { filter: { includeSuspended: true } })
  t.strictSame(all.body.serviceAccounts, [gone])
  for (const method of [UPDATE, DELETE, ACCESS_TOKEN]) {
    t.match(await call(method, owner.token, { serviceAccountId: id }), NOT_FOUND, method)
  }
  t.strictSame(await eventsOf(server, id), [
    'service_account.create ci-pipeline',
    'token.create ci-pipeline',
    'token.create ci-pipeline',
    'service_account.update cd',
    'service_account.update cd',
    'token.revoke cd',
    'token.revoke cd',
    'service_account.remove cd'
  ])
})

t.test('nobody else changes them, and no other organization knows of them', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  const wish = { name: 'more', validUntil: VALID_UNTIL }
  const weak = await server.createToken(owner.account, { scopes: ['read:org'] })
  for (const each of [member.token, token, weak]) {
    t.match(await call(CREATE, each, wish), DENIED)
    for (const method of [UPDATE, DELETE, ACCESS_TOKEN]) {
      t.match(await call(method, each, { serviceAccountId: uid, name: 'mine' }), DENIED, method)
    }
  }
  for (const method of [GET, UPDATE, DELETE, ACCESS_TOKEN]) {
    for (const serviceAccountId of [uid, UNKNOWN, stranger.account.uid]) {
      t.match(await call(method, stranger.token, { serviceAccountId }), NOT_FOUND, method)
    }
    t.match(await call(method, owner.token, {}), INVALID)
  }
  const filter = { serviceAccountIds: [uid], includeSuspended: true }
  t.strictSame((await call(LIST, stranger.token, { filter })).body, { pagination: {} })
  const narrow = await server.createToken(member.account, { scopes: ['codespace'] })
  t.match(await call(LIST, narrow, {}), DENIED)
  t.equal((await call(IDENTITY, token)).status, 200)
  t.strictSame((await eventsOf(server, uid)).length, 3)
})

t.test('which of them are listed', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner } = server
  const ids: string[] = []
  for (const [name, description] of [
    ['ci-web', 'Builds'],
    ['ci-api', 'builds and TESTS'],
    ['deploy', ''],
    ['100%', '']
  ]) {
    const { body } = await call(CREATE, owner.token, { name, description, validUntil: VALID_UNTIL })
    ids.push(body.serviceAccount.id)
  }
  const list = async (filter: object, pagination: object = {}) => {
    const { body } = await call(LIST, owner.token, { filter, pagination })
    return (body.serviceAccounts ?? []).map(({ name }: { name: string }) => name)
  }
  t.strictSame(await list({}), ['ci-web', 'ci-api', 'deploy', '100%'], 'oldest first')
  t.strictSame(await list({ search: 'CI-' }), ['ci-web', 'ci-api'])
  t.strictSame(await list({ search: 'tests' }), ['ci-api'])
  t.strictSame(await list({ search: ids[2]!.toUpperCase() }), ['deploy'])
  t.strictSame(await list({ search: '%' }), ['100%'], 'nothing stands for something else')
  t.strictSame(await list({ serviceAccountIds: [ids[0], UNKNOWN] }), ['ci-web'])
  t.strictSame(await list({ serviceAccountIds: [] }), ['ci-web', 'ci-api', 'deploy', '100%'])
  const pages: string[][] = []
  for (let token: string | undefined = ''; token !== undefined; ) {
    const { body } = await call(LIST, owner.token, { pagination: { pageSize: 3, token } })
    pages.push(body.serviceAccounts.map(({ name }: { name: string }) => name))
    token = body.pagination.nextToken
  }
  t.strictSame(pages, [['ci-web', 'ci-api', 'deploy'], ['100%']])
})

t.test('every constraint, by its field', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  const valid = { name: 'ci', validUntil: VALID_UNTIL }
  const refused = async (token: string, method: string, message: object, field: string) => {
    const { status, body } = await call(method, token, message)
    t.match({ status, body }, INVALID, JSON.stringify(message))
    t.ok(body.message.startsWith(`${field}: `), body.message)
  }
  for (const name of ['', undefined, null, 'x'.repeat(65), 'a\0b', 7]) {
    await refused(owner.token, CREATE, { ...valid, name }, 'name')
  }
  await refused(owner.token, CREATE, { ...valid, description: 'x'.repeat(501) }, 'description')
  for (const validUntil of [undefined, null, '', 'tomorrow', '2020-01-01T00:00:00Z', 4_000_000_000]) {
    await refused(owner.token, CREATE, { ...valid, validUntil }, 'validUntil')
  }
  for (const name of ['', 'x'.repeat(65)]) {
    await refused(owner.token, UPDATE, { serviceAccountId: uid, name }, 'name')
  }
  await refused(owner.token, UPDATE, { serviceAccountId: uid, description: 'x'.repeat(501) }, 'description')
  await refused(owner.token, LIST, { filter: { search: 'x'.repeat(257) } }, 'filter.search')
  const ids = Array.from({ length: 26 }, () => UNKNOWN)
  await refused(owner.token, LIST, { filter: { serviceAccountIds: ids } }, 'filter.serviceAccountIds')
  for (const validFor of ['-1s', '2524608001s', '1d', 5]) {
    await refused(token, CREATE_TOKEN, { validFor }, 'validFor')
  }
  t.equal(
    (await call(CREATE, owner.token, { ...valid, name: '😀'.repeat(64) })).status,
    200,
    'characters count'
  )
})

t.test('a token for half an hour records who made it', async (t) => {
  const server = await startOnaServer(t)
  const { owner, acme, db } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  t.match(token, /^coffer_sva_/)
  const row = await db
    .selectFrom('tokens')
    .selectAll()
    .where('hash', '=', hashToken(token))
    .executeTakeFirstOrThrow()
  t.match(row, {
    kind: 'service-account',
    account_id: acme.id,
    organization_id: acme.id,
    issued_by_uid: owner.account.uid
  })
  t.strictSame(row.scopes, ['repo', 'codespace', 'admin:org', 'read:audit_log'])
  t.equal(row.expires_at!.getTime() - row.created_at.getTime(), 1_800_000)
  const events = await db
    .selectFrom('audit_events')
    .select(['stream_uid', 'subject_uid', 'actor_uid'])
    .where('action', '=', 'token.create')
    .where('name', '=', `ci#${row.id}`)
    .execute()
  const common = { subject_uid: uid, actor_uid: owner.account.uid }
  t.strictSame(
    new Set(events),
    new Set([
      { stream_uid: acme.uid, ...common },
      { stream_uid: owner.account.uid, ...common }
    ])
  )
})

t.test('a service account makes and revokes its own tokens', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme, db } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  const other = await makeServiceAccount(server, owner.token, 'other')
  const made = await call(CREATE_TOKEN, token, { description: 'GitHub Actions', validFor: '7776000s' })
  t.equal(made.status, 200)
  const { serviceAccountToken } = made.body
  t.match(made.body.token, /^coffer_sva_/)
  t.match(serviceAccountToken, {
    serviceAccountId: uid,
    description: 'GitHub Actions',
    creator: { id: owner.account.uid, principal: 'PRINCIPAL_USER' }
  })
  const lifetime = Date.parse(serviceAccountToken.expiresAt) - Date.parse(serviceAccountToken.createdAt)
  t.equal(lifetime, 90 * DAY_MS)
  t.match((await call(IDENTITY, made.body.token)).body.subject, { id: uid })

  const listed = (await call(LIST_TOKENS, made.body.token, {})).body
  t.strictSame(listed.tokens.length, 2, 'that of half an hour, too')
  t.match(listed.tokens[1], serviceAccountToken, 'with its last use, once that is recorded')
  t.notMatch(JSON.stringify(listed), /coffer_sva_/)
  const page = (await call(LIST_TOKENS, token, { pagination: { pageSize: 1 } })).body
  t.ok(page.pagination.nextToken)
  const id = { serviceAccountTokenId: serviceAccountToken.id }
  t.match((await call(GET_TOKEN, token, id)).body, { token: serviceAccountToken })

  for (const each of [owner.token, member.token]) {
    for (const method of [CREATE_TOKEN, LIST_TOKENS]) t.match(await call(method, each, {}), DENIED, method)
    for (const method of [GET_TOKEN, DELETE_TOKEN]) t.match(await call(method, each, id), DENIED, method)
  }
  for (const method of [GET_TOKEN, DELETE_TOKEN]) {
    t.match(await call(method, other.token, id), NOT_FOUND, method)
    t.match(await call(method, token, {}), INVALID, method)
  }
  t.equal((await call(LIST_TOKENS, other.token, {})).body.tokens.length, 1)

  t.strictSame((await call(DELETE_TOKEN, token, id)).body, {})
  t.equal((await call(IDENTITY, made.body.token)).status, 401)
  t.match(await call(DELETE_TOKEN, token, id), NOT_FOUND)
  const events = await db
    .selectFrom('audit_events')
    .select(['action', 'actor_uid', 'issued_by_uid', 'stream_uid'])
    .where('actor_kind', '=', 'service-account')
    .where('outcome', '=', 'allowed')
    .orderBy('id')
    .execute()
  const common = { actor_uid: uid, issued_by_uid: owner.account.uid, stream_uid: acme.uid }
  t.strictSame(events, [
    { action: 'token.create', ...common },
    { action: 'token.revoke', ...common }
  ])
})

t.test('how long its tokens live', async (t) => {
  const server = await startOnaServer(t, { tokenLifetimes: { defaultDays: 7, maxDays: 14 } })
  const { call, owner, db } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  const days = async (wish: object) => {
    const { serviceAccountToken } = (await call(CREATE_TOKEN, token, wish)).body
    return (Date.parse(serviceAccountToken.expiresAt) - Date.parse(serviceAccountToken.createdAt)) / DAY_MS
  }
  t.equal(await days({}), 7)
  t.equal(await days({ validFor: '0s' }), 7)
  t.equal(await days({ validFor: '86400s' }), 1)
  t.equal(await days({ validFor: '2524608000s' }), 14, 'without an end is as long as the operator allows')

  const validUntil = new Date(Date.now() + 600_000).toISOString()
  const short = (await call(CREATE, owner.token, { name: 'short', validUntil })).body.serviceAccount
  const access = (await call(ACCESS_TOKEN, owner.token, { serviceAccountId: short.id })).body.token
  for (const wish of [{}, { validFor: '7776000s' }]) {
    const { body } = await call(CREATE_TOKEN, access, wish)
    t.equal(body.serviceAccountToken.expiresAt, validUntil, 'it ends with its account')
  }
  const { tokens } = (await call(LIST_TOKENS, access, {})).body
  t.strictSame(
    tokens.map(({ expiresAt }: { expiresAt: string }) => expiresAt),
    [validUntil, validUntil, validUntil]
  )

  await db
    .updateTable('service_accounts')
    .set({ valid_until: new Date(Date.now() - 1000) })
    .where('uid', '=', uid)
    .execute()
  const late = { status: 400, body: { code: 'failed_precondition' } }
  t.match(await call(ACCESS_TOKEN, owner.token, { serviceAccountId: uid }), late)
  t.match(await call(CREATE_TOKEN, token, {}), late)
})

t.test('tokens that ended do not pile up', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, db } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  await db
    .updateTable('tokens')
    .set({ expires_at: new Date(Date.now() - 1000) })
    .where('hash', '=', hashToken(token))
    .execute()
  t.equal((await call(ACCESS_TOKEN, owner.token, { serviceAccountId: uid })).status, 200)
  const rows = await db.selectFrom('tokens').select('id').where('kind', '=', 'service-account').execute()
  t.equal(rows.length, 1)
})

t.test('one that is deleted loses its tokens everywhere, its secrets and its groups', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme, db } = server
  const { uid, token } = await makeServiceAccount(server, owner.token)
  const lasting = (await call(CREATE_TOKEN, token, {})).body.token
  const { group } = (await call('GroupService/CreateGroup', owner.token, { name: 'robots' })).body
  const subject = { id: uid, principal: 'PRINCIPAL_SERVICE_ACCOUNT' }
  await call('GroupService/CreateMembership', owner.token, { groupId: group.id, subject })
  const secret = { value: 'v', environmentVariable: true, scope: { serviceAccountId: uid } }
  t.equal((await call('SecretService/CreateSecret', token, { ...secret, name: 'ONE' })).status, 200)
  t.equal((await call('SecretService/CreateSecret', owner.token, { ...secret, name: 'TWO' })).status, 200)
  const second = await startSecondNode(t, server)
  const onSecond = async () => {
    const authorization = `Bearer ${lasting}`
    const url = `/api/gitpod.v1.${IDENTITY}`
    return (await second.inject({ method: 'POST', url, headers: { authorization } })).statusCode
  }
  t.equal(await onSecond(), 200)

  t.equal((await call(DELETE, owner.token, { serviceAccountId: uid })).status, 200)
  for (const each of [token, lasting]) t.equal((await call(IDENTITY, each)).status, 401)
  while ((await onSecond()) !== 401) t.pass('a cache forgets when it is told')
  t.strictSame(await db.selectFrom('secrets').selectAll().execute(), [])
  t.strictSame(await db.selectFrom('group_members').selectAll().execute(), [])
  const { body } = await call('GroupService/GetMembership', member.token, { groupId: group.id, subject })
  t.strictSame(body, {})
  for (const method of ['CreateSecret', 'ListSecrets']) {
    const message =
      method === 'CreateSecret' ? { ...secret, name: 'NEW' } : { filter: { scope: secret.scope } }
    t.match(await call(`SecretService/${method}`, owner.token, message), NOT_FOUND, method)
  }
  const removed = await db
    .selectFrom('audit_events')
    .select(['name', 'stream_uid', 'collection'])
    .where('action', '=', 'secret.remove')
    .orderBy('name')
    .execute()
  const common = { stream_uid: acme.uid, collection: `codespaces/service-account/${uid}` }
  t.strictSame(removed, [
    { name: 'ONE', ...common },
    { name: 'TWO', ...common }
  ])
  await isConsistent(t, db)
})

t.test('one that is deleted while it makes tokens and secrets keeps none', async (t) => {
  const server = await startOnaServer(t, { logLevel: 'error' })
  const { call, owner, db } = server
  for (let round = 0; round < 3; round++) {
    const { uid, token } = await makeServiceAccount(server, owner.token)
    const work = Array.from({ length: 30 }, (_, n) => {
      if (n % 3 === 0) return call(CREATE_TOKEN, token, {})
      if (n % 3 === 1) return call(ACCESS_TOKEN, owner.token, { serviceAccountId: uid })
      const scope = { serviceAccountId: uid }
      return call('SecretService/CreateSecret', token, { name: `N${n}0`, value: 'v', apiOnly: true, scope })
    })
    const deleted = await call(DELETE, owner.token, { serviceAccountId: uid })
    t.equal(deleted.status, 200)
    const answers = await Promise.all(work)
    // Between a look at its token and the next statement it may have gone, and acts in no organization then.
    const isLate = ({ status, body }: { status: number; body: { message?: string } }) =>
      status === 403 && /acts in no organization/.test(body.message ?? '')
    t.strictSame(
      answers.filter((answer) => ![200, 401, 404].includes(answer.status) && !isLate(answer)),
      []
    )
    const made = answers.flatMap(({ status, body }) => (status === 200 && body.token ? [body.token] : []))
    for (const each of made.slice(0, 3)) t.equal((await call(IDENTITY, each)).status, 401)
    t.strictSame(
      await db.selectFrom('tokens').select('id').where('kind', '=', 'service-account').execute(),
      []
    )
    t.strictSame(server.log, [])
    await isConsistent(t, db)
  }
})

t.test('a service account has no part in what its organization’s members do for themselves', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner } = server
  const { token } = await makeServiceAccount(server, owner.token)
  for (const [method, url] of [
    ['GET', '/user/codespaces/secrets'],
    ['GET', '/user/orgs'],
    ['PUT', '/user/codespaces/secrets/A']
  ] as const) {
    t.equal((await server.request(method, url, { token })).statusCode, 403, url)
  }
  t.match(await call('GroupService/CreateGroup', token, { name: 'robots' }), DENIED)
  t.match(await call('UserService/CreatePersonalAccessToken', token, {}), DENIED)
})
