import { sql } from 'kysely'
import t from 'tap'
import { SCOPES } from '../../../src/auth/scopes.ts'
import { insertAuditEvents } from '../../../src/store/audit.ts'
import { SYSTEM } from '../../helper.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'
import { makeEnvironment, makeProject, record } from './watching.ts'

t.setTimeout(120_000)

interface Entry {
  id: string
  action: string
  subjectId?: string
  subjectType?: string
  actorId?: string
  actorPrincipal?: string
  createdAt: string
  kind: string
}

const LIST = 'EventService/ListAuditLogs'
const GET = 'EventService/GetAuditLog'

async function list(server: OnaServer, message: object = {}): Promise<Entry[]> {
  const { body, status } = await server.call(LIST, server.owner.token, {
    pagination: { pageSize: 100 },
    ...message
  })
  if (status !== 200) throw new Error(`ListAuditLogs answered ${status}`)
  return body.entries ?? []
}

function actions(entries: readonly Entry[]): string[] {
  return entries.map(({ action }) => action)
}

/** A project with a secret that an environment has read. */
async function furnish(server: OnaServer) {
  const { owner, db } = server
  const projectId = await makeProject(server, 'web')
  const { body } = await server.call('SecretService/CreateSecret', owner.token, {
    name: 'A_B',
    value: 'v',
    environmentVariable: true,
    scope: { projectId }
  })
  const secretId: string = body.secret.id
  const environment = await makeEnvironment(server, server.owner.account, { projectUid: projectId })
  const { id } = await db
    .selectFrom('secrets')
    .select('id')
    .where('uid', '=', secretId)
    .executeTakeFirstOrThrow()
  await db
    .insertInto('environment_secrets')
    .values({ environment_id: environment.id, secret_id: id })
    .execute()
  const read = await server.call('SecretService/GetSecretValue', environment.token, { secretId })
  if (read.status !== 200) throw new Error(`GetSecretValue answered ${read.status}`)
  return { projectId, secretId, environment }
}

t.test('what was done, newest first', async (t) => {
  const server = await startOnaServer(t)
  const { owner, member, acme } = server
  const { projectId, secretId, environment } = await furnish(server)
  const [read, created, project, membership, ...older] = await list(server)
  t.match(read, {
    action: 'secret.read',
    actorId: environment.uid,
    actorPrincipal: 'PRINCIPAL_ENVIRONMENT',
    subjectId: secretId,
    subjectType: 'RESOURCE_TYPE_SECRET',
    kind: 'AUDIT_LOG_ENTRY_KIND_CREDENTIAL_ACCESS'
  })
  t.match(created, {
    action: 'secret.create',
    actorId: owner.account.uid,
    actorPrincipal: 'PRINCIPAL_USER',
    subjectId: secretId,
    subjectType: 'RESOURCE_TYPE_SECRET',
    kind: 'AUDIT_LOG_ENTRY_KIND_RESOURCE_CHANGE'
  })
  t.match(project, { action: 'project.create', subjectId: projectId, subjectType: 'RESOURCE_TYPE_PROJECT' })
  t.match(membership, {
    action: 'membership.set.member',
    subjectId: member.account.uid,
    subjectType: 'RESOURCE_TYPE_USER'
  })
  t.notOk('actorId' in membership!, 'nobody whom the API could name')
  t.ok(older.some(({ action, subjectId }) => action === 'organization.create' && subjectId === acme.uid))
  const { occurred_at } = await server.db
    .selectFrom('audit_events')
    .select('occurred_at')
    .where('id', '=', Number(read!.id))
    .executeTakeFirstOrThrow()
  t.equal(read!.createdAt, occurred_at.toISOString())

  await server.createRepository(acme, 'web')
  const [repository] = await list(server)
  t.equal(repository?.action, 'repository.create')
  t.notOk('subjectType' in repository!, 'what Ona’s API has no name for is there without a type')

  await insertAuditEvents(server.db, [
    { streamUid: acme.uid, principal: SYSTEM, action: 'access.denied', outcome: 'denied' }
  ])
  t.strictSame(await list(server), [repository, read, created, project, membership, ...older])
})

