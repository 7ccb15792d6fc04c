import { randomBytes } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t from 'tap'
import { deriveBoxSecretKey, deriveValueKey } from '../src/keyring/derivation.ts'
import { readMasterKey } from '../src/keyring/index.ts'
import { reveal } from '../src/secrets/vault.ts'
import { killPostgres, makeDataDir, postmasterPid, startChildServer, withStore } from './child-server.ts'
import { sealFor } from './helper.ts'
import { sendRaw } from './raw-http.ts'

t.setTimeout(180_000)

const REPO = '/repos/admin/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/octo/actions/secrets'
const ENVIRONMENT = '/repos/admin/web/environments/production/secrets'
const COLLECTIONS = [USER, REPO, ORG, ENVIRONMENT]

/** In everything that must not come out, so that one search finds all of it. */
const STEM = `Xmarker${randomBytes(12).toString('hex')}X`
const METRICS_TOKEN = `metrics-${STEM}-token`

/** How bytes may have been written. */
function formsOf(secret: Buffer): Buffer[] {
  const hex = secret.toString('hex')
  const forms = [
    secret,
    Buffer.from(hex),
    Buffer.from(hex.toUpperCase()),
    Buffer.from(secret.toString('utf8'), 'utf16le')
  ]
  // Within other bytes, base64 begins at one of three places; what depends on the neighbours is cut off.
  for (const shift of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(shift), secret])
      .toString('base64')
      .replace(/=+$/, '')
    const core = text.slice(Math.ceil((shift * 4) / 3), text.length - 2)
    forms.push(Buffer.from(core), Buffer.from(core.replaceAll('+', '-').replaceAll('/', '_')))
  }
  return forms.filter(({ length }) => length >= 16)
}

interface Needle {
  name: string
  forms: Buffer[]
  /** files of the data folder that may hold it, and nothing else may */
  home?: string
}

const needle = (name: string, secret: string | Buffer, home?: string): Needle => ({
  name,
  forms: formsOf(Buffer.from(secret as string)),
  ...(home && { home })
})

function find(needles: Needle[], text: string | Buffer, file?: string): string[] {
  const bytes = Buffer.from(text as string)
  return needles
    .filter(({ home, forms }) => (!home || home !== file) && forms.some((form) => bytes.includes(form)))
    .map(({ name }) => name)
}

async function listFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name))
}

t.test('the search finds what is there', async (t) => {
  const secret = randomBytes(32)
  for (const text of [
    secret,
    secret.toString('hex'),
    `\\x${secret.toString('hex')}`,
    secret.toString('base64'),
    secret.toString('base64url'),
    Buffer.concat([Buffer.from('a'), secret, Buffer.from('bc')]).toString('base64'),
    Buffer.concat([Buffer.from('ab'), secret, Buffer.from('c')]).toString('base64')
  ]) {
    t.strictSame(
      find(
        [needle('it', secret)],
        Buffer.concat([Buffer.from('before'), Buffer.from(text as string), Buffer.from('after')])
      ),
      ['it']
    )
  }
  t.strictSame(find([needle('it', secret)], randomBytes(1000)), [])
})

