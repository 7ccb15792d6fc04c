import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import type { Response } from 'light-my-request'
import t, { type Test } from 'tap'
import { isConsistent } from './consistency.ts'
import { startTestServer, type TestServer } from './helper.ts'

t.setTimeout(120_000)

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/acme/actions/secrets'
const ENVIRONMENT = '/repos/mona/web/environments/production/secrets'

interface Stage {
  server: TestServer
  monaUid: string
  token: string
  repositoryId: number
  repositoryUid: string
  acmeUid: string
  environmentUid: string
}

async function start(t: Test): Promise<Stage> {
  const server = await startTestServer(t, { logLevel: 'error' })
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const acme = await server.createOrganization('acme', mona)
  await server.request('PUT', '/repos/mona/web/environments/production', { token })
  const environment = await server.db
    .selectFrom('deployment_environments')
    .select('uid')
    .executeTakeFirstOrThrow()
  return {
    server,
    monaUid: mona.uid,
    token,
    repositoryId,
    repositoryUid: uid,
    acmeUid: acme.uid,
    environmentUid: environment.uid
  }
}

/** How many answers there were of each status. */
function count(responses: Response[]): Record<number, number> {
  const statuses: Record<number, number> = {}
  for (const { statusCode } of responses) statuses[statusCode] = (statuses[statusCode] ?? 0) + 1
  return statuses
}

const times = <T>(number: number, make: (index: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: number }, (_, index) => make(index)))

/** With what an organization's secret needs besides the value. */
async function seal({ server, token }: Stage, path: string, value: string) {
  return { ...(await server.seal(path, token, value)), ...(path === ORG && { visibility: 'all' }) }
}

async function sealMany(stage: Stage, path: string, number: number) {
  return await times(number, (index) => seal(stage, path, `value ${index}`))
}

const collections = ({ monaUid, repositoryUid, acmeUid, environmentUid }: Stage) =>
  [
    [REPO, 'repository', repositoryUid, 'codespaces'],
    [USER, 'user', monaUid, 'codespaces'],
    [ORG, 'organization', acmeUid, 'actions'],
    [ENVIRONMENT, 'deployment-environment', environmentUid, 'actions']
  ] as const

t.test('of many first PUTs of one name exactly one creates it', async (t) => {
  const stage = await start(t)
  const { server, token } = stage
  for (const [path, kind, ownerUid, app] of collections(stage)) {
    for (const name of ['ONE', 'TWO']) {
      const bodies = await sealMany(stage, path, 30)
      const responses = await Promise.all(
        bodies.map((body) => server.request('PUT', `${path}/${name}`, { token, body }))
      )
      t.strictSame(count(responses), { 201: 1, 204: 29 }, `${path}/${name}`)
      const value = (await server.reveal(kind, ownerUid, name, app))?.toString()
      t.match(value, /^value ([12]?[0-9])$/, 'the value is one of those sent')
      const row = await server.db
        .selectFrom('secrets')
        .select(['value_version', 'row_version'])
        .where('owner_uid', '=', ownerUid)
        .where('name', '=', name)
        .execute()
      t.equal(row.length, 1)
      t.equal(row[0]!.value_version, 30, 'each of them was stored, one after the other')
      t.equal(row[0]!.row_version, 30)
    }
  }
  await isConsistent(t, server.db)
})

/** So many secrets of the organization, with their records. */
async function fill(stage: Stage, number: number): Promise<void> {
  const body = await seal(stage, ORG, 'there before')
  const { server, token } = stage
  // In turns, so that a busy machine answers each in time.
  for (let first = 0; first < number; first += 50) {
    const put = (index: number) => server.request('PUT', `${ORG}/BEFORE${first + index}`, { token, body })
    const refused = (await times(50, put)).filter(({ statusCode }) => statusCode !== 201)
    if (refused.length > 0) throw new Error(`not filled: ${refused[0]!.statusCode}`)
  }
}

t.test('with many PUTs of distinct names at once, the limit of 100 holds exactly', async (t) => {
  const stage = await start(t)
  const { server, token } = stage
  for (const [path, , ownerUid] of collections(stage)) {
    const body = await seal(stage, path, 'one of many')
    // An organization's Actions secrets are 1,000.
    const there = path === ORG ? 900 : 0
    if (there > 0) await fill(stage, there)
    const responses = await times(150, (index) => server.request('PUT', `${path}/N${index}`, { token, body }))
    t.strictSame(count(responses), { 201: 100, 422: 50 }, path)
    const { total } = await server.db
      .selectFrom('secrets')
      .select((eb) => eb.fn.countAll<number>().as('total'))
      .where('owner_uid', '=', ownerUid)
      .executeTakeFirstOrThrow()
    t.equal(total, there + 100)
  }
  await isConsistent(t, server.db)
})

