import pg from 'pg'
import t from 'tap'
import { hashToken } from '../../../src/auth/token.ts'
import { changeInstallation, suspendInstallation } from '../../../src/directory/installations.ts'
import { changeApp } from '../../../src/directory/integrations.ts'
import { removeRepository } from '../../../src/directory/repositories.ts'
import { findIntegration } from '../../../src/store/integrations.ts'
import { findRepository } from '../../../src/store/repositories.ts'
import { asAdmin, installTestApp, mint, registerTestApp } from '../../github-app.ts'
import { SYSTEM } from '../../helper.ts'
import { BY_INTEGRATION, makeWorld, PERMISSIONS, WEB } from './installation-world.ts'

t.test('a token revokes itself', async (t) => {
  const { server, app, id, ask } = await makeWorld(t)
  const { token } = await mint(server, app, id)
  const { token: other } = await mint(server, app, id)
  t.same(await ask('DELETE', '/installation/token', token), [204, ''])
  t.same(await ask('GET', WEB, token), [401, 'Bad credentials'])
  t.same(await ask('DELETE', '/installation/token', token), [401, 'Bad credentials'])
  t.same(await ask('GET', WEB, other), [200, ''])
  for (const [method, url] of [
    ['DELETE', '/installation/token'],
    ['GET', '/installation/repositories']
  ] as const) {
    t.same(await ask(method, url, server.admin.token), [
      403,
      'You must authenticate with an installation access token.'
    ])
  }
})

t.test('a token ends with its hour, and with a restore', async (t) => {
  const { server, app, id, ask } = await makeWorld(t)
  const { token } = await mint(server, app, id)
  const { token: other } = await mint(server, app, id)
  await server.db
    .updateTable('tokens')
    .set({ expires_at: new Date(Date.now() - 1000) })
    .where('hash', '=', hashToken(token))
    .execute()
  t.same(await ask('GET', WEB, token), [401, 'Bad credentials'])
  t.same(await ask('GET', WEB, other), [200, ''])
  // those that ended are cleared away when the next is minted
  await mint(server, app, id)
  const left = await server.db.selectFrom('tokens').select('hash').where('installation_id', '=', id).execute()
  t.equal(left.length, 2)
  t.notOk(left.some(({ hash }) => hash.equals(hashToken(token))))
  const { token: third } = await mint(server, app, id)
  await server.db
    .updateTable('instance')
    .set((eb) => ({ epoch: eb('epoch', '+', 1) }))
    .execute()
  t.same(await ask('GET', WEB, third), [401, 'Bad credentials'])
})

