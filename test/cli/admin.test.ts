import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Command } from 'commander'
import t, { type Test } from 'tap'
import { adminCommand } from '../../src/cli/admin.ts'
import { createTestDatabase, startTestServer, type TestServer } from '../helper.ts'
import { coffer, makeFolder, makeMasterKey, startServer, statusOf } from './helper.ts'

const TOKEN = /^coffer_(pat|fgt)_[0-9A-Za-z]{49}\n$/

async function startAdmin(t: Test) {
  const server = await startTestServer(t, { logLevel: 'silent' })
  const url = await server.listen()
  const folder = await makeFolder(t)
  const admin = (args: string, token = server.admin.token) =>
    coffer(folder, ['admin', ...args.split(' ')], { COFFER_URL: url, COFFER_TOKEN: token })
  return { server, url, folder, admin }
}

function rows(server: TestServer) {
  return Promise.all([
    server.db.selectFrom('accounts').select('login').orderBy('id').execute(),
    server.db.selectFrom('repositories').select('name').orderBy('id').execute(),
    server.db.selectFrom('collaborators').select('role').execute(),
    server.db.selectFrom('tokens').select('id').orderBy('id').execute()
  ])
}

t.test('users, organizations, repositories and collaborators are made and deleted over HTTP', async (t) => {
  const { server, admin } = await startAdmin(t)

  const mona = await admin('user create mona --email mona@example.com --name Mona')
  t.equal(mona.code, 0)
  t.match(mona.stdout, /^User mona made, id \d+\.\n$/)
  const hubot = await admin('user create hubot --site-admin --json')
  t.match(JSON.parse(hubot.stdout), { login: 'hubot', site_admin: true, id: Number })
  const accounts = await server.db
    .selectFrom('accounts')
    .select(['login', 'email', 'name', 'site_admin'])
    .execute()
  t.strictSame(accounts.slice(1), [
    { login: 'mona', email: 'mona@example.com', name: 'Mona', site_admin: false },
    { login: 'hubot', email: null, name: null, site_admin: true }
  ])

  const octo = await admin('org create octo --owner root --json')
  t.match(JSON.parse(octo.stdout), { login: 'octo', id: Number })
  const web = await admin('repo create ROOT/web --json')
  t.match(JSON.parse(web.stdout), { full_name: 'root/web', private: true, id: Number })
  t.match((await admin('repo create octo/site --public')).stdout, /^Repository octo\/site made/)
  const listed = await admin('repo list --json')
  t.match(JSON.parse(listed.stdout), [
    { full_name: 'root/web', private: true },
    { full_name: 'octo/site', private: false }
  ])
  t.match(
    (await admin('repo list')).stdout,
    /ID +REPOSITORY +VISIBILITY\n\d+ +root\/web +private\n\d+ +octo\/site +public\n$/
  )

  t.equal((await admin('collaborator set root/web mona push')).code, 0)
  t.strictSame(await server.db.selectFrom('collaborators').select('role').execute(), [{ role: 'write' }])
  t.equal((await admin('collaborator remove root/web mona')).code, 0)
  t.strictSame(await server.db.selectFrom('collaborators').select('role').execute(), [])

  const unsure = [await admin('repo delete root/web'), await admin('user delete hubot')]
  for (const { code, stderr } of unsure) {
    t.equal(code, 2)
    t.match(stderr, /--yes/)
  }
  t.equal((await server.db.selectFrom('repositories').select('id').execute()).length, 2)
  t.equal((await admin('repo delete root/web --yes')).code, 0)
  t.equal((await admin('user delete hubot --yes')).code, 0)
  const [logins, repositories] = await rows(server)
  t.strictSame(
    logins.map(({ login }) => login),
    ['root', 'mona', 'octo']
  )
  t.strictSame(repositories, [{ name: 'site' }])
})

t.test('a token stands alone on standard output, works, and is revoked', async (t) => {
  const { server, url, admin } = await startAdmin(t)
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  await server.createRepository(mona, 'other')

  const classic = await admin('token create mona --scopes repo,codespace --note laptop --expires 3')
  t.equal(classic.code, 0)
  t.match(classic.stdout, TOKEN)
  t.match(classic.stderr, /classic token of mona \(codespace, repo\), valid until \d{4}-/)
  t.notMatch(classic.stderr, classic.stdout.trim())
  t.equal(await statusOf(url, classic.stdout.trim()), 200)

  const fineGrained = await admin(
    'token create mona --permission codespaces_secrets=write --permission metadata=read --repo mona/web --json'
  )
  const shown = JSON.parse(fineGrained.stdout)
  t.match(shown, {
    kind: 'fine-grained',
    token: /^coffer_fgt_/,
    scopes: [],
    permissions: { codespaces_secrets: 'write', metadata: 'read' },
    expires_at: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
  })
  t.equal(await statusOf(url, shown.token, '/repos/mona/web/codespaces/secrets'), 200)
  t.equal(await statusOf(url, shown.token, '/repos/mona/other'), 404)

  const all = await admin('token create root --scopes all')
  const { scopes } = await server.db
    .selectFrom('tokens')
    .select('scopes')
    .orderBy('id', 'desc')
    .executeTakeFirstOrThrow()
  t.strictSame(scopes, ['admin:org', 'codespace', 'repo', 'site_admin'])
  t.equal((await admin('repo list', all.stdout.trim())).code, 0)

  t.equal((await admin('token revoke mona')).code, 0)
  t.equal(await statusOf(url, classic.stdout.trim()), 401)
  t.equal(await statusOf(url, shown.token), 401)
  t.equal(await statusOf(url, all.stdout.trim()), 200)
})

