import os from 'node:os'
import type { Kysely } from 'kysely'
import t from 'tap'
import { type Environment, loadConfig } from '../src/config.ts'
import { createOrganization, createUser } from '../src/directory/accounts.ts'
import { RefusedToStart } from '../src/errors.ts'
import { ensureAdmin, firstCommands } from '../src/first-start.ts'
import type { Principal } from '../src/store/audit.ts'
import type { Database } from '../src/store/tables.ts'
import { createTestDatabase } from './helper.ts'

const SYSTEM: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

async function start(db: Kysely<Database>, environment: Environment = {}) {
  const { config, secrets } = loadConfig(environment)
  return await ensureAdmin(db, config, secrets)
}

async function count(db: Kysely<Database>, table: 'accounts' | 'runners' | 'groups' | 'audit_events') {
  const { n } = await db
    .selectFrom(table)
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .executeTakeFirstOrThrow()
  return n
}

t.test(
  'an empty database gets an administrator, its organization, and this machine as a runner',
  async (t) => {
    const { db } = await createTestDatabase(t)
    t.match(await start(db), { login: 'admin', organization: 'coffer', generated: { token: /^coffer_pat_/ } })
    const memberships = await db
      .selectFrom('memberships as m')
      .innerJoin('accounts as o', 'o.id', 'm.organization_id')
      .innerJoin('accounts as a', 'a.id', 'm.account_id')
      .select(['o.login as organization', 'o.kind', 'o.uid', 'a.login', 'm.role'])
      .execute()
    t.match(memberships, [{ organization: 'coffer', kind: 'organization', login: 'admin', role: 'admin' }])
    t.equal(memberships.length, 1)
    const [{ uid } = { uid: '' }] = memberships
    const runners = await db
      .selectFrom('runners')
      .select(['name', 'kind', 'provider', 'hosted', 'desired_phase', 'creator_kind', 'creator_uid', 'uid'])
      .execute()
    t.match(runners, [
      {
        name: os.hostname(),
        kind: 'RUNNER_KIND_REMOTE',
        provider: 'RUNNER_PROVIDER_LINUX_HOST',
        hosted: true,
        desired_phase: 'RUNNER_PHASE_ACTIVE',
        creator_kind: 'system',
        creator_uid: null
      }
    ])
    const classes = await db
      .selectFrom('environment_classes')
      .select(['display_name', 'description', 'enabled'])
      .execute()
    t.strictSame(classes, [
      { display_name: 'Regular', description: 'On the machine that Coffer runs on', enabled: true }
    ])
    const groups = await db.selectFrom('groups').select(['name', 'everyone', 'description']).execute()
    t.strictSame(groups, [
      {
        name: 'everyone',
        everyone: true,
        description: 'All members and service accounts of the organization'
      }
    ])
    const records = await db
      .selectFrom('audit_events')
      .select(['action', 'name', 'actor_kind'])
      .where('stream_uid', '=', uid)
      .orderBy('id')
      .execute()
    const record = { actor_kind: 'system' }
    t.strictSame(records, [
      { ...record, action: 'organization.create', name: 'coffer' },
      { ...record, action: 'group.create', name: 'everyone' },
      { ...record, action: 'runner.create', name: os.hostname() },
      { ...record, action: 'environment_class.create', name: 'Regular' }
    ])

    const events = await count(db, 'audit_events')
    t.equal(await start(db, { COFFER_ORGANIZATION: 'another' }), undefined, 'a second start makes nothing')
    t.equal(await count(db, 'accounts'), 2)
    t.equal(await count(db, 'audit_events'), events)
  }
)

t.test('several servers that start at once make one', async (t) => {
  const { db } = await createTestDatabase(t)
  const made = await Promise.all(Array.from({ length: 5 }, () => start(db)))
  t.equal(made.filter((admin) => admin !== undefined).length, 1)
  t.equal(await count(db, 'accounts'), 2)
  t.equal(await count(db, 'runners'), 1)
  t.equal(await count(db, 'groups'), 1)
})

t.test('what an earlier version furnished has the same as a new organization', async (t) => {
  const { db } = await createTestDatabase(t)
  await createUser(db, SYSTEM, { login: 'root', siteAdmin: true })
  t.equal(await start(db), undefined, 'there is an administrator')
  t.equal(await count(db, 'accounts'), 1)
  t.equal(await count(db, 'runners'), 0)
  await createOrganization(db, SYSTEM, { login: 'acme', admin: 'root' })
  t.match(await db.selectFrom('runners').select(['name', 'hosted']).execute(), [
    { name: 'Coffer', hosted: true }
  ])
  t.equal(await count(db, 'groups'), 1)
})

t.test('logins that cannot be are refused, by the variable', async (t) => {
  const { db } = await createTestDatabase(t)
  t.throws(() => loadConfig({ COFFER_ORGANIZATION: 'no login', COFFER_ADMIN_LOGIN: '-admin' }), {
    message: /COFFER_ADMIN_LOGIN may only contain[\s\S]*COFFER_ORGANIZATION may only contain/
  })
  for (const environment of [
    { COFFER_ADMIN_LOGIN: 'coffer' },
    { COFFER_ORGANIZATION: 'ADMIN' },
    { COFFER_ADMIN_LOGIN: 'Acme', COFFER_ORGANIZATION: 'acme' }
  ]) {
    await t.rejects(start(db, environment), {
      constructor: RefusedToStart,
      message: /COFFER_ADMIN_LOGIN and COFFER_ORGANIZATION are both/
    })
  }
  await createUser(db, SYSTEM, { login: 'mona' })
  await t.rejects(start(db, { COFFER_ORGANIZATION: 'Mona' }), {
    message: /set COFFER_ORGANIZATION to another/
  })
  await t.rejects(start(db, { COFFER_ADMIN_LOGIN: 'mona' }), { message: /set COFFER_ADMIN_LOGIN to another/ })
  t.equal(await count(db, 'accounts'), 1, 'nothing is left of it')
  t.equal(await count(db, 'runners'), 0)
})

t.test('a new administrator takes the organization over that there is', async (t) => {
  const { db } = await createTestDatabase(t)
  await createUser(db, SYSTEM, { login: 'mona' })
  const { uid, id } = await createOrganization(db, SYSTEM, { login: 'Coffer', admin: 'mona' })
  t.match(await start(db), { login: 'admin', organization: 'Coffer' })
  const owners = await db
    .selectFrom('memberships as m')
    .innerJoin('accounts as a', 'a.id', 'm.account_id')
    .select(['a.login', 'm.role'])
    .where('m.organization_id', '=', id)
    .orderBy('a.id')
    .execute()
  t.strictSame(owners, [
    { login: 'mona', role: 'admin' },
    { login: 'admin', role: 'admin' }
  ])
  t.equal(await count(db, 'runners'), 1)
  const record = await db
    .selectFrom('audit_events')
    .select('name')
    .where('stream_uid', '=', uid)
    .where('action', '=', 'membership.set.admin')
    .executeTakeFirstOrThrow()
  t.equal(record.name, 'admin')
})

t.test('what to paste first has both APIs', async (t) => {
  const url = 'http://127.0.0.1:3000'
  t.strictSame(firstCommands('T', url, undefined), [
    `curl -H "Authorization: Bearer T" ${url}/user`,
    `curl -X POST -H "Authorization: Bearer T" ${url}/api/gitpod.v1.IdentityService/GetAuthenticatedIdentity`
  ])
})
