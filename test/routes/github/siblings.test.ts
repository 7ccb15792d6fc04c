import { sql } from 'kysely'
import t from 'tap'
import { describeGitHubApi } from '../../../scripts/describe.ts'
import { APP_NAMES, type App, type GitHubCollectionKind } from '../../../src/apps.ts'
import { isConsistent } from '../../consistency.ts'
import { describedOperations, documentationUrl } from '../../github-description.ts'
import { type Collection, putValue, type Stage, setStage } from './collections.ts'
import { conforms } from './conforms.ts'
import { type Refusal, refuses } from './refusal.ts'

t.setTimeout(120_000)

const SECRETS =
  /\/(actions|agents|codespaces|dependabot)\/(organization-)?secrets|\/environments\/[^/]+\/secrets/
const IMPROPER = 'Bad request - validation failed due to an improperly encrypted secret'

const nameOf = ({ app, kind }: Collection) => `${app}/${kind}`

t.test('every operation on secrets that GitHub has is served, by its name, and no other', async (t) => {
  const { paths } = (await describeGitHubApi()) as {
    paths: Record<string, Record<string, { operationId: string }>>
  }
  const served = Object.entries(paths).flatMap(([url, methods]) =>
    Object.entries(methods).map(([method, { operationId }]) => `${method} ${url} ${operationId}`)
  )
  const github = describedOperations().map(
    ({ url, method, operationId }) => `${method} ${url} ${operationId}`
  )
  t.strictSame(
    served.filter((line) => SECRETS.test(line)).sort(),
    github.filter((line) => SECRETS.test(line)).sort()
  )
  t.equal(github.filter((line) => SECRETS.test(line)).length, 23 + 20 + 14 + 15)
  t.strictSame(APP_NAMES, ['codespaces', 'actions', 'dependabot', 'agents'])
})

t.test('every collection lives from its first PUT to its DELETE, by name and by number', async (t) => {
  const stage = await setStage(t)
  const { server, token, collections } = stage
  t.equal(collections.length, 4 + 4 + 1 + 1)
  for (const collection of collections) {
    const { path, alias, operations, extra, app, kind, ownerUid } = collection
    const ask = (method: 'GET' | 'PUT' | 'DELETE', url: string, body?: unknown) =>
      server.request(method, url, { token, body })
    const value = async () => (await server.reveal(kind, ownerUid, 'DB_URL', app))?.toString()
    const empty = await ask('GET', path)
    conforms(t, operations.list, empty, 200)
    t.equal(empty.body, '{"total_count":0,"secrets":[]}')
    conforms(t, operations.publicKey, await ask('GET', `${path}/public-key`), 200)
    const one = { ...(await server.seal(path, token, 'one')), ...extra }
    const created = await ask('PUT', `${path}/db_url`, one)
    conforms(t, operations.put, created, 201)
    t.equal(created.body, '{}')
    t.equal(await value(), 'one', nameOf(collection))
    const two = { ...(await server.seal(alias, token, 'two')), ...extra }
    conforms(t, operations.put, await ask('PUT', `${alias}/DB_URL`, two), 204)
    t.equal(await value(), 'two')
    const shown = await ask('GET', `${path}/Db_Url`)
    conforms(t, operations.get, shown, 200)
    const members = {
      repository: [],
      'deployment-environment': [],
      organization: ['visibility'],
      user: ['visibility', 'selected_repositories_url']
    }
    t.strictSame(Object.keys(shown.json()), ['name', 'created_at', 'updated_at', ...members[kind]])
    for (const place of [path, alias]) {
      const listed = await ask('GET', place)
      conforms(t, operations.list, listed, 200)
      t.strictSame(listed.json(), { total_count: 1, secrets: [shown.json()] })
    }
    conforms(t, operations.delete, await ask('DELETE', `${alias}/db_url`), 204)
    for (const [method, id] of [
      ['GET', operations.get],
      ['DELETE', operations.delete]
    ] as const) {
      const absent = await ask(method, `${path}/DB_URL`)
      conforms(t, id, absent, 404)
      t.match(absent.json(), { message: 'Not Found', documentation_url: documentationUrl(id) })
    }
  }
  const streams = await server.db
    .selectFrom('audit_events')
    .select(['collection', 'stream_uid'])
    .where('action', 'like', 'secret.%')
    .distinct()
    .execute()
  t.strictSame(
    streams.map(({ collection, stream_uid }) => `${collection} in ${stream_uid}`).sort(),
    collections
      .map(({ app, kind, ownerUid, streamUid }) => `${app}/${kind}/${ownerUid} in ${streamUid}`)
      .sort()
  )
  await isConsistent(t, server.db)
})

