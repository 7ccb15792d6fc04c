import { setTimeout as sleep } from 'node:timers/promises'
import { type Kysely, sql, type Transaction } from 'kysely'
import t, { type Test } from 'tap'
import { Sealer, sealBatch } from '../../src/audit/sealer.ts'
import { createLogger } from '../../src/logger.ts'
import { insertAuditEvents } from '../../src/store/audit.ts'
import { countUnchained } from '../../src/store/audit-records.ts'
import { openDatabase } from '../../src/store/database.ts'
import { getInstance } from '../../src/store/instance.ts'
import type { Database } from '../../src/store/tables.ts'
import { createTestDatabase, SYSTEM } from '../helper.ts'
import { isWholeChain, listChain, record, STREAMS, sealAll, tamper } from './helper.ts'

const [A, B, C] = STREAMS

function another(t: Test, url: string): Kysely<Database> {
  const db = openDatabase({ connection: url, poolSize: 4, prepare: true })
  t.teardown(() => db.destroy())
  return db
}

/** A transaction that has recorded something and is still open. */
async function begin(db: Kysely<Database>, stream: string, name: string) {
  let end!: (commit: boolean) => void
  let begun!: () => void
  const open = new Promise<void>((resolve) => {
    begun = resolve
  })
  const done = db
    .transaction()
    .execute(async (tx) => {
      await insertAuditEvents(tx, [{ streamUid: stream, principal: SYSTEM, action: 'test.event', name }])
      const commits = new Promise<boolean>((resolve) => {
        end = resolve
      })
      begun()
      if (!(await commits)) throw new Error('rolled back')
    })
    .catch(() => {})
  await open
  return async (commit: boolean) => {
    end(commit)
    await done
  }
}

async function names(db: Kysely<Database>, stream: string): Promise<(string | null)[]> {
  const rows = await db
    .selectFrom('audit_chain as c')
    .innerJoin('audit_events as e', 'e.id', 'c.event_id')
    .select('e.name')
    .where('c.stream_uid', '=', stream)
    .orderBy('c.sequence')
    .execute()
  return rows.map(({ name }) => name)
}

t.test('a transaction that is open holds back what began after it, and nobody else', async (t) => {
  const { db } = await createTestDatabase(t)
  const { uid } = await getInstance(db)
  await sealAll(db)
  await record(db, A, 'before')
  await sealAll(db)

  const endFirst = await begin(db, A, 'first')
  const endSecond = await begin(db, A, 'never')
  await record(db, A, 'later')
  await record(db, B, 'elsewhere')
  t.equal((await sealBatch(db, uid)).sealed, 0, 'nothing is sealed behind what may still come')
  t.strictSame(await names(db, A), ['before'])

  await endFirst(true)
  await endSecond(false)
  await sealAll(db)
  t.strictSame(
    await names(db, A),
    ['before', 'first', 'later'],
    'in the order of transactions; what was rolled back is in none'
  )
  t.strictSame(await names(db, B), ['elsewhere'])
  await isWholeChain(t, db)
})

