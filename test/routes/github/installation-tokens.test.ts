import t from 'tap'
import { hashToken } from '../../../src/auth/token.ts'
import { installTestApp, mint, registerTestApp, signJwt } from '../../github-app.ts'
import { schemaValidator, validator } from '../../github-description.ts'
import { BY_INTEGRATION, makeWorld, PERMISSIONS, WEB } from './installation-world.ts'

const world = await makeWorld(t)

t.test('a token is minted for an hour, with all that the installation has', async (t) => {
  const { server, id, post, acme } = world
  const response = await post(undefined)
  t.equal(response.statusCode, 201)
  t.same(validator('apps/create-installation-access-token', 201)(response.json()), [])
  const { token, expires_at, ...rest } = response.json()
  t.match(token, /^coffer_ins_[0-9A-Za-z]{49}$/)
  t.same(rest, {
    permissions: { ...PERMISSIONS, metadata: 'read' },
    repository_selection: 'selected'
  })
  const row = await server.db
    .selectFrom('tokens')
    .selectAll()
    .where('kind', '=', 'installation')
    .executeTakeFirstOrThrow()
  t.equal(row.installation_id, id)
  t.equal(row.account_id, acme.id)
  t.same(row.hash, hashToken(token))
  t.equal(row.expires_at!.getTime() - row.created_at.getTime(), 3_600_000)
  t.equal(expires_at, `${row.expires_at!.toISOString().slice(0, 19)}Z`)
  const everything = JSON.stringify(await server.db.selectFrom('tokens').selectAll().execute())
  t.notMatch(everything, token)
  t.notMatch(server.log.join(''), token)

  for (const [body, what] of [
    [{}, 'an empty object'],
    [{ permissions: {} }, 'no permissions in particular'],
    [{ unknown: 1 }, 'something unknown']
  ] as const)
    t.same((await post(body)).json().permissions, { ...PERMISSIONS, metadata: 'read' }, what)
})

t.test('a token is narrowed by names, by ids, and by permissions', async (t) => {
  const { server, ids, post, ask } = world
  const byName = await post({ repositories: ['web'], permissions: { codespaces_secrets: 'read' } })
  t.equal(byName.statusCode, 201)
  const { token, ...shown } = byName.json()
  t.same(shown.permissions, { codespaces_secrets: 'read', metadata: 'read' })
  t.equal(shown.repository_selection, 'selected')
  t.same(
    shown.repositories.map((repository: { id: number }) => repository.id),
    [ids.web]
  )
  t.same(schemaValidator('repository')(shown.repositories[0]), [])
  t.same(await ask('GET', WEB, token), [403, BY_INTEGRATION], 'read is not what the operation asks for')
  t.same(await ask('GET', '/repos/acme/web', token), [200, ''])
  t.same(await ask('GET', '/repos/acme/api', token), [404, 'Not Found'])

  for (const [body, expected] of [
    [{ repositories: ['WEB', 'web', 'Web'] }, ['web']],
    [{ repository_ids: [ids.web, ids.web] }, ['web']],
    [{ repository_ids: [String(ids.api)] }, ['api']],
    [{ repositories: ['web'], repository_ids: [ids.api] }, ['web', 'api']]
  ] as const) {
    const minted = await post(body)
    t.equal(minted.statusCode, 201, JSON.stringify(body))
    const names = minted.json().repositories.map(({ name }: { name: string }) => name)
    t.same(names, expected, JSON.stringify(body))
    const list = await server.request('GET', '/installation/repositories', { token: minted.json().token })
    t.same(
      list.json().repositories.map(({ name }: { name: string }) => name),
      expected
    )
    t.equal(list.json().repository_selection, 'selected')
  }
  const metadata = await post({ permissions: { metadata: 'read' } })
  t.same(metadata.json().permissions, { metadata: 'read' })
  t.same(await ask('GET', WEB, metadata.json().token), [403, BY_INTEGRATION])
})

