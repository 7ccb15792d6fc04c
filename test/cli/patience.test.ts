import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import type { Answer } from '../../src/cli/api-client.ts'
import { NoAnswer } from '../../src/cli/no-answer.ts'
import { Patience, Stopped } from '../../src/cli/patience.ts'

const START = Date.parse('2026-11-21T10:00:00Z')

/** A clock that only waiting moves; gives the waits in seconds. */
function patient(maxWaitSeconds = 300, signal?: AbortSignal) {
  const waits: number[] = []
  const said: string[] = []
  let now = START
  const patience = new Patience({
    maxWaitSeconds,
    say: (line) => said.push(line),
    now: () => now,
    wait: async (ms) => {
      waits.push(ms / 1000)
      const until = now + ms
      // Not before all that runs beside it has come to its wait.
      await nextTurn()
      now = Math.max(now, until)
    },
    ...(signal && { signal })
  })
  return { patience, waits, said }
}

type Outcome = { status: number; headers?: Record<string, string>; message?: string } | Error

function play(outcomes: Outcome[]): () => Promise<Answer> {
  const left = [...outcomes]
  return async () => {
    const next = left.shift()
    if (!next) throw new Error('it asked once too often')
    if (next instanceof Error) throw next
    const { status, headers = {}, message } = next
    return { status, headers: new Headers(headers), body: message ? { message } : {}, maybeDone: false }
  }
}

const ok = { status: 204 }
const lost = () => new NoAnswer('lost', true)

