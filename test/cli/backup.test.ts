import { createHash } from 'node:crypto'
import { createWriteStream, existsSync } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { Kysely } from 'kysely'
import t, { type Test } from 'tap'
import { loadConfig } from '../../src/config.ts'
import { createUser } from '../../src/directory/accounts.ts'
import { issueToken } from '../../src/directory/tokens.ts'
import { openKeyring, openStore } from '../../src/open.ts'
import {
  activateWhenReady,
  beginRotation,
  ensureGeneration,
  loadGenerations
} from '../../src/secrets/generations.ts'
import { reveal } from '../../src/secrets/vault.ts'
import { writeBackup } from '../../src/store/backup/dump.ts'
import { verifyBackup } from '../../src/store/backup/load.ts'
import { listKnownMigrations } from '../../src/store/migrations.ts'
import type { Database } from '../../src/store/tables.ts'
import { createTestDatabase, getAccount, SYSTEM, sealFor } from '../helper.ts'
import {
  coffer,
  endPostgres,
  makeFolder,
  makeMasterKey,
  startServer,
  statusOf,
  type Variables
} from './helper.ts'

const MARKER = 'marker-of-a-value'
const SECRETS = '/user/codespaces/secrets'
const KNOWN_MIGRATIONS = await listKnownMigrations()
const WRITERS = 3
const NAMES_PER_WRITER = 4
const TABLES = [
  'instance',
  'accounts',
  'memberships',
  'repositories',
  'repository_redirects',
  'collaborators',
  'deployment_environments',
  'integrations',
  'integration_keys',
  'installations',
  'installation_repositories',
  'tokens',
  'token_repositories',
  'key_generations',
  'key_material',
  'secrets',
  'secret_repositories',
  'audit_events',
  'audit_chain',
  'audit_streams',
  'audit_checkpoint',
  'audit_prunings',
  'service_accounts',
  'groups',
  'group_members',
  'runners',
  'runner_exchange_tokens',
  'environment_classes',
  'projects',
  'project_environment_classes',
  'project_policies',
  'environments',
  'environment_secrets'
] as const satisfies readonly (keyof Database)[]

async function ask(url: string, token: string, method: string, requestPath: string, body?: object) {
  const response = await fetch(url + requestPath, {
    method,
    headers: { authorization: `Bearer ${token}` },
    ...(body && { body: JSON.stringify(body) })
  })
  const text = await response.text()
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text) }
}

/** Each writer goes through its own names again and again, one PUT after another, round by round. */
function startWriters(url: string, token: string, key: { key: string; key_id: string }) {
  let stopping = false
  const acknowledged = Array.from({ length: WRITERS }, () => 0)
  const write = async (writer: number) => {
    for (let round = 1; !stopping; round++) {
      for (let name = 0; name < NAMES_PER_WRITER; name++) {
        const encrypted_value = sealFor(key.key, `${MARKER}-${round}`)
        const body = { encrypted_value, key_id: key.key_id }
        const { status } = await ask(url, token, 'PUT', `${SECRETS}/W${writer}_${name}`, body)
        if (status !== 201 && status !== 204) throw new Error(`a write was answered with ${status}`)
      }
      acknowledged[writer] = round
    }
  }
  const writers = acknowledged.map((_, writer) => write(writer))
  return {
    acknowledged,
    async stop() {
      stopping = true
      await Promise.all(writers)
    }
  }
}

async function countRows(db: Kysely<Database>): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const table of TABLES) {
    const { rows } = await db
      .selectFrom(table as 'accounts')
      .select((eb) => eb.fn.countAll<number>().as('rows'))
      .executeTakeFirstOrThrow()
    counts[table] = rows
  }
  return counts
}

