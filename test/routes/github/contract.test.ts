import type { InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import { documentationUrl, schemaValidator } from '../../github-description.ts'
import { startTestServer, type TestServer } from '../../helper.ts'
import { conforms } from './conforms.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'

interface Operation {
  id: string
  method: InjectOptions['method']
  url: string
  /** the repository's or the user's */
  collection: string
  body?: unknown
}

/** The fourteen operations; a body that would be valid, so that nothing but access can refuse. */
function operations(repositoryId: number): Operation[] {
  const one = `${USER}/TOKEN`
  const ids = { selected_repository_ids: [repositoryId] }
  return [
    { id: 'list-repo-secrets', method: 'GET', url: REPO, collection: REPO },
    { id: 'get-repo-public-key', method: 'GET', url: `${REPO}/public-key`, collection: REPO },
    { id: 'get-repo-secret', method: 'GET', url: `${REPO}/TOKEN`, collection: REPO },
    { id: 'create-or-update-repo-secret', method: 'PUT', url: `${REPO}/TOKEN`, collection: REPO, body: {} },
    { id: 'delete-repo-secret', method: 'DELETE', url: `${REPO}/TOKEN`, collection: REPO },
    { id: 'list-secrets-for-authenticated-user', method: 'GET', url: USER, collection: USER },
    {
      id: 'get-public-key-for-authenticated-user',
      method: 'GET',
      url: `${USER}/public-key`,
      collection: USER
    },
    { id: 'get-secret-for-authenticated-user', method: 'GET', url: one, collection: USER },
    {
      id: 'create-or-update-secret-for-authenticated-user',
      method: 'PUT',
      url: one,
      collection: USER,
      body: ids
    },
    { id: 'delete-secret-for-authenticated-user', method: 'DELETE', url: one, collection: USER },
    {
      id: 'list-repositories-for-secret-for-authenticated-user',
      method: 'GET',
      url: `${one}/repositories`,
      collection: USER
    },
    {
      id: 'set-repositories-for-secret-for-authenticated-user',
      method: 'PUT',
      url: `${one}/repositories`,
      collection: USER,
      body: ids
    },
    {
      id: 'add-repository-for-secret-for-authenticated-user',
      method: 'PUT',
      url: `${one}/repositories/${repositoryId}`,
      collection: USER
    },
    {
      id: 'remove-repository-for-secret-for-authenticated-user',
      method: 'DELETE',
      url: `${one}/repositories/${repositoryId}`,
      collection: USER
    }
  ].map((operation) => ({ ...operation, id: `codespaces/${operation.id}` }) as Operation)
}

async function prepare(t: Test) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  return { server, mona, repositoryId, token, all: operations(repositoryId) }
}

/** All rows that a refused request could have changed. */
async function everything({ db }: TestServer): Promise<unknown> {
  return {
    secrets: await db.selectFrom('secrets').selectAll().orderBy('id').execute(),
    selections: await db.selectFrom('secret_repositories').selectAll().orderBy('repository_id').execute(),
    audit: await db
      .selectFrom('audit_events')
      .select('id')
      .where('outcome', '=', 'allowed')
      .orderBy('id')
      .execute()
  }
}