t.test(
  'many writers, slow and failing ones, beside several sealers: all sealed once, none skipped',
  async (t) => {
    const { url, db } = await createTestDatabase(t)
    const { uid } = await getInstance(db)
    const nodes = [another(t, url), another(t, url), another(t, url)]
    let writing = true
    const seal = async (node: Kysely<Database>) => {
      while (writing) {
        await sealBatch(node, uid, 7)
        await sleep(1)
      }
    }
    const write = async (writer: number) => {
      for (let round = 0; round < 25; round++) {
        const event = (name: string) => ({
          streamUid: STREAMS[(writer + round) % 3]!,
          principal: SYSTEM,
          action: 'test.event',
          name
        })
        await db
          .transaction()
          .execute(async (tx: Transaction<Database>) => {
            await insertAuditEvents(tx, [event(`${writer}-${round}-a`)])
            if (round % 3 === writer % 3) await sleep(writer * 3)
            await insertAuditEvents(tx, [event(`${writer}-${round}-b`), event(`${writer}-${round}-c`)])
            if (round % 7 === 0) throw new Error('rolled back')
          })
          .catch(() => {})
      }
    }
    const sealers = nodes.map(seal)
    await Promise.all(Array.from({ length: 8 }, (_, writer) => write(writer)))
    writing = false
    await Promise.all(sealers)
    await sealAll(db)

    await isWholeChain(t, db)
    const chain = await listChain(db)
    t.equal(chain.length, 8 * 25 * 3 - 8 * 4 * 3)
    t.equal(new Set(chain.map(({ event_id }) => event_id)).size, chain.length, 'none is sealed twice')
    const { rows: wrong } = await sql`
    select * from (
      select e.transaction_id, e.id, lag(e.transaction_id) over w as previous_transaction, lag(e.id) over w as previous_id
      from audit_chain c join audit_events e on e.id = c.event_id window w as (partition by c.stream_uid order by c.sequence)
    ) o where (transaction_id, id) <= (previous_transaction, previous_id)`.execute(db)
    t.strictSame(wrong, [], 'in the order of transaction and id')
  }
)

t.test('one at a time: who comes second does nothing, and does not wait', async (t) => {
  const { db } = await createTestDatabase(t)
  const { uid } = await getInstance(db)
  await record(db, A, 'one')
  await db.transaction().execute(async (tx) => {
    await sql`select pg_advisory_xact_lock(7245003)`.execute(tx)
    t.strictSame(await sealBatch(db, uid), { sealed: 0, more: false, altered: [] })
  })
  t.equal(await sealAll(db), 1)
})

/** Transactions of other tests in the same cluster may hold it up for a moment. */
async function sealSome(db: Kysely<Database>, uid: string): Promise<void> {
  while ((await sealBatch(db, uid)).sealed === 0) await sleep(5)
}

t.test('a sealer that dies in the middle leaves nothing half done', async (t) => {
  const { url, db } = await createTestDatabase(t)
  const { uid } = await getInstance(db)
  await record(db, A, 'one', 'two')
  await record(db, B, 'one')
  await sealAll(db)
  await record(db, A, 'three')
  await record(db, B, 'two')
  const before = await listChain(db)
  const dying = another(t, url)
  await db.transaction().execute(async (tx) => {
    // The links are written when the heads have to wait.
    await sql`lock table audit_streams in share mode`.execute(tx)
    const sealing = sealSome(dying, uid).catch((error) => error)
    let waiting: { pid: number }[] = []
    while (waiting.length === 0) {
      waiting = (
        await sql<{ pid: number }>`select pid from pg_stat_activity where datname = current_database()
          and wait_event_type = 'Lock' and query like '%insert into audit_streams%'`.execute(db)
      ).rows
      await sleep(5)
    }
    await sql`select pg_terminate_backend(${waiting[0]!.pid})`.execute(db)
    t.ok((await sealing) instanceof Error)
  })
  t.strictSame(await listChain(db), before)
  t.equal(await sealAll(db), 2)
  await isWholeChain(t, db)
})

t.test(
  'a database from another cluster: everything sealed once, whatever its transactions were called',
  async (t) => {
    const { db } = await createTestDatabase(t)
    await record(db, A, 'one', 'two', 'three')
    await sealAll(db)
    await record(db, A, 'four')
    await record(db, B, 'one')
    // As a dump brings it: ids of transactions that this cluster has not reached, or that were long ago.
    await tamper(
      db,
      `update audit_events set transaction_id = '9000000000' where name in ('one', 'four')`,
      `update audit_events set transaction_id = '3' where name not in ('one', 'four')`,
      `update audit_sealer set cluster = 'elsewhere', transaction_id = '9000000001'`
    )
    await record(db, C, 'since')
    t.equal(await sealAll(db, 2), 3)
    t.strictSame(await names(db, A), ['one', 'two', 'three', 'four'])
    await record(db, A, 'five')
    await record(db, B, 'two')
    t.equal(await sealAll(db, 2), 2)
    t.strictSame(await names(db, A), ['one', 'two', 'three', 'four', 'five'])
    t.strictSame(await names(db, B), ['one', 'two'])
    await isWholeChain(t, db)
    const { rows } = await sql<{ cluster: string }>`select cluster from audit_sealer`.execute(db)
    t.match(rows, [{ cluster: /^\d+\/\d+$/ }])
  }
)

