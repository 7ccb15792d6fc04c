import t from 'tap'
import { furnish, names, RUNNING, told, type World } from './world.ts'

// What becomes of environments when what they hang on is removed.

async function removed({ db }: World): Promise<(string | null)[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select('subject_uid')
    .where('action', '=', 'development_environment.remove')
    .execute()
  return rows.map(({ subject_uid }) => subject_uid).sort()
}

t.test('an organization goes with its environments and their tokens, and each is recorded', async (t) => {
  const world = await furnish(t)
  const { ask, acme, runner, read, db } = world
  const secretId = await world.addSecret('ONE', 'x')
  const assignment = await world.start()
  const { id: waiting } = await world.create()
  await ask('OrganizationService/DeleteOrganization', { organizationId: acme.uid })
  t.strictSame(await removed(world), [assignment.environmentId, waiting].sort())
  t.equal((await read(assignment.accessToken, secretId)).status, 401)
  t.equal((await runner.report(assignment, RUNNING)).status, 401)
  t.same(await db.selectFrom('environments').select('id').execute(), [])
  t.same(await db.selectFrom('environment_secrets').select('secret_id').execute(), [])
})

t.test('a runner goes with its environments only when that is asked for', async (t) => {
  const world = await furnish(t)
  const { ask, call, owner, runner } = world
  const assignment = await world.start()
  const target = { runnerId: runner.id }
  t.match(await call('RunnerService/DeleteRunner', owner.token, target), {
    status: 400,
    body: { code: 'failed_precondition' }
  })
  t.equal((await runner.report(assignment, RUNNING)).status, 200, 'and nothing has changed')
  await ask('RunnerService/DeleteRunner', { ...target, force: true })
  t.strictSame(await removed(world), [assignment.environmentId])
})

t.test('environments that are made while their runner is removed are removed, or not made', async (t) => {
  const world = await furnish(t)
  const { call, owner, runner, projectId } = world
  const create = () => call('EnvironmentService/CreateEnvironmentFromProject', owner.token, { projectId })
  const [first, removal, ...rest] = await Promise.all([
    create(),
    call('RunnerService/DeleteRunner', owner.token, { runnerId: runner.id, force: true }),
    create(),
    create(),
    create()
  ])
  t.equal(removal.status, 200)
  for (const { status } of [first, ...rest])
    t.ok(status === 200 || status === 400 || status === 404, `${status}`)
  t.same(await world.db.selectFrom('environments').select('id').execute(), [])
})

t.test('an organization is removed while its environments are worked on', async (t) => {
  const world = await furnish(t)
  const { call, owner, acme, runner } = world
  const secretId = await world.addSecret('ONE', 'x')
  const assignments = [await world.start(), await world.start(), await world.start()]
  const [removal, ...others] = await Promise.all([
    call('OrganizationService/DeleteOrganization', owner.token, { organizationId: acme.uid }),
    ...assignments.map((assignment) => runner.report(assignment, RUNNING)),
    call('SecretService/UpdateSecretValue', owner.token, { secretId, value: 'y' }),
    ...assignments.map(({ accessToken }) => world.read(accessToken, secretId)),
    ...assignments.map(({ environmentId }) =>
      call('EnvironmentService/CreateEnvironmentAccessToken', owner.token, { environmentId })
    ),
    runner.call('ClaimEnvironments', { holder: runner.holder, held: [], capacity: 5 })
  ])
  t.equal(removal!.status, 200)
  for (const { status } of others) t.ok(status < 500, `${status}`)
  t.same(await world.db.selectFrom('environments').select('id').execute(), [])
})

t.test('a project that is removed leaves its environments, without its secrets', async (t) => {
  const world = await furnish(t)
  const { ask, projectId, runner, acme } = world
  await world.addSecret('OF_PROJECT', 'x')
  await world.addSecret('OF_ORGANIZATION', 'x', { scope: { organizationId: acme.uid } })
  const assignment = await world.start()
  await ask('ProjectService/DeleteProject', { projectId })
  const next = await told(runner, assignment)
  t.strictSame(names(next), ['OF_ORGANIZATION'])
  const { environmentId } = assignment
  const { environment } = await ask('EnvironmentService/GetEnvironment', { environmentId })
  t.notOk(environment.metadata.projectId)
  t.equal((await runner.report(next, RUNNING)).status, 200)
})

t.test('a project is removed while its secrets change and its environments are resolved', async (t) => {
  const world = await furnish(t)
  const { call, owner, projectId, runner } = world
  const ids: string[] = []
  for (let index = 0; index < 5; index++) ids.push(await world.addSecret(`SECRET_${index}`, 'x'))
  const assignments = [await world.start(), await world.start(), await world.start()]
  const answers = await Promise.all([
    ...ids.map((secretId) => call('SecretService/UpdateSecretValue', owner.token, { secretId, value: 'y' })),
    call('SecretService/DeleteSecret', owner.token, { secretId: ids[0] }),
    call('ProjectService/DeleteProject', owner.token, { projectId }),
    ...assignments.map(({ environmentId }) =>
      call('EnvironmentService/StartEnvironment', owner.token, { environmentId })
    )
  ])
  for (const { status, body } of answers) t.ok(status < 500, JSON.stringify(body))
  for (const assignment of assignments) {
    await told(runner, assignment, (next) => names(next).length === 0)
  }
})
