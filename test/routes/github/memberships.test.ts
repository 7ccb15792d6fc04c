import t, { type Test } from 'tap'
import { documentationUrl } from '../../github-description.ts'
import { startTestServer } from '../../helper.ts'
import { conforms } from './conforms.ts'
import { type Refusal, refuses } from './refusal.ts'

const PATH = '/orgs/acme/memberships'
const NOT_FOUND: Refusal = { status: 404, message: 'Not Found' }
const NO_OWNER: Refusal = { status: 403, message: 'Must be an owner of the organization.' }
const LAST_OWNER: Refusal = {
  status: 403,
  message: 'This is the last owner of the organization. Make somebody else an owner first.'
}

/** mona owns Acme with a private repository; hubot is a user, eve owns another organization. */
async function prepare(t: Test) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('Mona')
  const hubot = await server.createUser('hubot')
  const eve = await server.createUser('eve')
  const acme = await server.createOrganization('Acme', mona)
  const others = await server.createOrganization('others', eve)
  await server.createRepository(acme, 'web')
  const scopes = ['repo', 'admin:org']
  const tokens = {
    mona: await server.createToken(mona, { scopes }),
    hubot: await server.createToken(hubot, { scopes }),
    eve: await server.createToken(eve, { scopes })
  }
  type Who = keyof typeof tokens
  const ask = (who: Who, method: 'GET' | 'PUT' | 'DELETE', url: string, body?: unknown) =>
    server.request(method, url, { token: tokens[who], body })
  const refuse = (expected: Refusal, who: Who, method: 'PUT' | 'DELETE', url: string, body?: unknown) =>
    refuses(t, server, { method, url, token: tokens[who], body }, expected, `${who}: ${method} ${url}`)
  /** login → role */
  const members = async () => {
    const rows = await server.db
      .selectFrom('memberships as m')
      .innerJoin('accounts as a', 'a.id', 'm.account_id')
      .where('m.organization_id', '=', acme.id)
      .select(['a.login', 'm.role'])
      .orderBy('a.login')
      .execute()
    return Object.fromEntries(rows.map(({ login, role }) => [login, role]))
  }
  return { server, mona, hubot, eve, acme, others, tokens, ask, refuse, members }
}

t.test('owners make members and owners, and everybody in the organization sees who they are', async (t) => {
  const { ask, acme, members } = await prepare(t)
  const made = await ask('mona', 'PUT', `${PATH}/HUBOT`)
  conforms(t, 'orgs/set-membership-for-user', made, 200)
  t.match(made.json(), {
    url: 'http://coffer.test/orgs/Acme/memberships/hubot',
    state: 'active',
    role: 'member',
    organization_url: 'http://coffer.test/orgs/Acme',
    organization: { login: 'Acme', id: acme.id },
    user: { login: 'hubot' }
  })
  t.strictSame(await members(), { Mona: 'admin', hubot: 'member' })
  for (const who of ['mona', 'hubot'] as const) {
    for (const path of ['/orgs/ACME/memberships', `/organizations/${acme.id}/memberships`]) {
      const own = await ask(who, 'GET', `${path}/hubot`)
      conforms(t, 'orgs/get-membership-for-user', own, 200)
      t.strictSame(own.json(), made.json())
      t.equal((await ask(who, 'GET', `${path}/mona`)).json().role, 'admin')
    }
  }
  for (const role of ['admin', 'admin', 'member', 'member'] as const) {
    const changed = await ask('mona', 'PUT', `/organizations/${acme.id}/memberships/hubot`, { role })
    conforms(t, 'orgs/set-membership-for-user', changed, 200)
    t.equal(changed.json().role, role)
    t.strictSame(await members(), { Mona: 'admin', hubot: role })
  }
  await ask('mona', 'PUT', `${PATH}/hubot`, { role: 'admin' })
  t.equal((await ask('mona', 'PUT', `${PATH}/hubot`, {})).json().role, 'member', 'the default, as on GitHub')

  conforms(t, 'orgs/remove-membership-for-user', await ask('mona', 'DELETE', `${PATH}/hubot`), 204)
  t.strictSame(await members(), { Mona: 'admin' })
  for (const [method, id] of [
    ['GET', 'orgs/get-membership-for-user'],
    ['DELETE', 'orgs/remove-membership-for-user']
  ] as const) {
    const absent = await ask('mona', method, `${PATH}/hubot`)
    conforms(t, id, absent, 404)
    t.equal(absent.json().documentation_url, documentationUrl(id))
  }
})

