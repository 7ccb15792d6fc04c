import { createHmac, createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import {
  asAdmin,
  forgeJwt,
  installTestApp,
  mint,
  registerTestApp,
  seconds,
  signJwt
} from '../../github-app.ts'
import { documentationUrl, schemaValidator, validator } from '../../github-description.ts'
import { startTestServer, type TestServer } from '../../helper.ts'

const PERMISSIONS = { codespaces_secrets: 'write', organization_codespaces_secrets: 'read' }
const NOT_DECODED = 'A JSON web token could not be decoded'

let guesses = 0

/** From another address each time, or the number of failures would decide. */
async function guess(server: TestServer, url: string, authorization?: string) {
  guesses += 1
  return await server.app.inject({
    method: 'GET',
    url,
    remoteAddress: `10.1.${guesses >> 8}.${guesses & 255}`,
    ...(authorization !== undefined && { headers: { authorization } })
  })
}

async function makeWorld(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const web = await server.createRepository(acme, 'web')
  await server.createRepository(acme, 'api')
  await server.createRepository(mona, 'notes')
  const app = await registerTestApp(server, 'Octo App', PERMISSIONS, 'acme')
  const other = await registerTestApp(server, 'Other', PERMISSIONS, 'mona')
  const onAcme = await installTestApp(server, app, 'acme', ['web'])
  const onMona = await installTestApp(server, app, 'mona')
  return { server, mona, acme, web, app, other, onAcme, onMona, jwt: await signJwt(app) }
}

t.test('an App sees itself and its installations, in the form that GitHub describes', async (t) => {
  const { server, app, other, onAcme, onMona, jwt, acme } = await makeWorld(t)
  const own = await server.request('GET', '/app', { token: jwt })
  t.equal(own.statusCode, 200)
  t.same(validator('apps/get-authenticated', 200)(own.json()), [])
  t.match(own.json(), {
    id: app.id,
    slug: 'octo-app',
    name: 'Octo App',
    client_id: app.clientId,
    owner: { login: 'acme', type: 'Organization' },
    permissions: { ...PERMISSIONS, metadata: 'read' },
    installations_count: 2
  })

  const list = await server.request('GET', '/app/installations', { token: jwt })
  // What GitHub describes for this list asks that an account be a user and an enterprise at once.
  for (const entry of list.json()) t.same(schemaValidator('installation')(entry), [])
  t.same(
    list.json().map(({ id }: { id: number }) => id),
    [onAcme, onMona]
  )
  const one = await server.request('GET', `/app/installations/${onAcme}`, { token: jwt })
  t.same(validator('apps/get-installation', 200)(one.json()), [])
  t.match(one.json(), {
    id: onAcme,
    app_id: app.id,
    app_slug: 'octo-app',
    client_id: app.clientId,
    account: { login: 'acme', id: acme.id },
    target_id: acme.id,
    target_type: 'Organization',
    repository_selection: 'selected',
    permissions: { ...PERMISSIONS, metadata: 'read' },
    access_tokens_url: `http://coffer.test/app/installations/${onAcme}/access_tokens`,
    suspended_at: null
  })
  t.equal(
    (await server.request('GET', `/app/installations/${onMona}`, { token: jwt })).json().repository_selection,
    'all'
  )

  const byClientId = await signJwt(app, { iss: app.clientId })
  t.equal((await server.request('GET', '/app', { token: byClientId })).json().id, app.id)
  const byNumber = await signJwt(app, { iss: app.id })
  t.equal((await server.request('GET', '/app', { token: byNumber })).json().id, app.id)
  t.equal((await server.request('GET', '/api/v3/app', { token: jwt })).json().id, app.id)

  // of another App, of none, of nothing that is a number
  const others = await signJwt(other)
  t.same((await server.request('GET', '/app/installations', { token: others })).json(), [])
  for (const id of [onAcme, 1, 'x', '99999999999999999999', '-1', `${onAcme}.0`]) {
    const response = await server.request('GET', `/app/installations/${id}`, { token: others })
    t.equal(response.statusCode, 404, String(id))
    t.equal(response.json().documentation_url, documentationUrl('apps/get-installation'))
  }
})

t.test('installations are paged', async (t) => {
  const { server, app, jwt } = await makeWorld(t)
  await server.createUser('third')
  const third = await installTestApp(server, app, 'third')
  const page = await server.request('GET', '/app/installations?per_page=2&page=2', { token: jwt })
  t.same(
    page.json().map(({ id }: { id: number }) => id),
    [third]
  )
  t.equal(
    page.headers.link,
    '<http://coffer.test/app/installations?per_page=2&page=1>; rel="prev", ' +
      '<http://coffer.test/app/installations?per_page=2&page=1>; rel="first"'
  )
})

t.test('an installation is found by repository, organization and user', async (t) => {
  const { server, app, onAcme, onMona, jwt, web } = await makeWorld(t)
  const ask = (url: string) => server.request('GET', url, { token: jwt })
  const found: [url: string, id: number][] = [
    ['/repos/acme/web/installation', onAcme],
    ['/repos/ACME/WEB/installation', onAcme],
    [`/repositories/${web}/installation`, onAcme],
    ['/repos/mona/notes/installation', onMona],
    ['/orgs/acme/installation', onAcme],
    ['/orgs/ACME/installation', onAcme],
    ['/users/mona/installation', onMona],
    ['/users/acme/installation', onAcme]
  ]
  for (const [url, id] of found) {
    const response = await ask(url)
    t.equal(response.statusCode, 200, url)
    t.equal(response.json().id, id, url)
    t.same(schemaValidator('installation')(response.json()), [], url)
  }
  for (const url of [
    '/repos/acme/api/installation',
    '/repos/acme/none/installation',
    '/repos/none/web/installation',
    '/repos/%00/%00/installation',
    '/repositories/0/installation',
    '/repositories/x/installation',
    '/orgs/mona/installation',
    '/orgs/none/installation',
    '/orgs/%00/installation',
    '/users/none/installation',
    '/users/root/installation'
  ]) {
    const response = await ask(url)
    t.equal(response.statusCode, 404, url)
    t.equal(response.json().message, 'Not Found', url)
  }

  // under its old name, for the App that has it, and for no other
  await asAdmin(server, 'PATCH', `/admin/installations/${onMona}`, { repositories: ['notes'] })
  const token = await server.createToken(
    (await server.db
      .selectFrom('accounts')
      .selectAll()
      .where('login', '=', 'mona')
      .executeTakeFirstOrThrow()) as never,
    { scopes: ['repo'] }
  )
  await server.request('PATCH', '/repos/mona/notes', { token, body: { name: 'diary' } })
  const moved = await ask('/repos/mona/notes/installation')
  t.equal(moved.statusCode, 301)
  t.match(moved.headers.location, /^http:\/\/coffer\.test\/repositories\/[0-9]+\/installation$/)
  const location = moved.headers.location as string
  t.equal((await ask(location.slice('http://coffer.test'.length))).json().id, onMona)
  const stranger = await registerTestApp(server, 'Stranger', {})
  const refused = await server.request('GET', '/repos/mona/notes/installation', {
    token: await signJwt(stranger)
  })
  t.equal(refused.statusCode, 404)
  t.ok(app)
})

t.test('a JWT is refused with the words by which clients know what is wrong', async (t) => {
  const { server, app } = await makeWorld(t)
  const now = seconds()
  const spki = createPublicKey(app.pem).export({ type: 'spki', format: 'pem' })
  const claims = { iss: String(app.id), iat: now - 30, exp: now + 570 }
  const macOf = (header: object) => {
    const [first, second] = forgeJwt(header, claims).split('.')
    return createHmac('sha256', spki).update(`${first}.${second}`).digest()
  }
  const hs256 = { alg: 'HS256', typ: 'JWT' }
  const valid = await signJwt(app)
  const EXPIRED =
    "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
  const ISSUED_AT =
    "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
  const cases: [what: string, jwt: string, status: number, message: string][] = [
    [
      'too far',
      await signJwt(app, { exp: now + 700 }),
      401,
      "'Expiration time' claim ('exp') is too far in the future"
    ],
    ['expired', await signJwt(app, { exp: now - 100 }), 401, EXPIRED],
    ['exp missing', await signJwt(app, { exp: undefined }), 401, EXPIRED],
    ['iat ahead', await signJwt(app, { iat: now + 100 }), 401, ISSUED_AT],
    ['iat missing', await signJwt(app, { iat: undefined }), 401, ISSUED_AT],
    [
      'iss missing',
      await signJwt(app, { iss: undefined }),
      401,
      "Missing 'issuer' claim ('iss') in assertion"
    ],
    [
      'iss of no form',
      await signJwt(app, { iss: 'no app' }),
      401,
      "'Issuer' claim ('iss') must be an Integer"
    ],
    ['unknown id', await signJwt(app, { iss: '987654' }), 404, 'Integration not found'],
    ['unknown client id', await signJwt(app, { iss: 'Iv1.none' }), 404, 'Integration not found'],
    ['another App', await signJwt(app, { iss: String(app.id + 1) }), 401, NOT_DECODED],
    ['none', forgeJwt({ alg: 'none' }, claims), 401, NOT_DECODED],
    ['HS256 with the public key', forgeJwt(hs256, claims, macOf(hs256)), 401, NOT_DECODED],
    ['no signature', valid.slice(0, valid.lastIndexOf('.') + 1), 401, NOT_DECODED],
    ['not a JWT', 'a.b.c', 401, NOT_DECODED],
    ['long', `${valid}${'A'.repeat(5000)}`, 401, NOT_DECODED]
  ]
  for (const [what, jwt, status, message] of cases) {
    const response = await guess(server, '/app', `Bearer ${jwt}`)
    t.equal(response.statusCode, status, what)
    t.equal(response.json().message, message, what)
    t.equal(response.json().status, String(status), what)
  }
  t.equal((await guess(server, '/app', `bearer ${valid}`)).statusCode, 200, 'in any case')
  for (const header of [
    undefined,
    '',
    `token ${valid}`,
    `Basic ${btoa(`x:${valid}`)}`,
    valid,
    'Bearer',
    'Bearer '
  ]) {
    const response = await guess(server, '/app', header)
    t.equal(response.statusCode, 401, `${header?.slice(0, 12)}`)
    t.equal(response.json().message, NOT_DECODED)
  }
})

t.test('whatever is sent as a JWT is answered, and never as if the server were broken', async (t) => {
  const { server, app, onAcme } = await makeWorld(t)
  const [signedHeader, signedPayload, signature] = (await signJwt(app)).split('.')
  const claims = fc.dictionary(fc.constantFrom('iss', 'exp', 'iat', 'nbf', 'aud', 'sub', 'x'), fc.jsonValue())
  const headers = fc.dictionary(
    fc.constantFrom('alg', 'typ', 'kid', 'jwk', 'crit', 'b64', 'zip'),
    fc.jsonValue()
  )
  const now = seconds()
  const good = { iss: app.id, iat: now, exp: now + 60 }
  const jwts = fc.oneof(
    fc.stringMatching(/^[A-Za-z0-9_.-]{1,200}$/),
    fc.tuple(headers, claims, fc.string()).map((parts) => forgeJwt(...parts)),
    headers.map((header) => forgeJwt({ alg: 'RS256', ...header }, good, 'x')),
    claims.map((claim) => forgeJwt({ alg: 'RS256' }, { ...good, ...claim }, 'x')),
    fc.base64String().map((text) => `${signedHeader}.${signedPayload}.${text.replaceAll(/[+/=]/g, '_')}`),
    claims.map(
      (claim) => `${forgeJwt({ alg: 'RS256' }, claim).split('.').slice(0, 2).join('.')}.${signature}`
    )
  )
  await fc.assert(
    fc.asyncProperty(jwts, async (jwt) => {
      const { statusCode } = await guess(server, `/app/installations/${onAcme}`, `Bearer ${jwt}`)
      return statusCode === 401 || statusCode === 404
    }),
    { numRuns: 200 }
  )
  t.notMatch(server.log.join(''), /"level":"error"/)
})

t.test('tokens are no JWT, and a JWT is no token', async (t) => {
  const { server, app, onAcme, jwt, mona } = await makeWorld(t)
  const { token: installation } = await mint(server, app, onAcme)
  const classic = await server.createToken(mona, { scopes: ['repo', 'admin:org', 'codespace'] })
  const fineGrained = await server.createToken(mona, { permissions: PERMISSIONS, allRepositories: true })
  for (const token of [installation, classic, fineGrained, server.admin.token]) {
    for (const url of [
      '/app',
      '/app/installations',
      `/app/installations/${onAcme}`,
      '/orgs/acme/installation'
    ]) {
      const response = await guess(server, url, `Bearer ${token}`)
      t.equal(response.statusCode, 401, url)
      t.equal(response.json().message, NOT_DECODED, url)
    }
  }
  for (const url of [
    '/',
    '/user',
    '/users/mona',
    '/repos/acme/web',
    '/repos/acme/web/codespaces/secrets',
    '/repos/acme/web/codespaces/secrets/public-key',
    '/orgs/acme',
    '/orgs/acme/codespaces/secrets',
    '/orgs/acme/installations',
    '/user/codespaces/secrets',
    '/installation/repositories',
    '/admin/apps',
    '/apps/octo-app'
  ]) {
    const response = await guess(server, url, `Bearer ${jwt}`)
    t.equal(response.statusCode, 401, url)
    t.equal(response.json().message, 'Bad credentials', url)
  }
  // what is served to anybody is served to Apps
  t.equal((await guess(server, '/meta', `Bearer ${jwt}`)).statusCode, 200)
})

t.test('wrong JWTs are failed logins, and never lock out the right one', async (t) => {
  const { server, app, jwt } = await makeWorld(t)
  const from = (authorization: string) =>
    server.app.inject({ url: '/app', remoteAddress: '10.9.9.9', headers: { authorization } })
  const unknown = await signJwt(app, { iss: '424242' })
  const wrong = await signJwt(app, { exp: 1 })
  for (let number = 1; number <= 30; number++) {
    const response = await from(`Bearer ${number % 2 ? unknown : wrong}`)
    t.equal(response.statusCode, number % 2 ? 404 : 401, String(number))
  }
  const refused = await from(`Bearer ${unknown}`)
  t.equal(refused.statusCode, 403)
  t.match(refused.json().message, /Maximum number of login attempts/)
  t.ok(Number(refused.headers['retry-after']) > 0)
  t.equal((await from(`Bearer ${jwt}`)).statusCode, 200)
  const metrics = (await server.app.inject({ url: '/metrics' })).body
  t.match(metrics, /coffer_failed_logins_total 31\n/)
})

t.test('a key that is deleted ends at once, and an App that is deleted', async (t) => {
  const { server, app, jwt } = await makeWorld(t)
  const second = await asAdmin<{ id: number; pem: string }>(server, 'POST', '/admin/apps/octo-app/keys')
  const bySecond = await signJwt({ id: app.id, pem: second.pem })
  t.equal((await guess(server, '/app', `Bearer ${bySecond}`)).statusCode, 200)
  await asAdmin(server, 'DELETE', `/admin/apps/octo-app/keys/${app.keyId}`)
  t.equal((await guess(server, '/app', `Bearer ${jwt}`)).json().message, NOT_DECODED)
  t.equal((await guess(server, '/app', `Bearer ${bySecond}`)).statusCode, 200)
  await asAdmin(server, 'DELETE', '/admin/apps/octo-app')
  t.equal((await guess(server, '/app', `Bearer ${bySecond}`)).json().message, 'Integration not found')
})

t.test('a restored backup voids the keys', async (t) => {
  const { server, app, jwt } = await makeWorld(t)
  await server.db
    .updateTable('instance')
    .set((eb) => ({ epoch: eb('epoch', '+', 1) }))
    .execute()
  t.equal((await guess(server, '/app', `Bearer ${jwt}`)).json().message, NOT_DECODED)
  const token = await server.createToken(server.admin.account, { scopes: ['site_admin'] })
  const keys = await server.request('GET', '/admin/apps/octo-app/keys', { token })
  t.match(keys.json(), [{ id: app.keyId, valid: false }])
  const fresh = (await server.request('POST', '/admin/apps/octo-app/keys', { token })).json()
  const bySecond = await signJwt({ id: app.id, pem: fresh.pem })
  t.equal((await guess(server, '/app', `Bearer ${bySecond}`)).statusCode, 200)
})

t.test('everybody with a token sees what an App is', async (t) => {
  const { server, mona } = await makeWorld(t)
  const token = await server.createToken(mona, { scopes: [] })
  const response = await server.request('GET', '/apps/octo-app', { token })
  t.same(validator('apps/get-by-slug', 200)(response.json()), [])
  t.equal(response.json().slug, 'octo-app')
  t.equal(response.json().installations_count, undefined, 'but not how often it is installed')
  t.equal((await server.request('GET', '/apps/none', { token })).statusCode, 404)
  t.equal((await server.request('GET', '/apps/%00', { token })).statusCode, 404)
})

t.test('an App suspends itself, lifts that, and leaves', async (t) => {
  const { server, app, onAcme, jwt } = await makeWorld(t)
  const { token } = await mint(server, app, onAcme)
  const path = `/app/installations/${onAcme}`
  const suspended = () =>
    server.request('GET', path, { token: jwt }).then((response) => response.json().suspended_at)
  t.equal((await server.request('PUT', `${path}/suspended`, { token: jwt })).statusCode, 204)
  const at = await suspended()
  t.match(at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  const refused = await server.request('GET', '/installation/repositories', { token })
  t.equal(refused.statusCode, 403)
  t.equal(refused.json().message, 'This installation has been suspended')
  const minting = await server.request('POST', `${path}/access_tokens`, { token: jwt })
  t.equal(minting.statusCode, 403)
  t.equal(minting.json().message, 'This installation has been suspended')
  t.equal((await server.request('DELETE', `${path}/suspended`, { token: jwt })).statusCode, 204)
  t.equal(await suspended(), null)
  t.equal((await server.request('GET', '/installation/repositories', { token })).statusCode, 200)

  // what an administrator suspended, an administrator lifts
  await asAdmin(server, 'PUT', `/admin/installations/${onAcme}/suspended`)
  t.equal((await server.request('PUT', `${path}/suspended`, { token: jwt })).statusCode, 204)
  const lifted = await server.request('DELETE', `${path}/suspended`, { token: jwt })
  t.equal(lifted.statusCode, 403)
  t.match(lifted.json().message, /administrator/)
  t.ok(await suspended())
  await asAdmin(server, 'DELETE', `/admin/installations/${onAcme}/suspended`)
  t.equal(await suspended(), null)

  t.equal((await server.request('DELETE', path, { token: jwt })).statusCode, 204)
  t.equal((await server.request('GET', '/installation/repositories', { token })).statusCode, 401)
  t.equal((await server.request('DELETE', path, { token: jwt })).statusCode, 404)
  const events = await server.db
    .selectFrom('audit_events as e')
    .innerJoin('accounts as a', 'a.uid', 'e.stream_uid')
    .select(['e.action', 'e.actor_kind', 'a.login'])
    .where('e.action', 'like', 'installation.%')
    .where('e.actor_kind', '=', 'app')
    .orderBy('e.id')
    .execute()
  t.same(
    events.map(({ action, login }) => `${action} ${login}`),
    [
      'installation.suspend acme',
      'installation.unsuspend acme',
      'installation.suspend acme',
      'installation.remove acme'
    ]
  )
})
