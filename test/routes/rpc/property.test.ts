import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import type { Response } from 'light-my-request'
import t, { type Test } from 'tap'
import { ACCESS } from '../../../src/auth/access.ts'
import { makeToken } from '../../../src/auth/token.ts'
import { decode } from '../../../src/routes/rpc/decode.ts'
import { type Code, STATUSES } from '../../../src/routes/rpc/errors.ts'
import { type Method, pathOf } from '../../../src/routes/rpc/method.ts'
import { type OnaDependencies, onaServices } from '../../../src/routes/rpc/ona.ts'
import type { Account } from '../../../src/store/accounts.ts'
import { isConsistent } from '../../consistency.ts'
import { stored } from '../github/refusal.ts'
import { startOnaServer } from './helper.ts'
import { anyMessage, anything, MARKER, mutated, type Schema } from './messages.ts'

t.setTimeout(180_000)

/** For all methods together, and for each property besides. */
const METHODS_MS = 24_000
const READ_MS = 5000
const CLOCK_MS = 2500

const server = await startOnaServer(t, { maxSecrets: 100_000 })

/** Stands in for whatever services are built with: their handlers do not run. */
const nothing: unknown = new Proxy(() => nothing, { get: () => nothing })

const methods = onaServices(new Proxy({}, { get: () => nothing }) as OnaDependencies).flatMap((service) =>
  service.methods.map((method: Pick<Method, 'name' | 'access' | 'request'>) => ({
    path: pathOf(service, method),
    access: ACCESS[method.access].on as string,
    request: method.request as unknown as Schema,
    stream: 'stream' in method && method.stream === true
  }))
)

/** Who asks, and ids of what is there: made anew when a property has removed too much of it. */
interface Stage {
  tokens: string[]
  ids: string[]
}

let stages = 0
let stage: Stage

async function setStage(): Promise<Stage> {
  const number = ++stages
  const make = async (role: string) => {
    const account = await server.createUser(`${role}-${number}`)
    return {
      account,
      token: await server.createToken(account, {
        scopes: ['repo', 'codespace', 'admin:org', 'read:audit_log']
      })
    }
  }
  const [owner, member] = [await make('owner'), await make('member')]
  const organization: Account = await server.createOrganization(`organization-${number}`, owner.account)
  await server.addMember(organization, member.account)
  const narrow = await server.createToken(owner.account, { scopes: ['codespace:secrets', 'read:org'] })
  const ids = [organization.uid, owner.account.uid, member.account.uid]
  for (const name of ['one', 'two']) {
    const { body } = await server.call('ProjectService/CreateProject', owner.token, { name, initializer: {} })
    ids.push(body.project.id)
    const scopes = [
      { projectId: body.project.id },
      { userId: owner.account.uid },
      { organizationId: organization.uid }
    ]
    for (const scope of scopes) {
      const secret = { name: `kept_${name}`, value: MARKER, apiOnly: true, scope }
      ids.push((await server.call('SecretService/CreateSecret', owner.token, secret)).body.secret.id)
    }
  }
  const rows = await server.db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .innerJoin('groups as g', 'g.organization_id', 'r.organization_id')
    .select(['c.uid as class', 'r.uid as runner', 'g.uid as group'])
    .where('r.organization_id', '=', organization.id)
    .execute()
  for (const row of rows) ids.push(row.class, row.runner, row.group)
  return { tokens: [owner.token, owner.token, owner.token, member.token, narrow, server.stranger.token], ids }
}

async function isWhole({ tokens }: Stage): Promise<boolean> {
  const { status, body } = await server.call('ProjectService/ListProjects', tokens[0], {})
  return status === 200 && body.projects?.length > 0
}

let last = ''
let running: Promise<unknown> = Promise.resolve()

interface Asked {
  method?: 'POST' | 'GET' | 'PUT' | 'HEAD' | 'DELETE' | 'OPTIONS' | 'PATCH'
  token?: string | undefined
  body?: string | undefined
  headers?: Record<string, string>
  stream?: boolean
  /** texts that must not come back, besides MARKER */
  secret?: readonly string[]
  /** failed logins are counted by it */
  address?: string
}