t.test('what an owner changes acts with the next request', async (t) => {
  const { ask, server } = await prepare(t)
  const secrets = '/orgs/acme/codespaces/secrets'
  const status = async (url: string) => (await ask('hubot', 'GET', url)).statusCode
  const seen = async () => [
    await status('/repos/acme/web'),
    await status(secrets),
    await status(`${PATH}/hubot`)
  ]
  t.strictSame(await seen(), [404, 404, 404])
  await ask('mona', 'PUT', `${PATH}/hubot`)
  t.strictSame(await seen(), [200, 403, 200])
  t.equal(await status('/repos/acme/web/codespaces/secrets'), 403, 'members read alone')
  await ask('mona', 'PUT', `${PATH}/hubot`, { role: 'admin' })
  t.strictSame(await seen(), [200, 200, 200])
  t.equal(await status('/repos/acme/web/codespaces/secrets'), 200, 'owners are admins')
  t.equal((await ask('hubot', 'PUT', `${PATH}/eve`)).statusCode, 200)
  await ask('mona', 'PUT', `${PATH}/hubot`, { role: 'member' })
  t.strictSame(await seen(), [200, 403, 200])
  await ask('mona', 'DELETE', `${PATH}/hubot`)
  t.strictSame(await seen(), [404, 404, 404])
  t.strictSame(server.log, [])
})

t.test('a member that leaves keeps no role on repositories of the organization', async (t) => {
  const { ask, server, mona, acme, hubot, eve } = await prepare(t)
  await server.createRepository(acme, 'api')
  await server.createRepository(mona, 'own')
  await ask('mona', 'PUT', `${PATH}/hubot`)
  for (const name of ['web', 'api']) await server.setRole(acme, name, hubot, 'write')
  await server.setRole(acme, 'web', eve, 'write')
  await server.setRole(mona, 'own', hubot, 'write')
  t.equal((await ask('hubot', 'GET', '/repos/acme/web/codespaces/secrets')).statusCode, 200)
  t.equal((await ask('mona', 'DELETE', `${PATH}/hubot`)).statusCode, 204)
  for (const url of ['/repos/acme/web', '/repos/acme/api/codespaces/secrets']) {
    t.equal((await ask('hubot', 'GET', url)).statusCode, 404, url)
  }
  const left = await server.db
    .selectFrom('collaborators as c')
    .innerJoin('accounts as a', 'a.id', 'c.account_id')
    .innerJoin('repositories as r', 'r.id', 'c.repository_id')
    .select(['a.login', 'r.name'])
    .orderBy('r.name')
    .execute()
  t.strictSame(left, [
    { login: 'hubot', name: 'own' },
    { login: 'eve', name: 'web' }
  ])
})

t.test('the last owner stays: neither leaves, nor becomes a member', async (t) => {
  const { ask, refuse, members, acme } = await prepare(t)
  await ask('mona', 'PUT', `${PATH}/hubot`)
  for (const path of [`${PATH}/mona`, `/organizations/${acme.id}/memberships/MONA`]) {
    await refuse(LAST_OWNER, 'mona', 'DELETE', path)
    for (const body of [{ role: 'member' }, {}, undefined])
      await refuse(LAST_OWNER, 'mona', 'PUT', path, body)
  }
  t.equal((await ask('mona', 'PUT', `${PATH}/mona`, { role: 'admin' })).statusCode, 200, 'nothing to change')
  await ask('mona', 'PUT', `${PATH}/hubot`, { role: 'admin' })
  t.equal((await ask('mona', 'PUT', `${PATH}/mona`, { role: 'member' })).statusCode, 200, 'with another one')
  await refuse(LAST_OWNER, 'hubot', 'DELETE', `${PATH}/hubot`)
  await refuse(NO_OWNER, 'mona', 'DELETE', `${PATH}/mona`)
  t.equal((await ask('hubot', 'DELETE', `${PATH}/mona`)).statusCode, 204)
  t.strictSame(await members(), { hubot: 'admin' })
})

t.test('of two owners who dismiss each other at once one does', async (t) => {
  const { server, tokens, members, mona, hubot, acme } = await prepare(t)
  for (let round = 0; round < 12; round++) {
    await server.addMember(acme, mona, 'admin')
    await server.addMember(acme, hubot, 'admin')
    const dismiss = (token: string, login: string) =>
      round % 2
        ? server.request('DELETE', `${PATH}/${login}`, { token })
        : server.request('PUT', `${PATH}/${login}`, { token, body: { role: 'member' } })
    const answers = await Promise.all([dismiss(tokens.mona, 'hubot'), dismiss(tokens.hubot, 'mona')])
    const done = answers.filter(({ statusCode }) => statusCode < 300)
    t.equal(done.length, 1, answers.map(({ statusCode }) => statusCode).join(' '))
    const owners = Object.values(await members()).filter((role) => role === 'admin')
    t.equal(owners.length, 1)
  }
})

