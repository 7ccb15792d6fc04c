import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { DatabaseWindows, MemoryWindows, type Windows } from '../../src/auth/windows.ts'
import { deleteEndedWindows } from '../../src/store/rate-limits.ts'
import { createTestDatabase } from '../helper.ts'

const HOUR = 3600

interface Stage {
  windows: Windows
  /** moves the end of every window into the past */
  endAll(): Promise<void>
}

/** The same rules wherever the counts are kept. */
const STORES: Record<string, (t: Test) => Promise<Stage>> = {
  async database(t) {
    const { db } = await createTestDatabase(t)
    const ended = sql`update rate_limits set resets_at = resets_at - interval '2 hours'`
    return { windows: new DatabaseWindows(db), endAll: async () => void (await ended.execute(db)) }
  },
  async memory() {
    let later = 0
    const endAll = async () => {
      later += 2 * HOUR * 1000
    }
    return { windows: new MemoryWindows(() => Date.now() + later), endAll }
  }
}

for (const [name, start] of Object.entries(STORES)) {
  t.test(`${name}: as many as the limit allows, however many ask at once`, async (t) => {
    const { windows } = await start(t)
    const counted = await Promise.all(
      Array.from({ length: 60 }, () => windows.count('token 1', 'core', 25, HOUR))
    )
    const allowed = counted.filter(({ refused }) => !refused)
    t.same(
      allowed.map(({ used }) => used).sort((a, b) => a - b),
      Array.from({ length: 25 }, (_, index) => index + 1)
    )
    for (const { used } of counted.filter(({ refused }) => refused)) t.equal(used, 25)
    t.equal(new Set(counted.map(({ reset }) => reset)).size, 1)
  })

  t.test(`${name}: a window begins with the first request and ends with a whole second`, async (t) => {
    const { windows } = await start(t)
    const before = Date.now()
    const { reset, remainingMs, used, refused } = await windows.count('token 1', 'core', 5, HOUR)
    t.strictSame({ used, refused }, { used: 1, refused: false })
    t.ok(Number.isInteger(reset))
    t.ok(reset * 1000 >= before + HOUR * 1000 - 1000 && reset * 1000 <= Date.now() + HOUR * 1000 + 1000)
    t.ok(remainingMs > HOUR * 1000 - 1000 && remainingMs <= HOUR * 1000 + 1000)
  })

  t.test(`${name}: subjects and resources are counted apart`, async (t) => {
    const { windows } = await start(t)
    await windows.count('token 1', 'core', 1, HOUR)
    t.equal((await windows.count('token 1', 'core', 1, HOUR)).refused, true)
    t.equal((await windows.count('token 1', 'codespaces', 1, HOUR)).refused, false)
    t.equal((await windows.count('token 2', 'core', 1, HOUR)).refused, false)
    t.equal((await windows.count('address 1', 'core', 1, HOUR)).refused, false)
  })

  t.test(`${name}: a window that is over counts for nothing`, async (t) => {
    const { windows, endAll } = await start(t)
    for (let index = 0; index < 4; index += 1) await windows.count('token 1', 'core', 3, HOUR)
    await endAll()
    t.equal((await windows.read('token 1', ['core'], HOUR)).get('core')!.used, 0)
    t.match(await windows.count('token 1', 'core', 3, HOUR), { used: 1, refused: false })
    t.match(await windows.count('token 1', 'core', 3, HOUR), { used: 2, refused: false })
  })

  t.test(`${name}: a limit that was lowered refuses, one that was raised lets in`, async (t) => {
    const { windows } = await start(t)
    for (let index = 0; index < 3; index += 1) await windows.count('token 1', 'core', 3, HOUR)
    t.match(await windows.count('token 1', 'core', 2, HOUR), { used: 3, refused: true })
    t.match(await windows.count('token 1', 'core', 4, HOUR), { used: 4, refused: false })
  })

  t.test(`${name}: what is given back can be used again, in the same window alone`, async (t) => {
    const { windows, endAll } = await start(t)
    const { reset } = await windows.count('token 1', 'core', 1, HOUR)
    t.equal((await windows.count('token 1', 'core', 1, HOUR)).refused, true)
    t.equal(await windows.giveBack('token 1', 'core', reset), 0)
    t.equal(await windows.giveBack('token 1', 'core', reset), undefined, 'never below none')
    t.match(await windows.count('token 1', 'core', 1, HOUR), { used: 1, refused: false })
    t.equal(await windows.giveBack('token 2', 'core', reset), undefined)
    t.equal(await windows.giveBack('token 1', 'core', reset + 1), undefined, 'another window')
    await endAll()
    await windows.count('token 1', 'core', 1, HOUR + 60)
    t.equal(await windows.giveBack('token 1', 'core', reset), undefined, 'one that is over')
    t.equal((await windows.count('token 1', 'core', 1, HOUR)).refused, true)
  })

  t.test(`${name}: reading counts nothing, and shows a window that would begin now`, async (t) => {
    const { windows } = await start(t)
    const { reset } = await windows.count('token 1', 'core', 5, HOUR)
    for (let index = 0; index < 2; index += 1) {
      const read = await windows.read('token 1', ['core', 'graphql'], HOUR)
      t.strictSame(read.get('core'), { used: 1, reset })
      t.equal(read.get('graphql')!.used, 0)
      t.ok(Math.abs(read.get('graphql')!.reset - Date.now() / 1000 - HOUR) <= 2)
    }
  })
}

t.test('windows that are over are removed, the others stay, and nobody is waited for', async (t) => {
  const { db } = await createTestDatabase(t)
  const windows = new DatabaseWindows(db)
  for (const subject of ['token 1', 'token 2', 'token 3']) await windows.count(subject, 'core', 5, HOUR)
  await sql`update rate_limits set resets_at = now() where subject <> 'token 3'`.execute(db)
  const subjects = async () =>
    (await db.selectFrom('rate_limits').select('subject').orderBy('subject').execute()).map(
      ({ subject }) => subject
    )
  await db.transaction().execute(async (tx) => {
    await sql`select 1 from rate_limits where subject = 'token 2' for update`.execute(tx)
    await deleteEndedWindows(db)
    t.same(await subjects(), ['token 2', 'token 3'], 'one that is in use is left for the next time')
  })
  await deleteEndedWindows(db)
  t.same(await subjects(), ['token 3'])
})
