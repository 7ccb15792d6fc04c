import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t from 'tap'
import { isConsistent } from '../../consistency.ts'
import { documentationUrl } from '../../github-description.ts'
import { sendRaw } from '../../raw-http.ts'
import { setStage } from './collections.ts'
import { conforms } from './conforms.ts'
import { type Refusal, refuses } from './refusal.ts'

t.setTimeout(120_000)

const ENVIRONMENTS = '/repos/acme/web/environments'
const SECRETS = `${ENVIRONMENTS}/production/secrets`
const NOT_FOUND: Refusal = { status: 404, message: 'Not Found' }

type Method = 'GET' | 'PUT' | 'DELETE'

async function start(t: Parameters<typeof setStage>[0]) {
  const stage = await setStage(t)
  const { server, token } = stage
  const ask = (method: Method, url: string, body?: unknown) => server.request(method, url, { token, body })
  return { ...stage, ask }
}

t.test('an environment is made, kept, listed and deleted as GitHub describes it', async (t) => {
  const { ask, web } = await start(t)
  await ask('DELETE', `${ENVIRONMENTS}/production`)
  t.strictSame((await ask('GET', ENVIRONMENTS)).json(), { total_count: 0, environments: [] })

  const made = await ask('PUT', `${ENVIRONMENTS}/staging`)
  conforms(t, 'repos/create-or-update-environment', made, 200)
  t.match(made.json(), {
    name: 'staging',
    url: 'http://coffer.test/repos/Acme/web/environments/staging',
    protection_rules: []
  })
  await sleep(1100)
  const bodies = [undefined, '', '{}', { wait_timer: 30, prevent_self_review: true }]
  bodies.push({ reviewers: null, deployment_branch_policy: null } as never)
  for (const body of bodies) {
    const again = await ask('PUT', `${ENVIRONMENTS}/staging`, body)
    conforms(t, 'repos/create-or-update-environment', again, 200)
    t.strictSame(
      { ...again.json(), updated_at: made.json().updated_at },
      made.json(),
      'the same, whatever was asked of it'
    )
    t.ok(again.json().updated_at > made.json().updated_at)
  }
  const shown = await ask('GET', `/repositories/${web}/environments/staging`)
  conforms(t, 'repos/get-environment', shown, 200)
  const listed = await ask('GET', ENVIRONMENTS)
  conforms(t, 'repos/get-all-environments', listed, 200)
  t.strictSame(listed.json(), { total_count: 1, environments: [shown.json()] })
  conforms(t, 'repos/delete-an-environment', await ask('DELETE', `${ENVIRONMENTS}/STAGING`), 204)
  for (const [method, id] of [
    ['GET', 'repos/get-environment'],
    ['DELETE', 'repos/delete-an-environment']
  ] as const) {
    const absent = await ask(method, `${ENVIRONMENTS}/staging`)
    conforms(t, id, absent, 404)
    t.equal(absent.json().documentation_url, documentationUrl(id))
  }
  const broken = await ask('PUT', `${ENVIRONMENTS}/staging`, '{"wait_timer": ')
  conforms(t, 'repos/create-or-update-environment', broken, 400)
})

t.test('environments are listed by name, page by page', async (t) => {
  const { ask, web } = await start(t)
  for (const name of ['zeta', 'Alpha', 'beta/1'])
    await ask('PUT', `${ENVIRONMENTS}/${encodeURIComponent(name)}`)
  const names = async (query: string) =>
    (await ask('GET', `${ENVIRONMENTS}${query}`))
      .json()
      .environments.map(({ name }: { name: string }) => name)
  t.strictSame(await names(''), ['Alpha', 'beta/1', 'production', 'zeta'])
  t.strictSame(await names('?per_page=2&page=2'), ['production', 'zeta'])
  const { headers } = await ask('GET', `${ENVIRONMENTS}?per_page=3`)
  const url = `http://coffer.test/repositories/${web}/environments?per_page=3&page=2`
  t.equal(headers.link, `<${url}>; rel="next", <${url}>; rel="last"`)
})