t.test('what the installation loses, its tokens lose at once', async (t) => {
  const { server, app, id, ask, ids, mona } = await makeWorld(t)
  const { token } = await mint(server, app, id)
  const { token: narrow } = await mint(server, app, id, { repositories: ['web'] })
  const { token: explicit } = await mint(server, app, id, { permissions: { codespaces_secrets: 'write' } })
  const all = [token, narrow, explicit]
  const each = async (answer: [number, string], what: string) => {
    for (const one of all) t.same(await ask('GET', WEB, one), answer, what)
  }
  const change = (body: object) => asAdmin(server, 'PATCH', `/admin/installations/${id}`, body)
  await each([200, ''], 'at first')
  await change({ permissions: { codespaces_secrets: 'read' } })
  await each([403, BY_INTEGRATION], 'a permission')
  await change({ permissions: {} })
  await each([403, BY_INTEGRATION], 'all permissions')
  await change({ permissions: { codespaces_secrets: 'write' } })
  await each([200, ''], 'given again')
  await change({ repositories: ['api'] })
  await each([404, 'Not Found'], 'a repository')
  t.same(await ask('GET', '/repos/acme/api/codespaces/secrets', token), [200, ''])
  t.same(await ask('GET', '/repos/acme/api/codespaces/secrets', narrow), [404, 'Not Found'])
  await change({ all_repositories: true })
  await each([200, ''], 'all repositories')
  t.same(await ask('GET', '/repos/acme/hidden/codespaces/secrets', token), [200, ''])
  t.same(await ask('GET', '/repos/acme/hidden/codespaces/secrets', narrow), [404, 'Not Found'])
  await asAdmin(server, 'PATCH', '/admin/apps/octo-app', { permissions: { codespaces_secrets: 'read' } })
  await each([403, BY_INTEGRATION], 'what the App asks for')
  await asAdmin(server, 'PATCH', '/admin/apps/octo-app', { permissions: PERMISSIONS })
  await each([403, BY_INTEGRATION], 'what the App gains is not given to installations')
  await change({ permissions: PERMISSIONS })
  await each([200, ''], 'until somebody gives it')
  t.same(
    await ask('GET', '/orgs/acme/codespaces/secrets', explicit),
    [403, BY_INTEGRATION],
    'as it was minted'
  )

  // what users take and give
  const owner = await server.createToken(mona, { scopes: ['repo'] })
  const path = `/user/installations/${id}/repositories`
  t.same(await ask('DELETE', `${path}/${ids.web}`, owner), [
    422,
    'The installation is for all repositories. Change it to selected ones first.'
  ])
  t.same(await ask('PUT', `${path}/${ids.web}`, owner), [204, ''])
  await change({ repositories: ['web', 'api'] })
  t.same(await ask('DELETE', `${path}/${ids.web}`, owner), [204, ''])
  await each([404, 'Not Found'], 'taken by its owner')
  t.same(await ask('DELETE', `${path}/${ids.web}`, owner), [404, 'Not Found'])
  t.same(await ask('PUT', `${path}/${ids.web}`, owner), [204, ''])
  t.same(await ask('PUT', `${path}/${ids.web}`, owner), [204, ''], 'once more')
  await each([200, ''], 'given by its owner')
  t.same(await ask('PUT', `${path}/${ids.notes}`, owner), [404, 'Not Found'], 'of another account')
  t.same(await ask('PUT', `/user/installations/1/repositories/${ids.web}`, owner), [404, 'Not Found'])
  t.same(await ask('PUT', `/user/installations/x/repositories/${ids.web}`, owner), [404, 'Not Found'])
  const writer = await server.createUser('writer')
  await server.setRole(
    (await server.db
      .selectFrom('accounts')
      .selectAll()
      .where('login', '=', 'acme')
      .executeTakeFirstOrThrow()) as never,
    'web',
    writer,
    'write'
  )
  const writers = await server.createToken(writer, { scopes: ['repo'] })
  t.equal((await ask('DELETE', `${path}/${ids.web}`, writers))[0], 403)
  const readers = await server.createToken(mona, {
    permissions: { administration: 'read' },
    allRepositories: true
  })
  t.equal((await ask('DELETE', `${path}/${ids.web}`, readers))[0], 403)
})

