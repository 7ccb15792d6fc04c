import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type Kysely, sql } from 'kysely'
import t from 'tap'
import { keyCommand } from '../../src/cli/key.ts'
import { loadConfig } from '../../src/config.ts'
import type { Keyring } from '../../src/keyring/index.ts'
import { openKeyring, openStore } from '../../src/open.ts'
import { beginRotation, loadGenerations } from '../../src/secrets/generations.ts'
import { reveal } from '../../src/secrets/vault.ts'
import { listGenerationStatus, reportNode } from '../../src/store/key-generations.ts'
import type { Database } from '../../src/store/tables.ts'
import { getAccount, sealFor } from '../helper.ts'
import {
  BIN,
  coffer,
  endPostgres,
  makeFolder,
  postgresOf,
  type Server,
  startServer,
  until
} from './helper.ts'

const SECRETS = '/user/codespaces/secrets'
const TOKEN = 'a-token-of-the-operator-0123456789'

interface PublicKey {
  key_id: string
  key: string
}

const folder = await makeFolder(t)
const dataDir = path.join(folder, 'data')
endPostgres(t, dataDir)
const oldFile = path.join(dataDir, 'keys', 'master.key')
const newFile = path.join(folder, 'new.key')
const values = new Map<string, string>()

const settings = (masterKeyFile?: string) => ({
  COFFER_DATA_DIR: dataDir,
  ...(masterKeyFile && { COFFER_MASTER_KEY_FILE: masterKeyFile })
})

/** What a command says, which must end well. */
async function key(args: readonly string[], masterKeyFile?: string): Promise<string> {
  const { code, stdout, stderr } = await coffer(folder, ['key', ...args], settings(masterKeyFile))
  if (code !== 0) throw new Error(`coffer key ${args.join(' ')}: ${code} ${stdout}${stderr}`)
  return stdout
}

/** What a command says that must be refused, with exit code 2 and nothing on standard output. */
async function refused(args: readonly string[], masterKeyFile?: string): Promise<string> {
  const { code, stdout, stderr } = await coffer(folder, ['key', ...args], settings(masterKeyFile))
  if (code !== 2 || stdout !== '') throw new Error(`coffer key ${args.join(' ')}: ${code} ${stdout}${stderr}`)
  return stderr
}

async function publicKeyOf({ url }: Server): Promise<PublicKey> {
  const response = await fetch(`${url}${SECRETS}/public-key`, {
    headers: { authorization: `Bearer ${TOKEN}` }
  })
  return (await response.json()) as PublicKey
}

async function put(
  { url }: Server,
  name: string,
  value: string,
  { key, key_id }: PublicKey
): Promise<number> {
  const { status } = await fetch(`${url}${SECRETS}/${name}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${TOKEN}` },
    body: JSON.stringify({ encrypted_value: sealFor(key, value), key_id })
  })
  if (status < 300) values.set(name, value)
  return status
}

