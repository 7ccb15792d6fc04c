import t from 'tap'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'
import { makeEnvironment, makeRunner, makeServiceAccount } from './machines.ts'

t.setTimeout(240_000)

const CREATE = 'GroupService/CreateGroup'
const GET = 'GroupService/GetGroup'
const LIST = 'GroupService/ListGroups'
const UPDATE = 'GroupService/UpdateGroup'
const DELETE = 'GroupService/DeleteGroup'
const ADD = 'GroupService/CreateMembership'
const GET_MEMBER = 'GroupService/GetMembership'
const MEMBERS = 'GroupService/ListMemberships'
const REMOVE = 'GroupService/DeleteMembership'

const NOT_FOUND = { status: 404, body: { code: 'not_found' } }
const DENIED = { status: 403, body: { code: 'permission_denied' } }
const INVALID = { status: 400, body: { code: 'invalid_argument' } }
const EXISTS = { status: 409, body: { code: 'already_exists' } }
const FAILED = { status: 400, body: { code: 'failed_precondition' } }
const UNKNOWN = '00000000-0000-4000-8000-000000000000'

const user = (id: string) => ({ id, principal: 'PRINCIPAL_USER' })
const robot = (id: string) => ({ id, principal: 'PRINCIPAL_SERVICE_ACCOUNT' })

async function makeGroup({ call, owner }: OnaServer, name: string, description = '') {
  return (await call(CREATE, owner.token, { name, description })).body.group
}

async function namesIn({ call, owner }: OnaServer, groupId: string, filter: object = {}): Promise<string[]> {
  const { body } = await call(MEMBERS, owner.token, { groupId, filter })
  return (body.members ?? []).map(({ name }: { name: string }) => name)
}

async function groupEvents({ db, acme }: OnaServer): Promise<string[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(['action', 'name', 'subject_uid'])
    .where('stream_uid', '=', acme.uid)
    .where('action', 'like', 'group.%')
    // That one is there from the beginning.
    .where('name', '!=', 'everyone')
    .orderBy('id')
    .execute()
  return rows.map(({ action, name }) => `${action} ${name}`)
}

t.test('an owner makes, changes and deletes groups; who belongs to it sees them', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme } = server
  const made = await call(CREATE, owner.token, {
    organizationId: acme.uid,
    name: 'makers',
    description: 'of things'
  })
  t.equal(made.status, 200)
  const { group } = made.body
  const { id, createdAt } = group
  t.match(createdAt, /^20.*Z$/)
  t.strictSame(group, {
    id,
    organizationId: acme.uid,
    name: 'makers',
    createdAt,
    updatedAt: createdAt,
    description: 'of things'
  })
  const serviceAccount = await makeServiceAccount(server, owner.token)
  for (const token of [owner.token, member.token, serviceAccount.token]) {
    for (const message of [{ groupId: id }, { id }, { name: 'makers' }, { groupId: UNKNOWN, id }]) {
      t.strictSame((await call(GET, token, message)).body, { group })
    }
    t.match((await call(LIST, token, {})).body.groups, [{ name: 'everyone', systemManaged: true }, group])
  }
  const renamed = (await call(UPDATE, owner.token, { groupId: id, name: 'menders' })).body.group
  t.match(renamed, { id, name: 'menders', description: 'of things', createdAt })
  t.ok(renamed.updatedAt > createdAt)
  const cleared = (await call(UPDATE, owner.token, { groupId: id, description: '' })).body.group
  t.notOk('description' in cleared)
  t.equal(cleared.name, 'menders')
  t.strictSame((await call(DELETE, owner.token, { groupId: id })).body, {})
  for (const [method, message] of [
    [GET, { id }],
    [UPDATE, { groupId: id, name: 'other' }],
    [DELETE, { groupId: id }],
    [MEMBERS, { groupId: id }],
    [ADD, { groupId: id, subject: user(member.account.uid) }]
  ] as const) {
    t.match(await call(method, owner.token, message), NOT_FOUND, method)
  }
  t.strictSame(await groupEvents(server), [
    'group.create makers',
    'group.update menders',
    'group.update menders',
    'group.remove menders'
  ])
})

