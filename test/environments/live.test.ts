// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import type { TestServerOptions } from '../helper.ts'
import { startSecondNode } from '../helper.ts'
import { makeServiceAccount } from '../routes/rpc/machines.ts'
import { furnish as furnishWorld, held, names, type RunnerHere, told, type World } from './world.ts'

// What changes while environments run: their runner hears of it, and what was lost is withheld at the very next read.

/** Mia, a member, may use the project and write to its repository. */
async function furnish(t: Test, options: TestServerOptions = {}) {
  const world = await furnishWorld(t, options)
  await world.openProject()
  const repositoryId = await world.createRepository(world.acme, 'web')
  await world.setRole(world.acme, 'web', world.member.account, 'write')
  return Object.assign(world, { repositoryId })
}

type Furnished = Awaited<ReturnType<typeof furnish>>

/** A value that GitHub's API stores. */
async function put(world: Furnished, path: string, value: string, more: object = {}, token?: string) {
  const bearer = token ?? world.owner.token
  const collection = path.slice(0, path.lastIndexOf('/'))
  const sealed = await world.seal(collection, bearer, value)
  const response = await world.request('PUT', path, { token: bearer, body: { ...sealed, ...more } })
  if (response.statusCode >= 300) throw new Error(`${response.statusCode} ${response.body}`)
}

function idOf({ secrets = [] }: any, name: string): string {
  return secrets.find((secret: any) => secret.name === name).id
}

t.test('a secret of each origin that is changed, created or deleted', async (t) => {
  const world = await furnish(t)
  const { ask, member, acme, projectId, runner } = world
  const scopes = {
    OWN: { userId: member.account.uid },
    PROJECT: { projectId },
    ORGANIZATION: { organizationId: acme.uid }
  }
  const tokenOf = (name: string) => (name === 'OWN' ? member.token : world.owner.token)
  const repositorySecret = '/repos/acme/web/codespaces/secrets/REPOSITORY'
  await put(world, repositorySecret, 'one')
  let assignment = await world.start(member.token)
  t.strictSame(names(assignment), ['REPOSITORY'])
  const ids: Record<string, string> = {}
  for (const [name, scope] of Object.entries(scopes)) {
    ids[name] = await world.addSecret(name, 'one', { scope }, tokenOf(name))
    assignment = await told(runner, assignment, (next) => names(next).includes(name))
  }
  t.equal(names(assignment).length, 4)
  await put(world, repositorySecret, 'two')
  assignment = await told(runner, assignment)
  for (const [name, secretId] of Object.entries(ids)) {
    await ask('SecretService/UpdateSecretValue', { secretId, value: 'two' }, tokenOf(name))
    assignment = await told(runner, assignment)
  }
  t.ok(assignment.secrets.every(({ session }: any) => session === '2'))
  for (const { id } of assignment.secrets) {
    t.same((await world.read(assignment.accessToken, id)).body, { value: 'two' })
  }
  for (const [name, secretId] of Object.entries(ids)) {
    await ask('SecretService/DeleteSecret', { secretId }, tokenOf(name))
    t.equal((await world.read(assignment.accessToken, secretId)).status, 404)
    assignment = await told(runner, assignment, (next) => !names(next).includes(name))
  }
  await world.request('DELETE', repositorySecret, { token: world.owner.token })
  assignment = await told(runner, assignment)
  t.strictSame(names(assignment), [])
})

t.test("visibility and selected repositories, by GitHub's API", async (t) => {
  const world = await furnish(t)
  const { member, runner, repositoryId, owner } = world
  const other = await world.createRepository(world.acme, 'other')
  const path = '/orgs/acme/codespaces/secrets/FOR_SOME'
  const repositories = `${path}/repositories`
  const selected = { visibility: 'selected', selected_repository_ids: [] as number[] }
  await put(world, path, 'x', selected)
  let assignment = await world.start(member.token)
  t.strictSame(names(assignment), [])
  const change = async (method: 'PUT' | 'DELETE', url: string, body?: object) => {
    const { statusCode } = await world.request(method, url, { token: owner.token, body })
    t.equal(statusCode, 204, `${method} ${url}`)
  }
  const comes = async () => {
    assignment = await told(runner, assignment, (next) => names(next).includes('FOR_SOME'))
    t.equal((await world.read(assignment.accessToken, idOf(assignment, 'FOR_SOME'))).status, 200)
  }
  const goes = async () => {
    const secretId = idOf(assignment, 'FOR_SOME')
    const { status } = await world.read(assignment.accessToken, secretId)
    t.ok(status === 403 || status === 404, 'withheld before the runner has heard of it')
    assignment = await told(runner, assignment, (next) => !names(next).includes('FOR_SOME'))
  }
  await change('PUT', `${repositories}/${repositoryId}`)
  await comes()
  await change('DELETE', `${repositories}/${repositoryId}`)
  await goes()
  await change('PUT', repositories, { selected_repository_ids: [repositoryId, other] })
  await comes()
  await change('PUT', repositories, { selected_repository_ids: [other] })
  await goes()
  await put(world, path, 'x', { visibility: 'private' })
  await comes()
  await world.request('PATCH', '/repos/acme/web', { token: owner.token, body: { private: false } })
  await goes()
  await put(world, path, 'x', { visibility: 'all' })
  await comes()
})

