import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { SCOPES } from '../../../src/auth/scopes.ts'
import { hashToken } from '../../../src/auth/token.ts'
import { VERSION } from '../../../src/version.ts'
import { type OnaServer, sdk, startOnaServer } from './helper.ts'

const LINUX = { name: 'Linux', provider: 'RUNNER_PROVIDER_LINUX_HOST' }

async function create(server: OnaServer, message: object = LINUX) {
  const { status, body } = await server.call('RunnerService/CreateRunner', server.owner.token, message)
  if (status !== 200) throw new Error(JSON.stringify(body))
  return body as { runner: { runnerId: string }; exchangeToken: string }
}

async function get(server: OnaServer, runnerId: string) {
  const { body } = await server.call('RunnerService/GetRunner', server.member.token, { runnerId })
  return body.runner
}

async function hostedOf(server: OnaServer) {
  const { body } = await server.call('RunnerService/ListRunners', server.member.token)
  return body.runners[0]
}

async function audit(server: OnaServer, subjectUid: string) {
  return await server.db
    .selectFrom('audit_events')
    .select(['stream_uid', 'action', 'name', 'actor_uid'])
    .where('subject_uid', '=', subjectUid)
    .orderBy('id')
    .execute()
}

t.test('a runner, by the official client', async (t) => {
  const server = await startOnaServer(t)
  const client = sdk(await server.listen(), server.owner.token)
  const created = await client.runners.create({
    name: 'Production',
    provider: 'RUNNER_PROVIDER_AWS_EC2',
    spec: {
      desiredPhase: 'RUNNER_PHASE_ACTIVE',
      configuration: {
        region: 'us-west',
        releaseChannel: 'RUNNER_RELEASE_CHANNEL_STABLE',
        autoUpdate: true,
        metrics: { enabled: true, url: 'https://metrics.example/push', username: 'coffer' }
      }
    }
  })
  t.match(created.exchangeToken, /^coffer_rex_[0-9A-Za-z]{49}$/)
  t.notOk('accessToken' in created)
  const runnerId = created.runner.runnerId!
  t.match(created.runner, {
    name: 'Production',
    kind: 'RUNNER_KIND_REMOTE',
    provider: 'RUNNER_PROVIDER_AWS_EC2',
    creator: { id: server.owner.account.uid, principal: 'PRINCIPAL_USER' },
    createdAt: /Z$/,
    updatedAt: /Z$/
  })
  t.strictSame(created.runner.spec, {
    desiredPhase: 'RUNNER_PHASE_ACTIVE',
    configuration: {
      region: 'us-west',
      releaseChannel: 'RUNNER_RELEASE_CHANNEL_STABLE',
      autoUpdate: true,
      metrics: { enabled: true, url: 'https://metrics.example/push', username: 'coffer' }
    }
  })
  t.strictSame(created.runner.status, { phase: 'RUNNER_PHASE_CREATED' }, 'nothing is made up')
  t.strictSame((await client.runners.retrieve({ runnerId })).runner, created.runner)

  t.strictSame(
    await client.runners.update({
      runnerId,
      name: 'Staging',
      spec: { configuration: { autoUpdate: false, metrics: { username: '' }, logLevel: 'LOG_LEVEL_WARN' } }
    }),
    {}
  )
  const { runner } = await client.runners.retrieve({ runnerId })
  t.equal(runner.name, 'Staging')
  t.strictSame(runner.spec, {
    desiredPhase: 'RUNNER_PHASE_ACTIVE',
    configuration: {
      region: 'us-west',
      releaseChannel: 'RUNNER_RELEASE_CHANNEL_STABLE',
      logLevel: 'LOG_LEVEL_WARN',
      metrics: { enabled: true, url: 'https://metrics.example/push' }
    }
  })
  t.not(runner.updatedAt, created.runner.updatedAt)

  const names: string[] = []
  for await (const { name } of client.runners.list({ pagination: { pageSize: 1 } })) names.push(name!)
  t.strictSame(names, ['Coffer', 'Staging'])

  const { exchangeToken, accessToken } = await client.runners.createRunnerToken({ runnerId })
  t.match(exchangeToken, /^coffer_rex_/)
  t.not(exchangeToken, created.exchangeToken)
  t.equal(accessToken, undefined)
  const stored = await server.db.selectFrom('runner_exchange_tokens').selectAll().execute()
  t.strictSame(
    stored.map(({ hash }) => hash.toString('hex')).sort(),
    [created.exchangeToken!, exchangeToken!].map((token) => hashToken(token).toString('hex')).sort()
  )
  t.ok(stored.every(({ issued_by_uid }) => issued_by_uid === server.owner.account.uid))

  t.strictSame(await client.runners.delete({ runnerId, force: true }), {})
  await t.rejects(client.runners.retrieve({ runnerId }), { status: 404, code: 'not_found' })
  const uid = server.owner.account.uid
  const record = { stream_uid: server.acme.uid, actor_uid: uid }
  t.strictSame(await audit(server, runnerId), [
    { ...record, action: 'runner.create', name: 'Production' },
    { ...record, action: 'runner.token.create', name: 'Production' },
    { ...record, action: 'runner.update', name: 'Staging' },
    { ...record, action: 'runner.token.create', name: 'Staging' },
    { ...record, action: 'runner.remove', name: 'Staging' }
  ])
})

