import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { isConsistent } from '../../consistency.ts'
import { documentationUrl } from '../../github-description.ts'
import { startTestServer, type TestServerOptions } from '../../helper.ts'
import { conforms } from './conforms.ts'
import { type Refusal, refuses } from './refusal.ts'

const PATH = '/orgs/acme/codespaces/secrets'
const TOKEN = `${PATH}/TOKEN`
const REPOSITORIES = `${TOKEN}/repositories`
const VALUE = 'MARKER-of-an-organization-4c1a'
const FIELD = 'selected_repository_ids'

const NOT_FOUND: Refusal = { status: 404, message: 'Not Found' }
const UNKNOWN: Refusal = {
  status: 422,
  message: 'Validation Failed',
  errors: [
    [FIELD, 'custom', `${FIELD} names a repository that does not exist, or that this token cannot see`]
  ]
}
const ONLY_SELECTED: Refusal = {
  status: 422,
  message: 'Validation Failed',
  errors: [[FIELD, 'custom', `${FIELD} can be given only when visibility is selected`]]
}
const wasMissing = (name: string): Refusal => ({
  status: 422,
  message: `Invalid request.\n\n"${name}" wasn't supplied.`,
  errors: [[name, 'missing_field', `${name} wasn't supplied`]]
})

/** mona owns Acme, hubot is a member; eve owns another organization, and a public repository. */
async function prepare(t: Test, options: TestServerOptions = {}) {
  const server = await startTestServer(t, options)
  const mona = await server.createUser('mona')
  const hubot = await server.createUser('hubot')
  const eve = await server.createUser('eve')
  const acme = await server.createOrganization('Acme', mona)
  const others = await server.createOrganization('others', eve)
  await server.addMember(acme, hubot)
  const web = await server.createRepository(acme, 'web')
  const api = await server.createRepository(acme, 'api')
  const open = await server.createRepository(acme, 'open', { private: false })
  /** What no secret of Acme can be for: hidden, public but of others, mona's own. */
  const foreign = [
    await server.createRepository(others, 'hidden'),
    await server.createRepository(others, 'theirs', { private: false }),
    await server.createRepository(mona, 'own')
  ]
  const token = await server.createToken(mona, { scopes: ['repo', 'admin:org'] })
  const ask = (method: 'GET' | 'PUT' | 'DELETE', url: string, body?: unknown, as: string = token) =>
    server.request(method, url, { token: as, body })
  const sealed = (value: string) => server.seal(PATH, token, value)
  const value = async (name = 'TOKEN') => (await server.reveal('organization', acme.uid, name))?.toString()
  const shown = async (name = 'TOKEN') => (await ask('GET', `${PATH}/${name}`)).json()
  const selected = async (as: string = token): Promise<number[]> => {
    const { total_count, repositories } = (await ask('GET', REPOSITORIES, undefined, as)).json()
    const ids = repositories.map(({ id }: { id: number }) => id)
    t.equal(total_count, ids.length, 'total_count agrees')
    return ids
  }
  /** A secret for these repositories, or for all, or for private ones. */
  const make = async (visibility: string, ids?: number[]) => {
    const body = { ...(await sealed('one')), visibility, ...(ids && { [FIELD]: ids }) }
    t.equal((await ask('PUT', TOKEN, body)).statusCode, 201)
  }
  const refuse = (expected: Refusal, method: 'PUT' | 'DELETE', url: string, body?: unknown, as = token) =>
    refuses(t, server, { method, url, token: as, body }, expected, `${method} ${url} ${JSON.stringify(body)}`)
  return {
    ...{ server, mona, hubot, eve, acme, others, web, api, open, foreign, token },
    ...{ ask, sealed, value, shown, selected, make, refuse }
  }
}