const NAMES = [
  'production',
  'a/b/c',
  '/',
  '//',
  'with  two spaces',
  'secrets',
  'public-key',
  '...',
  '.github',
  '100%',
  'a%2Fb',
  'a?b=c#d&e',
  'a+b;c,d:e@f!$\'()*~|\\^`{}[]"<>',
  'ünï cödé',
  '生产环境',
  '🚀🇺🇳',
  'e\u0301',
  'x'.repeat(255),
  '/'.repeat(255),
  '%'.repeat(255),
  '生'.repeat(255),
  '🚀'.repeat(127)
]

t.test('any name that a path can carry holds secrets, and comes back in every link', async (t) => {
  const { ask, server, token } = await start(t)
  for (const [index, name] of NAMES.entries()) {
    const path = `${ENVIRONMENTS}/${encodeURIComponent(name)}`
    const made = await ask('PUT', path)
    t.equal(made.statusCode, 200, `${JSON.stringify(name)}: ${made.body}`)
    t.equal(made.json().name, name)
    conforms(t, 'repos/create-or-update-environment', made, 200)
    const followed = await ask('GET', made.json().url.replace('http://coffer.test', ''))
    t.strictSame(followed.json(), made.json(), `the url of ${name} leads to it`)

    const secrets = `${path}/secrets`
    const body = await server.seal(secrets, token, `of ${index}`)
    for (const secret of ['ONE', 'TWO']) {
      t.equal((await ask('PUT', `${secrets}/${secret}`, body)).statusCode, 201, secrets)
    }
    const page = await ask('GET', `${secrets}?per_page=1`)
    const next = /<http:\/\/coffer\.test([^>]*)>; rel="next"/.exec(String(page.headers.link))![1]!
    t.match((await ask('GET', next)).json(), { total_count: 2, secrets: [{ name: 'TWO' }] }, next)
  }
  const { total_count } = (await ask('GET', `${ENVIRONMENTS}?per_page=100`)).json()
  t.equal(total_count, NAMES.length, 'each is one of its own')
  const rows = await server.db
    .selectFrom('deployment_environments')
    .select(['name', 'uid'])
    .orderBy('id')
    .execute()
  for (const { name, uid } of rows) {
    const value = await server.reveal('deployment-environment', uid, 'ONE', 'actions')
    t.equal(value?.toString(), `of ${NAMES.indexOf(name)}`)
  }
  await isConsistent(t, server.db)
})

t.test('names have no case: the spelling of the first PUT stays', async (t) => {
  const { ask, server, token } = await start(t)
  const first = (await ask('PUT', `${ENVIRONMENTS}/Blue%2FGreen`)).json()
  for (const name of ['blue/green', 'BLUE/GREEN', 'Blue/Green']) {
    const path = `${ENVIRONMENTS}/${encodeURIComponent(name)}`
    t.match((await ask('PUT', path)).json(), { id: first.id, name: 'Blue/Green', url: first.url })
    t.equal((await ask('GET', path)).json().id, first.id)
    const body = await server.seal(`${path}/secrets`, token, name)
    await ask('PUT', `${path}/secrets/SHARED`, body)
  }
  const { uid } = await server.db
    .selectFrom('deployment_environments')
    .select('uid')
    .where('name', '=', 'Blue/Green')
    .executeTakeFirstOrThrow()
  t.equal((await server.reveal('deployment-environment', uid, 'SHARED', 'actions'))?.toString(), 'Blue/Green')
  const names = await server.db
    .selectFrom('audit_events')
    .select('name')
    .where('action', 'like', 'environment.%')
    .where('subject_uid', '=', uid)
    .distinct()
    .execute()
  t.strictSame(names, [{ name: 'Blue/Green' }], 'records have the stored spelling')
  const other = await ask('PUT', `${ENVIRONMENTS}/${encodeURIComponent('ÜBUNG')}`)
  t.equal(
    (await ask('GET', `${ENVIRONMENTS}/${encodeURIComponent('übung')}`)).statusCode,
    404,
    'but for ASCII'
  )
  t.equal(other.statusCode, 200)
})

