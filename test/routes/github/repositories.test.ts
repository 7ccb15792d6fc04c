import { sql } from 'kysely'
import t from 'tap'
import { schemaValidator } from '../../github-description.ts'
import { startTestServer, type TestServer } from '../../helper.ts'
import { stored } from './refusal.ts'

const full = schemaValidator('full-repository')
const minimal = schemaValidator('minimal-repository')

async function start(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['repo'] })
  return { server, mona, token }
}

async function auditOf({ db }: TestServer, streamUid: string) {
  return await db
    .selectFrom('audit_events')
    .select(['action', 'name', 'actor_uid', 'collection', 'value_version', 'outcome'])
    .where('stream_uid', '=', streamUid)
    .where('outcome', '=', 'allowed')
    .orderBy('id')
    .execute()
}

t.test("a new repository is answered with GitHub's full JSON and absolute URLs", async (t) => {
  const { server, mona, token } = await start(t)
  const created = await server.request('POST', '/api/v3/user/repos', {
    token,
    body: { name: 'Web.Site_1-x', private: true, description: 'Größe', has_issues: true, auto_init: true }
  })
  t.equal(created.statusCode, 201)
  const repository = created.json()
  t.same(full(repository), [])
  t.same(minimal(repository), [])
  t.match(repository, {
    name: 'Web.Site_1-x',
    full_name: 'mona/Web.Site_1-x',
    private: true,
    visibility: 'private',
    description: 'Größe',
    url: 'http://coffer.test/api/v3/repos/mona/Web.Site_1-x',
    html_url: 'http://coffer.test/mona/Web.Site_1-x',
    owner: { login: 'mona', id: mona.id, type: 'User', site_admin: false },
    permissions: { admin: true, maintain: true, push: true, triage: true, pull: true },
    created_at: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
  })
  t.equal(created.headers.location, repository.url)

  const shown = await server.request('GET', '/api/v3/repos/MONA/web.site_1-X', { token })
  t.equal(shown.statusCode, 200)
  t.same(shown.json(), repository, 'the stored spelling, whatever the case of the path')
  t.same((await server.request('GET', `/api/v3/repositories/${repository.id}`, { token })).json(), repository)
  t.equal(
    (await server.request('GET', '/repos/mona/Web.Site_1-x', { token })).json().url,
    'http://coffer.test/repos/mona/Web.Site_1-x'
  )
  t.match(await auditOf(server, mona.uid), [
    { action: 'user.create' },
    { action: 'token.create' },
    { action: 'repository.create', name: 'Web.Site_1-x', actor_uid: mona.uid }
  ])
})

t.test('the newer API version has no has_downloads', async (t) => {
  const { server, mona, token } = await start(t)
  await server.createRepository(mona, 'web')
  const shown = (headers: Record<string, string>) =>
    server.request('GET', '/repos/mona/web', { token, headers })
  const older = (await shown({ 'x-github-api-version': '2022-11-28' })).json()
  const newer = (await shown({ 'x-github-api-version': '2026-03-10' })).json()
  t.equal(older.has_downloads, false)
  const { has_downloads: _gone, ...rest } = older
  t.same(newer, rest)
})

t.test('the JSON of a repository tells each reader the own role', async (t) => {
  const { server, mona } = await start(t)
  await server.createRepository(mona, 'web', { private: false })
  const cases = [
    [undefined, 'read', [false, false, false, false, true]],
    ['triage', 'triage', [false, false, false, true, true]],
    ['write', 'write', [false, false, true, true, true]],
    ['maintain', 'maintain', [false, true, true, true, true]],
    ['admin', 'admin', [true, true, true, true, true]]
  ] as const
  for (const [role, shown, [admin, maintain, push, triage, pull]] of cases) {
    const user = await server.createUser(`user-${shown}`)
    if (role) await server.setRole(mona, 'web', user, role)
    const response = await server.request('GET', '/repos/mona/web', {
      token: await server.createToken(user, { scopes: [] })
    })
    t.same(full(response.json()), [])
    t.equal(response.json().role_name, shown)
    t.same(response.json().permissions, { admin, maintain, push, triage, pull })
  }
})