/** What is lost, and which of the secrets go with it. */
const LOSSES: [name: string, lose: (world: Furnished) => Promise<unknown>, gone: readonly string[]][] = [
  [
    'the role write on the repository',
    (world) => world.setRole(world.acme, 'web', world.member.account, 'read'),
    ['REPOSITORY', 'SELECTED']
  ],
  [
    'the membership',
    ({ ask, member, acme }) =>
      ask('OrganizationService/LeaveOrganization', { userId: member.account.uid, organizationId: acme.uid }),
    ['ORGANIZATION', 'OWN', 'PROJECT', 'REPOSITORY', 'SELECTED']
  ],
  [
    'the role on the project',
    async ({ ask, projectId }) => {
      const { groups } = await ask('GroupService/ListGroups', {})
      const { id: groupId } = groups.find(({ name }: any) => name === 'everyone')
      await ask('ProjectService/DeleteProjectPolicy', { projectId, groupId })
    },
    ['PROJECT']
  ],
  ['the project', ({ ask, projectId }) => ask('ProjectService/DeleteProject', { projectId }), ['PROJECT']],
  [
    'the repository',
    ({ request, owner }) => request('DELETE', '/repos/acme/web', { token: owner.token }),
    ['REPOSITORY', 'SELECTED']
  ],
  [
    'the account',
    ({ request, admin }) => request('DELETE', '/admin/users/mia', { token: admin.token }),
    ['ORGANIZATION', 'OWN', 'PROJECT', 'REPOSITORY', 'SELECTED']
  ]
]

for (const [name, lose, gone] of LOSSES) {
  t.test(`${name} is lost`, async (t) => {
    // Nobody resolves anything here: what is withheld is so by the read alone.
    const world = await furnish(t, { events: false })
    const { member, acme, repositoryId, read, runner } = world
    await world.addSecret('OWN', 'x', { scope: { userId: member.account.uid } }, member.token)
    await world.addSecret('PROJECT', 'x')
    await world.addSecret('ORGANIZATION', 'x', { scope: { organizationId: acme.uid } })
    await put(world, '/repos/acme/web/codespaces/secrets/REPOSITORY', 'x')
    const selected = { visibility: 'selected', selected_repository_ids: [repositoryId] }
    await put(world, '/orgs/acme/codespaces/secrets/SELECTED', 'x', selected)
    const assignment = await world.start(member.token)
    const all = names(assignment)
    t.strictSame(all, ['ORGANIZATION', 'OWN', 'PROJECT', 'REPOSITORY', 'SELECTED'])
    const readable = async () => {
      const found: string[] = []
      for (const { id, name } of assignment.secrets) {
        const { status, body } = await read(assignment.accessToken, id)
        if (status === 200) found.push(name)
        else t.ok(status === 403 || status === 404, `${name}: ${status}`)
        if (status === 403) t.match(body.message, /withheld/)
      }
      return found.sort()
    }
    t.strictSame(await readable(), all)
    await lose(world)
    const kept = all.filter((name) => !gone.includes(name))
    t.strictSame(await readable(), kept)
    world.app.liveUpdates.reset()
    const next = await told(runner, assignment)
    t.strictSame(names(next), kept, 'and is not told of any more')
  })
}

t.test('a service account that is deleted', async (t) => {
  const world = await furnish(t)
  const { ask, owner, runner, projectId } = world
  const bot = await makeServiceAccount(world, owner.token)
  const scope = { serviceAccountId: bot.uid }
  await world.addSecret('OF_BOT', 'x', { scope })
  await world.addSecret('OF_PROJECT', 'x')
  const assignment = await world.start(bot.token)
  t.strictSame(names(assignment), ['OF_BOT', 'OF_PROJECT'])
  await ask('ServiceAccountService/DeleteServiceAccount', { serviceAccountId: bot.uid, projectId })
  for (const { id } of assignment.secrets) {
    const { status } = await world.read(assignment.accessToken, id)
    t.ok(status === 403 || status === 404, String(status))
  }
  t.strictSame(names(await told(runner, assignment)), [])
})

t.test('a service account whose time is over', async (t) => {
  const world = await furnish(t)
  const { owner, runner, db } = world
  const bot = await makeServiceAccount(world, owner.token)
  await world.addSecret('OF_PROJECT', 'x')
  const assignment = await world.start(bot.token)
  await db
    .updateTable('service_accounts')
    .set({ valid_until: new Date(0) })
    .where('uid', '=', bot.uid)
    .execute()
  t.equal((await world.read(assignment.accessToken, idOf(assignment, 'OF_PROJECT'))).status, 403)
  world.app.liveUpdates.reset()
  t.strictSame(names(await told(runner, assignment)), [])
})