t.test('all nine operations answer as GitHub describes them', async (t) => {
  const { server, ask, sealed, web, token } = await prepare(t)
  const id = (name: string) => `codespaces/${name}`
  const body = { ...(await sealed('one')), visibility: 'selected', [FIELD]: [web] }
  const created = await ask('PUT', TOKEN, body)
  conforms(t, id('create-or-update-org-secret'), created, 201)
  t.equal(created.body, '{}')
  conforms(t, id('create-or-update-org-secret'), await ask('PUT', TOKEN, body), 204)
  for (const visibility of ['all', 'private'] as const) {
    await ask('PUT', `${PATH}/FOR_${visibility}`, { ...(await sealed('one')), visibility })
  }
  const listed = await ask('GET', PATH)
  conforms(t, id('list-org-secrets'), listed, 200)
  const common = ['name', 'created_at', 'updated_at', 'visibility']
  const [all, priv, selected] = listed.json().secrets
  t.strictSame([all.name, priv.name, selected.name], ['FOR_ALL', 'FOR_PRIVATE', 'TOKEN'])
  t.strictSame([all.visibility, priv.visibility, selected.visibility], ['all', 'private', 'selected'])
  t.strictSame(Object.keys(all), common)
  t.strictSame(Object.keys(priv), common, 'as GitHub does: no url unless it is for selected ones')
  t.strictSame(Object.keys(selected), [...common, 'selected_repositories_url'])
  t.equal(
    selected.selected_repositories_url,
    'http://coffer.test/orgs/Acme/codespaces/secrets/TOKEN/repositories',
    'with the login as it is stored'
  )
  const one = await ask('GET', TOKEN)
  conforms(t, id('get-org-secret'), one, 200)
  t.strictSame(one.json(), selected)
  const key = await ask('GET', `${PATH}/public-key`)
  conforms(t, id('get-org-public-key'), key, 200)
  t.strictSame(Object.keys(key.json()), ['key_id', 'key'])

  for (const version of ['2022-11-28', '2026-03-10']) {
    const headers = { 'x-github-api-version': version }
    const repositories = await server.request('GET', REPOSITORIES, { token, headers })
    conforms(t, id('list-selected-repos-for-org-secret'), repositories, 200)
    t.match(repositories.json().repositories, [{ id: web, full_name: 'Acme/web' }])
  }
  conforms(t, id('set-selected-repos-for-org-secret'), await ask('PUT', REPOSITORIES, { [FIELD]: [] }), 204)
  const add = await ask('PUT', `${REPOSITORIES}/${web}`)
  conforms(t, id('add-selected-repo-to-org-secret'), add, 204)
  const removed = await ask('DELETE', `${REPOSITORIES}/${web}`)
  conforms(t, id('remove-selected-repo-from-org-secret'), removed, 204)
  conforms(t, id('delete-org-secret'), await ask('DELETE', TOKEN), 204)
  conforms(t, id('delete-org-secret'), await ask('DELETE', TOKEN), 404)
  await isConsistent(t, server.db)
})

t.test('every refusal has the page of its operation', async (t) => {
  const { server, ask, hubot, eve, mona, web, token } = await prepare(t)
  const operations = [
    ['GET', PATH, 'list-org-secrets'],
    ['GET', `${PATH}/public-key`, 'get-org-public-key'],
    ['GET', TOKEN, 'get-org-secret'],
    ['PUT', TOKEN, 'create-or-update-org-secret'],
    ['DELETE', TOKEN, 'delete-org-secret'],
    ['GET', REPOSITORIES, 'list-selected-repos-for-org-secret'],
    ['PUT', REPOSITORIES, 'set-selected-repos-for-org-secret'],
    ['PUT', `${REPOSITORIES}/${web}`, 'add-selected-repo-to-org-secret'],
    ['DELETE', `${REPOSITORIES}/${web}`, 'remove-selected-repo-from-org-secret']
  ] as const
  const scopes = ['repo', 'admin:org']
  const stranger = await server.createToken(eve, { scopes })
  const member = await server.createToken(hubot, { scopes })
  const weak = await server.createToken(mona, { scopes: ['repo', 'read:org'] })
  const fine = await server.createToken(mona, { permissions: {}, allRepositories: true })
  const body = { visibility: 'all' }
  for (const [method, url, name] of operations) {
    const id = `codespaces/${name}`
    const page = documentationUrl(id)
    t.match(page, '/rest/codespaces/organization-secrets#')
    const cases: [string | undefined, number, string][] = [
      [undefined, 401, 'Requires authentication'],
      [stranger, 404, 'Not Found'],
      [member, 403, 'Must be an owner of the organization.'],
      [weak, 403, 'Must have admin rights to Repository.'],
      [fine, 403, 'Resource not accessible by personal access token']
    ]
    for (const [as, status, message] of cases) {
      const response = await server.request(method, url, {
        token: as,
        body: method === 'GET' ? undefined : body
      })
      conforms(t, id, response, status)
      t.match(response.json(), { message, documentation_url: page })
      if (as === weak) t.equal(response.headers['x-accepted-oauth-scopes'], 'admin:org')
      if (as === fine) {
        const level = method === 'GET' ? 'read' : 'write'
        t.equal(response.headers['x-accepted-github-permissions'], `organization_codespaces_secrets=${level}`)
      }
    }
    const absent = await ask(method, url.replace('acme', 'nobody'), method === 'GET' ? undefined : body)
    conforms(t, id, absent, 404)
    const user = await ask(method, url.replace('acme', 'mona'), method === 'GET' ? undefined : body)
    conforms(t, id, user, 404)
  }
  t.equal((await ask('GET', PATH)).json().total_count, 0)
  t.ok(token)
})