t.test('PUT and DELETE of one name at once only ever create, update, remove or find nothing', async (t) => {
  const stage = await start(t)
  const { server, token } = stage
  for (const [path] of collections(stage)) {
    const body = await seal(stage, path, 'here and gone')
    const puts: Response[] = []
    const deletes: Response[] = []
    for (let round = 0; round < 3; round++) {
      await times(30, async (index) => {
        const url = `${path}/FLICKER`
        if (index % 2) deletes.push(await server.request('DELETE', url, { token }))
        else puts.push(await server.request('PUT', url, { token, body }))
      })
    }
    t.strictSame(
      Object.keys(count(puts)).filter((status) => status !== '201' && status !== '204'),
      []
    )
    t.strictSame(
      Object.keys(count(deletes)).filter((status) => status !== '204' && status !== '404'),
      []
    )
    const created = count(puts)[201] ?? 0
    const removed = count(deletes)[204] ?? 0
    const { statusCode } = await server.request('GET', `${path}/FLICKER`, { token })
    t.equal(created - removed, statusCode === 200 ? 1 : 0, `${created} created, ${removed} removed`)
  }
  await isConsistent(t, server.db)
})

t.test('many updates of one secret all count', async (t) => {
  const stage = await start(t)
  const { server, token } = stage
  for (const [path, kind, ownerUid, app] of collections(stage)) {
    const [first, ...bodies] = await sealMany(stage, path, 61)
    await server.request('PUT', `${path}/BUSY`, { token, body: first })
    const responses = await Promise.all(
      bodies.map((body) => server.request('PUT', `${path}/BUSY`, { token, body }))
    )
    t.strictSame(count(responses), { 204: 60 }, path)
    const { value_version, row_version } = await server.db
      .selectFrom('secrets')
      .select(['value_version', 'row_version'])
      .where('owner_uid', '=', ownerUid)
      .executeTakeFirstOrThrow()
    t.equal(value_version, 61)
    t.equal(row_version, 61)
    t.match((await server.reveal(kind, ownerUid, 'BUSY', app))?.toString(), /^value ([1-9]|[1-5][0-9]|60)$/)
  }
  await isConsistent(t, server.db)
})

t.test('of many updates with the same If-Match exactly one is done', async (t) => {
  const stage = await start(t)
  const { server, token } = stage
  for (const [path] of collections(stage)) {
    const [first, ...bodies] = await sealMany(stage, path, 31)
    await server.request('PUT', `${path}/GUARDED`, { token, body: first })
    const { etag } = (await server.request('GET', `${path}/GUARDED`, { token })).headers
    const headers = { 'if-match': String(etag) }
    const responses = await Promise.all(
      bodies.map((body) => server.request('PUT', `${path}/GUARDED`, { token, body, headers }))
    )
    t.strictSame(count(responses), { 204: 1, 412: 29 }, path)
  }
  await isConsistent(t, server.db)
})

t.test('values and selections of a user secret change at once, whole', async (t) => {
  const stage = await start(t)
  const { server, token, repositoryId, monaUid } = stage
  const other = await server.createRepository(await server.createUser('hubot'), 'shared', { private: false })
  const [first, ...bodies] = await sealMany(stage, USER, 21)
  await server.request('PUT', `${USER}/MIXED`, { token, body: first })
  const responses = await times(60, (index) => {
    const id = index % 2 ? repositoryId : other
    const selected_repository_ids = [id]
    const url = `${USER}/MIXED`
    if (index % 3 === 0)
      return server.request('PUT', url, { token, body: { ...bodies[index / 3], selected_repository_ids } })
    if (index % 3 === 1)
      return server.request('PUT', `${url}/repositories`, { token, body: { selected_repository_ids } })
    return server.request(index % 4 ? 'PUT' : 'DELETE', `${url}/repositories/${id}`, { token })
  })
  const unexpected = responses.filter(({ statusCode }) => statusCode !== 204 && statusCode !== 404)
  t.strictSame(
    unexpected.map(({ body }) => body),
    []
  )
  t.match((await server.reveal('user', monaUid, 'MIXED'))?.toString(), /^value /)
  await isConsistent(t, server.db)
})

t.test('a repository that is deleted while secrets are put leaves none behind', async (t) => {
  const stage = await start(t)
  const { server, token, repositoryId } = stage
  for (let round = 0; round < 5; round++) {
    const body = await server.seal(REPO, token, 'soon gone')
    const puts = times(40, async (index) => {
      await sleep(index / 4)
      return await server.request('PUT', `${REPO}/N${index % 20}`, { token, body })
    })
    await sleep(4)
    const removed = await server.request('DELETE', '/repos/mona/web', { token })
    t.equal(removed.statusCode, 204)
    const statuses = Object.keys(count(await puts))
    t.strictSame(
      statuses.filter((status) => !['201', '204', '404'].includes(status)),
      [],
      statuses.join(' ')
    )
    await isConsistent(t, server.db)
    const { rows } = await sql<{ name: string }>`
      select name from audit_events where action in ('secret.create', 'secret.remove')
      group by subject_uid, name having count(*) <> 2`.execute(server.db)
    t.strictSame(rows, [], 'what was created is recorded as removed')
    const { statusCode } = await server.request('POST', '/user/repos', {
      token,
      body: { name: 'web', private: true }
    })
    t.equal(statusCode, 201)
  }
  t.equal((await server.request('GET', `/repositories/${repositoryId}`, { token })).statusCode, 404)
})

