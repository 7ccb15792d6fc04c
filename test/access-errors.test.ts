import type { Response } from 'light-my-request'
import t from 'tap'
import { makeToken } from '../src/auth/token.ts'
import type { TokenRequest } from '../src/directory/tokens.ts'
import { documentationUrl } from './github-description.ts'
import { startTestServer, type TestServer } from './helper.ts'

const SECRETS = '/repos/mona/hidden/codespaces/secrets'
const USER_SECRETS = '/user/codespaces/secrets'
const SCOPES_HEADERS = ['x-oauth-scopes', 'x-accepted-oauth-scopes', 'x-accepted-github-permissions'] as const

/** Owner mona with a private and a public repository, and a stranger. */
async function start(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const reader = await server.createUser('reader')
  const stranger = await server.createUser('stranger')
  const hidden = await server.createRepository(mona, 'hidden')
  const open = await server.createRepository(mona, 'open', { private: false })
  await server.setRole(mona, 'hidden', reader, 'read')
  return { server, mona, reader, stranger, hidden, open }
}

function scopesHeaders({ headers }: Response): unknown[] {
  return SCOPES_HEADERS.map((name) => headers[name])
}

/** All of an answer but what differs between any two. */
function comparable({ statusCode, headers, body }: Response) {
  const { date: _date, 'x-github-request-id': _requestId, ...rest } = headers
  return { statusCode, body, headers: rest }
}

t.test('an answer tells a classic token which scopes it has and which the operation accepts', async (t) => {
  const { server, mona } = await start(t)
  const cases: [scopes: string[], url: string, status: number, has: string, accepted: string][] = [
    [['repo'], SECRETS, 200, 'repo', 'repo'],
    [['public_repo', 'repo'], SECRETS, 200, 'repo', 'repo'],
    [['codespace'], '/repos/mona/open/codespaces/secrets', 403, 'codespace', 'repo'],
    [[], '/repos/mona/open/codespaces/secrets', 403, '', 'repo'],
    [['repo'], USER_SECRETS, 403, 'repo', 'codespace, codespace:secrets'],
    [['codespace', 'codespace:secrets'], USER_SECRETS, 200, 'codespace', 'codespace, codespace:secrets'],
    [['codespace:secrets'], USER_SECRETS, 200, 'codespace:secrets', 'codespace, codespace:secrets'],
    [['read:org', 'admin:org'], '/user', 200, 'admin:org', ''],
    [['site_admin', 'repo', 'codespace'], '/', 200, 'codespace, repo, site_admin', '']
  ]
  for (const [scopes, url, status, has, accepted] of cases) {
    const response = await server.request('GET', url, { token: await server.createToken(mona, { scopes }) })
    t.equal(response.statusCode, status, `${scopes} on ${url}`)
    t.same(scopesHeaders(response), [has, accepted, undefined], `${scopes} on ${url}`)
  }
})

t.test(
  'an answer tells a fine-grained token which permission the operation accepts, and no scopes',
  async (t) => {
    const { server, mona } = await start(t)
    const token = (permissions: Record<string, string>) =>
      server.createToken(mona, { permissions, allRepositories: true })
    const nothing = await token({})
    const all = await token({ codespaces_secrets: 'write', codespaces_user_secrets: 'write' })
    const cases: ['GET' | 'PUT' | 'DELETE', string, string][] = [
      ['GET', SECRETS, 'codespaces_secrets=write'],
      ['GET', `${SECRETS}/public-key`, 'codespaces_secrets=write'],
      ['DELETE', `${SECRETS}/ABSENT`, 'codespaces_secrets=write'],
      ['GET', USER_SECRETS, 'codespaces_user_secrets=read'],
      ['DELETE', `${USER_SECRETS}/ABSENT`, 'codespaces_user_secrets=write'],
      ['PUT', `${USER_SECRETS}/ABSENT/repositories/1`, 'codespaces_user_secrets=write']
    ]
    for (const [method, url, accepted] of cases) {
      const refused = await server.request(method, url, { token: nothing })
      t.equal(refused.statusCode, 403, `${method} ${url}`)
      t.equal(refused.json().message, 'Resource not accessible by personal access token')
      t.same(scopesHeaders(refused), [undefined, undefined, accepted], `${method} ${url}`)
      const allowed = await server.request(method, url, { token: all })
      t.equal(allowed.statusCode, url.includes('ABSENT') ? 404 : 200, `${method} ${url}`)
      t.same(scopesHeaders(allowed), [undefined, undefined, accepted], `${method} ${url}`)
    }
  }
)

t.test('an answer without a valid token tells of no scopes', async (t) => {
  const { server } = await start(t)
  const OPERATION = 'codespaces/list-repo-secrets'
  const anonymous = await server.request('GET', SECRETS)
  t.equal(anonymous.statusCode, 401)
  t.same(anonymous.json(), {
    message: 'Requires authentication',
    documentation_url: documentationUrl(OPERATION),
    status: '401'
  })
  t.same(scopesHeaders(anonymous), [undefined, undefined, undefined])

  const wrong = await server.request('GET', SECRETS, { token: makeToken('classic') })
  t.equal(wrong.statusCode, 401)
  t.same(wrong.json(), {
    message: 'Bad credentials',
    documentation_url: 'https://docs.github.com/rest',
    status: '401'
  })
  t.same(scopesHeaders(wrong), [undefined, undefined, undefined])
})