t.test('a token never gets more than the installation has', async (t) => {
  const { ids, post } = world
  const NOT_GRANTED = 'The permissions requested are not granted to this installation.'
  const NO_REPOSITORY =
    'There is at least one repository that does not exist or is not accessible to the parent installation.'
  const cases: [body: unknown, status: number, message: string | RegExp][] = [
    [{ permissions: { members: 'write' } }, 422, NOT_GRANTED],
    [{ permissions: { secrets: 'read' } }, 422, NOT_GRANTED],
    [{ permissions: { codespaces_secrets: 'admin' } }, 422, NOT_GRANTED],
    [{ permissions: { codespaces_secrets: '' } }, 422, NOT_GRANTED],
    [{ permissions: { 'codespaces-secrets': 'read' } }, 422, NOT_GRANTED],
    [{ permissions: { constructor: 'read' } }, 422, NOT_GRANTED],
    [{ permissions: { metadata: 'write' } }, 422, NOT_GRANTED],
    ['{"permissions":{"__proto__":"read"}}', 422, NOT_GRANTED],
    [{ repositories: ['hidden'] }, 422, NO_REPOSITORY],
    [{ repositories: ['web', 'hidden'] }, 422, NO_REPOSITORY],
    [{ repositories: ['open'] }, 422, NO_REPOSITORY],
    [{ repositories: ['none'] }, 422, NO_REPOSITORY],
    [{ repositories: ['notes'] }, 422, NO_REPOSITORY],
    [{ repositories: ['acme/web'] }, 422, NO_REPOSITORY],
    [{ repositories: ['web\0'] }, 422, NO_REPOSITORY],
    [{ repositories: [''] }, 422, NO_REPOSITORY],
    [{ repository_ids: [ids.hidden] }, 422, NO_REPOSITORY],
    [{ repository_ids: [ids.notes] }, 422, NO_REPOSITORY],
    [{ repository_ids: [0] }, 422, NO_REPOSITORY],
    [{ repository_ids: [-1] }, 422, NO_REPOSITORY],
    [{ repository_ids: [2 ** 60] }, 422, NO_REPOSITORY],
    [{ repository_ids: ['99999999999999999999999'] }, 422, NO_REPOSITORY],
    [{ repository_ids: [1.5] }, 422, /repository_ids\/0/],
    [{ repository_ids: ['x'] }, 422, /repository_ids\/0/],
    [{ repository_ids: [null] }, 422, /repository_ids\/0/],
    [{ repository_ids: [[ids.web]] }, 422, /repository_ids\/0/],
    [{ repository_ids: ids.web }, 422, /repository_ids/],
    [{ repository_ids: null }, 422, /repository_ids/],
    [{ repositories: 'web' }, 422, /repositories/],
    [{ repositories: [1] }, 422, /repositories\/0/],
    [{ repositories: { 0: 'web' } }, 422, /repositories/],
    [{ permissions: 'all' }, 422, /permissions/],
    [{ permissions: ['codespaces_secrets'] }, 422, /permissions/],
    [{ permissions: { codespaces_secrets: 1 } }, 422, /permissions\/codespaces_secrets/],
    [{ permissions: { codespaces_secrets: null } }, 422, /permissions\/codespaces_secrets/],
    [{ repositories: [] }, 422, 'Validation Failed'],
    [{ repository_ids: [] }, 422, 'Validation Failed'],
    [{ repository_ids: Array.from({ length: 10_001 }, () => ids.web) }, 422, /more than 500 entries/],
    [{ repositories: Array.from({ length: 10_001 }, () => 'web') }, 422, /more than 500 entries/],
    ['[]', 400, 'Body should be a JSON object'],
    ['{', 400, 'Problems parsing JSON']
  ]
  for (const [body, status, message] of cases) {
    const what = JSON.stringify(body).slice(0, 80)
    const response = await post(body)
    t.equal(response.statusCode, status, what)
    t.match(response.json().message, message, what)
    t.notOk('token' in response.json(), what)
  }
  const helpful = await post({ permissions: { members: 'write' } })
  t.match(helpful.json().errors[0], { field: 'permissions', message: /members=read/ })
  const empty = await post({ repositories: [] })
  t.match(empty.json().errors[0], { field: 'repositories', message: /leave it out/ })
})

t.test('only its own App mints for an installation', async (t) => {
  const { server, post, id } = world
  const other = await registerTestApp(server, 'Other', PERMISSIONS)
  const response = await post({}, await signJwt(other))
  t.equal(response.statusCode, 404)
  t.equal(response.json().message, 'Not Found')
  // before the body is read
  t.equal((await post('{', await signJwt(other))).statusCode, 404)
  t.equal((await post('{', 'garbage')).statusCode, 401)
  const ownId = await installTestApp(server, other, 'acme', ['hidden'])
  t.not(ownId, id)
  const { token } = await mint(server, other, ownId)
  t.equal(
    (await server.request('GET', WEB, { token })).statusCode,
    404,
    'what another App has is not its own'
  )
})