t.test('a new secret needs its visibility, and an update without it keeps it', async (t) => {
  const { ask, sealed, value, shown, selected, refuse, web } = await prepare(t)
  const NEW = `${PATH}/NEW`
  await refuse(wasMissing('visibility'), 'PUT', NEW, await sealed(VALUE))
  await refuse(wasMissing('visibility'), 'PUT', NEW, { ...(await sealed(VALUE)), [FIELD]: [web] })
  for (const visibility of ['all', 'private', 'selected']) {
    const url = `${PATH}/${visibility}`
    t.equal((await ask('PUT', url, { ...(await sealed('one')), visibility })).statusCode, 201)
    t.equal((await ask('PUT', url, await sealed(`two ${visibility}`))).statusCode, 204)
    t.equal((await ask('GET', url)).json().visibility, visibility, 'kept')
    t.equal(await value(visibility.toUpperCase()), `two ${visibility}`)
  }
  for (const visibility of ['', 'ALL', 'none', 'everyone-MARKER', null, 1, ['all']]) {
    for (const body of [{ ...(await sealed(VALUE)), visibility }, { visibility }]) {
      for (const url of [NEW, `${PATH}/ALL`]) {
        await refuse(
          {
            status: 422,
            message: /^Invalid request\.\n\nInvalid property \/visibility is not valid: /,
            errors: [['visibility', 'custom', /^visibility is not valid/]]
          },
          'PUT',
          url,
          body
        )
      }
    }
  }
  const create = { ...(await sealed('one')), visibility: 'selected', [FIELD]: [web] }
  await ask('PUT', TOKEN, create)
  t.equal((await ask('PUT', TOKEN, await sealed('two'))).statusCode, 204)
  t.strictSame(await selected(), [web], 'and so it does with the selection')
  t.equal((await shown()).visibility, 'selected')
})

t.test('without a value, visibility and selection of a secret change, and its time stays', async (t) => {
  const { server, ask, sealed, value, shown, selected, make, refuse, web, api } = await prepare(t)
  await make('selected', [web])
  const before = await shown()
  await sleep(1100)
  for (const [body, visibility, ids] of [
    [{ [FIELD]: [api] }, 'selected', [api]],
    [{ visibility: 'selected', [FIELD]: [String(web), api, web] }, 'selected', [web, api]],
    [{ visibility: 'selected' }, 'selected', [web, api]],
    [{ [FIELD]: null }, 'selected', []],
    [{ visibility: 'selected', [FIELD]: [web], key_id: 'ignored' }, 'selected', [web]],
    [{ visibility: 'all' }, 'all', []],
    [{ [FIELD]: [] }, 'all', []],
    [{ visibility: 'private', [FIELD]: [] }, 'private', []],
    [{ visibility: 'selected' }, 'selected', []]
  ] as const) {
    t.equal((await ask('PUT', TOKEN, body)).statusCode, 204, JSON.stringify(body))
    const now = await shown()
    t.equal(now.visibility, visibility)
    t.strictSame([now.created_at, now.updated_at], [before.created_at, before.updated_at], 'times stay')
    t.strictSame(await selected(), [...ids])
    t.equal(await value(), 'one')
  }
  t.equal((await ask('PUT', TOKEN, await sealed('two'))).statusCode, 204)
  t.ok((await shown()).updated_at > before.updated_at, 'a new value moves it')
  t.equal((await shown()).created_at, before.created_at)

  const { encrypted_value, key_id } = await sealed(VALUE)
  for (const body of [undefined, {}, { key_id }, { unknown: 1 }]) {
    await refuse(wasMissing('encrypted_value'), 'PUT', TOKEN, body)
  }
  await refuse(wasMissing('key_id'), 'PUT', TOKEN, { encrypted_value, visibility: 'all' })
  await refuse(wasMissing('encrypted_value'), 'PUT', `${PATH}/NEW`, { visibility: 'all' })
  await refuse(wasMissing('encrypted_value'), 'PUT', `${PATH}/NEW`, {
    visibility: 'selected',
    [FIELD]: [web]
  })
  for (const bad of [null, '']) {
    const errors: Refusal['errors'] = [['encrypted_value', 'custom', /^encrypted_value is not /]]
    const body = { encrypted_value: bad, key_id, visibility: 'all' }
    await refuse({ status: 422, message: /^(Invalid|Bad) request/, errors }, 'PUT', TOKEN, body)
  }
  t.equal((await shown()).visibility, 'selected')
  await isConsistent(t, server.db)
})

t.test('a value and the selection change together', async (t) => {
  const { ask, sealed, value, shown, selected, make, web, api } = await prepare(t)
  await make('all')
  const change = async (next: string, body: object) => {
    t.equal((await ask('PUT', TOKEN, { ...(await sealed(next)), ...body })).statusCode, 204)
    t.equal(await value(), next)
  }
  await change('two', { visibility: 'selected', [FIELD]: [web, api] })
  t.strictSame(await selected(), [web, api])
  await change('three', { [FIELD]: [`${api}`] })
  t.strictSame(await selected(), [api])
  await change('four', { visibility: 'private' })
  t.equal((await shown()).visibility, 'private')
  await change('five', { visibility: 'selected' })
  t.strictSame(await selected(), [], 'what it was for before it was for all is forgotten')
})

