import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import type { App, CollectionKind } from '../../src/apps.ts'
import { startTestServer } from '../helper.ts'
import { ErrorResponse, GoGitHub } from './go-github.ts'
import * as terraform from './terraform.ts'

// Terraform's provider integrations/github, as the requests that it makes through go-github, in their order.

async function prepare(t: Test) {
  const server = await startTestServer(t, { publicUrl: null, maxSecrets: 200 })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const web = await server.createRepository(acme, 'web')
  const api = await server.createRepository(acme, 'api')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const url = await server.listen()
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', web)
    .executeTakeFirstOrThrow()
  const owners = { repository: uid, user: mona.uid, organization: acme.uid }
  const client = new GoGitHub(url, token)
  return {
    server,
    mona,
    acme,
    ids: { web, api },
    token,
    url,
    client,
    /** what was sent since the last call; sealed values and keys' ids are left out */
    sent: () =>
      client.sent
        .splice(0)
        .map((line) => line.replace(/"key_id":"\d+","encrypted_value":"[^"]+"/, '"key_id":…')),
    stored: async (kind: keyof typeof owners, name: string, app: App = 'codespaces') =>
      (await server.reveal(kind as CollectionKind, owners[kind], name, app))?.toString(),
    /** somebody else sets a value */
    set: async (path: string, name: string, value: string, rest = {}) => {
      const body = { ...(await server.seal(`/${path}`, token, value)), ...rest }
      const { statusCode } = await server.request('PUT', `/${path}/${name}`, { token, body })
      t.match(statusCode, /^20[14]$/)
    },
    /** makes every secret an hour older, and gives the state that a refresh would have kept then */
    age: async (resource: terraform.Resource, state: terraform.State) => {
      await sql`update secrets set created_at = created_at - interval '1 hour',
        updated_at = updated_at - interval '1 hour'`.execute(server.db)
      const aged = await terraform.read(client, resource, { ...state, updatedAt: '' })
      client.sent.length = 0
      return aged!
    }
  }
}

const PATHS = {
  repository: 'repos/acme/web/codespaces/secrets',
  user: 'user/codespaces/secrets',
  organization: 'orgs/acme/codespaces/secrets'
} as const

t.test("the requests have go-github's headers, and are answered as it needs", async (t) => {
  const { server, token, url, client, ids, set } = await prepare(t)
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
  const { client, acme, mona, sent } = await prepare(t)
  const ask = async (path: string) => (await client.do<{ id: number; type?: string }>('GET', path)).value
  t.match(await ask('user'), { login: 'mona', id: mona.id })
  t.match(await ask('users/acme'), { id: acme.id, type: 'Organization' }, 'an organization')
  t.match(await ask('users/mona'), { id: mona.id, type: 'User' }, 'a user')
  t.match(await ask('orgs/acme'), { login: 'acme', id: acme.id }, 'as releases until 6.6 ask')
  t.equal(sent().length, 4)
})

for (const kind of ['repository', 'user', 'organization'] as const) {
  t.test(`github_codespaces secret of a ${kind}: create, refresh, drift, recreate, destroy`, async (t) => {
    const { client, sent, set, stored, age, ids } = await prepare(t)
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

t.test(
  'an organization secret that becomes visible to others is replaced, or updated in place',
  async (t) => {
    const { client, sent, stored, age, ids } = await prepare(t)
    const path = PATHS.organization
    const resource: terraform.Resource = { path, kind: 'organization', onDrift: 'recreate' }
    const config: terraform.Config = { secretName: 'A', value: 'x', visibility: 'private' }
    const state = await terraform.create(client, resource, config)
    t.equal(state.visibility, 'private')
    t.same(sent().slice(1), [`PUT /${path}/A {"key_id":…,"visibility":"private"}`, `GET /${path}/A`])
    await terraform.destroy(client, resource, state)
    const replaced = await terraform.create(client, resource, { ...config, visibility: 'all' })
    t.equal(replaced.visibility, 'all')

    for (const app of ['actions', 'dependabot'] as const) {
      const other: terraform.Resource = {
        path: `orgs/acme/${app}/secrets`,
        kind: 'organization',
        onDrift: 'update'
      }
      const first = await age(other, await terraform.create(client, other, config))
      const second = await terraform.update(
        client,
        other,
        { ...config, visibility: 'selected', repositoryIds: [ids.web] },
        { ...first, repositoryIds: [ids.web] }
      )
      t.match(second, { visibility: 'selected', repositoryIds: [ids.web], createdAt: first.createdAt })
      t.not(second.updatedAt, first.updatedAt)
      t.equal(terraform.isDrifted(second), false)
      t.equal(await stored('organization', 'A', app), 'x')
    }
  }
)

for (const [app, kind] of [
  ['actions', 'repository'],
  ['actions', 'organization'],
  ['dependabot', 'repository'],
  ['dependabot', 'organization']
] as const) {
  t.test(`github_${app} secret of a ${kind}: drift is updated in place`, async (t) => {
    const { client, sent, set, stored, age } = await prepare(t)
    const path = kind === 'repository' ? `repos/acme/web/${app}/secrets` : `orgs/acme/${app}/secrets`
    const visibility = kind === 'organization' ? ({ visibility: 'all' } as const) : {}
    const resource: terraform.Resource = { path, kind, onDrift: 'update' }
    const config: terraform.Config = { secretName: 'token', value: 'mine', ...visibility }
    const state = await age(resource, await terraform.create(client, resource, config))
    t.equal(terraform.isDrifted(state), false)
    t.same(await terraform.read(client, resource, state), state)
    t.same(sent(), [`GET /${path}/token`])

    await set(path, 'TOKEN', 'of somebody else', visibility)
    const seen = await terraform.read(client, resource, state)
    t.equal(terraform.isDrifted(seen!), true)
    const healed = await terraform.update(client, resource, config, seen!)
    t.equal(terraform.isDrifted(healed), false)
    t.equal(healed.createdAt, state.createdAt)
    t.equal(await stored(kind, 'TOKEN', app), 'mine')

    await client.do('DELETE', `${path}/token`)
    t.equal(await terraform.read(client, resource, healed), undefined)
  })
}

for (const app of ['codespaces', 'actions', 'dependabot'] as const) {
  t.test(`github_${app}_organization_secret_repositories, beside the secret`, async (t) => {
    const { client, sent, stored, age, ids } = await prepare(t)
    const path = `orgs/acme/${app}/secrets`
    const resource: terraform.Resource = {
      path,
      kind: 'organization',
      onDrift: app === 'codespaces' ? 'recreate' : 'update'
    }
    const config: terraform.Config = { secretName: 'TOKEN', value: 'one', visibility: 'selected' }
    const secret = `${path}/TOKEN`
    const state = await age(resource, await terraform.create(client, resource, config))

    const { apply, read, destroy } = terraform.secretRepositories
    t.same(await apply(client, secret, [ids.web, ids.api]), [ids.web, ids.api])
    t.same(sent(), [
      `PUT /${secret}/repositories {"selected_repository_ids":[${ids.web},${ids.api}]}`,
      `GET /${secret}/repositories?per_page=100`
    ])
    const refreshed = await terraform.read(client, resource, state)
    t.equal(refreshed?.updatedAt, state.updatedAt, 'the secret has not drifted by it')
    t.equal(terraform.isDrifted(refreshed!), false)

    await terraform.update(client, resource, { ...config, value: 'two' }, state)
    t.equal(await stored('organization', 'TOKEN', app), 'two')
    t.same(await read(client, secret), [ids.web, ids.api], 'a new value leaves the other resource alone')

    await destroy(client, secret)
    t.same(await read(client, secret), [])

    await client.do('DELETE', secret)
    await terraform.create(client, resource, { ...config, visibility: 'all' })
    const conflict = await apply(client, secret, [ids.web]).catch((error) => error)
    t.ok(conflict instanceof ErrorResponse)
    t.equal(conflict.status, 409)
    t.match(conflict.message, /visibility.*all.*selected/, 'with a cause, and with what to do')
  })
}

t.test('a selection of more than a page of a hundred', async (t) => {
  const { server, acme, client, sent } = await prepare(t)
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
  const { server, acme, client, sent } = await prepare(t)
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

t.test('github_repository_environment and github_actions_environment_secret', async (t) => {
  const { server, client, sent, set, ids } = await prepare(t)
  const name = encodeURIComponent('review/one two')
  const environment = `repos/acme/web/environments/${name}`
  const settings = { wait_timer: 0, reviewers: null, can_admins_bypass: true, deployment_branch_policy: null }
  type Environment = { name: string; can_admins_bypass: boolean; protection_rules: unknown[] }
  await client.do('PUT', environment, settings)
  const { value: repository } = await client.do<{ id: number }>('GET', 'repos/acme/web')
  const { value } = await client.do<Environment>('GET', environment)
  t.match(value, { name: 'review/one two', can_admins_bypass: true, protection_rules: [] })
  sent()

  const path = `repositories/${repository.id}/environments/${name}/secrets`
  t.equal(repository.id, ids.web)
  const resource: terraform.Resource = { path, kind: 'repository', onDrift: 'update' }
  const config: terraform.Config = { secretName: 'token', value: 'one' }
  const created = await terraform.create(client, resource, config)
  t.same(sent(), [`GET /${path}/public-key`, `PUT /${path}/token {"key_id":…}`, `GET /${path}/token`])
  await sql`update secrets set updated_at = updated_at - interval '1 hour'`.execute(server.db)
  const state = await terraform.read(client, resource, { ...created, updatedAt: '' })
  await set(path, 'TOKEN', 'two')
  const seen = await terraform.read(client, resource, state!)
  t.equal(terraform.isDrifted(seen!), true)
  t.equal(terraform.isDrifted(await terraform.update(client, resource, config, seen!)), false)
  t.match(await terraform.importSecret(client, resource, 'TOKEN'), { id: 'TOKEN' })

  await client.do('DELETE', environment)
  t.equal(await terraform.read(client, resource, state!), undefined, 'its secrets went with it')
})

t.test('data sources read the keys and all pages of secrets', async (t) => {
  const { client, sent, set, server, token, ids } = await prepare(t)
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
  const { token, url, client, set, age } = await prepare(t)
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
