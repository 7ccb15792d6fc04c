import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { pino } from 'pino'
import t from 'tap'
import { Keyring, type MasterKey } from '../../src/keyring/index.ts'
import { localMasterKey } from '../../src/keyring/master-key.ts'
import {
  activateWhenReady,
  beginRotation,
  changeGrace,
  destroy,
  ensureGeneration,
  loadGenerations,
  reencryptAll,
  rewrap
} from '../../src/secrets/generations.ts'
import { KeyRefresh } from '../../src/secrets/key-refresh.ts'
import { deleteNode, reportNode } from '../../src/store/key-generations.ts'
import { createTestDatabase, startTestServer } from '../helper.ts'
import {
  age,
  allReadable,
  auditOf,
  COLLECTION,
  HOUR,
  rotate,
  setUp,
  statesOf,
  storeValues
} from './helper.ts'

// ---- making and rotating ----

t.test('servers that start at once on an empty database make one generation', async (t) => {
  const { db } = await createTestDatabase(t)
  const masterKey = localMasterKey(randomBytes(32))
  const keyrings = Array.from({ length: 5 }, () => new Keyring([masterKey]))
  await Promise.all(keyrings.map((keyring) => ensureGeneration(db, keyring)))
  const states = await statesOf(db)
  t.same(Object.values(states), ['active'])
  t.same(await auditOf(db), [`key.create ${Object.keys(states)[0]}`])
  t.equal((await db.selectFrom('key_material').select('generation_id').execute()).length, 1)

  for (const keyring of keyrings) await loadGenerations(db, keyring)
  t.equal(new Set(keyrings.map((keyring) => keyring.collectionKey(COLLECTION).keyId)).size, 1)
  await ensureGeneration(db, keyrings[0]!)
  t.same(await statesOf(db), states, 'a later start makes none')
})

t.test('a rotation begins with a pending generation, which opens and does not encrypt', async (t) => {
  const { db, keyring, first } = await setUp(t)
  const { id, replaces } = await beginRotation(db, keyring, first)
  t.equal(replaces, first)
  t.match(id, /^[1-9][0-9]{17,18}$/)
  t.same(await statesOf(db), { [first]: 'active', [id]: 'pending' })
  t.notOk(keyring.acceptsBoxesFor(id))
  await loadGenerations(db, keyring)
  t.ok(keyring.acceptsBoxesFor(id))
  t.ok(keyring.acceptsBoxesFor(first))
  t.equal(keyring.collectionKey(COLLECTION).keyId, first)

  t.same(await activateWhenReady(db, HOUR), { state: 'activated', id })
  t.same(await statesOf(db), { [first]: 'retired', [id]: 'active' })
  await loadGenerations(db, keyring)
  t.equal(keyring.collectionKey(COLLECTION).keyId, id)
  t.same(await activateWhenReady(db, HOUR), { state: 'none' })
  t.same(await auditOf(db), [`key.create ${first}`, `key.rotate ${id}`, `key.activate ${id}`])
})

t.test('of rotations at once one wins, and the others are told who', async (t) => {
  const { db, openKeyring, first } = await setUp(t)
  const keyrings = await Promise.all(Array.from({ length: 4 }, () => openKeyring()))
  const results = await Promise.allSettled(keyrings.map((keyring) => beginRotation(db, keyring, first)))
  const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.id] : []))
  const lost = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
  t.equal(won.length, 1)
  for (const error of lost) {
    t.match(error, {
      name: 'Conflict',
      message: `Another rotation is on its way, to key generation ${won[0]}.`
    })
  }
  t.same(await statesOf(db), { [first]: 'active', [won[0]!]: 'pending' })

  await activateWhenReady(db, HOUR)
  await t.rejects(beginRotation(db, keyrings[0]!, first), {
    name: 'Conflict',
    message: `Key generation ${won[0]} is active, not ${first}: somebody has rotated already.`
  })
  t.same(await statesOf(db), { [first]: 'retired', [won[0]!]: 'active' })
  t.equal((await auditOf(db)).length, 3)
})

