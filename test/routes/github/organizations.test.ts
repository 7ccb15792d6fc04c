import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { isConsistent } from '../../consistency.ts'
import { documentationUrl } from '../../github-description.ts'
import { startTestServer } from '../../helper.ts'
import { putValue, setStage } from './collections.ts'
import { conforms } from './conforms.ts'
import { type Refusal, refuses } from './refusal.ts'

t.setTimeout(120_000)

const logins = (body: { login: string }[]) => body.map(({ login }) => login)
const names = (body: { name: string }[]) => body.map(({ name }) => name)

/** Acme with two private and two public repositories: mona owns it, hubot is a member, eve is not. */
async function prepare(t: Test) {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const [mona, hubot, eve] = [
    await server.createUser('mona'),
    await server.createUser('hubot'),
    await server.createUser('eve')
  ]
  const acme = await server.createOrganization('Acme', mona)
  await server.addMember(acme, hubot)
  const ids: number[] = []
  for (const name of ['web', 'open', 'api', 'site']) {
    ids.push(await server.createRepository(acme, name, { private: name === 'web' || name === 'api' }))
  }
  await server.createRepository(mona, 'own', { private: false })
  const scopes = ['repo', 'admin:org']
  const tokens = {
    mona: await server.createToken(mona, { scopes }),
    hubot: await server.createToken(hubot, { scopes }),
    eve: await server.createToken(eve, { scopes }),
    narrow: await server.createToken(mona, { scopes: [] }),
    listed: await server.createToken(mona, { permissions: {}, repositoryIds: [ids[2]!] })
  }
  const get = (who: keyof typeof tokens, url: string) => server.request('GET', url, { token: tokens[who] })
  return { server, mona, hubot, eve, acme, ids, tokens, get }
}

t.test('an organization is shown to everybody, in full', async (t) => {
  const { get, acme, mona, server } = await prepare(t)
  for (const who of ['mona', 'hubot', 'eve', 'narrow', 'listed'] as const) {
    for (const url of ['/orgs/ACME', `/organizations/${acme.id}`]) {
      const shown = await get(who, url)
      conforms(t, 'orgs/get', shown, 200)
      t.match(shown.json(), {
        login: 'Acme',
        id: acme.id,
        url: 'http://coffer.test/orgs/Acme',
        type: 'Organization'
      })
    }
  }
  for (const path of [
    'orgs/mona',
    'orgs/nobody',
    'orgs/a%00b',
    `organizations/${mona.id}`,
    'organizations/0'
  ]) {
    const absent = await get('mona', `/${path}`)
    conforms(t, 'orgs/get', absent, 404)
    t.equal(absent.json().documentation_url, documentationUrl('orgs/get'))
  }
  for (const number of [
    '9223372036854775808',
    '9'.repeat(300),
    '1e3',
    '-1',
    '1.5',
    '%00',
    '0x10',
    String(2 ** 53)
  ]) {
    for (const rest of ['', '/repos', '/members', '/memberships/mona', '/actions/secrets']) {
      t.equal((await get('mona', `/organizations/${number}${rest}`)).statusCode, 404, number + rest)
    }
  }
  t.equal((await server.request('GET', '/orgs/acme')).statusCode, 401)
  t.strictSame(server.log, [])
})