t.test('what passes is tried again, after the time that it asks for', async (t) => {
  const reset = String(START / 1000 + 30)
  const cases: [string, Outcome[], number[]][] = [
    ['retry-after in seconds', [{ status: 429, headers: { 'retry-after': '7' } }, ok], [7]],
    [
      'retry-after as a date, by the clock of the server',
      [
        {
          status: 429,
          headers: { 'retry-after': 'Sat, 21 Nov 2026 12:00:09 GMT', date: 'Sat, 21 Nov 2026 12:00:00 GMT' }
        },
        ok
      ],
      [9]
    ],
    ['a secondary limit with 403', [{ status: 403, headers: { 'retry-after': '3' } }, ok], [3]],
    [
      'a primary limit: until its reset, and a second more',
      [{ status: 403, headers: { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': reset } }, ok],
      [31]
    ],
    [
      'retry-after before the reset',
      [
        {
          status: 429,
          headers: { 'retry-after': '2', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': reset }
        },
        ok
      ],
      [2]
    ],
    ['no time named', [{ status: 403, message: 'You have exceeded a secondary rate limit.' }, ok], [60]],
    ['at once is too soon', [{ status: 429, headers: { 'retry-after': '0' } }, ok], [1]],
    [
      'failures of the server, with longer and longer waits',
      [{ status: 500 }, { status: 502 }, { status: 503 }, { status: 504 }, ok],
      [1, 2, 4, 8]
    ],
    ['a failure that names a time', [{ status: 503, headers: { 'retry-after': '5' } }, ok], [5]],
    [
      'a failure that names less',
      [{ status: 500 }, { status: 503, headers: { 'retry-after': '1' } }, ok],
      [1, 2]
    ],
    [
      'many limits',
      Array.from({ length: 9 }, () => ({ status: 429, headers: { 'retry-after': '1' } })).concat(ok as never),
      [1, 1, 1, 1, 1, 1, 1, 1, 1]
    ]
  ]
  for (const [name, outcomes, expected] of cases) {
    const { patience, waits, said } = patient()
    t.equal((await patience.through(play(outcomes))).status, 204, name)
    t.same(waits, expected, name)
    t.equal(said.length, expected.length, name)
  }
})

t.test('what will not pass is not tried again', async (t) => {
  const finals: Outcome[] = [
    { status: 200 },
    { status: 301 },
    { status: 400 },
    { status: 401 },
    { status: 403, message: 'Must have admin rights to Repository.' },
    { status: 403, headers: { 'x-ratelimit-remaining': '12' } },
    {
      status: 403,
      headers: { 'retry-after': '60' },
      message: 'Maximum number of login attempts exceeded. Please try again later.'
    },
    { status: 404, headers: { 'retry-after': '1' } },
    { status: 409 },
    { status: 412 },
    { status: 422 }
  ]
  for (const final of finals) {
    const { patience, waits } = patient()
    const { status } = final as { status: number }
    t.equal((await patience.through(play([final]))).status, status)
    t.same(waits, [])
  }
})

t.test('patience ends: after five failures, and when more is asked than is left of the time', async (t) => {
  const five = patient()
  t.equal((await five.patience.through(play(Array(5).fill({ status: 500 })))).status, 500)
  t.same(five.waits, [1, 2, 4, 8])

  const short = patient(10)
  const long = { status: 429, headers: { 'retry-after': '11' } }
  t.equal((await short.patience.through(play([long]))).status, 429)
  t.same(short.waits, [])

  const used = patient(10)
  const six = { status: 429, headers: { 'retry-after': '6' } }
  await used.patience.through(play([six, ok]))
  t.equal((await used.patience.through(play([six]))).status, 429, 'the time is for all requests together')
  t.same(used.waits, [6])

  const none = patient(0)
  t.equal((await none.patience.through(play([{ status: 503 }]))).status, 503)
  t.same(none.waits, [])
})

t.test('parallel requests wait for the same limit once', async (t) => {
  const { patience, waits, said } = patient(10)
  const limited = { status: 429, headers: { 'retry-after': '8' } }
  const answers = await Promise.all([1, 2, 3, 4].map(() => patience.through(play([limited, ok]))))
  t.same(
    answers.map(({ status }) => status),
    [204, 204, 204, 204]
  )
  t.equal(said.length, 1)
  t.same(waits, [8, 8, 8, 8])
})

t.test('a lost connection is tried again where the server has answered before, and only there', async (t) => {
  const first = patient()
  await t.rejects(first.patience.through(play([lost()])), { message: 'lost' })
  t.same(first.waits, [])

  const later = patient()
  t.equal((await later.patience.through(play([ok]))).maybeDone, false)
  const answer = await later.patience.through(play([lost(), lost(), ok]))
  t.equal(answer.maybeDone, true)
  t.same(later.waits, [1, 2])
  await t.rejects(later.patience.through(play(Array.from({ length: 5 }, lost))), { message: 'lost' })

  const untrusted = patient()
  await untrusted.patience.through(play([ok]))
  await t.rejects(untrusted.patience.through(play([new NoAnswer('no trust', false)])), /no trust/)
  await t.rejects(untrusted.patience.through(play([new TypeError('a defect')])), /a defect/)
  t.same(untrusted.waits, [])
})

t.test('what a limit refused was not done, what failed may have been', async (t) => {
  const { patience } = patient()
  const limited = { status: 429, headers: { 'retry-after': '1' } }
  t.equal((await patience.through(play([limited, { status: 404 }]))).maybeDone, false)
  t.equal((await patience.through(play([{ status: 502 }, { status: 404 }]))).maybeDone, true)
})

t.test('Ctrl-C ends a wait, and nothing more is sent', async (t) => {
  const controller = new AbortController()
  const patience = new Patience({
    maxWaitSeconds: 300,
    say: () => controller.abort(),
    signal: controller.signal
  })
  const stopped = await patience.through(play([{ status: 429, headers: { 'retry-after': '200' } }])).then(
    () => new Error('it was not stopped'),
    (error) => error
  )
  t.type(stopped, Stopped)
  t.equal(stopped.sent, true)
  const next = await patience.through(play([])).catch((error) => error)
  t.type(next, Stopped)
  t.equal(next.sent, false)
})