t.test('a private repository needs the scope repo to be made, a public one public_repo', async (t) => {
  const { server, mona } = await start(t)
  const create = async (scopes: string[], body: Record<string, unknown>) => {
    const before = await stored(server.db)
    const response = await server.request('POST', '/user/repos', {
      token: await server.createToken(mona, { scopes }),
      body
    })
    const { tokens: _1, audit_events: _2, ...rowsBefore } = before
    const { tokens: _3, audit_events: _4, ...rowsAfter } = await stored(server.db)
    if (response.statusCode !== 201) t.same(rowsAfter, rowsBefore, 'nothing changed')
    return response.statusCode
  }
  t.equal(await create([], { name: 'a' }), 403)
  t.equal(await create(['codespace', 'site_admin', 'admin:org'], { name: 'a' }), 403)
  t.equal(await create(['public_repo'], { name: 'a', private: true }), 403)
  t.equal(await create(['public_repo'], { name: 'a', visibility: 'private' }), 403)
  t.equal(await create(['public_repo'], { name: 'a' }), 201)
  t.equal(await create(['repo'], { name: 'b', visibility: 'private' }), 201)
  const { private: flag } = await server.db
    .selectFrom('repositories')
    .select('private')
    .where('name', '=', 'a')
    .executeTakeFirstOrThrow()
  t.equal(flag, false, 'public is the default, as at GitHub')
})

t.test('a name that is malformed or taken is refused, and nothing changes', async (t) => {
  const { server, mona, token } = await start(t)
  await server.createRepository(mona, 'web')
  for (const name of ['', '.', '..', 'a b', 'a/b', 'ä', 'x'.repeat(101), 'a\0', 'WEB', 1, null, undefined]) {
    const before = await stored(server.db)
    const response = await server.request('POST', '/user/repos', { token, body: { name } })
    t.equal(response.statusCode, 422, JSON.stringify(name))
    t.equal(response.json().errors[0].field, 'name')
    t.same(await stored(server.db), before)
  }
  t.equal(
    (await server.request('POST', '/user/repos', { token, body: { name: 'x'.repeat(100) } })).statusCode,
    201
  )
})

t.test('members make repositories in an organization, others do not', async (t) => {
  const { server, mona, token } = await start(t)
  const acme = await server.createOrganization('acme', mona)
  const created = await server.request('POST', '/orgs/ACME/repos', {
    token,
    body: { name: 'web', private: true }
  })
  t.equal(created.statusCode, 201)
  t.same(full(created.json()), [])
  t.match(created.json(), {
    full_name: 'acme/web',
    owner: { login: 'acme', id: acme.id, type: 'Organization' },
    permissions: { admin: true }
  })
  t.match((await auditOf(server, acme.uid)).at(-1), { action: 'repository.create', actor_uid: mona.uid })

  const stranger = await server.createUser('stranger')
  const theirs = await server.createToken(stranger, { scopes: ['repo', 'admin:org', 'site_admin'] })
  const before = await stored(server.db)
  t.equal(
    (await server.request('POST', '/orgs/acme/repos', { token: theirs, body: { name: 'x' } })).statusCode,
    403
  )
  t.equal(
    (await server.request('POST', '/orgs/absent/repos', { token, body: { name: 'x' } })).statusCode,
    404
  )
  t.equal((await server.request('POST', '/orgs/mona/repos', { token, body: { name: 'x' } })).statusCode, 404)
  t.same(await stored(server.db), before)
})

/** mona's repository, with a secret in it. */
async function withSecret(t: Parameters<typeof startTestServer>[0], options: { private?: boolean } = {}) {
  const { server, mona, token } = await start(t)
  const id = await server.createRepository(mona, 'web', options)
  const path = '/repos/mona/web/codespaces/secrets'
  await server.request('PUT', `${path}/KEPT`, { token, body: await server.seal(path, token, 'the value') })
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', id)
    .executeTakeFirstOrThrow()
  return { server, mona, token, id, uid }
}