/** The values of all secrets, and what else a restored database must have. */
async function inspect(variables: Variables) {
  const { config, secrets } = loadConfig(variables)
  const store = await openStore(config, secrets, 'attach', { log: () => {} })
  try {
    const { db } = store
    const keyring = await openKeyring(config, db)
    await loadGenerations(db, keyring)
    const admin = await getAccount(db, 'admin')
    const stored = await db.selectFrom('secrets').select('name').orderBy('name').execute()
    const values: Record<string, string | undefined> = {}
    for (const { name } of stored) {
      const collection = { app: 'codespaces', kind: 'user', ownerUid: admin.uid } as const
      values[name] = (await reveal({ db, keyring }, collection, name))?.toString('utf8')
    }
    await beginRotation(db, keyring)
    await db
      .updateTable('nodes')
      .set({ reported_at: new Date(0) })
      .execute()
    await activateWhenReady(db, 0)
    const generations = await db
      .selectFrom('key_generations')
      .select(['id', 'state'])
      .orderBy('created_at')
      .execute()
    const restored = await db
      .selectFrom('audit_events')
      .select(['action', 'actor_kind', 'name'])
      .where('action', '=', 'instance.restore')
      .execute()
    const instance = await db.selectFrom('instance').select(['uid', 'epoch']).executeTakeFirstOrThrow()
    keyring.close()
    return { values, generations, restored, instance }
  } finally {
    await store.close()
  }
}

t.test('a backup beside a server under load is one moment, and brings everything back', async (t) => {
  const folder = await makeFolder(t)
  const old = { COFFER_DATA_DIR: path.join(folder, 'old') }
  const fresh = { COFFER_DATA_DIR: path.join(folder, 'new') }
  for (const { COFFER_DATA_DIR } of [old, fresh]) endPostgres(t, COFFER_DATA_DIR)
  const file = path.join(folder, 'backup.sql.gz')
  const server = await startServer(t, folder, old)
  const token = (await readFile(path.join(old.COFFER_DATA_DIR, 'admin-token'), 'utf8')).trim()

  const repository = await ask(server.url, token, 'POST', '/user/repos', { name: 'web', private: true })
  const deleted = await ask(server.url, token, 'POST', '/user/repos', { name: 'gone' })
  t.equal((await ask(server.url, token, 'DELETE', '/repos/admin/gone')).status, 204)
  const key = (await ask(server.url, token, 'GET', `${SECRETS}/public-key`)).body
  const writers = startWriters(server.url, token, key)
  while (writers.acknowledged.some((rounds) => rounds < 2))
    await new Promise((resolve) => setTimeout(resolve, 20))

  const before = [...writers.acknowledged]
  const written = await coffer(folder, ['backup', file], old)
  const after = [...writers.acknowledged]
  t.match(written, { code: 0, stdout: '', stderr: /\d+ rows in the backup/ })
  t.ok(
    after.every((rounds, writer) => rounds > before[writer]!),
    'writers went on meanwhile'
  )
  const masterKey = path.join(old.COFFER_DATA_DIR, 'keys', 'master.key')
  const fingerprint = (await verifyBackup(file)).manifest.master_keys[0]!
  t.match(written.stderr, `The master key is NOT inside. Its place is ${masterKey}`)
  t.match(written.stderr, fingerprint)
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.notOk(existsSync(`${file}.partial`))

  const again = await coffer(folder, ['backup', file], old)
  t.match(again, { code: 2, stderr: /is there already.*--force/ })
  const digest = createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
  const piped = path.join(folder, 'piped.gz')
  await writeFile(piped, '')
  const toStdout = await coffer(folder, ['backup', piped, '--force', '--json'], old)
  t.match(JSON.parse(toStdout.stdout), {
    file: piped,
    instance: String,
    migrations: KNOWN_MIGRATIONS,
    master_keys: [fingerprint],
    rows: { accounts: 2, runners: 1, secrets: WRITERS * NAMES_PER_WRITER }
  })
  t.equal(
    createHash('sha256')
      .update(await readFile(file))
      .digest('hex'),
    digest
  )

  await writers.stop()
  const busy = await coffer(folder, ['restore', file], old)
  t.match(busy, { code: 2, stderr: /Another Coffer \(process \d+\) uses the database/ })
  t.equal(await server.stop(), 0)

  const text = gunzipSync(await readFile(file)).toString('latin1')
  const keyText = (await readFile(masterKey, 'utf8')).trim()
  for (const [what, secret] of Object.entries({
    value: MARKER,
    'value, hexadecimal': Buffer.from(MARKER).toString('hex'),
    token,
    'token, hexadecimal': Buffer.from(token).toString('hex'),
    'master key': keyText,
    'master key, hexadecimal': Buffer.from(keyText, 'base64').toString('hex')
  })) {
    t.notOk(text.includes(secret), `no ${what} in the file`)
  }

  const restored = await coffer(folder, ['restore', file], fresh)
  t.match(restored, { code: 0, stdout: '', stderr: /Restored\. All tokens are void/ })
  t.match(restored.stderr, `WARNING: the master key with the fingerprint ${fingerprint} is not there`)
  await copyFile(masterKey, path.join(fresh.COFFER_DATA_DIR, 'keys', 'master.key'))

  const found = await inspect(fresh)
  t.equal(Object.keys(found.values).length, WRITERS * NAMES_PER_WRITER)
  for (let writer = 0; writer < WRITERS; writer++) {
    const rounds = Array.from({ length: NAMES_PER_WRITER }, (_, name) =>
      Number(/^marker-of-a-value-(\d+)$/.exec(found.values[`W${writer}_${name}`]!)?.[1])
    )
    const first = rounds[0]!
    t.ok(first >= before[writer]! && first <= after[writer]! + 1, `round ${first} of writer ${writer}`)
    t.ok(rounds.at(-1)! >= before[writer]!, 'nothing that was acknowledged before is missing')
    const turn = rounds.filter((round) => round === first).length
    t.strictSame(
      rounds,
      rounds.map((_, name) => (name < turn ? first : first - 1)),
      'as of one moment'
    )
  }
  t.match(found.restored, [{ actor_kind: 'system', name: /^backup of \d{4}-.*, tokens void$/ }])
  t.equal(found.restored.length, 1)
  t.equal(found.instance.epoch, 2)
  t.match(text, found.instance.uid)
  t.equal(found.generations.length, 2)
  t.strictSame(found.generations[0], { id: key.key_id, state: 'retired' })
  t.equal(found.generations[1]?.state, 'active')
  t.not(found.generations[1]?.id, key.key_id)

  const second = await coffer(folder, ['restore', file], fresh)
  t.match(second, { code: 2, stderr: /holds data already[\s\S]*Set COFFER_DATA_DIR/ })
  const repo = await coffer(folder, ['admin', 'repo', 'create', 'admin/next', '--offline', '--json'], fresh)
  t.ok(JSON.parse(repo.stdout).id > deleted.body.id, 'ids go on after those of deleted rows')
  const made = await coffer(
    folder,
    ['admin', 'token', 'create', 'admin', '--scopes', 'all', '--offline'],
    fresh
  )
  t.equal(made.code, 0)

  const revived = await startServer(t, folder, fresh)
  t.equal(await statusOf(revived.url, token), 401)
  t.equal(await statusOf(revived.url, made.stdout.trim()), 200)
  const list = await ask(revived.url, made.stdout.trim(), 'GET', SECRETS)
  t.equal(list.body.total_count, WRITERS * NAMES_PER_WRITER)
  const shown = await ask(revived.url, made.stdout.trim(), 'GET', '/repos/admin/web')
  t.equal(shown.body.id, repository.body.id)
  const sealed = (await ask(revived.url, made.stdout.trim(), 'GET', `${SECRETS}/public-key`)).body
  t.not(sealed.key_id, key.key_id)
  const value = { encrypted_value: sealFor(sealed.key, MARKER), key_id: sealed.key_id }
  t.equal((await ask(revived.url, made.stdout.trim(), 'PUT', `${SECRETS}/W0_0`, value)).status, 204)
  t.equal(await revived.stop(), 0)
})

