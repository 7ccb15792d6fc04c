import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { SCOPES } from '../../../src/auth/scopes.ts'
import { loadConfig } from '../../../src/config.ts'
import { removeOrganization } from '../../../src/directory/accounts.ts'
import { removeMembership } from '../../../src/directory/memberships.ts'
import { revokeAll } from '../../../src/directory/tokens.ts'
import { createMasterKey } from '../../../src/keyring/index.ts'
import { serve } from '../../../src/main.ts'
import type { Account } from '../../../src/store/accounts.ts'
import { createTestDatabase, SYSTEM, startSecondNode } from '../../helper.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'
import {
  makeEnvironment,
  makeGroup,
  makeProject,
  makeServiceAccount,
  mark,
  record,
  type Told,
  type Watched,
  watch
} from './watching.ts'

t.setTimeout(180_000)

const UPDATED = 'RESOURCE_OPERATION_UPDATE'
const CREATED = 'RESOURCE_OPERATION_CREATE'
const DELETED = 'RESOURCE_OPERATION_DELETE'

function told(operation: string, type: string, resourceId: string): Told {
  return { operation, resourceType: `RESOURCE_TYPE_${type}`, resourceId }
}

/** Where a keepalive is not what a test is about, there is none that could end a stream. */
const QUIET = { events: true, eventKeepaliveMs: 3_600_000 }

async function start(t: Test, options: Parameters<typeof startOnaServer>[1] = {}) {
  const server = await startOnaServer(t, { ...QUIET, ...options })
  return { server, url: await server.listen() }
}

/** Each of these watchers has nothing more to hear. */
async function heardAll(t: Test, server: OnaServer, watchers: Record<string, Watched>): Promise<void> {
  const marked = await mark(server)
  for (const [name, watched] of Object.entries(watchers)) {
    t.strictSame(await watched.next(), marked, `${name} heard nothing else`)
  }
}

async function createSecret(server: OnaServer, token: string, name: string, scope: object): Promise<string> {
  const message = { name, value: 'v', environmentVariable: true, scope }
  const { body, status } = await server.call('SecretService/CreateSecret', token, message)
  if (status !== 200) throw new Error(`CreateSecret answered ${status}`)
  return body.secret.id
}

t.test('a stream on the wire: headers at once, a line for each event', async (t) => {
  const { server, url } = await start(t)
  const watched = await watch(t, url, server.owner.token)
  t.equal(watched.status, 200)
  t.equal(watched.headers['content-type'], 'application/jsonl')
  t.equal(watched.headers['cache-control'], 'no-store')
  t.ok(watched.headers['x-request-id'])
  const projectId = await makeProject(server, 'web')
  t.strictSame(await watched.next(), told(CREATED, 'PROJECT', projectId))
  const secretId = await createSecret(server, server.owner.token, 'A_B', { projectId })
  t.strictSame(await watched.next(), told(CREATED, 'SECRET', secretId))
  await server.call('SecretService/UpdateSecretValue', server.owner.token, { secretId, value: 'w' })
  t.strictSame(await watched.next(), told(UPDATED, 'SECRET', secretId))
  await server.call('ProjectService/DeleteProject', server.owner.token, { projectId })
  t.strictSame(await watched.next(), told(DELETED, 'SECRET', secretId))
  t.strictSame(await watched.next(), told(DELETED, 'PROJECT', projectId))
})

t.test('by the official client, and as Python sends it', async (t) => {
  const { server, url } = await start(t)
  const stream = await sdk(url, server.owner.token).events.watch({ organization: true })
  const python = await watch(t, url, server.owner.token, {
    message: { resourceTypeFilters: [] },
    headers: { 'content-type': 'application/json', 'user-agent': 'Gitpod/Python 0.7.0' }
  })
  const empty = await watch(t, url, server.owner.token, { message: '' })
  const reading = await server.createToken(server.owner.account, { scopes: ['read:org'] })
  await server.db
    .updateTable('tokens')
    .set({ read_only: true })
    .where('last_eight', '=', reading.slice(-8))
    .execute()
  const readOnly = await watch(t, url, reading)
  const projectId = await makeProject(server, 'web')
  for await (const event of stream) {
    t.strictSame(event, told(CREATED, 'PROJECT', projectId))
    break
  }
  t.strictSame(await python.next(), told(CREATED, 'PROJECT', projectId))
  t.strictSame(await empty.next(), told(CREATED, 'PROJECT', projectId))
  t.strictSame(await readOnly.next(), told(CREATED, 'PROJECT', projectId))
})

