import { createPublicKey } from 'node:crypto'
import { readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { fingerprintOf } from '../../src/auth/app-key.ts'
import { PERMISSIONS } from '../../src/auth/scopes.ts'
import type { AppAdministration } from '../../src/cli/admin/app-administration.ts'
import { offlineAdministration } from '../../src/cli/admin/offline.ts'
import { onlineAdministration } from '../../src/cli/admin/online.ts'
import { writePrivateKey } from '../../src/cli/admin/private-key-file.ts'
import { CHECKOUT } from '../checkout.ts'
import { signJwt } from '../github-app.ts'
import { startTestServer } from '../helper.ts'
import { coffer, makeFolder, statusOf } from './helper.ts'

const ASKED = { codespaces_secrets: 'write', members: 'read' }

async function startOnline(t: Test) {
  const server = await startTestServer(t, { logLevel: 'silent' })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  for (const name of ['web', 'api']) await server.createRepository(acme, name)
  const url = await server.listen()
  return { server, url, online: onlineAdministration({ url, token: server.admin.token }).apps }
}

/** The whole life of an App, which is the same over HTTP and on the database. */
async function live(t: Test, apps: AppAdministration, url: string): Promise<void> {
  const { pem, key, ...app } = await apps.create({ name: 'Deploy Bot', owner: 'acme', permissions: ASKED })
  t.match(app, {
    slug: 'deploy-bot',
    client_id: /^Iv1\./,
    owner: 'acme',
    permissions: { ...ASKED, metadata: 'read' },
    installations_count: 0
  })
  t.equal(key.fingerprint, fingerprintOf(createPublicKey(pem).export({ type: 'spki', format: 'der' })))
  t.equal(await statusOf(url, await signJwt({ id: app.id, pem }), '/app'), 200)

  const installed = await apps.install('deploy-bot', 'ACME', { repositories: ['web'] })
  t.match(installed, {
    id: Number,
    account: 'acme',
    repository_selection: 'selected',
    permissions: { ...ASKED, metadata: 'read' },
    suspended_at: null
  })
  await apps.install('deploy-bot', 'mona', { repositories: 'all', permissions: {} })
  t.match(await apps.listInstallations('deploy-bot'), [
    { account: 'acme', repository_selection: 'selected' },
    { account: 'mona', repository_selection: 'all', permissions: { metadata: 'read' } }
  ])
  t.match(await apps.list(), [{ slug: 'deploy-bot', installations_count: 2 }])
  t.match(await apps.changeInstallation('deploy-bot', 'acme', { repositories: 'all' }), {
    repository_selection: 'all',
    permissions: ASKED
  })
  const fewer = { permissions: { members: 'read' } }
  t.strictSame((await apps.changeInstallation('deploy-bot', 'acme', fewer)).permissions, {
    members: 'read',
    metadata: 'read'
  })
  await apps.suspend('deploy-bot', 'acme')
  t.match((await apps.listInstallations('deploy-bot'))[0], { suspended_at: /^\d{4}-.*Z$/ })
  await apps.unsuspend('deploy-bot', 'acme')
  t.equal((await apps.listInstallations('deploy-bot'))[0]?.suspended_at, null)

  const second = await apps.createKey('deploy-bot')
  t.strictSame(
    (await apps.listKeys('deploy-bot')).map(({ id, valid }) => [id, valid]),
    [
      [key.id, true],
      [second.id, true]
    ]
  )
  await apps.deleteKey('deploy-bot', key.id)
  t.equal(await statusOf(url, await signJwt({ id: app.id, pem }), '/app'), 401)
  t.equal(await statusOf(url, await signJwt({ id: app.id, pem: second.pem }), '/app'), 200)

  t.strictSame((await apps.update('deploy-bot', { permissions: {} })).permissions, { metadata: 'read' })
  t.strictSame((await apps.listInstallations('deploy-bot'))[0]?.permissions, { metadata: 'read' })
  await apps.uninstall('deploy-bot', 'acme')
  t.match(await apps.listInstallations('deploy-bot'), [{ account: 'mona' }])

  for (const [attempt, message] of [
    [
      () => apps.create({ name: 'deploy bot', owner: 'mona', permissions: {} }),
      /there is an App of that name|Validation/
    ],
    [
      () => apps.create({ name: 'x', owner: 'none', permissions: {} }),
      /owner is not the login|There is no user or organization none/
    ],
    [
      () => apps.create({ name: 'x', owner: 'mona', permissions: { contents: 'read' } }),
      /permissions may only contain|Validation/
    ],
    [() => apps.update('none', {}), /There is no App none/],
    [() => apps.delete('none'), /There is no App none/],
    [() => apps.listKeys('none'), /There is no App none/],
    [() => apps.createKey('none'), /There is no App none/],
    [() => apps.deleteKey('deploy-bot', 1), /no key 1/],
    [() => apps.install('none', 'acme', { repositories: 'all' }), /There is no App none/],
    [
      () => apps.install('deploy-bot', 'mona', { repositories: 'all' }),
      /installed on this account already|Validation/
    ],
    [
      () => apps.install('deploy-bot', 'acme', { repositories: ['none'] }),
      /repositories are names|Validation/
    ],
    [() => apps.uninstall('deploy-bot', 'acme'), /deploy-bot is not installed on acme/],
    [() => apps.suspend('deploy-bot', 'acme'), /deploy-bot is not installed on acme/],
    [() => apps.listInstallations('none'), /There is no App none/]
  ] as [() => Promise<unknown>, RegExp][]) {
    await t.rejects(attempt(), { message })
  }
  await apps.delete('deploy-bot')
  t.strictSame(await apps.list(), [])
}

t.test('an App lives its whole life over HTTP', async (t) => {
  const { online, url } = await startOnline(t)
  await live(t, online, url)
})

t.test('and on the database', async (t) => {
  const { server, url } = await startOnline(t)
  const limits = { tokenDefaultDays: 90, tokenMaxDays: 366 }
  await live(t, offlineAdministration(server.db, limits).apps, url)
  const actors = await server.db
    .selectFrom('audit_events')
    .select('actor_kind')
    .where('action', 'like', 'app.%')
    .distinct()
    .execute()
  t.strictSame(actors, [{ actor_kind: 'system' }])
})

t.test('the private key goes to a new file of mode 0600, or alone to standard output', async (t) => {
  const { server, url } = await startOnline(t)
  const folder = await makeFolder(t)
  const variables = { COFFER_URL: url, COFFER_TOKEN: server.admin.token }
  const app = (...args: string[]) => coffer(folder, ['admin', 'app', ...args], variables)
  const permissions = ['--permissions', 'codespaces_secrets=write, members=read']
  const file = path.join(folder, 'bot.pem')

  const made = await app('create', 'Bot', '--owner', 'acme', ...permissions, '--key-file', 'bot.pem')
  t.match(made, {
    code: 0,
    stderr: '',
    stdout: /^App bot registered, id \d+, client id Iv1\..*in bot\.pem\.\n$/
  })
  const pem = await readFile(file, 'utf8')
  t.match(pem, /^-----BEGIN RSA PRIVATE KEY-----\n/)
  t.equal((await stat(file)).mode & 0o777, 0o600)
  const { id } = (await server.request('GET', '/apps/bot', { token: server.admin.token })).json()
  t.equal(await statusOf(url, await signJwt({ id, pem }), '/app'), 200)

  const again = await app('key', 'rotate', 'bot', '--key-file', 'bot.pem')
  t.match(again, { code: 2, stdout: '', stderr: /bot\.pem is there already\. Name another file\./ })
  t.equal(await readFile(file, 'utf8'), pem, 'the key that is there stays')
  t.equal((await server.db.selectFrom('integration_keys').selectAll().execute()).length, 1, 'none was made')

  const kept = await app('key', 'rotate', 'bot', '--keep')
  t.match(kept, {
    code: 0,
    stdout: /^-----BEGIN RSA PRIVATE KEY-----\n[^-]+-----END RSA PRIVATE KEY-----\n$/,
    stderr: /^Key \d+ of bot/
  })
  t.equal(await statusOf(url, await signJwt({ id, pem }), '/app'), 200)
  t.equal(await statusOf(url, await signJwt({ id, pem: kept.stdout }), '/app'), 200)
  const rotated = await app('key', 'rotate', 'bot', '--json')
  t.equal(rotated.code, 0)
  t.match(rotated.stderr, '2 earlier keys deleted.')
  const key = JSON.parse(rotated.stdout)
  t.match(key, { id: Number, fingerprint: /^SHA256:/, pem: /BEGIN RSA/ })
  t.equal(await statusOf(url, await signJwt({ id, pem }), '/app'), 401)
  t.equal(await statusOf(url, await signJwt({ id, pem: kept.stdout }), '/app'), 401)
  t.equal(await statusOf(url, await signJwt({ id, pem: key.pem }), '/app'), 200)

  const installed = await app('install', 'bot', '--account', 'acme', '--repos', 'web,api')
  t.match(installed, {
    code: 0,
    stdout: /^App bot is installed on acme, id \d+: selected repositories, .*codespaces_secrets=write/
  })
  const listed = await app('installations', 'bot')
  t.match(listed.stdout, /^ID +ACCOUNT +REPOSITORIES +SUSPENDED +PERMISSIONS\n\d+ +acme +selected +no /)
  for (const [args, message] of [
    [['install', 'bot', '--account', 'mona'], /Give --repos or --all-repositories/],
    [['install', 'bot', '--account', 'mona', '--repos', 'x', '--all-repositories'], /not both/],
    [['install', 'bot', '--account', 'mona', '--repos', 'mona/x'], /without their owner/],
    [['change', 'bot', '--account', 'acme'], /Give --repos, --all-repositories or --permissions/],
    [['update', 'bot'], /Give --permissions, --description or both/],
    [['create', 'x', '--owner', 'acme', '--permissions', 'codespaces_secrets'], /NAME=LEVEL/],
    [['create', 'x', '--owner', 'acme', '--permissions', ','], /NAME=LEVEL/],
    [['delete', 'bot'], /deletes the App bot with its keys.*--yes/],
    [['uninstall', 'bot', '--account', 'acme'], /removes the App bot from acme.*--yes/],
    [['key', 'list', '../users'], /small letters/],
    [['key', 'delete', 'bot', 'all'], /An id is a number/]
  ] as [string[], RegExp][]) {
    const refused = await app(...args)
    t.match(refused, { code: 2, stdout: '', stderr: message }, args.join(' '))
  }
  t.match(await app('uninstall', 'bot', '--account', 'acme', '--yes'), { code: 0 })
  t.match(await app('delete', 'bot', '--yes'), { code: 0, stdout: 'App bot deleted.\n' })
})

t.test('a file that cannot be kept makes no key', async (t) => {
  const folder = await makeFolder(t)
  let made = 0
  const make = async () => {
    made += 1
    return { pem: 'key' }
  }
  await t.rejects(writePrivateKey(path.join(folder, 'none', 'key.pem'), make), /cannot be made \(ENOENT\)/)
  const file = path.join(folder, 'key.pem')
  await writeFile(file, 'another')
  await t.rejects(writePrivateKey(file, make), /is there already/)
  t.equal(made, 0)
  t.equal(await readFile(file, 'utf8'), 'another')
  const fresh = path.join(folder, 'fresh.pem')
  await t.rejects(
    writePrivateKey(fresh, async () => {
      throw new Error('refused')
    }),
    /refused/
  )
  await t.rejects(stat(fresh), { code: 'ENOENT' }, 'nothing stays behind')
  t.match(await writePrivateKey(fresh, make), { pem: 'key' })
  t.equal(await readFile(fresh, 'utf8'), 'key')
})

t.test(
  'a fine-grained token takes every permission that secrets have, one by one or several at once',
  async (t) => {
    const { server, url } = await startOnline(t)
    const folder = await makeFolder(t)
    const names = [
      'codespaces_secrets',
      'codespaces_user_secrets',
      'organization_codespaces_secrets',
      'secrets',
      'organization_secrets',
      'environments',
      'dependabot_secrets',
      'organization_dependabot_secrets',
      'agent_secrets',
      'organization_agent_secrets'
    ]
    for (const name of names) t.ok(Object.hasOwn(PERMISSIONS, name), name)
    const made = await coffer(
      folder,
      [
        ...['admin', 'token', 'create', 'mona', '--all-repos', '--json', '--permission', 'metadata=read'],
        ...['--permissions', names.map((name) => `${name}=write`).join(',')]
      ],
      { COFFER_URL: url, COFFER_TOKEN: server.admin.token }
    )
    t.equal(made.code, 0)
    t.strictSame(JSON.parse(made.stdout).permissions, {
      ...Object.fromEntries(names.map((name) => [name, 'write'])),
      metadata: 'read'
    })
    const documented = await readFile(path.join(CHECKOUT, 'docs', 'operating.md'), 'utf8')
    for (const name of names) t.ok(documented.includes(`\`${name}\``), `${name} is documented`)
  }
)
