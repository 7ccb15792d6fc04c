import { randomBytes, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { Keyring, makeGeneration } from '../../../src/keyring/index.ts'
import { localMasterKey } from '../../../src/keyring/master-key.ts'
import { activateWhenReady, beginRotation, loadGenerations } from '../../../src/secrets/generations.ts'
import { startSecondNode } from '../../helper.ts'
import { type OnaServer, startOnaServer } from './helper.ts'
import { isRefusal } from './refusal.ts'

const LIST = 'SecretService/ListSecrets'
const NO_TOKEN =
  'pagination.token: is no token of this list; start again without one, with the same request for each page'
const REFUSED = { code: 'invalid_argument', violations: [NO_TOKEN] } as const

interface Listed {
  id: string
  name: string
}

/** Secrets of an owner, made at once; their values open like any others. */
async function store(
  { db, keyring, owner }: OnaServer,
  kind: 'user' | 'organization' | 'project' | 'service-account',
  ownerUid: string,
  names: readonly string[]
): Promise<void> {
  const now = new Date()
  const rows = names.map((name) => {
    const uid = randomUUID()
    const context = { collection: `codespaces/${kind}/${ownerUid}`, secretUid: uid, name, valueVersion: 1 }
    const { envelope, generationId } = keyring.sealValue(context, Buffer.from(`value of ${name}`))
    return {
      uid,
      app: 'codespaces',
      kind,
      owner_uid: ownerUid,
      name,
      visibility: kind === 'user' || kind === 'organization' ? ('all' as const) : null,
      envelope,
      generation_id: String(generationId),
      value_version: 1,
      row_version: 1,
      creator_kind: 'user',
      creator_uid: owner.account.uid,
      created_at: now,
      updated_at: now
    }
  })
  await db.insertInto('secrets').values(rows).execute()
}

const namesOf = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => `${prefix}_${String(n).padStart(3, '0')}`)

const server = await startOnaServer(t, { maxSecrets: 1000 })
const { token } = server.owner
const projectOf = async (by: string, name: string): Promise<string> =>
  (await server.call('ProjectService/CreateProject', by, { name, initializer: {} })).body.project.id
const projects = [
  await projectOf(token, 'one'),
  await projectOf(token, 'two'),
  await projectOf(token, 'three')
]
const [first, second, empty] = projects as [string, string, string]
const { uid: robot } = await server.db
  .insertInto('service_accounts')
  .values({ organization_id: server.acme.id, name: 'robot', creator_kind: 'system', creator_uid: null })
  .returning('uid')
  .executeTakeFirstOrThrow()
await store(server, 'project', first, namesOf('FIRST', 120))
await store(server, 'project', second, [...namesOf('second', 20), ...namesOf('SECOND', 20)])
await store(server, 'user', server.owner.account.uid, namesOf('MINE', 40))
await store(server, 'organization', server.acme.uid, namesOf('OURS', 30))
await store(server, 'service-account', robot, namesOf('ROBOT', 20))
// What is not to be listed: another's, another organization's, and other apps'.
await store(server, 'user', server.member.account.uid, namesOf('HERS', 30))
await store(server, 'project', await projectOf(server.stranger.token, 'foreign'), namesOf('FOREIGN', 30))
await store(server, 'organization', server.stranger.organization.uid, namesOf('THEIRS', 30))
const TOTAL = 250

interface Pages {
  pages: Listed[][]
  secrets: Listed[]
}