t.test('what happens on one server is told on every other', async (t) => {
  const { server } = await start(t)
  const second = await startSecondNode(t, server, QUIET)
  const there = await second.listen({ host: '127.0.0.1', port: 0 })
  const watched = await watch(t, there, server.owner.token)
  const projectId = await makeProject(server, 'web')
  t.strictSame(await watched.next(), told(CREATED, 'PROJECT', projectId))
  const found = await fetch(`${there}/api/gitpod.v1.ProjectService/GetProject`, {
    method: 'POST',
    headers: { authorization: `Bearer ${server.owner.token}` },
    body: JSON.stringify({ projectId })
  })
  t.equal(found.status, 200, 'it can be read there when it is told')
})

t.test('what is no stream is an error as for any method', async (t) => {
  const { server, url } = await start(t)
  const { owner, stranger } = server
  const nobody = await server.createToken(await server.createUser('nora'), { scopes: SCOPES })
  const scopeless = await server.createToken(owner.account, { scopes: ['repo'] })
  const filter = { resourceType: 'RESOURCE_TYPE_PROJECT' }
  const environment = await makeEnvironment(server, owner.account)
  const project = crypto.randomUUID()
  const refused: [string, string, object | string, number, string][] = [
    ['a bad token', 'coffer_pat_x', {}, 401, 'unauthenticated'],
    ['no organization', nobody, {}, 403, 'permission_denied'],
    ['no scope', scopeless, {}, 403, 'permission_denied'],
    ['no scope, of an environment', scopeless, { environmentId: environment.uid }, 403, 'permission_denied'],
    ['an environment, the organization', environment.token, {}, 403, 'permission_denied'],
    ['no JSON', owner.token, '{', 400, 'invalid_argument'],
    ['two scopes', owner.token, { organization: true, environmentId: project }, 400, 'invalid_argument'],
    ['an unknown environment', owner.token, { environmentId: project }, 404, 'not_found'],
    ['that of others', stranger.token, { environmentId: environment.uid }, 404, 'not_found'],
    ['no UUID', owner.token, { environmentId: 'x' }, 400, 'invalid_argument'],
    [
      'filters with an environment',
      owner.token,
      { environmentId: environment.uid, resourceTypeFilters: [filter] },
      400,
      'invalid_argument'
    ],
    ['a filter without a type', owner.token, { resourceTypeFilters: [{}] }, 400, 'invalid_argument'],
    ['51 filters', owner.token, { resourceTypeFilters: Array(51).fill(filter) }, 400, 'invalid_argument'],
    [
      '26 ids',
      owner.token,
      { resourceTypeFilters: [{ ...filter, resourceIds: Array(26).fill(project) }] },
      400,
      'invalid_argument'
    ]
  ]
  for (const [name, token, message, status, code] of refused) {
    const answer = await fetch(`${url}/api/gitpod.v1.EventService/WatchEvents`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/jsonl' },
      body: typeof message === 'string' ? message : JSON.stringify(message)
    })
    t.equal(answer.status, status, name)
    t.equal(answer.headers.get('content-type'), 'application/json', name)
    t.equal(((await answer.json()) as { code: string }).code, code, name)
  }
})

