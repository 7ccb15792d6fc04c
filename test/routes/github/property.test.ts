import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { App, CollectionKind } from '../../../src/apps.ts'
import { makeToken } from '../../../src/auth/token.ts'
import { sealFor, startTestServer, type TestRequest } from '../../helper.ts'
import { stored } from './refusal.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/octo-org/codespaces/secrets'
const ENVIRONMENT = '/repos/mona/web/environments/production/secrets'
const COLLECTIONS = [REPO, USER, ORG, ENVIRONMENT]
const CLOCK_MS = 1700

const server = await startTestServer(t, { maxSecrets: 100_000, logLevel: 'error' })
const mona = await server.createUser('mona')
await server.createUser('octocat')
const repositoryId = await server.createRepository(mona, 'web')
const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
const organization = await server.createOrganization('octo-org', mona)
const ownIds: number[] = []
for (const name of ['one', 'two', 'three']) ownIds.push(await server.createRepository(organization, name))
await server.request('PUT', '/repos/mona/web/environments/production', { token })
const keys: Record<string, { key: string; key_id: string }> = {}
for (const path of COLLECTIONS) {
  const body = { ...(await server.seal(path, token, 'stays')), ...(path === ORG && { visibility: 'all' }) }
  await server.request('PUT', `${path}/KEPT`, { token, body })
  keys[path] = (await server.request('GET', `${path}/public-key`, { token })).json()
}

const uidOf = async (table: 'repositories' | 'deployment_environments', column: 'id' | 'repository_id') =>
  (
    await server.db
      .selectFrom(table as 'repositories')
      .select('uid')
      .where(column as 'id', '=', repositoryId)
      .executeTakeFirstOrThrow()
  ).uid
const owners: Record<string, [App, CollectionKind, string]> = {
  [REPO]: ['codespaces', 'repository', await uidOf('repositories', 'id')],
  [USER]: ['codespaces', 'user', mona.uid],
  [ORG]: ['codespaces', 'organization', organization.uid],
  [ENVIRONMENT]: [
    'actions',
    'deployment-environment',
    await uidOf('deployment_environments', 'repository_id')
  ]
}

type Method = 'GET' | 'HEAD' | 'PUT' | 'POST' | 'PATCH' | 'DELETE' | 'OPTIONS'

let last = JSON.stringify(await stored(server.db))
let running: Promise<unknown> = Promise.resolve()

/** One at a time: at its time limit fast-check does not wait for the run that it is in. */
function check(method: Method, url: string, request: TestRequest): Promise<number> {
  const result = running.then(() => checkAlone(method, url, request))
  running = result.catch(() => {})
  return result
}

/** What holds for every answer, whatever was asked. */
async function checkAlone(method: Method, url: string, request: TestRequest): Promise<number> {
  const before = last
  const response = await server.request(method, url, request)
  const { statusCode: status, body } = response
  const said = `${method} ${JSON.stringify(url)} → ${status} ${body.slice(0, 300)}`
  if (status >= 500) throw new Error(`an error of the server: ${said}`)
  if (!response.headers['x-github-request-id'] && !url.startsWith('/docs'))
    throw new Error(`no request id: ${said}`)
  if (status >= 400 && method !== 'HEAD') {
    const { message, documentation_url, status: text, ...rest } = JSON.parse(body)
    const complete =
      response.headers['content-type'] === 'application/json; charset=utf-8' &&
      typeof message === 'string' &&
      /^https:\/\/docs\.github\.com\//.test(documentation_url) &&
      text === String(status) &&
      Object.keys(rest).every((name) => name === 'errors')
    if (!complete) throw new Error(`not GitHub's body of an error: ${said}`)
  }
  last = JSON.stringify(await stored(server.db))
  const changed = last !== before
  const may = status === 201 || status === 204 || (status === 200 && (method === 'PATCH' || method === 'PUT'))
  if (changed && !may) throw new Error(`something was stored: ${said}`)
  if (changed && (method === 'GET' || method === 'HEAD' || method === 'OPTIONS'))
    throw new Error(`a read wrote: ${said}`)
  return status
}