t.test('a rotation that was overtaken by a whole one leaves no pending generation behind', async (t) => {
  const { db, masterKey, keyring, first } = await setUp(t)
  let faster = ''
  const slow: MasterKey = {
    fingerprint: masterKey.fingerprint,
    unwrap: (id, wrapped) => masterKey.unwrap(id, wrapped),
    async wrap(id, material) {
      faster = await rotate(db, keyring)
      return await masterKey.wrap(id, material)
    }
  }
  const error = await beginRotation(db, new Keyring([slow])).catch((error) => error)
  t.match(error, {
    name: 'Conflict',
    message: `Key generation ${faster} is active, not ${first}: somebody has rotated already.`
  })
  t.same(await statesOf(db), { [first]: 'retired', [faster]: 'active' })
  const next = await rotate(db, keyring)
  t.same(await statesOf(db), { [first]: 'retired', [faster]: 'retired', [next]: 'active' })
})

t.test('a database without a generation has nothing to rotate or to encrypt again', async (t) => {
  const { db } = await createTestDatabase(t)
  const keyring = new Keyring([localMasterKey(randomBytes(32))])
  await t.rejects(beginRotation(db, keyring), { name: 'RefusedToStart', message: /start the server once/ })
  await t.rejects(
    reencryptAll({ db, keyring }, () => {}),
    { name: 'RefusedToStart' }
  )
  t.same(await statesOf(db), {})
})

t.test('activation waits until every live node can open with the new one', async (t) => {
  const { db, keyring, first } = await setUp(t)
  const [ready, behind] = [randomUUID(), randomUUID()]
  await reportNode(db, ready, [first])
  await reportNode(db, behind, [first])
  const { id } = await beginRotation(db, keyring)
  t.same(await activateWhenReady(db, HOUR), { state: 'waiting', live: 2, ready: 0 })
  await reportNode(db, ready, [first, id])
  t.same(await activateWhenReady(db, HOUR), { state: 'waiting', live: 2, ready: 1 })
  t.same(await statesOf(db), { [first]: 'active', [id]: 'pending' })
  await reportNode(db, behind, [id, first])
  t.same(await activateWhenReady(db, HOUR), { state: 'activated', id })
})

t.test('activation does not wait for a node that stopped, or no longer reports', async (t) => {
  const { db, keyring, first } = await setUp(t)
  const [stopped, killed, live] = [randomUUID(), randomUUID(), randomUUID()]
  for (const node of [stopped, killed, live]) await reportNode(db, node, [first])
  const { id } = await beginRotation(db, keyring)
  await reportNode(db, live, [first, id])
  t.same(await activateWhenReady(db, HOUR), { state: 'waiting', live: 3, ready: 1 })
  await deleteNode(db, stopped)
  t.same(await activateWhenReady(db, HOUR), { state: 'waiting', live: 2, ready: 1 })
  await sql`update nodes set reported_at = now() - interval '14 seconds' where uid = ${killed}`.execute(db)
  t.same(await activateWhenReady(db, HOUR), { state: 'waiting', live: 2, ready: 1 })
  await sql`update nodes set reported_at = now() - interval '16 seconds' where uid = ${killed}`.execute(db)
  t.same(await activateWhenReady(db, HOUR), { state: 'activated', id })
  const nodes = await db.selectFrom('nodes').select('uid').execute()
  t.same(nodes, [{ uid: live }], 'what is gone is forgotten')
})

t.test('patience ends: a node that never learns of the new one does not hold it up for ever', async (t) => {
  const { db, keyring, first } = await setUp(t)
  const { id } = await beginRotation(db, keyring)
  await age(db, id, 14)
  await reportNode(db, randomUUID(), [first])
  t.same(await activateWhenReady(db, HOUR), { state: 'waiting', live: 1, ready: 0 })
  await age(db, id, 2)
  t.same(await activateWhenReady(db, HOUR), { state: 'activated', id })
})

t.test('nodes that activate at once do it once', async (t) => {
  const { db, keyring, first } = await setUp(t)
  const { id } = await beginRotation(db, keyring)
  const results = await Promise.all(Array.from({ length: 5 }, () => activateWhenReady(db, HOUR)))
  t.equal(results.filter(({ state }) => state === 'activated').length, 1)
  t.same(await statesOf(db), { [first]: 'retired', [id]: 'active' })
  t.same((await auditOf(db)).slice(1), [`key.rotate ${id}`, `key.activate ${id}`])
})

