import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { Octokit } from '@octokit/rest'
import { Ajv } from 'ajv'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { insertAuditEvents } from '../../../src/store/audit.ts'
import { sealAll } from '../../audit/helper.ts'
import { SYSTEM, startTestServer, type TestServer } from '../../helper.ts'

const ORG = '/orgs/acme/audit-log'
const ADMIN = '/admin/audit-log'

interface Event {
  '@timestamp': number
  _document_id: string
  action: string
  outcome: string
  actor?: string
  name?: string
  repo?: string
  org?: string
  sequence?: number
  hash?: string
  occurrences?: number
}

/** An organization of mona's with a repository, secrets, a member and a record of each. */
async function world(t: Test) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const hubot = await server.createUser('hubot')
  const acme = await server.createOrganization('acme', mona)
  const owner = await server.createToken(mona, { scopes: ['repo', 'admin:org'] })
  const write = async (method: 'PUT' | 'DELETE' | 'POST' | 'PATCH', url: string, body?: unknown) => {
    const { statusCode } = await server.request(method, url, {
      token: owner,
      ...(body !== undefined && { body })
    })
    t.ok(statusCode < 300, `${method} ${url}: ${statusCode}`)
  }
  await write('POST', '/orgs/acme/repos', { name: 'web', private: true })
  const secrets = '/repos/acme/web/codespaces/secrets'
  await write('PUT', `${secrets}/FIRST`, await server.seal(secrets, owner, 'one'))
  await write('PUT', `${secrets}/FIRST`, await server.seal(secrets, owner, 'two'))
  await write('PUT', `${secrets}/SECOND`, await server.seal(secrets, owner, 'three'))
  await write('DELETE', `${secrets}/SECOND`)
  await write('PUT', '/orgs/acme/memberships/hubot', { role: 'member' })
  return { server, mona, hubot, acme, owner, write, secrets }
}

async function read(server: TestServer, url: string, token: string): Promise<Event[]> {
  const response = await server.request('GET', url, { token })
  if (response.statusCode !== 200) throw new Error(`${url}: ${response.statusCode} ${response.body}`)
  return response.json()
}

const withPhrase = (url: string, phrase: string) => `${url}?${new URLSearchParams({ phrase })}`

function linkOf(response: { headers: Record<string, unknown> }, relation: string): string | undefined {
  const link = String(response.headers.link ?? '')
  return new RegExp(`<([^>]+)>; rel="${relation}"`).exec(link)?.[1]
}