/** A small backup of a database with an account, a token and a generation. */
async function makeBackup(t: Test) {
  const { url, db } = await createTestDatabase(t)
  const folder = await makeFolder(t)
  const masterKey = await makeMasterKey(folder)
  const variables = { DATABASE_URL: url, COFFER_MASTER_KEY_FILE: masterKey, COFFER_SOCKET: 'off' }
  const admin = await createUser(db, SYSTEM, { login: 'admin', siteAdmin: true })
  const { config } = loadConfig(variables)
  const keyring = await openKeyring(config, db)
  await ensureGeneration(db, keyring)
  keyring.close()
  const { token } = await issueToken(db, SYSTEM, admin, { scopes: ['repo'] }, { defaultDays: 9, maxDays: 9 })
  const file = path.join(folder, 'backup.sql.gz')
  const destination = createWriteStream(file)
  await writeBackup(url, destination, { coffer: '0.0.0', onProgress: () => {} })
  await new Promise<void>((resolve) => destination.end(resolve))
  return { folder, file, variables, token, db }
}

t.test('--keep-tokens keeps them, into another PostgreSQL too', async (t) => {
  const { folder, file, variables, token, db: source } = await makeBackup(t)
  const target = await createTestDatabase(t)
  const there = { ...variables, DATABASE_URL: target.url }
  const { code, stderr, stdout } = await coffer(folder, ['restore', file, '--keep-tokens', '--json'], there)
  t.equal(code, 0)
  t.match(JSON.parse(stdout), { tokens_kept: true, rows: { accounts: 1, tokens: 1 } })
  t.match(stderr, /The tokens of the backup are valid/)
  t.notMatch(stderr, /WARNING/, 'the master key is there')

  const expected = await countRows(source)
  t.strictSame(await countRows(target.db), { ...expected, audit_events: expected.audit_events! + 1 })
  for (const table of TABLES) {
    const all = (db: Kysely<Database>) =>
      db
        .selectFrom(table as 'secrets')
        .selectAll()
        .execute()
    const rows = new Set((await all(target.db)).map((row) => JSON.stringify(row)))
    for (const row of await all(source)) t.ok(rows.has(JSON.stringify(row)), `${table}: each row as it was`)
  }
  const server = await startServer(t, folder, there)
  t.equal(await statusOf(server.url, token), 200)
  t.equal(await server.stop(), 0)
})

