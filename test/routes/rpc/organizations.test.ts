import { sql } from 'kysely'
import t from 'tap'
import { SCOPES } from '../../../src/auth/scopes.ts'
import { isConsistent } from '../../consistency.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'
import { makeEnvironment, makeRunner, makeServiceAccount } from './machines.ts'

t.setTimeout(240_000)

const IDENTITY = 'IdentityService/GetAuthenticatedIdentity'
const CREATE = 'OrganizationService/CreateOrganization'
const GET = 'OrganizationService/GetOrganization'
const UPDATE = 'OrganizationService/UpdateOrganization'
const DELETE = 'OrganizationService/DeleteOrganization'
const MEMBERS = 'OrganizationService/ListMembers'
const SET_ROLE = 'OrganizationService/SetRole'
const LEAVE = 'OrganizationService/LeaveOrganization'

const NOT_FOUND = { status: 404, body: { code: 'not_found' } }
const DENIED = { status: 403, body: { code: 'permission_denied' } }
const INVALID = { status: 400, body: { code: 'invalid_argument' } }

async function rolesIn({ db }: OnaServer, organizationId: number): Promise<string[]> {
  const rows = await db
    .selectFrom('memberships as m')
    .innerJoin('accounts as a', 'a.id', 'm.account_id')
    .select(['a.login', 'm.role'])
    .where('m.organization_id', '=', organizationId)
    .orderBy('a.login')
    .execute()
  return rows.map(({ login, role }) => `${login} ${role}`)
}

async function actionsIn({ db }: OnaServer, streamUid: string): Promise<string[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(['action', 'name'])
    .where('stream_uid', '=', streamUid)
    .where('outcome', '=', 'allowed')
    .orderBy('id')
    .execute()
  return rows.map(({ action, name }) => `${action} ${name}`)
}

t.test('the organization of a token is shown to its members, and no other', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme } = server
  for (const { token } of [owner, member]) {
    const { status, body } = await call(GET, token, { organizationId: acme.uid })
    t.equal(status, 200)
    t.match(body.organization, { id: acme.uid, name: 'acme', tier: 'ORGANIZATION_TIER_ENTERPRISE' })
    t.match(body.organization.createdAt, /^20.*\.\d{3}Z$/)
    t.match(body.organization.updatedAt, /^20.*\.\d{3}Z$/)
  }
  for (const method of [GET, MEMBERS]) {
    t.match(await call(method, stranger.token, { organizationId: acme.uid }), NOT_FOUND)
    t.match(await call(method, owner.token, { organizationId: stranger.organization.uid }), NOT_FOUND)
    t.match(await call(method, owner.token, { organizationId: owner.account.uid }), NOT_FOUND)
    t.match(await call(method, owner.token, {}), INVALID)
    const weak = await server.createToken(owner.account, { scopes: ['codespace'] })
    t.match(await call(method, weak, { organizationId: acme.uid }), DENIED)
  }
  const serviceAccount = await makeServiceAccount(server, owner.token)
  t.equal((await call(GET, serviceAccount.token, { organizationId: acme.uid })).status, 200)
  for (const { token } of [await makeEnvironment(server, acme), await makeRunner(server, acme)]) {
    t.match(await call(GET, token, { organizationId: acme.uid }), DENIED)
  }
})

t.test('members are listed with all that SDKs take for given', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme, db } = server
  await db
    .updateTable('accounts')
    .set({ name: 'Ann', email: 'ann@example.com' })
    .where('id', '=', member.account.id)
    .execute()
  const { members, pagination } = (await call(MEMBERS, owner.token, { organizationId: acme.uid })).body
  t.strictSame(pagination, {})
  const [olga, ann] = members
  t.match(olga, { fullName: 'olga', email: '', role: 'ORGANIZATION_ROLE_ADMIN', loginProvider: 'coffer' })
  t.match(ann, { fullName: 'Ann', email: 'ann@example.com', role: 'ORGANIZATION_ROLE_MEMBER' })
  const required = ['email', 'fullName', 'loginProvider', 'memberSince', 'role', 'status', 'userId']
  for (const shown of members) t.strictSame(Object.keys(shown).sort(), required)
})