t.test("records are there at once, in GitHub's form, and sealed a moment later", async (t) => {
  const { server, mona, acme, owner } = await world(t)
  const events = await read(server, ORG, owner)
  t.strictSame(
    events.map(({ action, name }) => [action, name]),
    [
      ['membership.set.member', 'hubot'],
      ['secret.remove', 'SECOND'],
      ['secret.create', 'SECOND'],
      ['secret.update', 'FIRST'],
      ['secret.create', 'FIRST'],
      ['repository.create', 'web'],
      ['environment_class.create', 'Regular'],
      ['runner.create', 'Coffer'],
      ['group.create', 'everyone'],
      ['organization.create', 'acme']
    ]
  )
  t.match(events[1], {
    actor: 'mona',
    actor_id: mona.id,
    actor_kind: 'user',
    org: 'acme',
    org_id: acme.id,
    repo: 'acme/web',
    outcome: 'allowed',
    operation_type: 'remove',
    value_version: 1,
    token_id: Number,
    request_id: /^[0-9A-F:]+$/
  })
  t.match(events[0], { user: 'hubot', operation_type: 'modify' })
  t.notOk('sequence' in events[0]! || 'hash' in events[0]!, 'not sealed yet')
  const file = createRequire(import.meta.url).resolve('@octokit/openapi/generated/ghec.json')
  const { schemas } = JSON.parse(readFileSync(file, 'utf8')).components
  const validate = new Ajv({ strict: false }).compile(schemas['audit-log-event'])
  for (const event of events) {
    t.ok(validate(event), `${event.action}: ${JSON.stringify(validate.errors)}`)
    t.ok(Math.abs(event['@timestamp'] - Date.now()) < 600_000, 'milliseconds')
    t.notMatch(JSON.stringify(event), 'null', 'what is not known is absent')
  }
  await sealAll(server.db)
  const sealed = await read(server, ORG, owner)
  t.strictSame(
    sealed.map(({ sequence }) => sequence),
    [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
  )
  t.match(sealed[0]!.hash, /^[0-9a-f]{64}$/)
  t.strictSame(
    sealed.map(({ sequence, hash, ...event }) => event),
    events,
    'and nothing else has changed'
  )
  t.strictSame(await read(server, `/api/v3/organizations/${acme.id}/audit-log`, owner), sealed)
  t.strictSame(await read(server, `${ORG}?include=git`, owner), [])
  t.equal((await read(server, `${ORG}?include=all`, owner)).length, 10)
})

t.test('for owners with the scope or the permission alone; the server for its administrators', async (t) => {
  const { server, mona, hubot } = await world(t)
  const stranger = await server.createUser('stranger')
  const admin = server.admin
  const cases: [string, string, number][] = []
  const add = async (
    account: typeof mona,
    request: Parameters<TestServer['createToken']>[1],
    org: number,
    all = 403
  ) => {
    const token = await server.createToken(account, request)
    cases.push([token, ORG, org], [token, ADMIN, all])
  }
  await add(mona, { scopes: ['read:audit_log'] }, 200)
  await add(mona, { scopes: ['admin:org'] }, 200)
  await add(mona, { scopes: ['repo', 'read:org', 'write:org', 'codespace'] }, 403)
  await add(mona, { scopes: ['site_admin', 'read:audit_log'] }, 200)
  await add(mona, { permissions: { organization_administration: 'read' }, allRepositories: true }, 200)
  await add(mona, { permissions: { organization_administration: 'write' } }, 200)
  await add(mona, { permissions: { administration: 'write', members: 'write' } }, 403)
  await add(hubot, { scopes: ['read:audit_log', 'admin:org'] }, 403)
  await add(stranger, { scopes: ['read:audit_log', 'admin:org'] }, 404)
  await add(admin.account, { scopes: ['read:audit_log'] }, 404)
  await add(admin.account, { scopes: ['site_admin'] }, 404, 200)
  for (const [token, url, status] of cases) {
    const response = await server.request('GET', url, { token })
    t.equal(response.statusCode, status, `${url} ${response.body.slice(0, 80)}`)
  }
  t.equal((await server.request('GET', ORG)).statusCode, 401)
  t.equal((await server.request('GET', '/orgs/none/audit-log', { token: cases[0]![0] })).statusCode, 404)
  const accepted = await server.request('GET', ORG, { token: cases[0]![0] })
  t.equal(accepted.headers['x-accepted-oauth-scopes'], 'read:audit_log, admin:org')
})

t.test('what belongs to others is in no log of an organization', async (t) => {
  const { server, mona, owner } = await world(t)
  const other = await server.createOrganization('other', mona)
  await server.createRepository(other, 'theirs')
  const all = await read(server, `${ADMIN}?per_page=100`, server.admin.token)
  t.ok(all.some(({ org }) => org === 'other') && all.some(({ action }) => action === 'user.create'))
  for (const phrase of ['', 'repo:other/theirs', 'org:other', 'actor:mona', '-org:acme']) {
    const events = await read(server, withPhrase(ORG, phrase), owner)
    t.ok(
      events.every(({ org }) => org === 'acme'),
      phrase
    )
  }
  t.strictSame(await read(server, withPhrase(ORG, 'repo:other/theirs'), owner), [])
  t.equal((await read(server, withPhrase(ADMIN, 'repo:other/theirs'), server.admin.token)).length, 1)
})

t.test('a phrase filters by action, actor, repository, account, outcome and time', async (t) => {
  const { server, owner, write, secrets } = await world(t)
  await write('PATCH', '/repos/acme/web', { name: 'site' })
  await write(
    'PUT',
    `${secrets.replace('web', 'site')}/THIRD`,
    await server.seal(secrets.replace('web', 'site'), owner, 'x')
  )
  const hubot = await server.createToken(
    (await server.db
      .selectFrom('accounts')
      .selectAll()
      .where('login', '=', 'hubot')
      .executeTakeFirstOrThrow()) as never,
    { scopes: ['repo'] }
  )
  t.equal(
    (await server.request('PUT', '/repos/acme/site/codespaces/secrets/X', { token: hubot, body: {} }))
      .statusCode,
    403
  )
  while ((await read(server, withPhrase(ORG, 'outcome:denied'), owner)).length === 0) await sleep(5)
  const names = async (phrase: string, url = ORG, token = owner) =>
    (await read(server, withPhrase(url, phrase), token)).map(({ action, name }) => `${action} ${name}`)
  const expected: Record<string, number> = {
    '': 13,
    'action:secret.create': 3,
    'action:secret.remove': 1,
    'action:secret.remove action:secret.update': 2,
    'action:secret.*': 5,
    'action:secret': 5,
    'action:"secret.create"': 3,
    'ACTION:SECRET.CREATE': 3,
    '-action:secret.*': 8,
    '-action:secret.create -action:secret.update': 9,
    'actor:mona': 8,
    'actor:MONA action:secret.create': 3,
    'actor:hubot': 1,
    'actor:mona actor:hubot': 9,
    '-actor:mona': 5,
    'actor:nobody': 0,
    'repo:acme/site': 8,
    'repo:acme/web': 8,
    'repository:ACME/Web action:secret.update': 1,
    '-repo:acme/web': 5,
    'repo:acme/none': 0,
    'repo:none/web': 0,
    'org:acme': 13,
    'outcome:denied': 1,
    'outcome:allowed action:membership.*': 1,
    'created:>=2020-01-01': 13,
    'created:<2020-01-01': 0,
    [`created:${new Date().toISOString().slice(0, 4)}-01-01..*`]: 13,
    'created:2020-01-01..2020-12-31': 0,
    'created:>2020-01-01 created:<2021-01-01': 0,
    'created:>=0001-01-01T00:00:00Z action:secret.update actor:mona repo:acme/web outcome:allowed': 1
  }
  for (const [phrase, total] of Object.entries(expected)) t.equal((await names(phrase)).length, total, phrase)
  t.strictSame(await names('outcome:denied'), ['access.denied codespaces/create-or-update-repo-secret'])

  const refused: Record<string, RegExp> = {
    secrets:
      /a word has no qualifier; write QUALIFIER:VALUE, with one of the qualifiers action, actor, created, org, outcome, repo/,
    'country:de': /a qualifier is unknown.*action, actor, created, org, outcome, repo/,
    'actor:': /a word has no qualifier|out of place/,
    'actor:"': /quotation mark is out of place/,
    'repo:web': /repo is OWNER\/NAME/,
    'outcome:maybe': /outcome is allowed or denied/,
    'action:a..b': /action is the name of an action/,
    'created:yesterday': /created is a time such as/,
    'created:2026-02-30': /created is a time such as/,
    'created:..': /created is a time such as/,
    '-created:2026-02-03': /created cannot be negated/,
    [`actor:${'x'.repeat(3000)}`]: /longer than 2000 characters/,
    ['actor:a '.repeat(31)]: /more than 30 terms/,
    'actor:a\0b': /actor is a login/
  }
  for (const [phrase, message] of Object.entries(refused)) {
    const response = await server.request('GET', withPhrase(ORG, phrase), { token: owner })
    t.equal(response.statusCode, 422, phrase.slice(0, 40))
    t.match(response.json().errors?.[0], { field: 'phrase', message }, phrase.slice(0, 40))
    t.notMatch(response.body, /yesterday|country/, 'nothing is echoed')
  }
})

t.test('names of what is gone are still found and shown', async (t) => {
  const { server, owner, write } = await world(t)
  await write('DELETE', '/repos/acme/web')
  t.equal(
    (await server.request('DELETE', '/admin/users/hubot', { token: server.admin.token })).statusCode,
    204
  )
  const events = await read(server, withPhrase(ORG, 'repo:acme/web'), owner)
  t.equal(events.length, 7)
  t.ok(events.every(({ repo }) => repo === 'acme/web'))
  const token = await server.createToken((await server.createUser('temp', { siteAdmin: true })) as never, {
    scopes: ['site_admin']
  })
  await server.request('POST', '/admin/users', { token, body: { login: 'made' } })
  await server.request('DELETE', '/admin/users/temp', { token: server.admin.token })
  const by = await read(server, withPhrase(ADMIN, 'actor:temp'), server.admin.token)
  t.match(by, [{ action: 'user.create', actor: 'temp', name: 'made' }])
  t.notOk('actor_id' in by[0]!, 'the account is gone')
  await server.createUser('temp')
  t.equal(
    (await read(server, withPhrase(ADMIN, 'actor:temp'), server.admin.token)).length,
    1,
    'another account of that login'
  )
})

t.test('cursors lead through all records once, there and back, in both orders', async (t) => {
  const { server, acme, owner } = await world(t)
  const events = Array.from({ length: 40 }, (_, index) => ({
    streamUid: acme.uid,
    principal: SYSTEM,
    action: index % 2 ? 'test.odd' : 'test.even',
    name: `${index}`
  }))
  // Many at the same time: the order within it must hold, too.
  for (const part of [events.slice(0, 25), events.slice(25)]) await insertAuditEvents(server.db, part)
  const whole = await read(server, `${ORG}?per_page=100`, owner)
  t.equal(whole.length, 50)
  for (const query of [
    '',
    '&order=asc',
    `&${new URLSearchParams({ phrase: 'action:test.*' })}`,
    `&${new URLSearchParams({ phrase: 'action:test.odd' })}`
  ]) {
    const expected = (await read(server, `${ORG}?per_page=100${query}`, owner)).map(
      ({ _document_id }) => _document_id
    )
    if (query === '&order=asc')
      t.strictSame(expected, whole.map(({ _document_id }) => _document_id).reverse())
    const pages: string[][] = []
    let url: string | undefined = `/api/v3${ORG}?per_page=7${query}`
    let back: string | undefined
    while (url) {
      const response = await server.request('GET', url, { token: owner })
      pages.push(response.json().map(({ _document_id }: Event) => _document_id))
      t.equal(linkOf(response, 'prev') === undefined, pages.length === 1)
      back = linkOf(response, 'prev')
      const next = linkOf(response, 'next')
      t.notMatch(next ?? '', /before=/)
      t.match(
        next ?? `/api/v3/organizations/${acme.id}/audit-log`,
        `/api/v3/organizations/${acme.id}/audit-log`
      )
      url = next && new URL(next).pathname + new URL(next).search
    }
    t.strictSame(pages.flat(), expected, query)
    const reversed = [pages.at(-1)!]
    while (back) {
      const { pathname, search } = new URL(back)
      const response = await server.request('GET', pathname + search, { token: owner })
      reversed.unshift(response.json().map(({ _document_id }: Event) => _document_id))
      back = linkOf(response, 'prev')
      t.ok(linkOf(response, 'next'))
    }
    t.strictSame(reversed, pages, `${query} and back`)
  }
  const after = await read(server, `${ORG}?after=${whole[9]!._document_id}&per_page=3`, owner)
  t.strictSame(after, whole.slice(10, 13), 'the id of a record is its cursor')

  for (const query of [
    'after=x',
    'before=MTIz',
    'after=LTEuLTE',
    `after=${Buffer.from('1.2.3').toString('base64url')}`
  ]) {
    const response = await server.request('GET', `${ORG}?${query}`, { token: owner })
    t.equal(response.statusCode, 422, query)
    t.match(response.json().errors, [{ field: query.split('=')[0], message: /no cursor of an audit log/ }])
  }
  const both = await server.request(
    'GET',
    `${ORG}?after=${whole[1]!._document_id}&before=${whole[3]!._document_id}`,
    { token: owner }
  )
  t.match(both.json(), { errors: [{ message: /do not go together/ }] })
  t.equal((await read(server, `${ORG}?per_page=1000&order=sideways&include=x`, owner)).length, 50)
})

t.test('a record that comes while somebody pages moves nothing', async (t) => {
  const { server, owner, acme } = await world(t)
  const whole = await read(server, ORG, owner)
  const first = await server.request('GET', `${ORG}?per_page=3`, { token: owner })
  await insertAuditEvents(server.db, [
    { streamUid: acme.uid, principal: SYSTEM, action: 'test.new', name: 'x' }
  ])
  const { pathname, search } = new URL(linkOf(first, 'next')!)
  t.strictSame(await read(server, pathname + search, owner), whole.slice(3, 6))
})

t.test('octokit pages through it', async (t) => {
  const { server, owner } = await world(t)
  const baseUrl = await await startTestListening(server)
  const octokit = new Octokit({ auth: owner, baseUrl, log: { debug() {}, info() {}, warn() {}, error() {} } })
  const events = await octokit.paginate('GET /orgs/{org}/audit-log', {
    org: 'acme',
    per_page: 2,
    phrase: 'action:secret.*'
  })
  t.strictSame(
    events.map((event) => (event as unknown as Event).action),
    ['secret.remove', 'secret.create', 'secret.update', 'secret.create']
  )
})

/** Links lead to where the server says that it is. */
async function startTestListening(server: TestServer): Promise<string> {
  const url = await server.listen()
  server.app.baseUrl = () => url
  return url
}

t.test('refused requests, in the stream of the owner or of the actor', async (t) => {
  const { server, hubot, owner } = await world(t)
  const admin = server.admin.token
  const stranger = await server.createUser('stranger')
  const token = await server.createToken(stranger, { scopes: ['repo', 'admin:org'] })
  const member = await server.createToken(hubot, { scopes: ['repo', 'admin:org'] })
  const ask = async (url: string, status: number, who: string | undefined, method: 'GET' | 'PUT' = 'GET') =>
    t.equal(
      (await server.request(method, url, { token: who, ...(method === 'PUT' && { body: {} }) })).statusCode,
      status,
      url
    )
  await ask('/repos/acme/web', 404, token)
  await ask('/repos/acme/nothing-of-the-kind', 404, token)
  await ask('/orgs/acme/members', 404, token)
  await ask('/orgs/none/members', 404, token)
  await ask('/repos/acme/web/codespaces/secrets/X', 403, member)
  await ask('/orgs/acme/actions/secrets', 403, member)
  await ask('/admin/users', 404, member)
  await ask('/admin/audit-log', 403, member)
  await ask('/repos/acme/web/codespaces/secrets/ABSENT', 404, owner)
  await ask('/nowhere', 404, owner)
  await ask('/user', 401, undefined)
  await ask('/user', 401, 'coffer_pat_guessed')
  await ask('/user', 401, 'coffer_pat_guessed_again')
  await server.app.close()

  const inOrg = await server.db
    .selectFrom('audit_events as e')
    .innerJoin('accounts as a', 'a.uid', 'e.stream_uid')
    .select([
      'a.login',
      'e.actor_login',
      'e.name',
      'e.repository_uid',
      'e.collection',
      'e.subject_uid',
      'e.occurrences',
      'e.address'
    ])
    .where('e.outcome', '=', 'denied')
    .orderBy('e.id')
    .execute()
  const denied = inOrg.map(({ login, actor_login, name, repository_uid }) =>
    [login, actor_login, name, repository_uid ? 'and which' : ''].join(' ').trim()
  )
  t.strictSame(denied.sort(), [
    'acme hubot actions/list-org-secrets',
    'acme hubot codespaces/get-repo-secret and which',
    'hubot hubot enterprise-admin/get-audit-log',
    'stranger stranger orgs/list-members',
    'stranger stranger orgs/list-members',
    'stranger stranger repos/get',
    'stranger stranger repos/get'
  ])
  for (const name of ['repos/get', 'orgs/list-members']) {
    const [exists, absent] = inOrg.filter((row) => row.login === 'stranger' && row.name === name)
    t.strictSame(exists, absent, 'the same words, whether it exists or not')
  }
  t.notMatch(JSON.stringify(inOrg), /nothing-of-the-kind|none/, 'nothing that was typed')
  t.ok(
    inOrg.every(
      ({ collection, subject_uid, address }) =>
        collection === null && subject_uid === null && address === '127.0.0.1'
    )
  )
  const logins = await server.db
    .selectFrom('audit_events')
    .select(['actor_kind', 'actor_uid', 'address', 'name', 'occurrences'])
    .where('action', '=', 'login.failed')
    .orderBy('id')
    .execute()
  t.strictSame(logins, [
    {
      actor_kind: 'anonymous',
      actor_uid: null,
      address: '127.0.0.1',
      name: 'users/get-authenticated',
      occurrences: null
    },
    {
      actor_kind: 'anonymous',
      actor_uid: null,
      address: '127.0.0.1',
      name: 'users/get-authenticated',
      occurrences: null
    }
  ])
  t.notMatch(JSON.stringify(await server.db.selectFrom('audit_events').selectAll().execute()), /guessed/)
  t.ok(admin)
})

t.test('a flood of refused requests is a few records, and is answered as ever', async (t) => {
  const { server, hubot, owner } = await world(t)
  const member = await server.createToken(hubot, { scopes: ['repo'] })
  for (let round = 0; round < 120; round++) {
    const response = await server.request('GET', '/repos/acme/web/codespaces/secrets', { token: member })
    if (response.statusCode !== 403) t.equal(response.statusCode, 403)
  }
  await server.app.close()
  const rows = await server.db
    .selectFrom('audit_events')
    .select('occurrences')
    .where('outcome', '=', 'denied')
    .orderBy('id')
    .execute()
  t.strictSame(rows, [{ occurrences: null }, { occurrences: 119 }])
  t.ok(owner)
})

t.test('what is rare and has no index is found page by page, each of bounded cost', async (t) => {
  const { server, acme, owner } = await world(t)
  await sql`insert into audit_events (stream_uid, actor_kind, action, outcome, name, occurred_at, canonical)
    select ${acme.uid}::uuid, 'system', 'secret.update', case when n = 1 then 'denied' else 'allowed' end, n::text,
      now() - interval '1 day' + n * interval '1 millisecond', '\\x00'
    from generate_series(1, 45000) n`.execute(server.db)
  const first = await server.request('GET', withPhrase(ORG, 'outcome:denied action:secret.update'), {
    token: owner
  })
  t.strictSame(first.json(), [], 'not among the newest 40,000')
  const next = new URL(linkOf(first, 'next')!)
  const second = await server.request('GET', next.pathname + next.search, { token: owner })
  t.match(second.json(), [{ name: '1', outcome: 'denied' }])
  t.equal(linkOf(second, 'next'), undefined)
  const back = new URL(linkOf(second, 'prev')!)
  const empty = await server.request('GET', back.pathname + back.search, { token: owner })
  t.strictSame(empty.json(), [])
  t.ok(linkOf(empty, 'next'), 'and from there one gets back')
})