t.test('an end that somebody altered does not stop the others', async (t) => {
  const { db } = await createTestDatabase(t)
  const { uid } = await getInstance(db)
  await record(db, A, 'one', 'two')
  await record(db, B, 'one')
  await sealAll(db)
  await sql`delete from audit_streams where stream_uid = ${A}`.execute(db)
  await record(db, A, 'three')
  await record(db, B, 'two')
  const altered: string[] = []
  while (!(await names(db, A)).includes('three')) altered.push(...(await sealBatch(db, uid)).altered)
  t.strictSame(altered, [A])
  t.strictSame(await names(db, A), ['one', 'two', 'three'])
  t.strictSame(await names(db, B), ['one', 'two'])
  await isWholeChain(t, db)
})

t.test('by itself, and cheaply when there is nothing to do', async (t) => {
  const { db } = await createTestDatabase(t)
  const { uid } = await getInstance(db)
  let sealed = 0
  const log: string[] = []
  const logger = createLogger('trace', { write: (line: string) => void log.push(line) })
  const events = {
    onSealed(records: number) {
      sealed += records
    },
    onFailure: () => t.fail('it failed')
  }
  const sealer = new Sealer(db, uid, events, logger)
  sealer.start()
  await record(db, A, 'one', 'two')
  while (sealed < 2) await sleep(20)
  await record(db, A, 'three')
  await sealer.stop()
  while ((await countUnchained(db)) > 0) await sealer.sealAll()
  t.equal(sealed, 3, 'what was left is sealed at the end')

  const row = async () => (await sql`select ctid, xmin from audit_sealer`.execute(db)).rows
  const idle = await row()
  for (let run = 0; run < 5; run++) await sealer.sealAll()
  t.strictSame(await row(), idle, 'nothing is written when nothing is to be sealed')
  t.strictSame(log, [])
})

t.test('what cannot be sealed now is sealed later', async (t) => {
  const { db } = await createTestDatabase(t)
  await sql`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no room'; end $$`.execute(
    db
  )
  await sql`create trigger no_room before insert on audit_chain for each row execute function refuse()`.execute(
    db
  )
  await record(db, A, 'one')
  const failed = await sealAll(db).catch((error) => error)
  t.match(failed, { code: 'P0001' })
  t.strictSame(await listChain(db), [])
  await sql`drop trigger no_room on audit_chain`.execute(db)
  t.equal(await sealAll(db), 1)
})

t.test('records and links are append-only, in the database itself', async (t) => {
  const { db } = await createTestDatabase(t)
  await record(db, A, 'one')
  await sealAll(db)
  for (const statement of [
    `update audit_events set name = 'other'`,
    'delete from audit_events',
    'truncate audit_events',
    `update audit_chain set sequence = 2`,
    'delete from audit_chain',
    'truncate audit_chain',
    `set coffer.prunes_audit = 'yes'; delete from audit_events`,
    `set coffer.prunes_audit = 'on'; update audit_events set name = 'other'`,
    `set coffer.prunes_audit = 'on'; truncate audit_chain`
  ]) {
    await t.rejects(
      db.transaction().execute((tx) => sql.raw(statement.replace(/^set /, 'set local ')).execute(tx)),
      /append-only/,
      statement
    )
  }
})