t.test('in which order members come, and which of them', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme } = server
  for (const login of ['zed', 'abe', 'Mona']) await server.addMember(acme, await server.createUser(login))
  const list = async (token: string, message: object = {}) => {
    const { body } = await call(MEMBERS, token, { organizationId: acme.uid, ...message })
    return (body.members ?? []).map(({ fullName }: { fullName: string }) => fullName)
  }
  t.strictSame(await list(owner.token), ['olga', 'abe', 'mia', 'Mona', 'zed'], 'oneself first')
  t.strictSame(await list(member.token), ['mia', 'abe', 'Mona', 'olga', 'zed'])
  const sorted = (field: string, order?: string) =>
    list(owner.token, {
      sort: { field: `SORT_FIELD_${field}`, ...(order && { order: `SORT_ORDER_${order}` }) }
    })
  t.strictSame(await sorted('NAME'), ['abe', 'mia', 'Mona', 'olga', 'zed'])
  t.strictSame(await sorted('NAME', 'DESC'), ['zed', 'olga', 'Mona', 'mia', 'abe'])
  t.strictSame(await sorted('DATE_JOINED'), ['olga', 'mia', 'zed', 'abe', 'Mona'])
  t.strictSame(await sorted('DATE_JOINED', 'DESC'), ['Mona', 'abe', 'zed', 'mia', 'olga'])

  const filtered = (filter: object) => list(owner.token, { filter })
  t.strictSame(await filtered({ search: 'MO' }), ['Mona'])
  t.strictSame(await filtered({ search: '%' }), [])
  t.strictSame(await filtered({ roles: ['ORGANIZATION_ROLE_ADMIN'] }), ['olga'])
  t.strictSame(await filtered({ roles: [2], search: 'e' }), ['abe', 'zed'])
  t.strictSame(await filtered({ userIds: [member.account.uid] }), ['mia'])
  t.strictSame(await filtered({ statuses: ['USER_STATUS_LEFT'] }), [])
  t.equal((await filtered({ statuses: ['USER_STATUS_LEFT', 'USER_STATUS_ACTIVE'] })).length, 5)
  const { group } = (await call('GroupService/CreateGroup', owner.token, { name: 'makers' })).body
  await call('GroupService/CreateMembership', owner.token, {
    groupId: group.id,
    subject: { id: member.account.uid, principal: 'PRINCIPAL_USER' }
  })
  t.strictSame(await filtered({ excludeGroupIds: [group.id] }), ['olga', 'abe', 'Mona', 'zed'])

  const counted = async (message: object) =>
    (await call(MEMBERS, owner.token, { organizationId: acme.uid, ...message })).body.count
  t.strictSame(await counted({ count: { include: true }, pagination: { pageSize: 2 } }), {
    value: 5,
    relation: 'COUNT_RESPONSE_RELATION_EQ'
  })
  t.equal(await counted({}), undefined)
})

t.test('pages of members, by the official client', async (t) => {
  const server = await startOnaServer(t)
  const { owner, acme } = server
  for (let n = 0; n < 10; n++) await server.addMember(acme, await server.createUser(`m${n}`))
  const client = sdk(await server.listen(), owner.token)
  const names: string[] = []
  const list = { organizationId: acme.uid, pagination: { pageSize: 5 } }
  for await (const { fullName } of client.organizations.listMembers(list)) names.push(fullName)
  t.strictSame(names, ['olga', ...Array.from({ length: 10 }, (_, n) => `m${n}`), 'mia'])
  const { organization } = await client.organizations.retrieve({ organizationId: acme.uid })
  t.equal(organization.name, 'acme')
})

