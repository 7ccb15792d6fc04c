import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { type PruningContext, pruneBatch } from '../../src/audit/retention.ts'
import { auditRow } from '../../src/store/audit.ts'
import { getInstance } from '../../src/store/instance.ts'
import { createTestDatabase, SYSTEM } from '../helper.ts'
import {
  exportAfter,
  exportText,
  listChain,
  makeAuditKey,
  record,
  STREAMS,
  sealAll,
  tamper,
  verify
} from './helper.ts'

const [A, B, C] = STREAMS
const DAYS = 30

/** Records of so many days ago: of one day each, and in their canonical bytes. */
async function recordOld(db: PruningContext['db'], stream: string, ...days: number[]): Promise<void> {
  for (const day of days) {
    const event = { streamUid: stream, principal: SYSTEM, action: 'test.event', name: `${day}` }
    const { canonical, ...row } = auditRow(event)
    const occurred_at = new Date(Date.now() - day * 86_400_000)
    const members = [...JSON.parse(canonical.toString()).slice(0, -1), occurred_at.toISOString()]
    const bytes = Buffer.from(JSON.stringify(members))
    await db
      .insertInto('audit_events')
      .values({ ...row, occurred_at, canonical: bytes })
      .execute()
  }
}

async function world(t: Test) {
  const { db } = await createTestDatabase(t)
  const context: PruningContext = { db, instanceUid: (await getInstance(db)).uid, key: await makeAuditKey(t) }
  await recordOld(db, A, 90, 60, 31, 29, 1)
  await recordOld(db, B, 40, 39)
  await recordOld(db, C, 5, 80)
  await sealAll(db)
  return context
}

async function prune(context: PruningContext, limits?: { records: number; streams: number }) {
  let batch: Awaited<ReturnType<typeof pruneBatch>> | undefined
  let removed = 0
  const damaged: string[] = []
  do {
    batch = await pruneBatch(context, DAYS, batch?.after, limits)
    removed += batch.removed
    damaged.push(...batch.damaged)
  } while (batch.more)
  return { removed, damaged }
}

async function left({ db }: PruningContext): Promise<string[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(['stream_uid', 'name'])
    .where('action', '=', 'test.event')
    .execute()
  return rows.map(({ stream_uid, name }) => `${stream_uid[0]}:${name}`).sort()
}

t.test(
  'the beginnings that are past their time go, with a signed word, and the rest still fits',
  async (t) => {
    const context = await world(t)
    const { db, key, instanceUid } = context
    t.strictSame(await prune(context), { removed: 5, damaged: [] })
    t.strictSame(
      await left(context),
      ['1:1', '1:29', '3:5', '3:80'],
      'what comes behind a newer one stays until that goes'
    )
    const recorded = await db
      .selectFrom('audit_events')
      .selectAll()
      .where('action', '=', 'audit.prune')
      .execute()
    t.match(recorded, [
      { stream_uid: instanceUid, actor_kind: 'system', occurrences: 5, name: /^before \d{4}-/ }
    ])
    await record(db, B, 'new')
    await sealAll(db)
    const text = await exportText(db)
    t.match(await verify(text, { keys: [key] }), { found: 0, findings: [], needsKey: false, records: 6 })
    t.equal((await verify(text)).needsKey, true, 'without a key it cannot be verified')
    t.match((await verify(text, { keys: [await makeAuditKey(t)] })).findings, [
      { stream: A, sequence: 1, reason: /sequence 1 to 3 were removed, and the word for it is not signed/ },
      { stream: B, sequence: 1, reason: /sequence 1 to 2 were removed/ }
    ])
    t.strictSame(await prune(context), { removed: 0, damaged: [] }, 'again, nothing is past its time')
    t.equal(
      (await db.selectFrom('audit_events').select('id').where('action', '=', 'audit.prune').execute()).length,
      1
    )
  }
)