t.test(
  'what the server or the command refuses is told in full, ends with 2 and changes nothing',
  async (t) => {
    const { server, admin } = await startAdmin(t)
    const mona = await server.createUser('mona')
    const id = await server.createRepository(server.admin.account, 'web')
    await server.request('PATCH', '/repos/root/web', { token: server.admin.token, body: { name: 'renamed' } })
    await server.createRepository(mona, 'hers')
    const weak = await server.createToken(server.admin.account, { scopes: ['repo'] })
    const before = await rows(server)

    const refusals: [string, RegExp, string?][] = [
      ['user create mona', /Validation Failed \(422, POST \/admin\/users\)\n {2}login is already taken/],
      ['user create a--b', /422.*\n {2}login may only contain/],
      ['user create no', /Must be a site administrator.*\(403/, weak],
      ['user create no', /Bad credentials \(401.*\n {2}Set COFFER_TOKEN/, `coffer_pat_${'0'.repeat(49)}`],
      ['user create a/../b', /letters, digits, hyphens and underscores/],
      ['user delete nobody --yes', /Not Found \(404.*\n {2}There is no user nobody/],
      ['token create mona --scopes repo,root', /scopes may only contain/],
      ['token create mona --permission codespaces_secrets=admin', /one of read, write/],
      ['token create mona --permission codespaces_secrets', /NAME=LEVEL/],
      ['token create mona', /--scopes .* or with --permission/],
      ['token create mona --scopes repo --permission metadata=read', /not both/],
      ['token create mona --scopes repo --repo mona/hers', /go with --permission/],
      ['token create mona --scopes repo --expires 9999', /COFFER_TOKEN_MAX_DAYS/],
      ['token create mona --scopes repo --expires soon', /whole number of days/],
      [
        'repo create mona/new',
        /belongs to root.*\n {2}COFFER_TOKEN=.*token create mona --scopes repo.*\n.*--offline/
      ],
      ['repo create nobody/new', /There is no user or organization nobody/],
      ['repo create ../user', /OWNER\/NAME/],
      ['repo delete root/web --yes', /has moved \(307\)/],
      ['repo delete mona/hers --yes', /There is no repository mona\/hers that the token's account can see/],
      ['collaborator set root/renamed mona boss', /Allowed choices are read, triage, write/],
      ['collaborator set root/renamed root write', /owner cannot be a collaborator/]
    ]
    for (const [args, message, token] of refusals) {
      const { code, stdout, stderr } = await admin(args, token)
      t.equal(code, 2, args)
      t.match(stderr, message, args)
      t.equal(stdout, '', args)
      t.notMatch(stderr, /coffer_pat_|node:internal|\.ts:/, args)
    }
    t.strictSame(await rows(server), before)
    t.ok(id)
  }
)

t.test('without a server, a token or an answer of Coffer the command says what to set', async (t) => {
  const folder = await makeFolder(t)
  const broken = createServer((request, response) => {
    response.statusCode = request.url === '/admin/users' ? 500 : 200
    response.end(request.url === '/admin/users' ? '{"message":"Server Error"}' : '<html>')
  })
  await new Promise<void>((resolve) => broken.listen(0, '127.0.0.1', resolve))
  t.teardown(() => broken.close())
  const url = `http://127.0.0.1:${(broken.address() as AddressInfo).port}`

  const html = await coffer(folder, ['admin', 'repo', 'list'], { COFFER_URL: url, COFFER_TOKEN: 'x' })
  t.equal(html.code, 1)
  t.match(html.stderr, /no Coffer server \(status 200\)\. Set COFFER_URL/)
  const args = ['admin', 'user', 'create', 'mona']
  const failed = await coffer(folder, args, { COFFER_URL: url, COFFER_TOKEN: 'x' })
  t.equal(failed.code, 1)
  t.match(failed.stderr, /^coffer: Server Error \(500, POST \/admin\/users\)\n$/)

  await new Promise((resolve) => broken.close(resolve))
  const absent = await coffer(folder, args, { COFFER_URL: url, COFFER_TOKEN: 'x' })
  t.equal(absent.code, 1)
  t.match(
    absent.stderr,
    new RegExp(`No Coffer server answers at ${url} \\(ECONNREFUSED\\)\\. Set COFFER_URL`)
  )

  const anonymous = await coffer(folder, args, { COFFER_URL: 'ftp://x' })
  t.equal(anonymous.code, 2)
  t.match(anonymous.stderr, /COFFER_URL must be[^]*COFFER_TOKEN \(or COFFER_TOKEN_FILE\)/)
})

t.test(
  '--offline works on the database itself, for every owner, and is refused beside a server',
  async (t) => {
    const { url: databaseUrl, db } = await createTestDatabase(t)
    const folder = await makeFolder(t)
    const variables = {
      DATABASE_URL: databaseUrl,
      COFFER_MASTER_KEY_FILE: await makeMasterKey(folder),
      COFFER_DATA_DIR: `${folder}/data`,
      COFFER_SOCKET: 'off'
    }
    const offline = (args: string) => coffer(folder, ['admin', ...args.split(' '), '--offline'], variables)

    t.match((await offline('user create admin --site-admin')).stdout, /^User admin made/)
    t.equal((await offline('user create mona')).code, 0)
    t.equal((await offline('org create octo --owner mona')).code, 0)
    t.match(JSON.parse((await offline('repo create mona/web --json')).stdout), {
      full_name: 'mona/web',
      private: true
    })
    t.equal((await offline('repo create octo/site --public')).code, 0)
    t.equal((await offline('collaborator set mona/web admin maintain')).code, 0)
    t.strictSame(await db.selectFrom('collaborators').select('role').execute(), [{ role: 'maintain' }])
    t.equal((await offline('collaborator remove mona/web admin')).code, 0)
    t.strictSame(await db.selectFrom('collaborators').select('role').execute(), [])
    const listed = JSON.parse((await offline('repo list --json')).stdout)
    t.match(listed, [{ full_name: 'mona/web' }, { full_name: 'octo/site' }])

    const first = await offline('token create admin --scopes all')
    t.match(first.stdout, TOKEN)
    const unseen = await offline('token create admin --permission codespaces_secrets=write --repo mona/web')
    t.equal(unseen.code, 2)
    t.match(unseen.stderr, /admin cannot see mona\/web/)
    for (const [args, message] of [
      ['token create nobody --scopes repo', /There is no user nobody/],
      ['repo create nobody/x', /There is no user or organization nobody/],
      ['repo delete mona/none --yes', /There is no repository mona\/none/],
      ['user create mona', /login is already taken/]
    ] as const) {
      const { code, stderr } = await offline(args)
      t.equal(code, 2, args)
      t.match(stderr, message, args)
    }

    const actors = await db
      .selectFrom('audit_events')
      .select(['actor_kind', 'actor_uid'])
      .distinct()
      .execute()
    t.strictSame(actors, [{ actor_kind: 'system', actor_uid: null }])

    const server = await startServer(t, folder, variables)
    t.equal(await statusOf(server.url, first.stdout.trim()), 200)
    t.notMatch(server.output(), /token is/, 'there is an administrator already')
    const refused = await offline('user delete mona --yes')
    t.equal(refused.code, 2)
    t.match(refused.stderr, /A Coffer server uses this database\. Stop it first/)
    t.equal((await db.selectFrom('accounts').select('id').execute()).length, 3)
    const status = await coffer(folder, ['migrate', '--status'], variables)
    t.match(
      status,
      { code: 0, stdout: /MIGRATION +APPLIED\n0001-initial +\d{4}-/ },
      'migrate works beside it'
    )
    t.equal(await server.stop(), 0)

    t.equal((await offline('token revoke admin')).code, 0)
    t.strictSame(await db.selectFrom('tokens').select('id').execute(), [])
    t.equal((await offline('repo delete mona/web --yes')).code, 0)
    t.equal((await offline('user delete mona --yes')).code, 0)
  }
)

t.test('a command in the wrong folder makes no database', async (t) => {
  const folder = await makeFolder(t)
  const { code, stderr } = await coffer(folder, ['admin', 'repo', 'list', '--offline'])
  t.equal(code, 2)
  t.match(stderr, `There is no database in ${folder}/data. Set COFFER_DATA_DIR`)
  const status = await coffer(folder, ['migrate', '--status'])
  t.equal(status.code, 2)
})

t.test('every command shows with --help what it takes, and an example', async (t) => {
  const { stdout, code } = await coffer(await makeFolder(t), ['admin', 'token', 'create', '--help'])
  t.equal(code, 0)
  t.match(
    stdout,
    /Usage: coffer admin token create \[options\] <login>[^]*--scopes[^]*Example:\n {2}\$ npx coffer/
  )

  const leaves = (command: Command): Command[] =>
    command.commands.length === 0 ? [command] : command.commands.flatMap(leaves)
  const found = leaves(adminCommand())
  t.equal(found.length, 10)
  for (const command of found) {
    let help = ''
    command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp()
    t.match(help, /--offline[^]*Example:\n {2}\$ npx coffer admin /, command.name())
    t.ok(command.description().endsWith('.'), command.name())
  }
})