t.test('an organization is made with a login of its name', async (t) => {
  const server = await startOnaServer(t)
  const { call, member, db } = server
  const create = async (name: string, message: object = {}) => {
    const { status, body } = await call(CREATE, member.token, { name, ...message })
    t.equal(status, 200, name)
    const row = await db
      .selectFrom('accounts')
      .select(['id', 'login', 'name', 'kind'])
      .where('uid', '=', body.organization.id)
      .executeTakeFirstOrThrow()
    t.match(row, { name, kind: 'organization' })
    return { body, login: row.login, id: row.id }
  }
  const { body, id } = await create('Acme Corp Engineering', {
    joinOrganization: true,
    inviteAccountsWithMatchingDomain: true
  })
  t.match(body, {
    organization: { name: 'Acme Corp Engineering', tier: 'ORGANIZATION_TIER_ENTERPRISE' },
    member: { userId: member.account.uid, role: 'ORGANIZATION_ROLE_ADMIN', fullName: 'mia', email: '' }
  })
  t.strictSame(await rolesIn(server, id), ['mia admin'])
  const { body: quiet, id: second } = await create('Quiet')
  t.equal(quiet.member, undefined)
  t.strictSame(await rolesIn(server, second), ['mia admin'], 'whoever makes one owns it')

  t.equal((await create('  Crème -- brûlée!  ')).login, 'Creme-brulee')
  t.equal((await create('Acme')).login, 'Acme-2', 'there is an acme')
  t.equal((await create('ACME')).login, 'ACME-3')
  t.equal((await create('日本語')).login, 'organization')
  t.equal((await create('日本語!')).login, 'organization-2')
  t.equal((await create('mia')).login, 'mia-2', 'a user has it')
  t.equal((await create('x'.repeat(80))).login, 'x'.repeat(39))
  t.equal((await create('x'.repeat(80))).login, `${'x'.repeat(37)}-2`)
  t.equal((await create(`${'y'.repeat(36)} ${'y'.repeat(40)}`)).login, `${'y'.repeat(36)}-yy`)
  t.equal((await create(`${'y'.repeat(36)} ${'y'.repeat(40)}`)).login, `${'y'.repeat(36)}-2`)

  const groups = await db
    .selectFrom('groups')
    .select(['name', 'everyone'])
    .where('organization_id', '=', id)
    .execute()
  t.strictSame(groups, [{ name: 'everyone', everyone: true }])
  t.strictSame(await actionsIn(server, body.organization.id), [
    'organization.create Acme-Corp-Engineering',
    'group.create everyone',
    'runner.create Coffer',
    'environment_class.create Regular'
  ])
})

t.test('many of one name at one moment are all made', async (t) => {
  const server = await startOnaServer(t)
  const { call, member, db } = server
  const answers = await Promise.all(
    Array.from({ length: 4 }, () => call(CREATE, member.token, { name: 'Twins' }))
  )
  t.strictSame(
    answers.map(({ status }) => status),
    [200, 200, 200, 200]
  )
  const logins = await db.selectFrom('accounts').select('login').where('name', '=', 'Twins').execute()
  t.strictSame(logins.map(({ login }) => login).sort(), ['Twins', 'Twins-2', 'Twins-3', 'Twins-4'])
})

t.test('a token keeps acting where it is made for', async (t) => {
  const server = await startOnaServer(t)
  const { call, member, acme } = server
  const { token } = (await call('UserService/CreatePersonalAccessToken', member.token, {})).body
  const made = await call(CREATE, token, { name: 'Second' })
  const organizationId = made.body.organization.id
  for (const each of [token, member.token]) {
    t.match((await call(IDENTITY, each)).body, { organizationId: acme.uid })
    t.match(await call(GET, each, { organizationId }), NOT_FOUND)
  }
  const hermit = await server.createUser('hermit')
  const first = await server.createToken(hermit, { scopes: SCOPES })
  const own = (await call(CREATE, first, { name: 'Cave' })).body.organization.id
  t.match((await call(IDENTITY, first)).body, { organizationId: own }, 'a first one is where it acts')
})

t.test('who makes no organization, and which is none', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, acme } = server
  const machines = [
    await makeServiceAccount(server, owner.token),
    await makeEnvironment(server, acme),
    await makeRunner(server, acme)
  ]
  const weak = await server.createToken(owner.account, { scopes: ['repo', 'read:org'] })
  for (const token of [weak, ...machines.map(({ token }) => token)]) {
    t.match(await call(CREATE, token, { name: 'Other' }), DENIED)
  }
  for (const name of ['ab', '', undefined, 'x'.repeat(81), 'a\0bc', 7]) {
    t.match(await call(CREATE, owner.token, { name }), INVALID, `${name}`)
    if (name) t.match(await call(UPDATE, owner.token, { organizationId: acme.uid, name }), INVALID)
  }
  t.equal(
    (await server.db.selectFrom('accounts').select('id').where('kind', '=', 'organization').execute()).length,
    2
  )
})