t.test('of its repositories those are listed that the token sees', async (t) => {
  const { get, acme } = await prepare(t)
  const expected = {
    mona: ['web', 'open', 'api', 'site'],
    hubot: ['web', 'open', 'api', 'site'],
    eve: ['open', 'site'],
    narrow: ['open', 'site'],
    listed: ['open', 'api', 'site']
  } as const
  for (const [who, visible] of Object.entries(expected)) {
    for (const url of ['/orgs/acme/repos', `/organizations/${acme.id}/repos`]) {
      const listed = await get(who as keyof typeof expected, url)
      conforms(t, 'repos/list-for-org', listed, 200)
      t.strictSame(names(listed.json()), [...visible], who)
    }
  }
  t.strictSame(names((await get('mona', '/orgs/acme/repos?type=private')).json()), ['web', 'api'])
  t.strictSame(names((await get('mona', '/orgs/acme/repos?type=public')).json()), ['open', 'site'])
  t.strictSame(names((await get('mona', '/orgs/acme/repos?type=all')).json()), ['web', 'open', 'api', 'site'])
  t.strictSame(names((await get('eve', '/orgs/acme/repos?type=private')).json()), [])
  const page = await get('eve', '/api/v3/orgs/acme/repos?per_page=1')
  t.strictSame(names(page.json()), ['open'])
  const url = `http://coffer.test/api/v3/organizations/${acme.id}/repos?per_page=1&page=2`
  t.equal(page.headers.link, `<${url}>; rel="next", <${url}>; rel="last"`, 'two, as far as eve sees')
  t.equal((await get('mona', '/orgs/nobody/repos')).statusCode, 404)
  t.equal((await get('mona', '/orgs/mona/repos')).statusCode, 404)
})

t.test('its members are listed for members', async (t) => {
  const { get, acme, tokens } = await prepare(t)
  for (const who of ['mona', 'hubot'] as const) {
    const listed = await get(who, '/orgs/acme/members')
    conforms(t, 'orgs/list-members', listed, 200)
    t.strictSame(logins(listed.json()), ['mona', 'hubot'])
  }
  t.strictSame(logins((await get('mona', '/orgs/acme/members?role=admin')).json()), ['mona'])
  t.strictSame(logins((await get('mona', '/orgs/acme/members?role=member')).json()), ['hubot'])
  t.strictSame(logins((await get('mona', '/orgs/acme/members?role=all')).json()), ['mona', 'hubot'])
  const page = await get('mona', '/orgs/acme/members?per_page=1&page=2')
  t.strictSame(logins(page.json()), ['hubot'])
  t.match(
    page.headers.link,
    `<http://coffer.test/organizations/${acme.id}/members?per_page=1&page=1>; rel="prev"`
  )
  conforms(t, 'orgs/list-members', await get('eve', '/orgs/acme/members'), 404)
  const weak = await get('narrow', '/orgs/acme/members')
  conforms(t, 'orgs/list-members', weak, 403)
  t.equal(weak.headers['x-accepted-oauth-scopes'], 'read:org')
  const fine = await get('listed', '/orgs/acme/members')
  conforms(t, 'orgs/list-members', fine, 403)
  t.equal(fine.headers['x-accepted-github-permissions'], 'members=read')
  t.ok(tokens)
})

t.test('a user lists the organizations of its own, with a scope for it', async (t) => {
  const { server, get, hubot, eve, tokens } = await prepare(t)
  const more = await server.createOrganization('more', hubot)
  await server.createOrganization('others', eve)
  const listed = await get('hubot', '/user/orgs')
  conforms(t, 'orgs/list-for-authenticated-user', listed, 200)
  t.strictSame(logins(listed.json()), ['Acme', 'more'])
  t.strictSame(logins((await get('mona', '/user/orgs')).json()), ['Acme'])
  t.strictSame(logins((await get('listed', '/user/orgs')).json()), ['Acme'])
  const page = await get('hubot', '/user/orgs?per_page=1')
  t.equal(
    page.headers.link,
    '<http://coffer.test/user/orgs?per_page=1&page=2>; rel="next", ' +
      '<http://coffer.test/user/orgs?per_page=1&page=2>; rel="last"'
  )
  const weak = await get('narrow', '/user/orgs')
  conforms(t, 'orgs/list-for-authenticated-user', weak, 403)
  t.equal(weak.headers['x-accepted-oauth-scopes'], 'read:org')
  for (const scopes of [['read:org'], ['write:org'], ['admin:org']]) {
    const token = await server.createToken(hubot, { scopes })
    t.equal((await server.request('GET', '/user/orgs', { token })).statusCode, 200, `${scopes}`)
  }
  await server.request('DELETE', `/orgs/more`, { token: tokens.hubot })
  t.strictSame(logins((await get('hubot', '/user/orgs')).json()), ['Acme'], `${more.login} is gone`)
})

