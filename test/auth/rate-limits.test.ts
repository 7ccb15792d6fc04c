import t from 'tap'
import { addressSubject, RateLimits, tokenSubject } from '../../src/auth/rate-limits.ts'
import { MemoryWindows } from '../../src/auth/windows.ts'
import { RateLimited } from '../../src/errors.ts'

const SETTINGS = { core: 2, codespaces: 3, graphql: 4, address: 1, store: 'memory' } as const

function start() {
  let now = 1_000_000_500
  const windows = new MemoryWindows(() => now)
  const asked: string[] = []
  const count = windows.count.bind(windows)
  windows.count = (subject, resource, limit, seconds) => {
    asked.push(`${subject} ${resource}`)
    return count(subject, resource, limit, seconds)
  }
  const limits = new RateLimits(SETTINGS, windows, () => now)
  const pass = (milliseconds: number) => {
    now += milliseconds
  }
  return { limits, windows, asked, pass }
}

const MONA = tokenSubject(1000)

t.test('each resource has its limit, an address one of its own', async (t) => {
  const { limits } = start()
  t.match(await limits.count(MONA, 'core'), { resource: 'core', limit: 2, used: 1 })
  t.match(await limits.count(MONA, 'codespaces'), { resource: 'codespaces', limit: 3, used: 1 })
  t.match(await limits.count(addressSubject('192.0.2.1'), 'core'), { resource: 'core', limit: 1, used: 1 })
  t.match(await limits.overview(MONA), {
    core: { limit: 2, used: 1 },
    codespaces: { limit: 3, used: 1 },
    graphql: { limit: 4, used: 0 }
  })
})

t.test('a refusal says by what, how much, and until when', async (t) => {
  const { limits } = start()
  await limits.count(MONA, 'core')
  await limits.count(MONA, 'core')
  await t.rejects(limits.count(MONA, 'core'), {
    constructor: RateLimited,
    status: 403,
    counted: 'token',
    standing: { resource: 'core', limit: 2, used: 2, reset: 1_003_601 },
    retryAfterSeconds: 3601,
    message:
      'API rate limit exceeded for token ID 1000: 2 requests an hour (core). It resets at 1970-01-12T14:46:41Z.'
  })
  await limits.count(addressSubject('192.0.2.1'), 'core')
  await t.rejects(limits.count(addressSubject('192.0.2.1'), 'core'), {
    counted: 'address',
    message: /^API rate limit exceeded for your address, without a valid token: 1 requests an hour \(core\)\./
  })
})

t.test('a refusal is repeated from memory for a second, then asked for again', async (t) => {
  const { limits, windows, asked, pass } = start()
  const { reset } = await limits.count(MONA, 'core')
  await limits.count(MONA, 'core')
  await t.rejects(limits.count(MONA, 'core'))
  t.equal(asked.length, 3)
  for (let index = 0; index < 5; index += 1) t.throws(() => limits.count(MONA, 'core'), RateLimited)
  t.equal(asked.length, 3, 'nobody was asked')
  await limits.count(MONA, 'codespaces')
  await limits.count(tokenSubject(1001), 'core')
  t.equal(asked.length, 5, 'neither another resource nor another token is refused with it')
  await windows.giveBack('token 1000', 'core', reset)
  pass(1000)
  t.match(await limits.count(MONA, 'core'), { used: 2 })
})

t.test('a refusal is forgotten when its window ends', async (t) => {
  const { limits, pass } = start()
  await limits.count(MONA, 'core')
  await limits.count(MONA, 'core')
  pass(3600 * 1000)
  await t.rejects(limits.count(MONA, 'core'), {
    constructor: RateLimited,
    retryAfterSeconds: 1
  } as object as Error)
  pass(500)
  t.match(await limits.count(MONA, 'core'), { used: 1 })
})

t.test('what is given back is not used, whatever became of the window', async (t) => {
  const { limits, pass } = start()
  const standing = await limits.count(MONA, 'core')
  await limits.count(MONA, 'core')
  t.match(await limits.giveBack(MONA, standing), { used: 1, limit: 2, reset: standing.reset })
  pass(2 * 3600 * 1000)
  t.match(await limits.giveBack(MONA, standing), { used: 0, reset: standing.reset })
})