function trailed(body: string): Buffer {
  const rows = JSON.parse(/-- end of backup (.*)\n$/.exec(body)![1]!).rows
  const rest = body.slice(0, body.lastIndexOf('-- end of backup'))
  const sha256 = createHash('sha256').update(rest).digest('hex')
  return gzipSync(`${rest}-- end of backup ${JSON.stringify({ rows, sha256 })}\n`)
}

t.test('a file that is damaged, altered or foreign is refused, and nothing is changed', async (t) => {
  const { folder, file } = await makeBackup(t)
  const bytes = await readFile(file)
  const text = gunzipSync(bytes).toString('utf8')
  const flipped = (at: number) => {
    const copy = Buffer.from(bytes)
    copy[at]! ^= 0x10
    return copy
  }
  const cut = text.lastIndexOf('-- end of backup')

  const migrations = JSON.stringify(KNOWN_MIGRATIONS)
  const bad: [string, Buffer | string, RegExp][] = [
    ['empty', '', /unzip|ends too early/],
    ['foreign', 'SELECT 1;\n', /does not unzip/],
    ['foreign, gzipped', gzipSync('SELECT 1;\n'), /begins with "-- Coffer backup" is missing/],
    ['one endless line', gzipSync('-- Coffer backup '.padEnd(1_000_000, 'x')), /ends too early/],
    ['cut short by one byte', bytes.subarray(0, -1), /does not unzip/],
    ['cut in half', bytes.subarray(0, bytes.length / 2), /does not unzip/],
    ['without the trailer', gzipSync(text.slice(0, cut)), /ends too early/],
    ['cut inside the rows', gzipSync(text.slice(0, text.indexOf('COPY "tokens"') + 200)), /ends too early/],
    ['something behind it', Buffer.concat([bytes, Buffer.from('x')]), /unzip/],
    ['twice', Buffer.concat([bytes, bytes]), /something follows its end/],
    ['a row altered', gzipSync(text.replace('\tadmin\t', '\troot\t')), /SHA-256/],
    ['a row missing', trailed(text.replace(/\n1\t.*\n/, '\n')), /rows of the table audit_events are missing/],
    ['a statement', trailed(text.replace('COMMIT;', 'DROP TABLE secrets;\nCOMMIT;')), /that is not ours/],
    [
      'another beginning',
      trailed(text.replace('DELETE FROM "instance"', 'DELETE FROM "x"')),
      /beginning is not/
    ],
    [
      'a table missing',
      trailed(text.replace(/COPY "memberships"[\s\S]*?\\\.\n/, '')),
      /table memberships is not where/
    ],
    ['a later format', trailed(text.replace('{"format":1,', '{"format":2,')), /its format is 2/],
    [
      'a later schema',
      trailed(text.replace(migrations, JSON.stringify([...KNOWN_MIGRATIONS, '9999-x']))),
      /does not know.*newer/
    ],
    ['the schema of a fork', trailed(text.replace(migrations, '["0001-other"]')), /does not know/]
  ]
  for (let at = 10; at < bytes.length; at += Math.ceil(bytes.length / 40)) {
    bad.push([`byte ${at} flipped`, flipped(at), /is no whole backup of Coffer/])
  }

  const damaged = path.join(folder, 'damaged.gz')
  for (const [what, content, message] of bad) {
    await writeFile(damaged, content)
    await t.rejects(verifyBackup(damaged), { code: 'refused_to_start', message }, what)
  }
  await t.rejects(verifyBackup(path.join(folder, 'absent')), /cannot be read \(ENOENT\)/)
  await t.rejects(verifyBackup(folder), /cannot be read \(EISDIR\)/)
  await writeFile(damaged, trailed(text))
  t.match(await verifyBackup(damaged), { manifest: { format: 1 } }, 'hashed anew alone does no harm')

  await writeFile(damaged, flipped(Math.floor(bytes.length / 2)))
  const target = path.join(folder, 'never')
  const { code, stderr } = await coffer(folder, ['restore', damaged], { COFFER_DATA_DIR: target })
  t.equal(code, 2)
  t.match(stderr, /is no whole backup of Coffer: .* Nothing was changed\.\n$/)
  t.notOk(existsSync(target), 'not even a database is made')
})