t.test('ids are for a selected secret alone: 422 where it is not', async (t) => {
  const { sealed, make, refuse, web } = await prepare(t)
  await make('private')
  for (const visibility of ['all', 'private']) {
    await refuse(ONLY_SELECTED, 'PUT', TOKEN, { visibility, [FIELD]: [web] })
    await refuse(ONLY_SELECTED, 'PUT', TOKEN, { ...(await sealed(VALUE)), visibility, [FIELD]: [web] })
    await refuse(ONLY_SELECTED, 'PUT', `${PATH}/NEW`, {
      ...(await sealed(VALUE)),
      visibility,
      [FIELD]: [web]
    })
  }
  await refuse(ONLY_SELECTED, 'PUT', TOKEN, { [FIELD]: [web] })
  await refuse(ONLY_SELECTED, 'PUT', TOKEN, { ...(await sealed(VALUE)), [FIELD]: [web] })
})

t.test('unknown, invisible and foreign ids are answered alike, and nothing changes', async (t) => {
  const { server, mona, sealed, make, refuse, selected, ask, foreign, web, api } = await prepare(t)
  await make('selected', [web])
  const withoutRepo = await server.createToken(mona, { scopes: ['admin:org'] })
  const listed = await server.createToken(mona, {
    permissions: { organization_codespaces_secrets: 'write' },
    repositoryIds: [web]
  })
  const cases: [string | undefined, (number | string)[]][] = [
    [undefined, [...foreign, 987_654_321, '987654321', 0, -1, Number.MAX_SAFE_INTEGER]],
    [withoutRepo, [api, 987_654_321]],
    [listed, [api, `${api}`, ...foreign.slice(1), 987_654_321]]
  ]
  const value = await sealed(VALUE)
  const bodies = new Set<string>()
  for (const [as, ids] of cases) {
    for (const id of ids) {
      const members = { [FIELD]: as === withoutRepo ? [id] : [web, id] }
      for (const [name, body] of [
        ['TOKEN', members],
        ['TOKEN', { ...value, ...members }],
        ['NEW', { ...value, visibility: 'selected', ...members }]
      ] as const) {
        bodies.add((await refuse(UNKNOWN, 'PUT', `${PATH}/${name}`, body, as)).body)
      }
      await refuse(UNKNOWN, 'PUT', REPOSITORIES, members, as)
      await refuse(NOT_FOUND, 'PUT', `${REPOSITORIES}/${id}`, undefined, as)
    }
  }
  t.equal(bodies.size, 1, 'the same body for all of them')
  t.strictSame(await selected(), [web])
  t.equal((await ask('DELETE', `${REPOSITORIES}/${web}`, undefined, withoutRepo)).statusCode, 204)
  t.strictSame(await selected(), [], 'what a token does not see it can still take away')
  for (const id of [web, api, foreign[1]]) {
    await refuse(NOT_FOUND, 'DELETE', `${REPOSITORIES}/${id}`, undefined, withoutRepo)
  }
})

t.test('what is no id is refused, and not quoted', async (t) => {
  const { sealed, make, refuse, web } = await prepare(t)
  await make('selected', [web])
  const badForm: Refusal = {
    status: 422,
    message: /^Invalid request\.\n\nInvalid property \/selected_repository_ids/,
    errors: [[FIELD, 'custom', /^selected_repository_ids/]]
  }
  const value = await sealed(VALUE)
  for (const ids of [['MARKER'], ['1.5'], [1.5], ['-1'], [''], [null], [true], [[web]], 'MARKER', 7]) {
    await refuse(badForm, 'PUT', TOKEN, { [FIELD]: ids })
    await refuse(badForm, 'PUT', TOKEN, { ...value, visibility: 'selected', [FIELD]: ids })
    await refuse(badForm, 'PUT', REPOSITORIES, { [FIELD]: ids })
  }
  for (const body of [undefined, {}, { ids: [web] }]) {
    await refuse(wasMissing(FIELD), 'PUT', REPOSITORIES, body)
  }
  for (const id of ['abc', '0', '-1', '1.5', '9223372036854775808', '%00', `${web}%00`, '9'.repeat(300)]) {
    await refuse(NOT_FOUND, 'PUT', `${REPOSITORIES}/${id}`)
    await refuse(NOT_FOUND, 'DELETE', `${REPOSITORIES}/${id}`)
  }
})