t.test('nobody else changes them, and no other organization knows of them', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme } = server
  const { id } = await makeGroup(server, 'makers')
  const added = await call(ADD, owner.token, { groupId: id, subject: user(owner.account.uid) })
  const membershipId = added.body.member.id
  const serviceAccount = await makeServiceAccount(server, owner.token)
  const subject = user(member.account.uid)
  const weak = await server.createToken(owner.account, { scopes: ['read:org'] })
  const changes: [string, object][] = [
    [UPDATE, { groupId: id, name: 'other' }],
    [DELETE, { groupId: id }],
    [ADD, { groupId: id, subject }],
    [REMOVE, { membershipId }]
  ]
  for (const token of [member.token, serviceAccount.token, weak]) {
    t.match(await call(CREATE, token, { name: 'mine' }), DENIED)
    for (const [method, message] of changes) t.match(await call(method, token, message), DENIED, method)
  }
  for (const { token } of [await makeEnvironment(server, acme), await makeRunner(server, acme)]) {
    t.match(await call(LIST, token, {}), DENIED)
  }
  const reads: [string, object][] = [
    [GET, { id }],
    [GET, { name: 'makers' }],
    [MEMBERS, { groupId: id }],
    [GET_MEMBER, { groupId: id, subject }]
  ]
  for (const [method, message] of [...changes, ...reads]) {
    t.match(await call(method, stranger.token, message), NOT_FOUND, method)
  }
  t.match(await call(CREATE, stranger.token, { organizationId: acme.uid, name: 'mine' }), NOT_FOUND)
  t.match(await call(CREATE, owner.token, { organizationId: UNKNOWN, name: 'mine' }), NOT_FOUND)
  const { groups } = (await call(LIST, stranger.token, { filter: { groupIds: [id] } })).body
  t.equal(groups, undefined)
  t.strictSame(await namesIn(server, id), ['olga'])
  t.strictSame(await groupEvents(server), ['group.create makers', 'group.member.add makers: olga'])
})

t.test('a name is taken once in an organization', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, stranger } = server
  const { id } = await makeGroup(server, 'makers')
  const twice = await call(CREATE, owner.token, { name: 'makers' })
  t.match(twice, EXISTS)
  t.equal(twice.headers['x-should-retry'], 'false')
  t.match(await call(CREATE, owner.token, { name: 'everyone' }), EXISTS)
  const other = await makeGroup(server, 'Makers')
  t.match(await call(UPDATE, owner.token, { groupId: other.id, name: 'makers' }), EXISTS)
  t.equal((await call(UPDATE, owner.token, { groupId: id, name: 'makers' })).status, 200, 'its own')
  t.equal((await call(CREATE, stranger.token, { name: 'makers' })).status, 200, 'elsewhere')

  const answers = await Promise.all(
    Array.from({ length: 5 }, () => call(CREATE, owner.token, { name: 'twins' }))
  )
  t.strictSame(answers.map(({ status }) => status).sort(), [200, 409, 409, 409, 409])
  const { groups } = (await call(LIST, owner.token, { filter: { search: 'twins' } })).body
  t.equal(groups.length, 1)
  t.equal((await groupEvents(server)).filter((event) => event === 'group.create twins').length, 1)
})

