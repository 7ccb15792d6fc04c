import t, { type Test } from 'tap'
import { startTestServer } from '../../helper.ts'

const PATH = '/user/codespaces/secrets'
const TOKEN = `${PATH}/TOKEN`
const REPOSITORIES = `${TOKEN}/repositories`

/** mona with two private repositories; eve's private one that she cannot see, and a public one that she can. */
async function prepare(t: Test, { exists = true } = {}) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const eve = await server.createUser('eve')
  const web = await server.createRepository(mona, 'web')
  const api = await server.createRepository(mona, 'api')
  const hidden = await server.createRepository(eve, 'hidden')
  const open = await server.createRepository(eve, 'open', { private: false })
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  const seal = (value: string) => server.seal(PATH, token, value)
  const ask = (method: 'GET' | 'PUT' | 'DELETE', url: string, body?: unknown, as: string = token) =>
    server.request(method, url, { token: as, body })
  const value = async (name = 'TOKEN') => (await server.reveal('user', mona.uid, name))?.toString()
  const selected = async (as: string = token): Promise<number[]> => {
    const { total_count, repositories } = (await ask('GET', REPOSITORIES, undefined, as)).json()
    const ids = repositories.map(({ id }: { id: number }) => id)
    t.equal(total_count, ids.length, 'total_count agrees')
    return ids
  }
  const shown = async () => (await ask('GET', TOKEN)).json()
  /** Every row that a refused request could have moved. */
  const rows = async () => ({
    secrets: await server.db.selectFrom('secrets').selectAll().orderBy('id').execute(),
    selections: await server.db
      .selectFrom('secret_repositories')
      .selectAll()
      .orderBy('secret_id')
      .orderBy('repository_id')
      .execute(),
    audit: await server.db
      .selectFrom('audit_events')
      .select('id')
      .where('outcome', '=', 'allowed')
      .orderBy('id')
      .execute()
  })
  /** Refused with this status and message, and nothing moved. */
  const refuse = async (
    status: number,
    message: string | RegExp,
    [method, url, body, as]: ['PUT' | 'DELETE', string, unknown?, string?]
  ) => {
    const before = await rows()
    const response = await ask(method, url, body, as)
    t.equal(response.statusCode, status, `${method} ${url} ${JSON.stringify(body)}`)
    t.match(response.json().message, message)
    t.same(await rows(), before, 'nothing changed')
    return response
  }
  if (exists) {
    const created = await ask('PUT', TOKEN, { ...(await seal('one')), selected_repository_ids: [web] })
    t.equal(created.statusCode, 201)
  }
  return { server, mona, eve, web, api, hidden, open, token, seal, ask, value, selected, shown, refuse, rows }
}

t.test('a new secret is selected, for no repository', async (t) => {
  const { ask, seal, selected, shown, value } = await prepare(t, { exists: false })
  const created = await ask('PUT', TOKEN, await seal('one'))
  t.equal(created.statusCode, 201)
  t.equal(created.body, '{}')
  t.match(await shown(), {
    name: 'TOKEN',
    visibility: 'selected',
    selected_repositories_url: 'http://coffer.test/user/codespaces/secrets/TOKEN/repositories'
  })
  t.same(await selected(), [])
  t.equal(await value(), 'one')
})

t.test('ids are integers or decimal strings, and repeated ones count once', async (t) => {
  const { ask, seal, selected, web, api, open } = await prepare(t, { exists: false })
  const ids = [web, String(web), api, `${api}`, open, open]
  t.equal((await ask('PUT', TOKEN, { ...(await seal('one')), selected_repository_ids: ids })).statusCode, 201)
  t.same(await selected(), [web, api, open])
  t.equal((await ask('PUT', REPOSITORIES, { selected_repository_ids: [String(api), api] })).statusCode, 204)
  t.same(await selected(), [api])
})

t.test('a new value keeps the selection when ids are omitted, and clears it with null and []', async (t) => {
  const { ask, seal, selected, value, web } = await prepare(t)
  t.equal((await ask('PUT', TOKEN, await seal('two'))).statusCode, 204)
  t.same(await selected(), [web], 'omitted')
  t.equal(await value(), 'two')
  for (const [ids, next] of [
    [null, 'three'],
    [[], 'four']
  ] as const) {
    t.equal(
      (await ask('PUT', TOKEN, { ...(await seal(next)), selected_repository_ids: ids })).statusCode,
      204
    )
    t.same(await selected(), [], JSON.stringify(ids))
    t.equal(await value(), next)
    await ask('PUT', REPOSITORIES, { selected_repository_ids: [web] })
  }
})