t.test('every organization has the servers as a runner', async (t) => {
  const server = await startOnaServer(t)
  const runner = await hostedOf(server)
  t.match(runner, {
    name: 'Coffer',
    kind: 'RUNNER_KIND_REMOTE',
    provider: 'RUNNER_PROVIDER_LINUX_HOST',
    spec: { desiredPhase: 'RUNNER_PHASE_ACTIVE' }
  })
  t.strictSame(runner.status, { version: VERSION, phase: 'RUNNER_PHASE_ACTIVE' })
  const { runnerId } = runner
  const { token } = server.owner
  for (const force of [false, true]) {
    const { status, body, headers } = await server.call('RunnerService/DeleteRunner', token, {
      runnerId,
      force
    })
    t.equal(status, 400)
    t.match(body, { code: 'failed_precondition', message: /cannot be deleted/ })
    t.equal(headers['x-should-retry'], 'false')
  }
  const made = await server.call('RunnerService/CreateRunnerToken', token, { runnerId })
  t.match(made.body, { code: 'failed_precondition', message: /needs no token/ })
  t.strictSame(await server.db.selectFrom('runner_exchange_tokens').select('hash').execute(), [])

  const spec = { desiredPhase: 'RUNNER_PHASE_INACTIVE' }
  t.equal((await server.call('RunnerService/UpdateRunner', token, { runnerId, spec })).status, 200)
  t.equal((await get(server, runnerId)).status.phase, 'RUNNER_PHASE_INACTIVE')
})

t.test('the kind follows from the provider', async (t) => {
  const server = await startOnaServer(t)
  const { token } = server.owner
  for (const [message, kind, provider] of [
    [{ provider: 'RUNNER_PROVIDER_AWS_EC2' }, 'RUNNER_KIND_REMOTE', 'RUNNER_PROVIDER_AWS_EC2'],
    [{ provider: 5 }, 'RUNNER_KIND_REMOTE', 'RUNNER_PROVIDER_GCP'],
    [{ provider: 'RUNNER_PROVIDER_LINUX_HOST' }, 'RUNNER_KIND_REMOTE', 'RUNNER_PROVIDER_LINUX_HOST'],
    [{ provider: 'RUNNER_PROVIDER_DESKTOP_MAC' }, 'RUNNER_KIND_LOCAL', 'RUNNER_PROVIDER_DESKTOP_MAC'],
    [{ provider: 2, kind: 2 }, 'RUNNER_KIND_REMOTE', 'RUNNER_PROVIDER_LINUX_HOST'],
    [{ kind: 'RUNNER_KIND_LOCAL' }, 'RUNNER_KIND_LOCAL', undefined]
  ] as const) {
    const { runner } = await create(server, { name: 'R', ...message })
    t.match(runner, { kind })
    t.equal((runner as { provider?: string }).provider, provider)
  }
  const before = (await server.db.selectFrom('runners').select('id').execute()).length
  for (const [message, field] of [
    [{}, 'provider'],
    [{ kind: 'RUNNER_KIND_UNSPECIFIED' }, 'provider'],
    [{ kind: 'RUNNER_KIND_LOCAL_CONFIGURATION' }, 'kind'],
    [{ kind: 3 }, 'kind'],
    [{ provider: 'RUNNER_PROVIDER_MANAGED' }, 'provider'],
    [{ provider: 6 }, 'provider'],
    [{ provider: 'RUNNER_PROVIDER_LINUX_HOST', kind: 'RUNNER_KIND_LOCAL' }, 'kind'],
    [{ provider: 2, spec: { desiredPhase: 'RUNNER_PHASE_DELETED' } }, 'spec.desiredPhase'],
    [{ provider: 2, name: '' }, 'name'],
    [{ provider: 2, name: 'x'.repeat(81) }, 'name']
  ] as const) {
    const { status, body } = await server.call('RunnerService/CreateRunner', token, { name: 'R', ...message })
    t.equal(status, 400, JSON.stringify(message))
    t.match(body, {
      code: 'invalid_argument',
      details: [{ debug: { fieldViolations: [{ field }] } }]
    })
  }
  t.equal((await server.call('RunnerService/CreateRunner', token, { provider: 2 })).status, 400)
  t.equal((await server.db.selectFrom('runners').select('id').execute()).length, before)
  const { runner } = await create(server, { ...LINUX, name: '\u{1f600}'.repeat(80) })
  for (const name of ['', 'x'.repeat(81)]) {
    const message = { runnerId: runner.runnerId, name }
    t.equal((await server.call('RunnerService/UpdateRunner', token, message)).status, 400)
  }
})