t.test('members are users and service accounts of the organization', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger, acme, db } = server
  await db.updateTable('accounts').set({ name: 'Mia M.' }).where('id', '=', member.account.id).execute()
  const { id: groupId } = await makeGroup(server, 'makers')
  const { uid } = await makeServiceAccount(server, owner.token)
  const add = (subject: unknown) => call(ADD, owner.token, { groupId, subject })
  const mia = await add(user(member.account.uid))
  t.equal(mia.status, 200)
  t.strictSame(mia.body, {
    member: { id: mia.body.member.id, subject: user(member.account.uid), groupId, name: 'Mia M.' }
  })
  const ci = await add(robot(uid))
  t.match(ci.body.member, { subject: robot(uid), groupId, name: 'ci' })
  t.match(await add(user(member.account.uid)), EXISTS)
  t.match(await add(robot(uid)), EXISTS)

  const runner = await makeRunner(server, acme)
  for (const subject of [
    user(stranger.account.uid),
    user(UNKNOWN),
    user(acme.uid),
    user(uid),
    robot(member.account.uid),
    robot(UNKNOWN)
  ]) {
    t.match(await add(subject), NOT_FOUND, JSON.stringify(subject))
  }
  for (const subject of [
    undefined,
    {},
    { principal: 'PRINCIPAL_USER' },
    { id: member.account.uid },
    { id: runner.uid, principal: 'PRINCIPAL_RUNNER' },
    { id: 'mia', principal: 'PRINCIPAL_USER' }
  ]) {
    t.match(await add(subject), INVALID, JSON.stringify(subject))
  }
  const found = (subject: object) => call(GET_MEMBER, member.token, { groupId, subject })
  t.strictSame((await found(user(member.account.uid))).body, mia.body)
  t.strictSame((await found(robot(uid))).body, ci.body)
  for (const subject of [user(owner.account.uid), user(stranger.account.uid), robot(member.account.uid)]) {
    t.strictSame((await found(subject)).body, {}, 'who is in no group has no membership')
  }
  t.strictSame(await namesIn(server, groupId), ['Mia M.', 'ci'])
  t.strictSame(await namesIn(server, groupId, { search: 'MIA' }), ['Mia M.'])
  t.strictSame(await namesIn(server, groupId, { search: uid.slice(0, 13) }), ['ci'])
  t.equal((await call(GET, owner.token, { id: groupId })).body.group.memberCount, 2)

  t.strictSame((await call(REMOVE, owner.token, { membershipId: mia.body.member.id })).body, {})
  t.match(await call(REMOVE, owner.token, { membershipId: mia.body.member.id }), NOT_FOUND)
  t.match(await call(REMOVE, stranger.token, { membershipId: ci.body.member.id }), NOT_FOUND)
  t.match(await call(REMOVE, owner.token, {}), INVALID)
  t.strictSame(await namesIn(server, groupId), ['ci'])
  t.equal((await add(user(member.account.uid))).status, 200, 'again')
  t.strictSame(await groupEvents(server), [
    'group.create makers',
    'group.member.add makers: mia',
    'group.member.add makers: ci',
    'group.member.remove makers: mia',
    'group.member.add makers: mia'
  ])
})

t.test('everyone is a group that nobody changes', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme } = server
  const first = await makeServiceAccount(server, owner.token, 'first')
  const { group } = (await call(GET, member.token, { name: 'everyone' })).body
  t.match(group, { systemManaged: true, memberCount: 3, organizationId: acme.uid })
  const groupId = group.id
  t.strictSame(await namesIn(server, groupId), ['olga', 'mia', 'first'])
  const late = await server.createUser('late')
  await server.addMember(acme, late)
  t.strictSame(await namesIn(server, groupId), ['olga', 'mia', 'first', 'late'])
  const { members } = (await call(MEMBERS, member.token, { groupId })).body
  t.strictSame(
    members.map(({ subject }: { subject: object }) => subject),
    [user(owner.account.uid), user(member.account.uid), robot(first.uid), user(late.uid)]
  )
  const found = await call(GET_MEMBER, member.token, { groupId, subject: robot(first.uid) })
  t.strictSame(found.body.member, members[2], 'its id is always the same')
  t.equal(new Set(members.map(({ id }: { id: string }) => id)).size, 4)

  for (const [method, message] of [
    [UPDATE, { groupId, name: 'nobody' }],
    [UPDATE, { groupId, description: 'x' }],
    [DELETE, { groupId }],
    [ADD, { groupId, subject: user(member.account.uid) }],
    [REMOVE, { membershipId: members[1].id }]
  ] as const) {
    t.match(await call(method, owner.token, message), FAILED, method)
  }
  await call('ServiceAccountService/DeleteServiceAccount', owner.token, { serviceAccountId: first.uid })
  await call('OrganizationService/LeaveOrganization', owner.token, { userId: late.uid })
  t.strictSame(await namesIn(server, groupId), ['olga', 'mia'])
  t.equal((await call(GET, owner.token, { id: groupId })).body.group.memberCount, 2)
  t.strictSame(await groupEvents(server), [])
})

