import t from 'tap'
import { schemaValidator } from '../../github-description.ts'
import { startTestServer } from '../../helper.ts'
import { stored } from './refusal.ts'

const PATH = '/repos/mona/web/collaborators'
const SECRETS = '/repos/mona/web/codespaces/secrets'
const collaborator = schemaValidator('collaborator')
const permissionOf = schemaValidator('repository-collaborator-permission')

async function start(t: Parameters<typeof startTestServer>[0], options: { private?: boolean } = {}) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const hubot = await server.createUser('hubot')
  const id = await server.createRepository(mona, 'web', options)
  return {
    server,
    mona,
    hubot,
    id,
    token: await server.createToken(mona, { scopes: ['repo'] }),
    theirs: await server.createToken(hubot, { scopes: ['repo'] })
  }
}

t.test('a role acts at once, each of them as far as it reaches', async (t) => {
  const { server, mona, hubot, token, theirs } = await start(t)
  const cases: [permission: string | undefined, role: string, level: string, list: number, change: number][] =
    [
      ['pull', 'read', 'read', 403, 403],
      ['triage', 'triage', 'read', 403, 403],
      [undefined, 'write', 'write', 200, 403],
      ['push', 'write', 'write', 200, 403],
      ['maintain', 'maintain', 'write', 200, 403],
      ['admin', 'admin', 'admin', 200, 200]
    ]
  t.equal((await server.request('GET', SECRETS, { token: theirs })).statusCode, 404)
  for (const [permission, role, level, list, change] of cases) {
    const given = await server.request('PUT', `${PATH}/HUBOT`, {
      token,
      ...(permission && { body: { permission } })
    })
    t.equal(given.statusCode, 204, role)
    t.equal(given.body, '')
    t.equal(
      (await server.request('GET', SECRETS, { token: theirs })).statusCode,
      list,
      `${role} lists secrets`
    )
    t.equal(
      (await server.request('PATCH', '/repos/mona/web', { token: theirs, body: { description: role } }))
        .statusCode,
      change,
      `${role} changes the repository`
    )
    const shown = await server.request('GET', `${PATH}/hubot/permission`, { token })
    t.equal(shown.statusCode, 200)
    t.same(permissionOf(shown.json()), [])
    t.match(shown.json(), { permission: level, role_name: role, user: { login: 'hubot', id: hubot.id } })
  }
  t.equal((await server.request('DELETE', `${PATH}/hubot`, { token })).statusCode, 204)
  t.equal((await server.request('GET', SECRETS, { token: theirs })).statusCode, 404, 'gone at once')

  const events = await server.db
    .selectFrom('audit_events')
    .select(['action', 'name', 'actor_uid'])
    .where('stream_uid', '=', mona.uid)
    .where('action', 'like', 'collaborator.%')
    .orderBy('id')
    .execute()
  t.same(
    events,
    ['set.read', 'set.triage', 'set.write', 'set.write', 'set.maintain', 'set.admin', 'remove'].map(
      (action) => ({
        action: `collaborator.${action}`,
        name: 'hubot',
        actor_uid: mona.uid
      })
    )
  )
})

t.test('a collaborator is one with a role, the owner included', async (t) => {
  const { server, token } = await start(t, { private: false })
  const check = async (login: string) =>
    (await server.request('GET', `${PATH}/${login}`, { token })).statusCode
  t.equal(await check('hubot'), 404, 'reading what is public is no role')
  t.equal(await check('mona'), 204)
  t.equal(await check('absent'), 404)
  const shown = await server.request('GET', `${PATH}/hubot/permission`, { token })
  t.match(shown.json(), { permission: 'read', role_name: 'read' })
  await server.request('PUT', `${PATH}/hubot`, { token, body: { permission: 'triage' } })
  t.equal(await check('Hubot'), 204)
})

t.test('of a private repository a user without a role has the permission none', async (t) => {
  const { server, token } = await start(t)
  const shown = await server.request('GET', `${PATH}/hubot/permission`, { token })
  t.equal(shown.statusCode, 200)
  t.match(shown.json(), { permission: 'none', role_name: 'none' })
  t.match((await server.request('GET', `${PATH}/mona/permission`, { token })).json(), {
    permission: 'admin',
    role_name: 'admin'
  })
})

