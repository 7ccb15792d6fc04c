import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Command } from 'commander'
import t, { type Test } from 'tap'
import { PERMISSIONS, SCOPES } from '../../src/auth/scopes.ts'
import type { Administration } from '../../src/cli/admin/administration.ts'
import { offlineAdministration } from '../../src/cli/admin/offline.ts'
import { onlineAdministration } from '../../src/cli/admin/online.ts'
import { adminCommand } from '../../src/cli/admin.ts'
import { RefusedToStart } from '../../src/errors.ts'
import { createTestDatabase, getAccount, startTestServer, type TestServer } from '../helper.ts'
import { coffer, makeFolder, makeMasterKey, startServer, statusOf } from './helper.ts'

const TOKEN_LINE = /^coffer_pat_[0-9A-Za-z]{49}\n$/
const WEB = { owner: 'root', name: 'web' }

async function startOnline(t: Test) {
  const server = await startTestServer(t, { logLevel: 'silent' })
  const url = await server.listen()
  const as = (token: string) => onlineAdministration({ url, token })
  return { server, url, as, administration: as(server.admin.token) }
}

function rows({ db }: Pick<TestServer, 'db'>) {
  return Promise.all([
    db.selectFrom('accounts').select(['login', 'email', 'name', 'site_admin']).orderBy('id').execute(),
    db.selectFrom('repositories').select(['name', 'private']).orderBy('id').execute(),
    db.selectFrom('collaborators').select('role').execute(),
    db.selectFrom('tokens').select('id').orderBy('id').execute()
  ])
}

t.test('users, organizations, repositories and collaborators are made and deleted over HTTP', async (t) => {
  const { server, administration } = await startOnline(t)
  const mona = { login: 'mona', email: 'mona@example.com', name: 'Mona' }
  t.match(await administration.createUser(mona), { id: Number, login: 'mona', site_admin: false })
  t.match(await administration.createUser({ login: 'hubot', siteAdmin: true }), { site_admin: true })
  t.match(await administration.createOrganization('octo', 'root'), { id: Number, login: 'octo' })
  t.match(await administration.createRepository({ owner: 'ROOT', name: 'web' }, true), {
    id: Number,
    full_name: 'root/web',
    private: true
  })
  t.match(await administration.createRepository({ owner: 'octo', name: 'site' }, false), { private: false })
  await administration.setCollaborator(WEB, 'mona', 'maintain')

  const [accounts, repositories, collaborators] = await rows(server)
  t.strictSame(accounts.slice(1), [
    { ...mona, site_admin: false },
    { login: 'hubot', email: null, name: null, site_admin: true },
    { login: 'octo', email: null, name: null, site_admin: false }
  ])
  t.strictSame(repositories, [
    { name: 'web', private: true },
    { name: 'site', private: false }
  ])
  t.strictSame(collaborators, [{ role: 'maintain' }])

  await administration.removeCollaborator(WEB, 'mona')
  await administration.deleteRepository(WEB)
  await administration.deleteUser('hubot')
  const [left, leftRepositories, leftCollaborators] = await rows(server)
  t.strictSame(
    left.map(({ login }) => login),
    ['root', 'mona', 'octo']
  )
  t.strictSame(leftRepositories, [{ name: 'site', private: false }])
  t.strictSame(leftCollaborators, [])
})

t.test('all pages of repositories are listed', async (t) => {
  const { server, administration } = await startOnline(t)
  for (let number = 0; number < 101; number++) {
    await server.createRepository(server.admin.account, `r${number}`, { private: number % 2 === 0 })
  }
  const listed = await administration.listRepositories()
  t.equal(listed.length, 101)
  t.match(listed.at(-1), { id: Number, full_name: 'root/r100', private: true })
  t.strictSame(Object.keys(listed[0]!), ['id', 'full_name', 'private'])
})

t.test('tokens are made as asked, work, and are revoked', async (t) => {
  const { server, url, administration } = await startOnline(t)
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  await server.createRepository(mona, 'other')

  const classic = await administration.createToken('mona', {
    scopes: ['repo'],
    note: 'laptop',
    expiresInDays: 3
  })
  t.match(classic, {
    kind: 'classic',
    scopes: ['repo'],
    permissions: {},
    note: 'laptop',
    token: /^coffer_pat_/
  })
  t.ok(Math.abs(Date.parse(classic.expires_at!) - Date.now() - 3 * 86_400_000) < 60_000)
  const fineGrained = await administration.createToken('mona', {
    permissions: { codespaces_secrets: 'write' },
    repositories: [{ owner: 'mona', name: 'web' }]
  })
  t.match(fineGrained, { kind: 'fine-grained', scopes: [], permissions: { codespaces_secrets: 'write' } })
  t.equal(await statusOf(url, fineGrained.token, '/repos/mona/web/codespaces/secrets'), 200)
  t.equal(await statusOf(url, fineGrained.token, '/repos/mona/other'), 404)
  const everywhere = await administration.createToken('mona', {
    permissions: { codespaces_secrets: 'write' },
    allRepositories: true
  })
  t.equal(await statusOf(url, everywhere.token, '/repos/mona/other/codespaces/secrets'), 200)

  await administration.revokeTokens('mona')
  for (const { token } of [classic, fineGrained, everywhere]) t.equal(await statusOf(url, token), 401)
  t.equal(await statusOf(url, server.admin.token), 200)
})