t.test('who leaves an organization leaves its groups, and those of no other', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger } = server
  const { id: groupId } = await makeGroup(server, 'makers')
  const { project } = (
    await call('ProjectService/CreateProject', owner.token, { name: 'site', initializer: {} })
  ).body
  await call('ProjectService/CreateProjectPolicy', owner.token, {
    projectId: project.id,
    groupId,
    role: 'PROJECT_ROLE_EDITOR'
  })
  await call(ADD, owner.token, { groupId, subject: user(member.account.uid) })
  await server.addMember(stranger.organization, member.account)
  const other = (await call(CREATE, stranger.token, { name: 'makers' })).body.group
  await call(ADD, stranger.token, { groupId: other.id, subject: user(member.account.uid) })
  const get = () => call('ProjectService/GetProject', member.token, { projectId: project.id })
  t.equal((await get()).status, 200, 'a role by the group')

  const left = await server.request('DELETE', '/orgs/acme/memberships/mia', { token: owner.token })
  t.equal(left.statusCode, 204)
  t.strictSame(await namesIn(server, groupId), [])
  const { members } = (await call(MEMBERS, stranger.token, { groupId: other.id })).body
  t.equal(members.length, 1)
  await server.addMember(server.acme, member.account)
  t.match(await get(), NOT_FOUND, 'and who comes back begins anew')
  const again = await call(ADD, owner.token, { groupId, subject: user(member.account.uid) })
  t.equal(again.status, 200)
  const removed = await server.request('DELETE', '/admin/users/mia', { token: server.admin.token })
  t.equal(removed.statusCode, 204)
  t.strictSame(await namesIn(server, groupId), [], 'a user that is deleted, too')
  t.equal((await call(GET, owner.token, { id: groupId })).body.group.memberCount, undefined)
})

t.test('a group that is deleted takes its roles on projects with it', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member } = server
  const { id: groupId } = await makeGroup(server, 'makers')
  await call(ADD, owner.token, { groupId, subject: user(member.account.uid) })
  const { project } = (
    await call('ProjectService/CreateProject', owner.token, { name: 'site', initializer: {} })
  ).body
  const projectId = project.id
  const policy = { projectId, groupId, role: 'PROJECT_ROLE_USER' }
  await call('ProjectService/CreateProjectPolicy', owner.token, policy)
  t.equal((await call('ProjectService/GetProject', member.token, { projectId })).status, 200)
  t.equal((await call(DELETE, owner.token, { groupId })).status, 200)
  t.match(await call('ProjectService/GetProject', member.token, { projectId }), NOT_FOUND)
  const { policies } = (await call('ProjectService/ListProjectPolicies', owner.token, { projectId })).body
  t.equal(policies, undefined)
})