t.test('what the database refuses is rolled back as a whole', async (t) => {
  const { folder, file, variables } = await makeBackup(t)
  const text = gunzipSync(await readFile(file)).toString('utf8')
  const target = await createTestDatabase(t)
  const there = { ...variables, DATABASE_URL: target.url }
  const before = await countRows(target.db)
  const orphaned = path.join(folder, 'orphaned.gz')
  await writeFile(
    orphaned,
    trailed(text.replace(/(FROM stdin;\n\d+\t\\\\x[0-9a-f]{64}\tclassic\t)\d+/, '$1424242'))
  )
  const refused = await coffer(folder, ['restore', orphaned], there)
  t.equal(refused.code, 2)
  t.match(refused.stderr, /refused the rows of the table tokens \(SQLSTATE 23503\)\. Nothing was changed/)
  t.notMatch(refused.stderr, /424242/)
  t.strictSame(await countRows(target.db), before)

  const columns = path.join(folder, 'columns.gz')
  await writeFile(
    columns,
    trailed(text.replace('COPY "accounts" ("id","uid"', 'COPY "accounts" ("id","login_key"'))
  )
  t.match(await coffer(folder, ['restore', columns], there), {
    code: 2,
    stderr: /table accounts .* is not the one/
  })
  t.strictSame(await countRows(target.db), before)

  const lacking = path.join(folder, 'lacking.gz')
  const without = text.replace('"memberships",', '').replace(/COPY "memberships"[\s\S]*?\\\.\n/, '')
  await writeFile(lacking, trailed(without))
  const lacks = await coffer(folder, ['restore', lacking], there)
  t.match(lacks, { code: 2, stderr: /lacks the table memberships/ })
  t.strictSame(await countRows(target.db), before)

  t.equal((await coffer(folder, ['restore', file], there)).code, 0, 'afterwards the whole file still loads')
})

t.test('a backup that cannot be written leaves nothing', async (t) => {
  const { folder, variables, db } = await makeBackup(t)
  const missing = await coffer(folder, ['backup', path.join(folder, 'none', 'b.gz')], variables)
  t.match(missing, { code: 2, stderr: /b\.gz\.partial cannot be made \(ENOENT\)/ })

  const busy = path.join(folder, 'busy.gz')
  await writeFile(`${busy}.partial`, 'of another backup')
  t.match(await coffer(folder, ['backup', busy], variables), { code: 2, stderr: /another backup writes it/ })
  t.equal(await readFile(`${busy}.partial`, 'utf8'), 'of another backup')

  await db.schema.dropTable('migrations').execute()
  const foreign = await coffer(folder, ['backup', path.join(folder, 'foreign.gz')], variables)
  t.match(foreign, { code: 2, stderr: /not one of Coffer/ })
  await mkdir(path.join(folder, 'taken.gz'))
  t.match(await coffer(folder, ['backup', path.join(folder, 'taken.gz')], variables), { code: 2 })
  t.strictSame(
    (await readdir(folder)).filter((name) => name.endsWith('.gz') || name.endsWith('.partial')).sort(),
    ['backup.sql.gz', 'busy.gz.partial', 'taken.gz']
  )
})

t.test('every table of the schema is in a backup, but for the servers that run', async (t) => {
  const { file } = await makeBackup(t)
  const { manifest } = await verifyBackup(file)
  t.strictSame([...manifest.tables].sort(), [...TABLES].sort())
})