t.test('an owner gives it another name; its login stays', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme } = server
  const wish = { organizationId: acme.uid, name: 'Acme & Sons' }
  t.match(await call(UPDATE, member.token, wish), DENIED)
  t.match(await call(UPDATE, stranger.token, wish), NOT_FOUND)
  const before = (await call(GET, owner.token, { organizationId: acme.uid })).body.organization
  const { organization } = (await call(UPDATE, owner.token, wish)).body
  t.match(organization, { id: acme.uid, name: 'Acme & Sons', createdAt: before.createdAt })
  t.ok(organization.updatedAt > before.updatedAt)
  t.strictSame((await call(GET, member.token, { organizationId: acme.uid })).body, { organization })
  t.strictSame((await call(UPDATE, owner.token, { organizationId: acme.uid })).body, { organization })
  const invites = { organizationId: acme.uid, inviteDomains: { domains: ['example.com'] } }
  t.match(await call(UPDATE, owner.token, invites), INVALID)
  t.equal((await server.request('GET', '/orgs/acme', { token: owner.token })).json().name, 'Acme & Sons')
  t.equal((await actionsIn(server, acme.uid)).at(-1), 'organization.update acme')
})

t.test('roles and memberships; the last owner stays', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme } = server
  const setRole = (token: string, userId: string, role: unknown) =>
    call(SET_ROLE, token, { organizationId: acme.uid, userId, role })
  const leave = (token: string, userId: string) => call(LEAVE, token, { userId })
  const [olga, mia, sam] = [owner.account.uid, member.account.uid, stranger.account.uid]
  const last = { status: 400, body: { code: 'failed_precondition', message: /last owner/ } }

  t.match(await setRole(member.token, mia, 'ORGANIZATION_ROLE_ADMIN'), DENIED)
  t.match(await leave(member.token, olga), DENIED, 'members take nobody out')
  t.match(await setRole(stranger.token, mia, 'ORGANIZATION_ROLE_ADMIN'), NOT_FOUND)
  t.match(await setRole(owner.token, sam, 'ORGANIZATION_ROLE_MEMBER'), NOT_FOUND, 'nobody is added so')
  t.match(await leave(owner.token, sam), NOT_FOUND)
  t.match(await setRole(owner.token, mia, undefined), INVALID)
  t.match(await setRole(owner.token, mia, 'ORGANIZATION_ROLE_UNSPECIFIED'), INVALID)
  const refused = await setRole(owner.token, olga, 'ORGANIZATION_ROLE_MEMBER')
  t.match(refused, last)
  t.equal(refused.headers['x-should-retry'], 'false')
  t.match(await leave(owner.token, olga), last)
  t.strictSame(await rolesIn(server, acme.id), ['mia member', 'olga admin'])

  t.strictSame((await setRole(owner.token, mia, 'ORGANIZATION_ROLE_ADMIN')).body, {})
  t.strictSame((await setRole(member.token, olga, 2)).body, {})
  t.match(await leave(member.token, mia), last)
  t.strictSame(await rolesIn(server, acme.id), ['mia admin', 'olga member'])
  t.strictSame((await leave(owner.token, olga)).body, {})
  t.match(await leave(owner.token, olga), DENIED, 'who acts nowhere leaves nothing')
  t.strictSame((await actionsIn(server, acme.uid)).slice(-3), [
    'membership.set.admin mia',
    'membership.set.member olga',
    'membership.remove olga'
  ])
  const serviceAccount = await makeServiceAccount(server, member.token)
  t.match(await leave(serviceAccount.token, serviceAccount.uid), DENIED)
  const weak = await server.createToken(member.account, { scopes: ['read:org'] })
  t.match(await leave(weak, mia), DENIED)
})