t.test(
  'repositories of a secret that is not for selected ones are a conflict that names the way out',
  async (t) => {
    const { ask, make, refuse, shown, selected, web } = await prepare(t)
    await make('all')
    for (const visibility of ['all', 'private']) {
      await ask('PUT', TOKEN, { visibility })
      const conflict: Refusal = {
        status: 409,
        message:
          `The secret's visibility is ${visibility}, so repositories cannot be selected for it. ` +
          'Update it with visibility "selected" first, without encrypted_value to keep its value.'
      }
      await refuse(conflict, 'PUT', `${REPOSITORIES}/${web}`)
      await refuse(conflict, 'DELETE', `${REPOSITORIES}/${web}`)
      await refuse(conflict, 'PUT', REPOSITORIES, { [FIELD]: [web] })
      await refuse(conflict, 'PUT', REPOSITORIES, { [FIELD]: [] })
      t.strictSame(await selected(), [], 'listing them is none')
      t.equal((await shown()).visibility, visibility)
    }
    t.equal((await ask('PUT', TOKEN, { visibility: 'selected' })).statusCode, 204, 'as the message says')
    t.equal((await ask('PUT', `${REPOSITORIES}/${web}`)).statusCode, 204)
  }
)

t.test('repositories are set, added and removed, each as often as one likes', async (t) => {
  const { ask, make, selected, shown, refuse, web, api, open } = await prepare(t)
  await make('selected')
  t.strictSame(await selected(), [])
  const before = await shown()
  t.equal((await ask('PUT', REPOSITORIES, { [FIELD]: [open, `${web}`, web] })).statusCode, 204)
  t.strictSame(await selected(), [web, open], 'by id')
  for (const id of [api, api]) t.equal((await ask('PUT', `${REPOSITORIES}/${id}`)).statusCode, 204)
  t.strictSame(await selected(), [web, api, open])
  t.equal((await ask('DELETE', `${REPOSITORIES}/${web}`)).statusCode, 204)
  await refuse(NOT_FOUND, 'DELETE', `${REPOSITORIES}/${web}`)
  for (const empty of [[], null]) {
    await ask('PUT', REPOSITORIES, { [FIELD]: [api] })
    t.equal((await ask('PUT', REPOSITORIES, { [FIELD]: empty })).statusCode, 204)
    t.strictSame(await selected(), [])
  }
  t.strictSame(await shown(), before, 'times and visibility stay')
  for (const method of ['PUT', 'DELETE'] as const) {
    await refuse(NOT_FOUND, method, `${PATH}/NOTHING/repositories/${web}`)
  }
  await refuse(NOT_FOUND, 'PUT', `${PATH}/NOTHING/repositories`, { [FIELD]: [] })
})

t.test('of the selected repositories those are listed and counted that the token sees', async (t) => {
  const { server, mona, make, selected, ask, web, api, open } = await prepare(t)
  await make('selected', [web, api, open])
  const permissions = { organization_codespaces_secrets: 'read' }
  const withoutRepo = await server.createToken(mona, { scopes: ['admin:org'] })
  const listed = await server.createToken(mona, { permissions, repositoryIds: [api] })
  const none = await server.createToken(mona, { permissions, repositoryIds: [] })
  const all = await server.createToken(mona, { permissions, allRepositories: true })
  t.strictSame(await selected(withoutRepo), [open])
  t.strictSame(await selected(listed), [api, open])
  t.strictSame(await selected(none), [open])
  t.strictSame(await selected(all), [web, api, open])

  const page = await ask('GET', `${REPOSITORIES}?per_page=1`, undefined, listed)
  t.equal(page.json().total_count, 2)
  const { rows } = { rows: await server.db.selectFrom('accounts').select(['id', 'login']).execute() }
  const { id } = rows.find(({ login }) => login === 'Acme')!
  const url = `http://coffer.test/organizations/${id}/codespaces/secrets/TOKEN/repositories`
  t.equal(page.headers.link, `<${url}?per_page=1&page=2>; rel="next", <${url}?per_page=1&page=2>; rel="last"`)
})

t.test('a fine-grained token selects what it reaches, with no permission besides', async (t) => {
  const { server, mona, ask, make, selected, web, api, open, refuse } = await prepare(t)
  await make('selected', [open])
  const token = await server.createToken(mona, {
    permissions: { organization_codespaces_secrets: 'write' },
    repositoryIds: [web]
  })
  t.equal((await ask('PUT', `${REPOSITORIES}/${web}`, undefined, token)).statusCode, 204)
  t.strictSame(await selected(), [web, open])
  t.equal((await ask('PUT', REPOSITORIES, { [FIELD]: [web, open] }, token)).statusCode, 204, 'open stays')
  t.equal((await ask('DELETE', `${REPOSITORIES}/${open}`, undefined, token)).statusCode, 204)
  await refuse(UNKNOWN, 'PUT', REPOSITORIES, { [FIELD]: [open] }, token)
  await refuse(NOT_FOUND, 'PUT', `${REPOSITORIES}/${open}`, undefined, token)
  await refuse(NOT_FOUND, 'PUT', `${REPOSITORIES}/${api}`, undefined, token)
})

