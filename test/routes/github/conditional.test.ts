import t from 'tap'
import { startTestServer } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/acme/codespaces/secrets'
const ENVIRONMENT = '/repos/mona/web/environments/production/secrets'
const WEAK = /^W\/"[0-9a-f]{64}"$/

async function prepare(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  await server.createOrganization('acme', mona)
  await server.request('PUT', '/repos/mona/web/environments/production', { token })
  for (const path of [REPO, USER, ORG, ENVIRONMENT]) {
    const body = { ...(await server.seal(path, token, 'one')), ...(path === ORG && { visibility: 'all' }) }
    await server.request('PUT', `${path}/TOKEN`, { token, body })
  }
  const readable = [REPO, `${REPO}/public-key`, `${REPO}/TOKEN`, USER, `${USER}/public-key`, `${USER}/TOKEN`]
  readable.push(`${USER}/TOKEN/repositories`, `${ORG}/TOKEN/repositories`)
  for (const path of [ORG, ENVIRONMENT]) readable.push(path, `${path}/public-key`, `${path}/TOKEN`)
  readable.push('/orgs/acme', '/orgs/acme/members', '/user/orgs', '/repos/mona/web/environments/production')
  return { server, mona, token, readable, repositoryId }
}

t.test('every reading has a weak ETag that stays while nothing changes', async (t) => {
  const { server, token, readable } = await prepare(t)
  for (const url of readable) {
    const first = await server.request('GET', url, { token })
    const second = await server.request('GET', url, { token })
    t.match(first.headers.etag, WEAK, url)
    t.equal(second.headers.etag, first.headers.etag, url)
    t.equal(first.headers['cache-control'], 'private, max-age=60, s-maxage=60')
    t.match(first.headers.vary, /\bAuthorization\b/)
    t.equal(first.headers['last-modified'], undefined)
  }
})

t.test('a client that has the answer gets 304 without body and content-type', async (t) => {
  const { server, token, readable } = await prepare(t)
  for (const url of readable) {
    const full = await server.request('GET', url, { token })
    const etag = full.headers.etag as string
    const length = { GET: undefined, HEAD: full.headers['content-length'] }
    for (const ifNoneMatch of [etag, etag.slice(2), '*', `"other", ${etag}`]) {
      for (const method of ['GET', 'HEAD'] as const) {
        const response = await server.request(method, url, {
          token,
          headers: { 'if-none-match': ifNoneMatch }
        })
        t.equal(response.statusCode, 304, `${method} ${url} ${ifNoneMatch}`)
        t.equal(response.body, '')
        t.equal(response.headers['content-type'], undefined)
        t.equal(response.headers['content-length'], length[method])
        t.equal(response.headers.etag, etag)
        t.match(response.headers['x-github-request-id'], /:/)
      }
    }
    const other = await server.request('GET', url, { token, headers: { 'if-none-match': 'W/"other"' } })
    t.equal(other.statusCode, 200)
  }
})

t.test('304 comes after access: who may not see gets the refusal', async (t) => {
  const { server, token } = await prepare(t)
  const eve = await server.createUser('eve')
  const blind = await server.createToken(eve, { scopes: ['repo'] })
  const etag = (await server.request('GET', `${REPO}/TOKEN`, { token })).headers.etag as string
  for (const ifNoneMatch of [etag, '*']) {
    const headers = { 'if-none-match': ifNoneMatch }
    t.equal((await server.request('GET', `${REPO}/TOKEN`, { token: blind, headers })).statusCode, 404)
    t.equal((await server.request('GET', `${REPO}/TOKEN`, { headers })).statusCode, 401)
    t.equal((await server.request('GET', `${REPO}/NOTHING`, { token, headers })).statusCode, 404)
  }
})

t.test('HEAD answers like GET, without the body', async (t) => {
  const { server, token, readable } = await prepare(t)
  const compared = [
    'content-type',
    'content-length',
    'etag',
    'cache-control',
    'x-oauth-scopes',
    'link',
    'vary'
  ]
  for (const url of [...readable, `${REPO}/NOTHING`, `${REPO}?per_page=1&page=7`]) {
    const get = await server.request('GET', url, { token })
    const head = await server.request('HEAD', url, { token })
    t.equal(head.statusCode, get.statusCode, url)
    t.equal(head.body, '', url)
    for (const name of compared) t.same(head.headers[name], get.headers[name], `${url} ${name}`)
  }
  t.equal((await server.request('HEAD', REPO)).statusCode, 401)
})

