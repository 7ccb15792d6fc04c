import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import t from 'tap'
import { ErrorResponse, GoGitHub } from './go-github.ts'
import * as terraform from './terraform.ts'
import { PATHS, startForTerraform } from './terraform-provider.ts'

// Terraform's provider integrations/github, as the requests that it makes through go-github, in their order.

t.test("the requests have go-github's headers, and are answered as it needs", async (t) => {
  const { server, token, url, client, ids, set } = await startForTerraform(t)
  const received: { line: string; headers: IncomingHttpHeaders }[] = []
  server.app.server.prependListener('request', ({ method, url: path, headers }: IncomingMessage) => {
    received.push({ line: `${method} ${path}`, headers: { ...headers } })
  })
  await set(PATHS.user, 'TOKEN', 'x')
  received.length = 0
  const repositories = `${PATHS.user}/TOKEN/repositories`
  await client.do('PUT', repositories, { selected_repository_ids: [] })
  await client.do('PUT', `${repositories}/${ids.web}`)
  await client.do('GET', `${repositories}?page=1&per_page=30`)
  await client.do('DELETE', `${repositories}/${ids.web}`)
  const [set_, added, listed, removed] = received
  for (const { headers } of received) {
    t.match(headers, {
      'user-agent': 'go-github/v89.0.0',
      accept: 'application/vnd.github.v3+json',
      authorization: `Bearer ${token}`,
      'x-github-api-version': '2022-11-28',
      'accept-encoding': 'gzip'
    })
  }
  t.equal(set_?.headers['content-length'], String('{"selected_repository_ids":[]}\n'.length))
  t.equal(set_?.headers['content-type'], 'application/json')
  t.equal(added?.headers['content-type'], undefined)
  t.equal(added?.headers['content-length'], '0')
  t.equal(removed?.headers['content-length'], undefined)
  t.equal(listed?.line, `GET /api/v3/${repositories}?page=1&per_page=30`)

  const legacy = new GoGitHub(`${url}/api/v3/`, token, {
    preview: ',application/vnd.github.stone-crop-preview+json',
    version: 'v60.0.0'
  })
  const { value, headers } = await legacy.do<{ login: string }>('GET', 'user')
  t.equal(value.login, 'mona')
  t.equal(headers['x-ratelimit-remaining'], undefined, 'nothing that go-github would wait for')
})

t.test('the provider finds out whose things it manages', async (t) => {
  const { client, acme, mona, sent } = await startForTerraform(t)
  const ask = async (path: string) => (await client.do<{ id: number; type?: string }>('GET', path)).value
  t.match(await ask('user'), { login: 'mona', id: mona.id })
  t.match(await ask('users/acme'), { id: acme.id, type: 'Organization' }, 'an organization')
  t.match(await ask('users/mona'), { id: mona.id, type: 'User' }, 'a user')
  t.match(await ask('orgs/acme'), { login: 'acme', id: acme.id }, 'as releases until 6.6 ask')
  t.equal(sent().length, 4)
})

for (const kind of ['repository', 'user', 'organization'] as const) {
  t.test(`github_codespaces secret of a ${kind}: create, refresh, drift, recreate, destroy`, async (t) => {
    const { client, sent, set, stored, age, ids } = await startForTerraform(t)
    const path = PATHS[kind]
    const resource: terraform.Resource = { path, kind, onDrift: 'recreate' }
    const config: terraform.Config = {
      secretName: 'db_url',
      value: 'one',
      ...(kind !== 'repository' && { repositoryIds: [ids.web] }),
      ...(kind === 'organization' && { visibility: 'selected' })
    }
    const refresh = [
      `GET /${path}/db_url`,
      ...(kind === 'repository' ? [] : [`GET /${path}/db_url/repositories?per_page=30`])
    ]
    const rest = {
      repository: '',
      user: `,"selected_repository_ids":[${ids.web}]`,
      organization: `,"visibility":"selected","selected_repository_ids":[${ids.web}]`
    }
    const write = [`GET /${path}/public-key`, `PUT /${path}/db_url {"key_id":…${rest[kind]}}`]

    const created = await terraform.create(client, resource, config)
    t.same(sent(), [...write, ...refresh])
    t.match(created, { id: 'db_url', updatedAt: /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC$/ })
    t.equal(await stored(kind, 'DB_URL'), 'one')
    const state = await age(resource, created)

    for (let round = 0; round < 3; round++) {
      t.same(await terraform.read(client, resource, state), state, 'nothing changes by itself')
    }
    t.same(sent(), [...refresh, ...refresh, ...refresh])
    if (kind !== 'repository') {
      await client.do('PUT', `${path}/DB_URL/repositories`, { selected_repository_ids: [ids.api] })
      const chosen = await terraform.read(client, resource, state)
      t.same(chosen, { ...state, repositoryIds: [ids.api] }, 'the selection is seen, and is no new value')
    }

    await set(path, 'DB_URL', 'one', kind === 'organization' ? { visibility: 'selected' } : {})
    sent()
    t.equal(await terraform.read(client, resource, state), undefined, 'the same value again is a change')
    t.equal(sent()[0], refresh[0])
    const recreated = await terraform.create(client, resource, config)
    t.same(sent(), [...write, ...refresh])
    t.equal(recreated.createdAt, state.createdAt, 'it was there all the time')
    t.not(recreated.updatedAt, state.updatedAt)
    t.same(await terraform.read(client, resource, recreated), recreated)

    await client.do('DELETE', `${path}/DB_URL`)
    sent()
    t.equal(await terraform.read(client, resource, recreated), undefined, 'deleted by somebody')
    t.same(sent(), [refresh[0]])
    const again = await terraform.create(client, resource, config)
    sent()
    const imported = await terraform.importSecret(client, resource, 'db_url')
    t.same(imported, again, 'imported, it is what was made')
    t.same(sent(), [refresh[0], ...refresh])
    await terraform.destroy(client, resource, again)
    t.same(sent(), [`DELETE /${path}/db_url`])
    t.equal(await stored(kind, 'DB_URL'), undefined)
    const gone = await terraform.destroy(client, resource, again).catch((error) => error)
    t.ok(gone instanceof ErrorResponse)
    t.match(gone, { status: 404, message: 'Not Found' })
    const nothing = await terraform.importSecret(client, resource, 'db_url').catch((error) => error)
    t.match(nothing, { status: 404 })
  })
}

