import t from 'tap'
import { stopIdle } from '../../src/environments/idle.ts'
import { furnish, RUNNING, type World } from './world.ts'

// Environments in which nobody is at work.

const STOPPED = 'ENVIRONMENT_PHASE_STOPPED'
const DAY = 24 * 3600
/** The longest that protobuf's Duration holds: ten thousand years. */
const LONGEST = '315576000000s'

async function wasUsed({ db }: World, environmentId: string, secondsAgo: number): Promise<void> {
  await db
    .updateTable('environments')
    .set({ last_active_at: new Date(Date.now() - secondsAgo * 1000) })
    .where('uid', '=', environmentId)
    .execute()
}

async function desired({ ask }: World, environmentId: string): Promise<string> {
  return (await ask('EnvironmentService/GetEnvironment', { environmentId })).environment.spec.desiredPhase
}

async function running(world: World, disconnected: string): Promise<string> {
  const assignment = await world.start(world.owner.token, { spec: { timeout: { disconnected } } })
  await world.runner.report(assignment, RUNNING)
  return assignment.environmentId
}

t.test('what was not used for as long as its timeout is stopped, and that is recorded', async (t) => {
  const world = await furnish(t)
  const cases: [timeout: string, unusedSeconds: number, expected: string][] = [
    ['1800s', 1700, RUNNING],
    ['1800s', 1900, STOPPED],
    ['1800.500s', 1900, STOPPED],
    ['14400s', 1900, RUNNING],
    ['14400s', 15_000, STOPPED],
    ['0s', 400 * DAY, RUNNING],
    [LONGEST, 400 * DAY, RUNNING]
  ]
  const made: [string, string, string][] = []
  for (const [timeout, unusedSeconds, expected] of cases) {
    const id = await running(world, timeout)
    await wasUsed(world, id, unusedSeconds)
    made.push([id, expected, `${timeout}, unused for ${unusedSeconds} s`])
  }
  await stopIdle(world.db)
  for (const [id, expected, name] of made) t.equal(await desired(world, id), expected, name)
  const records = await world.db
    .selectFrom('audit_events')
    .select(['actor_kind', 'subject_uid'])
    .where('action', '=', 'development_environment.timeout')
    .execute()
  const stopped = made.filter(([, expected]) => expected === STOPPED).map(([id]) => id)
  t.strictSame(records.map(({ subject_uid }) => subject_uid).sort(), stopped.sort())
  t.ok(records.every(({ actor_kind }) => actor_kind === 'system'))
})

t.test('being at work keeps it, and so does whoever starts it again', async (t) => {
  const world = await furnish(t)
  const { ask, runner } = world
  const environmentId = await running(world, '1800s')
  await wasUsed(world, environmentId, DAY)
  await ask('EnvironmentService/MarkEnvironmentActive', {
    environmentId,
    activitySignal: { source: 'vscode' }
  })
  await stopIdle(world.db)
  t.equal(await desired(world, environmentId), RUNNING)
  await wasUsed(world, environmentId, DAY)
  await stopIdle(world.db)
  t.equal(await desired(world, environmentId), STOPPED)
  await ask('EnvironmentService/StartEnvironment', { environmentId })
  const [assignment] = await runner.claim()
  await runner.report(assignment, RUNNING)
  await stopIdle(world.db)
  t.equal(await desired(world, environmentId), RUNNING)
})

t.test('what is only being made is not idle, and another timeout counts at once', async (t) => {
  const world = await furnish(t)
  const { ask, runner } = world
  const assignment = await world.start(world.owner.token, { spec: { timeout: { disconnected: '14400s' } } })
  const { environmentId } = assignment
  await wasUsed(world, environmentId, DAY)
  await stopIdle(world.db)
  t.equal(await desired(world, environmentId), RUNNING)
  await runner.report(assignment, RUNNING)
  const spec = { timeout: { disconnected: '0s' } }
  await ask('EnvironmentService/UpdateEnvironment', { environmentId, spec })
  await stopIdle(world.db)
  t.equal(await desired(world, environmentId), RUNNING)
  spec.timeout.disconnected = '1800s'
  await ask('EnvironmentService/UpdateEnvironment', { environmentId, spec })
  await stopIdle(world.db)
  t.equal(await desired(world, environmentId), STOPPED)
})

t.test('more than are looked at by one query, by two servers at once', async (t) => {
  const world = await furnish(t)
  const environmentId = await running(world, '1800s')
  const {
    id: _id,
    uid: _uid,
    timeout_seconds: _timeout,
    ...row
  } = await world.db.selectFrom('environments').selectAll().executeTakeFirstOrThrow()
  const json = (value: object | null) => (value === null ? null : JSON.stringify(value))
  const copy = {
    ...row,
    annotations: JSON.stringify(row.annotations),
    spec: JSON.stringify(row.spec),
    resolution: '[]',
    status: JSON.stringify(row.status),
    activity: json(row.activity),
    chosen_secrets: null,
    last_active_at: new Date(0)
  }
  await world.db
    .insertInto('environments')
    .values(Array.from({ length: 150 }, () => copy))
    .execute()
  await Promise.all([stopIdle(world.db), stopIdle(world.db)])
  const { records } = await world.db
    .selectFrom('audit_events')
    .select((eb) => eb.fn.countAll<number>().as('records'))
    .where('action', '=', 'development_environment.timeout')
    .executeTakeFirstOrThrow()
  t.equal(records, 150)
  t.equal(await desired(world, environmentId), RUNNING)
})
