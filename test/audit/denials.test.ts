import t from 'tap'
import { type Denial, Denials } from '../../src/audit/denials.ts'
import type { Principal } from '../../src/store/audit.ts'
import { openDatabase } from '../../src/store/database.ts'
import { getInstance } from '../../src/store/instance.ts'
import { createTestDatabase } from '../helper.ts'
import { STREAMS } from './helper.ts'

const MONA: Principal = {
  kind: 'user',
  uid: STREAMS[0],
  login: 'mona',
  tokenId: 7,
  issuedByUid: null,
  requestId: 'R'
}
const NOBODY: Principal = { ...MONA, kind: 'anonymous', uid: null, login: null, tokenId: null }
const GUESS: Denial = { principal: NOBODY, action: 'login.failed', address: '192.0.2.1' }
const ACCESS: Denial = { principal: MONA, action: 'access.denied', streamUid: STREAMS[1], name: 'repos/get' }

t.test('the first of a kind at once, then one a minute with their number', async (t) => {
  const { db } = await createTestDatabase(t)
  let now = 0
  const denials = new Denials(db, { now: () => now })
  t.teardown(() => denials.close())
  const listed = async () => {
    // A flush of what is being written, without ending the minute.
    while ((await count()) < expected) await new Promise((resolve) => setTimeout(resolve, 5))
    return await db
      .selectFrom('audit_events')
      .select([
        'stream_uid',
        'actor_uid',
        'actor_login',
        'action',
        'outcome',
        'name',
        'address',
        'occurrences'
      ])
      .orderBy('id')
      .execute()
  }
  const count = async () =>
    (
      await db
        .selectFrom('audit_events')
        .select((eb) => eb.fn.countAll<number>().as('n'))
        .executeTakeFirstOrThrow()
    ).n
  let expected = 3
  for (let round = 0; round < 1000; round++) {
    denials.record(GUESS)
    denials.record(ACCESS)
    if (round < 5) denials.record({ ...ACCESS, name: 'repos/delete' })
  }
  const { uid: instance } = await getInstance(db)
  const first = await listed()
  t.match(first, [
    {
      stream_uid: instance,
      actor_uid: null,
      action: 'login.failed',
      outcome: 'denied',
      address: '192.0.2.1',
      occurrences: null
    },
    {
      stream_uid: STREAMS[1],
      actor_uid: STREAMS[0],
      actor_login: 'mona',
      name: 'repos/get',
      occurrences: null
    },
    { name: 'repos/delete', occurrences: null }
  ])
  now = 59_999
  denials.sweep()
  now = 60_000
  denials.sweep()
  expected = 6
  t.strictSame(
    (await listed())
      .slice(3)
      .map(({ name, occurrences }) => [name, occurrences])
      .sort((a, b) => String(b[0]).localeCompare(String(a[0]))),
    [
      ['repos/get', 999],
      ['repos/delete', 4],
      [null, 999]
    ]
  )
  now = 120_000
  denials.sweep()
  now = 180_000
  denials.record(GUESS)
  expected = 7
  t.equal((await listed()).length, 7, 'after a quiet minute the next is a first one again')
})

t.test('guessing does not fill the disk, nor hide what a token was refused', async (t) => {
  const { db } = await createTestDatabase(t)
  let now = 0
  let unlisted = 0
  const denials = new Denials(db, {
    now: () => now,
    remembered: 50,
    perWindow: { 'access.denied': 20, 'login.failed': 10 },
    onUnlisted(requests) {
      unlisted += requests
    }
  })
  t.teardown(() => denials.close())
  const TOTAL = 5_000
  for (let guess = 0; guess < TOTAL; guess++) denials.record({ ...GUESS, address: `192.0.2.${guess}` })
  for (let kind = 0; kind < 5; kind++) denials.record({ ...ACCESS, name: `operation-${kind}` })
  await denials.flush()
  const rows = await db
    .selectFrom('audit_events')
    .select(['action', 'name', 'actor_kind', 'occurrences'])
    .orderBy('id')
    .execute()
  t.equal(rows.filter(({ action }) => action === 'login.failed').length, 10)
  t.equal(rows.filter(({ name }) => name?.startsWith('operation-')).length, 5)
  const others = rows.filter(({ name }) => name === 'others')
  t.strictSame(others, [
    { action: 'access.denied', name: 'others', actor_kind: 'anonymous', occurrences: TOTAL - 10 }
  ])
  t.equal(unlisted, TOTAL - 10)
  now = 60_000
  for (let guess = 0; guess < 3; guess++) denials.record({ ...GUESS, address: `198.51.100.${guess}` })
  denials.sweep()
  await denials.flush()
  const after = await db
    .selectFrom('audit_events')
    .select('address')
    .where('address', 'like', '198.%')
    .execute()
  t.equal(after.length, 3, 'the next minute has room again')
})

t.test('nothing is delayed or thrown while the database is away; the number is kept', async (t) => {
  const { url, db } = await createTestDatabase(t)
  const away = openDatabase({ connection: 'postgres://nobody@127.0.0.1:1/none', poolSize: 1, prepare: false })
  t.teardown(() => away.destroy())
  let unlisted = 0
  const lost = new Denials(away, {
    onUnlisted(requests) {
      unlisted += requests
    }
  })
  for (let guess = 0; guess < 20; guess++) lost.record({ ...GUESS, address: `192.0.2.${guess}` })
  await lost.close()
  t.ok(unlisted >= 20)
  t.ok(url)

  const closing = new Denials(db)
  closing.record(GUESS)
  closing.record(GUESS)
  closing.record(GUESS)
  await closing.close()
  const rows = await db.selectFrom('audit_events').select('occurrences').orderBy('id').execute()
  t.strictSame(
    rows.map(({ occurrences }) => occurrences),
    [null, 2],
    'what was counted is written at the end'
  )
})
