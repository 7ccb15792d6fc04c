import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { SCOPES } from '../../../src/auth/scopes.ts'
import { hashToken } from '../../../src/auth/token.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'

const SERVICES = ['RunnerConfigurationService', 'EnvironmentService']

async function hostedOf(server: OnaServer, token = server.owner.token): Promise<string> {
  return (await server.call('RunnerService/ListRunners', token)).body.runners[0].runnerId
}

async function createRunner(server: OnaServer, provider: string): Promise<string> {
  const { body } = await server.call('RunnerService/CreateRunner', server.owner.token, {
    name: provider,
    provider
  })
  return body.runner.runnerId
}

async function createClass(server: OnaServer, runnerId: string, displayName: string): Promise<string> {
  const message = { runnerId, displayName, description: 'of a test' }
  const { status, body } = await server.call(
    'RunnerConfigurationService/CreateEnvironmentClass',
    server.owner.token,
    message
  )
  if (status !== 200) throw new Error(JSON.stringify(body))
  return body.id
}

t.test('a class, by the official client', async (t) => {
  const server = await startOnaServer(t)
  const client = sdk(await server.listen(), server.owner.token)
  const { environmentClasses } = client.runners.configurations
  const runnerId = await hostedOf(server)
  const configuration = [
    { key: 'cpu', value: '8' },
    { key: 'memory', value: '16384' }
  ]
  const { id } = await environmentClasses.create({
    runnerId,
    displayName: 'Large',
    description: '8 CPU, 16GB RAM',
    configuration
  })
  const { environmentClass } = await environmentClasses.retrieve({ environmentClassId: id! })
  t.strictSame(environmentClass, {
    id,
    runnerId,
    displayName: 'Large',
    description: '8 CPU, 16GB RAM',
    configuration,
    enabled: true
  })
  t.strictSame(await environmentClasses.update({ environmentClassId: id!, enabled: false }), {})
  t.strictSame(
    await environmentClasses.update({ environmentClassId: id!, displayName: 'Huge', description: null }),
    {}
  )
  t.strictSame((await environmentClasses.retrieve({ environmentClassId: id! })).environmentClass, {
    id,
    runnerId,
    displayName: 'Huge',
    description: '8 CPU, 16GB RAM',
    configuration
  })
  for (const list of [
    environmentClasses.list({ pagination: { pageSize: 1 } }),
    client.environments.classes.list({ pagination: { pageSize: 1 } })
  ]) {
    const names: string[] = []
    for await (const { displayName } of list) names.push(displayName!)
    t.strictSame(names, ['Regular', 'Huge'])
  }
  t.strictSame(await environmentClasses.update({ environmentClassId: id! }), {}, 'nothing to change')
  const records = await server.db
    .selectFrom('audit_events')
    .select(['stream_uid', 'actor_uid', 'action', 'name'])
    .where('subject_uid', '=', id!)
    .orderBy('id')
    .execute()
  const record = { stream_uid: server.acme.uid, actor_uid: server.owner.account.uid }
  t.strictSame(records, [
    { ...record, action: 'environment_class.create', name: 'Large' },
    { ...record, action: 'environment_class.update', name: 'Large' },
    { ...record, action: 'environment_class.update', name: 'Huge' }
  ])
})

t.test('a new organization has one class, and its projects allow that', async (t) => {
  const server = await startOnaServer(t)
  const { body } = await server.call('EnvironmentService/ListEnvironmentClasses', server.member.token)
  t.match(body.environmentClasses, [
    {
      displayName: 'Regular',
      description: /.{3,}/,
      runnerId: await hostedOf(server),
      enabled: true
    }
  ])
  t.equal(body.environmentClasses.length, 1)
  const [{ id: environmentClassId }] = body.environmentClasses
  const project = await server.call('ProjectService/CreateProject', server.owner.token, {
    name: 'web',
    initializer: { specs: [] }
  })
  t.strictSame(project.body.project.environmentClasses, [{ environmentClassId }])
})