t.test('no credential of a runner is kept', async (t) => {
  const server = await startOnaServer(t)
  const { token } = server.owner
  const password = 'hunter2-hunter2'
  const field = 'spec.configuration.metrics'
  const withMetrics = (metrics: object) => ({ spec: { configuration: { metrics } } })
  const { runner } = await create(server, { ...LINUX, ...withMetrics({ enabled: true, password: '' }) })
  for (const [metrics, member] of [
    [{ password }, 'password'],
    [{ url: `https://coffer:${password}@metrics.example/` }, 'url']
  ] as const) {
    for (const [name, message] of [
      ['CreateRunner', LINUX],
      ['UpdateRunner', { runnerId: runner.runnerId }]
    ] as const) {
      const { status, body } = await server.call(`RunnerService/${name}`, token, {
        ...message,
        ...withMetrics(metrics)
      })
      t.equal(status, 400)
      t.match(body, { details: [{ debug: { fieldViolations: [{ field: `${field}.${member}` }] } }] })
      t.notMatch(JSON.stringify(body), password)
    }
  }
  await server.call('RunnerService/UpdateRunner', token, {
    runnerId: runner.runnerId,
    ...withMetrics({ password: null, username: 'coffer' })
  })
  t.strictSame((await get(server, runner.runnerId)).spec.configuration, {
    metrics: { enabled: true, username: 'coffer' }
  })
  const rows = await server.db.selectFrom('runners').select('configuration').execute()
  t.notMatch(JSON.stringify(rows), /password/)
  t.notMatch(server.log.join(''), password)
})

t.test('a runner is active while it is seen', async (t) => {
  const server = await startOnaServer(t)
  const { runnerId } = (await create(server)).runner
  const phaseWhenSeen = async (ago: string | null) => {
    const seen = ago === null ? null : sql<Date>`now() - ${ago}::interval`
    await server.db.updateTable('runners').set({ last_seen_at: seen }).where('uid', '=', runnerId).execute()
    const { status } = await get(server, runnerId)
    t.equal('updatedAt' in status, ago !== null)
    t.notOk('version' in status)
    return status.phase
  }
  t.equal(await phaseWhenSeen(null), 'RUNNER_PHASE_CREATED')
  t.equal(await phaseWhenSeen('20 seconds'), 'RUNNER_PHASE_ACTIVE')
  t.equal(await phaseWhenSeen('31 seconds'), 'RUNNER_PHASE_INACTIVE')
  await server.call('RunnerService/UpdateRunner', server.owner.token, {
    runnerId,
    spec: { desiredPhase: 'RUNNER_PHASE_INACTIVE' }
  })
  t.equal(await phaseWhenSeen('1 second'), 'RUNNER_PHASE_INACTIVE', 'what is switched off is not active')
})