t.test('the database keeps exactly one active and at most one pending generation', async (t) => {
  const { db, keyring, first } = await setUp(t)
  const { id } = await beginRotation(db, keyring)
  const one = { code: '23505', constraint: 'key_generations_one_active' }
  await t.rejects(sql`update key_generations set state = 'active' where id = ${id}`.execute(db), one)
  await t.rejects(sql`insert into key_generations (id, state) values (5, 'active')`.execute(db), one)
  await t.rejects(sql`insert into key_generations (id, state) values (5, 'pending')`.execute(db), {
    code: '23505',
    constraint: 'key_generations_one_pending'
  })
  t.same(await statesOf(db), { [first]: 'active', [id]: 'pending' })
})

// ---- the window ----

t.test("the old one's window is counted by the database's clock", async (t) => {
  const { db, openKeyring, keyring, first } = await setUp(t)
  await rotate(db, keyring, 2 * HOUR)
  const untilOf = async () => {
    const { rows } = await sql<{ seconds: number }>`
      select extract(epoch from accepts_boxes_until - retired_at)::float8 as seconds
      from key_generations where id = ${first}`.execute(db)
    return rows[0]!.seconds
  }
  t.equal(await untilOf(), 2 * HOUR)
  t.ok((await openKeyring()).acceptsBoxesFor(first))
  await age(db, first, 2 * HOUR - 5)
  t.ok((await openKeyring()).acceptsBoxesFor(first))
  await age(db, first, 5)
  const later = await openKeyring()
  t.notOk(later.acceptsBoxesFor(first))
  t.ok(later.generationIds.includes(BigInt(first)), 'and it still opens values')
})

t.test('a window ends in a process that never asks the database again', async (t) => {
  const { db, openKeyring, keyring, first } = await setUp(t)
  await rotate(db, keyring, 0.3)
  const other = await openKeyring()
  t.ok(other.acceptsBoxesFor(first))
  await sleep(320)
  t.notOk(other.acceptsBoxesFor(first))
})

t.test('a window can be changed later, of a retired generation alone', async (t) => {
  const { db, openKeyring, keyring, first } = await setUp(t)
  const second = await rotate(db, keyring, HOUR)
  await changeGrace(db, first, 0)
  t.notOk((await openKeyring()).acceptsBoxesFor(first))
  await changeGrace(db, first, 2 * HOUR)
  t.ok((await openKeyring()).acceptsBoxesFor(first))
  await changeGrace(db, first, 2 * HOUR)
  await changeGrace(db, second, 0)
  t.ok((await openKeyring()).acceptsBoxesFor(second))
  t.same(
    (await auditOf(db)).slice(3),
    [`key.grace ${first}`, `key.grace ${first}`],
    'what changes nothing is no event'
  )
})

// ---- a server that keeps up ----

/** Counts how often it is given what is stored. */
function watchLoads(keyring: Keyring): { count: number } {
  const loads = { count: 0 }
  const install = keyring.install.bind(keyring)
  keyring.install = async (rows) => {
    loads.count++
    await install(rows)
  }
  return loads
}

const quiet = pino({ level: 'silent' })

t.test('an unknown generation causes one shared reload, at most one a second', async (t) => {
  const { db, keyring, openKeyring } = await setUp(t)
  const loads = watchLoads(keyring)
  const refresh = new KeyRefresh(db, keyring, HOUR, quiet)
  const rotated = await rotate(db, await openKeyring())
  t.notOk(keyring.acceptsBoxesFor(rotated))

  await Promise.all(Array.from({ length: 20 }, () => refresh.reload()))
  t.equal(loads.count, 1)
  t.ok(keyring.acceptsBoxesFor(rotated))
  for (let round = 0; round < 20; round++) await refresh.reload()
  t.equal(loads.count, 1)
  await sleep(1010)
  await Promise.all(Array.from({ length: 20 }, () => refresh.reload()))
  t.equal(loads.count, 2)
  await refresh.stop()
})