/** Runs within a time, so that the whole file stays short; says which answers came. */
async function holds(
  t: Test,
  property: (seen: (status: number) => void) => fc.IAsyncProperty<unknown>
): Promise<void> {
  const statuses = new Map<number, number>()
  const seen = (status: number) => void statuses.set(status, (statuses.get(status) ?? 0) + 1)
  const details = await fc.check(property(seen) as fc.IAsyncProperty<[unknown]>, {
    numRuns: 2000,
    interruptAfterTimeLimit: CLOCK_MS,
    skipEqualValues: true
  })
  await running
  const runs = [...statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${count} × ${status}`)
  t.comment(`${details.numRuns} runs: ${runs.join(', ')}`)
  const { failed, counterexample, seed, errorInstance } = details
  t.notOk(failed, failed ? `${errorInstance} for ${fc.stringify(counterexample)}, seed ${seed}` : 'it holds')
  t.ok(details.numRuns >= 20, `ran ${details.numRuns} times`)
}

const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc.string({ maxLength: 300 }),
  fc.constantFrom(
    '',
    '\0',
    '..',
    '.',
    '%',
    '__proto__',
    'constructor',
    'public-key',
    'KEPT',
    'mona',
    'web',
    'GITHUB_A'
  )
)
const segment = fc.oneof(
  // Lone surrogates have no percent-encoding.
  anyText.map((text) => encodeURIComponent(Buffer.from(text).toString())),
  fc.stringMatching(/^[!-"$-.0-~]{0,30}$/),
  fc.constantFrom('%', '%0', '%ZZ', '%C3%28', '%00', '%2F', '%2e%2e', 'a%')
)
const name = fc.oneof(segment, fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_]{0,20}$/))
const anyId = fc.oneof(
  fc.integer().map(String),
  fc.bigInt().map(String),
  fc.double().map(String),
  fc.constantFrom(String(repositoryId), '0', '-1', '9223372036854775808', '1e400', 'abc'),
  segment
)

const anyJson = fc.oneof(
  fc.jsonValue({ maxDepth: 4 }).map((value) => JSON.stringify(value)),
  fc.json({ stringUnit: 'binary', maxDepth: 3 }),
  fc.string({ unit: 'binary', maxLength: 100 }),
  fc.constantFrom('', '{', '[]', 'null', '{"a":1e999}', '{"__proto__":{"key_id":"1"}}', '\ufeff{}')
)
const anyValue = fc.oneof(
  anyText,
  fc.jsonValue({ maxDepth: 2 }),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(null, true, [], {}, 'private', 'public', 'all', 'selected', 'push', 'read', 'write')
)
const MEMBERS = [
  'encrypted_value',
  'key_id',
  'selected_repository_ids',
  'visibility',
  'name',
  'private',
  'description',
  'default_branch',
  'login',
  'admin',
  'email',
  'site_admin',
  'profile_name',
  'scopes',
  'permissions',
  'repositories',
  'all_repositories',
  'note',
  'expires',
  'permission'
]
const anyObject = fc
  .uniqueArray(fc.tuple(fc.constantFrom(...MEMBERS), anyValue), {
    selector: ([member]) => member,
    maxLength: 6
  })
  .map((members) => JSON.stringify(Object.fromEntries(members)))
const anyBody = fc.oneof(fc.constant(undefined), anyJson, { weight: 3, arbitrary: anyObject })

/** Every route, with what may stand in its path. */
const anyUrl = fc
  .tuple(
    fc.constantFrom(
      '/',
      '/user',
      '/user/repos',
      '/users/:s',
      '/orgs/:s',
      '/orgs/:s/repos',
      '/meta',
      '/versions',
      '/rate_limit',
      '/admin/users',
      '/admin/organizations',
      '/admin/users/:s',
      '/admin/users/:s/authorizations',
      '/repos/:s/:s',
      '/repos/mona/:s',
      '/repositories/:i',
      '/repositories/:i/codespaces/secrets',
      '/repositories/:i/codespaces/secrets/:n',
      '/repos/mona/web/collaborators',
      '/repos/mona/web/collaborators/:s',
      '/repos/mona/web/collaborators/:s/permission',
      REPO,
      `${REPO}/public-key`,
      `${REPO}/:n`,
      '/repos/:s/:s/codespaces/secrets',
      '/repos/mona/:s/codespaces/secrets/:n',
      USER,
      `${USER}/public-key`,
      `${USER}/:n`,
      `${USER}/:n/repositories`,
      `${USER}/KEPT/repositories`,
      `${USER}/KEPT/repositories/:i`,
      `${USER}/:n/repositories/:i`,
      ORG,
      `${ORG}/:n`,
      `${ORG}/KEPT/repositories`,
      `${ORG}/:n/repositories/:i`,
      '/orgs/:s/actions/secrets/:n',
      '/orgs/octo-org/members',
      '/orgs/octo-org/memberships/:s',
      '/orgs/:s/memberships/:s',
      '/organizations/:i',
      '/organizations/:i/agents/secrets/:n',
      '/user/orgs',
      '/repos/mona/web/environments/:s',
      `${ENVIRONMENT}/:n`,
      '/repos/mona/web/environments/:s/secrets/:n',
      '/repos/mona/web/dependabot/secrets/:n',
      '/repos/mona/web/actions/organization-secrets',
      '/:s',
      '/:s/:s',
      '/:s/:s/:s',
      '/user/:s/:s',
      '/repos/:s/:s/:s/:s/:s'
    ),
    fc.array(segment, { minLength: 5, maxLength: 5 }),
    anyId,
    name,
    fc.constantFrom('', '/api/v3')
  )
  .map(([pattern, segments, id, secretName, prefix]) => {
    let next = 0
    return (
      prefix +
      pattern.replace(/:[sin]/g, (kind) =>
        kind === ':s' ? segments[next++]! : kind === ':i' ? id : secretName
      )
    )
  })
  // The two tokens' own accounts and repository stay, and pages for people are no part of the API.
  .filter((url) => !/\/(docs|healthz|readyz|metrics)/i.test(url) && URL.canParse(url, 'http://localhost'))
const anyMethod = fc.constantFrom<Method>('GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS')
const anyToken = fc.constantFrom(token, server.admin.token)

const keepsTheStage = (method: Method, url: string) =>
  !(
    method === 'DELETE' &&
    /^(\/api\/v3)?\/(repos\/mona\/web|repositories\/\d+|orgs\/[^/]*|organizations\/\d+|admin\/users\/[^/]*(\/authorizations)?)$/i.test(
      url
    )
  ) &&
  !(method === 'PATCH' && /\/repos\/mona\/web$|\/repositories\/\d+$/i.test(url)) &&
  !(method === 'DELETE' && url.endsWith('/KEPT'))

t.test('any method, path and body', (t) =>
  holds(t, (seen) =>
    fc.asyncProperty(anyMethod, anyUrl, anyBody, anyToken, async (method, url, body, token) => {
      fc.pre(keepsTheStage(method, url))
      seen(await check(method, url, { token, ...(method !== 'GET' && method !== 'HEAD' && { body }) }))
    })
  )
)

t.test('any name and any body of a secret', (t) =>
  holds(t, (seen) =>
    fc.asyncProperty(fc.constantFrom(...COLLECTIONS), name, anyBody, async (path, secretName, body) => {
      seen(await check('PUT', `${path}/${secretName}`, { token, body }))
    })
  )
)

t.test('any bytes in the place of a sealed box, and any change to one', (t) =>
  holds(t, (seen) =>
    fc.asyncProperty(
      fc.constantFrom(...COLLECTIONS),
      fc.oneof(
        fc.record({ kind: fc.constant('noise' as const), bytes: fc.uint8Array({ maxLength: 300 }) }),
        fc.record({
          kind: fc.constant('flip' as const),
          value: fc.uint8Array({ maxLength: 100 }),
          at: fc.nat(),
          bit: fc.nat(7)
        }),
        fc.record({
          kind: fc.constant('cut' as const),
          value: fc.uint8Array({ maxLength: 100 }),
          at: fc.nat(147)
        }),
        fc.record({ kind: fc.constant('good' as const), value: fc.uint8Array({ maxLength: 300 }) })
      ),
      async (path, box) => {
        const { key, key_id } = keys[path]!
        const sealed =
          'value' in box ? Buffer.from(sealFor(key, box.value), 'base64') : Buffer.from(box.bytes)
        if (box.kind === 'flip') sealed[box.at % sealed.length]! ^= 1 << box.bit
        const bytes = box.kind === 'cut' ? sealed.subarray(0, Math.min(box.at, sealed.length - 1)) : sealed
        const body = { encrypted_value: bytes.toString('base64'), key_id }
        const status = await check('PUT', `${path}/KEPT`, { token, body })
        seen(status)
        const expected = box.kind === 'good' ? 204 : 422
        if (status !== expected) throw new Error(`${box.kind} → ${status}`)
        if (box.kind !== 'good') return
        const [app, kind, ownerUid] = owners[path]!
        const kept = await server.reveal(kind, ownerUid, 'KEPT', app)
        if (!kept?.equals(Buffer.from(box.value))) throw new Error('another value is stored')
      }
    )
  )
)

t.test('any visibility and any ids of an organization secret', (t) => {
  const url = `${ORG}/MODEL`
  const state = { visibility: 'all', ids: [] as number[], value: 0 }
  const change = fc.record(
    {
      visibility: fc.constantFrom('all', 'private', 'selected'),
      ids: fc.oneof(
        fc.constant(null),
        fc.subarray(ownIds),
        fc.subarray([...ownIds, repositoryId, 987_654_321, -1], { minLength: 1 })
      ),
      valued: fc.boolean()
    },
    { requiredKeys: ['valued'] }
  )
  return holds(t, (seen) =>
    fc.asyncProperty(change, async ({ visibility, ids, valued }) => {
      const { key, key_id } = keys[ORG]!
      const next = state.value + 1
      const body = {
        ...(valued && { key_id, encrypted_value: sealFor(key, String(next)) }),
        ...(visibility !== undefined && { visibility }),
        ...(ids !== undefined && { selected_repository_ids: ids })
      }
      const exists = state.value > 0
      const target = visibility ?? (exists ? state.visibility : undefined)
      const good =
        (valued || (exists && (visibility !== undefined || ids !== undefined))) &&
        target !== undefined &&
        (!ids?.length || (target === 'selected' && ids.every((id) => ownIds.includes(id))))
      const status = await check('PUT', url, { token, body })
      seen(status)
      const expected = good ? (exists ? 204 : 201) : 422
      if (status !== expected) throw new Error(`${status}, not ${expected}, in ${JSON.stringify(state)}`)
      if (good) {
        if (ids !== undefined) state.ids = ids ?? []
        else if (visibility !== undefined && visibility !== 'selected') state.ids = []
        state.visibility = target!
        if (valued) state.value = next
      }
      if (state.value === 0) return
      const shown = (await server.request('GET', url, { token })).json()
      const listed = (await server.request('GET', `${url}/repositories`, { token })).json()
      const value = await server.reveal('organization', organization.uid, 'MODEL')
      const now = {
        visibility: shown.visibility,
        ids: listed.repositories.map(({ id }: { id: number }) => id),
        value: Number(value)
      }
      const model = { ...state, ids: [...state.ids].sort((a, b) => a - b) }
      if (JSON.stringify(now) !== JSON.stringify(model)) {
        throw new Error(`${JSON.stringify(now)}, not ${JSON.stringify(model)}`)
      }
    })
  )
})

t.test('any query', (t) => {
  const pair = fc.tuple(
    fc.oneof(fc.constantFrom('page', 'per_page', 'visibility'), segment),
    fc.oneof(anyId, segment)
  )
  const query = fc.oneof(
    fc.array(pair, { maxLength: 4 }).map((pairs) => pairs.map(([key, value]) => `${key}=${value}`).join('&')),
    fc.stringMatching(/^[!-"$-~]{0,40}$/)
  )
  const lists = fc.constantFrom(
    REPO,
    USER,
    `${USER}/KEPT/repositories`,
    ORG,
    ENVIRONMENT,
    '/repos/mona/web/environments',
    '/repos/mona/web/agents/organization-secrets',
    '/orgs/octo-org/members',
    '/orgs/octo-org/repos',
    '/user/orgs',
    '/user/repos',
    '/repos/mona/web/collaborators',
    '/user'
  )
  return holds(t, (seen) =>
    fc.asyncProperty(lists, query, async (path, text) => {
      const status = await check('GET', `${path}?${text}`, { token })
      seen(status)
      if (status !== 200) throw new Error(`${status}, where every query is taken`)
    })
  )
})

t.test('any headers', (t) => {
  const text = fc.oneof(
    fc.stringMatching(/^[ -~]{0,60}$/),
    fc.stringMatching(/^[\u00a0-\u00ff]{0,20}$/),
    fc.constantFrom('', '*', 'W/""', '"', ',', '*/*', 'application/json', '0', '-1')
  )
  const headers = fc.dictionary(
    fc.constantFrom(
      'accept',
      'content-type',
      'x-github-api-version',
      'if-match',
      'if-none-match',
      'accept-encoding',
      'content-encoding',
      'user-agent',
      'host',
      'origin',
      'x-forwarded-for',
      'x-forwarded-host',
      'x-http-method-override',
      'range',
      'cookie',
      'prefer',
      'access-control-request-method',
      'access-control-request-headers'
    ),
    text,
    { maxKeys: 5 }
  )
  return holds(t, (seen) =>
    fc.asyncProperty(
      anyMethod,
      fc.constantFrom(
        REPO,
        `${REPO}/KEPT`,
        USER,
        `${USER}/KEPT`,
        ORG,
        `${ORG}/KEPT`,
        ENVIRONMENT,
        '/user',
        '/meta'
      ),
      headers,
      async (method, path, given) => {
        fc.pre(keepsTheStage(method, path))
        seen(await check(method, path, { token, headers: given }))
      }
    )
  )
})

t.test('any credentials', async (t) => {
  const authorization = fc.oneof(
    fc.stringMatching(/^[ -~]{0,80}$/),
    fc
      .tuple(
        fc.constantFrom('Bearer', 'token', 'Basic', 'bEaReR', 'Digest'),
        fc.stringMatching(/^[ -~]{0,300}$/)
      )
      .map((parts) => parts.join(' ')),
    fc.constant(null).map(() => `Bearer ${makeToken('classic')}`),
    fc
      .string({ unit: 'binary', maxLength: 60 })
      .map((user) => `Basic ${Buffer.from(user).toString('base64')}`)
  )
  await holds(t, (seen) =>
    fc.asyncProperty(
      fc.constantFrom('GET' as const, 'DELETE' as const),
      fc.constantFrom(USER, `${USER}/KEPT`, REPO, '/user'),
      authorization,
      async (method, path, given) => {
        fc.pre(method === 'GET' || path.endsWith('/KEPT'))
        const status = await check(method, path, { headers: { authorization: given } })
        seen(status)
        if (status !== 401 && status !== 403) throw new Error(`let in with ${given}: ${status}`)
      }
    )
  )
})

t.test('no error was logged', async (t) => {
  t.strictSame(server.log, [])
})