t.test('filters: type, ids, creators', async (t) => {
  const { server, url } = await start(t)
  const { owner, member, acme } = server
  const filtered = async (...resourceTypeFilters: object[]) =>
    await watch(t, url, owner.token, { message: { resourceTypeFilters } })
  const kept = await makeProject(server, 'kept')
  const type = 'RESOURCE_TYPE_PROJECT'
  const projects = await filtered({ resource_type: 3 })
  const one = await filtered({ resourceType: type, resourceIds: [kept] })
  const either = await filtered(
    { resourceType: type, resourceIds: [kept] },
    { resourceType: 'RESOURCE_TYPE_GROUP' }
  )
  const mine = await filtered({ resourceType: type, creatorIds: [owner.account.uid] })
  const others = await filtered({ resourceType: type, creatorIds: [member.account.uid] })
  const creatorless = await filtered({ resourceType: 'RESOURCE_TYPE_GROUP', creatorIds: [owner.account.uid] })
  const groups = await filtered({ resourceType: 'RESOURCE_TYPE_GROUP' })

  const expect = async (expected: readonly [name: string, watched: Watched, events: Told[]][]) => {
    for (const [name, watched, events] of expected) {
      for (const event of events) t.strictSame(await watched.next(), event, name)
    }
  }
  const made = await makeProject(server, 'made')
  await createSecret(server, owner.token, 'A_B', { projectId: kept })
  await server.call('ProjectService/UpdateProject', owner.token, { projectId: kept, name: 'still' })
  const group = crypto.randomUUID()
  await record(server.db, acme.uid, 'group.update', group)
  const create = told(CREATED, 'PROJECT', made)
  const update = told(UPDATED, 'PROJECT', kept)
  const change = told(UPDATED, 'GROUP', group)
  // Told before anything goes: of what is gone by then, nobody can say who had made it.
  await expect([
    ['projects', projects, [create, update]],
    ['one project', one, [update]],
    ['either', either, [update, change]],
    ['those that I made', mine, [create, update]],
    ['groups', groups, [change]]
  ])

  await server.call('ProjectService/DeleteProject', owner.token, { projectId: made })
  await record(server.db, acme.uid, 'group.remove', group)
  await server.call('ProjectService/DeleteProject', owner.token, { projectId: kept })
  const [removed, gone] = [told(DELETED, 'PROJECT', made), told(DELETED, 'PROJECT', kept)]
  const noGroup = told(DELETED, 'GROUP', group)
  await expect([
    ['projects', projects, [removed, gone]],
    ['one project', one, [gone]],
    ['either', either, [noGroup, gone]],
    ['those that I made', mine, [removed, gone]],
    ['those that others made, and deletions', others, [removed, gone]],
    ['groups, which nobody is known to have made', creatorless, [noGroup]],
    ['groups', groups, [noGroup]]
  ])
})

