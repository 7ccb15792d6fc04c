import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { isConsistent } from './consistency.ts'
import { asAdmin, installTestApp, mint, registerTestApp, signJwt } from './github-app.ts'
import { startTestServer, type TestServer } from './helper.ts'

t.setTimeout(120_000)

const PERMISSIONS = {
  codespaces_secrets: 'write',
  organization_codespaces_secrets: 'write',
  administration: 'write'
}
const WEB = '/repos/acme/web/codespaces/secrets'
const ORG = '/orgs/acme/codespaces/secrets'

async function start(t: Test) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const web = await server.createRepository(acme, 'web')
  await server.createRepository(acme, 'api')
  const app = await registerTestApp(server, 'Octo App', PERMISSIONS)
  const id = await installTestApp(server, app, 'acme', ['web', 'api'])
  const { token } = await mint(server, app, id)
  return { server, acme, web, app, id, token }
}

/** Holds the row of a repository, as another writer would; gives what lets it go. */
async function hold({ db }: TestServer, repositoryId: number): Promise<() => Promise<void>> {
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  let taken = () => {}
  const holding = new Promise<void>((resolve) => {
    taken = resolve
  })
  const transaction = db.transaction().execute(async (tx) => {
    await sql`select 1 from repositories where id = ${repositoryId} for update`.execute(tx)
    taken()
    await held
  })
  await holding
  return async () => {
    release()
    await transaction
  }
}

/** Until so many wait for a lock. */
async function waiting({ db }: TestServer, number: number): Promise<void> {
  for (;;) {
    const { rows } = await sql<{ total: number }>`select count(*) as total from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`.execute(db)
    if (rows[0]!.total >= number) return
    await sleep(10)
  }
}

t.test('a write that waits when its App is uninstalled, suspended or narrowed stores nothing', async (t) => {
  const { server, web, app, id, token } = await start(t)
  const box = await server.seal(WEB, token, 'too late')
  const put = (name: string, by: string) => server.request('PUT', `${WEB}/${name}`, { token: by, body: box })
  t.equal((await put('OLD', token)).statusCode, 201)
  const path = `/admin/installations/${id}`
  const changes: [what: string, change: () => Promise<unknown>, undo: () => Promise<unknown>][] = [
    [
      'a permission taken',
      () => asAdmin(server, 'PATCH', path, { permissions: { codespaces_secrets: 'read' } }),
      () => asAdmin(server, 'PATCH', path, { permissions: PERMISSIONS })
    ],
    [
      'the repository taken',
      () => asAdmin(server, 'PATCH', path, { repositories: ['api'] }),
      () => asAdmin(server, 'PATCH', path, { repositories: ['web', 'api'] })
    ],
    [
      'suspended',
      () => asAdmin(server, 'PUT', `${path}/suspended`),
      () => asAdmin(server, 'DELETE', `${path}/suspended`)
    ],
    ['uninstalled', () => asAdmin(server, 'DELETE', path), async () => undefined]
  ]
  for (const [what, change, undo] of changes) {
    const { token: fresh } = await mint(server, app, id)
    const release = await hold(server, web)
    const late = put('LATE', fresh)
    await waiting(server, 1)
    await change()
    await release()
    t.equal((await late).statusCode, 401, what)
    await undo()
  }
  const names = await server.db.selectFrom('secrets').select('name').execute()
  t.strictSame(names, [{ name: 'OLD' }])
  await isConsistent(t, server.db)
})

t.test('a change of the directory that is under way is done before its App is uninstalled', async (t) => {
  const { server, web, id, token } = await start(t)
  const release = await hold(server, web)
  const renaming = server.request('PATCH', '/repos/acme/web', { token, body: { description: 'by an App' } })
  await waiting(server, 1)
  const uninstalling = server.request('DELETE', `/admin/installations/${id}`, { token: server.admin.token })
  await waiting(server, 2)
  await release()
  t.strictSame([(await renaming).statusCode, (await uninstalling).statusCode], [200, 204])
  t.equal((await server.request('GET', '/repos/acme/web', { token })).statusCode, 401)
  const events = await server.db
    .selectFrom('audit_events')
    .select('action')
    .where('action', 'in', ['repository.update', 'installation.remove'])
    .orderBy('id')
    .execute()
  t.strictSame(
    events.map(({ action }) => action),
    ['repository.update', 'installation.remove']
  )
})