t.test('every success has the status and the body that GitHub describes', async (t) => {
  const { server, repositoryId, token } = await prepare(t)
  const ask = (method: Operation['method'], url: string, body?: unknown) =>
    server.request(method, url, { token, body })
  const codespaces = (name: string) => `codespaces/${name}`

  for (const [path, put] of [
    [REPO, 'create-or-update-repo-secret'],
    [USER, 'create-or-update-secret-for-authenticated-user']
  ] as const) {
    const created = await ask('PUT', `${path}/TOKEN`, await server.seal(path, token, 'one'))
    conforms(t, codespaces(put), created, 201)
    t.equal(created.body, '{}')
    t.equal(created.headers['content-length'], '2')
    conforms(
      t,
      codespaces(put),
      await ask('PUT', `${path}/TOKEN`, await server.seal(path, token, 'two')),
      204
    )
  }
  conforms(t, codespaces('list-repo-secrets'), await ask('GET', REPO), 200)
  conforms(t, codespaces('get-repo-public-key'), await ask('GET', `${REPO}/public-key`), 200)
  conforms(t, codespaces('get-repo-secret'), await ask('GET', `${REPO}/TOKEN`), 200)
  conforms(t, codespaces('delete-repo-secret'), await ask('DELETE', `${REPO}/TOKEN`), 204)

  conforms(t, codespaces('list-secrets-for-authenticated-user'), await ask('GET', USER), 200)
  conforms(
    t,
    codespaces('get-public-key-for-authenticated-user'),
    await ask('GET', `${USER}/public-key`),
    200
  )
  conforms(t, codespaces('get-secret-for-authenticated-user'), await ask('GET', `${USER}/TOKEN`), 200)
  const repositories = `${USER}/TOKEN/repositories`
  conforms(
    t,
    codespaces('set-repositories-for-secret-for-authenticated-user'),
    await ask('PUT', repositories, { selected_repository_ids: [] }),
    204
  )
  conforms(
    t,
    codespaces('add-repository-for-secret-for-authenticated-user'),
    await ask('PUT', `${repositories}/${repositoryId}`),
    204
  )
  for (const version of ['2022-11-28', '2026-03-10']) {
    const listed = await server.request('GET', repositories, {
      token,
      headers: { 'x-github-api-version': version }
    })
    conforms(t, codespaces('list-repositories-for-secret-for-authenticated-user'), listed, 200)
    t.equal(listed.json().repositories.length, 1)
    t.same(schemaValidator('minimal-repository')(listed.json().repositories[0]), [])
  }
  conforms(
    t,
    codespaces('remove-repository-for-secret-for-authenticated-user'),
    await ask('DELETE', `${repositories}/${repositoryId}`),
    204
  )
  conforms(t, codespaces('delete-secret-for-authenticated-user'), await ask('DELETE', `${USER}/TOKEN`), 204)
})

t.test('every success has exactly the members that GitHub sends, in its order', async (t) => {
  const { server, repositoryId, token } = await prepare(t)
  const get = async (url: string) => (await server.request('GET', url, { token })).json()
  for (const path of [REPO, USER]) {
    await server.request('PUT', `${path}/token`, { token, body: await server.seal(path, token, 'value') })
    t.same(Object.keys(await get(`${path}/public-key`)), ['key_id', 'key'])
    t.same(Object.keys(await get(path)), ['total_count', 'secrets'])
  }
  const { key, key_id } = await get(`${USER}/public-key`)
  t.match(key_id, /^[0-9]{18,19}$/, 'key_id is a string of digits')
  t.equal(Buffer.from(key, 'base64').length, 32)
  t.match(key, /^[A-Za-z0-9+/]{43}=$/)
  const repositoryKey = await get(`${REPO}/public-key`)
  t.equal(repositoryKey.key_id, key_id, 'one key_id for all collections')
  t.not(repositoryKey.key, key, 'with different keys')

  t.same(Object.keys(await get(`${REPO}/TOKEN`)), ['name', 'created_at', 'updated_at'])
  t.same(Object.keys((await get(REPO)).secrets[0]), ['name', 'created_at', 'updated_at'])
  const members = ['name', 'created_at', 'updated_at', 'visibility', 'selected_repositories_url']
  t.same(Object.keys(await get(`${USER}/TOKEN`)), members)
  t.same(Object.keys((await get(USER)).secrets[0]), members)
  t.same((await get(USER)).secrets[0], await get(`${USER}/TOKEN`))
  t.same((await get(REPO)).secrets[0], await get(`${REPO}/TOKEN`))
  t.match(await get(`${USER}/TOKEN`), {
    visibility: 'selected',
    selected_repositories_url: 'http://coffer.test/user/codespaces/secrets/TOKEN/repositories'
  })
  t.equal(
    (await get(`/api/v3${USER}/TOKEN`)).selected_repositories_url,
    'http://coffer.test/api/v3/user/codespaces/secrets/TOKEN/repositories'
  )

  await server.request('PUT', `${USER}/TOKEN/repositories/${repositoryId}`, { token })
  const listed = await get(`${USER}/TOKEN/repositories`)
  t.same(Object.keys(listed), ['total_count', 'repositories'])
  t.match(listed.repositories[0], {
    id: repositoryId,
    name: 'web',
    full_name: 'mona/web',
    private: true,
    url: 'http://coffer.test/repos/mona/web',
    owner: { login: 'mona', type: 'User' }
  })
  t.same(Object.keys(listed.repositories[0]).slice(0, 6), [
    'id',
    'node_id',
    'name',
    'full_name',
    'owner',
    'private'
  ])
})

