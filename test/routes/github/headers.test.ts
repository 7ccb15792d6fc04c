import t from 'tap'
import { startTestServer } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const REQUEST_ID = /^[0-9A-F]{4}:[0-9A-F]{4}:[0-9A-F]{5,6}:[0-9A-F]{5,6}:[0-9A-F]{8}$/

async function prepare(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  return { server, mona, repositoryId, token }
}

t.test('every answer lets browsers read it, and carries GitHub’s protective headers', async (t) => {
  const { server, token } = await prepare(t)
  const answers = [
    await server.request('GET', REPO, { token }),
    await server.request('PUT', `${REPO}/A`, { token, body: await server.seal(REPO, token, 'value') }),
    await server.request('DELETE', `${REPO}/A`, { token }),
    await server.request('GET', REPO),
    await server.request('GET', '/nothing', { token }),
    await server.request('GET', `${REPO}/%zz`, { token }),
    await server.request('PUT', `${REPO}/A`, { token, body: '{' }),
    await server.request('GET', REPO, { token, headers: { accept: 'image/png' } }),
    await server.request('OPTIONS', REPO)
  ]
  t.same(
    answers.map(({ statusCode }) => statusCode),
    [200, 201, 204, 401, 404, 404, 400, 415, 204]
  )
  for (const { headers, statusCode } of answers) {
    const name = String(statusCode)
    t.equal(headers['access-control-allow-origin'], '*', name)
    const exposed = String(headers['access-control-expose-headers']).split(', ')
    for (const header of [
      'ETag',
      'Link',
      'Location',
      'Retry-After',
      'X-OAuth-Scopes',
      'X-GitHub-Request-Id'
    ]) {
      t.ok(exposed.includes(header), `${name} exposes ${header}`)
    }
    t.equal(headers['access-control-allow-credentials'], undefined, name)
    t.equal(headers['x-frame-options'], 'deny', name)
    t.equal(headers['x-content-type-options'], 'nosniff', name)
    t.equal(headers['content-security-policy'], "default-src 'none'", name)
    t.match(headers['x-github-request-id'], REQUEST_ID, name)
  }
  const ids = answers.map(({ headers }) => headers['x-github-request-id'])
  t.equal(new Set(ids).size, ids.length, 'each request has its own id')
})

t.test('a preflight is answered with 204, without credentials, wherever it goes', async (t) => {
  const { server } = await prepare(t)
  for (const url of [REPO, `${REPO}/A`, `/api/v3${USER}/A/repositories/1`, '/nothing']) {
    const response = await server.request('OPTIONS', url, {
      headers: {
        origin: 'https://app.example',
        'access-control-request-method': 'PUT',
        'access-control-request-headers': 'authorization,content-type,x-github-api-version'
      }
    })
    t.equal(response.statusCode, 204, url)
    t.equal(response.body, '')
    t.equal(response.headers['content-type'], undefined)
    t.equal(response.headers['access-control-allow-origin'], '*')
    t.equal(response.headers['access-control-allow-methods'], 'GET, POST, PATCH, PUT, DELETE')
    const allowed = String(response.headers['access-control-allow-headers']).toLowerCase().split(', ')
    for (const header of [
      'authorization',
      'content-type',
      'if-match',
      'if-none-match',
      'x-github-api-version',
      'x-requested-with'
    ]) {
      t.ok(allowed.includes(header), header)
    }
    t.equal(response.headers['access-control-max-age'], '86400')
  }
})

t.test('X-GitHub-Media-Type tells how Accept was understood', async (t) => {
  const { server, token } = await prepare(t)
  const accepted: Record<string, RegExp> = {
    '': /^github\.v3; format=json$/,
    '*/*': /^github\.v3; format=json$/,
    'application/json': /^github\.v3; format=json$/,
    'application/vnd.github+json': /^github\.v3; format=json$/,
    'application/vnd.github.v3+json': /^github\.v3; format=json$/,
    'application/vnd.github.v3+json,application/vnd.github.stone-crop-preview+json':
      /^github\.v3; format=json$/,
    'application/vnd.github.merge-info-preview+json, application/vnd.github.nebula-preview':
      /^github\.merge-info-preview; format=json$/,
    'APPLICATION/JSON; q=0.8': /^github\.v3; format=json$/,
    'application/*': /^github\.v3; format=json$/,
    'text/html,application/xhtml+xml,*/*;q=0.8': /^github\.v3; format=json$/
  }
  for (const [accept, expected] of Object.entries(accepted)) {
    const response = await server.request('GET', REPO, { token, headers: { accept } })
    t.equal(response.statusCode, 200, accept)
    t.match(response.headers['x-github-media-type'], expected, accept)
    t.equal(response.headers['content-type'], 'application/json; charset=utf-8')
  }
  t.equal(
    (await server.request('GET', REPO, { token })).headers['x-github-media-type'],
    'github.v3; format=json'
  )
})

