// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { furnish, held, RUNNING, type RunnerHere, told, type World } from './world.ts'

// Who works on which environment.

/** As if nobody had heard of the holders for as long as leases hold. */
async function runOut({ db }: World): Promise<void> {
  await db
    .updateTable('environments')
    .set({ lease_until: new Date(0) })
    .execute()
}

function ids(assignments: readonly any[]): string[] {
  return assignments.map(({ environmentId }) => environmentId).sort()
}

/** Another process of the same runner. */
function processOf(runner: RunnerHere): RunnerHere {
  const other = { ...runner, holder: randomUUID() }
  const claim = async (held: readonly object[] = [], capacity = 10) => {
    const { body } = await runner.call('ClaimEnvironments', { holder: other.holder, held, capacity })
    return body.assignments ?? []
  }
  return Object.assign(other, { claim })
}

function renew(runner: RunnerHere, assignments: readonly any[]) {
  const leases = assignments.map(({ environmentId, epoch }) => ({ environmentId, epoch }))
  return runner.call('RenewLeases', { holder: runner.holder, leases })
}

t.test('two that claim at once never have the same environment', async (t) => {
  const world = await furnish(t)
  const made = []
  for (let index = 0; index < 12; index++) made.push((await world.create()).id)
  const processes = Array.from({ length: 4 }, () => processOf(world.runner))
  const taken = await Promise.all(processes.map((one) => one.claim([], 3)))
  const rest = await world.runner.claim([], 20)
  const all = ids([...taken.flat(), ...rest])
  t.strictSame(all, [...made].sort(), 'each is had once')
  t.ok(taken.every((assignments) => assignments.length <= 3))
})

t.test('so many as there is capacity for, the oldest first', async (t) => {
  const { create, runner } = await furnish(t)
  const made = [(await create()).id, (await create()).id, (await create()).id]
  t.same(await runner.claim([], 0), [])
  const first = await runner.claim([], 1)
  t.strictSame(ids(first), [made[0]])
  const more = await runner.claim(first.map(held), 1)
  t.strictSame(ids(more), [made[1]])
  t.same(await runner.claim([...first, ...more].map(held), 0), [])
})

t.test('a lease that ran out moves on, and its older holder learns of it', async (t) => {
  const world = await furnish(t)
  const { runner } = world
  const before = await world.start()
  const other = processOf(runner)
  t.same(await other.claim(), [], 'not before')
  await runOut(world)
  const [after] = await other.claim()
  t.equal(after.environmentId, before.environmentId)
  t.equal(after.epoch, before.epoch + 1)
  t.same((await renew(runner, [before])).body, { lostEnvironmentIds: [before.environmentId] })
  t.match(await runner.report(before, RUNNING), { status: 409, body: { code: 'aborted' } })
  t.same((await renew(other, [after])).body, {})
  t.same(await runner.claim(), [], 'and gets nothing')
})

t.test('a lease that ran out and that nobody took goes on', async (t) => {
  const world = await furnish(t)
  const { runner } = world
  const before = await world.start()
  await runOut(world)
  t.same((await renew(runner, [before])).body, {})
  t.same(await processOf(runner).claim(), [])
  t.equal((await runner.report(before, RUNNING)).status, 200)
})

t.test('what is not named in `held`, or in an older version, comes again', async (t) => {
  const { create, runner, ask } = await furnish(t)
  const { id: environmentId } = await create()
  const [first] = await runner.claim()
  t.same(await runner.claim([held(first)]), [])
  const [again] = await runner.claim([])
  t.match(again, { environmentId, epoch: first.epoch, specVersion: first.specVersion })
  await ask('EnvironmentService/StopEnvironment', { environmentId })
  const [newer] = await runner.claim([held(first)])
  t.ok(BigInt(newer.specVersion) > BigInt(first.specVersion))
})

t.test('who waits hears at once of what is made, changed, or to be stopped', async (t) => {
  const { create, runner, ask } = await furnish(t)
  const wait = (held: readonly object[]) =>
    runner.call('ClaimEnvironments', { holder: runner.holder, held, capacity: 1, waitSeconds: 20 })
  const waiting = wait([])
  const { id: environmentId } = await create()
  const { body } = await waiting
  t.match(body.assignments, [{ environmentId }])
  const stopping = wait(body.assignments.map(held))
  await ask('EnvironmentService/StopEnvironment', { environmentId })
  t.match((await stopping).body.assignments, [{ desiredPhase: 'ENVIRONMENT_PHASE_STOPPED' }])
})