t.test('a renamed repository keeps its secrets, and its old name leads to its number', async (t) => {
  const { server, mona, token, id, uid } = await withSecret(t)
  const sealed = await server.seal('/repos/mona/web/codespaces/secrets', token, 'the next value')
  const renamed = await server.request('PATCH', '/repos/mona/web', { token, body: { name: 'site' } })
  t.equal(renamed.statusCode, 200)
  t.same(full(renamed.json()), [])
  t.match(renamed.json(), { id, name: 'site', full_name: 'mona/site', private: true })
  t.match((await auditOf(server, mona.uid)).at(-1), { action: 'repository.update', name: 'site' })

  t.equal(
    (await server.request('GET', '/repos/mona/site/codespaces/secrets/KEPT', { token })).statusCode,
    200
  )
  t.equal((await server.reveal('repository', uid, 'KEPT'))?.toString(), 'the value')

  const redirects = [
    ['GET', '/repos/mona/web', 301, ''],
    ['HEAD', '/repos/mona/web', 301, ''],
    [
      'GET',
      '/repos/MONA/WEB/codespaces/secrets?per_page=2&page=1',
      301,
      '/codespaces/secrets?per_page=2&page=1'
    ],
    ['GET', '/repos/mona/web/codespaces/secrets/public-key', 301, '/codespaces/secrets/public-key'],
    ['PUT', '/repos/mona/web/codespaces/secrets/KEPT', 307, '/codespaces/secrets/KEPT'],
    ['DELETE', '/repos/mona/web/codespaces/secrets/KEPT', 307, '/codespaces/secrets/KEPT'],
    ['PATCH', '/repos/mona/web', 307, ''],
    ['DELETE', '/repos/mona/web', 307, '']
  ] as const
  for (const [method, url, status, rest] of redirects) {
    for (const prefix of ['', '/api/v3']) {
      const response = await server.request(method, prefix + url, {
        token,
        ...(method === 'PUT' && { body: sealed })
      })
      t.equal(response.statusCode, status, `${method} ${prefix}${url}`)
      t.equal(response.headers.location, `http://coffer.test${prefix}/repositories/${id}${rest}`)
      if (method !== 'HEAD') t.equal(response.json().url, response.headers.location)
    }
  }
  t.equal(
    (await server.reveal('repository', uid, 'KEPT'))?.toString(),
    'the value',
    'a redirect does nothing'
  )

  const followed = await server.request('PUT', `/repositories/${id}/codespaces/secrets/KEPT`, {
    token,
    body: sealed
  })
  t.equal(followed.statusCode, 204)
  t.equal((await server.reveal('repository', uid, 'KEPT'))?.toString(), 'the next value')
})

t.test('an old name tells nothing to those who may not see the repository', async (t) => {
  const { server, mona, token } = await withSecret(t)
  await server.request('PATCH', '/repos/mona/web', { token, body: { name: 'site' } })
  const stranger = await server.createUser('stranger')
  const blind = [
    await server.createToken(stranger, { scopes: ['repo'] }),
    await server.createToken(mona, { scopes: ['public_repo'] }),
    await server.createToken(mona, { permissions: { codespaces_secrets: 'write' }, repositoryIds: [] })
  ]
  for (const other of blind) {
    for (const path of [
      '',
      '/codespaces/secrets',
      '/codespaces/secrets/KEPT',
      '/codespaces/secrets/public-key'
    ]) {
      const response = await server.request('GET', `/repos/mona/web${path}`, { token: other })
      const absent = await server.request('GET', `/repos/mona/absent${path}`, { token: other })
      t.equal(response.statusCode, 404)
      t.equal(response.headers.location, undefined)
      t.equal(response.body, absent.body)
    }
  }
  t.equal((await server.request('GET', '/repos/mona/web')).statusCode, 401)
})

t.test('an old name of a public repository leads there for everybody with a token', async (t) => {
  const { server, token, id } = await withSecret(t, { private: false })
  await server.request('PATCH', '/repos/mona/web', { token, body: { name: 'site' } })
  const stranger = await server.createToken(await server.createUser('stranger'), { scopes: [] })
  const response = await server.request('GET', '/repos/mona/web', { token: stranger })
  t.equal(response.statusCode, 301)
  t.equal(response.headers.location, `http://coffer.test/repositories/${id}`)
})