t.test('who sees what', async (t) => {
  const { server, url } = await start(t)
  const { owner, member, acme, stranger } = server
  const outsider = await server.createUser('otto')
  await server.addMember(acme, outsider)
  const account = await makeServiceAccount(server, 'ci')
  const other = await makeServiceAccount(server, 'other')
  const group = await makeGroup(server, 'web', {
    accountIds: [member.account.id],
    serviceAccountIds: [account.id]
  })
  const projectId = await makeProject(server, 'web', { group, role: 'user' })
  const hidden = await makeProject(server, 'hidden')

  const tokens = {
    owner: owner.token,
    reader: await server.createToken(owner.account, { scopes: ['read:org'] }),
    member: member.token,
    outsider: await server.createToken(outsider, { scopes: SCOPES }),
    account: account.token,
    other: other.token,
    stranger: stranger.token
  }
  type Name = keyof typeof tokens
  const watchers = {} as Record<Name, Watched>
  for (const [name, token] of Object.entries(tokens)) watchers[name as Name] = await watch(t, url, token)
  const everybody = Object.keys(tokens).filter((name) => name !== 'stranger') as Name[]
  const here = Object.fromEntries(everybody.map((name) => [name, watchers[name]]))
  const expectTold = async (event: Told, names: readonly Name[]) => {
    for (const name of names)
      t.strictSame(await watchers[name].next(), event, `${event.resourceType}: ${name}`)
    await heardAll(t, server, here)
  }
  const atProject = ['owner', 'reader', 'member', 'account'] as const

  await server.call('ProjectService/UpdateProject', owner.token, { projectId, name: 'next' })
  await expectTold(told(UPDATED, 'PROJECT', projectId), atProject)
  await server.call('ProjectService/UpdateProject', owner.token, { projectId: hidden, name: 'still' })
  await expectTold(told(UPDATED, 'PROJECT', hidden), ['owner', 'reader'])
  const secretId = await createSecret(server, owner.token, 'OF_PROJECT', { projectId })
  await expectTold(told(CREATED, 'SECRET', secretId), atProject)
  const ofHidden = await createSecret(server, owner.token, 'OF_HIDDEN', { projectId: hidden })
  await expectTold(told(CREATED, 'SECRET', ofHidden), ['owner', 'reader'])

  const organizationId = acme.uid
  const ofOrganization = await createSecret(server, owner.token, 'OF_ORG', { organizationId })
  await expectTold(told(CREATED, 'ORGANIZATION_SECRET', ofOrganization), ['owner'])
  const ofUser = await createSecret(server, member.token, 'OF_USER', { userId: member.account.uid })
  await expectTold(told(CREATED, 'USER_SECRET', ofUser), ['member'])
  const ofAccount = await createSecret(server, account.token, 'OF_CI', { serviceAccountId: account.uid })
  await expectTold(told(CREATED, 'SERVICE_ACCOUNT_SECRET', ofAccount), ['owner', 'reader', 'account'])

  const uid = crypto.randomUUID()
  for (const [action, type] of [
    ['runner.create', 'RUNNER'],
    ['environment_class.create', 'ENVIRONMENT_CLASS'],
    ['service_account.create', 'SERVICE_ACCOUNT'],
    ['group.create', 'GROUP']
  ] as const) {
    await record(server.db, acme.uid, action, uid)
    await expectTold(told(CREATED, type, uid), everybody)
  }
  await server.addMember(acme, outsider)
  await expectTold(told(UPDATED, 'ORGANIZATION', acme.uid), everybody)
  await record(server.db, acme.uid, 'organization.update', acme.uid)
  await expectTold(told(UPDATED, 'ORGANIZATION', acme.uid), everybody)

  // Roles are those of now, whatever they were when the stream began.
  const policy = { projectId: hidden, groupId: group.uid }
  await server.call('ProjectService/CreateProjectPolicy', owner.token, {
    ...policy,
    role: 'PROJECT_ROLE_USER'
  })
  await expectTold(told(UPDATED, 'PROJECT', hidden), atProject)
  await server.call('ProjectService/DeleteProjectPolicy', owner.token, policy)
  await expectTold(told(UPDATED, 'PROJECT', hidden), ['owner', 'reader'])
  await server.db.deleteFrom('group_members').where('service_account_id', '=', account.id).execute()
  await server.call('SecretService/UpdateSecretValue', owner.token, { secretId, value: 'w' })
  await expectTold(told(UPDATED, 'SECRET', secretId), ['owner', 'reader', 'member'])

  // When it is gone, whoever saw it last: not the account, which lost its role, and nobody of the hidden one.
  await server.call('ProjectService/DeleteProject', owner.token, { projectId: hidden })
  for (const name of ['owner', 'reader'] as const) {
    t.strictSame(await watchers[name].next(), told(DELETED, 'SECRET', ofHidden), name)
  }
  await expectTold(told(DELETED, 'PROJECT', hidden), ['owner', 'reader'])
  await server.call('ProjectService/DeleteProject', owner.token, { projectId })
  for (const name of ['owner', 'reader', 'member'] as const) {
    t.strictSame(await watchers[name].next(), told(DELETED, 'SECRET', secretId), name)
  }
  await expectTold(told(DELETED, 'PROJECT', projectId), ['owner', 'reader', 'member'])

  const marked = await mark(server, stranger.organization.uid)
  t.strictSame(await watchers.stranger.next(), marked, 'the stranger has heard nothing of all this')
})

t.test('a deletion is told to who could see it when the stream began', async (t) => {
  const { server, url } = await start(t)
  const group = await makeGroup(server, 'web', { accountIds: [server.member.account.id] })
  const projectId = await makeProject(server, 'web', { group, role: 'user' })
  const watched = await watch(t, url, server.member.token)
  await server.call('ProjectService/DeleteProject', server.owner.token, { projectId })
  t.strictSame(await watched.next(), told(DELETED, 'PROJECT', projectId))
})

