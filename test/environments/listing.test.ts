// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { furnish, RUNNING, type World } from './world.ts'

// ListEnvironments: filters, order and pages.

async function list({ ask }: World, request: object, token?: string): Promise<string[]> {
  const { environments = [] } = await ask('EnvironmentService/ListEnvironments', request, token)
  return environments.map(({ metadata }: any) => metadata.name)
}

async function furnishMany(test: Parameters<typeof furnish>[0]) {
  const world = await furnish(test)
  await world.openProject()
  const { ask, owner, member, classId, stranger } = world
  const other = await world.addRunner()
  const ids: Record<string, string> = {}
  const make = async (name: string, token: string, more: object = {}) => {
    ids[name] = (await world.create(token, { name, ...more })).id
  }
  await make('one', owner.token, { sessionId: 'together' })
  await make('two', member.token, {
    sessionId: 'together',
    spec: {
      content: {
        initializer: { specs: [{ git: { remoteUri: 'https://x.example/a.git', cloneTarget: 'Feature' } }] }
      }
    }
  })
  const alone = await ask('EnvironmentService/CreateEnvironment', {
    name: 'three',
    spec: { machine: { class: other.classId } }
  })
  ids.three = alone.environment.id
  await make('four', owner.token, { spec: { machine: { class: classId } } })
  const foreign = await world.addRunner(stranger.token)
  await ask(
    'EnvironmentService/CreateEnvironment',
    { name: 'foreign', spec: { machine: { class: foreign.classId } } },
    stranger.token
  )
  return Object.assign(world, { other, ids })
}

t.test('owners see all, newest first, others their own', async (t) => {
  const world = await furnishMany(t)
  t.strictSame(await list(world, {}), ['four', 'three', 'two', 'one'])
  t.strictSame(await list(world, {}, world.member.token), ['two'])
  t.strictSame(await list(world, {}, world.stranger.token), ['foreign'])
  const filter = { creatorIds: [world.owner.account.uid] }
  t.strictSame(await list(world, { filter }, world.member.token), [], 'a filter shows no more')
})

t.test('each filter', async (t) => {
  const world = await furnishMany(t)
  const { runner, other, projectId, owner, member, ids, ask, db } = world
  const [assignment] = (await runner.claim()).filter(({ environmentId }) => environmentId === ids.one)
  await runner.report(assignment, RUNNING)
  const lockdownAt = '2090-01-01T00:00:00Z'
  await ask('EnvironmentService/UpdateEnvironment', { environmentId: ids.two, metadata: { lockdownAt } })
  await db
    .updateTable('environments')
    .set({ created_at: new Date('2020-01-01T00:00:00Z') })
    .where('uid', '=', ids.four!)
    .execute()
  const filters: [object, string[]][] = [
    [{ runnerIds: [other.id] }, ['three']],
    [{ runnerIds: [other.id, runner.id] }, ['four', 'three', 'two', 'one']],
    [{ runnerIds: [randomUUID()] }, []],
    [{ runnerIds: [] }, ['four', 'three', 'two', 'one']],
    [{ statusPhases: [RUNNING] }, ['one']],
    [{ statusPhases: ['ENVIRONMENT_PHASE_CREATING', 'ENVIRONMENT_PHASE_DELETED'] }, ['four', 'three', 'two']],
    [{ creatorIds: [member.account.uid] }, ['two']],
    [{ creatorIds: [owner.account.uid] }, ['four', 'three', 'one']],
    [{ projectIds: [projectId] }, ['four', 'two', 'one']],
    [{ runnerKinds: ['RUNNER_KIND_REMOTE'] }, ['four', 'three', 'two', 'one']],
    [{ runnerKinds: ['RUNNER_KIND_LOCAL'] }, []],
    [{ createdBefore: '2021-01-01T00:00:00Z' }, ['four']],
    [{ createdBefore: '0001-01-01T00:00:00Z' }, []],
    [{ createdBefore: '9999-12-31T23:59:59.999999999Z' }, ['four', 'three', 'two', 'one']],
    [{ roles: ['ENVIRONMENT_ROLE_DEFAULT'] }, ['four', 'three', 'two', 'one']],
    [{ roles: ['ENVIRONMENT_ROLE_PREBUILD'] }, []],
    [{ lockdownBefore: '2091-01-01T00:00:00Z' }, ['two']],
    [{ lockdownBefore: lockdownAt }, []],
    [{ sessionIds: ['together'] }, ['two', 'one']],
    [{ sessionIds: ["' or true --"] }, []],
    [{ search: 'THRE' }, ['three']],
    [{ search: 'x.example' }, ['two']],
    [{ search: 'feature' }, ['two']],
    [{ search: ids.one!.slice(0, 13).toUpperCase() }, ['one']],
    [{ search: 'coffer.test' }, ['four', 'one']],
    [{ search: '%' }, []],
    [{ projectIds: [projectId], creatorIds: [owner.account.uid], search: 'o' }, ['four', 'one']]
  ]
  for (const [filter, expected] of filters) {
    t.strictSame(await list(world, { filter }), expected, JSON.stringify(filter))
  }
})

