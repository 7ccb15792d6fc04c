import t from 'tap'
import { VERSION } from '../../../src/version.ts'
import { schemaValidator, validator } from '../../github-description.ts'
import { getAccount, startTestServer } from '../../helper.ts'

const publicUser = schemaValidator('public-user')
const organizationSimple = schemaValidator('organization-simple')

async function start(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('Mona')
  const acme = await server.createOrganization('Acme', mona)
  return { server, mona, acme, token: await server.createToken(mona, { scopes: [] }) }
}

t.test('GET /user shows the account of the token, whatever its scopes and kind', async (t) => {
  const { server, mona, token } = await start(t)
  const fineGrained = await server.createToken(mona, { permissions: {}, repositoryIds: [] })
  for (const each of [token, fineGrained]) {
    const response = await server.request('GET', '/api/v3/user', { token: each })
    t.equal(response.statusCode, 200)
    t.same(publicUser(response.json()), [])
    t.match(response.json(), {
      login: 'Mona',
      id: mona.id,
      type: 'User',
      site_admin: false,
      url: 'http://coffer.test/api/v3/users/Mona',
      html_url: 'http://coffer.test/Mona'
    })
  }
  t.equal((await server.request('GET', '/user', { token: server.admin.token })).json().site_admin, true)
  t.equal((await server.request('GET', '/user')).statusCode, 401)
})

t.test('users and organizations are found in any case, and told apart by their type', async (t) => {
  const { server, mona, acme, token } = await start(t)
  const user = await server.request('GET', '/users/MONA', { token })
  t.equal(user.statusCode, 200)
  t.same(publicUser(user.json()), [])
  t.match(user.json(), { login: 'Mona', id: mona.id, type: 'User' })

  const organization = await server.request('GET', '/users/acme', { token })
  t.equal(organization.statusCode, 200)
  t.same(publicUser(organization.json()), [])
  t.match(organization.json(), { login: 'Acme', id: acme.id, type: 'Organization' })

  for (const login of ['absent', 'a%00b', '%25', 'x'.repeat(300)]) {
    t.equal((await server.request('GET', `/users/${login}`, { token })).statusCode, 404, login)
    t.equal((await server.request('GET', `/orgs/${login}`, { token })).statusCode, 404, login)
  }
  t.equal((await server.request('GET', '/users/mona')).statusCode, 401)
})

t.test('an organization is shown, a user is none', async (t) => {
  const { server, acme, token } = await start(t)
  const response = await server.request('GET', '/orgs/ACME', { token })
  t.equal(response.statusCode, 200)
  t.same(organizationSimple(response.json()), [])
  t.match(response.json(), {
    login: 'Acme',
    id: acme.id,
    type: 'Organization',
    url: 'http://coffer.test/orgs/Acme'
  })
  t.equal((await server.request('GET', '/orgs/mona', { token })).statusCode, 404)
  t.equal((await server.request('GET', '/orgs/acme')).statusCode, 401)
})

t.test('the email address of an account is shown to nobody else', async (t) => {
  const { server, token } = await start(t)
  const body = { login: 'hubot', email: 'hubot@example.org' }
  await server.request('POST', '/admin/users', { token: server.admin.token, body })
  const shown = await server.request('GET', '/users/hubot', { token })
  t.equal(shown.statusCode, 200)
  t.equal(shown.json().email, null)
  const own = await server.createToken(await getAccount(server.db, 'hubot'), { scopes: [] })
  for (const path of ['/user', '/users/hubot']) {
    t.equal((await server.request('GET', path, { token: own })).json().email, 'hubot@example.org')
  }
})

t.test('what the server is can be asked without a token', async (t) => {
  const { server } = await start(t)
  for (const prefix of ['', '/api/v3']) {
    const meta = await server.request('GET', `${prefix}/meta`)
    t.equal(meta.statusCode, 200)
    t.same(validator('meta/get', 200)(meta.json()), [])
    t.match(meta.json(), { coffer_version: VERSION, installed_version: /^\d+\.\d+\.\d+$/ })
    const versions = await server.request('GET', `${prefix}/versions`)
    t.equal(versions.statusCode, 200)
    t.same(validator('meta/get-all-versions', 200)(versions.json()), [])
    t.same(versions.json(), ['2026-03-10', '2022-11-28'])
  }
})