t.test('an empty collection is a list of none', async (t) => {
  const { server, token } = await prepare(t)
  for (const [path, id] of [
    [REPO, 'codespaces/list-repo-secrets'],
    [USER, 'codespaces/list-secrets-for-authenticated-user']
  ] as const) {
    const listed = await server.request('GET', path, { token })
    conforms(t, id, listed, 200)
    t.equal(listed.body, '{"total_count":0,"secrets":[]}')
  }
})

t.test('every operation refuses credentials, permissions, versions and media types alike', async (t) => {
  const { server, mona, repositoryId, token, all } = await prepare(t)
  t.equal(all.length, 14)
  await server.request('PUT', `${REPO}/TOKEN`, { token, body: await server.seal(REPO, token, 'value') })
  await server.request('PUT', `${USER}/TOKEN`, { token, body: await server.seal(USER, token, 'value') })
  const noScopes = await server.createToken(mona, { scopes: [] })
  const noPermissions = await server.createToken(mona, { permissions: {}, repositoryIds: [repositoryId] })
  const publicOnly = await server.createToken(mona, { scopes: ['public_repo', 'codespace'] })
  const before = await everything(server)

  for (const { id, method, url, collection, body } of all) {
    const ask = (token: string | undefined, headers: Record<string, string> = {}) =>
      server.request(method, url, { token, headers, body })
    const page = documentationUrl(id)
    t.match(page, /^https:\/\/docs\.github\.com\/rest\/codespaces\//)

    const anonymous = await ask(undefined)
    conforms(t, id, anonymous, 401)
    t.match(anonymous.json(), { message: 'Requires authentication', documentation_url: page })

    const wrong = await ask(`${token.slice(0, -1)}${token.endsWith('0') ? '1' : '0'}`)
    conforms(t, id, wrong, 401)
    t.match(wrong.json(), { message: 'Bad credentials', documentation_url: 'https://docs.github.com/rest' })

    const weak = await ask(noPermissions)
    conforms(t, id, weak, 403)
    t.match(weak.json(), {
      message: 'Resource not accessible by personal access token',
      documentation_url: page
    })

    if (collection === USER) {
      const scopeless = await ask(noScopes)
      conforms(t, id, scopeless, 403)
      t.match(scopeless.json(), { message: 'Must have admin rights to Repository.', documentation_url: page })
      t.equal(scopeless.headers['x-accepted-oauth-scopes'], 'codespace, codespace:secrets')
    } else {
      const blind = await ask(publicOnly)
      conforms(t, id, blind, 404)
      t.match(blind.json(), { message: 'Not Found', documentation_url: page })
    }

    const version = await ask(token, { 'x-github-api-version': '2020-01-01' })
    conforms(t, id, version, 400)
    const media = await ask(token, { accept: 'text/html' })
    conforms(t, id, media, 415)
  }
  t.same(await everything(server), before, 'nothing changed')
})

t.test('a role below write sees a repository, but not its secrets', async (t) => {
  const { server, mona, all } = await prepare(t)
  const tess = await server.createUser('tess')
  await server.setRole(mona, 'web', tess, 'triage')
  const token = await server.createToken(tess, { scopes: ['repo'] })
  for (const { id, method, url, collection, body } of all) {
    if (collection !== REPO) continue
    const response = await server.request(method, url, { token, body })
    if (url.endsWith('/public-key')) {
      conforms(t, id, response, 200)
    } else {
      conforms(t, id, response, 403)
      t.match(response.json(), {
        message: 'Must have admin rights to Repository.',
        documentation_url: documentationUrl(id)
      })
    }
  }
})

t.test('what is not there is answered with 404 and the page of the operation', async (t) => {
  const { server, token, all } = await prepare(t)
  const before = await everything(server)
  for (const { id, method, url, collection, body } of all) {
    const missing = collection === REPO ? url.replace('/mona/web/', '/mona/nothing/') : url
    const listing = url === USER || url === `${USER}/public-key`
    if (listing || id.endsWith('create-or-update-secret-for-authenticated-user')) continue
    const response = await server.request(method, missing, { token, body })
    conforms(t, id, response, 404)
    t.match(response.json(), { message: 'Not Found', documentation_url: documentationUrl(id) })
    if (url === `${REPO}/TOKEN` && method !== 'PUT') {
      conforms(t, id, await server.request(method, url, { token, body }), 404)
    }
  }
  t.same(await everything(server), before, 'nothing changed')
})

t.test('PUT refuses bodies with 400 and 422, and If-Match with 412', async (t) => {
  const { server, token, all } = await prepare(t)
  const withBody = all.filter(({ method, url }) => method === 'PUT' && !/repositories\/\d+$/.test(url))
  for (const path of [REPO, USER]) {
    await server.request('PUT', `${path}/TOKEN`, { token, body: await server.seal(path, token, 'value') })
  }
  const before = await everything(server)
  for (const { id, method, url, collection } of withBody) {
    const ask = (body: unknown, headers = {}) => server.request(method, url, { token, body, headers })
    const page = documentationUrl(id)
    const broken = await ask('{"encrypted_value": ')
    conforms(t, id, broken, 400)
    t.match(broken.json(), { message: 'Problems parsing JSON', documentation_url: page })
    for (const noObject of ['[]', '"text"', '7', 'null']) {
      const refused = await ask(noObject)
      conforms(t, id, refused, 400)
      t.match(refused.json(), { message: 'Body should be a JSON object', documentation_url: page })
    }
    for (const body of [undefined, {}, { selected_repository_ids: 'all' }, { encrypted_value: 7 }]) {
      const refused = await ask(body)
      conforms(t, id, refused, 422)
      t.equal(refused.json().documentation_url, page)
    }
    const good = url.endsWith('/repositories')
      ? { selected_repository_ids: [] }
      : await server.seal(collection, token, 'new')
    const stale = await ask(good, { 'if-match': '"stale"' })
    conforms(t, id, stale, 412)
  }
  for (const { id, method, url } of all.filter(({ method }) => method === 'DELETE')) {
    if (url.includes('/repositories/')) continue
    conforms(t, id, await server.request(method, url, { token, headers: { 'if-match': '"stale"' } }), 412)
  }
  t.same(await everything(server), before, 'nothing changed')
})

t.test('a value that was not sealed for the collection has GitHub’s text and a reason', async (t) => {
  const { server, token } = await prepare(t)
  const sealed = await server.seal(USER, token, 'value')
  for (const [body, field] of [
    [{ ...sealed, encrypted_value: 'c2VjcmV0' }, 'encrypted_value'],
    [{ ...sealed, encrypted_value: 'not base64!' }, 'encrypted_value'],
    [{ ...sealed, key_id: '1' }, 'key_id'],
    [sealed, 'encrypted_value']
  ] as const) {
    const refused = await server.request('PUT', `${REPO}/TOKEN`, { token, body })
    conforms(t, 'codespaces/create-or-update-repo-secret', refused, 422)
    t.equal(
      refused.json().message,
      'Bad request - validation failed due to an improperly encrypted secret',
      'the text that people search for'
    )
    t.match(refused.json().errors, [{ resource: 'Secret', field, code: 'custom', message: /\S/ }])
    t.same(Object.keys(refused.json().errors[0]), ['resource', 'field', 'code', 'message'])
    t.notMatch(refused.body, body.encrypted_value)
  }
  t.equal((await server.request('GET', REPO, { token })).json().total_count, 0)
})