t.test(
  'without a value the selection of an existing secret changes, and the value and its time stay',
  async (t) => {
    const { ask, selected, shown, value, web, api } = await prepare(t)
    const before = await shown()
    for (const [body, expected] of [
      [{ selected_repository_ids: [api] }, [api]],
      [{ selected_repository_ids: null }, []],
      [{ selected_repository_ids: [web, api], key_id: 'ignored' }, [web, api]],
      [{ selected_repository_ids: [] }, []],
      [{ visibility: 'selected', selected_repository_ids: [String(web)] }, [web]],
      [{ visibility: 'selected' }, [web]]
    ] as const) {
      const response = await ask('PUT', TOKEN, body)
      t.equal(response.statusCode, 204, JSON.stringify(body))
      t.same(await selected(), expected)
    }
    t.same(await shown(), before)
    t.equal(await value(), 'one')
  }
)

t.test(
  'a value that is missing, null or empty is refused unless the selection is what changes',
  async (t) => {
    const { refuse, seal, web, shown } = await prepare(t)
    const { key_id, encrypted_value } = await seal('two')
    const wasMissing = /^Invalid request\.\n\n"encrypted_value" wasn't supplied\.$/
    for (const body of [undefined, {}, { key_id }, { unknown: 1 }])
      await refuse(422, wasMissing, ['PUT', TOKEN, body])
    const ids = { selected_repository_ids: [web] }
    for (const body of [
      { key_id, encrypted_value: null },
      { key_id, encrypted_value: null, ...ids },
      { encrypted_value: null, visibility: 'all' },
      { key_id, encrypted_value: '' },
      { key_id, encrypted_value: '', ...ids },
      { encrypted_value: '', visibility: 'all' }
    ]) {
      await refuse(422, /^Invalid request|^Bad request/, ['PUT', TOKEN, body])
    }
    await refuse(422, /^Invalid request\.\n\n"key_id" wasn't supplied\.$/, [
      'PUT',
      TOKEN,
      { encrypted_value }
    ])
    await refuse(422, /"key_id" wasn't supplied/, ['PUT', TOKEN, { encrypted_value, ...ids }])
    await refuse(422, /^Invalid request/, ['PUT', TOKEN, { encrypted_value, key_id: 7 }])
    t.equal((await shown()).visibility, 'selected')
  }
)