t.test('environments: one’s own, the one that asks, and any for owners', async (t) => {
  const { server, url } = await start(t)
  const { owner, member, acme } = server
  const environment = await makeEnvironment(server, member.account)
  const sibling = await makeEnvironment(server, member.account)
  const outsider = await server.createUser('otto')
  await server.addMember(acme, outsider)
  const { uid } = environment
  const message = { environmentId: uid }
  const watchers = {
    owner: await watch(t, url, owner.token, { message }),
    creator: await watch(t, url, member.token, { message }),
    environment: await watch(t, url, environment.token, { message }),
    'owner of all': await watch(t, url, owner.token),
    'creator of all': await watch(t, url, member.token)
  }
  const outside = await watch(t, url, await server.createToken(outsider, { scopes: SCOPES }))
  const account = await makeServiceAccount(server, 'ci')
  const automated = await makeEnvironment(server, account, { creatorKind: 'service-account' })
  const ofAccount = await watch(t, url, account.token, { message: { environmentId: automated.uid } })
  t.equal((await server.call('EventService/WatchEvents', sibling.token, message)).status, 404)

  const other = await makeEnvironment(server, owner.account)
  await record(server.db, acme.uid, 'development_environment.update', other.uid)
  await makeProject(server, 'web')
  await record(server.db, acme.uid, 'development_environment.status', uid)
  await record(server.db, acme.uid, 'development_environment.update', uid)
  await server.db.deleteFrom('environments').where('id', '=', other.id).execute()
  await record(server.db, acme.uid, 'development_environment.remove', other.uid)
  await record(server.db, acme.uid, 'development_environment.remove', uid)
  const type = 'RESOURCE_TYPE_ENVIRONMENT'
  const own = [
    { operation: 'RESOURCE_OPERATION_UPDATE_STATUS', resourceType: type, resourceId: uid },
    told(UPDATED, 'ENVIRONMENT', uid),
    told(DELETED, 'ENVIRONMENT', uid)
  ]
  for (const name of ['owner', 'creator', 'environment', 'creator of all'] as const) {
    for (const event of own) t.strictSame(await watchers[name].next(), event, name)
  }
  const all = watchers['owner of all']
  t.strictSame(await all.next(), told(UPDATED, 'ENVIRONMENT', other.uid))
  t.equal((await all.next())?.resourceType, 'RESOURCE_TYPE_PROJECT')
  t.strictSame([await all.next(), await all.next()], own.slice(0, 2))
  t.strictSame(await all.next(), told(DELETED, 'ENVIRONMENT', other.uid))
  t.strictSame(await all.next(), own[2])
  await heardAll(t, server, { outside, creator: watchers['creator of all'] })
  await record(server.db, acme.uid, 'development_environment.update', automated.uid)
  t.strictSame(await ofAccount.next(), told(UPDATED, 'ENVIRONMENT', automated.uid))
})

t.test('a stream ends with its token', async (t) => {
  const { server, url } = await start(t)
  const second = await startSecondNode(t, server, QUIET)
  const there = await second.listen({ host: '127.0.0.1', port: 0 })

  await t.test('revoked, on every server', async (t) => {
    const user = await server.createUser('rita')
    await server.addMember(server.acme, user)
    const token = await server.createToken(user, { scopes: SCOPES })
    const streams = [await watch(t, url, token), await watch(t, there, token)]
    const stays = await watch(t, there, server.member.token)
    await server.db.transaction().execute((tx) => revokeAll(tx, SYSTEM, user))
    for (const stream of streams) t.equal(await stream.ended, true, 'ended, not broken')
    const marked = await mark(server)
    t.strictSame(await stays.next(), marked, 'those of others go on')
  })

  await t.test('expired', async (t) => {
    const user = await server.createUser('eve')
    await server.addMember(server.acme, user)
    const token = await server.createToken(user, { scopes: SCOPES })
    await server.db
      .updateTable('tokens')
      .set({ expires_at: sql<Date>`now() + interval '2 seconds'` })
      .where('account_id', '=', user.id)
      .execute()
    t.equal(await (await watch(t, url, token)).ended, true)
  })

  await t.test('of one who is in the organization no more', async (t) => {
    const user = await server.createUser('leo')
    await server.addMember(server.acme, user)
    const token = await server.createToken(user, { scopes: SCOPES })
    const watched = await watch(t, there, token)
    await removeMembership(server.db, SYSTEM, server.acme, user.login)
    t.equal(await watched.next(), undefined, 'it ends, and that is the last that is heard')
    t.equal(await watched.ended, true)
  })

  await t.test('of an organization that is no more', async (t) => {
    const user = await server.createUser('olaf')
    const organization = await server.createOrganization('brief', user)
    const watched = await watch(t, there, await server.createToken(user, { scopes: SCOPES }))
    await removeOrganization(server.db, SYSTEM, organization as Account & { kind: 'organization' })
    t.equal(await watched.ended, true)
  })
})