t.test('links of every list have the numeric form', async (t) => {
  const stage = await setStage(t)
  const { server, token, collections } = stage
  for (const collection of collections) {
    const { path, alias } = collection
    for (const name of ['A', 'B']) await putValue(stage, collection, name, 'value')
    const { headers } = await server.request('GET', `/api/v3${path}?per_page=1`, { token })
    const url = `http://coffer.test/api/v3${alias}?per_page=1&page=2`
    t.equal(headers.link, `<${url}>; rel="next", <${url}>; rel="last"`, nameOf(collection))
    const followed = await server.request('GET', url.replace('http://coffer.test', ''), { token })
    t.match(followed.json(), { total_count: 2, secrets: [{ name: 'B' }] })
  }
})

t.test('errors of every operation point to its page', async (t) => {
  const { server, token, collections } = await setStage(t)
  // GitHub's description points to an older page for two of them.
  const pageOf = (id: string) => documentationUrl(id)?.replace(/\/reference\/(\w+)#/, '/$1/secrets#')
  for (const { path, operations } of collections) {
    for (const [method, url, id] of [
      ['GET', path, operations.list],
      ['GET', `${path}/public-key`, operations.publicKey],
      ['GET', `${path}/A`, operations.get],
      ['PUT', `${path}/A`, operations.put],
      ['DELETE', `${path}/A`, operations.delete]
    ] as const) {
      const response = await server.request(method, url)
      t.equal(response.statusCode, 401)
      t.equal(response.json().documentation_url, pageOf(id), id)
    }
    if (path.startsWith('/repos')) continue
    const selection = await server.request('PUT', `${path}/A/repositories`, { token, body: {} })
    t.match(selection.json().documentation_url, /#set-selected-repositories-for-an?-/)
  }
})

t.test('a secret of one collection is seen in no other, and no box opens elsewhere', async (t) => {
  const stage = await setStage(t, { logLevel: 'error' })
  const { server, token, collections } = stage
  const keys = new Map<string, string>()
  const ids = new Set<string>()
  for (const { path } of collections) {
    const { key, key_id } = (await server.request('GET', `${path}/public-key`, { token })).json()
    keys.set(key, path)
    ids.add(key_id)
  }
  t.equal(keys.size, collections.length, 'a key for each')
  t.equal(ids.size, 1, 'under one id')

  const boxes = new Map<Collection, { encrypted_value: string; key_id: string }>()
  for (const collection of collections) {
    const name = `OF_${nameOf(collection).toUpperCase().replace(/\W/g, '_')}`
    t.equal(await putValue(stage, collection, name, 'alone'), 201)
    t.equal(await putValue(stage, collection, 'SHARED', nameOf(collection)), 201)
    boxes.set(collection, await server.seal(collection.path, token, 'elsewhere'))
  }
  for (const collection of collections) {
    const { path, app, kind, ownerUid, extra } = collection
    const { total_count, secrets } = (await server.request('GET', path, { token })).json()
    t.equal(total_count, 2, nameOf(collection))
    t.match(secrets, [{ name: /^OF_/ }, { name: 'SHARED' }])
    t.equal((await server.reveal(kind, ownerUid, 'SHARED', app))?.toString(), nameOf(collection))
    for (const [other, box] of boxes) {
      if (other === collection) continue
      const body = { ...box, ...extra }
      const response = await server.request('PUT', `${path}/SHARED`, { token, body })
      t.equal(response.statusCode, 422, `a box for ${nameOf(other)} in ${nameOf(collection)}`)
      t.equal(response.json().message, IMPROPER)
    }
  }
  for (const [index, { path }] of collections.entries()) {
    t.equal((await server.request('DELETE', `${path}/SHARED`, { token })).statusCode, 204)
    for (const [later, { kind, ownerUid, app }] of collections.entries()) {
      const there = (await server.reveal(kind, ownerUid, 'SHARED', app)) !== undefined
      t.equal(there, later > index)
    }
  }
  await isConsistent(t, server.db)
})

t.test('what a PUT must have differs from app to app as GitHub says', async (t) => {
  const stage = await setStage(t)
  const { server, token, collections, web } = stage
  const missing = (...names: string[]): Refusal => ({
    status: 422,
    message:
      `Invalid request.\n\n${names.map((name) => `"${name}"`).join(', ')} ` +
      `${names.length === 1 ? "wasn't" : "weren't"} supplied.`,
    errors: names.map((name) => [name, 'missing_field', `${name} wasn't supplied`])
  })
  /** What a new value can be left out for, when the secret is there. */
  const VALUE_OPTIONAL: Record<string, boolean> = {
    'codespaces/user': true,
    'codespaces/organization': true,
    'actions/organization': true,
    'dependabot/organization': true,
    'agents/organization': false
  }
  for (const collection of collections) {
    const { path, kind, extra } = collection
    const refuse = (name: string, body: unknown, expected: Refusal) =>
      refuses(
        t,
        server,
        { method: 'PUT', url: `${path}/${name}`, token, body },
        expected,
        `${nameOf(collection)}, ${name} with ${JSON.stringify(body)}`
      )
    const valueOptional = VALUE_OPTIONAL[nameOf(collection)] ?? false
    const { encrypted_value, key_id } = await server.seal(path, token, 'value')
    t.equal(await putValue(stage, collection, 'KEPT', 'value'), 201)
    for (const name of ['NEW', 'KEPT']) {
      await refuse(
        name,
        {},
        valueOptional ? missing('encrypted_value') : missing('encrypted_value', 'key_id')
      )
      await refuse(name, { encrypted_value, ...extra }, missing('key_id'))
      await refuse(name, { key_id }, missing('encrypted_value'))
    }
    if (kind === 'organization') await refuse('NEW', { encrypted_value, key_id }, missing('visibility'))
    if (kind !== 'organization' && kind !== 'user') continue
    for (const selected_repository_ids of [[web], [String(web)]]) {
      const body = { visibility: 'selected', selected_repository_ids }
      if (valueOptional) {
        const { statusCode } = await server.request('PUT', `${path}/KEPT`, { token, body })
        t.equal(statusCode, 204, nameOf(collection))
      } else {
        await refuse('KEPT', body, missing('encrypted_value', 'key_id'))
      }
      const whole = { ...body, encrypted_value, key_id }
      const { statusCode } = await server.request('PUT', `${path}/KEPT`, { token, body: whole })
      t.equal(statusCode, 204, `${nameOf(collection)}: integers and strings`)
    }
  }
})

t.test('what repositories receive is selected alike in every organization collection', async (t) => {
  const stage = await setStage(t)
  const { server, token, collections, web, open, webUid } = stage
  for (const collection of collections.filter(({ kind }) => kind === 'organization')) {
    const { path, app } = collection
    const url = `${path}/TOKEN/repositories`
    const ask = (method: 'GET' | 'PUT' | 'DELETE', target: string, body?: unknown) =>
      server.request(method, target, { token, body })
    t.equal(await putValue(stage, collection, 'TOKEN', 'value'), 201)
    const conflict = await ask('PUT', `${url}/${web}`)
    conforms(t, `${app}/add-selected-repo-to-org-secret`, conflict, 409)
    const remedy = app === 'agents' ? /"selected" first\.$/ : /"selected" first, without encrypted_value/
    t.match(conflict.json().message, remedy)
    conforms(t, `${app}/remove-selected-repo-from-org-secret`, await ask('DELETE', `${url}/${web}`), 409)
    conforms(
      t,
      `${app}/set-selected-repos-for-org-secret`,
      await ask('PUT', url, { selected_repository_ids: [web] }),
      409
    )

    const body = { ...(await server.seal(path, token, 'value')), visibility: 'selected' }
    t.equal((await ask('PUT', `${path}/TOKEN`, body)).statusCode, 204)
    conforms(
      t,
      `${app}/set-selected-repos-for-org-secret`,
      await ask('PUT', url, { selected_repository_ids: [`${open}`] }),
      204
    )
    conforms(t, `${app}/add-selected-repo-to-org-secret`, await ask('PUT', `${url}/${web}`), 204)
    const listed = await ask('GET', url)
    conforms(t, `${app}/list-selected-repos-for-org-secret`, listed, 200)
    t.match(listed.json(), { total_count: 2, repositories: [{ id: web }, { id: open }] })
    conforms(t, `${app}/remove-selected-repo-from-org-secret`, await ask('DELETE', `${url}/${web}`), 204)
    const { selected_repositories_url } = (await ask('GET', `${path}/TOKEN`)).json()
    t.equal(selected_repositories_url, `http://coffer.test${url}`)
  }
  t.ok(webUid)
})

/** As GitHub's pages tell them. */
const LIMITS: Record<string, number> = {
  'codespaces/repository': 100,
  'codespaces/organization': 100,
  'codespaces/user': 100,
  'actions/repository': 100,
  'actions/organization': 1000,
  'actions/deployment-environment': 100,
  'dependabot/repository': 100,
  'dependabot/organization': 100,
  'agents/repository': 100,
  'agents/organization': 100
}

/** As many secrets more as rows, without values that anything could open. */
async function fill({ server }: Stage, { app, kind, ownerUid }: Collection, number: number): Promise<void> {
  await sql`insert into secrets (uid, app, kind, owner_uid, name, visibility, envelope, generation_id,
      value_version, row_version, creator_kind, creator_uid, created_at, updated_at)
    select gen_random_uuid(), app, kind, owner_uid, 'FILLED_' || n, visibility, envelope, generation_id,
      1, 1, creator_kind, creator_uid, created_at, updated_at
    from secrets, generate_series(1, ${number}::integer) n
    where app = ${app} and kind = ${kind} and owner_uid = ${ownerUid}::uuid and name = 'FIRST'`.execute(
    server.db
  )
}

t.test('each collection holds as many as on GitHub, and one more is refused by number', async (t) => {
  const stage = await setStage(t, { logLevel: 'error' })
  const { server, token, collections } = stage
  t.strictSame(collections.map(nameOf).sort(), Object.keys(LIMITS).sort())
  for (const collection of collections) {
    const limit = LIMITS[nameOf(collection)]!
    t.equal(await putValue(stage, collection, 'FIRST', 'value'), 201)
    await fill(stage, collection, limit - 2)
    t.equal(await putValue(stage, collection, 'LAST', 'value'), 201, nameOf(collection))
    const body = { ...(await server.seal(collection.path, token, 'value')), ...collection.extra }
    const expected: Refusal = {
      status: 422,
      message: new RegExp(`^This collection holds ${limit} secrets, the limit that COFFER_MAX_SECRETS sets; `)
    }
    const attempt = { method: 'PUT', url: `${collection.path}/ONE_MORE`, token, body } as const
    await refuses(t, server, attempt, expected, nameOf(collection))
    t.equal(await putValue(stage, collection, 'FIRST', 'another'), 204)
    const { total_count } = (await server.request('GET', collection.path, { token })).json()
    t.equal(total_count, limit)
  }
})

t.test('with COFFER_MAX_SECRETS that number is for every collection', async (t) => {
  const stage = await setStage(t, { maxSecrets: 2 })
  for (const collection of stage.collections) {
    for (const [name, status] of [
      ['A', 201],
      ['B', 201],
      ['C', 422],
      ['B', 204]
    ] as const) {
      t.equal(await putValue(stage, collection, name, 'value'), status, `${nameOf(collection)}, ${name}`)
    }
  }
})

t.test('a repository lists the secrets of its organization that it receives', async (t) => {
  const stage = await setStage(t)
  const { server, token, mona, acme, collections, web, open } = stage
  const other = await server.createRepository(acme, 'other')
  await server.createRepository(mona, 'own')
  const names = async (repository: string, app: App, query = '') => {
    const response = await server.request('GET', `/repos/${repository}/${app}/organization-secrets${query}`, {
      token
    })
    conforms(t, `${app}/list-repo-organization-secrets`, response, 200)
    for (const secret of response.json().secrets) {
      t.strictSame(
        Object.keys(secret),
        ['name', 'created_at', 'updated_at'],
        'and not for whom else they are'
      )
    }
    return response.json().secrets.map(({ name }: { name: string }) => name)
  }
  for (const app of ['actions', 'agents'] as const) {
    const { path } = collections.find((each) => each.app === app && each.kind === 'organization')!
    const sealed = await server.seal(path, token, 'value')
    for (const [name, body] of [
      ['FOR_ALL', { visibility: 'all' }],
      ['FOR_PRIVATE', { visibility: 'private' }],
      ['FOR_WEB', { visibility: 'selected', selected_repository_ids: [web] }],
      ['FOR_OPEN', { visibility: 'selected', selected_repository_ids: [open] }],
      ['FOR_NONE', { visibility: 'selected', selected_repository_ids: [] }]
    ] as const) {
      const { statusCode } = await server.request('PUT', `${path}/${name}`, {
        token,
        body: { ...sealed, ...body }
      })
      t.equal(statusCode, 201)
    }
    if (app === 'actions')
      t.strictSame(await names('acme/web', 'agents'), [], 'those of another app are not shown')
    t.strictSame(await names('acme/web', app), ['FOR_ALL', 'FOR_PRIVATE', 'FOR_WEB'])
    t.strictSame(await names('acme/open', app), ['FOR_ALL', 'FOR_OPEN'])
    t.strictSame(await names('acme/other', app), ['FOR_ALL', 'FOR_PRIVATE'])
    t.strictSame(await names('mona/own', app), [], 'who has no organization receives none')

    const page = await server.request(
      'GET',
      `/repos/ACME/web/${app}/organization-secrets?per_page=1&page=2`,
      { token }
    )
    t.match(page.json(), { total_count: 3, secrets: [{ name: 'FOR_PRIVATE' }] })
    const url = `http://coffer.test/repositories/${web}/${app}/organization-secrets?per_page=1&page=`
    t.equal(
      page.headers.link,
      `<${url}1>; rel="prev", <${url}3>; rel="next", <${url}3>; rel="last", <${url}1>; rel="first"`
    )
    const alias = await server.request('GET', `/repositories/${other}/${app}/organization-secrets`, { token })
    t.equal(alias.json().total_count, 2)
    t.equal((await server.request('GET', `/repos/acme/web/${app}/secrets`, { token })).json().total_count, 0)
  }
  await server.request('PATCH', '/repos/acme/web', { token, body: { private: false } })
  t.strictSame(await names('acme/web', 'actions'), ['FOR_ALL', 'FOR_WEB'], 'public now')
  await server.request('DELETE', '/orgs/acme/actions/secrets/FOR_ALL', { token })
  t.strictSame(await names('acme/web', 'actions'), ['FOR_WEB'])
  for (const app of ['codespaces', 'dependabot']) {
    const { statusCode } = await server.request('GET', `/repos/acme/web/${app}/organization-secrets`, {
      token
    })
    t.equal(statusCode, 404, `${app} has no such list on GitHub`)
  }
})

t.test('what no app has is no route', async (t) => {
  const { server, token } = await setStage(t)
  for (const path of [
    '/user/actions/secrets',
    '/user/dependabot/secrets',
    '/user/agents/secrets',
    '/repos/acme/web/copilot/secrets',
    '/orgs/acme/copilot/secrets',
    '/repos/acme/web/project/secrets',
    '/repos/acme/web/environments/production/codespaces/secrets',
    '/orgs/acme/environments/production/secrets'
  ]) {
    for (const rest of ['', '/public-key', '/A']) {
      const response = await server.request('GET', path + rest, { token })
      t.equal(response.statusCode, 404, path + rest)
      t.equal(response.json().documentation_url, 'https://docs.github.com/rest')
    }
  }
})

t.test('a repository goes with its secrets of every app, each recorded', async (t) => {
  const stage = await setStage(t)
  const { server, token, collections } = stage
  for (const collection of collections) await putValue(stage, collection, 'GONE', 'value')
  t.equal((await server.request('DELETE', '/repos/acme/web', { token })).statusCode, 204)
  const kinds = new Set<GitHubCollectionKind>(['repository', 'deployment-environment'])
  const expected = collections.filter(({ kind }) => kinds.has(kind))
  const removed = await server.db
    .selectFrom('audit_events')
    .select(['collection', 'stream_uid', 'transaction_id'])
    .where('action', '=', 'secret.remove')
    .execute()
  t.strictSame(
    removed.map(({ collection, stream_uid }) => `${collection} in ${stream_uid}`).sort(),
    expected.map(({ app, kind, ownerUid, streamUid }) => `${app}/${kind}/${ownerUid} in ${streamUid}`).sort()
  )
  t.equal(new Set(removed.map(({ transaction_id }) => transaction_id)).size, 1, 'in one transaction')
  const { total } = await server.db
    .selectFrom('secrets')
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  t.equal(total, collections.length - expected.length)
  await isConsistent(t, server.db)
})

t.test('an owner with thousands of secrets goes, too', async (t) => {
  const stage = await setStage(t, { maxSecrets: 100_000, logLevel: 'error' })
  const { server, token, collections } = stage
  const collection = collections.find((each) => nameOf(each) === 'actions/repository')!
  await putValue(stage, collection, 'FIRST', 'value')
  await fill(stage, collection, 4999)
  const removed = await server.request('DELETE', '/repos/acme/web', { token })
  t.equal(removed.statusCode, 204, removed.body)
  const { total } = await server.db
    .selectFrom('audit_events')
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .where('action', '=', 'secret.remove')
    .executeTakeFirstOrThrow()
  t.equal(total, 5000)
  t.strictSame(server.log, [])
})
