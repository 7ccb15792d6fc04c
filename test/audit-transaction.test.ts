import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { isConsistent } from './consistency.ts'
import { startTestServer } from './helper.ts'
import { isRefusal, type Refusal, stored } from './routes/github/refusal.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/acme/dependabot/secrets'
const ENVIRONMENT = '/repos/mona/web/environments/production/secrets'
const VALUE = 'MARKER-beside-a-record-1c5e'
const DEFECT: Refusal = { status: 500, message: 'Server Error' }

async function start(t: Test) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  await server.createUser('hubot')
  const repositoryId = await server.createRepository(mona, 'web')
  const acme = await server.createOrganization('acme', mona)
  const ofAcme = await server.createRepository(acme, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  await server.request('PUT', '/repos/mona/web/environments/production', { token })
  const user = await server.seal(USER, token, VALUE)
  const repo = await server.seal(REPO, token, VALUE)
  const org = { ...(await server.seal(ORG, token, VALUE)), visibility: 'selected' }
  const environment = await server.seal(ENVIRONMENT, token, VALUE)
  const selected_repository_ids = [repositoryId]
  await server.request('PUT', `${USER}/KEPT`, { token, body: { ...user, selected_repository_ids } })
  await server.request('PUT', `${REPO}/KEPT`, { token, body: repo })
  await server.request('PUT', `${ORG}/KEPT`, { token, body: org })
  await server.request('PUT', `${ENVIRONMENT}/KEPT`, { token, body: environment })
  const ofOrganization = { selected_repository_ids: [ofAcme] }
  await server.request('PUT', '/repos/mona/web/collaborators/hubot', { token, body: { permission: 'pull' } })
  const admin = server.admin.token
  const WRITES = [
    { method: 'PUT', url: `${REPO}/NEW`, token, body: repo },
    { method: 'PUT', url: `${REPO}/KEPT`, token, body: repo },
    { method: 'DELETE', url: `${REPO}/KEPT`, token },
    { method: 'PUT', url: `${USER}/NEW`, token, body: user },
    { method: 'PUT', url: `${USER}/NEW`, token, body: { ...user, selected_repository_ids } },
    { method: 'PUT', url: `${USER}/KEPT`, token, body: user },
    { method: 'PUT', url: `${USER}/KEPT`, token, body: { ...user, selected_repository_ids: [] } },
    { method: 'PUT', url: `${USER}/KEPT`, token, body: { visibility: 'all' } },
    { method: 'PUT', url: `${USER}/KEPT/repositories`, token, body: { selected_repository_ids: [] } },
    { method: 'PUT', url: `${USER}/KEPT/repositories/${repositoryId}`, token },
    { method: 'DELETE', url: `${USER}/KEPT/repositories/${repositoryId}`, token },
    { method: 'DELETE', url: `${USER}/KEPT`, token },
    { method: 'PUT', url: `${ORG}/NEW`, token, body: { ...org, ...ofOrganization } },
    { method: 'PUT', url: `${ORG}/KEPT`, token, body: { ...org, ...ofOrganization } },
    { method: 'PUT', url: `${ORG}/KEPT`, token, body: { visibility: 'private' } },
    { method: 'PUT', url: `${ORG}/KEPT`, token, body: { visibility: 'selected', ...ofOrganization } },
    { method: 'PUT', url: `${ORG}/KEPT/repositories`, token, body: ofOrganization },
    { method: 'DELETE', url: `${ORG}/KEPT`, token },
    { method: 'PUT', url: `${ENVIRONMENT}/NEW`, token, body: environment },
    { method: 'PUT', url: `${ENVIRONMENT}/KEPT`, token, body: environment },
    { method: 'DELETE', url: `${ENVIRONMENT}/KEPT`, token },
    { method: 'PUT', url: '/repos/mona/web/environments/staging', token },
    { method: 'PUT', url: '/repos/mona/web/environments/production', token },
    { method: 'DELETE', url: '/repos/mona/web/environments/production', token },
    { method: 'PUT', url: '/orgs/acme/memberships/hubot', token, body: { role: 'admin' } },
    { method: 'PUT', url: '/orgs/acme/memberships/mona', token, body: { role: 'admin' } },
    { method: 'PUT', url: '/repos/mona/web/collaborators/hubot', token, body: { permission: 'admin' } },
    { method: 'DELETE', url: '/repos/mona/web/collaborators/hubot', token },
    { method: 'POST', url: '/user/repos', token, body: { name: 'fresh' } },
    { method: 'PATCH', url: '/repos/mona/web', token, body: { description: 'changed', private: false } },
    { method: 'DELETE', url: '/repos/mona/web', token },
    { method: 'DELETE', url: '/orgs/acme', token },
    { method: 'POST', url: '/admin/users', token: admin, body: { login: 'fresh' } },
    { method: 'POST', url: '/admin/organizations', token: admin, body: { login: 'fresh', admin: 'mona' } },
    { method: 'POST', url: '/admin/users/mona/authorizations', token: admin, body: { scopes: ['repo'] } },
    { method: 'DELETE', url: '/admin/users/mona/authorizations', token: admin },
    { method: 'DELETE', url: '/admin/users/mona', token: admin }
  ] as const
  return { server, token, WRITES }
}

