import t from 'tap'
import { startTestServer } from '../../helper.ts'

const NAMED = '/repos/mona/web/codespaces/secrets'

async function prepare(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo'] })
  return { server, mona, repositoryId, token, numbered: `/repositories/${repositoryId}/codespaces/secrets` }
}

t.test('a repository’s secrets are the same by name and by number', async (t) => {
  const { server, token, numbered, repositoryId } = await prepare(t)
  for (const prefix of ['', '/api/v3']) {
    const path = prefix + numbered
    const get = async (url: string) => (await server.request('GET', url, { token })).json()
    t.same(await get(`${path}/public-key`), await get(`${NAMED}/public-key`))
    const body = await server.seal(path, token, 'value')
    const created = await server.request('PUT', `${path}/token`, { token, body })
    t.equal(created.statusCode, 201)
    t.equal(created.body, '{}')
    t.equal((await server.request('PUT', `${path}/TOKEN`, { token, body })).statusCode, 204)
    t.same(await get(`${path}/token`), await get(`${NAMED}/TOKEN`))
    t.same(await get(path), await get(NAMED))
    t.equal((await get(path)).total_count, 1)
    t.equal((await server.request('PUT', `${path}/OTHER`, { token, body })).statusCode, 201)
    const first = await server.request('GET', `${path}?per_page=1`, { token })
    t.match(
      first.headers.link,
      `<http://coffer.test${prefix}/repositories/${repositoryId}/codespaces/secrets?per_page=1&page=2>`
    )
    for (const name of ['TOKEN', 'OTHER']) {
      t.equal((await server.request('DELETE', `${path}/${name}`, { token })).statusCode, 204)
    }
    t.equal((await get(NAMED)).total_count, 0)
  }
})

t.test('a number decides about access as a name does', async (t) => {
  const { server, mona, token, numbered, repositoryId } = await prepare(t)
  const body = await server.seal(NAMED, token, 'value')
  await server.request('PUT', `${NAMED}/TOKEN`, { token, body })
  const eve = await server.createUser('eve')
  const outside = await server.createToken(eve, { scopes: ['repo'] })
  const tess = await server.createUser('tess')
  await server.setRole(mona, 'web', tess, 'triage')
  const reader = await server.createToken(tess, { scopes: ['repo'] })
  for (const [method, url] of [
    ['GET', numbered],
    ['GET', `${numbered}/public-key`],
    ['GET', `${numbered}/TOKEN`],
    ['PUT', `${numbered}/TOKEN`],
    ['DELETE', `${numbered}/TOKEN`]
  ] as const) {
    const ask = (asking: string | undefined) => server.request(method, url, { token: asking, body })
    t.equal((await ask(undefined)).statusCode, 401, url)
    const hidden = await ask(outside)
    const absent = await server.request(method, url.replace(String(repositoryId), '987654321'), {
      token: outside,
      body
    })
    t.equal(hidden.statusCode, 404, `${method} ${url}`)
    t.equal(hidden.body, absent.body, 'absent and invisible are the same')
    t.equal((await ask(reader)).statusCode, url.endsWith('public-key') ? 200 : 403, `${method} ${url}`)
  }
  t.equal((await server.request('GET', NAMED, { token })).json().total_count, 1)
})

t.test('what is no number of a repository is not found', async (t) => {
  const { server, token } = await prepare(t)
  for (const id of [
    '0',
    '-1',
    'abc',
    '1.5',
    '1e3',
    '9007199254740993',
    '9223372036854775808',
    '9'.repeat(30)
  ]) {
    const response = await server.request('GET', `/repositories/${id}/codespaces/secrets`, { token })
    t.equal(response.statusCode, 404, id)
    t.match(response.json(), { message: 'Not Found', status: '404' })
  }
})