t.test('names that break a rule are refused, and none is found by them', async (t) => {
  const { ask, server, token } = await start(t)
  const invalid: Refusal = {
    status: 422,
    message: 'Validation Failed',
    errors: [['environment_name', 'invalid', /^environment_name is 1 to 255 characters/]]
  }
  const bad = [
    ' ',
    ' a',
    'a ',
    '\u00a0a',
    'a\n',
    'a\tb',
    '\u007f',
    '\u001b[0m',
    'x'.repeat(256),
    '生'.repeat(256)
  ]
  for (const name of bad) {
    const url = `${ENVIRONMENTS}/${encodeURIComponent(name)}`
    await refuses(t, server, { method: 'PUT', url, token }, invalid, JSON.stringify(name))
    t.equal((await ask('GET', url)).statusCode, 404)
    t.equal((await ask('GET', `${url}/secrets`)).statusCode, 404)
  }
  for (const path of ['%00', 'a%00b', '%ZZ', '%C3%28', '%ED%A0%80', '', 'x'.repeat(2000)]) {
    for (const method of ['PUT', 'GET', 'DELETE'] as const) {
      const response = await ask(method, `${ENVIRONMENTS}/${path}`)
      t.equal(response.statusCode, 404, `${method} ${path.slice(0, 20)}`)
    }
    t.equal((await ask('GET', `${ENVIRONMENTS}/${path}/secrets/public-key`)).statusCode, 404)
  }
  const base = await server.listen()
  for (const name of ['.', '..', '%2e', '%2E%2e']) {
    const request = `PUT ${ENVIRONMENTS}/${name} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`
    const answer = await sendRaw(base, request)
    t.equal(answer?.statusCode, 422, `${name}: no client could ask for it`)
  }
  t.equal((await ask('GET', ENVIRONMENTS)).json().total_count, 1)
})

t.test('where there is no environment there are no secrets, and none is made', async (t) => {
  const { server, token, ask } = await start(t)
  const body = await server.seal(SECRETS, token, 'value')
  await ask('PUT', '/repos/acme/open/environments/production')
  for (const path of [
    '/repos/acme/open/environments/absent/secrets',
    `${ENVIRONMENTS}/prod/secrets`,
    `${ENVIRONMENTS}/production%20/secrets`,
    '/repos/acme/absent/environments/production/secrets',
    '/repositories/1/environments/production/secrets'
  ]) {
    for (const [method, rest] of [
      ['GET', ''],
      ['GET', '/public-key'],
      ['GET', '/A'],
      ['PUT', '/A'],
      ['DELETE', '/A']
    ] as const) {
      const attempt = { method, url: path + rest, token, ...(method === 'PUT' && { body }) }
      await refuses(t, server, attempt, NOT_FOUND, `${method} ${path}${rest}`)
    }
  }
})

t.test('the environments of two repositories have nothing in common', async (t) => {
  const { ask, server, token, open } = await start(t)
  const theirs = '/repos/acme/open/environments/production'
  const made = (await ask('PUT', theirs)).json()
  t.not(made.id, (await ask('GET', `${ENVIRONMENTS}/production`)).json().id)
  const box = await server.seal(SECRETS, token, 'of web')
  const other = await server.seal(`${theirs}/secrets`, token, 'of open')
  t.equal((await ask('PUT', `${theirs}/secrets/A`, box)).statusCode, 422, 'a box for the other does not open')
  t.equal((await ask('PUT', `${SECRETS}/A`, box)).statusCode, 201)
  t.equal((await ask('GET', `${theirs}/secrets/A`)).statusCode, 404)
  t.equal((await ask('PUT', `${theirs}/secrets/A`, other)).statusCode, 201)
  t.equal((await ask('DELETE', `/repositories/${open}/environments/production`)).statusCode, 204)
  t.equal((await ask('GET', `${SECRETS}/A`)).statusCode, 200)
  await isConsistent(t, server.db)
})

t.test('an old name of the repository leads to its environments, by number', async (t) => {
  const { ask, server, token, web } = await start(t)
  await ask('PUT', `${ENVIRONMENTS}/a%2Fb%20c`)
  await server.request('PATCH', '/repos/acme/web', { token, body: { name: 'site' } })
  for (const rest of ['', '/a%2Fb%20c', '/a%2Fb%20c/secrets?per_page=1', '/a%2Fb%20c/secrets/public-key']) {
    const moved = await ask('GET', `/api/v3${ENVIRONMENTS}${rest}`)
    t.equal(moved.statusCode, 301, rest)
    const url = `/api/v3/repositories/${web}/environments${rest}`
    t.equal(moved.headers.location, `http://coffer.test${url}`)
    t.equal((await ask('GET', url)).statusCode, 200)
  }
  t.equal((await ask('PUT', `${SECRETS}/A`, {})).statusCode, 307)
})