t.test("a refusal has GitHub's body, with the page of the operation", async (t) => {
  const { server, reader } = await start(t)
  const token = await server.createToken(reader, { scopes: ['repo'] })
  const cases: ['GET' | 'PUT' | 'DELETE', string, string][] = [
    ['GET', SECRETS, 'codespaces/list-repo-secrets'],
    ['GET', `${SECRETS}/A`, 'codespaces/get-repo-secret'],
    ['PUT', `${SECRETS}/A`, 'codespaces/create-or-update-repo-secret'],
    ['DELETE', `${SECRETS}/A`, 'codespaces/delete-repo-secret'],
    ['GET', USER_SECRETS, 'codespaces/list-secrets-for-authenticated-user'],
    ['GET', `${USER_SECRETS}/public-key`, 'codespaces/get-public-key-for-authenticated-user'],
    ['GET', `${USER_SECRETS}/A`, 'codespaces/get-secret-for-authenticated-user'],
    ['PUT', `${USER_SECRETS}/A`, 'codespaces/create-or-update-secret-for-authenticated-user'],
    ['DELETE', `${USER_SECRETS}/A`, 'codespaces/delete-secret-for-authenticated-user'],
    [
      'GET',
      `${USER_SECRETS}/A/repositories`,
      'codespaces/list-repositories-for-secret-for-authenticated-user'
    ],
    [
      'PUT',
      `${USER_SECRETS}/A/repositories`,
      'codespaces/set-repositories-for-secret-for-authenticated-user'
    ],
    [
      'PUT',
      `${USER_SECRETS}/A/repositories/1`,
      'codespaces/add-repository-for-secret-for-authenticated-user'
    ],
    [
      'DELETE',
      `${USER_SECRETS}/A/repositories/1`,
      'codespaces/remove-repository-for-secret-for-authenticated-user'
    ]
  ]
  for (const [method, url, operationId] of cases) {
    const response = await server.request(method, url, { token })
    t.equal(response.statusCode, 403, `${method} ${url}`)
    t.equal(response.headers['content-type'], 'application/json; charset=utf-8')
    t.same(
      response.json(),
      {
        message: 'Must have admin rights to Repository.',
        documentation_url: documentationUrl(operationId),
        status: '403'
      },
      `${method} ${url}`
    )
  }
})

t.test('access is decided before the body is read', async (t) => {
  const { server, mona, reader, stranger } = await start(t)
  const refused: [string | undefined, number][] = [
    [undefined, 401],
    [await server.createToken(stranger, { scopes: ['repo'] }), 404],
    [await server.createToken(reader, { scopes: ['repo'] }), 403],
    [await server.createToken(mona, { permissions: {}, allRepositories: true }), 403]
  ]
  for (const body of ['{broken', '[]', '{"encrypted_value":"!"}', undefined]) {
    for (const [token, status] of refused) {
      t.equal((await server.request('PUT', `${SECRETS}/not-a-name`, { token, body })).statusCode, status)
    }
  }
})

/** Requests about a repository, as paths below it. */
const ABOUT_REPOSITORY: ['GET' | 'HEAD' | 'PUT' | 'PATCH' | 'DELETE', string, unknown?][] = [
  ['GET', ''],
  ['HEAD', ''],
  ['PATCH', '', { name: 'renamed' }],
  ['DELETE', ''],
  ['GET', '/codespaces/secrets'],
  ['HEAD', '/codespaces/secrets'],
  ['GET', '/codespaces/secrets?per_page=1&page=2'],
  ['GET', '/codespaces/secrets/public-key'],
  ['GET', '/codespaces/secrets/STORED'],
  ['GET', '/codespaces/secrets/ABSENT'],
  ['PUT', '/codespaces/secrets/STORED', {}],
  ['PUT', '/codespaces/secrets/STORED', '{broken'],
  ['DELETE', '/codespaces/secrets/STORED']
]
const COLLABORATORS: typeof ABOUT_REPOSITORY = [
  ['GET', '/collaborators'],
  ['GET', '/collaborators/reader'],
  ['GET', '/collaborators/reader/permission'],
  ['PUT', '/collaborators/reader', { permission: 'admin' }],
  ['DELETE', '/collaborators/reader']
]

async function storeSecret(server: TestServer, token: string): Promise<void> {
  const body = await server.seal(SECRETS, token, 'kept')
  t.equal((await server.request('PUT', `${SECRETS}/STORED`, { token, body })).statusCode, 201)
}