t.test('with a repository, an account, or an App, its part of the tokens ends', async (t) => {
  const { server, app, id, ask, acme } = await makeWorld(t)
  const { token } = await mint(server, app, id)
  const { token: narrow } = await mint(server, app, id, { repositories: ['web'] })
  const facts = await findRepository(server.db, acme.id, { owner: 'acme', repo: 'web' })
  await removeRepository(server.db, SYSTEM, facts!)
  for (const one of [token, narrow]) t.same(await ask('GET', WEB, one), [404, 'Not Found'])
  t.same(await ask('GET', '/repos/acme/api/codespaces/secrets', token), [200, ''])
  t.same(
    await ask('GET', '/repos/acme/api/codespaces/secrets', narrow),
    [404, 'Not Found'],
    'none is not all'
  )
  const list = await server.request('GET', '/installation/repositories', { token: narrow })
  t.equal(list.json().total_count, 0)

  const hubot = await server.createUser('hubot')
  await server.createRepository(hubot, 'tools')
  const hubots = await registerTestApp(server, 'Hubots', PERMISSIONS, 'hubot')
  const onHubot = await installTestApp(server, app, 'hubot')
  const onAcme = await installTestApp(server, hubots, 'acme')
  const { token: toHubot } = await mint(server, app, onHubot)
  const { token: ofHubot } = await mint(server, hubots, onAcme)
  t.same(await ask('GET', '/repos/hubot/tools', toHubot), [200, ''])
  t.same(await ask('GET', '/repos/acme/api', ofHubot), [200, ''])
  await asAdmin(server, 'DELETE', '/admin/users/hubot')
  t.same(await ask('GET', '/repos/acme/api', toHubot), [401, 'Bad credentials'], 'installed on the account')
  t.same(await ask('GET', '/repos/acme/api', ofHubot), [401, 'Bad credentials'], 'of its App')
  const removed = await server.db
    .selectFrom('audit_events')
    .select(['action', 'name'])
    .where('action', 'in', ['installation.remove', 'app.remove', 'user.remove'])
    .orderBy('id')
    .execute()
  t.same(
    removed.map(({ action, name }) => `${action} ${name}`),
    ['installation.remove hubots', 'app.remove hubots', 'installation.remove octo-app', 'user.remove hubot']
  )

  t.same(await ask('GET', '/repos/acme/api', token), [200, ''])
  await asAdmin(server, 'DELETE', '/admin/apps/octo-app')
  t.same(await ask('GET', '/repos/acme/api', token), [401, 'Bad credentials'])
  const left = await server.db.selectFrom('tokens').select('id').where('kind', '=', 'installation').execute()
  t.same(left, [])
})

t.test("a user's tokens are revoked without those of Apps on the account", async (t) => {
  const { server, app, ask } = await makeWorld(t)
  const onMona = await installTestApp(server, app, 'mona')
  const { token } = await mint(server, app, onMona)
  await asAdmin(server, 'DELETE', '/admin/users/mona/authorizations')
  t.same(await ask('GET', '/repos/mona/notes/codespaces/secrets', token), [200, ''])
})

t.test(
  'a write by a token that is still taken for valid is refused when its installation changed',
  async (t) => {
    const { server, app, id, installation, mona } = await makeWorld(t)
    const { token } = await mint(server, app, id)
    const box = await server.seal(WEB, token, 'v')
    const org = '/orgs/acme/codespaces/secrets'
    const shared = { ...(await server.seal(org, token, 'v')), visibility: 'selected' }
    for (const [url, body] of [
      [`${WEB}/OLD`, box],
      [`${org}/OLD`, shared]
    ] as const)
      t.equal((await server.request('PUT', url, { token, body })).statusCode, 201)
    const before = await server.db
      .selectFrom('secrets')
      .select(['name', 'row_version'])
      .orderBy('id')
      .execute()

    // As another server does it: this one is not told, and has looked the token up just now.
    const all = { selection: ['web', 'api'], permissions: PERMISSIONS }
    const appOf = async () => (await findIntegration(server.db, 'octo-app'))!
    const changes: [
      what: string,
      change: () => Promise<unknown>,
      undo: () => Promise<unknown>,
      onOrg: boolean
    ][] = [
      [
        'permissions',
        async () =>
          changeInstallation(server.db, SYSTEM, await installation(), { permissions: { members: 'read' } }),
        async () => changeInstallation(server.db, SYSTEM, await installation(), all),
        true
      ],
      [
        'suspension',
        async () => suspendInstallation(server.db, SYSTEM, await installation(), 'administrator'),
        async () =>
          server.db.updateTable('installations').set({ suspended_at: null, suspended_by: null }).execute(),
        true
      ],
      [
        'the permissions of the App',
        async () => changeApp(server.db, SYSTEM, await appOf(), { permissions: {} }),
        async () => {
          await changeApp(server.db, SYSTEM, await appOf(), { permissions: PERMISSIONS })
          await changeInstallation(server.db, SYSTEM, await installation(), all)
        },
        true
      ]
    ]
    for (const [what, change, undo, onOrg] of changes) {
      const asked: [method: 'PUT' | 'DELETE', url: string, body?: object][] = [
        ['PUT', `${WEB}/OLD`, box],
        ['PUT', `${WEB}/NEW`, box],
        ['DELETE', `${WEB}/OLD`]
      ]
      if (onOrg) {
        asked.push(
          ['PUT', `${org}/OLD`, shared],
          ['PUT', `${org}/NEW`, shared],
          ['PUT', `${org}/OLD/repositories`, { selected_repository_ids: [] }],
          ['PUT', `/repos/acme/web/collaborators/root`, {}],
          ['POST', '/orgs/acme/repos', { name: 'new' }] as never
        )
      }
      for (const [method, url, body] of asked) {
        // looked up again, and kept for a second at most
        t.equal((await server.request('GET', '/', { token })).statusCode, 200)
        await change()
        const response = await server.request(method, url, { token, body })
        t.ok(
          [401, 403, 404].includes(response.statusCode),
          `${what}: ${method} ${url}: ${response.statusCode}`
        )
        await undo()
        server.app.authenticator.forget([hashToken(token).toString('base64')])
      }
    }
    const after = await server.db
      .selectFrom('secrets')
      .select(['name', 'row_version'])
      .orderBy('id')
      .execute()
    t.same(after, before, 'nothing was written')
    t.equal(
      (await server.request('PUT', `${WEB}/OLD`, { token, body: box })).statusCode,
      204,
      'and now it may'
    )
    t.ok(mona)
  }
)