t.test('a reload waits for the one under way instead of answering from old keys', async (t) => {
  const { db, keyring, openKeyring } = await setUp(t)
  const refresh = new KeyRefresh(db, keyring, HOUR, quiet)
  const rotated = await rotate(db, await openKeyring())
  const first = refresh.reload()
  await refresh.reload()
  t.ok(keyring.acceptsBoxesFor(rotated))
  await first
  await refresh.stop()
})

t.test('a reload that fails fails the request, and the next one a second later works', async (t) => {
  const { db, keyring, openKeyring, masterKey } = await setUp(t)
  const refresh = new KeyRefresh(db, keyring, HOUR, quiet)
  const rotated = await rotate(db, await openKeyring())
  const other = localMasterKey(randomBytes(32))
  await rewrap(db, await openKeyring(other, masterKey))
  await t.rejects(refresh.reload(), { name: 'RefusedToStart' })
  t.ok(keyring.isReady, 'what it holds it keeps')
  await rewrap(db, await openKeyring(masterKey, other))
  await sleep(1010)
  await refresh.reload()
  t.ok(keyring.acceptsBoxesFor(rotated))
  await refresh.stop()
})

t.test('servers finish a rotation by themselves, and follow it', async (t) => {
  const { db, openKeyring, first } = await setUp(t)
  const keyrings = [await openKeyring(), await openKeyring()]
  const [one, two] = keyrings.map((keyring) => new KeyRefresh(db, keyring, HOUR, quiet)) as [
    KeyRefresh,
    KeyRefresh
  ]
  await one.start()
  await two.start()
  const { id } = await beginRotation(db, await openKeyring())
  await one.refresh()
  t.same(await statesOf(db), { [first]: 'active', [id]: 'pending' }, 'the other has not seen it')
  t.equal(keyrings[0]!.collectionKey(COLLECTION).keyId, first)
  t.ok(keyrings[0]!.acceptsBoxesFor(id))
  await two.refresh()
  t.same(await statesOf(db), { [first]: 'retired', [id]: 'active' })
  t.equal(keyrings[1]!.collectionKey(COLLECTION).keyId, id)
  await one.refresh()
  t.equal(keyrings[0]!.collectionKey(COLLECTION).keyId, id)
  await one.stop()
  await two.stop()
  t.same(await db.selectFrom('nodes').selectAll().execute(), [], 'who stops says so')
})

// ---- another master key ----

t.test('after a rewrap the new master key is enough, and the old one opens nothing', async (t) => {
  const { db, masterKey, openKeyring, keyring, first } = await setUp(t)
  const { envelope } = keyring.sealValue(
    { collection: COLLECTION, secretUid: 'u', name: 'N', valueVersion: 1 },
    Buffer.from('kept')
  )
  const second = await rotate(db, keyring)
  const { id: pending } = await beginRotation(db, keyring)
  const fresh = localMasterKey(randomBytes(32))
  await t.rejects(openKeyring(fresh), { name: 'RefusedToStart' })

  const both = await openKeyring(fresh, masterKey)
  t.same(new Set(await rewrap(db, both)), new Set([first, second, pending]))
  const after = await openKeyring(fresh)
  t.same(
    after.openValue({ collection: COLLECTION, secretUid: 'u', name: 'N', valueVersion: 1 }, envelope),
    Buffer.from('kept')
  )
  t.equal(after.collectionKey(COLLECTION).keyId, second)
  t.same(
    after.collectionKey(COLLECTION).publicKey,
    both.collectionKey(COLLECTION).publicKey,
    'clients notice nothing'
  )
  await t.rejects(openKeyring(), {
    message: new RegExp(`under master key ${fresh.fingerprint}; given: ${masterKey.fingerprint}\\.`)
  })
  t.same(await rewrap(db, both), [], 'once is enough')
  t.equal((await auditOf(db)).filter((event) => event.startsWith('key.rewrap')).length, 3)
  t.same((await statesOf(db))[pending], 'pending')
})

t.test('rewraps at once do each generation once', async (t) => {
  const { db, masterKey, openKeyring, first } = await setUp(t)
  const fresh = localMasterKey(randomBytes(32))
  const keyrings = await Promise.all([1, 2, 3].map(() => openKeyring(fresh, masterKey)))
  const done = await Promise.all(keyrings.map((keyring) => rewrap(db, keyring)))
  t.same(done.flat(), [first])
  t.ok((await openKeyring(fresh)).isReady)
})