t.test('of many owners who all leave at once one stays', async (t) => {
  const { server, acme, members, refuse } = await prepare(t)
  const leaving = await Promise.all(
    Array.from({ length: 8 }, async (_, n) => {
      const user = await server.createUser(`owner-${n}`)
      await server.addMember(acme, user, 'admin')
      return { user, token: await server.createToken(user, { scopes: ['admin:org'] }) }
    })
  )
  await server.request('DELETE', `${PATH}/mona`, { token: leaving[0]!.token })
  const answers = await Promise.all(
    leaving.map(({ user, token }) => server.request('DELETE', `${PATH}/${user.login}`, { token }))
  )
  const statuses = answers.map(({ statusCode }) => statusCode).sort()
  t.strictSame(statuses, [204, 204, 204, 204, 204, 204, 204, 403])
  t.strictSame(Object.values(await members()), ['admin'])
  await refuse(NOT_FOUND, 'mona', 'PUT', `${PATH}/mona`, { role: 'admin' })
})

t.test('who does not belong finds nothing, and a member changes nothing', async (t) => {
  const { ask, refuse, acme, server, eve } = await prepare(t)
  await ask('mona', 'PUT', `${PATH}/hubot`)
  await server.setRole(acme, 'web', eve, 'admin')
  for (const path of [PATH, `/organizations/${acme.id}/memberships`]) {
    for (const login of ['mona', 'hubot', 'eve', 'nobody']) {
      t.equal((await ask('eve', 'GET', `${path}/${login}`)).statusCode, 404, login)
      await refuse(NOT_FOUND, 'eve', 'PUT', `${path}/${login}`, { role: 'admin' })
      await refuse(NOT_FOUND, 'eve', 'DELETE', `${path}/${login}`)
      await refuse(NO_OWNER, 'hubot', 'PUT', `${path}/${login}`, { role: 'admin' })
      await refuse(NO_OWNER, 'hubot', 'DELETE', `${path}/${login}`)
    }
  }
  await refuse(NOT_FOUND, 'mona', 'PUT', '/orgs/others/memberships/mona', { role: 'admin' })
  await refuse(NOT_FOUND, 'mona', 'DELETE', '/orgs/others/memberships/eve')
  t.equal((await ask('mona', 'GET', '/orgs/others/memberships/eve')).statusCode, 404)
})

t.test('a membership is of a user there is, in a role there is', async (t) => {
  const { ask, refuse, members, acme } = await prepare(t)
  for (const login of ['nobody', 'others', 'acme', 'hu%00bot', 'x'.repeat(300), '%25']) {
    for (const role of ['admin', 'member']) {
      await refuse(NOT_FOUND, 'mona', 'PUT', `${PATH}/${login}`, { role })
    }
    await refuse(NOT_FOUND, 'mona', 'DELETE', `${PATH}/${login}`)
    t.equal((await ask('mona', 'GET', `${PATH}/${login}`)).statusCode, 404, login)
  }
  for (const role of ['owner-MARKER', '', 'Admin', 'maintain', null, 1, ['admin'], {}]) {
    const expected: Refusal = {
      status: 422,
      message: /^Invalid request\.\n\nInvalid property \/role is not valid: /,
      errors: [['role', 'custom', /^role is not valid/]]
    }
    await refuse(expected, 'mona', 'PUT', `${PATH}/hubot`, { role })
  }
  for (const [body, message] of [
    ['{"role": ', 'Problems parsing JSON'],
    ['["admin"]', 'Body should be a JSON object'],
    ['null', 'Body should be a JSON object']
  ] as const) {
    await refuse({ status: 400, message }, 'mona', 'PUT', `${PATH}/hubot`, body)
  }
  for (const organization of [
    'orgs/mona',
    'orgs/nobody',
    'orgs/a%00b',
    `organizations/${acme.id + 999}`,
    'organizations/0'
  ]) {
    await refuse(NOT_FOUND, 'mona', 'PUT', `/${organization}/memberships/hubot`, { role: 'member' })
  }
  t.strictSame(await members(), { Mona: 'admin' })
})

t.test("every change is recorded in the organization's stream", async (t) => {
  const { ask, server, acme, mona, hubot } = await prepare(t)
  await ask('mona', 'PUT', `${PATH}/HUBOT`)
  await ask('mona', 'PUT', `${PATH}/hubot`, { role: 'admin' })
  await ask('hubot', 'DELETE', `${PATH}/hubot`)
  const events = await server.db
    .selectFrom('audit_events')
    .select(['action', 'name', 'subject_uid', 'actor_uid'])
    .where('action', 'like', 'membership.%')
    .where('stream_uid', '=', acme.uid)
    .orderBy('id')
    .execute()
  const common = { name: 'hubot', subject_uid: hubot.uid }
  t.strictSame(events, [
    { action: 'membership.set.member', ...common, actor_uid: mona.uid },
    { action: 'membership.set.admin', ...common, actor_uid: mona.uid },
    { action: 'membership.remove', ...common, actor_uid: hubot.uid }
  ])
})