t.test('every server hears that tokens changed', async (t) => {
  const { server, app, id } = await makeWorld(t)
  const client = new pg.Client({ connectionString: server.databaseUrl })
  await client.connect()
  t.teardown(() => client.end())
  const heard = new Set<string>()
  client.on('notification', ({ payload }) => {
    for (const hash of payload!.split(',')) heard.add(hash)
  })
  await client.query('listen coffer_tokens')
  const tellsOf = async (what: string, change: (hash: string) => Promise<unknown>) => {
    const { token } = await mint(server, app, id)
    const hash = hashToken(token).toString('base64')
    await change(hash)
    // after a round trip on the same connection all that was sent before has come
    await client.query('select 1')
    t.ok(heard.has(hash), what)
  }
  await tellsOf('permissions', () =>
    asAdmin(server, 'PATCH', `/admin/installations/${id}`, { permissions: PERMISSIONS })
  )
  await tellsOf('repositories', () =>
    asAdmin(server, 'PATCH', `/admin/installations/${id}`, { repositories: ['web'] })
  )
  await tellsOf('the App', () =>
    asAdmin(server, 'PATCH', '/admin/apps/octo-app', { permissions: PERMISSIONS })
  )
  await tellsOf('suspension', () => asAdmin(server, 'PUT', `/admin/installations/${id}/suspended`))
  await asAdmin(server, 'DELETE', `/admin/installations/${id}/suspended`)
  await tellsOf('removal', () => asAdmin(server, 'DELETE', `/admin/installations/${id}`))
})

t.test('who acts has a number that no other has', async (t) => {
  const { server, app } = await makeWorld(t)
  const numbers: number[] = []
  for (const login of ['one', 'two', 'three']) {
    const account = await server.createUser(login)
    numbers.push(account.id, await installTestApp(server, app, login))
  }
  t.same(
    numbers,
    [...new Set(numbers)].sort((a, b) => a - b)
  )
  await t.rejects(
    server.db
      .insertInto('tokens')
      .values({
        hash: Buffer.alloc(32),
        kind: 'installation',
        account_id: server.admin.account.id,
        last_eight: '',
        issued_by_uid: null,
        epoch: 1,
        note: null,
        expires_at: null,
        last_used_at: null
      })
      .execute(),
    /tokens_kind_check/
  )
})