t.test('an invisible repository is answered exactly like an absent one', async (t) => {
  const { server, mona, stranger, hidden, open } = await start(t)
  const owner = await server.createToken(mona, { scopes: ['repo'] })
  await storeSecret(server, owner)
  const permissions = {
    codespaces_secrets: 'write',
    codespaces_user_secrets: 'write',
    administration: 'write'
  }
  const blind: Record<string, [typeof mona, TokenRequest]> = {
    'a stranger with every scope': [stranger, { scopes: ['repo', 'codespace', 'admin:org'] }],
    'the owner without the scope repo': [mona, { scopes: ['public_repo', 'codespace'] }],
    'the owner with a list without it': [mona, { permissions, repositoryIds: [open] }],
    'the owner with an empty list': [mona, { permissions, repositoryIds: [] }],
    'a stranger with all repositories': [stranger, { permissions, allRepositories: true }]
  }
  for (const [who, [account, request]] of Object.entries(blind)) {
    const token = await server.createToken(account, request)
    for (const [method, path, body] of [...ABOUT_REPOSITORY, ...COLLABORATORS]) {
      const answers = []
      for (const repository of ['/repos/mona/hidden', '/repos/mona/absent', '/repos/absent/absent']) {
        answers.push(comparable(await server.request(method, repository + path, { token, body })))
      }
      const [invisible, ...absent] = answers
      t.equal(invisible!.statusCode, 404, `${who}: ${method} ${path}`)
      for (const answer of absent) t.same(answer, invisible, `${who}: ${method} ${path}`)
    }
    for (const [method, path, body] of ABOUT_REPOSITORY) {
      const invisible = await server.request(method, `/repositories/${hidden}${path}`, { token, body })
      t.equal(invisible.statusCode, 404, `${who}: ${method} by number ${path}`)
      for (const number of ['999999', '0', '-1', 'abc', '9223372036854775808']) {
        const absent = await server.request(method, `/repositories/${number}${path}`, { token, body })
        t.same(comparable(absent), comparable(invisible), `${who}: ${method} by number ${number}${path}`)
      }
    }
  }
  t.equal((await server.request('GET', `${SECRETS}/STORED`, { token: owner })).statusCode, 200)
  t.equal((await server.reveal('repository', await uidOf(server, hidden), 'STORED'))?.toString(), 'kept')
  t.equal(
    (
      await server.request('GET', '/repos/mona/hidden/collaborators/reader/permission', { token: owner })
    ).json().role_name,
    'read'
  )
})

async function uidOf({ db }: TestServer, id: number): Promise<string> {
  return (await db.selectFrom('repositories').select('uid').where('id', '=', id).executeTakeFirstOrThrow())
    .uid
}

t.test('the id of an invisible repository is answered exactly like one that nothing has', async (t) => {
  const { server, mona, stranger, hidden, open } = await start(t)
  const theirs = await server.createRepository(stranger, 'theirs')
  const permissions = { codespaces_secrets: 'write', codespaces_user_secrets: 'write' }
  const both = ['repo', 'codespace']
  const cases: Record<string, [TokenRequest, invisible: number, visible: number]> = {
    "somebody else's": [{ scopes: both }, theirs, hidden],
    'without the scope repo': [{ scopes: ['codespace'] }, hidden, open],
    'not on the list': [{ permissions, repositoryIds: [open] }, hidden, open],
    "somebody else's, all": [{ permissions, allRepositories: true }, theirs, hidden],
    'only user secrets': [
      { permissions: { codespaces_user_secrets: 'write' }, allRepositories: true },
      theirs,
      -1
    ]
  }
  const full = await server.createToken(mona, { scopes: both })
  const path = `${USER_SECRETS}/KEPT`
  const kept = await server.seal(USER_SECRETS, full, 'kept')
  await server.request('PUT', path, { token: full, body: { ...kept, selected_repository_ids: [hidden] } })
  const state = async () => ({
    secrets: await server.db.selectFrom('secrets').selectAll().execute(),
    selection: await server.db.selectFrom('secret_repositories').selectAll().execute(),
    audit: await server.db
      .selectFrom('audit_events')
      .select('action')
      .where('outcome', '=', 'allowed')
      .execute()
  })
  const sealed = await server.seal(USER_SECRETS, full, 'other')
  for (const [who, [request, invisible, visible]] of Object.entries(cases)) {
    const token = await server.createToken(mona, request)
    const before = await state()
    const forms: ((id: number) => Promise<Response>)[] = [
      (id) => server.request('PUT', path, { token, body: { ...sealed, selected_repository_ids: [id] } }),
      (id) => server.request('PUT', path, { token, body: { selected_repository_ids: [String(id)] } }),
      (id) =>
        server.request('PUT', `${path}/repositories`, { token, body: { selected_repository_ids: [id] } }),
      (id) => server.request('PUT', `${path}/repositories/${id}`, { token }),
      (id) =>
        server.request('PUT', `${path}/repositories`, {
          token,
          body: { selected_repository_ids: visible > 0 ? [visible, id] : [id] }
        }),
      (id) => server.request('DELETE', `${path}/repositories/${id === hidden ? theirs : id}`, { token })
    ]
    for (const [index, form] of forms.entries()) {
      const answer = comparable(await form(invisible))
      t.same(comparable(await form(999_999)), answer, `${who}, form ${index}`)
      t.ok(answer.statusCode >= 400, `${who}, form ${index}: ${answer.statusCode}`)
    }
    t.same(await state(), before, `${who}: nothing changed`)
  }
})