/** The answer; of a stream only how it begins. */
async function request(
  url: string,
  { method = 'POST', token, body, headers, stream, address }: Asked
): Promise<Response> {
  const response = await server.app.inject({
    method,
    url,
    ...(address && { remoteAddress: address }),
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
    ...(body !== undefined && { payload: body }),
    ...(stream && { payloadAsStream: true })
  })
  if (!stream) return response
  const reader = response.stream()
  if (response.statusCode === 200) {
    reader.destroy()
    return response
  }
  const chunks: Buffer[] = []
  for await (const chunk of reader) chunks.push(chunk)
  return Object.assign(response, { body: Buffer.concat(chunks).toString() })
}

/** One at a time: at its time limit fast-check does not wait for the run that it is in. */
function check(url: string, asked: Asked): Promise<number> {
  const result = running.then(() => checkAlone(url, asked))
  running = result.catch(() => {})
  return result
}

/** What holds for every answer, whatever was asked. */
async function checkAlone(url: string, asked: Asked): Promise<number> {
  const before = last
  server.log.length = 0
  const response = await request(url, asked)
  const { statusCode: status, headers } = response
  const said = `${url} ${asked.body?.slice(0, 300)} → ${status} ${status === 200 ? '' : response.body.slice(0, 300)}`
  if (status >= 500 && status !== 501) throw new Error(`an error of the server: ${said}`)
  if (!headers['x-request-id']) throw new Error(`no request id: ${said}`)
  if (!asked.stream && headers['content-type'] !== 'application/json') throw new Error(`no JSON: ${said}`)
  if (status !== 200) requireConnectError(response, said, asked.method)
  if (status !== 200) {
    const answer = JSON.stringify(headers) + response.body
    for (const text of [MARKER, ...(asked.secret ?? [])]) {
      if (text !== '' && answer.includes(text)) throw new Error(`it comes back: ${said}`)
    }
  }
  const lines = server.log.join('')
  if (lines.includes(MARKER)) throw new Error(`it is logged: ${said}`)
  if (/"level":"(error|fatal)"/.test(lines)) throw new Error(`an error is logged: ${said} ${lines}`)
  last = JSON.stringify(await stored(server.db))
  if (status !== 200 && last !== before) throw new Error(`something was stored: ${said}`)
  return status
}

function requireConnectError({ statusCode, headers, body }: Response, said: string, method?: string): void {
  const { code, message, details, ...rest } = JSON.parse(body)
  const expected = STATUSES[code as Code]
  const known =
    statusCode === expected ||
    (code === 'unimplemented' && [404, 405, 415].includes(statusCode)) ||
    method === 'HEAD'
  const complete =
    known &&
    typeof message === 'string' &&
    message !== '' &&
    Object.keys(rest).length === 0 &&
    (details === undefined || (Array.isArray(details) && details.length > 0)) &&
    /^(true|false)$/.test(String(headers['x-should-retry']))
  if (!complete) throw new Error(`not Connect's form of an error: ${said}`)
}

