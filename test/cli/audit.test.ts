import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { countUnchained } from '../../src/store/audit-records.ts'
import { tamper } from '../audit/helper.ts'
import { createTestDatabase } from '../helper.ts'
import { coffer, makeFolder, makeMasterKey, startServer, until, type Variables } from './helper.ts'

async function world(t: Test) {
  const { url, db } = await createTestDatabase(t)
  const folder = await makeFolder(t)
  const data = path.join(folder, 'data')
  const variables: Variables = {
    DATABASE_URL: url,
    COFFER_MASTER_KEY_FILE: await makeMasterKey(folder),
    COFFER_SOCKET: 'off',
    COFFER_DATA_DIR: data,
    COFFER_ADMIN_TOKEN: 'audit-test-token-of-the-administrator'
  }
  const server = await startServer(t, folder, variables)
  const client = { ...variables, COFFER_URL: server.url, COFFER_TOKEN: variables.COFFER_ADMIN_TOKEN }
  return { db, folder, data, variables, server, client }
}

/** Until the server has sealed all, and has taken a checkpoint since. */
async function settled(db: Parameters<typeof countUnchained>[0], data: string): Promise<string> {
  await until(async () => (await countUnchained(db)) === 0 || undefined)
  return await until(
    async () => await readFile(path.join(data, 'audit', 'checkpoint.jsonl'), 'utf8').catch(() => undefined)
  )
}

t.test('what happened is listed, exported beside a server, and verified without one', async (t) => {
  const { db, folder, data, variables, server, client } = await world(t)
  for (const login of ['mona', 'hubot']) {
    t.equal((await coffer(folder, ['admin', 'user', 'create', login], client)).code, 0)
  }
  t.equal((await coffer(folder, ['admin', 'org', 'create', 'acme', '--owner', 'admin'], client)).code, 0)
  const listed = await coffer(folder, ['audit', 'list', '--phrase', 'action:user.create actor:admin'], client)
  t.match(listed, { code: 0, stderr: '' })
  t.match(
    listed.stdout,
    /^TIME +WHO +ACTION +OF +IN\n\S+Z +admin +user\.create +hubot .*\n\S+Z +admin +user\.create +mona/
  )
  const json = await coffer(folder, ['audit', 'list', '--org', 'acme', '--json'], client)
  const ofAcme = { actor: 'admin', org: 'acme' }
  t.match(JSON.parse(json.stdout), [
    { action: 'environment_class.create', ...ofAcme },
    { action: 'runner.create', ...ofAcme },
    { action: 'group.create', ...ofAcme },
    { action: 'organization.create', ...ofAcme }
  ])
  const oldest = await coffer(folder, ['audit', 'list', '--oldest-first', '--limit', '2', '--json'], client)
  t.match(JSON.parse(oldest.stdout), [
    { action: 'key.create', actor_kind: 'system' },
    { action: 'user.create' }
  ])
  const none = await coffer(folder, ['audit', 'list', '--phrase', 'actor:nobody'], client)
  t.match(none, { code: 0, stdout: '', stderr: 'No records.\n' })
  t.match(await coffer(folder, ['audit', 'list', '--phrase', 'nobody'], client), {
    code: 2,
    stderr: /a word has no qualifier; write QUALIFIER:VALUE/
  })
  t.match(await coffer(folder, ['audit', 'list', '--org', 'none'], client), {
    code: 2,
    stderr: /There is no organization none/
  })
  t.match(await coffer(folder, ['audit', 'list', '--org', 'acme', '--all'], client), {
    code: 2,
    stderr: /do not go together/
  })
  t.match(await coffer(folder, ['audit', 'list', '--limit', '0'], client), { code: 2 })

  await settled(db, data)
  const file = path.join(folder, 'audit.jsonl')
  const exported = await coffer(folder, ['audit', 'export', file, '--json'], variables)
  t.match(exported, { code: 0 })
  const { records, streams, unsealed } = JSON.parse(exported.stdout)
  t.strictSame([streams, unsealed], [6, 0])
  t.ok(records >= 8)
  t.match(await coffer(folder, ['audit', 'export', file], variables), {
    code: 2,
    stderr: /is there already.*--force/
  })
  const piped = await coffer(folder, ['audit', 'export', '-'], variables)
  t.strictSame(piped.stdout.split('\n').slice(1), (await readFile(file, 'utf8')).split('\n').slice(1))

  const key = await coffer(folder, ['audit', 'public-key'], variables)
  t.match(key, { code: 0, stdout: /^-----BEGIN PUBLIC KEY-----\n\S+\n-----END PUBLIC KEY-----\n$/ })
  const publicKey = path.join(folder, 'audit-key.pub')
  await writeFile(publicKey, key.stdout)
  t.equal(await server.stop(), 0)
  const kept = path.join(folder, 'kept.jsonl')
  await copyFile(path.join(data, 'audit', 'checkpoint.jsonl'), kept)
  await coffer(folder, ['audit', 'export', file, '--force'], variables)
  await rm(data, { recursive: true })

  const verify = async (...args: string[]) =>
    await coffer(folder, ['audit', 'verify', ...args], { COFFER_DATA_DIR: path.join(folder, 'none') })
  const against = ['--checkpoint', kept, '--public-key', publicKey]
  const alone = await verify(file)
  t.match(alone, {
    code: 0,
    stdout: /and all of them fit\.\nNote: Without a checkpoint it cannot be seen/,
    stderr: ''
  })
  t.match(await verify(file, ...against), {
    code: 0,
    stdout: /all of them fit\.\nNote: Checkpoint \d+ of .* covers \d+ records/
  })
  await writeFile(`${file}.gz`, gzipSync(await readFile(file)))
  t.match(JSON.parse((await verify(`${file}.gz`, ...against, '--json')).stdout), {
    ok: true,
    found: 0,
    streams: 6
  })

  const refused: [string[], RegExp][] = [
    [[path.join(folder, 'none')], /none cannot be read \(ENOENT\)/],
    [[publicKey], /is no export of coffer audit export/],
    [[file, '--checkpoint', kept], /give --public-key/],
    [[file, '--public-key', kept], /holds no Ed25519 public key/]
  ]
  for (const [args, message] of refused)
    t.match(await verify(...args), { code: 2, stderr: message }, args.join(' '))
  await writeFile(`${file}.broken.gz`, 'no gzip')
  t.match(await verify(`${file}.broken.gz`), { code: 2, stderr: /does not unzip/ })
  t.match(await coffer(folder, ['audit', 'public-key'], variables), {
    code: 2,
    stderr: /There is no audit key in/
  })

  const [{ id }] = (await db
    .selectFrom('audit_events')
    .select('id')
    .where('name', '=', 'hubot')
    .execute()) as [{ id: number }]
  await tamper(db, `update audit_events set name = 'mallory' where id = ${id}`)
  await mkdir(data)
  await coffer(folder, ['audit', 'export', file, '--force'], variables)
  const changed = await verify(file)
  t.match(changed, {
    code: 1,
    stdout: new RegExp(
      `CHANGED\\. The first that does not fit:\\n  stream \\S+, sequence 1, record ${id}: the column name is not`
    )
  })
  t.match(JSON.parse((await verify(file, '--json')).stdout), {
    ok: false,
    found: 1,
    findings: [{ id, sequence: 1 }]
  })
  const cut = await readFile(file, 'utf8')
  await writeFile(file, cut.split('\n').slice(0, -4).join('\n'))
  t.match(await verify(file, ...against), { code: 1, stdout: /more:\n[\s\S]*was cut/ })
})