t.test('an Accept that rules out JSON is refused with 415, before anything is done', async (t) => {
  const { server, token } = await prepare(t)
  const body = await server.seal(REPO, token, 'value')
  for (const accept of ['text/html', 'application/xml', 'image/png, text/plain', 'nonsense']) {
    const response = await server.request('PUT', `${REPO}/A`, { token, body, headers: { accept } })
    t.equal(response.statusCode, 415, accept)
    t.match(response.json(), {
      message: /^Unsupported 'Accept' header.*Must accept 'application\/json'\.$/,
      documentation_url: 'https://docs.github.com/v3/media',
      status: '415'
    })
    t.notMatch(response.body, accept.split(',')[0])
  }
  t.equal((await server.request('GET', REPO, { token })).json().total_count, 0)
})

t.test('two API versions are served, others refused with the list', async (t) => {
  const { server, token } = await prepare(t)
  for (const [asked, selected] of [
    [undefined, '2022-11-28'],
    ['', '2022-11-28'],
    ['2022-11-28', '2022-11-28'],
    ['2026-03-10', '2026-03-10']
  ] as const) {
    const headers: Record<string, string> = asked === undefined ? {} : { 'x-github-api-version': asked }
    const response = await server.request('GET', REPO, { token, headers })
    t.equal(response.statusCode, 200)
    t.equal(response.headers['x-github-api-version-selected'], selected)
  }
  for (const version of ['v3', '2021-01-01', '2026-03-11', '2022-11-28, 2026-03-10']) {
    const response = await server.request('GET', REPO, {
      token,
      headers: { 'x-github-api-version': version }
    })
    t.equal(response.statusCode, 400, version)
    t.match(response.json(), {
      message: /is not a supported version\. .*supported: "2022-11-28", "2026-03-10"/,
      status: '400'
    })
    t.equal(response.headers['x-github-api-version-selected'], undefined)
  }
  t.same((await server.request('GET', '/versions')).json(), ['2026-03-10', '2022-11-28'])
})

t.test('repositories have has_downloads in the older version alone', async (t) => {
  const { server, token, repositoryId } = await prepare(t)
  const body = await server.seal(USER, token, 'value')
  await server.request('PUT', `${USER}/A`, {
    token,
    body: { ...body, selected_repository_ids: [repositoryId] }
  })
  for (const [version, present] of [
    ['2022-11-28', true],
    ['2026-03-10', false]
  ] as const) {
    const headers = { 'x-github-api-version': version }
    const listed = await server.request('GET', `${USER}/A/repositories`, { token, headers })
    t.equal(listed.json().total_count, 1)
    t.equal('has_downloads' in listed.json().repositories[0], present, version)
    const repository = await server.request('GET', '/repos/mona/web', { token, headers })
    t.equal('has_downloads' in repository.json(), present, version)
  }
})

t.test('scopes are shown to classic tokens, permissions to fine-grained ones', async (t) => {
  const { server, mona, repositoryId } = await prepare(t)
  const classic = await server.createToken(mona, {
    scopes: ['repo', 'public_repo', 'codespace', 'codespace:secrets']
  })
  const shown = await server.request('GET', USER, { token: classic })
  t.equal(shown.headers['x-oauth-scopes'], 'codespace, repo', 'implied ones are left out')
  t.equal(shown.headers['x-accepted-oauth-scopes'], 'codespace, codespace:secrets')
  t.equal(shown.headers['x-accepted-github-permissions'], undefined)
  t.equal((await server.request('GET', REPO, { token: classic })).headers['x-accepted-oauth-scopes'], 'repo')

  const fine = await server.createToken(mona, {
    permissions: { codespaces_user_secrets: 'read', codespaces_secrets: 'write' },
    repositoryIds: [repositoryId]
  })
  const listed = await server.request('GET', USER, { token: fine })
  t.equal(listed.statusCode, 200)
  t.equal(listed.headers['x-accepted-github-permissions'], 'codespaces_user_secrets=read')
  t.equal(listed.headers['x-oauth-scopes'], undefined)
  t.equal(listed.headers['x-accepted-oauth-scopes'], undefined)
  const repository = await server.request('GET', REPO, { token: fine })
  t.equal(repository.statusCode, 200)
  t.equal(repository.headers['x-accepted-github-permissions'], 'codespaces_secrets=write')
})

t.test('the end of a token is told to the second', async (t) => {
  const { server, mona } = await prepare(t)
  const token = await server.createToken(mona, { scopes: ['codespace'], expiresInDays: 7 })
  const header = (await server.request('GET', USER, { token })).headers[
    'github-authentication-token-expiration'
  ] as string
  t.match(header, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/)
  const until = Date.parse(header.replace(' UTC', 'Z').replace(' ', 'T'))
  t.ok(Math.abs(until - Date.now() - 7 * 86_400_000) < 60_000, header)
  const endless = await server.createToken(mona, { scopes: ['codespace'] })
  await server.db.updateTable('tokens').set({ expires_at: null }).where('account_id', '=', mona.id).execute()
  const shown = await server.request('GET', USER, { token: endless })
  t.equal(shown.headers['github-authentication-token-expiration'], undefined)
})