t.test('filters and pages', async (t) => {
  const server = await startOnaServer(t)
  const second = await server.createUser('otto')
  await server.addMember(server.acme, second, 'admin')
  const token = await server.createToken(second, { scopes: SCOPES })
  await create(server, { name: 'aws', provider: 'RUNNER_PROVIDER_AWS_EC2' })
  await create(server, { name: 'mac', provider: 'RUNNER_PROVIDER_DESKTOP_MAC' })
  await server.call('RunnerService/CreateRunner', token, { ...LINUX, name: 'of otto' })
  const list = async (filter: object, pagination?: object) => {
    const { body } = await server.call('RunnerService/ListRunners', server.member.token, {
      filter,
      pagination
    })
    return body
  }
  const names = async (filter: object) =>
    ((await list(filter)).runners ?? []).map(({ name }: { name: string }) => name)
  t.strictSame(await names({}), ['Coffer', 'aws', 'mac', 'of otto'])
  t.strictSame(await names({ creatorIds: [second.uid] }), ['of otto'])
  t.strictSame(await names({ kinds: ['RUNNER_KIND_LOCAL'] }), ['mac'])
  t.strictSame(await names({ kinds: [1, 2], providers: [1, 3] }), ['aws', 'mac'])
  t.strictSame(await names({ providers: ['RUNNER_PROVIDER_MANAGED'] }), [])
  t.strictSame(await names({ kinds: [], providers: [], creatorIds: [] }), await names({}))
  t.equal((await list({ kinds: ['RUNNER_KIND_UNSPECIFIED'] })).code, 'invalid_argument')
  t.equal((await list({ creatorIds: ['x'] })).code, 'invalid_argument')
  const first = await list({}, { pageSize: 3 })
  t.equal(first.runners.length, 3)
  const last = await list({}, { pageSize: 3, token: first.pagination.nextToken })
  t.strictSame(
    last.runners.map(({ name }: { name: string }) => name),
    ['of otto']
  )
  t.strictSame(last.pagination, {})
})

t.test('members see runners, owners change them, others know of none', async (t) => {
  const server = await startOnaServer(t)
  const { owner, member, stranger, call } = server
  const { runnerId } = (await create(server)).runner
  const changes = [
    ['UpdateRunner', { runnerId, name: 'Taken' }],
    ['CreateRunnerToken', { runnerId }],
    ['DeleteRunner', { runnerId }]
  ] as const
  const count = async () =>
    (await server.db.selectFrom('runner_exchange_tokens').select('hash').execute()).length
  const tokens = await count()

  t.equal((await call('RunnerService/GetRunner', member.token, { runnerId })).status, 200)
  const readOnly = await server.createToken(owner.account, { scopes: SCOPES })
  await server.db
    .updateTable('tokens')
    .set({ read_only: true })
    .where('hash', '=', hashToken(readOnly))
    .execute()
  const reader = await server.createToken(owner.account, { scopes: ['read:org'] })
  const nothing = await server.createToken(owner.account, { scopes: [] })
  t.equal((await call('RunnerService/ListRunners', readOnly)).status, 200)
  t.equal((await call('RunnerService/ListRunners', reader)).status, 200)
  t.equal((await call('RunnerService/ListRunners', nothing)).status, 403)
  for (const [name, message] of [...changes, ['CreateRunner', LINUX] as const]) {
    for (const token of [member.token, readOnly, reader, nothing]) {
      const { status, body } = await call(`RunnerService/${name}`, token, message)
      t.equal(status, 403, name)
      t.equal(body.code, 'permission_denied')
    }
    t.equal((await call(`RunnerService/${name}`, undefined, message)).status, 401)
  }
  for (const [name, message] of [...changes, ['GetRunner', { runnerId }] as const]) {
    const { status, body } = await call(`RunnerService/${name}`, stranger.token, message)
    t.equal(status, 404, name)
    const unknown = { ...message, runnerId: randomUUID() }
    t.strictSame(
      (await call(`RunnerService/${name}`, stranger.token, unknown)).body,
      body,
      'as if it were not'
    )
    t.equal((await call(`RunnerService/${name}`, owner.token, { ...message, runnerId: 'x' })).status, 400)
  }
  const seen = (await call('RunnerService/ListRunners', stranger.token)).body.runners
  t.equal(seen.length, 1)
  t.not(seen[0].runnerId, (await hostedOf(server)).runnerId)
  t.equal((await get(server, runnerId)).name, 'Linux')
  t.equal(await count(), tokens)
})