t.test('in many batches it comes to the same', async (t) => {
  const context = await world(t)
  const { db, key } = context
  t.strictSame(await prune(context, { records: 2, streams: 1 }), { removed: 5, damaged: [] })
  t.strictSame(await left(context), ['1:1', '1:29', '3:5', '3:80'])
  await sealAll(db)
  t.equal((await verify(await exportText(db), { keys: [key] })).found, 0)
})

t.test('what is removed without the key is found', async (t) => {
  const context = await world(t)
  const { db, key } = context
  const cut = (stream: string, through: number) => [
    `delete from audit_events where id in (select event_id from audit_chain where stream_uid = '${stream}' and sequence <= ${through})`,
    `delete from audit_chain where stream_uid = '${stream}' and sequence <= ${through}`
  ]
  const before = await exportAfter(db, ...cut(A, 3))
  t.match((await verify(before, { keys: [key] })).findings, [
    { stream: A, sequence: 4, reason: /without a signed word/ }
  ])
  const hash = (await listChain(db)).find(
    ({ stream_uid, sequence }) => stream_uid === A && sequence === 4
  )!.hash

  await prune(context)
  await sealAll(db)
  const cases: Record<string, string[]> = {
    'more than was signed': cut(A, 4),
    'more than was signed, and the word altered': [
      ...cut(A, 4),
      `update audit_prunings set through = 4, hash = '\\x${hash.toString('hex')}' where stream_uid = '${A}'`
    ],
    'the word removed': [`delete from audit_prunings where stream_uid = '${A}'`],
    'the word of another stream': [
      `update audit_prunings a set through = b.through, hash = b.hash, before = b.before, pruned_at = b.pruned_at,
         signature = b.signature from audit_prunings b where a.stream_uid = '${A}' and b.stream_uid = '${B}'`
    ],
    'another time': [`update audit_prunings set before = before + interval '1 day' where stream_uid = '${A}'`]
  }
  for (const [name, statements] of Object.entries(cases)) {
    const { findings } = await verify(await exportAfter(db, ...statements), { keys: [key] })
    t.equal(findings[0]?.stream, A, name)
  }
  t.equal((await verify(await exportText(db), { keys: [key] })).found, 0)
})

t.test('what does not fit is evidence, and stays', async (t) => {
  for (const statement of [
    `update audit_events set name = 'x' where stream_uid = '${A}' and name = '60'`,
    `update audit_events set canonical = '\\x00' where stream_uid = '${A}' and name = '60'`,
    `delete from audit_events where stream_uid = '${A}' and name = '60'`
  ]) {
    const context = await world(t)
    await tamper(context.db, statement)
    t.strictSame(await prune(context), { removed: 3, damaged: [A] }, statement)
    await sealAll(context.db)
    const { findings } = await verify(await exportText(context.db), { keys: [context.key] })
    t.match(findings, [{ stream: A, sequence: 2 }], 'and is found afterwards, too')
  }
})

t.test('a time that was moved back does not make a record go', async (t) => {
  const context = await world(t)
  await tamper(
    context.db,
    `update audit_events set occurred_at = '2020-01-01' where stream_uid = '${C}' and name = '5'`
  )
  t.strictSame(await prune(context), { removed: 5, damaged: [C] })
  t.ok((await left(context)).includes('3:5'))
})

t.test('only one server at a time, and never without the word', async (t) => {
  const context = await world(t)
  const { db } = context
  await db.transaction().execute(async (tx) => {
    await sql`select pg_advisory_xact_lock(7245004)`.execute(tx)
    t.match(await pruneBatch(context, DAYS), { removed: 0, more: false })
  })
  await sql`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no room'; end $$`.execute(
    db
  )
  await sql`create trigger no_room before insert on audit_prunings for each row execute function refuse()`.execute(
    db
  )
  const before = await left(context)
  await t.rejects(prune(context), { code: 'P0001' })
  t.strictSame(await left(context), before)
})
