// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { furnish, held, RUNNING, told } from '../../environments/world.ts'

// Environments by the API, with a runner that is asked what it would be told: the real one has tests of its own.

t.test('an environment is made from a project, and its runner is told what it shall be', async (t) => {
  const { ask, projectId, classId, runner, acme, owner } = await furnish(t)
  const { claim, report } = runner
  await ask('SecretService/CreateSecret', {
    name: 'DB_URL',
    value: 'postgres://x',
    environmentVariable: true,
    scope: { projectId }
  })
  const { environment } = await ask('EnvironmentService/CreateEnvironmentFromProject', {
    projectId,
    spec: { timeout: { disconnected: '14400s' }, kernelControlsConfig: { veto: { exec: { watch: true } } } }
  })
  t.match(environment, {
    id: /^[0-9a-f-]{36}$/,
    metadata: {
      organizationId: acme.uid,
      name: /^web-/,
      creator: { id: owner.account.uid, principal: 'PRINCIPAL_USER' },
      projectId,
      runnerId: runner.id,
      role: 'ENVIRONMENT_ROLE_DEFAULT',
      sessionId: /^[0-9a-f-]{36}$/,
      originalContextUrl: 'http://coffer.test/acme/web.git'
    },
    spec: {
      specVersion: /^[0-9]+$/,
      desiredPhase: RUNNING,
      machine: { class: classId },
      timeout: { disconnected: '14400s' },
      kernelControlsConfig: { veto: { exec: { watch: true } } },
      secrets: [
        {
          name: 'DB_URL',
          source: 'control-plane',
          environmentVariable: 'DB_URL',
          scope: 'SCOPE_PROJECT',
          session: '1'
        }
      ]
    },
    status: { phase: 'ENVIRONMENT_PHASE_CREATING', machine: { phase: 'PHASE_CREATING' } }
  })
  t.notOk(JSON.stringify(environment).includes('postgres://x'))

  const [assignment] = await claim()
  t.match(assignment, {
    environmentId: environment.id,
    epoch: 1,
    desiredPhase: RUNNING,
    phase: 'ENVIRONMENT_PHASE_CREATING',
    accessToken: /^coffer_env_/,
    content: {
      sources: [{ remoteUri: 'http://coffer.test/acme/web.git', targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD' }]
    },
    secrets: [{ name: 'DB_URL', session: '1', mount: { kind: 'variable', name: 'DB_URL' } }]
  })
  t.same(await claim([held(assignment)]), [], 'what is held is not told again')
  t.match(
    await ask('SecretService/GetSecretValue', { secretId: assignment.secrets[0].id }, assignment.accessToken),
    {
      value: 'postgres://x'
    }
  )

  const secrets = [
    { id: assignment.secrets[0].id, secretName: 'DB_URL', phase: 'CONTENT_PHASE_READY', session: '1' }
  ]
  const content = { phase: 'CONTENT_PHASE_READY', session: 's', location: '/workspace/web' }
  t.equal((await report(assignment, RUNNING, { secrets, secretsInSync: true, content })).status, 200)
  const got = await ask('EnvironmentService/GetEnvironment', { environmentId: environment.id })
  t.match(got.environment.status, {
    phase: RUNNING,
    runnerAck: { specVersion: assignment.specVersion, statusCode: 'STATUS_CODE_OK' },
    secrets,
    content: { phase: 'CONTENT_PHASE_READY', contentLocationInMachine: '/workspace/web' },
    devcontainer: { secretsInSync: true }
  })
  t.notOk('failureMessage' in got.environment.status, 'an empty list would be taken for a failure')
  t.ok(BigInt(got.environment.status.statusVersion) > BigInt(environment.status.statusVersion))
})

t.test('a change of a secret is a new version of the spec; its removal, too', async (t) => {
  const { ask, runner, projectId } = await furnish(t)
  const scope = { projectId }
  const { secret } = await ask('SecretService/CreateSecret', {
    name: 'ONE',
    value: 'a',
    environmentVariable: true,
    scope
  })
  await ask('EnvironmentService/CreateEnvironmentFromProject', { projectId })
  const [first] = await runner.claim()
  await ask('SecretService/UpdateSecretValue', { secretId: secret.id, value: 'b' })
  const second = await told(runner, first, ({ secrets }) => secrets?.[0]?.session === '2')
  t.equal(second.epoch, first.epoch)
  t.ok(BigInt(second.specVersion) > BigInt(first.specVersion))
  await ask('SecretService/CreateSecret', { name: 'TWO', value: 'a', filePath: '/etc/two', scope })
  const third = await told(runner, second, ({ secrets }) => secrets?.length === 2)
  t.match(third.secrets[1].mount, { kind: 'file', path: '/etc/two' })
  await ask('SecretService/DeleteSecret', { secretId: secret.id })
  const fourth = await told(runner, third, ({ secrets }) => secrets?.length === 1)
  t.equal(fourth.secrets[0].name, 'TWO')
})

t.test('stop, start, archive and delete', async (t) => {
  const { ask, call, runner, projectId, owner } = await furnish(t)
  const { claim, report } = runner
  const { environment } = await ask('EnvironmentService/CreateEnvironmentFromProject', {
    projectId,
    name: 'mine'
  })
  const environmentId = environment.id
  const [first] = await claim()
  await report(first, RUNNING)
  await ask('EnvironmentService/StopEnvironment', { environmentId })
  const [stopping] = await claim([held(first)])
  t.equal(stopping.desiredPhase, 'ENVIRONMENT_PHASE_STOPPED')
  t.equal((await report(stopping, 'ENVIRONMENT_PHASE_STOPPED')).status, 200)
  await ask('EnvironmentService/ArchiveEnvironment', { environmentId })
  t.same(
    (await ask('EnvironmentService/ListEnvironments', {})).environments,
    undefined,
    'archived ones are not listed'
  )
  const archived = { filter: { archivalStatus: 'ARCHIVAL_STATUS_ARCHIVED' } }
  t.equal((await ask('EnvironmentService/ListEnvironments', archived)).environments.length, 1)
  t.match(await call('EnvironmentService/StartEnvironment', owner.token, { environmentId }), {
    status: 400,
    body: { code: 'failed_precondition', message: /[Uu]narchive/ }
  })
  await ask('EnvironmentService/UnarchiveEnvironment', { environmentId })
  await ask('EnvironmentService/StartEnvironment', { environmentId })
  const [starting] = await claim([held(stopping)])
  t.equal(starting.desiredPhase, RUNNING)
  await ask('EnvironmentService/DeleteEnvironment', { environmentId })
  t.match(await call('EnvironmentService/StartEnvironment', owner.token, { environmentId }), {
    body: { code: 'failed_precondition' }
  })
  const [deleting] = await claim([held(starting)])
  t.equal(deleting.desiredPhase, 'ENVIRONMENT_PHASE_DELETED')
  t.match(await report(deleting, RUNNING), { status: 200 })
  t.equal((await report(deleting, 'ENVIRONMENT_PHASE_DELETED')).status, 200)
  t.match(await call('EnvironmentService/GetEnvironment', owner.token, { environmentId }), {
    body: { code: 'not_found' }
  })
})

t.test('an older lease neither reports nor reads', async (t) => {
  const { ask, call, projectId, db, runner } = await furnish(t)
  const { claim, report } = runner
  const { secret } = await ask('SecretService/CreateSecret', {
    name: 'ONE',
    value: 'a',
    environmentVariable: true,
    scope: { projectId }
  })
  await ask('EnvironmentService/CreateEnvironmentFromProject', { projectId })
  const [paused] = await claim()
  // Nobody has heard of its holder for as long as a lease holds, and another process of the runner takes over.
  await db
    .updateTable('environments')
    .set({ lease_until: new Date(0) })
    .execute()
  runner.holder = randomUUID()
  const [taken] = await claim()
  t.equal(taken.epoch, paused.epoch + 1)
  t.match(await report(paused, RUNNING), { status: 409, body: { code: 'aborted' } })
  const read = { secretId: secret.id }
  t.match(await call('SecretService/GetSecretValue', paused.accessToken, read), { status: 401 })
  t.match(await call('SecretService/GetSecretValue', taken.accessToken, read), {
    status: 200,
    body: { value: 'a' }
  })
  t.equal((await report(taken, RUNNING)).status, 200)
})

t.test(
  'what is wrong is told by field; a class that the project does not allow has its detail',
  async (t) => {
    const { ask, call, projectId, classId, owner, member, stranger } = await furnish(t)
    const create = (spec: object, token = owner.token) =>
      call('EnvironmentService/CreateEnvironmentFromProject', token, { projectId, spec })
    const wrong: [object, RegExp][] = [
      [{ timeout: { disconnected: '60s' } }, /spec\.timeout\.disconnected/],
      [{ ports: [{ port: 80 }] }, /spec\.ports\[0\]\.port/],
      [{ devcontainer: { devcontainerFilePath: '/absolute' } }, /devcontainerFilePath/],
      [{ secrets: [{ name: 'X', source: 'runner', sourceRef: randomUUID() }] }, /spec\.secrets\[0\]\.source/]
    ]
    for (const [spec, message] of wrong) {
      t.match(await create(spec), { status: 400, body: { code: 'invalid_argument', message } })
    }
    t.match(await create({ secrets: [{ name: 'X', sourceRef: randomUUID() }] }), {
      body: { code: 'not_found' }
    })
    t.match(await create({ machine: { class: randomUUID() } }), {
      status: 400,
      body: {
        code: 'failed_precondition',
        details: [
          {
            type: 'gitpod.v1.CreateEnvironmentFromProjectBadRequestEnvironmentClassDetails',
            debug: { environmentClassIds: [classId] }
          }
        ]
      }
    })
    t.match(
      await create({}, member.token),
      { status: 404, body: { code: 'not_found' } },
      'no role on the project'
    )
    t.match(await create({}, stranger.token), { status: 404 })
    const { environment } = await ask('EnvironmentService/CreateEnvironmentFromProject', { projectId })
    const target = { environmentId: environment.id }
    for (const method of [
      'GetEnvironment',
      'StopEnvironment',
      'DeleteEnvironment',
      'CreateEnvironmentAccessToken'
    ]) {
      t.match(await call(`EnvironmentService/${method}`, member.token, target), {
        body: { code: 'not_found' }
      })
      t.match(await call(`EnvironmentService/${method}`, stranger.token, target), {
        body: { code: 'not_found' }
      })
    }
  }
)

t.test('a project from an environment, and who uses a project', async (t) => {
  const { ask, projectId, classId, owner } = await furnish(t)
  const { environment } = await ask('EnvironmentService/CreateEnvironmentFromProject', {
    projectId,
    spec: { devcontainer: { devcontainerFilePath: 'dev.json' } }
  })
  const { project } = await ask('ProjectService/CreateProjectFromEnvironment', {
    environmentId: environment.id,
    name: 'again'
  })
  t.match(project, {
    metadata: { name: 'again' },
    initializer: environment.spec.content.initializer,
    devcontainerFilePath: 'dev.json',
    environmentClass: { environmentClassId: classId }
  })
  t.notOk('usedBy' in project)
  await ask('EnvironmentService/CreateEnvironmentFromProject', { projectId })
  t.same((await ask('ProjectService/GetProject', { projectId })).project.usedBy, {
    subjects: [{ id: owner.account.uid, principal: 'PRINCIPAL_USER' }],
    totalSubjects: 1
  })
})