t.test('rate limits are answered as by an Enterprise Server that has none', async (t) => {
  const { server, token } = await start(t)
  const response = await server.request('GET', '/rate_limit', { token })
  t.equal(response.statusCode, 404)
  t.match(response.json(), { message: 'Rate limiting is not enabled.', status: '404' })
  for (const name of Object.keys(response.headers)) t.notMatch(name, /^x-ratelimit/)
})

t.test('the root tells clients where things are, and which scopes the token has', async (t) => {
  const { server, mona } = await start(t)
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  for (const url of ['/', '/api/v3', '/api/v3/']) {
    const response = await server.request('GET', url, { token })
    t.equal(response.statusCode, 200, url)
    t.equal(response.headers['x-oauth-scopes'], 'codespace, repo')
    const base = url === '/' ? 'http://coffer.test' : 'http://coffer.test/api/v3'
    t.equal(response.json().current_user_url, `${base}/user`)
    t.equal(response.json().repository_url, `${base}/repos/{owner}/{repo}`)
  }
  t.equal((await server.request('GET', '/')).statusCode, 401)
})

t.test('a browser that opens the root is led to the documentation, a client is not', async (t) => {
  const { server, token } = await start(t)
  const accept = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'
  for (const url of ['/', '/?from=mail']) {
    const response = await server.request('GET', url, { headers: { accept } })
    t.equal(response.statusCode, 302, url)
    t.equal(response.headers.location, '/docs')
  }
  const client = await server.request('GET', '/', { token, headers: { accept } })
  t.equal(client.statusCode, 200)
  for (const other of ['*/*', 'application/json', '']) {
    t.equal((await server.request('GET', '/', { headers: { accept: other } })).statusCode, 401)
  }
  t.equal((await server.request('GET', '/user', { headers: { accept } })).statusCode, 401)
})

t.test('a repository can be named by its number in every path about it', async (t) => {
  const { server, mona } = await start(t)
  const id = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo'] })
  const byName = '/repos/Mona/web/codespaces/secrets'
  const byNumber = `/repositories/${id}/codespaces/secrets`

  const keys = await Promise.all(
    [byName, byNumber].map((path) => server.request('GET', `${path}/public-key`, { token }))
  )
  t.same(keys[0]!.json(), keys[1]!.json())
  const body = await server.seal(byNumber, token, 'value')
  t.equal((await server.request('PUT', `${byNumber}/a`, { token, body })).statusCode, 201)
  t.equal((await server.request('PUT', `${byName}/A`, { token, body })).statusCode, 204)
  for (const rest of ['', '/A', '?per_page=1']) {
    const [one, other] = await Promise.all(
      [byName, byNumber].map((path) => server.request('GET', path + rest, { token }))
    )
    t.equal(one!.statusCode, 200)
    t.same(one!.json(), other!.json())
    t.equal(one!.headers.etag, other!.headers.etag)
  }
  t.equal((await server.request('DELETE', `${byNumber}/A`, { token })).statusCode, 204)
  t.equal((await server.request('GET', `${byName}/A`, { token })).statusCode, 404)

  const changed = await server.request('PATCH', `/repositories/${id}`, { token, body: { name: 'site' } })
  t.equal(changed.json().full_name, 'Mona/site')
  t.equal((await server.request('DELETE', `/repositories/${id}`, { token })).statusCode, 204)
  for (const number of [
    id,
    0,
    -1,
    'abc',
    '1e3',
    '0x1',
    '9007199254740993',
    '9223372036854775808',
    '1'.repeat(90)
  ]) {
    const response = await server.request('GET', `/repositories/${number}`, { token })
    t.equal(response.statusCode, 404, `${number}`)
    t.equal(response.json().message, 'Not Found')
  }
})

t.test('what is no route has a JSON answer', async (t) => {
  const { server, token } = await start(t)
  for (const [method, url] of [
    ['GET', '/absent'],
    ['GET', '/user/'],
    ['GET', '/user/repos/'],
    ['POST', '/user'],
    ['PATCH', '/orgs/acme'],
    ['PUT', '/users/mona'],
    ['GET', '/api/v4/user'],
    ['GET', '/users/%E0%A4%A']
  ] as const) {
    const response = await server.request(method, url, { token })
    t.equal(response.statusCode, 404, `${method} ${url}`)
    t.same(response.json(), {
      message: 'Not Found',
      documentation_url: 'https://docs.github.com/rest',
      status: '404'
    })
    t.equal(response.headers['content-type'], 'application/json; charset=utf-8')
  }
})