t.test('a selection of more than a page of a hundred', async (t) => {
  const { server, acme, client, sent } = await startForTerraform(t)
  const path = PATHS.organization
  const resource: terraform.Resource = { path, kind: 'organization', onDrift: 'recreate' }
  await terraform.create(client, resource, { secretName: 'TOKEN', value: 'x', visibility: 'selected' })
  const many: number[] = []
  for (let index = 0; index < 101; index++) {
    many.push(await server.createRepository(acme, `repo-${index}`))
  }
  sent()
  t.same(await terraform.secretRepositories.apply(client, `${path}/TOKEN`, many), many)
  t.same(sent().slice(1), [
    `GET /${path}/TOKEN/repositories?per_page=100`,
    `GET /${path}/TOKEN/repositories?page=2&per_page=100`
  ])
})

t.test('a user secret with more repositories than a page of thirty', async (t) => {
  const { server, acme, client, sent } = await startForTerraform(t)
  const repositoryIds: number[] = []
  for (let index = 0; index < 65; index++) {
    repositoryIds.push(await server.createRepository(acme, `repo-${index}`))
  }
  const resource: terraform.Resource = { path: PATHS.user, kind: 'user', onDrift: 'recreate' }
  const state = await terraform.create(client, resource, { secretName: 'A', value: 'x', repositoryIds })
  t.same(state.repositoryIds, repositoryIds)
  t.same(sent().slice(-3), [
    `GET /${PATHS.user}/A/repositories?per_page=30`,
    `GET /${PATHS.user}/A/repositories?page=2&per_page=30`,
    `GET /${PATHS.user}/A/repositories?page=3&per_page=30`
  ])
})

t.test('data sources read the keys and all pages of secrets', async (t) => {
  const { client, sent, set, server, token, ids } = await startForTerraform(t)
  for (const [kind, path] of Object.entries(PATHS)) {
    const rest = kind === 'organization' ? { visibility: 'selected', selected_repository_ids: [ids.web] } : {}
    const { key_id, key } = await terraform.data.publicKey(client, path)
    t.match(key_id, /^\d+$/)
    t.equal(Buffer.from(key, 'base64').length, 32)
    const names = Array.from({ length: kind === 'user' ? 105 : 3 }, (_, index) => `S${1000 + index}`)
    const body = { ...(await server.seal(`/${path}`, token, 'x')), ...rest }
    for (const name of names) await server.request('PUT', `/${path}/${name}`, { token, body })
    sent()
    const secrets = await terraform.data.secrets(client, path)
    t.same(
      secrets.map(({ name }) => name),
      names
    )
    t.equal(sent().length, kind === 'user' ? 2 : 1)
    for (const secret of secrets) t.equal('visibility' in secret, kind !== 'repository')
  }
  for (const app of ['actions', 'dependabot'] as const) {
    for (const path of [`repos/acme/web/${app}/secrets`, `orgs/acme/${app}/secrets`]) {
      await set(path, 'A', 'x', path.startsWith('orgs') ? { visibility: 'all' } : {})
      t.match(await terraform.data.secrets(client, path), [{ name: 'A' }])
    }
  }
})

t.test('a caching transport sees drift, within the same second too', async (t) => {
  const { token, url, client, set, age } = await startForTerraform(t)
  const caching = new GoGitHub(url, token, { caching: true })
  const path = PATHS.organization
  const resource: terraform.Resource = { path, kind: 'organization', onDrift: 'recreate' }
  const created = await terraform.create(client, resource, { secretName: 'A', value: 'x', visibility: 'all' })
  const state = await age(resource, created)
  t.same(await terraform.read(caching, resource, state), state)
  t.same(await terraform.read(caching, resource, state), state)
  t.equal(caching.revalidated, 1, '304 for what is the same')
  await set(path, 'A', 'y', { visibility: 'all' })
  t.equal(await terraform.read(caching, resource, state), undefined, 'and not for what is changed')

  const first = await caching.do<{ updated_at: string }>('GET', `${path}/A`)
  await set(path, 'A', 'z', { visibility: 'all' })
  const second = await caching.do<{ updated_at: string }>('GET', `${path}/A`)
  t.not(second.headers.etag, first.headers.etag, 'two values in one second have different tags')
  t.equal(caching.revalidated, 2, 'and the first of the two reads was 304 again')
})