t.test('a restored database goes on with its chains, and a kept checkpoint still fits', async (t) => {
  const { db, folder, data, variables, server, client } = await world(t)
  await coffer(folder, ['admin', 'user', 'create', 'mona'], client)
  await settled(db, data)
  const publicKey = path.join(folder, 'key.pub')
  await writeFile(publicKey, (await coffer(folder, ['audit', 'public-key'], variables)).stdout)
  t.equal(await server.stop(), 0)
  const kept = path.join(folder, 'kept.jsonl')
  await copyFile(path.join(data, 'audit', 'checkpoint.jsonl'), kept)
  // Recorded, and not sealed when the backup is taken.
  t.equal((await coffer(folder, ['admin', 'user', 'create', 'late', '--offline'], variables)).code, 0)
  t.ok((await countUnchained(db)) > 0)
  const backup = path.join(folder, 'backup.gz')
  t.equal((await coffer(folder, ['backup', backup], variables)).code, 0)
  // As another cluster would have it: what the ids of the dump mean there is anything but what they meant here.
  const target = await createTestDatabase(t)
  const there = { ...variables, DATABASE_URL: target.url }
  t.equal((await coffer(folder, ['restore', backup, '--keep-tokens'], there)).code, 0)
  await tamper(target.db, `update audit_events set transaction_id = '99999999999' where id % 2 = 0`)

  const revived = await startServer(t, folder, there)
  t.equal(
    (await coffer(folder, ['admin', 'user', 'create', 'new'], { ...client, COFFER_URL: revived.url })).code,
    0
  )
  await settled(target.db, data)
  const file = path.join(folder, 'audit.jsonl')
  const exported = await coffer(folder, ['audit', 'export', file, '--json'], there)
  const total = await target.db
    .selectFrom('audit_events')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .executeTakeFirstOrThrow()
  t.match(JSON.parse(exported.stdout), { records: total.n, unsealed: 0 })
  const verified = await coffer(
    folder,
    ['audit', 'verify', file, '--checkpoint', kept, '--public-key', publicKey],
    there
  )
  t.match(verified, {
    code: 0,
    stdout: /all of them fit\.\n(Note: .*\n)*Note: A restore is recorded at sequence \d+/
  })
  t.equal(await revived.stop(), 0)
  const counters = (await readFile(path.join(data, 'audit', 'checkpoint.jsonl'), 'utf8')).match(
    /"counter":(\d+)/
  )!
  t.ok(
    Number(counters[1]) > Number(/"counter":(\d+)/.exec(await readFile(kept, 'utf8'))![1]),
    'the counter goes on'
  )
})

t.test('the help of each command shows what to paste', async (t) => {
  const folder = await makeFolder(t)
  for (const args of [[], ['list'], ['export'], ['verify'], ['public-key']]) {
    const { code, stdout } = await coffer(folder, ['audit', ...args, '--help'])
    t.equal(code, 0)
    t.match(stdout, `$ npx coffer audit ${args[0] ?? 'list'}`)
  }
  t.match(await coffer(folder, ['audit', 'nonsense']), { code: 2, stderr: /unknown command/ })
})
