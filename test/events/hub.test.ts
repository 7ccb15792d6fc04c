import t, { type Test } from 'tap'
import type { Actor } from '../../src/auth/actor.ts'
import { EventHub, type Sink, type StreamRequest } from '../../src/events/hub.ts'
import { MAX_SIGHTINGS, Sightings } from '../../src/events/sightings.ts'
import { openDatabase } from '../../src/store/database.ts'

// What happens on real servers is in test/routes/rpc/watch-events.test.ts; here is what they do not come to.

const ORGANIZATION = crypto.randomUUID()
const EVENT = JSON.stringify({
  stream: ORGANIZATION,
  action: 'project.create',
  collection: null,
  subject: crypto.randomUUID()
})

function request(tokenId: number): StreamRequest {
  return {
    actor: {
      accountId: 1,
      accountUid: crypto.randomUUID(),
      kind: 'user',
      token: { expiresAt: null }
    } as Actor,
    acting: { tokenId, actorId: 1 },
    organization: { organization_uid: ORGANIZATION, role: 'admin' } as StreamRequest['organization'],
    tokenKey: 'key',
    filters: []
  }
}

/** A hub whose database is away. */
function makeHub(t: Test, onError: (error: unknown) => void = () => {}) {
  const db = openDatabase({ connection: 'postgres://nobody@127.0.0.1:1/none', poolSize: 1, prepare: true })
  const hub = new EventHub(db, { isValid: async () => true }, { onError })
  t.teardown(async () => {
    hub.close()
    await db.destroy()
  })
  return hub
}

class Recorder implements Sink {
  readonly ended: Promise<void>
  hasEnded = false
  end!: () => void

  constructor() {
    this.ended = new Promise((resolve) => {
      this.end = () => {
        this.hasEnded = true
        resolve()
      }
    })
  }

  send(): void {
    throw new Error('nothing may be sent')
  }

  keepAlive(): void {}
}

t.test('where nobody can be asked who may know of an event, streams end', async (t) => {
  const errors: unknown[] = []
  const hub = makeHub(t, (error) => errors.push(error))
  const sink = new Recorder()
  const begin = await hub.admit(request(1))
  begin(sink)
  hub.receive(EVENT)
  await sink.ended
  t.equal(errors.length, 1)
})

t.test('what waits is bounded', async (t) => {
  const hub = makeHub(t)
  const sink = new Recorder()
  const begin = await hub.admit(request(1))
  begin(sink)
  for (let events = 0; events < 10_001; events++) hub.receive(EVENT)
  t.notOk(sink.hasEnded)
  hub.receive(EVENT)
  t.ok(sink.hasEnded)
})

t.test('a hub that is closed takes no streams, and ends those that were about to begin', async (t) => {
  const hub = makeHub(t)
  const begin = await hub.admit(request(1))
  hub.close()
  const sink = new Recorder()
  begin(sink)
  t.ok(sink.hasEnded)
  await t.rejects(hub.admit(request(1)), { code: 'unavailable' })
})

t.test('sightings are bounded, for one and for all', async (t) => {
  const [first, second] = [{}, {}]
  const sightings = new Sightings<object>(3)
  for (const uid of ['a', 'b', 'a', 'c']) sightings.add(first, uid)
  t.ok(['a', 'b', 'c'].every((uid) => sightings.has(first, uid)))
  sightings.add(first, 'd')
  t.notOk(sightings.has(first, 'b'), 'the oldest goes')
  t.ok(['a', 'c', 'd'].every((uid) => sightings.has(first, uid)))
  sightings.add(second, 'a')
  t.notOk(sightings.has(second, 'a'), 'there is no room')
  sightings.remove(first, 'a')
  sightings.remove(first, 'a')
  sightings.add(second, 'a')
  t.ok(sightings.has(second, 'a'))
  sightings.forget(first)
  for (const uid of ['b', 'c']) sightings.add(second, uid)
  t.ok(['a', 'b', 'c'].every((uid) => sightings.has(second, uid)))

  const roomy = new Sightings<object>()
  for (let uid = 0; uid <= MAX_SIGHTINGS; uid++) roomy.add(first, String(uid))
  t.notOk(roomy.has(first, '0'))
  t.ok(roomy.has(first, '1'))
  t.ok(roomy.has(first, String(MAX_SIGHTINGS)))
})