t.test('what does not exist is not created without a value', async (t) => {
  const { refuse, web } = await prepare(t)
  for (const body of [{ selected_repository_ids: [web] }, { visibility: 'all' }, {}, { key_id: '1' }]) {
    await refuse(422, /"encrypted_value" wasn't supplied/, ['PUT', `${PATH}/NEW`, body])
  }
})

t.test('an unknown id and one that the caller cannot see are refused alike', async (t) => {
  const { refuse, seal, web, hidden, ask, token } = await prepare(t)
  const sealed = await seal('two')
  const answers: string[] = []
  const unknown = [987_654_321, '987654321', 0, -1, hidden, String(hidden)]
  unknown.push('9223372036854775808', '99999999999999999999999', Number.MAX_SAFE_INTEGER)
  for (const id of unknown) {
    const ids = { selected_repository_ids: [web, id] }
    for (const [url, body] of [
      [TOKEN, { ...sealed, ...ids }],
      [TOKEN, ids],
      [REPOSITORIES, ids],
      [`${PATH}/NEW`, { ...sealed, ...ids }]
    ] as const) {
      const response = await refuse(422, /^(Validation Failed|Invalid request)/, ['PUT', url, body])
      if (url === REPOSITORIES && Number(id) > 0) answers.push(response.body)
    }
  }
  t.equal(new Set(answers).size, 1, 'the same body for all')
  t.match(JSON.parse(answers[0]!), {
    message: 'Validation Failed',
    errors: [{ resource: 'Secret', field: 'selected_repository_ids', code: 'custom', message: /cannot see/ }]
  })
  t.notMatch(answers[0], String(hidden))
  t.equal((await ask('GET', `${PATH}/NEW`, undefined, token)).statusCode, 404)
})

t.test('what is no id is refused, and not quoted', async (t) => {
  const { refuse, seal, web } = await prepare(t)
  const sealed = await seal('two')
  for (const ids of [
    ['abc'],
    ['1.5'],
    [1.5],
    ['-1'],
    [''],
    [' 1'],
    [null],
    [true],
    [[web]],
    [{ id: web }],
    'all',
    7,
    {}
  ]) {
    for (const url of [TOKEN, REPOSITORIES]) {
      const body = { ...sealed, selected_repository_ids: ids }
      const response = await refuse(422, /^Invalid request\./, ['PUT', url, body])
      t.match(response.json().errors, [{ field: /^selected_repository_ids/ }])
      t.notMatch(response.body, /abc|1\.5/)
    }
  }
  await refuse(422, /"selected_repository_ids" wasn't supplied/, ['PUT', REPOSITORIES, {}])
  await refuse(422, /"selected_repository_ids" wasn't supplied/, ['PUT', REPOSITORIES])
})

t.test('visibility all is an extension: for every repository, and no selection', async (t) => {
  const { ask, seal, shown, selected, value, refuse, web } = await prepare(t)
  t.equal((await ask('PUT', TOKEN, { visibility: 'all' })).statusCode, 204)
  t.equal((await shown()).visibility, 'all')
  t.equal((await ask('GET', PATH)).json().secrets[0].visibility, 'all')
  t.same(await selected(), [])
  t.equal((await ask('PUT', TOKEN, await seal('two'))).statusCode, 204)
  t.equal((await shown()).visibility, 'all', 'a new value leaves it')
  t.equal(await value(), 'two')

  await refuse(422, 'Validation Failed', [
    'PUT',
    TOKEN,
    { visibility: 'all', selected_repository_ids: [web] }
  ])
  for (const visibility of ['private', 'none', '', null, 1]) {
    await refuse(422, /^Invalid request\./, ['PUT', TOKEN, { visibility }])
  }
  t.equal((await ask('PUT', REPOSITORIES, { selected_repository_ids: [web] })).statusCode, 204)
  t.equal((await shown()).visibility, 'selected', 'who names repositories does not mean all')
  t.same(await selected(), [web])
  t.equal(
    (await ask('PUT', `${PATH}/EVERYWHERE`, { ...(await seal('x')), visibility: 'all' })).statusCode,
    201
  )
  t.equal((await ask('GET', `${PATH}/EVERYWHERE`)).json().visibility, 'all')
})

t.test('repositories are added and removed one by one', async (t) => {
  const { ask, selected, shown, web, api, open } = await prepare(t)
  const before = await shown()
  for (const id of [api, open, api]) {
    const response = await ask('PUT', `${REPOSITORIES}/${id}`)
    t.equal(response.statusCode, 204, 'twice is once')
    t.equal(response.body, '')
  }
  t.same(await selected(), [web, api, open])
  t.equal((await ask('DELETE', `${REPOSITORIES}/${web}`)).statusCode, 204)
  t.same(await selected(), [api, open])
  t.equal((await ask('DELETE', `${REPOSITORIES}/${web}`)).statusCode, 404, 'no longer selected')
  t.same(await shown(), before, 'times stay')
})

t.test('adding and removing what is not there is not found', async (t) => {
  const { refuse, web, api, hidden } = await prepare(t)
  const ids = [987_654_321, hidden, 0, -1, 'abc', '1.5', '9223372036854775808', '%00']
  for (const id of ids) {
    const add = await refuse(404, 'Not Found', ['PUT', `${REPOSITORIES}/${id}`])
    t.match(add.json().documentation_url, /#add-a-selected-repository-to-a-user-secret$/)
    await refuse(404, 'Not Found', ['DELETE', `${REPOSITORIES}/${id}`])
  }
  await refuse(404, 'Not Found', ['DELETE', `${REPOSITORIES}/${api}`])
  for (const method of ['PUT', 'DELETE'] as const) {
    await refuse(404, 'Not Found', [method, `${PATH}/NOTHING/repositories/${web}`])
  }
  await refuse(404, 'Not Found', ['PUT', `${PATH}/NOTHING/repositories`, { selected_repository_ids: [web] }])
})

t.test('with visibility all one repository is neither added nor removed: 409 names the remedy', async (t) => {
  const { ask, refuse, web, api } = await prepare(t)
  await ask('PUT', TOKEN, { visibility: 'all' })
  for (const [method, id] of [
    ['PUT', api],
    ['DELETE', web]
  ] as const) {
    const response = await refuse(409, /visibility is all\b.*selected repositories/, [
      method,
      `${REPOSITORIES}/${id}`
    ])
    t.equal(response.json().status, '409')
  }
})

t.test('the selection shows only what the caller can see now', async (t) => {
  const { server, eve, ask, selected, hidden, web, open } = await prepare(t)
  const eves = await server.createToken(eve, { scopes: ['repo'] })
  const grant = (method: 'PUT' | 'DELETE') =>
    server.request(method, '/repos/eve/hidden/collaborators/mona', {
      token: eves,
      body: { permission: 'pull' }
    })
  t.equal((await grant('PUT')).statusCode, 204)
  t.equal((await ask('PUT', `${REPOSITORIES}/${hidden}`)).statusCode, 204, 'read is enough')
  t.equal((await ask('PUT', `${REPOSITORIES}/${open}`)).statusCode, 204)
  t.same(await selected(), [web, hidden, open])
  t.equal((await grant('DELETE')).statusCode, 204)
  t.same(await selected(), [web, open], 'no longer')
  await grant('PUT')
  t.same(await selected(), [web, hidden, open], 'and again')
})

t.test('a token without the repo scope sees the public repositories of a selection', async (t) => {
  const { server, mona, ask, selected, refuse, web, open } = await prepare(t)
  await ask('PUT', `${REPOSITORIES}/${open}`)
  const narrow = await server.createToken(mona, { scopes: ['codespace:secrets'] })
  t.same(await selected(narrow), [open])
  await refuse(422, 'Validation Failed', ['PUT', REPOSITORIES, { selected_repository_ids: [web] }, narrow])
  await refuse(404, 'Not Found', ['PUT', `${REPOSITORIES}/${web}`, undefined, narrow])
})

t.test('a deleted repository leaves the selection, and the secret stays', async (t) => {
  const { server, ask, selected, value, token, api, web } = await prepare(t)
  await ask('PUT', `${REPOSITORIES}/${api}`)
  t.equal((await server.request('DELETE', '/repos/mona/web', { token })).statusCode, 204)
  t.same(await selected(), [api])
  const left = await server.db.selectFrom('secret_repositories').select('repository_id').execute()
  t.same(left, [{ repository_id: api }])
  t.equal((await ask('PUT', `${REPOSITORIES}/${web}`)).statusCode, 404)
  t.equal(await value(), 'one')
})

t.test('secrets belong to the account: another one has its own under the same name', async (t) => {
  const { server, eve, ask, value, selected, web } = await prepare(t)
  const eves = await server.createToken(eve, { scopes: ['repo', 'codespace'] })
  t.equal((await ask('GET', TOKEN, undefined, eves)).statusCode, 404)
  t.equal((await ask('GET', PATH, undefined, eves)).json().total_count, 0)
  t.equal((await ask('DELETE', TOKEN, undefined, eves)).statusCode, 404)
  const body = await server.seal(PATH, eves, 'eves')
  t.equal((await ask('PUT', TOKEN, body, eves)).statusCode, 201)
  t.equal((await ask('DELETE', TOKEN, undefined, eves)).statusCode, 204)
  t.equal(await value(), 'one')
  t.same(await selected(), [web])
})

t.test('a value sealed for somebody else is refused', async (t) => {
  const { server, eve, refuse } = await prepare(t)
  const eves = await server.createToken(eve, { scopes: ['codespace'] })
  const body = await server.seal(PATH, eves, 'MARKER')
  await refuse(422, /improperly encrypted/, ['PUT', TOKEN, body])
})

t.test('a fine-grained token reads with read, and writes with write', async (t) => {
  const { server, mona, seal, ask, refuse, value, web } = await prepare(t)
  const reader = await server.createToken(mona, {
    permissions: { codespaces_user_secrets: 'read' },
    allRepositories: true
  })
  const writer = await server.createToken(mona, {
    permissions: { codespaces_user_secrets: 'write' },
    allRepositories: true
  })
  for (const as of [reader, writer]) {
    for (const url of [PATH, `${PATH}/public-key`, TOKEN, REPOSITORIES]) {
      t.equal((await ask('GET', url, undefined, as)).statusCode, 200, url)
    }
  }
  const denied = 'Resource not accessible by personal access token'
  const sealed = await seal('two')
  await refuse(403, denied, ['PUT', TOKEN, sealed, reader])
  await refuse(403, denied, ['DELETE', TOKEN, undefined, reader])
  await refuse(403, denied, ['PUT', REPOSITORIES, { selected_repository_ids: [] }, reader])
  await refuse(403, denied, ['PUT', `${REPOSITORIES}/${web}`, undefined, reader])
  await refuse(403, denied, ['DELETE', `${REPOSITORIES}/${web}`, undefined, reader])

  t.equal((await ask('PUT', TOKEN, sealed, writer)).statusCode, 204)
  t.equal(await value(), 'two')
  t.equal((await ask('DELETE', `${REPOSITORIES}/${web}`, undefined, writer)).statusCode, 204)
  t.equal((await ask('PUT', REPOSITORIES, { selected_repository_ids: [] }, writer)).statusCode, 204)
  t.equal((await ask('DELETE', TOKEN, undefined, writer)).statusCode, 204)
})

t.test('a fine-grained token adds repositories only where it may write their secrets', async (t) => {
  const { server, mona, seal, selected, refuse, ask, web, api, open, hidden } = await prepare(t)
  const withoutRepositories = await server.createToken(mona, {
    permissions: { codespaces_user_secrets: 'write', codespaces_secrets: 'read' },
    repositoryIds: [web, api]
  })
  const denied = 'Resource not accessible by personal access token'
  const ids = { selected_repository_ids: [api] }
  await refuse(403, denied, ['PUT', REPOSITORIES, ids, withoutRepositories])
  await refuse(403, denied, ['PUT', `${REPOSITORIES}/${api}`, undefined, withoutRepositories])
  await refuse(403, denied, ['PUT', TOKEN, { ...(await seal('two')), ...ids }, withoutRepositories])

  const apiOnly = await server.createToken(mona, {
    permissions: { codespaces_user_secrets: 'write', codespaces_secrets: 'write' },
    repositoryIds: [api]
  })
  t.same(await selected(apiOnly), [], 'web is selected, and not for this token to see')
  t.equal((await ask('PUT', `${REPOSITORIES}/${api}`, undefined, apiOnly)).statusCode, 204)
  t.same(await selected(apiOnly), [api])
  t.same(await selected(), [web, api])
  for (const id of [web, open, hidden, 987_654_321]) {
    await refuse(422, 'Validation Failed', ['PUT', REPOSITORIES, { selected_repository_ids: [id] }, apiOnly])
    await refuse(404, 'Not Found', ['PUT', `${REPOSITORIES}/${id}`, undefined, apiOnly])
  }
  t.equal((await ask('PUT', REPOSITORIES, ids, apiOnly)).statusCode, 204)
  t.same(await selected(), [api])
})

t.test('a write and its audit record name the same secret', async (t) => {
  const { server, mona, ask, seal, api } = await prepare(t)
  await ask('PUT', TOKEN, await seal('two'))
  await ask('PUT', `${REPOSITORIES}/${api}`)
  await ask('DELETE', `${REPOSITORIES}/${api}`)
  await ask('PUT', TOKEN, { visibility: 'all' })
  await ask('DELETE', TOKEN)
  const events = await server.db
    .selectFrom('audit_events')
    .select(['action', 'collection', 'name', 'actor_uid', 'outcome'])
    .where('action', 'like', 'secret.%')
    .orderBy('id')
    .execute()
  t.same(
    events.map(({ action }) => action),
    [
      'secret.create',
      'secret.update',
      'secret.repository.add',
      'secret.repository.remove',
      'secret.visibility',
      'secret.remove'
    ]
  )
  for (const event of events) {
    t.match(event, { collection: `codespaces/user/${mona.uid}`, name: 'TOKEN', actor_uid: mona.uid })
  }
})
