import { sql } from 'kysely'
import { Octokit } from 'octokit'
import t, { type Test } from 'tap'
import { startTestServer } from '../helper.ts'

// The `octokit` package with its own plugins for throttling and for retrying, as it comes.

interface Notice {
  kind: 'primary' | 'secondary'
  retryAfter: number
  url: string
}

async function prepare(t: Test, wantRetry: boolean) {
  const server = await startTestServer(t, {
    logLevel: 'warn',
    publicUrl: null,
    rateLimits: { core: 3, codespaces: 3, graphql: 3, address: 3, store: 'database' }
  })
  const token = await server.createToken(await server.createUser('mona'), { scopes: ['codespace'] })
  const notices: Notice[] = []
  const notice = (kind: Notice['kind']) => (retryAfter: number, options: { url: string }) => {
    notices.push({ kind, retryAfter, url: options.url })
    return wantRetry
  }
  const octokit = new Octokit({
    baseUrl: `${await server.listen()}/api/v3`,
    auth: token,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    throttle: {
      onRateLimit: notice('primary') as never,
      onSecondaryRateLimit: notice('secondary') as never,
      // so many milliseconds for each second to wait
      retryAfterBaseValue: 500
    }
  })
  return { server, octokit, notices }
}

t.test(
  'octokit sees the limit as GitHub’s primary one, and hands it on where no retry is wanted',
  async (t) => {
    const { octokit, notices } = await prepare(t, false)
    for (let used = 1; used <= 3; used += 1) {
      const { headers } = await octokit.rest.users.getAuthenticated()
      t.equal(headers['x-ratelimit-remaining'], String(3 - used))
    }
    const error = await octokit.rest.users.getAuthenticated().then(
      () => t.fail('refused'),
      (error) => error
    )
    t.equal(error.name, 'HttpError')
    t.equal(error.status, 403)
    t.match(
      error.message,
      /^API rate limit exceeded for token ID \d+: .* - https:\/\/docs\.github\.com\/rest\//
    )
    t.equal(error.response.headers['x-ratelimit-remaining'], '0')
    t.match(notices, [{ kind: 'primary', url: '/user' }])
    t.equal(notices.length, 1, 'asked once, and retried by neither plugin')
    const { retryAfter } = notices[0]!
    t.ok(retryAfter > 3500 && retryAfter <= 3602, `it would wait for the window to end: ${retryAfter} s`)

    const { data } = await octokit.rest.rateLimit.get()
    t.match(data.resources, { core: { remaining: 0 }, codespaces: { used: 0 } })
    const { headers } = await octokit.rest.codespaces.listSecretsForAuthenticatedUser()
    t.equal(headers['x-ratelimit-resource'], 'codespaces', 'other resources go on')
  }
)

t.test('octokit waits for the end of the window, and is let in', async (t) => {
  const { server, octokit, notices } = await prepare(t, true)
  for (let used = 1; used <= 3; used += 1) await octokit.rest.users.getAuthenticated()
  await server.db
    .updateTable('rate_limits')
    .set({ resets_at: sql<Date>`date_trunc('second', now()) + interval '1 second'` })
    .execute()
  const { status, headers } = await octokit.rest.users.getAuthenticated()
  t.equal(status, 200)
  t.equal(headers['x-ratelimit-used'], '1', 'in a new window')
  t.ok(notices.length <= 2, 'after one wait, or two where the second just turned')
  for (const { kind, retryAfter } of notices) {
    t.equal(kind, 'primary')
    t.ok(retryAfter <= 2)
  }
})