/** All pages, as SDKs walk them: the same message each time, with the token in the query or in the message. */
async function walk(
  t: Test,
  message: { pagination?: object; filter?: object },
  {
    by = token,
    inBody = false,
    between = async () => {}
  }: {
    by?: string
    inBody?: boolean
    between?: (page: Listed[], index: number) => Promise<void>
  } = {}
): Promise<Pages> {
  const pages: Listed[][] = []
  let next: string | undefined
  do {
    const query = next !== undefined && !inBody ? `?token=${encodeURIComponent(next)}` : ''
    const body =
      inBody && next !== undefined
        ? { ...message, pagination: { ...message.pagination, token: next } }
        : message
    const answer = await server.call(`${LIST}${query}`, by, body)
    if (answer.status !== 200) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`)
    const page: Listed[] = answer.body.secrets ?? []
    t.ok(
      page.length > 0 || pages.length === 0 || answer.body.pagination.nextToken === undefined,
      'no empty page in the middle'
    )
    t.not(answer.body.pagination.nextToken, next ?? '', 'another token each time')
    next = answer.body.pagination.nextToken
    pages.push(page)
    await between(page, pages.length)
  } while (next !== undefined && pages.length <= TOTAL * 2)
  return { pages, secrets: pages.flat() }
}

const idsOf = (secrets: readonly Listed[]) => secrets.map(({ id }) => id)

/** In the order of lists. */
let all: Listed[] = []

t.test('pages of any size hold all, once, in one order', async (t) => {
  all = (await walk(t, { pagination: { pageSize: 100 } })).secrets
  t.equal(all.length, TOTAL)
  t.equal(new Set(idsOf(all)).size, TOTAL, 'nothing twice')
  t.notOk(
    all.some(({ name }) => /^(HERS|FOREIGN|THEIRS)/.test(name)),
    "nobody else's"
  )
  for (const pageSize of [1, 2, 7, 10, 24, 25, 26, 49, 50, 83, 84, 99, 100, undefined, 0]) {
    for (const inBody of [false, true]) {
      const { pages, secrets } = await walk(t, { pagination: { pageSize } }, { inBody })
      t.strictSame(idsOf(secrets), idsOf(all), `pages of ${pageSize}`)
      const size = pageSize || 25
      t.ok(
        pages.slice(0, -1).every((page) => page.length === size),
        'every page but the last is full'
      )
      t.equal(pages.length, Math.ceil(TOTAL / size), 'no page too many')
    }
  }
  const { secrets } = await walk(t, {})
  t.strictSame(idsOf(secrets), idsOf(all), 'no size')
})

t.test('filters', async (t) => {
  const byName = (prefix: RegExp) => all.filter(({ name }) => prefix.test(name))
  const cases: [object, Listed[]][] = [
    [{ scope: { projectId: first } }, byName(/^FIRST/)],
    [{ scope: { projectId: second } }, [...byName(/^SECOND/), ...byName(/^second/)]],
    [{ scope: { projectId: empty } }, []],
    [{ scope: { userId: server.owner.account.uid } }, byName(/^MINE/)],
    [{ scope: { organizationId: server.acme.uid } }, byName(/^OURS/)],
    [{ scope: { serviceAccountId: robot } }, byName(/^ROBOT/)],
    [{ projectIds: [first] }, byName(/^FIRST/)],
    [{ projectIds: [second, first, randomUUID()] }, byName(/^(FIRST|second)/i)],
    [{ projectIds: [empty] }, []],
    [{ projectIds: [] }, all],
    [{ scope: {} }, all],
    [{ scope: { projectId: first }, projectIds: [second] }, byName(/^FIRST/)]
  ]
  for (const [filter, expected] of cases) {
    for (const pageSize of [13, 100]) {
      const { secrets } = await walk(t, { filter, pagination: { pageSize } })
      t.strictSame(new Set(idsOf(secrets)), new Set(idsOf(expected)), JSON.stringify(filter))
      t.equal(secrets.length, expected.length)
    }
  }
  const { secrets } = await walk(t, { filter: { scope: { projectId: second } } })
  t.strictSame(
    secrets.map(({ name }) => name),
    [...namesOf('SECOND', 20), ...namesOf('second', 20)],
    'by name, bytewise'
  )
  const { secrets: hers } = await walk(t, {}, { by: server.member.token })
  t.strictSame(
    hers.map(({ name }) => name),
    namesOf('HERS', 30),
    'a member lists what it may read'
  )
})

t.test('the query counts more than the message', async (t) => {
  const page = async (query: string, message: object) => {
    const { status, body } = await server.call(`${LIST}${query}`, token, message)
    t.equal(status, 200, query)
    return body as { secrets: Listed[]; pagination: { nextToken: string } }
  }
  const one = await page('', { pagination: { pageSize: 5 } })
  const two = await page(`?token=${one.pagination.nextToken}`, { pagination: { pageSize: 5 } })
  t.strictSame(idsOf([...one.secrets, ...two.secrets]), idsOf(all.slice(0, 10)))
  const again = await page(`?token=${two.pagination.nextToken}`, {
    pagination: { pageSize: 5, token: one.pagination.nextToken }
  })
  t.strictSame(idsOf(again.secrets), idsOf(all.slice(10, 15)), 'the token of the query')
  const wide = await page(`?token=${one.pagination.nextToken}&pageSize=17`, { pagination: { pageSize: 5 } })
  t.strictSame(idsOf(wide.secrets), idsOf(all.slice(5, 22)), 'the size of the query')
  const alone = await page('?pageSize=3', { pagination: { token: one.pagination.nextToken } })
  t.strictSame(idsOf(alone.secrets), idsOf(all.slice(5, 8)), 'what the query does not say the message does')
  const unset = await page('?token=&pageSize=', {
    pagination: { pageSize: 4, token: one.pagination.nextToken }
  })
  t.strictSame(idsOf(unset.secrets), idsOf(all.slice(5, 9)), 'what is empty is not set')
  const snake = await page('', { pagination: { page_size: '6', token: one.pagination.nextToken } })
  t.strictSame(idsOf(snake.secrets), idsOf(all.slice(5, 11)))
})

async function tokenOf(message: object, by = token, method = LIST): Promise<string> {
  const { body } = await server.call(method, by, { ...message, pagination: { pageSize: 5 } })
  return body.pagination.nextToken
}

/** The same page by a token in the query and in the message. */
async function answersFor(given: string, message: object = {}, by = token, method = LIST) {
  return [
    await server.call(`${method}?token=${encodeURIComponent(given)}`, by, {
      ...message,
      pagination: { pageSize: 5 }
    }),
    await server.call(method, by, { ...message, pagination: { pageSize: 5, token: given } })
  ]
}

async function refuses(
  t: Test,
  name: string,
  ...[given, ...rest]: Parameters<typeof answersFor>
): Promise<void> {
  for (const answer of await answersFor(given, ...rest)) {
    isRefusal(t, answer, REFUSED, name)
    if (given.length > 5) t.notOk(JSON.stringify(answer).includes(given), `${name}: it does not come back`)
  }
}

t.test('a token is good for its own list, any number of times', async (t) => {
  const given = await tokenOf({})
  for (let n = 0; n < 3; n++) {
    for (const { status, body } of await answersFor(given)) {
      t.equal(status, 200)
      t.strictSame(idsOf(body.secrets), idsOf(all.slice(5, 10)), 'the same page again')
    }
  }
  const other = await server.createToken(server.owner.account, { scopes: ['codespace', 'admin:org'] })
  for (const { body } of await answersFor(given, {}, other)) {
    t.strictSame(idsOf(body.secrets), idsOf(all.slice(5, 10)), 'by another token of the same account')
  }
  const filter = { scope: { projectId: first } }
  const filtered = await tokenOf({ filter })
  for (const spelling of [{ filter }, { filter: { scope: { project_id: first.toUpperCase() } } }]) {
    for (const { status } of await answersFor(filtered, spelling)) t.equal(status, 200)
  }
  for (const path of ['/', '/api/']) {
    const response = await server.request('POST', `${path}gitpod.v1.${LIST}?token=${given}`, {
      token,
      body: {}
    })
    t.equal(response.statusCode, 200, 'with and without /api')
  }
})

t.test('a token of another list', async (t) => {
  const given = await tokenOf({})
  const ofFirst = await tokenOf({ filter: { scope: { projectId: first } } })
  await refuses(t, 'with a filter', given, { filter: { scope: { projectId: first } } })
  await refuses(t, 'without its filter', ofFirst)
  await refuses(t, 'another filter', ofFirst, { filter: { scope: { projectId: second } } })
  await refuses(t, 'another way to filter', ofFirst, { filter: { projectIds: [first] } })
  await refuses(t, 'by another user', given, {}, server.member.token)
  await refuses(t, 'by a user of another organization', given, {}, server.stranger.token)
  await refuses(t, "another user's", await tokenOf({}, server.member.token))
  await refuses(t, 'of another method', given, {}, token, 'ProjectService/ListProjects')
  for (let n = 0; n < 5; n++) await projectOf(token, `more ${n}`)
  const ofProjects = await tokenOf({}, token, 'ProjectService/ListProjects')
  t.equal(typeof ofProjects, 'string')
  await refuses(t, 'of another method', ofProjects)
  await refuses(
    t,
    'in another order',
    ofProjects,
    { sort: { order: 'SORT_ORDER_DESC' } },
    token,
    'ProjectService/ListProjects'
  )
  const ofClasses = { projectId: first }
  await refuses(t, 'of another method', ofProjects, ofClasses, token, 'ProjectService/ListProjectPolicies')
})

t.test('what is no token', async (t) => {
  const given = await tokenOf({})
  const bytes = Buffer.from(given, 'base64url')
  t.notOk(given.includes('='), 'it needs no escaping in a query')
  t.equal(given, encodeURIComponent(given))
  const garbage = [
    'x',
    '0',
    '2',
    'null',
    'undefined',
    '[]',
    '../..',
    "' or 1=1 --",
    '$1',
    'ünïcode',
    '𝒳',
    ' ',
    `${given} `,
    ` ${given}`,
    `${given}=`,
    `${given}==`,
    `${given}\n`,
    `${given}A`,
    `${given}AAAA`,
    given + given,
    given.toLowerCase() === given ? given.toUpperCase() : given.toLowerCase(),
    bytes.toString('base64').replace(/^./, '+'),
    bytes.toString('hex')
  ]
  for (const text of garbage) {
    for (const answer of await answersFor(text)) isRefusal(t, answer, REFUSED, text.slice(0, 30))
  }
  for (const length of [1000, 5000, 100_000]) {
    const { status, body } = await server.call(LIST, token, { pagination: { token: 'A'.repeat(length) } })
    t.strictSame(
      [status, body.code, body.details.length],
      [400, 'invalid_argument', 1],
      `${length} characters`
    )
  }
  for (let length = 1; length < given.length; length++) {
    const answer = await server.call(`${LIST}?token=${given.slice(0, length)}`, token, {})
    isRefusal(t, answer, REFUSED, `its first ${length} characters`)
  }
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Buffer.from(bytes)
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    const answer = await server.call(`${LIST}?token=${flipped.toString('base64url')}`, token, {})
    isRefusal(t, answer, REFUSED, `bit ${bit} flipped`)
  }
  for (let at = 0; at < given.length; at++) {
    const changed = `${given.slice(0, at)}${given[at] === 'A' ? 'B' : 'A'}${given.slice(at + 1)}`
    const answer = await server.call(`${LIST}?token=${changed}`, token, {})
    isRefusal(t, answer, REFUSED, `character ${at} changed`)
  }
})

t.test('a token of another server', async (t) => {
  const given = await tokenOf({})
  const node = await startSecondNode(t, server)
  const ask = async (app: typeof node, by: string, query: string) => {
    const {
      statusCode: status,
      headers,
      ...response
    } = await app.inject({
      method: 'POST',
      url: `/api/gitpod.v1.${LIST}${query}`,
      headers: { authorization: `Bearer ${by}` }
    })
    return { status, headers, body: response.json() }
  }
  const same = await ask(node, token, `?token=${given}&pageSize=5`)
  t.strictSame(idsOf(same.body.secrets), idsOf(all.slice(5, 10)), 'of the same keyring')

  // The same accounts and secrets, with a keyring that no generation of the first one is in.
  const masterKey = localMasterKey(randomBytes(32))
  const keyring = new Keyring([masterKey])
  await keyring.install([{ ...(await makeGeneration(masterKey)), state: 'active', acceptsBoxesForMs: null }])
  const stranger = await startSecondNode(t, { ...server, keyring })
  isRefusal(t, await ask(stranger, token, `?token=${given}`), REFUSED, 'of another keyring')
  const own = await ask(stranger, token, '?pageSize=5')
  t.equal(own.status, 200)
  const foreign = own.body.pagination.nextToken
  await refuses(t, 'made under another keyring', foreign)
})

t.test('a token outlives a rotation of keys', async (t) => {
  const rotating = await startOnaServer(t)
  const { owner, db, keyring } = rotating
  await store(rotating, 'user', owner.account.uid, namesOf('KEPT', 30))
  const page = (query: string) =>
    rotating.call(`${LIST}${query}`, owner.token, { pagination: { pageSize: 10 } })
  const one = (await page('')).body
  await beginRotation(db, keyring)
  await loadGenerations(db, keyring)
  const two = (await page(`?token=${one.pagination.nextToken}`)).body
  t.equal((await activateWhenReady(db, 3600)).state, 'activated')
  await loadGenerations(db, keyring)
  const again = (await page(`?token=${one.pagination.nextToken}`)).body
  t.strictSame(again.secrets, two.secrets, 'of the generation before')
  const three = (await page(`?token=${two.pagination.nextToken}`)).body
  const names = [...one.secrets, ...two.secrets, ...three.secrets].map(({ name }: Listed) => name)
  t.strictSame(names, namesOf('KEPT', 30))
  t.not(again.pagination.nextToken, two.pagination.nextToken, 'new tokens are of the new generation')
})

t.test('with inserts and deletes between the pages', async (t) => {
  const { db } = server
  const project = await projectOf(token, 'busy')
  const names = namesOf('N', 90)
  const stay = new Set(names.filter((_, n) => n % 3 !== 0))
  for (const pageSize of [1, 4, 10, 30, 31]) {
    await db.deleteFrom('secrets').where('owner_uid', '=', project).execute()
    await store(server, 'project', project, names)
    let made = 0
    const { secrets } = await walk(
      t,
      { filter: { scope: { projectId: project } }, pagination: { pageSize } },
      {
        between: async (page, index) => {
          // What was just shown, and what comes next: some of both goes, and more comes around it.
          const last = page.at(-1)?.name ?? 'N_000'
          const near = names.filter(
            (name) => !stay.has(name) && Math.abs(names.indexOf(name) - names.indexOf(last)) < 8
          )
          await db
            .deleteFrom('secrets')
            .where('owner_uid', '=', project)
            .where('name', '=', sql<string>`any(${near}::text[])`)
            .execute()
          if (index <= 20) {
            await store(server, 'project', project, [`A_${++made}`, `${last}_${made}`, `Z_${made}`])
          }
        }
      }
    )
    const shown = secrets.map(({ name }) => name)
    t.equal(new Set(shown).size, shown.length, `pages of ${pageSize}: nothing twice`)
    t.strictSame(
      shown.filter((name) => stay.has(name)),
      [...stay],
      'nothing lost that stayed'
    )
    t.strictSame(shown, [...shown].sort(), 'in order')
  }
})

t.test('the last one of a page is deleted, and all that follow', async (t) => {
  const { db } = server
  const project = await projectOf(token, 'shrinking')
  const message = { filter: { scope: { projectId: project } }, pagination: { pageSize: 10 } }
  await store(server, 'project', project, namesOf('S', 40))
  const one = (await server.call(LIST, token, message)).body
  await db.deleteFrom('secrets').where('owner_uid', '=', project).where('name', '=', 'S_009').execute()
  const two = (await server.call(`${LIST}?token=${one.pagination.nextToken}`, token, message)).body
  t.equal(two.secrets[0].name, 'S_010', 'it goes on behind it')
  await db.deleteFrom('secrets').where('owner_uid', '=', project).where('name', '>', 'S_019').execute()
  const three = (await server.call(`${LIST}?token=${two.pagination.nextToken}`, token, message)).body
  t.strictSame(three, { pagination: {} }, 'nothing is left, and no token')
  await server.call('ProjectService/DeleteProject', token, { projectId: project })
  const gone = await server.call(`${LIST}?token=${two.pagination.nextToken}`, token, message)
  isRefusal(t, gone, { code: 'not_found' }, 'the project is gone')
})

t.test('the log has no tokens of pages', async (t) => {
  const given = await tokenOf({})
  await answersFor(given)
  t.notOk(server.log.join('').includes(given))
})