t.test('an owner deletes an organization with all that it has, each recorded at once', async (t) => {
  const stage = await setStage(t)
  const { server, token, mona, acme, collections } = stage
  const hubot = await server.createUser('hubot')
  await server.addMember(acme, hubot)
  for (const collection of collections) await putValue(stage, collection, 'GONE', 'value')
  const box = await server.seal('/orgs/acme/actions/secrets', token, 'value')
  const deleted = await server.request('DELETE', '/orgs/acme', { token })
  conforms(t, 'orgs/delete', deleted, 202)
  t.equal(deleted.body, '{}')

  for (const url of ['/orgs/acme', `/organizations/${acme.id}`, '/repos/acme/web', '/users/acme']) {
    t.equal((await server.request('GET', url, { token })).statusCode, 404, url)
  }
  for (const login of ['mona', 'hubot']) {
    t.equal((await server.request('GET', `/users/${login}`, { token })).statusCode, 200)
  }
  const left = await server.db.selectFrom('secrets').select('owner_uid').execute()
  t.strictSame(left, [{ owner_uid: mona.uid }], "the user's own stays")
  for (const table of ['memberships', 'repositories', 'deployment_environments'] as const) {
    t.strictSame(await server.db.selectFrom(table).selectAll().execute(), [], table)
  }
  const events = await server.db
    .selectFrom('audit_events')
    .select(['action', 'name', 'stream_uid', 'actor_uid', 'collection', 'transaction_id'])
    .where('action', 'like', '%.remove')
    .orderBy('id')
    .execute()
  t.equal(new Set(events.map(({ transaction_id }) => transaction_id)).size, 1)
  for (const { stream_uid, actor_uid } of events) t.strictSame([stream_uid, actor_uid], [acme.uid, mona.uid])
  t.strictSame(
    events
      .filter(({ action }) => action === 'secret.remove')
      .map(({ collection }) => collection)
      .sort(),
    collections
      .filter(({ kind }) => kind !== 'user')
      .map(({ app, kind, ownerUid }) => `${app}/${kind}/${ownerUid}`)
      .sort()
  )
  t.strictSame(
    events.filter(({ action }) => action !== 'secret.remove').map(({ action, name }) => `${action} ${name}`),
    ['repository.remove web', 'repository.remove open', 'organization.remove Acme']
  )
  await isConsistent(t, server.db)

  const again = await server.createOrganization('acme', mona)
  t.not(again.uid, acme.uid)
  t.equal((await server.request('GET', '/orgs/acme/actions/secrets', { token })).json().total_count, 0)
  const body = { ...box, visibility: 'all' }
  const put = await server.request('PUT', '/orgs/acme/actions/secrets/GONE', { token, body })
  t.equal(put.statusCode, 422, 'what was sealed for the old one does not open')
  t.equal(
    (await server.request('DELETE', `/organizations/${again.id}`, { token })).statusCode,
    202,
    'by number'
  )
})

t.test('nobody else deletes it', async (t) => {
  const { server, tokens, mona, acme } = await prepare(t)
  const refuse = async (token: string | undefined, url: string, status: number, message: string) => {
    const expected: Refusal = { status, message }
    const response = await refuses(
      t,
      server,
      { method: 'DELETE', url, ...(token && { token }) },
      expected,
      message
    )
    if (status !== 401) t.equal(response.json().documentation_url, documentationUrl('orgs/delete'))
    return response
  }
  for (const url of ['/orgs/acme', `/organizations/${acme.id}`]) {
    await refuse(undefined, url, 401, 'Requires authentication')
    await refuse(tokens.eve, url, 404, 'Not Found')
    await refuse(server.admin.token, url, 404, 'Not Found')
    await refuse(tokens.hubot, url, 403, 'Must be an owner of the organization.')
    const weak = await refuse(tokens.narrow, url, 403, 'Must have admin rights to Repository.')
    t.equal(weak.headers['x-accepted-oauth-scopes'], 'admin:org')
    const fine = await refuse(tokens.listed, url, 403, 'Resource not accessible by personal access token')
    t.equal(fine.headers['x-accepted-github-permissions'], 'organization_administration=write')
  }
  for (const url of ['/orgs/mona', '/orgs/nobody', `/organizations/${mona.id}`]) {
    await refuse(tokens.mona, url, 404, 'Not Found')
  }
  const writer = await server.createToken(mona, { permissions: { organization_administration: 'write' } })
  t.equal((await server.request('DELETE', '/orgs/acme', { token: writer })).statusCode, 202)
})