t.test('a deleted repository leaves the selections, and the secrets stay', async (t) => {
  const { server, ask, make, selected, value, token, web, api } = await prepare(t)
  await make('selected', [web, api])
  t.equal((await server.request('DELETE', '/repos/acme/web', { token })).statusCode, 204)
  t.strictSame(await selected(), [api])
  const left = await server.db.selectFrom('secret_repositories').select('repository_id').execute()
  t.strictSame(left, [{ repository_id: api }])
  t.equal((await ask('PUT', `${REPOSITORIES}/${web}`)).statusCode, 404)
  t.equal(await value(), 'one')
})

t.test('If-Match guards every write', async (t) => {
  const { server, ask, make, sealed, shown, value, token, web, api } = await prepare(t)
  await make('selected', [web])
  const tag = async () => String((await ask('GET', TOKEN)).headers.etag)
  const guarded = (method: 'PUT' | 'DELETE', url: string, ifMatch: string, body?: unknown) =>
    server.request(method, url, { token, body, headers: { 'if-match': ifMatch } })
  const writes: ['PUT' | 'DELETE', string, unknown?][] = [
    ['PUT', TOKEN, await sealed('two')],
    ['PUT', TOKEN, { ...(await sealed('two')), visibility: 'selected', [FIELD]: [api] }],
    ['PUT', TOKEN, { [FIELD]: [web] }],
    ['PUT', REPOSITORIES, { [FIELD]: [] }],
    ['PUT', `${REPOSITORIES}/${web}`],
    ['DELETE', `${REPOSITORIES}/${web}`],
    ['PUT', TOKEN, { visibility: 'all' }],
    ['DELETE', TOKEN]
  ]
  const tags = new Set<string>()
  for (const [method, url, body] of writes) {
    const before = await shown()
    const present = await tag()
    tags.add(present)
    for (const stale of ['W/"stale"', ...[...tags].filter((each) => each !== present)]) {
      t.equal((await guarded(method, url, stale, body)).statusCode, 412, `${method} ${url} with ${stale}`)
    }
    t.strictSame(await shown(), before)
    const done = await guarded(method, url, present, body)
    t.equal(done.statusCode, 204, `${method} ${url} ${JSON.stringify(body)}: ${done.body}`)
  }
  t.equal(tags.size, writes.length, 'each change moved the tag')
  t.equal(await value(), undefined)
  const created = { ...(await sealed('one')), visibility: 'all' }
  t.equal((await guarded('PUT', TOKEN, '*', created)).statusCode, 412, 'nothing is there')
})