t.test(
  'an installation reaches what its account owns and it was given, and of all else what anybody sees',
  async (t) => {
    const { server, mona, acme, app, id, ask } = world
    // The account has roles elsewhere, as a collaborator and as a member, and those are not the installation's.
    const hubot = await server.createUser('hubot')
    await server.createRepository(hubot, 'tools')
    await server.createRepository(hubot, 'site', { private: false })
    await server.setRole(hubot, 'tools', mona, 'admin')
    await server.setRole(hubot, 'site', mona, 'admin')
    const onMona = await installTestApp(server, app, 'mona')
    const { token: monas } = await mint(server, app, onMona)
    const { token: acmes } = await mint(server, app, id)

    const cases: [token: string, url: string, answer: [status: number, message: string]][] = [
      [acmes, WEB, [200, '']],
      [acmes, '/repos/acme/hidden', [404, 'Not Found']],
      [acmes, '/repos/acme/hidden/codespaces/secrets', [404, 'Not Found']],
      [acmes, '/repos/acme/open', [200, '']],
      [acmes, '/repos/acme/open/codespaces/secrets', [403, BY_INTEGRATION]],
      [acmes, '/repos/acme/open/codespaces/secrets/public-key', [403, BY_INTEGRATION]],
      [acmes, '/repos/mona/notes/codespaces/secrets', [404, 'Not Found']],
      [acmes, '/orgs/acme/codespaces/secrets', [200, '']],
      [acmes, '/orgs/acme/members', [200, '']],
      [monas, '/repos/mona/notes/codespaces/secrets', [200, '']],
      [monas, '/repos/hubot/tools', [404, 'Not Found']],
      [monas, '/repos/hubot/tools/codespaces/secrets', [404, 'Not Found']],
      [monas, '/repos/hubot/site', [200, '']],
      [monas, '/repos/hubot/site/codespaces/secrets', [403, BY_INTEGRATION]],
      [monas, '/repos/hubot/site/codespaces/secrets/public-key', [403, BY_INTEGRATION]],
      [monas, '/repos/hubot/site/collaborators', [403, BY_INTEGRATION]],
      [monas, WEB, [404, 'Not Found']],
      [monas, '/orgs/acme', [200, '']],
      [monas, '/orgs/acme/codespaces/secrets', [404, 'Not Found']],
      [monas, '/orgs/acme/members', [404, 'Not Found']]
    ]
    for (const [token, url, answer] of cases) t.same(await ask('GET', url, token), answer, url)

    const listed = await server.request('GET', '/orgs/acme/repos', { token: acmes })
    t.same(
      listed.json().map(({ name }: { name: string }) => name),
      ['web', 'api', 'open']
    )
    const own = await server.request('GET', '/installation/repositories', { token: monas })
    t.same(validator('apps/list-repos-accessible-to-installation', 200)(own.json()), [])
    t.equal(own.json().repository_selection, 'all')
    t.same(
      own.json().repositories.map(({ full_name }: { full_name: string }) => full_name),
      ['mona/notes']
    )
    t.ok(acme)
  }
)

t.test('it is nobody: no user, no administrator, and not of the site', async (t) => {
  const { server, app, id, ask, ids } = world
  const { token } = await mint(server, app, id)
  for (const url of [
    '/user',
    '/user/repos',
    '/user/orgs',
    '/user/codespaces/secrets',
    '/user/codespaces/secrets/public-key',
    '/user/codespaces/secrets/A',
    '/user/codespaces/secrets/A/repositories'
  ])
    t.same(await ask('GET', url, token), [403, BY_INTEGRATION], url)
  t.same(await ask('POST', '/user/repos', token, { body: { name: 'x' } }), [403, BY_INTEGRATION])
  t.same(await ask('PUT', '/user/codespaces/secrets/A', token, { body: {} }), [403, BY_INTEGRATION])
  t.same(
    await ask('PUT', `/user/installations/${id}/repositories/${ids.web}`, token),
    [403, BY_INTEGRATION],
    'what it has is not for itself to say'
  )
  t.equal((await ask('PUT', `/user/installations/${id}/repositories/${ids.hidden}`, token))[0], 404)
  for (const url of ['/admin/apps', '/admin/apps/octo-app/keys'])
    t.equal((await ask('GET', url, token))[0], 403, url)
  t.equal((await ask('POST', '/admin/users', token, { body: { login: 'eve' } }))[0], 403)
  t.equal((await ask('GET', '/', token))[0], 200)
  t.equal((await ask('GET', '/users/mona', token))[0], 200)
})

t.test('the headers are those of a fine-grained token', async (t) => {
  const { server, app, id } = world
  const { token } = await mint(server, app, id, { permissions: { metadata: 'read' } })
  const refused = await server.request('GET', WEB, { token })
  t.equal(refused.statusCode, 403)
  t.equal(refused.headers['x-accepted-github-permissions'], 'codespaces_secrets=write')
  t.equal(refused.headers['x-oauth-scopes'], undefined)
  t.equal(refused.headers['x-accepted-oauth-scopes'], undefined)
})