t.test('what is wrong is named, and nothing is made', async (t) => {
  const server = await startOnaServer(t)
  const { token } = server.owner
  const runnerId = await hostedOf(server)
  const right = { runnerId, displayName: 'abc', description: 'abc' }
  const violations = async (method: string, message: object) => {
    const { status, body } = await server.call(`RunnerConfigurationService/${method}`, token, message)
    t.equal(status, 400, JSON.stringify(message).slice(0, 100))
    t.equal(body.code, 'invalid_argument')
    return body.details[0].debug.fieldViolations.map(({ field }: { field: string }) => field)
  }
  t.strictSame(await violations('CreateEnvironmentClass', {}), ['runnerId', 'displayName', 'description'])
  for (const [member, value, field = member] of [
    ['runnerId', 'x'],
    ['displayName', 'ab'],
    ['displayName', 'x'.repeat(128)],
    ['description', 'ab'],
    ['description', 'x'.repeat(201)],
    ['description', 'a\0b'],
    ['configuration', {}],
    ['configuration', [{ value: '8' }], 'configuration[0].key'],
    ['configuration', [{ key: 'cpu', value: 8 }], 'configuration[0].value'],
    ['configuration', Array.from({ length: 101 }, () => ({ key: 'cpu' }))]
  ] as const) {
    t.strictSame(await violations('CreateEnvironmentClass', { ...right, [member]: value }), [field])
  }
  const id = await createClass(server, runnerId, 'abc')
  for (const [member, value] of [
    ['displayName', 'ab'],
    ['displayName', ''],
    ['description', 'x'.repeat(201)],
    ['enabled', 'yes']
  ] as const) {
    const message = { environmentClassId: id, [member]: value }
    t.strictSame(await violations('UpdateEnvironmentClass', message), [member])
  }
  t.strictSame(await violations('GetEnvironmentClass', {}), ['environmentClassId'])
  const longest = { ...right, displayName: '\u{1f600}'.repeat(127), description: 'x'.repeat(200) }
  const made = await server.call('RunnerConfigurationService/CreateEnvironmentClass', token, longest)
  t.equal(made.status, 200)
  const rows = await server.db.selectFrom('environment_classes').select('display_name').execute()
  t.strictSame(rows.map(({ display_name }) => display_name).sort(), [
    'Regular',
    'Regular',
    'abc',
    longest.displayName
  ])
})

t.test('filters', async (t) => {
  const server = await startOnaServer(t)
  const hosted = await hostedOf(server)
  const aws = await createRunner(server, 'RUNNER_PROVIDER_AWS_EC2')
  const mac = await createRunner(server, 'RUNNER_PROVIDER_DESKTOP_MAC')
  await createClass(server, aws, 'of aws')
  await createClass(server, mac, 'of mac')
  const disabled = await createClass(server, hosted, 'disabled')
  await server.call('RunnerConfigurationService/UpdateEnvironmentClass', server.owner.token, {
    environmentClassId: disabled,
    enabled: false
  })
  const names = async (filter: object) => {
    const lists: string[][] = []
    for (const service of SERVICES) {
      const { body } = await server.call(`${service}/ListEnvironmentClasses`, server.member.token, { filter })
      lists.push(
        (body.environmentClasses ?? []).map(({ displayName }: { displayName: string }) => displayName)
      )
    }
    t.strictSame(lists[1], lists[0], 'both services list the same')
    return lists[0]
  }
  t.strictSame(await names({}), ['Regular', 'of aws', 'of mac', 'disabled'])
  t.strictSame(await names({ runnerIds: [aws, mac] }), ['of aws', 'of mac'])
  t.strictSame(await names({ runnerIds: [randomUUID()] }), [])
  t.strictSame(await names({ runnerIds: [], runnerKinds: [], runnerProviders: [] }), await names({}))
  t.strictSame(await names({ runnerKinds: ['RUNNER_KIND_LOCAL'] }), ['of mac'])
  t.strictSame(await names({ runnerProviders: ['RUNNER_PROVIDER_LINUX_HOST'] }), ['Regular', 'disabled'])
  t.strictSame(await names({ enabled: true }), ['Regular', 'of aws', 'of mac'])
  t.strictSame(await names({ enabled: false }), ['disabled'])
  t.strictSame(await names({ enabled: null }), await names({}))
  t.strictSame(await names({ canCreateEnvironments: false }), await names({}))
  t.strictSame(await names({ canCreateEnvironments: true }), ['Regular'], 'the others were never seen')

  const seen = async (ago: string) =>
    await server.db
      .updateTable('runners')
      .set({ last_seen_at: sql<Date>`now() - ${ago}::interval` })
      .where('uid', '=', aws)
      .execute()
  await seen('5 seconds')
  t.strictSame(await names({ can_create_environments: true }), ['Regular', 'of aws'])
  await seen('31 seconds')
  t.strictSame(await names({ canCreateEnvironments: true }), ['Regular'])
  await server.call('RunnerService/UpdateRunner', server.owner.token, {
    runnerId: hosted,
    spec: { desiredPhase: 'RUNNER_PHASE_INACTIVE' }
  })
  t.strictSame(await names({ canCreateEnvironments: true }), [])
  t.strictSame(await names({ canCreateEnvironments: true, enabled: false }), [])
})