// ---- destroying ----

t.test('only a generation that is retired, unused and known to be so by all is destroyed', async (t) => {
  const stored = await storeValues(t, 2)
  const { server } = stored
  const { db, keyring } = server
  const old = keyring.collectionKey('x').keyId
  const refused = async (id: string, name: string, message: string | RegExp) => {
    const before = [await statesOf(db), await auditOf(db)]
    await t.rejects(destroy(db, id), { name, message }, String(message))
    t.same([await statesOf(db), await auditOf(db)], before)
  }
  await refused(old, 'Conflict', `Key generation ${old} is active; only a retired one can be destroyed.`)
  const { id } = await beginRotation(db, keyring)
  await refused(id, 'Conflict', `Key generation ${id} is pending; only a retired one can be destroyed.`)
  await activateWhenReady(db, HOUR)
  await refused(old, 'Conflict', `Key generation ${old} was retired just now; wait 15 seconds.`)
  await age(db, old, 14)
  await refused(old, 'Conflict', /was retired just now/)
  await age(db, old, 2)
  await refused(
    old,
    'Conflict',
    `Key generation ${old} is in use by 2 secrets. Run coffer key reencrypt first.`
  )
  for (const unknown of ['1', '', 'abc', "1' or '1'='1", '9'.repeat(40)]) {
    await refused(unknown, 'NotFound', `There is no key generation ${unknown}.`)
  }

  await loadGenerations(db, keyring)
  await reencryptAll(server.vault, () => {})
  await destroy(db, old)
  t.same(await statesOf(db), { [old]: 'destroyed', [id]: 'active' })
  t.same(await db.selectFrom('key_material').select('generation_id').execute(), [{ generation_id: id }])
  t.equal((await auditOf(db)).at(-1), `key.destroy ${old}`)
  await refused(old, 'NotFound', `Key generation ${old} is destroyed already.`)
  await loadGenerations(db, keyring)
  t.notOk(keyring.acceptsBoxesFor(old))
  await allReadable(t, stored)
})

t.test('the database itself keeps the material of a generation in use', async (t) => {
  const stored = await storeValues(t, 1)
  await t.rejects(sql`delete from key_material`.execute(stored.server.db), /violates/)
  await allReadable(t, stored)
})

t.test('of two who destroy at once one does, and the record says it once', async (t) => {
  const { db, keyring, first } = await setUp(t)
  await rotate(db, keyring)
  await age(db, first, 20)
  await Promise.allSettled([destroy(db, first), destroy(db, first), destroy(db, first)])
  t.equal((await statesOf(db))[first], 'destroyed')
  t.equal((await auditOf(db)).filter((event) => event === `key.destroy ${first}`).length, 1)
})

// ---- through the API ----

t.test('a client goes on with the old key within the window, and is refused after it', async (t) => {
  const server = await startTestServer(t)
  const path = '/user/codespaces/secrets'
  const { token } = server.admin
  const body = await server.seal(path, token, 'sealed before')
  const next = await rotate(server.db, server.keyring)
  t.equal((await server.request('PUT', `${path}/WITHIN`, { token, body })).statusCode, 201)

  const key = await server.request('GET', `${path}/public-key`, { token })
  t.equal(key.json().key_id, body.key_id, 'a node that has not reloaded still gives the old one')
  await changeGrace(server.db, body.key_id, 0)
  await loadGenerations(server.db, server.keyring)
  const after = await server.request('PUT', `${path}/AFTER`, { token, body })
  t.equal(after.statusCode, 422)
  t.match(after.json(), { errors: [{ field: 'key_id' }] })
  t.equal((await server.request('GET', `${path}/AFTER`, { token })).statusCode, 404)

  const fresh = await server.seal(path, token, 'sealed after')
  t.equal(fresh.key_id, next)
  t.equal((await server.request('PUT', `${path}/AFTER`, { token, body: fresh })).statusCode, 201)
  t.equal((await server.reveal('user', server.admin.account.uid, 'WITHIN'))?.toString(), 'sealed before')
})