t.test('a user who is deleted while working leaves nothing behind', async (t) => {
  const { server } = await start(t)
  for (let round = 0; round < 3; round++) {
    const login = `short-lived-${round}`
    const user = await server.createUser(login)
    const token = await server.createToken(user, { scopes: ['repo', 'codespace'] })
    await server.createRepository(user, 'web')
    const paths = [USER, `/repos/${login}/web/codespaces/secrets`]
    const bodies = await Promise.all(paths.map((path) => server.seal(path, token, 'soon gone')))
    const work = times(48, async (index) => {
      await sleep(index / 4)
      if (index % 8 === 3) return await server.request('GET', '/user', { token })
      if (index % 8 === 5) {
        const body = { selected_repository_ids: [] }
        return await server.request('PUT', `${USER}/N${index - 5}/repositories`, { token, body })
      }
      if (index % 8 === 7)
        return await server.request('POST', '/user/repos', { token, body: { name: `r${index}` } })
      const path = paths[index % 2]!
      return await server.request('PUT', `${path}/N${index}`, { token, body: bodies[index % 2] })
    })
    await sleep(4)
    const removed = await server.request('DELETE', `/admin/users/${login}`, { token: server.admin.token })
    t.equal(removed.statusCode, 204, removed.body)
    const statuses = Object.keys(count(await work))
    t.strictSame(server.log, [])
    t.strictSame(
      statuses.filter((status) => !['200', '201', '204', '401', '404'].includes(status)),
      [],
      statuses.join(' ')
    )
    await isConsistent(t, server.db)
    const { rows } = await sql`select name from repositories where owner_id = ${user.id}`.execute(server.db)
    t.strictSame(rows, [])
  }
})

t.test('a secret that is stored while the deletion of its user waits goes with the user', async (t) => {
  const { server, monaUid, token } = await start(t)
  const body = await server.seal(USER, token, 'too late')
  // Holds the account as another writer would, so that both wait for it in the order in which they came.
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const holding = server.db.transaction().execute(async (tx) => {
    await sql`select 1 from accounts where uid = ${monaUid} for no key update`.execute(tx)
    await held
  })
  await sleep(50)
  const put = server.request('PUT', `${USER}/LATE`, { token, body })
  await sleep(100)
  const remove = server.request('DELETE', '/admin/users/mona', { token: server.admin.token })
  await sleep(100)
  release()
  await holding
  t.strictSame([(await put).statusCode, (await remove).statusCode], [201, 204])
  await isConsistent(t, server.db)
})

t.test('a second after a token was revoked nothing is done with it any more', async (t) => {
  const stage = await start(t)
  const { server, token } = stage
  const bodies = await Promise.all([REPO, USER].map((path) => server.seal(path, token, 'by a token')))
  let revokedAt: number | undefined
  let stop = false
  const acknowledged: { at: number; after: number | undefined }[] = []
  const refused: Response[] = []
  const writers = times(8, async (writer) => {
    for (let n = 0; !stop; n++) {
      const path = [REPO, USER][writer % 2]!
      const response = await server.request('PUT', `${path}/W${writer}_${n % 5}`, {
        token,
        body: bodies[writer % 2]
      })
      const at = performance.now()
      if (response.statusCode < 300) acknowledged.push({ at, after: revokedAt && at - revokedAt })
      else refused.push(response)
      if (response.statusCode >= 300) await sleep(20)
    }
  })
  await sleep(400)
  const before = acknowledged.length
  const response = await server.request('DELETE', '/admin/users/mona/authorizations', {
    token: server.admin.token
  })
  revokedAt = performance.now()
  t.equal(response.statusCode, 204)
  await sleep(1500)
  stop = true
  await writers
  t.ok(before > 20, `${before} were acknowledged before`)
  t.strictSame(
    acknowledged.filter(({ after }) => after !== undefined && after > 1000),
    [],
    'none a second after'
  )
  const last = Math.max(0, ...acknowledged.map(({ after }) => after ?? 0))
  t.comment(`the last one ${Math.round(last)} ms after the answer; ${refused.length} refused`)
  t.ok(refused.length > 0)
  // 403: so many that they count as failed logins.
  t.strictSame(
    Object.keys(count(refused)).filter((status) => status !== '401' && status !== '403'),
    []
  )
  await isConsistent(t, server.db)
})