t.test('what cannot be recorded is not done', async (t) => {
  const { server, WRITES } = await start(t)
  const { db } = server
  await sql`create function refuse_record() returns trigger language plpgsql as $$
    begin raise exception 'no room for % of %', new.name, new.actor_uid; end $$`.execute(db)
  // As the last thing of the transaction, when everything else has succeeded.
  await sql`create constraint trigger no_record after insert on audit_events deferrable initially deferred
    for each row execute function refuse_record()`.execute(db)
  const before = await stored(db)
  for (const { method, url, ...request } of WRITES) {
    const response = await server.request(method, url, request)
    isRefusal(t, response, DEFECT, `${method} ${url}`)
    t.strictSame(await stored(db), before, `${method} ${url}: nothing changed`)
  }
  await sql`drop trigger no_record on audit_events`.execute(db)

  const log = server.log.join('')
  t.equal(server.log.filter((line) => JSON.parse(line).level === 'error').length, WRITES.length)
  t.match(log, /"code":"P0001"/, 'the log tells what it was')
  t.notMatch(log, /no room for/, 'but not in the words of the database')
  t.notMatch(log, VALUE)
})

t.test('what is not done is not recorded', async (t) => {
  const { server, token } = await start(t)
  const { db } = server
  await sql`create function refuse_change() returns trigger language plpgsql as $$
    begin raise exception 'no room'; end $$`.execute(db)
  await sql`create constraint trigger no_change after insert or update or delete on secrets
    deferrable initially deferred for each row execute function refuse_change()`.execute(db)
  const before = await stored(db)
  for (const path of [REPO, USER]) {
    const body = await server.seal(path, token, VALUE)
    for (const [method, name] of [
      ['PUT', 'NEW'],
      ['PUT', 'KEPT'],
      ['DELETE', 'KEPT']
    ] as const) {
      const response = await server.request(method, `${path}/${name}`, { token, body })
      isRefusal(t, response, DEFECT, `${method} ${path}/${name}`)
      t.strictSame(await stored(db), before, `${method} ${path}/${name}: nothing changed`)
    }
  }
})

t.test('every write has one record, which tells who, what and when', async (t) => {
  const { server, WRITES } = await start(t)
  const count = async () =>
    (
      await server.db
        .selectFrom('audit_events')
        .select((eb) => eb.fn.countAll<number>().as('total'))
        .executeTakeFirstOrThrow()
    ).total
  for (const { method, url, ...request } of WRITES.filter(
    (write) => !/KEPT\/repositories\/|admin/.test(write.url)
  )) {
    const before = await count()
    const { statusCode } = await server.request(method, url, request)
    t.ok(statusCode >= 200 && statusCode < 300, `${method} ${url}: ${statusCode}`)
    t.ok((await count()) > before, `${method} ${url} is recorded`)
    if (/^\/user|\/secrets\//.test(url)) t.equal(await count(), before + 1, 'once')
  }
  await isConsistent(t, server.db)
  const rows = await server.db.selectFrom('audit_events').selectAll().orderBy('id').execute()
  for (const row of rows) {
    const canonical = JSON.parse(row.canonical.toString())
    t.strictSame(
      canonical,
      [
        'coffer/audit/v2',
        row.stream_uid,
        row.actor_kind,
        row.actor_uid,
        row.actor_login,
        row.token_id,
        row.issued_by_uid,
        row.action,
        row.outcome,
        row.collection,
        row.subject_uid,
        row.name,
        row.value_version,
        row.envelope_sha256?.toString('hex') ?? null,
        row.repository_uid,
        row.address,
        row.occurrences,
        row.request_id,
        row.occurred_at.toISOString()
      ],
      `${row.action}: what is hashed later is what the row says`
    )
  }
})