t.test('archived ones, and the order in which they were', async (t) => {
  const world = await furnishMany(t)
  const { ask, ids } = world
  for (const name of ['one', 'four', 'two']) {
    await ask('EnvironmentService/ArchiveEnvironment', { environmentId: ids[name] })
  }
  const among = (archivalStatus: string, sort?: object) =>
    list(world, { filter: { archivalStatus }, ...(sort && { sort }) })
  const byTime = (order: string) => ({ field: 'SORT_FIELD_ARCHIVED_AT', order })
  t.strictSame(await list(world, {}), ['three'])
  t.strictSame(await among('ARCHIVAL_STATUS_ACTIVE'), ['three'])
  t.strictSame(await among('ARCHIVAL_STATUS_ARCHIVED'), ['four', 'two', 'one'])
  t.strictSame(await among('ARCHIVAL_STATUS_ALL'), ['four', 'three', 'two', 'one'])
  t.strictSame(await among('ARCHIVAL_STATUS_ALL', byTime('SORT_ORDER_DESC')), ['two', 'four', 'one', 'three'])
  t.strictSame(await among('ARCHIVAL_STATUS_ALL', byTime('SORT_ORDER_ASC')), ['three', 'one', 'four', 'two'])
  t.strictSame(await among('ARCHIVAL_STATUS_ARCHIVED', { field: 'SORT_FIELD_ID', order: 'SORT_ORDER_ASC' }), [
    'one',
    'two',
    'four'
  ])
})

t.test('pages hold each once, in every order, with the count beside them', async (t) => {
  const world = await furnishMany(t)
  const { ask, ids, call, member } = world
  await ask('EnvironmentService/ArchiveEnvironment', { environmentId: ids.two })
  for (const field of ['SORT_FIELD_ID', 'SORT_FIELD_ARCHIVED_AT']) {
    for (const order of ['SORT_ORDER_ASC', 'SORT_ORDER_DESC']) {
      const request = {
        filter: { archivalStatus: 'ARCHIVAL_STATUS_ALL' },
        sort: { field, order },
        count: { include: true }
      }
      const whole = await list(world, request)
      const paged: string[] = []
      for (let token: string | undefined; ; ) {
        const page = await ask('EnvironmentService/ListEnvironments', {
          ...request,
          pagination: { pageSize: 1, ...(token && { token }) }
        })
        t.strictSame(page.count?.value, token ? undefined : 4)
        paged.push(...(page.environments ?? []).map(({ metadata }: any) => metadata.name))
        token = page.pagination?.nextToken
        if (!token) break
        const another = { ...request, sort: { field }, pagination: { pageSize: 1, token } }
        t.match(await call('EnvironmentService/ListEnvironments', member.token, another), {
          body: { code: 'invalid_argument' }
        })
      }
      t.strictSame(paged, whole, `${field} ${order}`)
    }
  }
})