t.test(
  'the ETag of a secret moves with every change to it, the one of a list with what it shows',
  async (t) => {
    const { server, token, repositoryId } = await prepare(t)
    const tag = async (url: string) => (await server.request('GET', url, { token })).headers.etag as string
    const seen = new Set([await tag(`${USER}/TOKEN`)])
    const repositories = `${USER}/TOKEN/repositories`
    const changes = [
      ['PUT', `${USER}/TOKEN`, await server.seal(USER, token, 'two')],
      ['PUT', `${USER}/TOKEN`, await server.seal(USER, token, 'two')],
      ['PUT', repositories, { selected_repository_ids: [] }],
      ['PUT', `${repositories}/${repositoryId}`, undefined],
      ['DELETE', `${repositories}/${repositoryId}`, undefined],
      ['PUT', `${USER}/TOKEN`, { visibility: 'all' }]
    ] as const
    for (const [index, [method, url, body]] of changes.entries()) {
      t.equal((await server.request(method, url, { token, body })).statusCode, 204)
      seen.add(await tag(`${USER}/TOKEN`))
      t.equal(seen.size, index + 2, `a new tag after ${method} ${url}`)
    }
    const other = await tag(`${REPO}/TOKEN`)
    const before = await tag(REPO)
    const body = await server.seal(REPO, token, 'more')
    await server.request('PUT', `${REPO}/MORE`, { token, body })
    t.equal(await tag(`${REPO}/TOKEN`), other, 'another secret does not move it')
    t.not(await tag(REPO), before)
  }
)

t.test('If-Match lets a write through while the secret is what was read', async (t) => {
  const { server, token, mona, repositoryId } = await prepare(t)
  const url = `${USER}/TOKEN`
  const tag = async () => (await server.request('GET', url, { token })).headers.etag as string
  const put = async (ifMatch: string, value: string) =>
    server.request('PUT', url, {
      token,
      body: await server.seal(USER, token, value),
      headers: { 'if-match': ifMatch }
    })
  const first = await tag()
  for (const ifMatch of [first, '*']) t.equal((await put(ifMatch, 'two')).statusCode, 204, ifMatch)
  t.equal((await put((await tag()).slice(2), 'three')).statusCode, 204, 'the opaque part alone')
  t.equal((await put(`"other", ${await tag()}`, 'four')).statusCode, 204, 'one of a list')

  const stale = await put(first, 'lost')
  t.equal(stale.statusCode, 412)
  t.match(stale.json(), { message: /changed/, status: '412', documentation_url: /create-or-update/ })
  t.equal((await server.reveal('user', mona.uid, 'TOKEN'))?.toString(), 'four', 'nothing was written')

  const headers = { 'if-match': first }
  for (const method of ['PUT', 'DELETE'] as const) {
    const response = await server.request(method, `${url}/repositories/${repositoryId}`, { token, headers })
    t.equal(response.statusCode, 412, `${method} of one repository`)
  }
  const selection = await server.request('PUT', url, {
    token,
    body: { visibility: 'all' },
    headers
  })
  t.equal(selection.statusCode, 412)
  t.equal((await server.request('GET', url, { token })).json().visibility, 'selected')

  t.equal((await server.request('DELETE', url, { token, headers })).statusCode, 412)
  t.equal((await server.request('GET', url, { token })).statusCode, 200, 'still there')
  t.equal(
    (await server.request('DELETE', url, { token, headers: { 'if-match': await tag() } })).statusCode,
    204
  )
})

t.test('If-Match on what does not exist creates nothing', async (t) => {
  const { server, token } = await prepare(t)
  const body = await server.seal(REPO, token, 'value')
  for (const ifMatch of ['*', '"any"']) {
    const headers = { 'if-match': ifMatch }
    t.equal((await server.request('PUT', `${REPO}/NEW`, { token, body, headers })).statusCode, 412)
    t.equal((await server.request('DELETE', `${REPO}/NEW`, { token, headers })).statusCode, 404)
  }
  t.equal((await server.request('GET', `${REPO}/NEW`, { token })).statusCode, 404)
})

t.test('of two writers with the same ETag one wins', async (t) => {
  const { server, token, mona } = await prepare(t)
  const etag = (await server.request('GET', `${USER}/TOKEN`, { token })).headers.etag as string
  const values = ['a', 'b', 'c', 'd']
  const bodies = await Promise.all(values.map((value) => server.seal(USER, token, value)))
  const answers = await Promise.all(
    bodies.map((body) =>
      server.request('PUT', `${USER}/TOKEN`, { token, body, headers: { 'if-match': etag } })
    )
  )
  const statuses = answers.map(({ statusCode }) => statusCode)
  t.same([...statuses].sort(), [204, 412, 412, 412])
  const winner = values[statuses.indexOf(204)]
  t.equal((await server.reveal('user', mona.uid, 'TOKEN'))?.toString(), winner)
})