t.test('an organization goes with all that it has, each recorded at once', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme, db } = server
  const [environment, runner] = [await makeEnvironment(server, acme), await makeRunner(server, acme)]
  const serviceAccount = await makeServiceAccount(server, owner.token)
  const removed = await makeServiceAccount(server, owner.token, 'gone before')
  await call('ServiceAccountService/DeleteServiceAccount', owner.token, { serviceAccountId: removed.uid })
  const pat = (await call('UserService/CreatePersonalAccessToken', member.token, {})).body.token
  const own = (await call('UserService/CreatePersonalAccessToken', owner.token, {})).body.token
  const elsewhere = (await call('UserService/CreatePersonalAccessToken', stranger.token, {})).body.token
  await server.createRepository(acme, 'web')
  const { project } = (
    await call('ProjectService/CreateProject', owner.token, { name: 'site', initializer: {} })
  ).body
  const { group } = (await call('GroupService/CreateGroup', owner.token, { name: 'makers' })).body
  for (const [id, principal] of [
    [member.account.uid, 'PRINCIPAL_USER'],
    [serviceAccount.uid, 'PRINCIPAL_SERVICE_ACCOUNT']
  ]) {
    const subject = { id, principal }
    t.equal(
      (await call('GroupService/CreateMembership', owner.token, { groupId: group.id, subject })).status,
      200
    )
  }
  const scopes = [
    { projectId: project.id },
    { organizationId: acme.uid },
    { serviceAccountId: serviceAccount.uid },
    { userId: owner.account.uid }
  ]
  for (const scope of scopes) {
    const secret = { name: 'GONE', value: 'v', environmentVariable: true, scope }
    t.equal((await call('SecretService/CreateSecret', owner.token, secret)).status, 200)
  }
  for (const token of [pat, own, environment.token, runner.token, serviceAccount.token]) {
    t.equal((await call(IDENTITY, token)).status, 200)
  }

  const message = { organizationId: acme.uid }
  t.match(await call(DELETE, member.token, message), DENIED)
  t.match(await call(DELETE, stranger.token, message), NOT_FOUND)
  t.match(await call(DELETE, owner.token, {}), INVALID)
  const deleted = await call(DELETE, own, message)
  t.strictSame([deleted.status, deleted.body], [200, {}], 'by a token that goes with it')

  for (const token of [pat, own, environment.token, runner.token, serviceAccount.token]) {
    t.equal((await call(IDENTITY, token)).status, 401, 'no token acts in it any more')
  }
  for (const { token } of [owner, member]) {
    t.notOk((await call(IDENTITY, token)).body.organizationId, 'those that were not made for it stay')
  }
  t.match((await call(IDENTITY, elsewhere)).body, { organizationId: stranger.organization.uid })
  const left = await db.selectFrom('secrets').select(['kind', 'owner_uid']).execute()
  t.strictSame(left, [{ kind: 'user', owner_uid: owner.account.uid }])
  for (const table of ['projects', 'service_accounts', 'environments', 'group_members'] as const) {
    t.strictSame(await db.selectFrom(table).selectAll().execute(), [], table)
  }
  for (const table of ['groups', 'runners', 'memberships'] as const) {
    const rows = await db.selectFrom(table).select('organization_id').execute()
    t.notOk(
      rows.some(({ organization_id }) => organization_id === acme.id),
      table
    )
  }

  const events = await db
    .selectFrom('audit_events')
    .select(['action', 'name', 'stream_uid', 'transaction_id', 'collection'])
    .where('actor_uid', '=', owner.account.uid)
    .orderBy('id')
    .execute()
  const { transaction_id } = events.find(({ action }) => action === 'organization.remove')!
  const together = events.filter((event) => event.transaction_id === transaction_id)
  const inAcme = together.filter(({ stream_uid }) => stream_uid === acme.uid)
  t.strictSame(
    inAcme
      .filter(({ action }) => action !== 'secret.remove')
      .map(({ action, name }) => `${action} ${name?.replace(/#\d+$/, '')}`)
      .sort(),
    [
      `development_environment.remove ${environment.uid}`,
      'organization.remove acme',
      'project.remove site',
      'repository.remove web',
      'service_account.remove ci',
      'token.revoke ci',
      `token.revoke ${environment.uid}`,
      'token.revoke far away'
    ].sort()
  )
  t.strictSame(
    inAcme.flatMap(({ collection }) => collection ?? []).sort(),
    [
      `codespaces/organization/${acme.uid}`,
      `codespaces/project/${project.id}`,
      `codespaces/service-account/${serviceAccount.uid}`
    ].sort()
  )
  for (const { account } of [owner, member]) {
    const own = together.filter(
      ({ stream_uid, name }) => stream_uid === account.uid && name?.startsWith(`${account.login}#`)
    )
    t.strictSame(
      own.map(({ action }) => action),
      ['token.revoke'],
      `in the log of ${account.login}`
    )
  }
  await isConsistent(t, db)
})