t.test('a name that is taken again leads to its new holder, which has none of the old secrets', async (t) => {
  const { server, mona, token, id } = await withSecret(t)
  const rename = (from: string, to: string) =>
    server.request('PATCH', `/repos/mona/${from}`, { token, body: { name: to } })
  await rename('web', 'site')
  await rename('site', 'page')
  for (const old of ['web', 'site']) {
    const { headers } = await server.request('GET', `/repos/mona/${old}`, { token })
    t.equal(
      headers.location,
      `http://coffer.test/repositories/${id}`,
      'a chain of names leads to the end at once'
    )
  }
  const second = await server.createRepository(mona, 'web')
  const shown = await server.request('GET', '/repos/mona/web', { token })
  t.equal(shown.statusCode, 200)
  t.equal(shown.json().id, second)
  const secrets = await server.request('GET', '/repos/mona/web/codespaces/secrets', { token })
  t.same(secrets.json(), { total_count: 0, secrets: [] })

  t.equal((await rename('page', 'web')).statusCode, 422, 'a name that another one has')
  t.equal((await rename('page', 'site')).statusCode, 200, 'back to a name that it had')
  t.equal((await server.request('GET', '/repos/mona/site', { token })).statusCode, 200)
  t.equal((await rename('site', 'SITE')).statusCode, 200, 'another case of its own name')
  t.equal((await server.request('GET', '/repos/mona/site', { token })).json().name, 'SITE')
})

t.test('making a repository private hides it at once, and making it public shows it', async (t) => {
  const { server, token } = await withSecret(t, { private: false })
  const stranger = await server.createToken(await server.createUser('stranger'), { scopes: ['repo'] })
  const seen = async () => (await server.request('GET', '/repos/mona/web', { token: stranger })).statusCode
  const change = async (body: Record<string, unknown>) => {
    const response = await server.request('PATCH', '/repos/mona/web', { token, body })
    t.equal(response.statusCode, 200)
    return response.json()
  }
  t.equal(await seen(), 200)
  t.match(await change({ private: true }), { private: true, visibility: 'private' })
  t.equal(await seen(), 404)
  t.match(
    await change({ description: 'text' }),
    { private: true, description: 'text' },
    'absent is unchanged'
  )
  t.match(await change({ visibility: 'public', description: null }), { private: false, description: null })
  t.equal(await seen(), 200)
  t.equal((await server.request('GET', '/repos/mona/web/codespaces/secrets/KEPT', { token })).statusCode, 200)
})

t.test('a deleted repository takes its secrets along, and the audit keeps the names', async (t) => {
  const { server, mona, token, id, uid } = await withSecret(t)
  const other = await server.createRepository(mona, 'other')
  const user = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  const sealed = await server.seal('/user/codespaces/secrets', user, 'mine')
  await server.request('PUT', '/user/codespaces/secrets/MINE', {
    token: user,
    body: { ...sealed, selected_repository_ids: [id, other] }
  })

  t.equal((await server.request('DELETE', '/repos/mona/web', { token })).statusCode, 204)
  t.equal((await server.request('GET', '/repos/mona/web', { token })).statusCode, 404)
  t.equal((await server.request('GET', `/repositories/${id}/codespaces/secrets`, { token })).statusCode, 404)
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [{ name: 'MINE' }])
  const selected = await server.request('GET', '/user/codespaces/secrets/MINE/repositories', { token: user })
  t.equal(selected.json().total_count, 1)
  t.equal(selected.json().repositories[0].id, other)
  t.match((await auditOf(server, mona.uid)).slice(-2), [
    {
      action: 'secret.remove',
      name: 'KEPT',
      collection: `codespaces/repository/${uid}`,
      actor_uid: mona.uid
    },
    { action: 'repository.remove', name: 'web', actor_uid: mona.uid }
  ])

  const again = await server.request('POST', '/user/repos', { token, body: { name: 'web', private: true } })
  t.equal(again.statusCode, 201)
  t.not(again.json().id, id, 'numbers are not used again')
  t.same((await server.request('GET', '/repos/mona/web/codespaces/secrets', { token })).json().secrets, [])
})