t.test('what the server refuses is told with its message, the errors, the status and a remedy', async (t) => {
  const { server, as, administration } = await startOnline(t)
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'hers')
  await server.createRepository(server.admin.account, 'web')
  await server.request('PATCH', '/repos/root/web', { token: server.admin.token, body: { name: 'renamed' } })
  const weak = as(await server.createToken(server.admin.account, { scopes: ['repo'] }))
  const nobody = as(`coffer_pat_${'0'.repeat(49)}`)
  const before = await rows(server)

  const refusals: [(administration: Administration) => Promise<unknown>, RegExp, Administration?][] = [
    [
      (a) => a.createUser({ login: 'mona' }),
      /^Validation Failed \(422, POST \/admin\/users\)\n {2}login is already taken$/
    ],
    [(a) => a.createUser({ login: 'a--b' }), /\(422, .*\n {2}login may only contain/],
    [(a) => a.createUser({ login: 'no' }), /^Must be a site administrator.* \(403, /, weak],
    [(a) => a.createUser({ login: 'no' }), /^Bad credentials \(401, .*\n {2}Set COFFER_TOKEN/, nobody],
    [(a) => a.deleteUser('none'), /^Not Found \(404, .*\n {2}There is no user none\.$/],
    [(a) => a.createToken('none', { scopes: [] }), /There is no user none/],
    [(a) => a.createToken('mona', { scopes: ['root'] }), /scopes may only contain/],
    [(a) => a.createToken('mona', { scopes: [], expiresInDays: 9999 }), /COFFER_TOKEN_MAX_DAYS/],
    [
      (a) => a.createToken('mona', { permissions: { metadata: 'write' } }),
      /level of metadata is one of read/
    ],
    [(a) => a.createRepository({ owner: 'none', name: 'x' }, true), /There is no user or organization none/],
    [
      (a) => a.createRepository({ owner: 'mona', name: 'x' }, true),
      /belongs to root[\s\S]*COFFER_TOKEN=.*token create mona --scopes repo[\s\S]*--offline/
    ],
    [(a) => a.deleteRepository(WEB), /\/repos\/root\/web has moved \(307\)/],
    [
      (a) => a.deleteRepository({ owner: 'mona', name: 'hers' }),
      /There is no repository mona\/hers .*--offline/
    ],
    [
      (a) => a.setCollaborator({ owner: 'root', name: 'renamed' }, 'root', 'read'),
      /Repository owner cannot be a collaborator/
    ]
  ]
  for (const [attempt, message, other] of refusals) {
    const error = await attempt(other ?? administration).then(
      () => new Error('it was not refused'),
      (error) => error
    )
    t.type(error, RefusedToStart, String(message))
    t.match(error.message, message)
    t.notMatch(error.message, /coffer_pat_/)
  }
  t.strictSame(await rows(server), before)
})

t.test(
  'the command prints a token alone, tells exit codes, and never prints what it was given',
  async (t) => {
    const { server, url } = await startOnline(t)
    const folder = await makeFolder(t)
    const variables = { COFFER_URL: url, COFFER_TOKEN: server.admin.token }

    const made = await coffer(folder, ['admin', 'token', 'create', 'root', '--scopes', 'all'], variables)
    t.equal(made.code, 0)
    t.match(made.stdout, TOKEN_LINE)
    t.match(
      made.stderr,
      /^A classic token of root \(admin:org, codespace, read:audit_log, repo, site_admin\), valid until \d{4}-.*\n$/
    )
    t.equal(await statusOf(url, made.stdout.trim()), 200)

    const json = await coffer(folder, ['admin', 'user', 'create', 'mona', '--json'], {
      COFFER_URL: url,
      COFFER_TOKEN: made.stdout.trim()
    })
    t.match(JSON.parse(json.stdout), { login: 'mona', id: Number })
    const twice = await coffer(folder, ['admin', 'user', 'create', 'mona'], variables)
    t.match(twice, {
      code: 2,
      stdout: '',
      stderr: /^coffer: Validation Failed \(422, .*\n {2}login is already taken\n$/
    })
    t.notMatch(twice.stderr, server.admin.token)
    const misused = await coffer(folder, ['admin', 'token', 'create'], variables)
    t.match(misused, { code: 2, stdout: '', stderr: /missing required argument 'login'/ })
  }
)

t.test('without a server, a token or an answer of Coffer the command says what to set', async (t) => {
  const folder = await makeFolder(t)
  const broken = createServer((request, response) => {
    const failing = request.url === '/admin/users'
    response.statusCode = failing ? 500 : 200
    response.end(failing ? '{"message":"Server Error"}' : '<html>')
  })
  await new Promise<void>((resolve) => broken.listen(0, '127.0.0.1', resolve))
  t.teardown(() => broken.close())
  const url = `http://127.0.0.1:${(broken.address() as AddressInfo).port}`
  const administration = onlineAdministration({ url, token: 'x' })
  await t.rejects(administration.listRepositories(), /no Coffer server \(status 200\)\. Set COFFER_URL/)
  await t.rejects(administration.createUser({ login: 'mona' }), {
    message: 'Server Error (500, POST /admin/users)'
  })
  await new Promise((resolve) => broken.close(resolve))

  const absent = await coffer(folder, ['admin', 'repo', 'list'], { COFFER_URL: url, COFFER_TOKEN: 'x' })
  t.equal(absent.code, 1)
  t.match(absent.stderr, `coffer: No Coffer server answers at ${url} (ECONNREFUSED). Set COFFER_URL`)
  const unset = await coffer(folder, ['admin', 'repo', 'list'], { COFFER_URL: 'ftp://x' })
  t.equal(unset.code, 2)
  t.match(unset.stderr, /COFFER_URL must be[\s\S]*COFFER_TOKEN \(or COFFER_TOKEN_FILE\)/)
})

t.test('offline every owner is within reach, and the record names no account', async (t) => {
  const { db } = await createTestDatabase(t)
  const administration = offlineAdministration(db, { tokenDefaultDays: 90, tokenMaxDays: 366 })

  t.match(await administration.createUser({ login: 'admin', siteAdmin: true }), { site_admin: true })
  await administration.createUser({ login: 'mona' })
  await administration.createOrganization('octo', 'mona')
  t.match(await administration.createRepository({ owner: 'Mona', name: 'web' }, true), {
    full_name: 'mona/web'
  })
  await administration.createRepository({ owner: 'octo', name: 'site' }, false)
  t.match(await administration.listRepositories(), [
    { full_name: 'mona/web', private: true },
    { full_name: 'octo/site', private: false }
  ])
  const web = { owner: 'mona', name: 'web' }
  const order = { permissions: { codespaces_secrets: 'write' }, repositories: [web] }
  await t.rejects(administration.createToken('admin', order), /admin cannot see mona\/web/)
  await administration.setCollaborator(web, 'admin', 'write')
  t.match(await administration.createToken('admin', order), { kind: 'fine-grained', token: /^coffer_fgt_/ })
  await administration.removeCollaborator(web, 'admin')
  t.strictSame((await rows({ db }))[2], [])

  const before = await rows({ db })
  await t.rejects(administration.createToken('none', { scopes: [] }), /There is no user none/)
  await t.rejects(administration.createToken('octo', { scopes: [] }), /There is no user octo/)
  await t.rejects(administration.revokeTokens('none'), /There is no user none/)
  await t.rejects(administration.deleteUser('octo'), /There is no user octo/)
  await t.rejects(administration.createOrganization('org', 'none'), /There is no user none/)
  await t.rejects(
    administration.createRepository({ owner: 'none', name: 'x' }, true),
    /no user or organization none/
  )
  await t.rejects(administration.deleteRepository({ owner: 'mona', name: 'x' }), /no repository mona\/x/)
  await t.rejects(administration.setCollaborator(web, 'none', 'read'), /There is no user none/)
  t.strictSame(await rows({ db }), before)

  await administration.revokeTokens('admin')
  await administration.deleteRepository(web)
  await administration.deleteUser('mona')
  const [accounts, repositories, , tokens] = await rows({ db })
  t.strictSame(
    accounts.map(({ login }) => login),
    ['admin', 'octo']
  )
  t.strictSame(repositories, [{ name: 'site', private: false }])
  t.strictSame(tokens, [])
  const actors = await db
    .selectFrom('audit_events')
    .select(['actor_kind', 'actor_uid', 'token_id'])
    .distinct()
    .execute()
  t.strictSame(actors, [{ actor_kind: 'system', actor_uid: null, token_id: null }])
})

t.test('--offline replaces a lost token while no server runs, and is refused beside one', async (t) => {
  const { url: databaseUrl, db } = await createTestDatabase(t)
  const folder = await makeFolder(t)
  const variables = {
    DATABASE_URL: databaseUrl,
    COFFER_MASTER_KEY_FILE: await makeMasterKey(folder),
    COFFER_SOCKET: 'off'
  }
  const order = ['admin', 'token', 'create', 'admin', '--scopes', 'all', '--offline']
  const first = await startServer(t, folder, variables)
  const refused = await coffer(folder, order, variables)
  t.match(refused, {
    code: 2,
    stdout: '',
    stderr: /^coffer: A Coffer server uses this database\. Stop every server of it first/
  })
  const admin = await getAccount(db, 'admin')
  t.equal((await db.selectFrom('tokens').select('id').where('account_id', '=', admin.id).execute()).length, 1)
  const status = await coffer(folder, ['migrate', '--status'], variables)
  t.match(status, { code: 0, stdout: /^MIGRATION +APPLIED\n0001-initial +\d{4}-/ }, 'migrate works beside it')
  t.equal(await first.stop(), 0)

  const made = await coffer(folder, order, variables)
  t.equal(made.code, 0)
  t.match(made.stdout, TOKEN_LINE)
  const second = await startServer(t, folder, variables)
  t.equal(await statusOf(second.url, made.stdout.trim()), 200)
  t.equal(await second.stop(), 0)
})

t.test('a command in the wrong folder makes no database', async (t) => {
  const folder = await makeFolder(t)
  const { code, stderr } = await coffer(folder, ['admin', 'repo', 'list', '--offline'])
  t.equal(code, 2)
  t.match(stderr, `There is no database in ${folder}/data. Set COFFER_DATA_DIR`)
})

t.test('what is typed wrong is refused before anything is asked', async (t) => {
  const attempts: [string, RegExp][] = [
    ['user create a/../b', /letters, digits, hyphens and underscores/],
    ['user delete mona', /deletes mona with all tokens, secrets and repositories.*--yes/],
    ['org delete octo', /deletes octo with all its secrets and repositories.*--yes/],
    ['org delete octo/x --yes', /letters, digits, hyphens and underscores/],
    ['org member set octo mona --role owner', /Allowed choices are admin, member/],
    ['org member set octo ../user', /letters, digits, hyphens and underscores/],
    ['repo delete root/web', /deletes root\/web with all its secrets.*--yes/],
    ['repo create ../user', /OWNER\/NAME/],
    ['repo create mona/..', /OWNER\/NAME/],
    ['repo create mona', /OWNER\/NAME/],
    [
      'collaborator set root/web mona boss',
      /Allowed choices are read, triage, write, maintain, admin, pull, push/
    ],
    ['token create mona', /--scopes .* or with --permission/],
    ['token create mona --scopes repo --permission metadata=read', /not both/],
    ['token create mona --scopes repo --repo mona/hers', /go with --permission/],
    ['token create mona --permission metadata=read --repo mona/hers --all-repos', /not both/],
    ['token create mona --permission metadata', /NAME=LEVEL/],
    ['token create mona --scopes repo --expires soon', /whole number of days/]
  ]
  for (const [line, message] of attempts) {
    let written = ''
    const command = adminCommand()
    for (const each of leaves(command)) {
      each.exitOverride((error) => {
        throw error
      })
      each.configureOutput({ writeErr: (text) => (written += text) })
    }
    const error = await command.parseAsync(line.split(' '), { from: 'user' }).then(
      () => new Error('it was not refused'),
      (error) => error
    )
    t.match(`${error.message}\n${written}`, message, line)
  }
})

t.test('every command shows with --help what it takes, and an example', async (t) => {
  const { stdout, code } = await coffer(await makeFolder(t), ['admin', 'token', 'create', '--help'])
  t.equal(code, 0)
  t.match(
    stdout,
    /Usage: coffer admin token create \[options\] <login>[\s\S]*--scopes[\s\S]*Example:\n {2}\$ npx coffer/
  )
  for (const scope of SCOPES) t.match(stdout, scope)
  for (const permission of Object.keys(PERMISSIONS)) t.match(stdout, new RegExp(`^ {2}${permission}$`, 'm'))

  const commands = leaves(adminCommand())
  t.equal(commands.length, 27)
  for (const command of commands) {
    let help = ''
    command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp()
    t.match(help, /--offline[\s\S]*Example:\n {2}\$ npx coffer admin /, command.name())
    t.ok(command.description().endsWith('.'), command.name())
  }
})

function leaves(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves)
}