t.test("what is stopped is nobody's to work on until it is to start", async (t) => {
  const world = await furnish(t)
  const { runner, ask } = world
  const { id: environmentId } = await world.create()
  const [first] = await runner.claim()
  await ask('EnvironmentService/StopEnvironment', { environmentId })
  const [stopping] = await runner.claim([held(first)])
  await runner.report(stopping, 'ENVIRONMENT_PHASE_STOPPED')
  await runOut(world)
  const other = processOf(runner)
  t.same(await other.claim(), [])
  await ask('EnvironmentService/StartEnvironment', { environmentId })
  t.match(await other.claim(), [{ environmentId, desiredPhase: RUNNING }])
})

t.test('a phase that cannot follow is refused, and changes nothing', async (t) => {
  const { start, runner, ask } = await furnish(t)
  const assignment = await start()
  const { environmentId } = assignment
  await ask('EnvironmentService/DeleteEnvironment', { environmentId })
  const deleting = await told(runner, assignment)
  await runner.report(deleting, 'ENVIRONMENT_PHASE_DELETING')
  t.match(await runner.report(deleting, RUNNING, { failureMessage: 'no' }), {
    status: 400,
    body: { code: 'failed_precondition' }
  })
  const { environment } = await ask('EnvironmentService/GetEnvironment', { environmentId })
  t.equal(environment.status.phase, 'ENVIRONMENT_PHASE_DELETING')
  t.notOk(environment.status.failureMessage)
})

t.test('only what was asked to be deleted can be reported so', async (t) => {
  const { start, runner, ask, call, owner } = await furnish(t)
  const assignment = await start()
  const target = { environmentId: assignment.environmentId }
  t.match(await runner.report(assignment, 'ENVIRONMENT_PHASE_DELETED'), {
    status: 400,
    body: { code: 'failed_precondition' }
  })
  await ask('EnvironmentService/DeleteEnvironment', target)
  const deleting = await told(runner, assignment)
  t.equal((await runner.report(deleting, 'ENVIRONMENT_PHASE_DELETED')).status, 200)
  t.match(await call('EnvironmentService/GetEnvironment', owner.token, target), { status: 404 })
  t.equal((await runner.report(deleting, 'ENVIRONMENT_PHASE_DELETED')).status, 409, 'twice')
  t.same((await runner.call('FindEnvironments', { environmentIds: [assignment.environmentId] })).body, {})
})

t.test('deleted with force, it is gone for its holder too, with its tokens', async (t) => {
  const { start, runner, ask, addSecret, read, db } = await furnish(t)
  const secret = await addSecret('TOKEN', 'a')
  const assignment = await start()
  const { environmentId, accessToken } = assignment
  await ask('EnvironmentService/DeleteEnvironment', { environmentId, force: true })
  t.match(await runner.report(assignment, RUNNING), { status: 409 })
  t.same((await renew(runner, [assignment])).body, { lostEnvironmentIds: [environmentId] })
  t.equal((await read(accessToken, secret)).status, 401)
  const { tokens } = await db
    .selectFrom('tokens')
    .select((eb) => eb.fn.countAll<number>().as('tokens'))
    .where('kind', '=', 'environment')
    .executeTakeFirstOrThrow()
  t.equal(tokens, 0)
})

t.test(
  'a runner does nothing to the environments of another one, of this organization or of others',
  async (t) => {
    const world = await furnish(t)
    const { runner, addRunner, stranger } = world
    const assignment = await world.start()
    const { environmentId, epoch } = assignment
    for (const other of [await addRunner(), await addRunner(stranger.token)]) {
      // It knows all that there is to know, even who holds the lease.
      other.holder = runner.holder
      t.same(await other.claim(), [])
      t.match(await other.report(assignment, RUNNING), { status: 409, body: { code: 'aborted' } })
      t.same((await renew(other, [assignment])).body, { lostEnvironmentIds: [environmentId] })
      t.same((await other.call('FindEnvironments', { environmentIds: [environmentId] })).body, {})
      await runOut(world)
      t.same(await other.claim(), [], 'nor when the lease has run out')
      t.same((await renew(runner, [{ environmentId, epoch }])).body, {})
    }
    t.match(await runner.call('FindEnvironments', { environmentIds: [environmentId, randomUUID()] }), {
      body: { environmentIds: [environmentId] }
    })
  }
)

t.test('an inactive runner takes nothing more, and goes on with what it has', async (t) => {
  const { start, create, runner, ask } = await furnish(t)
  const assignment = await start()
  await create()
  const settings = { runnerId: runner.id, spec: { desiredPhase: 'RUNNER_PHASE_INACTIVE' } }
  await ask('RunnerService/UpdateRunner', settings)
  t.same(await runner.claim([held(assignment)]), [])
  t.equal((await runner.report(assignment, RUNNING)).status, 200)
  await ask('EnvironmentService/StopEnvironment', { environmentId: assignment.environmentId })
  t.match(await runner.claim([held(assignment)]), [{ desiredPhase: 'ENVIRONMENT_PHASE_STOPPED' }])
})