t.test('what it writes is by itself: creator and audit say so', async (t) => {
  const { server, app, id, installation, acme } = await makeWorld(t)
  const { token } = await mint(server, app, id)
  const { installation_uid } = await installation()
  const put = await server.request('PUT', `${WEB}/TOKEN`, { token, body: await server.seal(WEB, token, 'v') })
  t.equal(put.statusCode, 201)
  const secret = await server.db.selectFrom('secrets').selectAll().executeTakeFirstOrThrow()
  t.match(secret, { creator_kind: 'installation', creator_uid: installation_uid })
  const list = '/orgs/acme/codespaces/secrets'
  const body = { ...(await server.seal(list, token, 'v')), visibility: 'all' }
  t.equal((await server.request('PUT', `${list}/SHARED`, { token, body })).statusCode, 201)
  await server.request('DELETE', `${WEB}/TOKEN`, { token })
  const events = await server.db
    .selectFrom('audit_events')
    .select(['action', 'actor_kind', 'actor_uid', 'stream_uid', 'token_id', 'name'])
    .where('actor_kind', 'in', ['installation', 'app'])
    .orderBy('id')
    .execute()
  const { id: tokenId } = await server.db
    .selectFrom('tokens')
    .select('id')
    .where('installation_id', '=', id)
    .executeTakeFirstOrThrow()
  t.match(events, [
    { action: 'token.create', actor_kind: 'app', name: `octo-app[bot]#${tokenId}`, token_id: null },
    { action: 'secret.create', actor_kind: 'installation', actor_uid: installation_uid, token_id: tokenId },
    { action: 'secret.create', actor_kind: 'installation', name: 'SHARED' },
    { action: 'secret.remove', actor_kind: 'installation', token_id: tokenId }
  ])
  for (const event of events) t.equal(event.stream_uid, acme.uid)
  t.match(server.log.join(''), /"actor":"octo-app\[bot\]"/)
})

t.test('an organization secret is only for repositories that the installation has', async (t) => {
  const { server, app, id, ids } = world
  const list = '/orgs/acme/codespaces/secrets'
  const { token } = await mint(server, app, id)
  const { token: narrow } = await mint(server, app, id, { repositories: ['web'] })
  const box = await server.seal(list, token, 'v')
  const put = (name: string, selected: number[], by = token) =>
    server.request('PUT', `${list}/${name}`, {
      token: by,
      body: { ...box, visibility: 'selected', selected_repository_ids: selected }
    })
  t.equal((await put('A', [ids.web!, ids.api!])).statusCode, 201)
  for (const [what, id] of Object.entries({
    hidden: ids.hidden,
    public: ids.open,
    'of others': ids.notes,
    none: 1
  })) {
    t.equal((await put('A', [ids.web!, id!])).statusCode, 422, what)
    t.equal((await server.request('PUT', `${list}/A/repositories/${id}`, { token })).statusCode, 404, what)
    const set = await server.request('PUT', `${list}/A/repositories`, {
      token,
      body: { selected_repository_ids: [id] }
    })
    t.equal(set.statusCode, 422, what)
  }
  t.equal((await put('B', [ids.web!], narrow)).statusCode, 201)
  t.equal((await put('B', [ids.api!], narrow)).statusCode, 422, 'not in the narrowed token')
  const shown = await server.request('GET', `${list}/A/repositories`, { token })
  t.same(
    shown.json().repositories.map(({ name }: { name: string }) => name),
    ['web', 'api']
  )
  const less = await server.request('GET', `${list}/A/repositories`, { token: narrow })
  t.same(
    less.json().repositories.map(({ name }: { name: string }) => name),
    ['web']
  )
})

t.test('a repository that it makes in its organization is its own', async (t) => {
  const { server, app, id, ask } = world
  const { token } = await mint(server, app, id)
  t.same(await ask('POST', '/orgs/acme/repos', token, { body: { name: 'made', private: true } }), [201, ''])
  t.same(await ask('GET', '/repos/acme/made/codespaces/secrets', token), [200, ''])
  const list = await server.request('GET', '/installation/repositories', { token })
  t.same(
    list.json().repositories.map(({ name }: { name: string }) => name),
    ['web', 'api', 'made']
  )
  await server.createOrganization('other', await server.createUser('stranger'))
  t.equal((await ask('POST', '/orgs/other/repos', token, { body: { name: 'made' } }))[0], 403)
  t.equal((await ask('POST', '/orgs/none/repos', token, { body: { name: 'made' } }))[0], 404)
  const { token: less } = await mint(server, app, id, { permissions: { codespaces_secrets: 'write' } })
  t.same(await ask('POST', '/orgs/acme/repos', less, { body: { name: 'more' } }), [403, BY_INTEGRATION])
})