t.test('by number it is the same collection, and links have this form', async (t) => {
  const { server, ask, make, acme, sealed, web, token } = await prepare(t)
  const alias = `/organizations/${acme.id}/codespaces/secrets`
  await make('selected', [web])
  await ask('PUT', `${alias}/OTHER`, { ...(await sealed('two')), visibility: 'all' })
  for (const rest of ['', '/public-key', '/TOKEN', '/TOKEN/repositories', '?per_page=1&page=2', '/token']) {
    const [one, other] = await Promise.all([PATH, alias].map((path) => ask('GET', path + rest)))
    t.equal(one!.statusCode, 200, rest)
    t.strictSame(one!.json(), other!.json(), rest)
    t.equal(one!.headers.etag, other!.headers.etag, rest)
    t.equal(one!.headers.link, other!.headers.link, rest)
  }
  for (const [method, rest, body] of [
    ['PUT', '/TOKEN', await sealed('two')],
    ['PUT', '/TOKEN/repositories', { [FIELD]: [] }],
    ['PUT', `/TOKEN/repositories/${web}`, undefined],
    ['DELETE', `/TOKEN/repositories/${web}`, undefined],
    ['DELETE', '/TOKEN', undefined]
  ] as const) {
    t.equal((await ask(method, alias + rest, body)).statusCode, 204, `${method} ${rest}`)
  }
  await ask('PUT', `${PATH}/THIRD`, { ...(await sealed('three')), visibility: 'private' })
  const base = 'http://coffer.test/api/v3'
  const listed = await ask('GET', '/api/v3/orgs/ACME/codespaces/secrets?page=2&per_page=1')
  t.strictSame(
    listed.json().secrets.map(({ name }: { name: string }) => name),
    ['THIRD']
  )
  t.equal(listed.json().total_count, 2)
  t.equal(
    listed.headers.link,
    `<${base}${alias}?page=1&per_page=1>; rel="prev", <${base}${alias}?page=1&per_page=1>; rel="first"`
  )
  for (const number of [
    0,
    -1,
    acme.id + 1000,
    'acme',
    '1e3',
    `0${'9'.repeat(20)}`,
    '9223372036854775808',
    '%00'
  ]) {
    const url = `/organizations/${number}/codespaces/secrets`
    for (const rest of ['', '/public-key', '/OTHER']) {
      t.equal((await ask('GET', url + rest)).statusCode, 404, `${url}${rest}`)
    }
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${url}/A`, token, body: { ...(await sealed(VALUE)), visibility: 'all' } },
      NOT_FOUND,
      url
    )
  }
  const user = await ask('GET', `/organizations/${(await ask('GET', '/user')).json().id}/codespaces/secrets`)
  t.equal(user.statusCode, 404, 'a user is no organization')
})

t.test('names have no case and follow the rules, and so does the login', async (t) => {
  const { ask, sealed, refuse, value } = await prepare(t)
  const body = { ...(await sealed('one')), visibility: 'all' }
  t.equal((await ask('PUT', '/orgs/ACME/codespaces/secrets/api_key', body)).statusCode, 201)
  t.equal((await ask('PUT', '/orgs/aCmE/codespaces/secrets/Api_Key', await sealed('two'))).statusCode, 204)
  t.equal((await ask('GET', `${PATH}/aPI_kEY`)).json().name, 'API_KEY')
  t.equal(await value('API_KEY'), 'two')
  for (const name of ['1A', 'A-B', 'A%20B', 'ünï', 'GITHUB_A', 'github_a', 'A'.repeat(256), 'A%00']) {
    await refuse({ status: 422, message: /^Secret names / }, 'PUT', `${PATH}/${encodeURI(name)}`, body)
    t.equal((await ask('GET', `${PATH}/${encodeURI(name)}`)).statusCode, 404)
    await refuse(NOT_FOUND, 'DELETE', `${PATH}/${encodeURI(name)}`)
  }
  t.equal((await ask('PUT', `${PATH}/${'A'.repeat(255)}`, body)).statusCode, 201)
})

t.test('the limit is of the collection, and what is there can still be changed', async (t) => {
  const { ask, sealed, refuse, value } = await prepare(t, { maxSecrets: 2 })
  const body = { ...(await sealed('one')), visibility: 'all' }
  for (const name of ['A', 'B']) t.equal((await ask('PUT', `${PATH}/${name}`, body)).statusCode, 201)
  const full: Refusal = { status: 422, message: /^This collection holds 2 secrets, the limit / }
  await refuse(full, 'PUT', `${PATH}/C`, body)
  t.equal((await ask('PUT', `${PATH}/A`, await sealed('two'))).statusCode, 204)
  t.equal(await value('A'), 'two')
  t.equal((await ask('PUT', `${PATH}/A`, { visibility: 'private' })).statusCode, 204)
  t.equal((await ask('DELETE', `${PATH}/A`)).statusCode, 204)
  t.equal((await ask('PUT', `${PATH}/C`, body)).statusCode, 201)
})

t.test('another organization has its own secrets, and its own key', async (t) => {
  const { server, eve, make, ask, value, refuse, token } = await prepare(t)
  await make('all')
  const eves = await server.createToken(eve, { scopes: ['repo', 'admin:org'] })
  const theirs = '/orgs/others/codespaces/secrets'
  t.equal((await ask('GET', theirs, undefined, eves)).json().total_count, 0)
  const body = { ...(await server.seal(theirs, eves, VALUE)), visibility: 'all' }
  await refuse(
    {
      status: 422,
      message: /improperly encrypted/,
      errors: [['encrypted_value', 'custom', /was not sealed for/]]
    },
    'PUT',
    TOKEN,
    body
  )
  t.equal((await ask('PUT', `${theirs}/TOKEN`, body, eves)).statusCode, 201)
  t.equal((await ask('DELETE', `${theirs}/TOKEN`, undefined, eves)).statusCode, 204)
  t.equal(await value(), 'one')
  const keys = await Promise.all(
    [PATH, '/orgs/acme/actions/secrets', '/repos/acme/web/codespaces/secrets'].map(
      async (path) => (await ask('GET', `${path}/public-key`)).json().key
    )
  )
  keys.push((await ask('GET', `${theirs}/public-key`, undefined, eves)).json().key)
  t.equal(new Set(keys).size, 4)
  t.ok(token)
})

t.test("every write has its record in the organization's stream, in the same transaction", async (t) => {
  const { server, ask, make, sealed, acme, mona, web } = await prepare(t)
  await make('selected', [web])
  await ask('PUT', TOKEN, await sealed('two'))
  await ask('PUT', TOKEN, { ...(await sealed('three')), visibility: 'selected', [FIELD]: [web] })
  await ask('DELETE', `${REPOSITORIES}/${web}`)
  await ask('PUT', `${REPOSITORIES}/${web}`)
  await ask('PUT', REPOSITORIES, { [FIELD]: [] })
  await ask('PUT', TOKEN, { visibility: 'all' })
  await ask('DELETE', TOKEN)
  const events = await server.db
    .selectFrom('audit_events')
    .select(['action', 'collection', 'stream_uid', 'actor_uid', 'name', 'value_version', 'transaction_id'])
    .where('action', 'like', 'secret.%')
    .orderBy('id')
    .execute()
  t.strictSame(
    events.map(({ action, value_version }) => [action, value_version]),
    [
      ['secret.create', 1],
      ['secret.update', 2],
      ['secret.update', 3],
      ['secret.repository.remove', 3],
      ['secret.repository.add', 3],
      ['secret.repositories', 3],
      ['secret.visibility', 3],
      ['secret.remove', 3]
    ]
  )
  t.equal(new Set(events.map(({ transaction_id }) => transaction_id)).size, events.length)
  for (const event of events) {
    t.match(event, {
      name: 'TOKEN',
      collection: `codespaces/organization/${acme.uid}`,
      stream_uid: acme.uid,
      actor_uid: mona.uid
    })
  }
  await isConsistent(t, server.db)
})

t.test('a visibility that was what is there, and no longer is, is set with the value', async (t) => {
  const { server, token, sealed, value, shown, make } = await prepare(t)
  await make('all')
  const body = { ...(await sealed('two')), visibility: 'all' }
  // Changes the secret as another writer would, after the PUT found it and before it writes.
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const other = server.db.transaction().execute(async (tx) => {
    await tx
      .updateTable('secrets')
      .set({ visibility: 'private', row_version: sql<number>`row_version + 1` })
      .execute()
    await held
  })
  await sleep(50)
  const put = server.request('PUT', TOKEN, { token, body })
  await sleep(100)
  release()
  await other
  t.equal((await put).statusCode, 204)
  t.equal(await value(), 'two')
  t.equal((await shown()).visibility, 'all')
})

t.test('of many first PUTs one creates, and the limit holds', async (t) => {
  const { server, token, sealed, web, api } = await prepare(t, { maxSecrets: 10, logLevel: 'error' })
  const value = await sealed('one of many')
  const count = async (request: (index: number) => [string, object]) => {
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, index) => {
        const [name, body] = request(index)
        return server.request('PUT', `${PATH}/${name}`, { token, body })
      })
    )
    const statuses: Record<number, number> = {}
    for (const { statusCode } of answers) statuses[statusCode] = (statuses[statusCode] ?? 0) + 1
    return statuses
  }
  const ids = (index: number) => ({ visibility: 'selected', [FIELD]: [index % 2 ? web : api] })
  t.strictSame(await count((index) => ['ONE', { ...value, ...ids(index) }]), { 201: 1, 204: 29 })
  t.strictSame(await count((index) => [`N${index}`, { ...value, visibility: 'all' }]), { 201: 9, 422: 21 })
  t.strictSame(await count((index) => ['ONE', ids(index)]), { 204: 30 })
  const selection = await server.db.selectFrom('secret_repositories').selectAll().execute()
  t.equal(selection.length, 1, 'the last one decides, alone')
  await isConsistent(t, server.db)
  t.strictSame(server.log, [])
})

t.test(
  'selections that change while their repositories are deleted neither fail nor leave anything',
  async (t) => {
    const { server, acme, token, make, selected } = await prepare(t, { logLevel: 'error' })
    await make('selected')
    for (let round = 0; round < 6; round++) {
      const ids: number[] = []
      for (let n = 0; n < 6; n++) ids.push(await server.createRepository(acme, `r${round}-${n}`))
      await server.request('PUT', REPOSITORIES, { token, body: { [FIELD]: ids } })
      const sets = Array.from({ length: 24 }, async (_, n) => {
        await sleep(n / 2)
        const some = ids.filter((_, index) => (index + n) % 3 > 0).reverse()
        const response = await server.request('PUT', REPOSITORIES, { token, body: { [FIELD]: some } })
        return response.statusCode
      })
      const deletions = ids.map(async (id, n) => {
        await sleep(n)
        return (await server.request('DELETE', `/repositories/${id}`, { token })).statusCode
      })
      t.strictSame(new Set(await Promise.all(deletions)), new Set([204]))
      const statuses = new Set(await Promise.all(sets))
      t.strictSame(
        [...statuses].filter((status) => status !== 204 && status !== 422),
        []
      )
    }
    t.strictSame(await selected(), [])
    await isConsistent(t, server.db)
    t.strictSame(server.log, [], 'nothing failed on the way')
  }
)