t.test('which groups are listed, and their pages', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner } = server
  const ids: string[] = []
  for (const [name, description] of [
    ['web-makers', 'Frontend'],
    ['api-makers', ''],
    ['100%', '']
  ] as const) {
    ids.push((await makeGroup(server, name, description)).id)
  }
  const list = async (filter: object) => {
    const { body } = await call(LIST, owner.token, { filter })
    return (body.groups ?? []).map(({ name }: { name: string }) => name)
  }
  t.strictSame(await list({}), ['everyone', 'web-makers', 'api-makers', '100%'])
  t.strictSame(await list({ search: 'MAKERS' }), ['web-makers', 'api-makers'])
  t.strictSame(await list({ search: 'frontend' }), ['web-makers'])
  t.strictSame(await list({ search: ids[1] }), ['api-makers'])
  t.strictSame(await list({ search: '%' }), ['100%'])
  t.strictSame(await list({ systemManaged: true }), ['everyone'])
  t.strictSame(await list({ systemManaged: false }), ['web-makers', 'api-makers', '100%'])
  t.strictSame(await list({ groupIds: [ids[2], UNKNOWN] }), ['100%'])
  t.strictSame(await list({ directShare: true }), [])
  t.equal((await list({ directShare: false })).length, 4)

  for (const login of ['ann', 'bob', 'cat']) {
    const account = await server.createUser(login)
    await server.addMember(server.acme, account)
    await call(ADD, owner.token, { groupId: ids[0], subject: user(account.uid) })
  }
  const names: string[][] = []
  for (let token: string | undefined = ''; token !== undefined; ) {
    const message = { groupId: ids[0], pagination: { pageSize: 2, token } }
    const { body } = await call(MEMBERS, owner.token, message)
    names.push(body.members.map(({ name }: { name: string }) => name))
    token = body.pagination.nextToken
  }
  t.strictSame(names, [['ann', 'bob'], ['cat']])

  const client = sdk(await server.listen(), owner.token)
  const listed: (string | undefined)[] = []
  for await (const group of client.groups.list({ pagination: { pageSize: 3 } })) listed.push(group.name)
  t.strictSame(listed, ['everyone', 'web-makers', 'api-makers', '100%'])
})

t.test('every constraint, by its field', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner } = server
  const { id: groupId } = await makeGroup(server, 'makers')
  const refused = async (method: string, message: object, field: string) => {
    const { status, body } = await call(method, owner.token, message)
    t.match({ status, body }, INVALID, JSON.stringify(message))
    t.ok(body.message.startsWith(`${field}: `), body.message)
  }
  for (const name of ['', 'ab', undefined, null, 'x'.repeat(81), 'a\0bc', 7]) {
    await refused(CREATE, { name }, 'name')
  }
  await refused(CREATE, { name: 'abc', description: 'x'.repeat(256) }, 'description')
  await refused(CREATE, { name: 'abc', organizationId: 'acme' }, 'organizationId')
  await refused(UPDATE, { groupId, name: 'ab' }, 'name')
  await refused(UPDATE, { name: 'abc' }, 'groupId')
  await refused(GET, {}, 'group')
  await refused(GET, { id: groupId, name: 'makers' }, 'group')
  await refused(GET, { id: 'makers' }, 'id')
  await refused(LIST, { filter: { search: 'x'.repeat(257) } }, 'filter.search')
  await refused(LIST, { filter: { groupIds: Array.from({ length: 26 }, () => groupId) } }, 'filter.groupIds')
  await refused(MEMBERS, { groupId, filter: { search: 'x'.repeat(257) } }, 'filter.search')
})

t.test('who is added while leaving is in no group afterwards', async (t) => {
  const server = await startOnaServer(t, { logLevel: 'error' })
  const { call, owner, acme, db } = server
  const { id: groupId } = await makeGroup(server, 'makers')
  for (let round = 0; round < 5; round++) {
    const account = await server.createUser(`brief-${round}`)
    await server.addMember(acme, account)
    const [added, left] = await Promise.all([
      call(ADD, owner.token, { groupId, subject: user(account.uid) }),
      call('OrganizationService/LeaveOrganization', owner.token, { userId: account.uid })
    ])
    t.ok(added.status === 200 || added.status === 404, `${added.status}`)
    t.equal(left.status, 200)
    t.strictSame(await db.selectFrom('group_members').selectAll().execute(), [])
  }
  t.strictSame(server.log, [])
})