t.test('filters and order', async (t) => {
  const server = await startOnaServer(t)
  const { owner, acme } = server
  const { projectId, secretId, environment } = await furnish(server)
  const all = await list(server)
  const of = async (filter: object) => actions(await list(server, { filter }))
  const read = all[0]!
  t.strictSame(await of({ actorIds: [environment.uid] }), ['secret.read'])
  t.strictSame(await of({ actorIds: [environment.uid, owner.account.uid] }), [
    'secret.read',
    'secret.create',
    'project.create'
  ])
  t.strictSame(await of({ actorPrincipals: ['PRINCIPAL_ENVIRONMENT'] }), ['secret.read'])
  t.strictSame(await of({ actor_principals: [2, 3] }), ['secret.create', 'project.create'])
  t.strictSame(await of({ actorPrincipals: ['PRINCIPAL_ACCOUNT'] }), [])
  t.strictSame(await of({ subjectIds: [projectId] }), ['project.create'])
  t.strictSame(await of({ subjectIds: [secretId] }), ['secret.read', 'secret.create'])
  t.strictSame(await of({ subjectTypes: ['RESOURCE_TYPE_SECRET'] }), ['secret.read', 'secret.create'])
  t.strictSame(await of({ subjectTypes: ['RESOURCE_TYPE_PROJECT', 'RESOURCE_TYPE_SECRET'] }), [
    'secret.read',
    'secret.create',
    'project.create'
  ])
  t.strictSame(await of({ subjectTypes: ['RESOURCE_TYPE_USER_SECRET'] }), [])
  t.strictSame(await of({ subjectTypes: ['RESOURCE_TYPE_BILLING'] }), [])
  t.strictSame(await of({ subjectIds: [secretId], actorIds: [owner.account.uid] }), ['secret.create'])
  t.strictSame(await of({ from: '2020-01-01T00:00:00Z' }), actions(all))
  t.strictSame(await of({ to: '2020-01-01T00:00:00Z' }), [])
  t.ok(
    (await list(server, { filter: { from: read.createdAt } })).some(({ id }) => id === read.id),
    'inclusive'
  )
  t.notOk(
    (await list(server, { filter: { to: read.createdAt } })).some(({ id }) => id === read.id),
    'exclusive'
  )

  t.strictSame(await list(server, { sort: { order: 'SORT_ORDER_ASC' } }), all.toReversed())
  t.strictSame(await list(server, { sort: { field: 'createdAt', order: 'SORT_ORDER_DESC' } }), all)
  const refused = await server.call(LIST, owner.token, { sort: { field: 'action' } })
  t.equal(refused.body.code, 'invalid_argument')
  await record(server.db, acme.uid, 'environment_class.update', projectId)
  t.strictSame(await of({ subjectTypes: ['RESOURCE_TYPE_ENVIRONMENT_CLASS'] }), [
    'environment_class.update',
    'environment_class.create'
  ])
})

t.test('page by page, by the official client', async (t) => {
  const server = await startOnaServer(t)
  await furnish(server)
  const all = await list(server)
  const client = sdk(await server.listen(), server.owner.token)
  const listed: unknown[] = []
  for await (const entry of client.events.list({ pageSize: 2 })) listed.push(entry)
  t.strictSame(listed, all)
  const filter = { subjectTypes: ['RESOURCE_TYPE_SECRET' as const] }
  const first = await client.events.list({ filter, pageSize: 1 })
  t.equal(first.entries.length, 1)
  const { nextToken } = first.pagination!
  const foreign = await server.call(LIST, server.owner.token, { pagination: { token: nextToken } })
  t.equal(foreign.body.code, 'invalid_argument', 'a token is for its own list')
})

t.test('what is rare is on the first page, however far it is', async (t) => {
  const server = await startOnaServer(t)
  const { acme, owner } = server
  const [rare, never] = [crypto.randomUUID(), crypto.randomUUID()]
  await record(server.db, acme.uid, 'group.update', rare)
  await sql`insert into audit_events (stream_uid, actor_kind, action, outcome, occurred_at, canonical)
    select ${acme.uid}::uuid, 'system', 'repository.update', 'allowed', now(), '' from generate_series(1, 90000)`.execute(
    server.db
  )
  const { body } = await server.call(LIST, owner.token, { filter: { subjectIds: [rare] } })
  t.strictSame(actions(body.entries), ['group.update'])
  const none = await server.call(LIST, owner.token, { filter: { subjectIds: [never] } })
  t.strictSame(none.body, { pagination: {} })
})

t.test('who may read it', async (t) => {
  const server = await startOnaServer(t)
  const { owner, member, stranger } = server
  await furnish(server)
  const [entry] = await list(server)
  const nobody = await server.createToken(await server.createUser('nora'), { scopes: SCOPES })
  const without = await server.createToken(owner.account, { scopes: ['read:org', 'repo'] })
  const withScope = await server.createToken(owner.account, { scopes: ['read:audit_log'] })
  const auditLogEntryId = entry!.id
  for (const [method, message] of [
    [LIST, {}],
    [GET, { auditLogEntryId }]
  ] as const) {
    for (const token of [member.token, nobody, without]) {
      t.equal((await server.call(method, token, message)).body.code, 'permission_denied', method)
    }
    t.equal((await server.call(method, withScope, message)).status, 200, method)
  }
  const theirs = await server.call(LIST, stranger.token)
  t.notOk(theirs.body.entries.some(({ id }: Entry) => id === auditLogEntryId))
  const found = await server.call(GET, owner.token, { auditLogEntryId })
  t.strictSame(found.body, { entry })
  t.equal((await server.call(GET, stranger.token, { auditLogEntryId })).body.code, 'not_found')
  for (const id of ['0', '-1', '1e3', '999999999', '9'.repeat(30), crypto.randomUUID()]) {
    t.equal((await server.call(GET, owner.token, { auditLogEntryId: id })).body.code, 'not_found', id)
  }
  t.equal((await server.call(GET, owner.token, {})).body.code, 'invalid_argument')
  await insertAuditEvents(server.db, [
    { streamUid: server.acme.uid, principal: SYSTEM, action: 'access.denied', outcome: 'denied' }
  ])
  const denied = await server.db
    .selectFrom('audit_events')
    .select('id')
    .where('outcome', '=', 'denied')
    .where('stream_uid', '=', server.acme.uid)
    .execute()
  for (const { id } of denied) {
    const { body } = await server.call(GET, owner.token, { auditLogEntryId: String(id) })
    t.equal(body.code, 'not_found', 'what was refused is no entry')
  }
})
