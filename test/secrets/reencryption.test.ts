import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t from 'tap'
import { Keyring } from '../../src/keyring/index.ts'
import { loadGenerations, reencryptAll } from '../../src/secrets/generations.ts'
import { listGenerationStatus } from '../../src/store/key-generations.ts'
import { allReadable, rotate, storeValues } from './helper.ts'

const withoutXmin = (rows: Record<string, unknown>[]) => rows.map(({ xmin: _, ...row }) => row)

t.test('re-encryption moves every value, and neither times nor versions', async (t) => {
  const stored = await storeValues(t, 120)
  const { server } = stored
  await stored.store('NAME_3', 'value 3, second')
  const before = await stored.rows()
  const old = server.keyring.collectionKey('x').keyId
  const audited = (await server.db.selectFrom('audit_events').selectAll().execute()).length
  const next = await rotate(server.db, server.keyring)

  const progress: { done: number; total: number }[] = []
  const result = await reencryptAll(server.vault, (step) => progress.push(step))
  t.same(result, { done: 120, unreadable: [] })
  t.same(progress, [
    { done: 0, total: 120 },
    { done: 100, total: 120 },
    { done: 120, total: 120 }
  ])
  t.same(withoutXmin(await stored.rows()), withoutXmin(before))
  const counts = (await listGenerationStatus(server.db)).map(({ id, secrets }) => [id, secrets])
  t.same(Object.fromEntries(counts), { [old]: 0, [next]: 120 })
  await allReadable(t, stored)
  const events = (await server.db.selectFrom('audit_events').selectAll().execute()).length
  t.equal(events, audited + 2, 'no event beside those of the rotation')

  t.same(await reencryptAll(server.vault, () => {}), { done: 0, unreadable: [] })
})

t.test('re-encryption that was interrupted goes on where it stopped', async (t) => {
  const stored = await storeValues(t, 210)
  const { server } = stored
  await rotate(server.db, server.keyring)
  const interruption = new Error('interrupted')
  await t.rejects(
    reencryptAll(server.vault, ({ done }) => {
      if (done > 0) throw interruption
    }),
    interruption
  )
  const [, active] = await listGenerationStatus(server.db)
  t.equal(active!.secrets, 100)
  await allReadable(t, stored)
  const half = await stored.rows()

  const progress: { done: number; total: number }[] = []
  t.same(await reencryptAll(server.vault, (step) => progress.push(step)), { done: 110, unreadable: [] })
  t.same(progress[0], { done: 0, total: 110 })
  const after = await stored.rows()
  t.equal(
    after.filter(({ xmin }, index) => xmin === half[index]!.xmin).length,
    100,
    'done ones are left alone'
  )
  await allReadable(t, stored)
})

t.test('re-encryptions at once do each value once', async (t) => {
  const stored = await storeValues(t, 60)
  const { server } = stored
  await rotate(server.db, server.keyring)
  const keyring = new Keyring([server.keyring.wrappingKey])
  const results = await Promise.all([
    reencryptAll(server.vault, () => {}),
    reencryptAll({ db: server.db, keyring }, () => {})
  ])
  t.equal(results[0].done + results[1].done, 60)
  await allReadable(t, stored)
})

t.test('a value that is written meanwhile wins', async (t) => {
  const stored = await storeValues(t, 5)
  const { server, ownerUid, values } = stored
  const { db, keyring } = server
  await rotate(db, keyring)
  await loadGenerations(db, keyring)
  const { uid } = await db
    .selectFrom('secrets')
    .select('uid')
    .where('name', '=', 'NAME_2')
    .executeTakeFirstOrThrow()
  const context = {
    collection: `codespaces/user/${ownerUid}`,
    secretUid: uid,
    name: 'NAME_2',
    valueVersion: 2
  }
  const { envelope, generationId } = keyring.sealValue(context, Buffer.from('newer'))

  let job: ReturnType<typeof reencryptAll> | undefined
  await db.transaction().execute(async (tx) => {
    await tx
      .updateTable('secrets')
      .set({ envelope, generation_id: `${generationId}`, value_version: 2, row_version: 2 })
      .where('name', '=', 'NAME_2')
      .execute()
    // The job reads the old value, encrypts it, and then waits for this row.
    job = reencryptAll(server.vault, () => {})
    const waiting = sql<{ found: boolean }>`select exists (select from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock') as found`
    while (!(await waiting.execute(db)).rows[0]!.found) await sleep(10)
  })
  t.same(await job, { done: 4, unreadable: [] })
  values.set('NAME_2', 'newer')
  await allReadable(t, stored)
})

t.test('values stay readable while servers write and others re-encrypt', async (t) => {
  const stored = await storeValues(t, 40)
  const { server } = stored
  let running = true
  const writing = (async () => {
    for (let round = 0; running; round++) await stored.store(`NAME_${round % 40}`, `written ${round}`)
  })()
  for (let rotation = 0; rotation < 3; rotation++) {
    await rotate(server.db, server.keyring)
    await loadGenerations(server.db, server.keyring)
    const keyring = new Keyring([server.keyring.wrappingKey])
    await reencryptAll({ db: server.db, keyring }, () => {})
  }
  running = false
  await writing
  await loadGenerations(server.db, server.keyring)
  await allReadable(t, stored)
  const { done } = await reencryptAll(server.vault, () => {})
  t.ok(done <= 40)
  await allReadable(t, stored)
})

t.test('a job whose keys are older than the rotation ends, under the active generation', async (t) => {
  const stored = await storeValues(t, 3)
  const { server } = stored
  const stale = new Keyring([server.keyring.wrappingKey])
  await loadGenerations(server.db, stale)
  const next = await rotate(server.db, server.keyring)
  t.same(await reencryptAll({ db: server.db, keyring: stale }, () => {}), { done: 3, unreadable: [] })
  const rows = await server.db.selectFrom('secrets').select('generation_id').distinct().execute()
  t.same(rows, [{ generation_id: next }])
})

t.test('a value that does not open is left as it is, named, and stops no other', async (t) => {
  const stored = await storeValues(t, 110)
  const { server } = stored
  await sql`update secrets set envelope = set_byte(envelope, 30, get_byte(envelope, 30) # 1)
    where name in ('NAME_0', 'NAME_7')`.execute(server.db)
  const envelopes = () =>
    server.db.selectFrom('secrets').select('envelope').where('name', 'in', ['NAME_0', 'NAME_7']).execute()
  const before = await envelopes()
  await rotate(server.db, server.keyring)
  const result = await reencryptAll(server.vault, () => {})
  t.equal(result.done, 108)
  t.same(
    new Set(result.unreadable),
    new Set(['NAME_0', 'NAME_7'].map((name) => `codespaces/user/${stored.ownerUid}/${name}`))
  )
  t.same(await envelopes(), before)
})
