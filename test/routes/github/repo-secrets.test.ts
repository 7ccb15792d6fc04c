import t from 'tap'
import { startTestServer } from '../../helper.ts'

const PATH = '/repos/mona/web/codespaces/secrets'

t.test('a repository secret lives from its first PUT to its DELETE', async (t) => {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo'] })

  const created = await server.request('PUT', `${PATH}/db_url`, {
    token,
    body: await server.seal(PATH, token, 'postgres://one')
  })
  t.equal(created.statusCode, 201)
  t.same(created.json(), {})

  const updated = await server.request('PUT', `${PATH}/DB_URL`, {
    token,
    body: await server.seal(PATH, token, 'postgres://two')
  })
  t.equal(updated.statusCode, 204)
  t.equal(updated.body, '')

  const shown = await server.request('GET', `${PATH}/Db_Url`, { token })
  t.equal(shown.statusCode, 200)
  t.match(shown.json(), { name: 'DB_URL', created_at: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/ })
  t.same(Object.keys(shown.json()), ['name', 'created_at', 'updated_at'])

  t.equal((await server.request('DELETE', `${PATH}/DB_URL`, { token })).statusCode, 204)
  t.equal((await server.request('GET', `${PATH}/DB_URL`, { token })).statusCode, 404)
})
