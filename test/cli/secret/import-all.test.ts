import t from 'tap'
import { Patience } from '../../../src/cli/patience.ts'
import { readCollection } from '../../../src/cli/secret/collection.ts'
import type { Variable } from '../../../src/cli/secret/env-file.ts'
import { importAll } from '../../../src/cli/secret/import-all.ts'
import { fetchPublicKey } from '../../../src/cli/secret/secrets-api.ts'
import { type Asked, clientOf, makeBoxes, type Scripted, startScripted } from './helper.ts'

const REPO = readCollection({ repo: { owner: 'mona', name: 'web' } })

/** A client whose waits take no time. */
function instantClient(url: string, signal?: AbortSignal) {
  let now = 0
  const patience = new Patience({
    maxWaitSeconds: 300,
    say: () => {},
    now: () => now,
    wait: async (ms) => {
      now += ms
    },
    ...(signal && { signal })
  })
  return { ...clientOf(url), patience }
}

async function start(
  t: import('tap').Test,
  names: readonly string[],
  answer: (name: string, asked: Asked) => Scripted | Promise<Scripted>,
  { parallel = 1, signal = new AbortController().signal } = {}
) {
  const boxes = makeBoxes()
  const server = await startScripted(t, (asked) =>
    asked.method === 'GET' ? boxes.publicKey : answer(asked.path.split('/').at(-1)!, asked)
  )
  const client = instantClient(server.url, signal)
  const variables: Variable[] = names.map((name, index) => ({
    line: index + 1,
    name,
    value: Buffer.from(`value of ${name}`)
  }))
  const said: string[] = []
  const progress = {
    step: (text: string) => said.push(text),
    say: (text: string) => said.push(text),
    clear() {}
  }
  const key = await fetchPublicKey(client, REPO)
  const selectionOf = async () => ({})
  const outcome = await importAll(client, REPO, key, { variables, selectionOf, parallel, progress, signal })
  for (const { value, name } of variables)
    t.ok(
      value.every((byte) => byte === 0),
      `${name} is wiped`
    )
  const puts = server.asked.filter(({ method }) => method === 'PUT')
  return { outcome, said, puts, asked: server.asked, open: boxes.open }
}

const created = { status: 201, body: {} }
const updated = { status: 204 }
const refused = { status: 422, body: { message: 'Too large' } }

t.test('what is about one secret does not keep the others from being set', async (t) => {
  const { outcome, puts, said, open, asked } = await start(t, ['A', 'B', 'C', 'D', 'E'], (name) => {
    if (name === 'B') return refused
    if (name === 'D') return { status: 500, body: { message: 'Server Error' } }
    return name === 'C' ? updated : created
  })
  const { failed, ...rest } = outcome
  t.same(rest, { created: ['A', 'E'], updated: ['C'], notSent: [], stopped: false })
  t.same(failed, [
    { name: 'B', message: 'Too large (422, PUT /repos/mona/web/codespaces/secrets/B)' },
    { name: 'D', message: 'Server Error (500, PUT /repos/mona/web/codespaces/secrets/D)' }
  ])
  t.same(said, ['created A', 'failed B', 'updated C', 'failed D', 'created E'])
  const tries = (name: string) => puts.filter(({ path }) => path.endsWith(`/${name}`)).length
  t.equal(tries('B'), 1, 'a refusal is final')
  t.equal(tries('D'), 5, 'a failure may pass')
  t.equal(open(puts[0]!), 'value of A')
  t.equal(asked.filter(({ method }) => method === 'GET').length, 1, 'one key for all')
})

t.test('what will fail for all of them ends it', async (t) => {
  const ends: [string, Scripted, number][] = [
    ['no valid token', { status: 401, body: { message: 'Bad credentials' } }, 1],
    ['no right', { status: 403, body: { message: 'Must have admin rights to Repository.' } }, 1],
    ['no repository', { status: 404, body: { message: 'Not Found' } }, 1],
    ['renamed meanwhile', { status: 307, headers: { location: '/repositories/7' }, body: {} }, 1],
    ['no API any more', { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' }, 1],
    ['server away', { status: 503, body: { message: 'Service temporarily unavailable.' } }, 5],
    ['connection lost', { status: 0, hangUp: true }, 5],
    [
      'a limit for longer than there is patience',
      { status: 429, headers: { 'retry-after': '900' }, body: {} },
      1
    ]
  ]
  for (const [why, answer, tries] of ends) {
    const { outcome, puts } = await start(t, ['A', 'B', 'C', 'D'], (name) =>
      name === 'A' ? created : answer
    )
    t.same(outcome.created, ['A'], why)
    t.same(
      outcome.failed.map(({ name }) => name),
      ['B'],
      why
    )
    t.same(outcome.notSent, ['C', 'D'], why)
    t.equal(puts.length, 1 + tries, why)
  }
})

t.test('limits and failures that pass are waited for', async (t) => {
  const seen = new Map<string, number>()
  const { outcome, puts } = await start(
    t,
    ['A', 'B', 'C', 'D', 'E', 'F'],
    (name) => {
      const count = (seen.get(name) ?? 0) + 1
      seen.set(name, count)
      if (name === 'B' && count < 3) return { status: 429, headers: { 'retry-after': '2' }, body: {} }
      if (name === 'D' && count < 2)
        return { status: 502, headers: { 'content-type': 'text/html' }, body: '<html>' }
      if (name === 'E' && count < 2) return { status: 0, hangUp: true }
      return created
    },
    { parallel: 2 }
  )
  t.same(outcome.created, ['A', 'B', 'C', 'D', 'E', 'F'])
  t.equal(puts.length, 6 + 2 + 1 + 1)
})

t.test('no more requests at once than were asked for', async (t) => {
  let flying = 0
  let most = 0
  let release = () => {}
  const full = new Promise<void>((resolve) => {
    release = resolve
  })
  const names = Array.from({ length: 12 }, (_, index) => `N${index}`)
  const { outcome } = await start(
    t,
    names,
    async () => {
      flying += 1
      most = Math.max(most, flying)
      if (flying === 3) release()
      await full
      flying -= 1
      return created
    },
    { parallel: 3 }
  )
  t.equal(most, 3)
  t.same(outcome.created, names, "in the file's order")
})

t.test('Ctrl-C lets requests under way end, sends no more, and says what was done', async (t) => {
  const controller = new AbortController()
  const { outcome, said, puts } = await start(
    t,
    ['A', 'B', 'C', 'D'],
    (name) => {
      if (name === 'B') controller.abort()
      return created
    },
    { signal: controller.signal }
  )
  t.same(outcome, { created: ['A', 'B'], updated: [], failed: [], notSent: ['C', 'D'], stopped: true })
  t.equal(puts.length, 2)
  t.match(said[1], /^Stopping when the requests under way are answered/)
})

t.test('Ctrl-C while it waits to try again ends the wait', async (t) => {
  const controller = new AbortController()
  const { outcome } = await start(
    t,
    ['A', 'B', 'C'],
    (name) => {
      if (name !== 'B') return created
      controller.abort()
      return { status: 503, headers: { 'retry-after': '200' }, body: {} }
    },
    { signal: controller.signal }
  )
  t.same(outcome.created, ['A'])
  t.same(outcome.failed, [{ name: 'B', message: 'Stopped while it waited to try again.' }])
  t.same(outcome.notSent, ['C'])
})