t.test('an organization that is deleted while it is worked on leaves nothing behind', async (t) => {
  const server = await startTestServer(t, { logLevel: 'error' })
  const mona = await server.createUser('mona')
  const hubot = await server.createUser('hubot')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const userBox = await server.seal('/user/codespaces/secrets', token, 'mine')
  for (let round = 0; round < 4; round++) {
    const org = `short-lived-${round}`
    const acme = await server.createOrganization(org, mona)
    const ids: number[] = []
    for (let n = 0; n < 5; n++)
      ids.push(await server.createRepository(acme, `r${n}`, { private: n % 2 === 0 }))
    await server.request('PUT', `/repos/${org}/r0/environments/production`, { token })
    const paths = [
      `/orgs/${org}/codespaces/secrets`,
      `/orgs/${org}/actions/secrets`,
      `/repos/${org}/r0/dependabot/secrets`,
      `/repos/${org}/r0/environments/production/secrets`
    ]
    const boxes = await Promise.all(paths.map((path) => server.seal(path, token, 'soon gone')))
    const ask = (method: 'PUT' | 'POST', url: string, body?: unknown) =>
      server.request(method, url, { token, body })
    for (let n = 0; n < 4; n++) {
      const body = { ...boxes[0], visibility: 'selected' }
      await server.request('PUT', `${paths[0]}/N${n}`, { token, body })
    }
    const work = Array.from({ length: 60 }, async (_, n) => {
      await sleep(n / 4)
      const some = {
        visibility: 'selected',
        selected_repository_ids: ids.filter((_, at) => (at + n) % 2).reverse()
      }
      switch (n % 6) {
        case 0:
          return await ask('PUT', `${paths[0]}/N${n % 4}`, { ...boxes[0], ...some })
        case 1:
          return await ask('PUT', `${paths[0]}/N${n % 4}/repositories`, some)
        case 2:
          return await ask('PUT', '/user/codespaces/secrets/MINE', {
            ...userBox,
            selected_repository_ids: some.selected_repository_ids
          })
        case 3:
          return await ask('POST', `/orgs/${org}/repos`, { name: `more-${n}`, private: true })
        case 4:
          return await ask('PUT', `/orgs/${org}/memberships/hubot`, {})
        default: {
          const at = 1 + (n % 3)
          return await ask('PUT', `${paths[at]}/N${n}`, {
            ...boxes[at],
            ...(at === 1 && { visibility: 'all' })
          })
        }
      }
    })
    await sleep(5 + 3 * round)
    const deleted = await server.request('DELETE', `/orgs/${org}`, { token })
    t.equal(deleted.statusCode, 202, deleted.body)
    const statuses = (await Promise.all(work)).map(({ statusCode }) => statusCode)
    t.strictSame(
      [...new Set(statuses)].filter((status) => ![200, 201, 204, 404, 422].includes(status)),
      [],
      statuses.join(' ')
    )
    t.strictSame(server.log, [])
    await isConsistent(t, server.db)
    for (const table of ['repositories', 'memberships', 'secret_repositories'] as const) {
      t.strictSame(await server.db.selectFrom(table).selectAll().execute(), [], `${table} of round ${round}`)
    }
  }
  const { rows } = await sql<{ name: string }>`
    select name from audit_events where action in ('secret.create', 'secret.remove') and name <> 'MINE'
    group by subject_uid, name having count(*) <> 2`.execute(server.db)
  t.strictSame(rows, [], 'what was created is recorded as removed, once')
  t.ok(hubot)
})