/** Runs within a time, so that the whole file stays short; says which answers came. */
async function holds(
  t: Test,
  property: (seen: (status: number) => void) => fc.IAsyncProperty<unknown>,
  { milliseconds = CLOCK_MS, least = 10 } = {}
): Promise<Map<number, number>> {
  if (!stage || !(await isWhole(stage))) stage = await setStage()
  last = JSON.stringify(await stored(server.db))
  const statuses = new Map<number, number>()
  const seen = (status: number) => void statuses.set(status, (statuses.get(status) ?? 0) + 1)
  const details = await fc.check(property(seen) as fc.IAsyncProperty<[unknown]>, {
    numRuns: 3000,
    interruptAfterTimeLimit: milliseconds,
    // Not skipped: a method with few messages would run out of them, which counts as a failure.
    ignoreEqualValues: true,
    endOnFailure: true
  })
  await running
  const runs = [...statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${count} × ${status}`)
  t.comment(`${details.numRuns} runs: ${runs.join(', ')}`)
  const { failed, counterexample, seed, errorInstance } = details
  t.notOk(failed, failed ? `${errorInstance} for ${fc.stringify(counterexample)}, seed ${seed}` : 'it holds')
  t.ok(details.numRuns >= least, `ran ${details.numRuns} times`)
  return statuses
}

/** Mostly of what is there. */
const anyId = fc.oneof(
  { weight: 6, arbitrary: fc.nat().map((n) => stage.ids[n % stage.ids.length]!) },
  { weight: 1, arbitrary: fc.constant(null).map(() => randomUUID()) },
  { weight: 1, arbitrary: fc.uuid() }
)
const anyToken = fc.nat().map((n) => stage.tokens[n % stage.tokens.length]!)
const anyPrefix = fc.constantFrom('', '/api')

t.test('messages that are right are read, and read the same again', async (t) => {
  stage = await setStage()
  for (const { path, request } of methods) {
    const schema = request as unknown as Method['request']
    const details = fc.check(
      fc.property(anyMessage(request, anyId), (message) => {
        const once = decode(schema, message as object)
        if (JSON.stringify(decode(schema, once)) !== JSON.stringify(once)) throw new Error('read otherwise')
      }),
      { numRuns: 200, interruptAfterTimeLimit: READ_MS / methods.length }
    )
    const { failed, counterexample, errorInstance } = details
    t.notOk(failed, failed ? `${path}: ${errorInstance} for ${fc.stringify(counterexample)}` : path)
  }
})

t.test('every method, with messages that are right and messages that are nearly so', async (t) => {
  const milliseconds = METHODS_MS / methods.length / 2
  for (const { path, request, stream } of methods) {
    const members = Object.keys(request.properties)
    const right = anyMessage(request, anyId)
    for (const message of [right, mutated(right, members)]) {
      const ask = fc.tuple(message, anyToken, anyPrefix)
      const statuses = await holds(
        t,
        (seen) =>
          fc.asyncProperty(ask, async ([json, token, prefix]) => {
            const body = JSON.stringify(json)
            seen(await check(`${prefix}${path}`, { token, body, stream }))
          }),
        { milliseconds, least: 1 }
      )
      t.comment(path, [...statuses.keys()].join(' '))
    }
  }
})

t.test('every method, with any JSON and any bytes', (t) => {
  const text = fc.oneof(
    anything.map((json) => JSON.stringify(json)),
    fc.json({ stringUnit: 'binary', maxDepth: 3 }),
    fc.string({ unit: 'binary', maxLength: 100 }).map((text) => MARKER + text),
    fc.constantFrom(
      '',
      '{',
      '[]',
      'null',
      '{"a":1e999}',
      '\ufeff{}',
      '{"__proto__":{"projectId":"1"}}',
      '{}{}'
    ),
    fc.constantFrom('[', '{"a":').map((open) => open.repeat(50_000))
  )
  return holds(t, (seen) =>
    fc.asyncProperty(fc.constantFrom(...methods), text, anyToken, async ({ path, stream }, body, token) => {
      seen(await check(path, { token, body, stream }))
    })
  )
})

t.test('every member, with anything', (t) => {
  const members = [...new Set(methods.flatMap(({ request }) => Object.keys(request.properties)))]
  const message = fc.dictionary(fc.constantFrom(...members), fc.oneof(anything, anyId), { maxKeys: 6 })
  return holds(t, (seen) =>
    fc.asyncProperty(
      fc.constantFrom(...methods),
      message,
      anyToken,
      async ({ path, stream }, json, token) => {
        seen(await check(path, { token, body: JSON.stringify(json), stream }))
      }
    )
  )
})

t.test('ids and tokens of pages', (t) => {
  const id = fc.oneof(
    anyId,
    anyId.map((id) => id.toUpperCase()),
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.base64String({ maxLength: 200 }),
    fc.integer(),
    fc.constantFrom(null, '', '__proto__', '../..', `${MARKER}%00`, '{}', '0')
  )
  const withIds = methods.filter(({ request }) =>
    Object.keys(request.properties).some((name) => /Id$/.test(name))
  )
  return holds(t, (seen) =>
    fc.asyncProperty(
      fc.constantFrom(...withIds),
      id,
      fc.webQueryParameters({ size: '-1' }),
      fc.base64String({ maxLength: 100 }),
      anyToken,
      async ({ path, request, stream }, id, query, page, token) => {
        const names = Object.keys(request.properties).filter((name) => /Id$/.test(name))
        const json = { ...Object.fromEntries(names.map((name) => [name, id])), pagination: { token: page } }
        const url = `${path}?${query}&token=${encodeURIComponent(page)}`
        seen(await check(url, { token, body: JSON.stringify(json), stream }))
      }
    )
  )
})

t.test('any path, and any HTTP method', (t) => {
  const segment = fc.oneof(
    fc.stringMatching(/^[!-"$-.0-~]{0,30}$/),
    fc.string({ unit: 'grapheme', maxLength: 20 }).map(encodeURIComponent),
    fc.constantFrom(
      '%',
      '%0',
      '%ZZ',
      '%C3%28',
      '%00',
      '%2F',
      '%2e%2e',
      '..',
      '',
      'SecretService',
      'ListSecrets'
    )
  )
  const path = fc.oneof(
    fc.tuple(segment, segment).map((segments) => `/gitpod.v1.${segments.join('/')}`),
    fc
      .tuple(fc.constantFrom(...methods), fc.constantFrom('/', '//', '/x', '%20', '?', '?%', ';x'))
      .map(([{ path }, end]) => path + end),
    fc.constantFrom(...methods).map(({ path }) => path.toLowerCase())
  )
  const verb = fc.constantFrom('POST', 'GET', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH')
  return holds(t, (seen) =>
    fc.asyncProperty(
      anyPrefix,
      path,
      verb,
      fc.option(anyToken, { nil: undefined }),
      async (prefix, path, method, token) => {
        // Dots lead elsewhere before they are sent, and a stream that is asked for is no other path.
        fc.pre(
          URL.canParse(prefix + path, 'http://localhost') &&
            /^(\/api)?\/gitpod\.v1\./.test(new URL(prefix + path, 'http://localhost').pathname) &&
            !methods.some((known) => known.stream && path.startsWith(known.path))
        )
        const status = await check(prefix + path, {
          method,
          token,
          headers: { 'x-http-method-override': 'POST' }
        })
        seen(status)
        if (method !== 'POST' && status !== 405) throw new Error(`${method} → ${status}`)
      }
    )
  )
})

t.test('any headers', (t) => {
  const text = fc.oneof(
    fc.stringMatching(/^[ -~]{0,60}$/),
    fc.constantFrom('', '*', '*/*', 'application/json', 'application/jsonl', '0', '-1', 'gzip')
  )
  const name = fc.constantFrom(
    'accept',
    'accept-encoding',
    'content-encoding',
    'content-type',
    'connect-protocol-version',
    'connect-timeout-ms',
    'x-stainless-retry-count',
    'user-agent',
    'host',
    'origin',
    'x-forwarded-for',
    'x-request-id',
    'range',
    'cookie',
    'if-match',
    'if-none-match'
  )
  const asked = methods.filter(({ stream }) => !stream)
  return holds(t, (seen) =>
    fc.asyncProperty(
      fc.constantFrom(...asked),
      fc.dictionary(name, text, { maxKeys: 5 }),
      anyToken,
      async ({ path }, headers, token) => {
        seen(await check(path, { token, headers, body: '{}' }))
      }
    )
  )
})

t.test('any credentials', (t) => {
  const authorization = fc.oneof(
    fc.stringMatching(/^[ -~]{0,80}$/),
    fc
      .tuple(
        fc.constantFrom('Bearer', 'token', 'Basic', 'bEaReR', 'Digest'),
        fc.stringMatching(/^[ -~]{0,300}$/)
      )
      .map((parts) => parts.join(' ')),
    fc
      .constantFrom('classic', 'environment', 'runner', 'service-account', 'fine-grained')
      .map((kind) => `Bearer ${makeToken(kind as 'classic')}`),
    anyToken.map((token) => `Bearer ${token.slice(0, -1)}`)
  )
  const guarded = methods.filter(({ access }) => access !== 'nobody')
  return holds(t, (seen) =>
    fc.asyncProperty(
      fc.constantFrom(...guarded),
      authorization,
      fc.constantFrom('{}', MARKER),
      fc.ipV4(),
      async ({ path, stream }, given, body, address) => {
        const token = given.split(' ').at(-1)!
        const secret = token.length > 20 ? [token] : []
        const status = await check(path, { headers: { authorization: given }, body, stream, secret, address })
        seen(status)
        if (status !== 401 && status !== 429) throw new Error(`let in: ${status}`)
      }
    )
  )
})

t.test('afterwards all is well', async (t) => {
  await isConsistent(t, server.db)
  const { status } = await server.call('SecretService/ListSecrets', server.owner.token, {})
  t.equal(status, 200)
  t.comment(`${methods.length} methods, ${stages} stages`)
})