t.test('deleting a runner takes its classes, from projects too, and its tokens', async (t) => {
  const server = await startOnaServer(t)
  const { owner, call } = server
  const { runner, exchangeToken } = await create(server)
  const { runnerId } = runner
  const unused = (await call('RunnerService/CreateRunnerToken', owner.token, { runnerId })).body.exchangeToken
  const { accessToken } = (await call('IdentityService/ExchangeToken', undefined, { exchangeToken })).body
  t.equal((await call('RunnerService/ListRunners', accessToken)).status, 403, 'known, and without a right')
  const classes = []
  for (const displayName of ['Large', 'Larger']) {
    const message = { runnerId, displayName, description: 'of that runner' }
    const { body } = await call('RunnerConfigurationService/CreateEnvironmentClass', owner.token, message)
    classes.push(body.id)
  }
  const { body: made } = await call('ProjectService/CreateProject', owner.token, {
    name: 'web',
    initializer: { specs: [] }
  })
  const projectId = made.project.id
  const [{ environmentClassId: regular }] = made.project.environmentClasses
  await call('ProjectService/UpdateProjectEnvironmentClasses', owner.token, {
    projectId,
    projectEnvironmentClasses: [...classes, regular].map((environmentClassId) => ({ environmentClassId }))
  })

  t.strictSame((await call('RunnerService/DeleteRunner', owner.token, { runnerId })).body, {})
  t.equal((await call('RunnerService/ListRunners', accessToken)).status, 401, 'at once')
  const exchange = await call('IdentityService/ExchangeToken', undefined, { exchangeToken: unused })
  t.equal(exchange.body.code, 'unauthenticated')
  const { project } = (await call('ProjectService/GetProject', owner.token, { projectId })).body
  t.strictSame(project.environmentClasses, [{ environmentClassId: regular }])
  for (const environmentClassId of classes) {
    const { body } = await call('RunnerConfigurationService/GetEnvironmentClass', owner.token, {
      environmentClassId
    })
    t.equal(body.code, 'not_found')
    t.match(await audit(server, environmentClassId), [
      { action: 'environment_class.create' },
      { action: 'environment_class.remove' }
    ])
  }
  t.equal((await call('RunnerService/DeleteRunner', owner.token, { runnerId })).status, 404, 'once')
  t.equal((await call('RunnerService/UpdateRunner', owner.token, { runnerId })).status, 404)
  t.equal((await call('RunnerService/CreateRunnerToken', owner.token, { runnerId })).status, 404)
  t.equal((await audit(server, runnerId)).filter(({ action }) => action === 'runner.remove').length, 1)
})

t.test('deleted by many while projects and classes change: once, and nothing is left over', async (t) => {
  const server = await startOnaServer(t)
  const { owner, call } = server
  const { body: made } = await call('ProjectService/CreateProject', owner.token, {
    name: 'web',
    initializer: { specs: [] }
  })
  const projectId = made.project.id
  for (let round = 0; round < 5; round++) {
    const { runner, exchangeToken } = await create(server)
    const { runnerId } = runner
    const message = { runnerId, displayName: 'Large', description: 'of that runner' }
    const { body } = await call('RunnerConfigurationService/CreateEnvironmentClass', owner.token, message)
    const projectEnvironmentClasses = [{ environmentClassId: body.id }]
    const allow = { projectId, projectEnvironmentClasses }
    const deletions = [1, 2, 3].map(() => call('RunnerService/DeleteRunner', owner.token, { runnerId }))
    const others = [
      ...[1, 2, 3].map(() => call('ProjectService/UpdateProjectEnvironmentClasses', owner.token, allow)),
      call('RunnerConfigurationService/CreateEnvironmentClass', owner.token, message),
      call('RunnerService/CreateRunnerToken', owner.token, { runnerId }),
      call('RunnerService/UpdateRunner', owner.token, { runnerId, name: 'Other' }),
      call('IdentityService/ExchangeToken', undefined, { exchangeToken })
    ]
    const statuses = (await Promise.all(deletions)).map(({ status }) => status).sort()
    t.strictSame(statuses, [200, 404, 404])
    for (const { status, body } of await Promise.all(others)) {
      t.ok(status < 500, JSON.stringify(body))
    }
  }
  const rows = await Promise.all([
    server.db.selectFrom('runners').select('id').where('hosted', '=', false).execute(),
    server.db.selectFrom('runner_exchange_tokens').select('runner_id as id').execute(),
    server.db.selectFrom('tokens').select('id').where('runner_id', 'is not', null).execute(),
    server.db
      .selectFrom('environment_classes as c')
      .innerJoin('runners as r', 'r.id', 'c.runner_id')
      .select('c.id')
      .where('r.hosted', '=', false)
      .execute(),
    server.db
      .selectFrom('project_environment_classes')
      .select('project_id as id')
      .where('environment_class_id', 'is', null)
      .execute()
  ])
  t.strictSame(rows, [[], [], [], [], []])
})
