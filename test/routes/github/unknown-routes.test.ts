import { connect } from 'node:net'
import t from 'tap'
import { startTestServer } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const NOT_FOUND = '{"message":"Not Found","documentation_url":"https://docs.github.com/rest","status":"404"}'

async function prepare(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  return { server, mona, repositoryId, token }
}

t.test('what no route serves is answered with GitHub’s 404, with a token and without', async (t) => {
  const { server, token } = await prepare(t)
  const asked = [
    ['GET', '/nothing'],
    ['GET', '/api/v3/nothing'],
    ['GET', '/api'],
    ['GET', '/api/v4/user'],
    ['GET', `${REPO}/A/`],
    ['POST', REPO],
    ['PATCH', `${REPO}/A`],
    ['DELETE', REPO],
    ['PUT', USER],
    ['POST', `${USER}/A/repositories`],
    ['GET', `${REPO}/%zz`],
    ['GET', `${REPO}/%E0%A4%A`],
    ['PUT', `${USER}/%`],
    ['GET', '/repos/%zz/web/codespaces/secrets'],
    ['GET', '/api/v3/%c0'],
    ['GET', `${REPO}/${'A'.repeat(5000)}`]
  ] as const
  for (const [method, url] of asked) {
    for (const credentials of [undefined, token, 'wrong']) {
      const response = await server.request(method, url, { token: credentials, body: '{}' })
      const name = `${method} ${url.slice(0, 60)}`
      t.equal(response.statusCode, 404, name)
      t.equal(response.headers['content-type'], 'application/json; charset=utf-8', name)
      t.equal(response.body, NOT_FOUND, name)
      t.equal(response.headers['access-control-allow-origin'], '*', name)
    }
  }
})

t.test('a trailing slash, or an empty part of a path, leads to nothing', async (t) => {
  const { server, token } = await prepare(t)
  const body = await server.seal(REPO, token, 'value')
  await server.request('PUT', `${REPO}/A`, { token, body })
  for (const url of [
    `${REPO}/`,
    `${USER}/`,
    `${REPO}/A/`,
    `/api/v3${REPO}/`,
    '/repos//web/codespaces/secrets',
    '/repos/mona//codespaces/secrets',
    '/repositories//codespaces/secrets',
    `${USER}//repositories`
  ]) {
    for (const method of ['GET', 'HEAD', 'DELETE'] as const) {
      const response = await server.request(method, url, { token })
      t.equal(response.statusCode, 404, `${method} ${url}`)
      if (method !== 'HEAD') t.match(response.json(), { message: 'Not Found', status: '404' })
    }
    t.not((await server.request('PUT', url, { token, body })).statusCode, 201, url)
  }
  const stored = await server.db.selectFrom('secrets').select('name').execute()
  t.same(stored, [{ name: 'A' }])
})

t.test('methods that are in no book are answered too', async (t) => {
  const { server, token } = await prepare(t)
  const url = new URL(await server.listen())
  const send = (head: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(Number(url.port), url.hostname)
      let text = ''
      socket.on('data', (chunk) => {
        text += chunk
      })
      socket.once('end', () => resolve(text))
      socket.once('error', reject)
      socket.write(`${head}\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`)
    })
  for (const method of ['PROPFIND', 'LOCK', 'TRACE', 'REPORT']) {
    const answer = await send(`${method} ${REPO} HTTP/1.1`)
    t.match(answer, /^HTTP\/1\.1 404 /, method)
    t.ok(answer.endsWith(NOT_FOUND), method)
  }
  const unparsable = await send(`NONSENSE ${REPO} HTTP/1.1`)
  t.match(unparsable, /^HTTP\/1\.1 400 /)
  t.match(unparsable, /\r\ncontent-type: application\/json; charset=utf-8\r\n/i)
  t.ok(
    unparsable.endsWith(
      '{"message":"Bad Request","documentation_url":"https://docs.github.com/rest","status":"400"}'
    )
  )
})

t.test('a browser at the root is led to the documentation, a client is not', async (t) => {
  const { server, token } = await prepare(t)
  const accept = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'
  const browser = await server.request('GET', '/', { headers: { accept } })
  t.equal(browser.statusCode, 302)
  t.equal(browser.headers.location, '/docs')
  t.equal((await server.request('GET', '/')).statusCode, 401)
  const client = await server.request('GET', '/', { token })
  t.equal(client.statusCode, 200)
  t.equal(client.json().current_user_url, 'http://coffer.test/user')
  t.equal(
    (await server.request('GET', '/api/v3', { token })).json().current_user_url,
    'http://coffer.test/api/v3/user'
  )
  t.equal((await server.request('GET', '/api/v3/', { token })).statusCode, 200)
})