t.test('at each sign of life it is asked whether the token still holds', async (t) => {
  const { server, url } = await start(t, { eventKeepaliveMs: 100 })
  const streamOf = async (login: string) => {
    const user = await server.createUser(login)
    await server.addMember(server.acme, user)
    return { user, watched: await watch(t, url, await server.createToken(user, { scopes: SCOPES })) }
  }
  const [gone, left, stays] = [await streamOf('gina'), await streamOf('lisa'), await streamOf('stan')]
  for (let lines = 0; lines < 3; lines++) t.ok(await stays.watched.isKeptAlive())
  // Nobody tells of this.
  await server.db.deleteFrom('tokens').where('account_id', '=', gone.user.id).execute()
  await server.db.deleteFrom('memberships').where('account_id', '=', left.user.id).execute()
  t.equal(await gone.watched.ended, true, 'a token that is not there')
  t.equal(await left.watched.ended, true, 'an account that is no member')
  t.ok(await stays.watched.isKeptAlive())
  const { db } = server
  const failed = await db
    .selectFrom('audit_events')
    .select('id')
    .where('action', '=', 'login.failed')
    .execute()
  t.strictSame(failed, [], 'that is no failed login')
})

t.test('streams end when events may have been missed, and a new one goes on', async (t) => {
  const { server, url } = await start(t)
  const watched = await watch(t, url, server.owner.token)
  await sql`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'coffer listener' and datname = current_database()`.execute(server.db)
  t.equal(await watched.ended, true)
  const again = await watch(t, url, server.owner.token)
  const marked = await mark(server)
  t.strictSame(await again.next(), marked)
})

t.test('who leaves is forgotten', async (t) => {
  const { server, url } = await start(t)
  const open = async () => {
    const metrics = await server.app.metrics.registry.getSingleMetric('coffer_event_streams')!.get()
    return metrics.values[0]?.value
  }
  const [first, second] = [await watch(t, url, server.owner.token), await watch(t, url, server.owner.token)]
  t.equal(await open(), 2)
  first.leave()
  second.leave()
  const last = await watch(t, url, server.owner.token)
  while ((await open()) !== 1) await new Promise(setImmediate)
  const projectId = await makeProject(server, 'web')
  t.strictSame(await last.next(), told(CREATED, 'PROJECT', projectId))
})

t.test('a server that closes ends its streams, over TCP and over the unix socket', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'coffer-events-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const keyFile = path.join(folder, 'master.key')
  await createMasterKey(keyFile)
  const adminToken = 'a-token-of-the-first-administrator-0123'
  const { config, secrets } = loadConfig({
    DATABASE_URL: (await createTestDatabase(t)).url,
    COFFER_MASTER_KEY_FILE: keyFile,
    COFFER_DATA_DIR: folder,
    COFFER_SOCKET: path.join(folder, 'coffer.sock'),
    COFFER_PORT: '0',
    COFFER_LOG_LEVEL: 'silent',
    COFFER_ADMIN_TOKEN: adminToken
  })
  const running = await serve(config, secrets)
  let closed: Promise<void> | undefined
  t.teardown(() => closed ?? running.close())
  const headers = { authorization: `Bearer ${adminToken}` }
  const body = JSON.stringify({ login: 'acme', admin: 'admin' })
  const made = await fetch(`${running.url}/admin/organizations`, { method: 'POST', headers, body })
  t.equal(made.status, 201)
  const streams = [
    await watch(t, running.url, adminToken),
    await watch(t, 'http://localhost', adminToken, { socketPath: running.socket! })
  ]
  closed = running.close()
  for (const stream of streams) t.equal(await stream.ended, true, 'ended, not cut off')
  await closed
})