t.test('GitHub’s API deletes the same', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, db } = server
  const serviceAccount = await makeServiceAccount(server, owner.token)
  const pat = (await call('UserService/CreatePersonalAccessToken', member.token, {})).body.token
  await call('ProjectService/CreateProject', owner.token, { name: 'site', initializer: {} })
  t.equal((await server.request('DELETE', '/orgs/acme', { token: owner.token })).statusCode, 202)
  for (const token of [serviceAccount.token, pat]) t.equal((await call(IDENTITY, token)).status, 401)
  t.strictSame(await db.selectFrom('projects').selectAll().execute(), [])
  await isConsistent(t, db)
})

t.test('two who delete it at one moment do not hang', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, acme } = server
  const { token } = (await call('UserService/CreatePersonalAccessToken', owner.token, {})).body
  const answers = await Promise.all(
    Array.from({ length: 3 }, () => call(DELETE, token, { organizationId: acme.uid }))
  )
  const [deleted, ...late] = answers.map(({ status }) => status).sort()
  t.equal(deleted, 200)
  // Their token went with the organization: before it was looked up, or right after that.
  t.ok(
    late.every((status) => status === 401 || status === 403),
    `${late}`
  )
})

t.test('an organization that is deleted while it is worked on leaves nothing behind', async (t) => {
  const server = await startOnaServer(t, { logLevel: 'error' })
  const { call, db } = server
  for (let round = 0; round < 3; round++) {
    const account = await server.createUser(`user-${round}`)
    const first = await server.createToken(account, { scopes: SCOPES })
    const made = await call(CREATE, first, { name: `Short-lived ${round}` })
    const organizationId = made.body.organization.id
    const { token } = (await call('UserService/CreatePersonalAccessToken', first, {})).body
    const ci = await makeServiceAccount(server, token, 'ci')
    const { project } = (await call('ProjectService/CreateProject', token, { name: 'site', initializer: {} }))
      .body
    const { group } = (await call('GroupService/CreateGroup', token, { name: 'makers' })).body
    const secret = (n: number, scope: object) =>
      call('SecretService/CreateSecret', token, {
        name: `N${n}00`,
        value: 'soon gone',
        environmentVariable: true,
        scope
      })
    const work = Array.from({ length: 48 }, (_, n) => {
      switch (n % 8) {
        case 0:
          return secret(n, { projectId: project.id })
        case 1:
          return secret(n, { serviceAccountId: ci.uid })
        case 2:
          return call('UserService/CreatePersonalAccessToken', token, {})
        case 3:
          return call('ServiceAccountService/CreateServiceAccountToken', ci.token, {})
        case 4:
          return call('ServiceAccountService/CreateServiceAccountAccessToken', token, {
            serviceAccountId: ci.uid
          })
        case 5:
          return call('GroupService/CreateGroup', token, { name: `group ${n}` })
        case 6:
          return call('GroupService/CreateMembership', token, {
            groupId: group.id,
            subject: { id: ci.uid, principal: 'PRINCIPAL_SERVICE_ACCOUNT' }
          })
        default:
          return secret(n, { organizationId })
      }
    })
    const deleted = await call(DELETE, first, { organizationId })
    t.equal(deleted.status, 200)
    const statuses = (await Promise.all(work)).map(({ status }) => status)
    t.strictSame(
      [...new Set(statuses)].filter((status) => ![200, 401, 403, 404, 409].includes(status)),
      [],
      statuses.join(' ')
    )
    t.strictSame(server.log, [])
    await isConsistent(t, db)
    const left = await db.selectFrom('tokens').select('kind').where('account_id', '=', account.id).execute()
    t.strictSame(left, [{ kind: 'classic' }], 'the one that was for no organization')
    for (const table of ['projects', 'service_accounts', 'group_members'] as const) {
      t.strictSame(await db.selectFrom(table).selectAll().execute(), [], `${table} of round ${round}`)
    }
  }
  const { rows } = await sql<{ name: string }>`
    select name from audit_events where action in ('token.create', 'token.revoke') and name like 'ci#%'
    group by name having count(distinct action) <> 2`.execute(db)
  t.strictSame(rows, [], 'what was made is recorded as revoked')
})
