import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t from 'tap'
import { startTestServer } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const SECOND = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/

async function prepare(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  const show = async (path: string) => {
    const response = await server.request('GET', `${path}/TOKEN`, { token })
    return { ...response.json(), etag: response.headers.etag }
  }
  const put = async (path: string, value: string) =>
    server.request('PUT', `${path}/TOKEN`, { token, body: await server.seal(path, token, value) })
  /** Makes every secret an hour older. */
  const age = () =>
    sql`update secrets set created_at = created_at - interval '1 hour',
      updated_at = updated_at - interval '1 hour'`.execute(server.db)
  return { server, repositoryId, token, show, put, age }
}

t.test('times are to the second, in UTC', async (t) => {
  const { server, show, put, token } = await prepare(t)
  const started = Math.floor(Date.now() / 1000) * 1000
  await put(REPO, 'one')
  const { created_at, updated_at } = await show(REPO)
  t.match(created_at, SECOND)
  t.equal(updated_at, created_at)
  const shown = Date.parse(created_at)
  t.ok(shown >= started && shown <= Date.now(), `${created_at} is now`)
  t.same((await server.request('GET', REPO, { token })).json().secrets, [
    { name: 'TOKEN', created_at, updated_at }
  ])
})

t.test('updated_at moves with a new value, created_at never', async (t) => {
  const { show, put, age } = await prepare(t)
  for (const path of [REPO, USER]) {
    await put(path, 'one')
    await age()
    const before = await show(path)
    t.equal((await put(path, 'one')).statusCode, 204, 'the same value again is a new value')
    const after = await show(path)
    t.equal(after.created_at, before.created_at)
    t.not(after.updated_at, before.updated_at)
    t.ok(Date.parse(after.updated_at) - Date.parse(before.updated_at) >= 3_599_000)
  }
})

t.test('updated_at moves with nothing else', async (t) => {
  const { server, repositoryId, token, show, put, age } = await prepare(t)
  await put(USER, 'one')
  await age()
  const { updated_at, created_at } = await show(USER)
  const ask = (method: 'PUT' | 'DELETE', url: string, body?: unknown, headers = {}) =>
    server.request(method, url, { token, body, headers })
  const stay = async (what: string, status: number, response: Promise<{ statusCode: number }>) => {
    t.equal((await response).statusCode, status, what)
    const { created_at: created, updated_at: updated } = await show(USER)
    t.same([created, updated], [created_at, updated_at], what)
  }
  const repositories = `${USER}/TOKEN/repositories`
  await stay('add', 204, ask('PUT', `${repositories}/${repositoryId}`))
  await stay('remove', 204, ask('DELETE', `${repositories}/${repositoryId}`))
  await stay('set', 204, ask('PUT', repositories, { selected_repository_ids: [repositoryId] }))
  await stay('selection by PUT', 204, ask('PUT', `${USER}/TOKEN`, { selected_repository_ids: [] }))
  await stay('visibility by PUT', 204, ask('PUT', `${USER}/TOKEN`, { visibility: 'all' }))
  await stay(
    'a refused value',
    422,
    ask('PUT', `${USER}/TOKEN`, { encrypted_value: 'c2VjcmV0', key_id: '1' })
  )
  const sealed = await server.seal(USER, token, 'two')
  await stay('a failed condition', 412, ask('PUT', `${USER}/TOKEN`, sealed, { 'if-match': '"old"' }))
  await stay('another secret', 201, ask('PUT', `${USER}/OTHER`, sealed))
})

t.test('two writes in one second share updated_at, and the ETag differs', async (t) => {
  const { server, token, show, put } = await prepare(t)
  await put(REPO, 'zero')
  const body = await server.seal(REPO, token, 'value')
  for (let tries = 0; tries < 10; tries++) {
    await sleep(1000 - (Date.now() % 1000))
    await server.request('PUT', `${REPO}/TOKEN`, { token, body })
    const first = await show(REPO)
    await server.request('PUT', `${REPO}/TOKEN`, { token, body })
    const second = await show(REPO)
    t.not(second.etag, first.etag)
    if (second.updated_at !== first.updated_at) continue
    t.pass('in one second')
    return
  }
  t.fail('no two writes of ten tries fell into one second')
})