t.test('no value, key or token comes out anywhere', async (t) => {
  const dataDir = await makeDataDir(t)
  const environment = { COFFER_METRICS_TOKEN: METRICS_TOKEN, COFFER_ADMIN_LOGIN: 'admin' }
  const server = await startChildServer(t, dataDir, environment)
  const tokenFile = path.join(dataDir, 'admin-token')
  // It is written when the server serves already.
  for (const end = Date.now() + 10_000; !server.output().includes('Try it:') && Date.now() < end; )
    await sleep(20)
  const adminToken = (await readFile(tokenFile, 'utf8')).trim()
  t.equal((await stat(tokenFile)).mode & 0o777, 0o600)
  t.match(adminToken, /^coffer_pat_/)

  /** Every answer, except of the one operation that shows a token. */
  const answers: string[] = []
  const send = async (
    method: string,
    url: string,
    {
      token = adminToken,
      headers = {},
      body
    }: { token?: string | null; headers?: Record<string, string>; body?: unknown } = {}
  ): Promise<{ status: number; text: string }> => {
    const response = await fetch(server.url + url, {
      method,
      redirect: 'manual',
      headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) })
    })
    const text = await response.text()
    if (!(method === 'POST' && /\/authorizations$/.test(url) && response.status === 201)) {
      answers.push([response.status, ...response.headers, text].join('\n'))
    }
    return { status: response.status, text }
  }

  t.equal((await send('POST', '/user/repos', { body: { name: 'web', private: true } })).status, 201)
  t.equal((await send('POST', '/admin/users', { body: { login: 'mona' } })).status, 201)
  const octo = { login: 'octo', admin: 'admin' }
  t.equal((await send('POST', '/admin/organizations', { body: octo })).status, 201)
  t.equal((await send('PUT', '/repos/admin/web/environments/production')).status, 200)
  const issued: string[] = []
  for (const body of [
    { scopes: ['repo', 'codespace'], note: 'classic' },
    { permissions: { codespaces_user_secrets: 'write' }, note: 'fine-grained' }
  ]) {
    const { text } = await send('POST', '/admin/users/mona/authorizations', { body })
    issued.push(JSON.parse(text).token)
  }
  const keyOf = async (path: string) =>
    JSON.parse((await send('GET', `${path}/public-key`)).text) as { key: string; key_id: string }
  const keys: Record<string, Awaited<ReturnType<typeof keyOf>>> = {}
  for (const path of COLLECTIONS) keys[path] = await keyOf(path)
  const seal = (path: string, value: string) => ({
    encrypted_value: sealFor(keys[path]!.key, value),
    key_id: keys[path]!.key_id,
    ...(path === ORG && { visibility: 'all' })
  })
  const large = STEM.repeat(Math.floor((48 * 1024) / STEM.length))

  await t.test('values that are sealed properly', async (t) => {
    for (const path of COLLECTIONS) {
      for (const [name, value, status] of [
        ['A', `the value ${STEM}`, 201],
        ['A', `another value ${STEM}`, 204],
        ['LINES', `{"password": "${STEM}"}\n    at ${STEM}\n`, 201],
        ['LARGE', large, 201],
        ['GONE', STEM, 201]
      ] as const) {
        t.equal((await send('PUT', `${path}/${name}`, { body: seal(path, value) })).status, status)
      }
      t.equal((await send('DELETE', `${path}/GONE`)).status, 204)
      await send('GET', path)
      await send('GET', `${path}/A`)
    }
    t.equal(
      (await send('PUT', `${USER}/MINE`, { token: issued[1]!, body: { ...seal(USER, STEM) } })).status,
      422,
      'for another key'
    )
  })

  const broken = async () => {
    for (const path of COLLECTIONS) {
      const { encrypted_value, key_id } = seal(path, STEM)
      const flipped = `${encrypted_value.slice(0, 60)}${encrypted_value[60] === 'A' ? 'B' : 'A'}${encrypted_value.slice(61)}`
      const bodies = [
        `{"encrypted_value": "${STEM}`,
        `{"encrypted_value": ${STEM}}`,
        `encrypted_value=${STEM}`,
        STEM,
        `"${STEM}"`,
        `["${STEM}"]`,
        `{"${STEM}": 1}`,
        `\n    at ${STEM}`,
        { encrypted_value: STEM, key_id },
        { encrypted_value: `${STEM}!`, key_id },
        { encrypted_value: Buffer.from(STEM.repeat(2)).toString('base64'), key_id },
        { encrypted_value: Buffer.from(STEM.repeat(2)).toString('base64url'), key_id },
        { encrypted_value: flipped, key_id },
        { encrypted_value, key_id: STEM },
        { encrypted_value: { value: STEM }, key_id },
        { encrypted_value: [STEM], key_id },
        { encrypted_value, key_id: [STEM] },
        { value: STEM, secret: STEM, key_id },
        { encrypted_value, key_id, selected_repository_ids: [STEM], visibility: STEM },
        { encrypted_value, key_id, selected_repository_ids: STEM },
        { ...seal(path, `${large}${large}`) },
        `{"encrypted_value": "${STEM}${'A'.repeat(700_000)}"}`
      ]
      for (const body of bodies) await send('PUT', `${path}/BROKEN`, { body })
      for (const name of [`${STEM}-`, `1${STEM}`, `%00${STEM}`, `${STEM}%ZZ`, `GITHUB_${STEM}`]) {
        await send('PUT', `${path}/${name}`, { body: seal(path, STEM) })
        await send('GET', `${path}/${name}`)
        await send('DELETE', `${path}/${name}`)
      }
      await send('GET', `${path}?access_token=${STEM}&page=${STEM}&per_page=${STEM}`)
      await send('GET', path, { headers: { 'x-github-api-version': STEM } })
      await send('GET', path, { headers: { accept: `text/${STEM}` } })
      await send('GET', path, {
        headers: { 'if-none-match': STEM, 'if-match': STEM, cookie: STEM, 'user-agent': STEM }
      })
      await send('PUT', `${path}/A`, {
        headers: { 'if-match': STEM, 'content-type': `text/${STEM}` },
        body: seal(path, STEM)
      })
    }
    for (const [method, url] of [
      ['POST', '/user/repos'],
      ['POST', '/admin/users'],
      ['POST', '/admin/organizations'],
      ['POST', '/admin/users/mona/authorizations'],
      ['PUT', '/repos/admin/web/collaborators/mona'],
      ['PATCH', '/repos/admin/web'],
      ['PUT', '/orgs/octo/memberships/mona'],
      ['PUT', `/orgs/${STEM}/memberships/${STEM}`],
      ['PUT', `/repos/admin/web/environments/%20${STEM}`],
      ['POST', `/${STEM}`]
    ] as const) {
      for (const body of [
        `{"${STEM}`,
        {
          name: `${STEM}/${STEM}`,
          login: `-${STEM}`,
          admin: STEM,
          scopes: [STEM],
          permission: STEM,
          note: 1
        },
        { name: [STEM], login: [STEM], permissions: { [STEM]: STEM }, description: { STEM } }
      ]) {
        await send(method, url, { body })
      }
    }
  }
  await t.test('bodies, names, queries and headers that are broken', broken)

  await t.test('GraphQL that is broken', async () => {
    const byName = 'query($o:String!,$n:String!){repository(owner:$o,name:$n){id}}'
    for (const body of [
      { query: STEM.repeat(2) },
      { query: `{user(login:"${STEM}` },
      { query: `{user(login:"${STEM}/"){id} viewer{login} # ${STEM}\n}` },
      { query: `{user(login:{a:"${STEM}"}){id}}` },
      { query: `{user(login:"""${STEM}", x:["${STEM}"]){id}}` },
      { query: `query($a:Int="${STEM}"){viewer{login @skip(if:"${STEM}")}}` },
      { query: `{a:user(login:"${STEM}"){id} a:user(login:"b"){id}}` },
      { query: `{${STEM.repeat(2)}}` },
      { query: '{viewer{login}}', operationName: STEM },
      { query: '{viewer{login}}', variables: STEM },
      { query: '{viewer{login}}', variables: { [STEM]: STEM }, [STEM]: STEM },
      { query: byName, variables: { o: [STEM], n: { [STEM]: STEM } } },
      { query: byName, variables: { o: `${STEM} `, n: STEM } },
      { query: [STEM] },
      `{"query": "${STEM}`,
      `[{"query":"${STEM}"}]`
    ]) {
      await send('POST', '/api/graphql', { body })
    }
    await send('GET', `/api/graphql?query=${STEM}`)
    await send('POST', '/graphql', { body: { query: `{user(login:"${STEM}"){` }, token: issued[0]! })
  })

  const wrongTokens = async () => {
    const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
    for (const authorization of [
      `Bearer ${STEM}`,
      `token ${STEM}-of-32-characters-at-least`,
      `${STEM}`,
      `Digest ${STEM}`,
      basic(`mona:${STEM}`),
      basic(`${STEM}:`),
      basic(STEM)
    ]) {
      for (const url of ['/user', USER, `/user?token=${STEM}`, '/metrics', '/readyz', '/docs/json']) {
        await send('GET', url, { token: null, headers: { authorization } })
      }
      await send('PUT', `${USER}/A`, { token: null, headers: { authorization }, body: seal(USER, STEM) })
    }
    for (const token of [adminToken, ...issued]) {
      await send('GET', `/user?access_token=${token}&token=${token}`, { token: null })
      await send('GET', `/${token}/${token}`, { token: null })
      await send('GET', '/user', { token: null, headers: { authorization: basic(`mona:${token}`) } })
      await send('GET', '/user', { token: null, headers: { authorization: `${token} ${token}` } })
      await send('GET', `/users/${token}`)
      await send('GET', '/user', { token })
      await send('GET', USER, { token })
    }
  }
  await t.test('tokens where they belong, and where not', wrongTokens)

  await t.test('requests that are no HTTP', async () => {
    for (const bytes of [
      `${STEM} / HTTP/1.1\r\n\r\n`,
      `GET /${STEM} HTTP/1.1\r\n${STEM}\r\n\r\n`,
      `GET /user HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${adminToken}\r\nX: ${STEM.repeat(1000)}\r\n\r\n`,
      `PUT ${USER}/A HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${adminToken}\r\nTransfer-Encoding: chunked\r\n\r\n${STEM}\r\n`
    ]) {
      for (const target of [server.url, path.join(dataDir, 'coffer.sock')]) {
        const answer = await sendRaw(target, bytes)
        answers.push(JSON.stringify(answer))
      }
    }
    const head = `PUT ${USER}/A HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${adminToken}\r\nContent-Length: 500\r\n\r\n`
    await sendRaw(server.url, `${head}{"encrypted_value": "${STEM}`, async (socket) => {
      await sleep(50)
      socket.resetAndDestroy()
    })
  })

  await t.test('a database that goes away in the middle', async (t) => {
    const writing = Array.from({ length: 20 }, (_, n) =>
      send('PUT', `${USER}/AWAY${n}`, { body: seal(USER, STEM) })
    )
    await killPostgres(dataDir)
    const away = await Promise.all(writing)
    away.push(await send('PUT', `${USER}/A`, { body: seal(USER, STEM) }))
    await send('GET', '/user', {
      token: null,
      headers: { authorization: `Bearer ${STEM}-of-32-characters-at-least` }
    })
    t.strictSame(
      away.filter(({ status }) => ![201, 204, 503].includes(status)).map(({ text }) => text),
      []
    )
    for (const end = Date.now() + 30_000; (await send('GET', '/readyz')).status !== 200; await sleep(50)) {
      if (Date.now() > end) throw new Error('it does not come back')
    }
    t.equal((await send('PUT', `${USER}/A`, { body: seal(USER, `the last value ${STEM}`) })).status, 204)
  })

  const metrics = (await send('GET', '/metrics')).text
  t.match(metrics, /coffer_failed_logins_total [1-9]/, 'the metrics are those of this server')

  await t.test('whatever was written is searched', async (t) => {
    const masterKeyFile = path.join(dataDir, 'keys', 'master.key')
    const passwords = JSON.parse(await readFile(path.join(dataDir, 'keys', 'postgres.json'), 'utf8'))
    const needles: Needle[] = [
      needle('a marker', STEM),
      needle('the token of the administrator', adminToken, tokenFile),
      ...issued.map((token, index) => needle(`token ${index}`, token)),
      needle(
        'the master key',
        Buffer.from((await readFile(masterKeyFile, 'utf8')).trim(), 'base64'),
        masterKeyFile
      ),
      needle("PostgreSQL's password", passwords.service, path.join(dataDir, 'keys', 'postgres.json')),
      needle("PostgreSQL's first password", passwords.superuser, path.join(dataDir, 'keys', 'postgres.json'))
    ]
    t.ok(needles.every(({ forms }) => forms.length >= 8))

    const tables = await withStore(dataDir, environment, async ({ db, keyring }) => {
      const { uid } = await db
        .selectFrom('accounts')
        .select('uid')
        .where('login', '=', 'admin')
        .executeTakeFirstOrThrow()
      const value = await reveal({ db, keyring }, { app: 'codespaces', kind: 'user', ownerUid: uid }, 'A')
      t.equal(value?.toString(), `the last value ${STEM}`, 'though it is stored')

      const masterKey = await readMasterKey(masterKeyFile)
      const secrets = await db.selectFrom('secrets').select(['uid', 'app', 'kind', 'owner_uid']).execute()
      t.ok(secrets.length >= 6)
      for (const { generation_id, wrapped } of await db.selectFrom('key_material').selectAll().execute()) {
        const material = await masterKey.unwrap(BigInt(generation_id), wrapped)
        needles.push(needle(`key generation ${generation_id}`, material))
        for (const { uid, app, kind, owner_uid } of secrets.slice(0, 3)) {
          const collection = `${app}/${kind}/${owner_uid}`
          needles.push(needle(`box key of ${collection}`, deriveBoxSecretKey(material, collection)))
          needles.push(needle(`value key of ${uid}`, deriveValueKey(material, collection, uid)))
        }
      }
      const { rows: names } = await sql<{ name: string }>`
        select table_schema || '.' || table_name as name from information_schema.tables
        where table_schema not in ('pg_catalog', 'information_schema')`.execute(db)
      const contents = new Map<string, string>()
      for (const { name } of names) {
        const { rows } = await sql<{ row: string }>`select r::text as row from ${sql.table(name)} r`.execute(
          db
        )
        contents.set(name, rows.map(({ row }) => row).join('\n'))
      }
      return contents
    })
    t.ok(tables.size >= 14, `${tables.size} tables`)
    t.match(tables.get('public.audit_events'), /secret\.update/)
    for (const [name, rows] of tables) t.strictSame(find(needles, rows), [], `table ${name}`)
    // Written in hexadecimal above; decoded here.
    const canonical = tables
      .get('public.audit_events')!
      .match(/\\x[0-9a-f]+/g)!
      .map((bytes) => Buffer.from(bytes.slice(2), 'hex'))
    t.strictSame(find(needles, Buffer.concat(canonical)), [], 'audit records, decoded')

    t.ok(answers.length > 200, `${answers.length} answers`)
    for (const answer of answers) {
      const found = find(needles, answer)
      if (found.length > 0) t.fail(`an answer holds ${found}: ${answer.slice(0, 400)}`)
    }
    t.strictSame(find(needles, metrics), [], 'metrics')

    const environmentOfPostgres = await readFile(`/proc/${await postmasterPid(dataDir)}/environ`)
    t.strictSame(find(needles, environmentOfPostgres), [], "PostgreSQL's environment")

    await server.kill('SIGTERM')
    const lines = server.output().split('\n')
    t.ok(lines.filter((line) => line.startsWith('{')).length > 200, `${lines.length} lines of output`)
    for (const line of lines) t.strictSame(find(needles, line), [], line.slice(0, 60))

    const files = await listFiles(dataDir)
    t.ok(files.some((file) => file.includes('pg_wal')) && files.some((file) => file.includes('/log/')))
    let size = 0
    for (const file of files) {
      const bytes = await readFile(file)
      size += bytes.length
      const found = find(needles, bytes, file)
      if (found.length > 0) t.fail(`${path.relative(dataDir, file)} holds ${found}`)
    }
    t.comment(
      `${files.length} files, ${Math.round(size / 1e6)} MB, ${answers.length} answers, ${lines.length} lines`
    )
    t.ok(
      find(
        needles.map(({ name, forms }) => ({ name, forms })),
        await readFile(tokenFile)
      ).length > 0,
      'where it may be, it is found'
    )
  })
})
