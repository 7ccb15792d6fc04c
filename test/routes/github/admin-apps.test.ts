import { createPublicKey } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { fingerprintOf } from '../../../src/auth/app-key.ts'
import { installTestApp, mint, registerTestApp, signJwt } from '../../github-app.ts'
import { schemaValidator, validator } from '../../github-description.ts'
import { startTestServer, type TestServer } from '../../helper.ts'

const PERMISSIONS = { codespaces_secrets: 'write', members: 'read' }
const NEW_APP = { name: 'Octo App', owner: 'mona', permissions: PERMISSIONS }

async function makeWorld(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const web = await server.createRepository(acme, 'web')
  await server.createRepository(acme, 'api')
  await server.createRepository(mona, 'notes')
  const ask = (method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', url: string, body?: unknown) =>
    server.request(method, url, { token: server.admin.token, body })
  return { server, mona, acme, web, ask }
}

/** Everything that the database holds, as text. */
async function dump({ db }: TestServer): Promise<string> {
  const tables = await sql<{ name: string }>`select relname as name from pg_class
    where relkind = 'r' and relnamespace = current_schema()::regnamespace`.execute(db)
  let text = ''
  for (const { name } of tables.rows) {
    const { rows } = await sql`select * from ${sql.table(name)}`.execute(db)
    for (const row of rows as Record<string, unknown>[]) {
      for (const value of Object.values(row)) {
        text += Buffer.isBuffer(value)
          ? `${value.toString('latin1')}\n${value.toString('base64')}\n`
          : `${JSON.stringify(value)}\n`
      }
    }
  }
  return text
}

t.test('an App is registered with a key that is shown once and stored nowhere', async (t) => {
  const { server, mona, ask } = await makeWorld(t)
  const response = await ask('POST', '/admin/apps', { ...NEW_APP, description: 'Delivers' })
  t.equal(response.statusCode, 201)
  const { pem, key, ...app } = response.json()
  t.same(schemaValidator('integration')(app), [])
  t.match(app, {
    slug: 'octo-app',
    name: 'Octo App',
    description: 'Delivers',
    client_id: /^Iv1\.[0-9a-f]{16}$/,
    owner: { login: 'mona', type: 'User' },
    permissions: { ...PERMISSIONS, metadata: 'read' },
    installations_count: 0
  })
  const publicKey = createPublicKey(pem).export({ type: 'spki', format: 'der' })
  t.equal(key.fingerprint, fingerprintOf(publicKey))
  t.equal(
    (await server.request('GET', '/app', { token: await signJwt({ id: app.id, pem }) })).statusCode,
    200
  )

  const stored = await server.db.selectFrom('integration_keys').selectAll().executeTakeFirstOrThrow()
  t.same(stored.public_key, publicKey)
  const everything = (await dump(server)) + server.log.join('')
  t.ok(everything.includes(publicKey.toString('base64')), 'the search finds what is there')
  const lines = pem.split('\n').filter((line: string) => /^[A-Za-z0-9+/=]{40,}$/.test(line))
  t.ok(lines.length > 20)
  // the second line is the modulus, which the public key has, too
  for (const line of lines.slice(8)) t.notOk(everything.includes(line))
  t.same(
    await server.db
      .selectFrom('audit_events')
      .select(['stream_uid', 'action', 'name'])
      .where('action', 'like', 'app.%')
      .execute(),
    [{ stream_uid: mona.uid, action: 'app.create', name: 'octo-app' }]
  )
})

t.test('administrators alone', async (t) => {
  const { server, mona } = await makeWorld(t)
  const app = await registerTestApp(server, 'Octo App', PERMISSIONS, 'mona')
  const id = await installTestApp(server, app, 'acme')
  const tokens = {
    owner: await server.createToken(mona, { scopes: ['repo', 'admin:org', 'site_admin'] }),
    'without the scope': await server.createToken(server.admin.account, { scopes: ['repo', 'admin:org'] }),
    'fine-grained': await server.createToken(server.admin.account, {
      permissions: { administration: 'write', organization_administration: 'write' },
      allRepositories: true
    })
  }
  const operations = [
    ['POST', '/admin/apps'],
    ['GET', '/admin/apps'],
    ['PATCH', '/admin/apps/octo-app'],
    ['DELETE', '/admin/apps/octo-app'],
    ['GET', '/admin/apps/octo-app/keys'],
    ['POST', '/admin/apps/octo-app/keys'],
    ['DELETE', `/admin/apps/octo-app/keys/${app.keyId}`],
    ['GET', '/admin/apps/octo-app/installations'],
    ['POST', '/admin/apps/octo-app/installations'],
    ['PATCH', `/admin/installations/${id}`],
    ['DELETE', `/admin/installations/${id}`],
    ['PUT', `/admin/installations/${id}/suspended`],
    ['DELETE', `/admin/installations/${id}/suspended`]
  ] as const
  for (const [method, url] of operations) {
    for (const [what, token] of Object.entries(tokens)) {
      const response = await server.request(method, url, { token, body: {} })
      t.equal(response.statusCode, 403, `${method} ${url}, ${what}`)
    }
    t.equal((await server.request(method, url)).statusCode, 401, `${method} ${url}`)
  }
})

t.test('what an App cannot be is refused, with its field', async (t) => {
  const { ask } = await makeWorld(t)
  const cases: [change: object, field: string][] = [
    [{ name: '' }, 'name'],
    [{ name: '!!!' }, 'name'],
    [{ name: 'x'.repeat(35) }, 'name'],
    [{ name: 'a\0b' }, 'name'],
    [{ name: 'a\nb' }, 'name'],
    [{ name: 1 }, 'name'],
    [{ name: undefined }, 'name'],
    [{ owner: 'none' }, 'owner'],
    [{ owner: 'mo\0na' }, 'owner'],
    [{ owner: null }, 'owner'],
    [{ permissions: { contents: 'write' } }, 'permissions'],
    [{ permissions: { codespaces_secrets: 'admin' } }, 'permissions'],
    [{ permissions: { metadata: 'write' } }, 'permissions'],
    [{ permissions: { codespaces_secrets: true } }, 'permissions'],
    [{ permissions: ['codespaces_secrets'] }, 'permissions'],
    [{ permissions: 'codespaces_secrets=write' }, 'permissions'],
    [{ permissions: undefined }, 'permissions'],
    [{ description: 'x'.repeat(351) }, 'description'],
    [{ description: 'a\0b' }, 'description']
  ]
  for (const [change, field] of cases) {
    const what = JSON.stringify(change).slice(0, 60)
    const response = await ask('POST', '/admin/apps', { ...NEW_APP, ...change })
    t.equal(response.statusCode, 422, what)
    t.equal(response.json().errors[0].field, field, what)
  }
  t.equal((await ask('POST', '/admin/apps', NEW_APP)).statusCode, 201)
  for (const name of ['Octo App', 'octo app', 'OCTO--APP']) {
    const taken = await ask('POST', '/admin/apps', { ...NEW_APP, name })
    t.equal(taken.statusCode, 422, name)
    t.match(taken.json().errors[0], { field: 'name', code: 'already_exists' }, name)
  }
  t.equal((await ask('GET', '/admin/apps')).json().length, 1)
})

t.test('Apps are listed, changed and deleted', async (t) => {
  const { server, ask } = await makeWorld(t)
  await registerTestApp(server, 'Beta', PERMISSIONS, 'mona')
  await registerTestApp(server, 'Alpha', PERMISSIONS, 'acme')
  const page = await ask('GET', '/admin/apps?per_page=1')
  t.same(
    page.json().map(({ slug }: { slug: string }) => slug),
    ['alpha']
  )
  t.match(page.headers.link, /admin\/apps\?per_page=1&page=2>; rel="next"/)
  const changed = await ask('PATCH', '/admin/apps/beta', {
    permissions: { secrets: 'read' },
    description: 'reads'
  })
  t.equal(changed.statusCode, 200)
  t.match(changed.json(), { permissions: { secrets: 'read', metadata: 'read' }, description: 'reads' })
  t.notOk('members' in changed.json().permissions)
  const cleared = await ask('PATCH', '/admin/apps/beta', { description: null })
  t.match(cleared.json(), { permissions: { secrets: 'read' }, description: null })
  t.equal((await ask('PATCH', '/admin/apps/beta', { permissions: { nothing: 'read' } })).statusCode, 422)
  for (const slug of ['none', 'BETA', '%00', 'x'.repeat(500)]) {
    for (const method of ['PATCH', 'DELETE'] as const)
      t.equal((await ask(method, `/admin/apps/${slug}`, {})).statusCode, 404, slug)
  }
  t.equal((await ask('DELETE', '/admin/apps/beta')).statusCode, 204)
  t.equal((await ask('DELETE', '/admin/apps/beta')).statusCode, 404)
  t.equal((await ask('GET', '/admin/apps')).json().length, 1)
})

t.test('keys are added beside those that are there, and deleted one by one', async (t) => {
  const { server, ask } = await makeWorld(t)
  const app = await registerTestApp(server, 'Octo App', PERMISSIONS, 'mona')
  const other = await registerTestApp(server, 'Other', PERMISSIONS, 'mona')
  const added = await ask('POST', '/admin/apps/octo-app/keys')
  t.equal(added.statusCode, 201)
  const { pem, ...key } = added.json()
  t.match(pem, /^-----BEGIN RSA PRIVATE KEY-----/)
  t.match(key, { id: Number, fingerprint: /^SHA256:/, created_at: /Z$/, valid: true })
  const list = await ask('GET', '/admin/apps/octo-app/keys')
  t.same(
    list.json().map(({ id }: { id: number }) => id),
    [app.keyId, key.id]
  )
  t.notMatch(list.body, /BEGIN|pem/)
  for (const wrong of [other.keyId, 1, 0, 'x', '9'.repeat(30)])
    t.equal((await ask('DELETE', `/admin/apps/octo-app/keys/${wrong}`)).statusCode, 404, String(wrong))
  t.equal((await ask('DELETE', `/admin/apps/octo-app/keys/${app.keyId}`)).statusCode, 204)
  t.equal((await ask('DELETE', `/admin/apps/octo-app/keys/${app.keyId}`)).statusCode, 404)
  t.equal((await ask('GET', '/admin/apps/octo-app/keys')).json().length, 1)

  const { public_key, ...row } = await server.db
    .selectFrom('integration_keys')
    .select(['public_key', 'integration_id', 'epoch'])
    .where('integration_id', '=', app.id)
    .executeTakeFirstOrThrow()
  await server.db
    .insertInto('integration_keys')
    .values(Array.from({ length: 9 }, () => ({ ...row, public_key })))
    .execute()
  const full = await ask('POST', '/admin/apps/octo-app/keys')
  t.equal(full.statusCode, 422)
  t.match(full.json().message, /10 keys/)
})

t.test(
  'an App is installed on an account, on repositories that it owns, with what the App asks for at most',
  async (t) => {
    const { server, acme, ask } = await makeWorld(t)
    await registerTestApp(server, 'Octo App', PERMISSIONS, 'mona')
    const path = '/admin/apps/octo-app/installations'
    const cases: [body: object, field: string][] = [
      [{}, 'account'],
      [{ account: 'none', all_repositories: true }, 'account'],
      [{ account: 'ac\0me', all_repositories: true }, 'account'],
      [{ account: 'acme' }, 'repositories'],
      [{ account: 'acme', all_repositories: false }, 'all_repositories'],
      [{ account: 'acme', repositories: [] }, 'repositories'],
      [{ account: 'acme', repositories: ['web'], all_repositories: true }, 'repositories'],
      [{ account: 'acme', repositories: ['notes'] }, 'repositories'],
      [{ account: 'acme', repositories: ['web', 'none'] }, 'repositories'],
      [{ account: 'acme', repositories: ['acme/web'] }, 'repositories'],
      [{ account: 'acme', repositories: ['we\0b'] }, 'repositories'],
      [{ account: 'acme', repositories: [1] }, 'repositories'],
      [{ account: 'acme', repositories: Array.from({ length: 1001 }, () => 'web') }, 'repositories'],
      [{ account: 'acme', all_repositories: true, permissions: { members: 'write' } }, 'permissions'],
      [{ account: 'acme', all_repositories: true, permissions: { secrets: 'read' } }, 'permissions'],
      [{ account: 'acme', all_repositories: true, permissions: { contents: 'read' } }, 'permissions']
    ]
    for (const [body, field] of cases) {
      const what = JSON.stringify(body).slice(0, 80)
      const response = await ask('POST', path, body)
      t.equal(response.statusCode, 422, what)
      t.equal(response.json().errors[0].field, field, what)
    }
    t.same((await ask('GET', path)).json(), [])

    const installed = await ask('POST', path, {
      account: 'ACME',
      repositories: ['WEB', 'web'],
      permissions: { codespaces_secrets: 'read' }
    })
    t.equal(installed.statusCode, 201)
    t.same(schemaValidator('installation')(installed.json()), [])
    t.match(installed.json(), {
      account: { login: 'acme' },
      repository_selection: 'selected',
      permissions: { codespaces_secrets: 'read', metadata: 'read' }
    })
    const { id } = installed.json()
    const again = await ask('POST', path, { account: 'acme', all_repositories: true })
    t.equal(again.statusCode, 422)
    t.match(again.json().errors[0], { field: 'account', code: 'already_exists' })
    t.same(
      (await ask('GET', path)).json().map((installation: { id: number }) => installation.id),
      [id]
    )
    const names = async () =>
      (
        await server.db
          .selectFrom('installation_repositories as x')
          .innerJoin('repositories as r', 'r.id', 'x.repository_id')
          .select('r.name')
          .where('x.installation_id', '=', id)
          .orderBy('r.id')
          .execute()
      ).map(({ name }) => name)
    t.same(await names(), ['web'])

    const patch = (body: unknown) => ask('PATCH', `/admin/installations/${id}`, body)
    t.equal((await patch({ repositories: ['web', 'api'] })).statusCode, 200)
    t.same(await names(), ['web', 'api'])
    const permitted = await patch({ permissions: PERMISSIONS })
    t.match(permitted.json(), { permissions: PERMISSIONS, repository_selection: 'selected' })
    t.same(await names(), ['web', 'api'], 'what is left out stays')
    for (const body of [
      { repositories: [] },
      { repositories: ['notes'] },
      { repositories: ['web'], all_repositories: true },
      { permissions: { members: 'write' } },
      { permissions: { codespaces_secrets: 'write', secrets: 'write' } }
    ])
      t.equal((await patch(body)).statusCode, 422, JSON.stringify(body))
    t.same(await names(), ['web', 'api'])
    const all = await patch({ all_repositories: true })
    t.equal(all.json().repository_selection, 'all')
    t.same(await names(), [])
    for (const wrong of [acme.id, 1, 'x', '9'.repeat(30)]) {
      t.equal((await ask('PATCH', `/admin/installations/${wrong}`, {})).statusCode, 404, String(wrong))
      t.equal((await ask('DELETE', `/admin/installations/${wrong}`)).statusCode, 404, String(wrong))
      t.equal((await ask('PUT', `/admin/installations/${wrong}/suspended`)).statusCode, 404, String(wrong))
    }
    t.equal((await ask('DELETE', `/admin/installations/${id}`)).statusCode, 204)
    t.equal((await ask('DELETE', `/admin/installations/${id}`)).statusCode, 404)
    const events = await server.db
      .selectFrom('audit_events')
      .select('action')
      .where('stream_uid', '=', acme.uid)
      .where('action', 'like', 'installation.%')
      .orderBy('id')
      .execute()
    t.same(
      events.map(({ action }) => action),
      [
        'installation.create',
        'installation.update',
        'installation.update',
        'installation.update',
        'installation.remove'
      ]
    )
  }
)

t.test('owners of an organization see the Apps on it', async (t) => {
  const { server, mona, acme } = await makeWorld(t)
  const app = await registerTestApp(server, 'Octo App', {
    ...PERMISSIONS,
    organization_administration: 'read'
  })
  const id = await installTestApp(server, app, 'acme')
  const owner = await server.createToken(mona, { scopes: ['read:org'] })
  for (const path of ['/orgs/acme', `/organizations/${acme.id}`]) {
    const response = await server.request('GET', `${path}/installations`, { token: owner })
    t.equal(response.statusCode, 200)
    t.equal(response.json().total_count, 1)
    t.same(schemaValidator('installation')(response.json().installations[0]), [])
    t.equal(response.json().installations[0].id, id)
  }
  t.same(
    validator(
      'orgs/list-app-installations',
      200
    )((await server.request('GET', '/orgs/acme/installations', { token: owner })).json()),
    []
  )
  const statusFor = async (token: string) =>
    (await server.request('GET', '/orgs/acme/installations', { token })).statusCode
  const member = await server.createUser('member')
  await server.db
    .insertInto('memberships')
    .values({ organization_id: acme.id, account_id: member.id, role: 'member' })
    .execute()
  t.equal(await statusFor(await server.createToken(member, { scopes: ['read:org'] })), 403)
  const outsider = await server.createUser('outsider')
  t.equal(await statusFor(await server.createToken(outsider, { scopes: ['admin:org'] })), 404)
  t.equal(await statusFor(await server.createToken(mona, { scopes: ['repo'] })), 403)
  const { token } = await mint(server, app, id)
  t.equal(await statusFor(token), 200)
})