t.test('collaborators are listed in pages, with their roles', async (t) => {
  const { server, mona, id, token } = await start(t)
  for (const [login, role] of [
    ['a', 'read'],
    ['b', 'maintain'],
    ['c', 'admin']
  ] as const) {
    await server.setRole(mona, 'web', await server.createUser(login), role)
  }
  const page = async (query: string) => {
    const response = await server.request('GET', `${PATH}${query}`, { token })
    t.equal(response.statusCode, 200)
    for (const one of response.json()) t.same(collaborator(one), [])
    return {
      shown: response.json().map((one: Record<string, string>) => `${one.login} ${one.role_name}`),
      link: response.headers.link
    }
  }
  const { shown, link } = await page('?affiliation=direct')
  t.same(
    shown.filter((one: string) => !one.startsWith('mona')),
    ['a read', 'b maintain', 'c admin']
  )
  t.equal(link, undefined)
  const first = await page('?per_page=2')
  t.equal(first.shown.length, 2)
  t.match(first.link, `<http://coffer.test/repositories/${id}/collaborators?per_page=2&page=2>; rel="next"`)
})

t.test('what cannot be given or taken is refused, and nothing changes', async (t) => {
  const { server, mona, token } = await start(t)
  await server.createOrganization('acme', mona)
  const before = await stored(server.db)
  const refused: ['PUT' | 'DELETE', string, unknown, number][] = [
    ['PUT', 'absent', undefined, 404],
    ['PUT', 'acme', undefined, 404],
    ['PUT', 'a%00b', undefined, 404],
    ['PUT', 'mona', { permission: 'pull' }, 422],
    ['PUT', 'hubot', { permission: 'owner' }, 422],
    ['PUT', 'hubot', { permission: '__proto__' }, 422],
    ['PUT', 'hubot', { permission: 1 }, 422],
    ['PUT', 'hubot', '{broken', 400],
    ['DELETE', 'absent', undefined, 404]
  ]
  for (const [method, login, body, status] of refused) {
    const response = await server.request(method, `${PATH}/${login}`, { token, body })
    t.equal(response.statusCode, status, `${method} ${login} ${JSON.stringify(body)}`)
  }
  t.equal((await server.request('DELETE', `${PATH}/hubot`, { token })).statusCode, 204, 'as at GitHub')
  t.same(await stored(server.db), before)
})

t.test('only administrators of the repository give and take roles', async (t) => {
  const { server, mona, hubot } = await start(t)
  const maintainer = await server.createUser('maintainer')
  await server.setRole(mona, 'web', maintainer, 'maintain')
  await server.setRole(mona, 'web', hubot, 'read')
  const secrets = { codespaces_secrets: 'write' }
  const refused: [number, string][] = [
    [403, await server.createToken(maintainer, { scopes: ['repo'] })],
    [403, await server.createToken(hubot, { scopes: ['repo'] })],
    [403, await server.createToken(mona, { permissions: secrets, allRepositories: true })],
    [404, await server.createToken(mona, { scopes: ['admin:org', 'site_admin'] })],
    [404, await server.createToken(server.admin.account, { scopes: ['repo', 'site_admin'] })]
  ]
  const before = await stored(server.db)
  for (const [status, token] of refused) {
    const given = await server.request('PUT', `${PATH}/hubot`, { token, body: { permission: 'admin' } })
    t.equal(given.statusCode, status)
    t.equal((await server.request('DELETE', `${PATH}/hubot`, { token })).statusCode, status)
  }
  t.same(await stored(server.db), before)
})

t.test(
  'a member of an organization reads its repositories; a role as collaborator counts more',
  async (t) => {
    const server = await startTestServer(t, { logLevel: 'warn' })
    const mona = await server.createUser('mona')
    const member = await server.createUser('member')
    const acme = await server.createOrganization('acme', mona)
    await server.createRepository(acme, 'web')
    const token = await server.createToken(mona, { scopes: ['repo'] })
    const role = async () =>
      (await server.request('GET', '/repos/acme/web/collaborators/member/permission', { token })).json()
        .role_name
    t.equal(await role(), 'none')
    await server.db
      .insertInto('memberships')
      .values({ organization_id: acme.id, account_id: member.id, role: 'member' })
      .execute()
    t.equal(await role(), 'read')
    await server.request('PUT', '/repos/acme/web/collaborators/member', {
      token,
      body: { permission: 'maintain' }
    })
    t.equal(await role(), 'maintain')
  }
)