t.test('members see classes, owners change them, others know of none', async (t) => {
  const server = await startOnaServer(t)
  const { owner, member, stranger } = server
  const runnerId = await hostedOf(server)
  const id = await createClass(server, runnerId, 'Large')
  const call = async (method: string, token: string | undefined, message: object) =>
    await server.call(`RunnerConfigurationService/${method}`, token, message)
  const creation = { runnerId, displayName: 'More', description: 'of somebody' }
  const change = { environmentClassId: id, displayName: 'Taken' }
  const readOnly = await server.createToken(owner.account, { scopes: SCOPES })
  await server.db
    .updateTable('tokens')
    .set({ read_only: true })
    .where('hash', '=', hashToken(readOnly))
    .execute()
  for (const token of [member.token, readOnly]) {
    t.equal((await call('GetEnvironmentClass', token, { environmentClassId: id })).status, 200)
    t.equal((await call('CreateEnvironmentClass', token, creation)).body.code, 'permission_denied')
    t.equal((await call('UpdateEnvironmentClass', token, change)).body.code, 'permission_denied')
  }
  t.equal((await call('CreateEnvironmentClass', undefined, creation)).status, 401)
  t.equal((await call('CreateEnvironmentClass', stranger.token, creation)).status, 404)
  const { body } = await call('UpdateEnvironmentClass', stranger.token, change)
  t.equal(body.code, 'not_found')
  t.strictSame(
    (await call('UpdateEnvironmentClass', stranger.token, { ...change, environmentClassId: randomUUID() }))
      .body,
    body
  )
  t.equal((await call('GetEnvironmentClass', stranger.token, { environmentClassId: id })).status, 404)
  for (const service of SERVICES) {
    const list = `${service}/ListEnvironmentClasses`
    const { environmentClasses } = (await server.call(list, stranger.token)).body
    t.equal(environmentClasses.length, 1, 'its own')
    t.not(environmentClasses[0].runnerId, runnerId)
    const filter = { runnerIds: [runnerId] }
    t.strictSame((await server.call(list, stranger.token, { filter })).body, { pagination: {} })
  }
  const named = await server.call('ProjectService/CreateProject', stranger.token, {
    name: 'web',
    initializer: { specs: [] },
    environmentClass: { environmentClassId: id }
  })
  t.equal(named.body.code, 'invalid_argument', 'nor may projects of others allow it')
  t.equal(
    (await call('CreateEnvironmentClass', owner.token, { ...creation, runnerId: randomUUID() })).status,
    404
  )
  const { environmentClass } = (await call('GetEnvironmentClass', owner.token, { environmentClassId: id }))
    .body
  t.equal(environmentClass.displayName, 'Large')
})