t.test('whatever is done to an App while it works, nothing breaks and nothing is left behind', async (t) => {
  const { server, acme, app } = await start(t)
  for (let round = 0; round < 2; round++) {
    const before = await server.db
      .selectFrom('installations')
      .select('id')
      .where('integration_id', '=', app.id)
      .executeTakeFirst()
    const id = before?.id ?? (await installTestApp(server, app, 'acme', ['web', 'api']))
    const { token } = await mint(server, app, id)
    const jwt = await signJwt(app)
    const [box, shared] = [await server.seal(WEB, token, 'value'), await server.seal(ORG, token, 'value')]
    const admin = server.admin.token
    const steps: ((index: number) => ReturnType<TestServer['request']>)[] = [
      (index) => server.request('PUT', `${WEB}/N${index}`, { token, body: box }),
      (index) => server.request('PUT', `${WEB}/SAME`, { token, body: { ...box, index } }),
      (index) => server.request('PUT', `${ORG}/N${index}`, { token, body: { ...shared, visibility: 'all' } }),
      () => server.request('DELETE', `${WEB}/SAME`, { token }),
      () => server.request('POST', `/app/installations/${id}/access_tokens`, { token: jwt }),
      (index) =>
        server.request('POST', '/orgs/acme/repos', {
          token,
          body: { name: `r${round}-${index}-${answers.length}` }
        }),
      () => server.request('PATCH', '/repos/acme/api', { token, body: { description: 'busy' } }),
      () =>
        server.request('PATCH', `/admin/installations/${id}`, {
          token: admin,
          body: { repositories: ['web', 'api'], permissions: PERMISSIONS }
        }),
      () =>
        server.request('PATCH', '/admin/apps/octo-app', { token: admin, body: { permissions: PERMISSIONS } }),
      () => server.request('GET', '/installation/repositories', { token })
    ]
    const answers: number[] = []
    let removed = false
    // Six at a time, until it is gone, and each once more.
    const work = Promise.all(
      Array.from({ length: 6 }, async (_, worker) => {
        for (let index = worker, after = false; !after; index += 7) {
          after = removed
          answers.push((await steps[index % steps.length]!(index)).statusCode)
        }
      })
    )
    while (answers.length < 40) await sleep(5)
    const removal = await server.request('DELETE', `/app/installations/${id}`, { token: jwt })
    removed = true
    t.equal(removal.statusCode, 204)
    await work
    t.strictSame(
      answers.filter((status) => ![200, 201, 204, 401, 403, 404, 422].includes(status)),
      []
    )
    t.strictSame(server.log, [])
    t.strictSame(
      await server.db.selectFrom('tokens').select('id').where('installation_id', '=', id).execute(),
      []
    )
    await isConsistent(t, server.db)
  }
  t.ok(acme)
})

t.test('of many installations at once on one account one is made', async (t) => {
  const { server } = await start(t)
  await registerTestApp(server, 'Second', PERMISSIONS)
  const answers = await Promise.all(
    Array.from({ length: 8 }, () =>
      server.request('POST', '/admin/apps/second/installations', {
        token: server.admin.token,
        body: { account: 'acme', all_repositories: true }
      })
    )
  )
  const statuses = answers.map(({ statusCode }) => statusCode).sort()
  t.strictSame(statuses, [201, ...Array.from({ length: 7 }, () => 422)])
})

t.test(
  'an account that is deleted while Apps are installed on it and minted for leaves nothing',
  async (t) => {
    const { server, app } = await start(t)
    const jwt = await signJwt(app)
    const hubot = await server.createUser('hubot')
    await server.createRepository(hubot, 'tools')
    await registerTestApp(server, 'Hubots', PERMISSIONS, 'hubot')
    const id = await installTestApp(server, app, 'hubot')
    const { token } = await mint(server, app, id)
    const path = '/repos/hubot/tools/codespaces/secrets'
    const box = await server.seal(path, token, 'value')
    const work = Promise.all(
      Array.from({ length: 40 }, async (_, index) => {
        await sleep(index / 2)
        if (index % 4 === 0)
          return await server.request('POST', `/app/installations/${id}/access_tokens`, { token: jwt })
        if (index % 4 === 1)
          return await server.request('PATCH', '/repos/hubot/tools', { token, body: { description: 'busy' } })
        if (index % 4 === 2)
          return await server.request('POST', '/admin/apps/hubots/installations', {
            token: server.admin.token,
            body: { account: 'hubot', all_repositories: true }
          })
        return await server.request('PUT', `${path}/N${index}`, { token, body: box })
      })
    )
    await sleep(8)
    const removed = await server.request('DELETE', '/admin/users/hubot', { token: server.admin.token })
    t.equal(removed.statusCode, 204, removed.body)
    const answers = (await work).map(({ statusCode }) => statusCode)
    t.strictSame(
      answers.filter((status) => ![200, 201, 204, 401, 403, 404, 422].includes(status)),
      []
    )
    t.strictSame(server.log, [])
    const left = await server.db
      .selectFrom('installations')
      .select('id')
      .where('account_id', '=', hubot.id)
      .execute()
    t.strictSame(left, [])
    await isConsistent(t, server.db)
  }
)