t.test(
  'an environment goes with its secrets, each recorded, and a new one of its name has none',
  async (t) => {
    const { ask, server, token, acme, environmentUid } = await start(t)
    const box = await server.seal(SECRETS, token, 'value')
    for (const name of ['A', 'B', 'C']) await ask('PUT', `${SECRETS}/${name}`, box)
    t.equal((await ask('DELETE', `${ENVIRONMENTS}/production`)).statusCode, 204)
    const events = await server.db
      .selectFrom('audit_events')
      .select(['action', 'name', 'stream_uid', 'collection', 'transaction_id'])
      .where('action', 'in', ['secret.remove', 'environment.remove'])
      .orderBy('action')
      .orderBy('name')
      .execute()
    t.strictSame(
      events.map(({ action, name }) => [action, name]),
      [
        ['environment.remove', 'production'],
        ['secret.remove', 'A'],
        ['secret.remove', 'B'],
        ['secret.remove', 'C']
      ]
    )
    t.equal(new Set(events.map(({ transaction_id }) => transaction_id)).size, 1)
    for (const { stream_uid } of events) t.equal(stream_uid, acme.uid)
    t.equal(events[1]!.collection, `actions/deployment-environment/${environmentUid}`)
    t.strictSame(await server.db.selectFrom('secrets').select('id').execute(), [])

    await ask('PUT', `${ENVIRONMENTS}/production`)
    t.equal((await ask('GET', SECRETS)).json().total_count, 0)
    t.equal(
      (await ask('PUT', `${SECRETS}/A`, box)).statusCode,
      422,
      'what was sealed for the old one does not open'
    )
    await isConsistent(t, server.db)
  }
)

t.test(
  'secrets that are put while their environment or repository is deleted leave nothing behind',
  async (t) => {
    const { ask, server, token, acme } = await start(t)
    for (const gone of [`${ENVIRONMENTS}/production`, '/repos/acme/web']) {
      for (let round = 0; round < 4; round++) {
        const box = await server.seal(SECRETS, token, 'soon gone')
        const work = Array.from({ length: 36 }, async (_, index) => {
          await sleep(index / 4)
          if (index % 6 === 5) return await ask('PUT', `${ENVIRONMENTS}/more-${index}`)
          if (index % 6 === 4) return await ask('DELETE', `${SECRETS}/N${index % 3}`)
          return await ask('PUT', `${SECRETS}/N${index % 12}`, box)
        })
        await sleep(3)
        t.equal((await ask('DELETE', gone)).statusCode, 204)
        const statuses = new Set((await Promise.all(work)).map(({ statusCode }) => statusCode))
        t.strictSame(
          [...statuses].filter((status) => ![200, 201, 204, 404].includes(status)),
          [],
          [...statuses].join(' ')
        )
        await isConsistent(t, server.db)
        if (gone === '/repos/acme/web') await server.createRepository(acme, 'web')
        t.equal((await ask('PUT', `${ENVIRONMENTS}/production`)).statusCode, 200)
      }
    }
    const { rows } = await sql<{ name: string }>`
    select name from audit_events where action in ('secret.create', 'secret.remove')
    group by subject_uid, name having count(*) <> 2`.execute(server.db)
    t.strictSame(rows, [], 'what was created is recorded as removed, once')
  }
)

t.test('of many that make one environment at once all get the same', async (t) => {
  const { ask, server } = await start(t)
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) => ask('PUT', `${ENVIRONMENTS}/${n % 2 ? 'canary' : 'CANARY'}`))
  )
  t.strictSame(new Set(answers.map(({ statusCode }) => statusCode)), new Set([200]))
  t.equal(new Set(answers.map((answer) => answer.json().id)).size, 1)
  const events = await server.db
    .selectFrom('audit_events')
    .select('action')
    .where('name', 'in', ['canary', 'CANARY'])
    .execute()
  t.equal(events.filter(({ action }) => action === 'environment.create').length, 1)
  t.equal(events.filter(({ action }) => action === 'environment.update').length, 19)
})