t.test('a deletion that cannot be recorded deletes nothing', async (t) => {
  const { server, token, uid } = await withSecret(t)
  await sql`alter table audit_events add check (action <> 'repository.remove') not valid`.execute(server.db)
  const before = await stored(server.db)
  t.equal((await server.request('DELETE', '/repos/mona/web', { token })).statusCode, 500)
  t.same(await stored(server.db), before)
  t.equal((await server.reveal('repository', uid, 'KEPT'))?.toString(), 'the value')
})

t.test('changing and deleting a repository need the role admin and a token for it', async (t) => {
  const { server, mona, id } = await withSecret(t, { private: false })
  const maintainer = await server.createUser('maintainer')
  await server.setRole(mona, 'web', maintainer, 'maintain')
  const permissions = { administration: 'write' }
  const refused = [
    await server.createToken(maintainer, { scopes: ['repo'] }),
    await server.createToken(maintainer, { permissions, allRepositories: true }),
    await server.createToken(mona, { scopes: ['codespace', 'admin:org', 'site_admin'] }),
    await server.createToken(mona, { permissions: { administration: 'read' }, allRepositories: true }),
    await server.createToken(mona, { permissions: { codespaces_secrets: 'write' }, allRepositories: true }),
    await server.createToken(mona, { permissions, repositoryIds: [] })
  ]
  const before = await stored(server.db)
  for (const [index, token] of refused.entries()) {
    for (const [method, body] of [['PATCH', { name: 'other' }], ['DELETE']] as const) {
      t.equal(
        (await server.request(method, '/repos/mona/web', { token, body })).statusCode,
        403,
        `${method} ${index}`
      )
    }
  }
  t.same(await stored(server.db), before)
  const allowed = await server.createToken(mona, { permissions, repositoryIds: [id] })
  t.equal((await server.request('DELETE', '/repos/mona/web', { token: allowed })).statusCode, 204)
})

t.test('the own repositories are those with a role, as far as the token sees, in pages', async (t) => {
  const { server, mona, token } = await start(t)
  const hubot = await server.createUser('hubot')
  const acme = await server.createOrganization('acme', mona)
  const names: string[] = []
  for (const name of ['a', 'b', 'c']) {
    await server.createRepository(mona, name, { private: name !== 'b' })
    names.push(`mona/${name}`)
  }
  const shared = await server.createRepository(hubot, 'shared')
  await server.setRole(hubot, 'shared', mona, 'read')
  await server.createRepository(hubot, 'hidden')
  await server.createRepository(hubot, 'public', { private: false })
  await server.createRepository(acme, 'team')
  names.push('hubot/shared', 'acme/team')

  const list = async (query: string, who = token) => {
    const response = await server.request('GET', `/api/v3/user/repos${query}`, { token: who })
    t.equal(response.statusCode, 200)
    for (const repository of response.json()) t.same(minimal(repository), [])
    return {
      names: response.json().map((one: { full_name: string }) => one.full_name),
      link: response.headers.link
    }
  }
  t.same(await list(''), { names, link: undefined })
  const link = (page: number, rel: string) =>
    `<http://coffer.test/api/v3/user/repos?per_page=2&page=${page}>; rel="${rel}"`
  t.same(await list('?per_page=2'), {
    names: names.slice(0, 2),
    link: `${link(2, 'next')}, ${link(3, 'last')}`
  })
  t.same(await list('?per_page=2&page=2'), {
    names: names.slice(2, 4),
    link: [link(1, 'prev'), link(3, 'next'), link(3, 'last'), link(1, 'first')].join(', ')
  })
  t.same(await list('?per_page=2&page=3'), {
    names: names.slice(4),
    link: `${link(2, 'prev')}, ${link(1, 'first')}`
  })
  t.same((await list('?visibility=public')).names, ['mona/b'])
  t.same(
    (await list('?visibility=private')).names,
    names.filter((name) => name !== 'mona/b')
  )

  t.same((await list('', await server.createToken(mona, { scopes: [] }))).names, ['mona/b'])
  const listed = await server.createToken(mona, { permissions: {}, repositoryIds: [shared] })
  t.same((await list('', listed)).names, ['mona/b', 'hubot/shared'])
})
