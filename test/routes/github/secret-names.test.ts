import { randomUUID } from 'node:crypto'
import t from 'tap'
import { startTestServer, type TestServer } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const LETTERS = 'a'.repeat(255)

async function prepare(t: Parameters<typeof startTestServer>[0], options = {}) {
  const server = await startTestServer(t, options)
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  return { server, mona, token }
}

/** A secret as the other API may store it, under a name that is no GitHub name. */
async function insertAs({ db }: TestServer, copied: string, name: string): Promise<void> {
  const {
    id: _,
    github_name: __,
    ...row
  } = await db.selectFrom('secrets').selectAll().where('name', '=', copied).executeTakeFirstOrThrow()
  await db
    .insertInto('secrets')
    .values({ ...row, uid: randomUUID(), name })
    .execute()
}

t.test('names are shown in upper case and found in any case', async (t) => {
  const { server, token } = await prepare(t)
  for (const path of [REPO, USER]) {
    const body = await server.seal(path, token, 'value')
    t.equal((await server.request('PUT', `${path}/mixed_Case_1`, { token, body })).statusCode, 201)
    t.equal((await server.request('PUT', `${path}/MIXED_case_1`, { token, body })).statusCode, 204)
    for (const name of ['mixed_case_1', 'MIXED_CASE_1', 'Mixed_Case_1', '%6Dixed_case_1']) {
      const shown = await server.request('GET', `${path}/${name}`, { token })
      t.equal(shown.json().name, 'MIXED_CASE_1', name)
    }
    const listed = (await server.request('GET', path, { token })).json()
    t.equal(listed.total_count, 1)
    t.equal(listed.secrets[0].name, 'MIXED_CASE_1')
    t.equal((await server.request('DELETE', `${path}/mixed_case_1`, { token })).statusCode, 204)
    t.equal((await server.request('DELETE', `${path}/mixed_case_1`, { token })).statusCode, 404)
  }
})

t.test('lists are ordered by name, byte by byte', async (t) => {
  const { server, token } = await prepare(t)
  const body = await server.seal(REPO, token, 'value')
  for (const name of ['b', 'A_1', '_Z', 'A1', 'a', 'AB']) {
    await server.request('PUT', `${REPO}/${name}`, { token, body })
  }
  const { secrets } = (await server.request('GET', REPO, { token })).json()
  t.same(
    secrets.map(({ name }: { name: string }) => name),
    ['A', 'A1', 'AB', 'A_1', 'B', '_Z']
  )
})

t.test('owner and repository are found in any case', async (t) => {
  const { server, token } = await prepare(t)
  const body = await server.seal(REPO, token, 'value')
  t.equal(
    (await server.request('PUT', '/repos/MONA/WEB/codespaces/secrets/A', { token, body })).statusCode,
    201
  )
  t.equal((await server.request('GET', '/repos/Mona/Web/codespaces/secrets/A', { token })).statusCode, 200)
})

t.test('a name of 255 letters works, one of 256 is refused', async (t) => {
  const { server, mona, token } = await prepare(t)
  for (const path of [REPO, USER]) {
    const body = await server.seal(path, token, 'value')
    t.equal((await server.request('PUT', `${path}/${LETTERS}`, { token, body })).statusCode, 201)
    t.equal((await server.request('GET', `${path}/${LETTERS}`, { token })).json().name, LETTERS.toUpperCase())
    const encoded = '%61'.repeat(255)
    t.equal((await server.request('GET', `${path}/${encoded}`, { token })).statusCode, 200, 'percent-encoded')

    const refused = await server.request('PUT', `${path}/${LETTERS}a`, { token, body })
    t.equal(refused.statusCode, 422)
    t.match(refused.json(), {
      message: 'Secret names must not be longer than 255 characters.',
      status: '422',
      documentation_url: /^https:\/\/docs\.github\.com\/rest\/codespaces\/.*create-or-update/
    })
    for (const method of ['GET', 'DELETE'] as const) {
      const response = await server.request(method, `${path}/${LETTERS}a`, { token })
      t.equal(response.statusCode, 404, `${method} of 256 letters`)
      t.equal(response.json().message, 'Not Found')
    }
    const endless = await server.request('GET', `${path}/${'a'.repeat(3000)}`, { token })
    t.equal(endless.statusCode, 404)
    t.match(endless.json(), { message: 'Not Found', status: '404' })
    t.equal((await server.request('GET', path, { token })).json().total_count, 1)
  }
  t.equal((await server.reveal('user', mona.uid, LETTERS.toUpperCase()))?.toString(), 'value')
})

t.test('names that GitHub forbids are refused in its words, and stored nowhere', async (t) => {
  const { server, token } = await prepare(t)
  const body = await server.seal(REPO, token, 'value')
  const rule =
    'Secret names can only contain alphanumeric characters ([a-z], [A-Z], [0-9]) or underscores (_). ' +
    'Spaces are not allowed. Must start with a letter ([a-z], [A-Z]) or underscores (_).'
  for (const [name, message] of [
    ['1A', rule],
    ['A-B', rule],
    ['A%20B', rule],
    ['A%2FB', rule],
    ['%C3%84', rule],
    ['A%00', rule],
    ['github_token', 'Secret names must not start with GITHUB_.'],
    ['GITHUB_', 'Secret names must not start with GITHUB_.']
  ] as const) {
    const refused = await server.request('PUT', `${REPO}/${name}`, { token, body })
    t.equal(refused.statusCode, 422, name)
    t.same(Object.keys(refused.json()), ['message', 'documentation_url', 'status'])
    t.equal(refused.json().message, message, name)
    t.equal((await server.request('GET', `${REPO}/${name}`, { token })).statusCode, 404, name)
  }
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
})

t.test('names that are no GitHub names are hidden, and count toward the limit', async (t) => {
  const { server, mona, token } = await prepare(t, { maxSecrets: 3 })
  const body = await server.seal(USER, token, 'value')
  await server.request('PUT', `${USER}/FIRST`, { token, body })
  await insertAs(server, 'FIRST', 'first')

  const listed = (await server.request('GET', USER, { token })).json()
  t.equal(listed.total_count, 1)
  t.equal(listed.secrets.length, 1)
  t.equal(listed.secrets[0].name, 'FIRST')

  t.equal((await server.request('PUT', `${USER}/second`, { token, body })).statusCode, 201)
  const full = await server.request('PUT', `${USER}/third`, { token, body })
  t.equal(full.statusCode, 422, 'three are stored')
  t.match(full.json().message, /3 secrets.*COFFER_MAX_SECRETS.*names this API does not list count too/)
  t.equal(
    (await server.request('PUT', `${USER}/second`, { token, body })).statusCode,
    204,
    'those there can change'
  )

  t.equal((await server.request('DELETE', `${USER}/FIRST`, { token })).statusCode, 204)
  const left = await server.db
    .selectFrom('secrets')
    .select('name')
    .where('owner_uid', '=', mona.uid)
    .orderBy('name')
    .execute()
  t.same(
    left.map(({ name }) => name),
    ['SECOND', 'first'],
    'the hidden one is untouched'
  )
  t.equal(
    (await server.request('GET', `${USER}/first`, { token })).statusCode,
    404,
    'nor is it found by its name'
  )
  t.equal((await server.request('DELETE', `${USER}/first`, { token })).statusCode, 404)
  t.equal((await server.request('PUT', `${USER}/first`, { token, body })).statusCode, 201, 'FIRST beside it')
})