/** Whether the server, which hears of changes a moment later, no longer takes boxes for this key. */
async function refusesKey({ url }: Server, { key_id }: PublicKey): Promise<boolean> {
  const response = await fetch(`${url}${SECRETS}/NOISE`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${TOKEN}` },
    body: JSON.stringify({ encrypted_value: randomBytes(64).toString('base64'), key_id })
  })
  const { errors } = (await response.json()) as { errors: { field: string }[] }
  return response.status === 422 && errors.some(({ field }) => field === 'key_id')
}

/** The same database, opened in this process. */
async function inDatabase<T>(
  masterKeyFile: string,
  work: (db: Kysely<Database>, keyring: Keyring) => Promise<T>
): Promise<T> {
  const { config, secrets } = loadConfig(settings(masterKeyFile))
  const store = await openStore(config, secrets, 'attach', { log: () => {} })
  try {
    const keyring = await openKeyring(config, store.db)
    await loadGenerations(store.db, keyring)
    return await work(store.db, keyring)
  } finally {
    await store.close()
  }
}

/** All that was ever acknowledged, as it is stored now. */
async function readAll(masterKeyFile: string): Promise<Map<string, string | undefined>> {
  return await inDatabase(masterKeyFile, async (db, keyring) => {
    const { uid } = await getAccount(db, 'admin')
    const found = new Map<string, string | undefined>()
    for (const name of values.keys()) {
      const value = await reveal({ db, keyring }, { app: 'codespaces', kind: 'user', ownerUid: uid }, name)
      found.set(name, value?.toString())
    }
    return found
  })
}

/** As if everything had happened a minute earlier. */
async function ageGenerations(masterKeyFile: string): Promise<void> {
  await inDatabase(masterKeyFile, (db) =>
    sql`update key_generations set created_at = created_at - interval '1 minute',
      retired_at = retired_at - interval '1 minute'`.execute(db)
  )
}

t.test('beside a running server: rotate, re-encrypt, destroy', async (t) => {
  const server = await startServer(t, folder, {
    ...settings(),
    COFFER_ADMIN_TOKEN: TOKEN,
    COFFER_SOCKET: 'off',
    COFFER_KEY_GRACE_HOURS: '24'
  })
  const first = await publicKeyOf(server)
  t.equal(await put(server, 'ONE', 'under the first', first), 201)

  const rotated = JSON.parse(await key(['rotate', '--json']))
  t.match(rotated, { id: /^[1-9][0-9]{17,18}$/, replaces: first.key_id, secrets: 1 })
  const hours = (Date.parse(rotated.opens_boxes_until) - Date.now()) / 3_600_000
  t.ok(hours > 23.9 && hours <= 24, `${hours}`)
  const second = await until(async () => {
    const shown = await publicKeyOf(server)
    return shown.key_id === rotated.id ? shown : undefined
  })
  t.not(second.key, first.key)
  t.equal(await put(server, 'TWO', 'sealed for the first, within its window', first), 201)
  t.equal(await put(server, 'THREE', 'under the second', second), 201)

  t.match(
    await refused(['rotate', '--expect', first.key_id]),
    `coffer: Key generation ${second.key_id} is active, not ${first.key_id}: somebody has rotated already.\n`
  )
  const words = await key(['rotate', '--grace', '0', '--expect', second.key_id])
  t.match(words, new RegExp(`^Key generation \\d+ is pending; it replaces ${second.key_id}\\.\n`))
  t.match(words, /2 stored values are still encrypted under it\. Next: npx coffer key reencrypt\n$/)
  await until(() => refusesKey(server, second))
  t.equal(await put(server, 'TOO_LATE', 'for the second, without a window', second), 422)
  const third = await publicKeyOf(server)
  t.not(third.key_id, second.key_id)
  t.equal(await put(server, 'FOUR', 'the first still has its window', first), 201)
  t.equal(await put(server, 'FIVE', 'under the third', third), 201)

  t.match(await refused(['destroy', first.key_id]), /cannot be undone\. If you mean it, add --yes\.\n$/)
  t.match(await refused(['destroy', first.key_id, '--yes']), /was retired just now; wait 15 seconds\.\n$/)
  t.match(await refused(['destroy', third.key_id, '--yes']), /is active; only a retired one can be destroyed/)
  await ageGenerations(oldFile)
  t.match(
    await refused(['destroy', first.key_id, '--yes']),
    /is in use by 1 secrets\. Run coffer key reencrypt first/
  )

  t.same(JSON.parse(await key(['reencrypt', '--json'])), {
    generation: third.key_id,
    reencrypted: 3,
    unreadable: []
  })
  t.same(await readAll(oldFile), values)
  t.equal(await key(['destroy', first.key_id, '--yes']), `Key generation ${first.key_id} is destroyed.\n`)
  t.match(await refused(['destroy', first.key_id, '--yes']), /is destroyed already\.\n$/)
  await until(() => refusesKey(server, first))
  t.equal(await put(server, 'TOO_LATE', 'for the first, which is gone', first), 422)

  const shown = JSON.parse(await key(['status', '--json']))
  t.match(shown.generations, [
    {
      id: first.key_id,
      state: 'destroyed',
      destroyed_at: String,
      secrets: 0,
      master_key: null,
      master_key_given: false
    },
    { id: second.key_id, state: 'retired', accepts_boxes_until: String, secrets: 0, master_key_given: true },
    {
      id: third.key_id,
      state: 'active',
      accepts_boxes_until: null,
      secrets: values.size,
      master_key_given: true
    }
  ])
  t.match(shown.master_keys, [{ file: oldFile, fingerprint: shown.generations[2].master_key, problem: null }])
  const table = await key(['status'])
  t.match(table, new RegExp(`\n${first.key_id} +destroyed `))
  t.match(table, new RegExp(`\n${third.key_id} +active +\\S+ +no end +${values.size} +[0-9a-f]{16}\n`))
  t.equal(await put(server, 'SIX', 'the server goes on', await publicKeyOf(server)), 201)
  t.same(await readAll(oldFile), values)
  t.equal(await server.stop(), 0)
})

t.test('without a server: another master key, and a rotation that was interrupted', async (t) => {
  t.match(await key(['generate', newFile]), /new\.key holds a new master key: [0-9a-f]{16}\. Keep a copy/)
  t.equal((await stat(newFile)).mode & 0o777, 0o600)
  const content = await readFile(newFile, 'utf8')
  t.match(await refused(['generate', newFile]), /cannot be made \(EEXIST\); nothing was changed\.\n$/)
  t.match(
    await key(['generate', newFile, '--if-missing']),
    /is there already, and stays: master key [0-9a-f]{16}\.\n$/
  )
  t.equal(await readFile(newFile, 'utf8'), content)

  // Keeps PostgreSQL running for the commands that follow, which takes less time.
  const { config, secrets } = loadConfig(settings())
  const held = await openStore(config, secrets, 'attach', { log: () => {} })
  const both = `${newFile}:${oldFile}`
  t.match(
    await refused(['rotate'], both),
    /is not the one in use \([0-9a-f]{16}\)\. Run coffer key rewrap first\.\n$/
  )
  t.match(
    await refused(['rewrap'], newFile),
    /was encrypted under master key [0-9a-f]{16}; given: [0-9a-f]{16}\./
  )
  const words = await key(['rewrap'], both)
  t.equal(words.match(/^Key generation \d+ is wrapped by master key [0-9a-f]{16} now\.$/gm)?.length, 2)
  t.match(words, `Once every server runs with ${newFile} first in COFFER_MASTER_KEY_FILE, ${oldFile} can go;`)
  t.same(JSON.parse(await key(['rewrap', '--json'], both)).rewrapped, [])
  await rm(oldFile)
  t.match(
    await key(['status']),
    /\(not given\)[\s\S]*\n- +The master key file .* cannot be opened \(ENOENT\)/
  )
  t.match(await refused(['reencrypt']), /is missing, and the database holds values that only it opens/)
  t.equal(await stat(oldFile).catch(() => 'absent'), 'absent', 'no command makes another one')
  t.same(await readAll(newFile), values)

  const pending = await inDatabase(newFile, async (db, keyring) => {
    await reportNode(db, '00000000-0000-4000-8000-000000000000', [])
    return await beginRotation(db, keyring)
  })
  t.match(
    await refused(['rotate'], newFile),
    `Another rotation is on its way, to key generation ${pending.id}.`
  )
  await ageGenerations(newFile)
  await held.close()
  t.match(JSON.parse(await key(['rotate', '--json'], newFile)), pending, 'finished, and not begun again')
  t.equal(postgresOf(dataDir), undefined, 'no PostgreSQL is left behind')

  const server = await startServer(t, folder, { ...settings(newFile), COFFER_SOCKET: 'off' })
  t.equal((await publicKeyOf(server)).key_id, pending.id)
  t.equal(await put(server, 'SEVEN', 'under the new master key', await publicKeyOf(server)), 201)
  t.equal(await server.stop(), 0)
  t.same(await readAll(newFile), values)
})

t.test('a rotation that is stopped while it waits says what happens next', async (t) => {
  await inDatabase(newFile, (db) => reportNode(db, '00000000-0000-4000-8000-000000000001', []))
  const child = spawn(process.execPath, [BIN, 'key', 'rotate'], {
    cwd: folder,
    env: { PATH: process.env.PATH, ...settings(newFile) },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  t.teardown(() => child.kill('SIGKILL'))
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece) => (output += piece))
  const closed = once(child, 'close')
  await until(() => output.includes('Waiting for servers: 0 of 1 can open with it.\n'))
  child.kill('SIGINT')
  t.same(await closed, [1, null])
  t.match(output, /coffer: Stopped: key generation \d+ stays pending\. A running server makes it active;/)
  const states = await inDatabase(newFile, (db) => listGenerationStatus(db))
  t.same(
    states.map(({ state }) => state),
    ['destroyed', 'retired', 'retired', 'active', 'pending']
  )
  t.equal(postgresOf(dataDir), undefined)
})

t.test('help tells what each command does, with an example', async (t) => {
  const { commands } = keyCommand()
  const names = commands.map((command) => command.name())
  t.same(names, ['status', 'rotate', 'reencrypt', 'rewrap', 'destroy', 'generate'])
  for (const command of commands) {
    let help = ''
    command.configureOutput({ writeOut: (text) => (help += text) })
    command.outputHelp()
    t.match(help, new RegExp(`^Usage: key ${command.name()} [\\s\\S]*\nExample:\n  \\$ .*npx coffer key `))
  }
})

t.test('what cannot be understood is refused, and nothing is opened', async (t) => {
  const elsewhere = path.join(folder, 'elsewhere')
  for (const grace of ['x', '8761']) {
    const args = ['key', 'rotate', '--grace', grace]
    const { code, stderr } = await coffer(folder, args, { COFFER_DATA_DIR: elsewhere })
    t.equal(code, 2)
    t.match(stderr, 'It must be a number of hours from 0 to 8760.')
  }
  const { code, stderr } = await coffer(folder, ['key', 'status'], { COFFER_DATA_DIR: elsewhere })
  t.equal(code, 2)
  t.match(stderr, `coffer: There is no database in ${elsewhere}.`)
  await writeFile(path.join(folder, 'a file'), '')
  const made = await coffer(folder, ['key', 'generate', path.join(folder, 'a file', 'master.key')])
  t.equal(made.code, 2)
  t.match(made.stderr, /cannot be made \((ENOTDIR|EEXIST)\); nothing was changed\.\n$/)
  t.equal(await stat(elsewhere).catch(() => 'absent'), 'absent')
})