t.test('another node hears of it, and the runner that waits there', async (t) => {
  const world = await furnish(t)
  const node = await startSecondNode(t, world, { events: true })
  const secretId = await world.addSecret('ONE', 'one')
  const assignment = await world.start()
  const waiting = node.inject({
    method: 'POST',
    url: '/api/coffer.v1.RunnerInterfaceService/ClaimEnvironments',
    headers: { authorization: `Bearer ${world.runner.token}` },
    payload: JSON.stringify({
      holder: world.runner.holder,
      held: [held(assignment)],
      capacity: 0,
      waitSeconds: 20
    })
  })
  await world.ask('SecretService/UpdateSecretValue', { secretId, value: 'two' })
  t.match((await waiting).json().assignments, [{ secrets: [{ name: 'ONE', session: '2' }] }])
})

t.test('two nodes that resolve the same environments change each once', async (t) => {
  const world = await furnish(t)
  const node = await startSecondNode(t, world)
  const secretId = await world.addSecret('ONE', 'one')
  const assignment = await world.start()
  await world.ask('SecretService/UpdateSecretValue', { secretId, value: 'two' })
  node.liveUpdates.reset()
  const next = await told(world.runner, assignment)
  world.app.liveUpdates.reset()
  node.liveUpdates.reset()
  await Promise.all([world.app.liveUpdates.close(), node.liveUpdates.close()])
  t.equal(BigInt(next.specVersion), BigInt(assignment.specVersion) + 1n)
  t.same(await world.runner.claim([held(next)]), [])
})

t.test('a secret that is added while an environment is being made', async (t) => {
  const world = await furnish(t)
  const { ask, db, acme, runner } = world
  const { environmentId, ...before } = await world.start()
  let creation: Promise<any> | undefined
  const waits = async () => {
    const { rows } = await sql<{ n: number }>`select count(*)::int as n from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`.execute(db)
    return rows[0]!.n > 0
  }
  await db.transaction().execute(async (tx) => {
    // What it receives was looked up when it comes to this lock.
    await sql`select 1 from accounts where uid = ${acme.uid}::uuid for no key update`.execute(tx)
    creation = ask('EnvironmentService/CreateEnvironmentFromProject', { projectId: world.projectId })
    while (!(await waits())) await sleep(5)
    await world.addSecret('LATE', 'x')
    // All environments that are there have heard of it.
    await told(runner, { environmentId, ...before }, (next) => names(next).includes('LATE'))
  })
  const { environment } = await creation
  const assignments = await runner.claim([])
  const made = assignments.find((one) => one.environmentId === environment.id)
  t.strictSame(names(made), [])
  t.strictSame(names(await told(runner, made)), ['LATE'])
})

t.test('one that is stopped is brought up to date when it starts', async (t) => {
  const world = await furnish(t)
  const { ask, runner } = world
  const secretId = await world.addSecret('ONE', 'one')
  const assignment = await world.start()
  const { environmentId } = assignment
  await ask('EnvironmentService/StopEnvironment', { environmentId })
  const stopping = await told(runner, assignment)
  await runner.report(stopping, 'ENVIRONMENT_PHASE_STOPPED')
  await ask('SecretService/UpdateSecretValue', { secretId, value: 'two' })
  await ask('EnvironmentService/StartEnvironment', { environmentId })
  const starting = await told(runner, stopping)
  t.match(starting.secrets, [{ name: 'ONE', session: '2' }])
})

t.test('many that write at once, and environments that are made meanwhile, end in agreement', async (t) => {
  const world = await furnish(t)
  const { ask, runner, start } = world
  const ids: string[] = []
  for (let index = 0; index < 4; index++) ids.push(await world.addSecret(`SECRET_${index}`, 'one'))
  const assignments = [await start(), await start(), await start()]
  const work = async (secretId: string, index: number) => {
    await ask('SecretService/UpdateSecretValue', { secretId, value: 'two' })
    await ask('SecretService/DeleteSecret', { secretId })
    await world.addSecret(`SECRET_${index}`, 'three')
    await world.create()
  }
  await Promise.all(ids.map(work))
  for (const assignment of assignments) {
    const last = await told(runner as RunnerHere, assignment, ({ secrets = [] }) => {
      const fresh = secrets.filter(({ id }: any) => !ids.includes(id))
      return fresh.length === 4 && secrets.length === 4
    })
    for (const { id } of last.secrets) {
      t.same((await world.read(last.accessToken, id)).body, { value: 'three' })
    }
  }
  t.notOk((world as World).log.some((line) => line.includes('not brought up to date')))
})

t.test('one that cannot be resolved keeps no other from what it is to receive', async (t) => {
  const world = await furnish(t)
  const secretId = await world.addSecret('ONE', 'one')
  const broken = await world.start()
  const whole = await world.start()
  await world.db
    .updateTable('environments')
    .set({ chosen_secrets: '{}' } as object)
    .where('uid', '=', broken.environmentId)
    .execute()
  await world.ask('SecretService/UpdateSecretValue', { secretId, value: 'two' })
  t.match(await told(world.runner, whole), { secrets: [{ session: '2' }] })
  t.ok(world.log.some((line) => line.includes('not brought up to date')))
})
