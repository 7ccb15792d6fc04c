import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { type Config, loadConfig } from '../../src/config.ts'
import { RefusedToStart } from '../../src/errors.ts'
import { createMasterKey, Keyring, makeGeneration, readMasterKey } from '../../src/keyring/index.ts'
import { localMasterKey } from '../../src/keyring/master-key.ts'
import { openKeyring } from '../../src/open.ts'
import { ensureGeneration, loadGenerations } from '../../src/secrets/generations.ts'
import { createTestDatabase } from '../helper.ts'
import derivation from '../vectors/derivation.json' with { type: 'json' }
import vector from '../vectors/wrapped-generation.json' with { type: 'json' }

const bytes = (hex: string) => Buffer.from(hex, 'hex')
const [{ masterKey: hex, fingerprint } = { masterKey: '', fingerprint: '' }] = derivation.masterKeys
const KEY = bytes(hex)

async function writeKey(
  t: Test,
  content: string | Uint8Array,
  mode = 0o600,
  name = 'master.key'
): Promise<string> {
  const file = path.join(t.testdir({}), name)
  await writeFile(file, content)
  await chmod(file, mode)
  return file
}

t.test('a wrapped generation never changes', async (t) => {
  const masterKey = localMasterKey(bytes(vector.masterKey))
  t.equal(masterKey.fingerprint, vector.fingerprint)
  const id = BigInt(vector.generationId)
  const material = await masterKey.unwrap(id, bytes(vector.wrapped))
  t.equal(material.toString('hex'), vector.generation)

  const again = await masterKey.wrap(id, material)
  t.equal(again.fingerprint, vector.fingerprint)
  t.equal(again.wrapped.length, 12 + 32 + 16)
  t.not(again.wrapped.toString('hex'), vector.wrapped, 'a nonce of its own')
  t.equal((await masterKey.unwrap(id, again.wrapped)).toString('hex'), vector.generation)
})

t.test('a wrapped generation that was altered, cut or given another id refuses', async (t) => {
  const masterKey = localMasterKey(bytes(vector.masterKey))
  const id = BigInt(vector.generationId)
  const wrapped = bytes(vector.wrapped)
  const refusal = {
    name: 'RefusedToStart',
    message:
      /^Key generation \d+ does not unwrap although master key [0-9a-f]{16} is the one .* from a backup\.$/
  }
  for (let index = 0; index < wrapped.length; index++) {
    const flipped = Buffer.from(wrapped)
    flipped[index]! ^= 1
    await t.rejects(masterKey.unwrap(id, flipped), refusal, `byte ${index}`)
  }
  for (let length = 0; length < wrapped.length; length++) {
    await t.rejects(masterKey.unwrap(id, wrapped.subarray(0, length)), refusal, `${length} bytes`)
  }
  await t.rejects(masterKey.unwrap(id + 1n, wrapped), refusal)
  await t.rejects(localMasterKey(randomBytes(32)).unwrap(id, wrapped), refusal)
})

t.test('a new generation has a random id of 18 or 19 digits and random material', async (t) => {
  const masterKey = localMasterKey(KEY)
  const ids = new Set<bigint>()
  const materials = new Set<string>()
  for (let index = 0; index < 200; index++) {
    const { id, wrapped } = await makeGeneration(masterKey)
    t.ok(id >= 10n ** 17n && id < 2n ** 63n)
    ids.add(id)
    materials.add((await masterKey.unwrap(id, wrapped)).toString('hex'))
  }
  t.equal(ids.size, 200)
  t.equal(materials.size, 200)
})

t.test('a file holds the key as bytes, in hexadecimal or in base64', async (t) => {
  const base64 = KEY.toString('base64')
  for (const [what, content] of Object.entries({
    bytes: KEY,
    hexadecimal: hex,
    'hexadecimal in upper case': hex.toUpperCase(),
    'hexadecimal and a newline': `${hex}\n`,
    base64,
    'base64 and a newline': `${base64}\n`,
    'base64 and a newline of Windows': `${base64}\r\n`
  })) {
    t.equal((await readMasterKey(await writeKey(t, content))).fingerprint, fingerprint, what)
  }
  const spaces = Buffer.concat([Buffer.from(' \n'), KEY.subarray(4), Buffer.from(' \n')])
  const raw = await readMasterKey(await writeKey(t, spaces))
  t.equal(raw.fingerprint, localMasterKey(Buffer.from(spaces)).fingerprint, 'bytes are never trimmed')
})

t.test('a file that holds anything else is refused, and not quoted', async (t) => {
  for (const [what, content] of Object.entries({
    nothing: '',
    '31 bytes': KEY.subarray(1),
    '33 bytes': Buffer.concat([KEY, Buffer.alloc(1)]),
    '16 bytes in hexadecimal, and a newline': `${hex.slice(32)}\n`,
    '31 bytes in hexadecimal': hex.slice(2),
    '33 bytes in hexadecimal': `${hex}00`,
    '31 bytes in base64': KEY.subarray(1).toString('base64'),
    '33 bytes in base64': Buffer.alloc(33, 5).toString('base64'),
    'base64 for URLs': Buffer.alloc(32, 0xfb).toString('base64url'),
    'two keys': `${hex}\n${hex}\n`,
    'a text': 'correct horse battery staple',
    'much too long': 'a'.repeat(1_000_000)
  })) {
    const file = await writeKey(t, content)
    const error: Error = await readMasterKey(file).then(
      () => new Error('was read'),
      (error) => error
    )
    t.ok(error instanceof RefusedToStart, what)
    t.equal(
      error.message,
      `The master key file ${file} does not hold 32 bytes, in base64, in hexadecimal, or as they are. ` +
        'Make a new key with: coffer key generate FILE',
      what
    )
  }
  await t.rejects(readMasterKey(t.testdir({})), /does not hold 32 bytes/, 'a folder')
})

t.test('a file that others can read or change is refused, with the command that helps', async (t) => {
  for (const mode of [0o640, 0o604, 0o644, 0o660, 0o620, 0o602, 0o601, 0o610, 0o777]) {
    const file = await writeKey(t, hex, mode)
    await t.rejects(readMasterKey(file), {
      name: 'RefusedToStart',
      message: `The master key file ${file} can be read by others (mode ${mode.toString(8)}). Run: chmod 600 '${file}'`
    })
  }
  for (const mode of [0o600, 0o400, 0o700]) {
    t.equal((await readMasterKey(await writeKey(t, hex, mode))).fingerprint, fingerprint, mode.toString(8))
  }
})

t.test('a file that is missing is named', async (t) => {
  const file = path.join(t.testdir({}), 'no such.key')
  await t.rejects(readMasterKey(file), {
    name: 'RefusedToStart',
    message: `The master key file ${file} cannot be opened (ENOENT). Set COFFER_MASTER_KEY_FILE to the file that holds the key, or make a new key with: coffer key generate FILE`
  })
})

t.test('a new key is random, 0600 in a folder of 0700, and read back as the same', async (t) => {
  const folder = path.join(t.testdir({}), 'new', 'keys')
  const file = path.join(folder, 'master.key')
  const made = await createMasterKey(file)
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.equal((await stat(folder)).mode & 0o777, 0o700)
  t.match(await readFile(file, 'utf8'), /^[A-Za-z0-9+/]{43}=\n$/)
  t.equal((await readMasterKey(file)).fingerprint, made.fingerprint)
  const other = await createMasterKey(path.join(folder, 'other.key'))
  t.not(other.fingerprint, made.fingerprint)
})

t.test('making a key never overwrites', async (t) => {
  for (const content of ['', 'something else', hex]) {
    const file = await writeKey(t, content, 0o640)
    await t.rejects(createMasterKey(file), {
      name: 'RefusedToStart',
      message: `The master key file ${file} cannot be made (EEXIST); nothing was changed.`
    })
    t.equal(await readFile(file, 'utf8'), content)
    t.equal((await stat(file)).mode & 0o777, 0o640)
  }
  const file = await writeKey(t, 'a file')
  await t.rejects(createMasterKey(path.join(file, 'below a file')), {
    name: 'RefusedToStart',
    message: /cannot be made \((ENOTDIR|EEXIST)\); nothing was changed\.$/
  })
})

// ---- with a database: which key is asked for, made, or missed ----

function configFor(dataDir: string, masterKeyFile = ''): Config {
  return loadConfig({ COFFER_DATA_DIR: dataDir, COFFER_MASTER_KEY_FILE: masterKeyFile }).config
}

t.test('an embedded database that holds nothing gets a key, once', async (t) => {
  const { db } = await createTestDatabase(t)
  const dataDir = path.join(t.testdir({}), 'data')
  const file = path.join(dataDir, 'keys', 'master.key')
  const first = await openKeyring(configFor(dataDir), db)
  const content = await readFile(file, 'utf8')
  const second = await openKeyring(configFor(dataDir), db)
  t.equal(second.wrappingKey.fingerprint, first.wrappingKey.fingerprint)
  t.equal(await readFile(file, 'utf8'), content)
})

t.test('a lost key of a database that holds a generation is named, and not made anew', async (t) => {
  const { db } = await createTestDatabase(t)
  const lost = localMasterKey(randomBytes(32))
  await ensureGeneration(db, new Keyring([lost]))
  const dataDir = t.testdir({})
  for (const [config, file] of [
    [configFor(dataDir), path.join(dataDir, 'keys', 'master.key')],
    [configFor(dataDir, path.join(dataDir, 'my.key')), path.join(dataDir, 'my.key')]
  ] as const) {
    await t.rejects(openKeyring(config, db), {
      name: 'RefusedToStart',
      message:
        `The master key file ${file} is missing, and the database holds values that only it opens ` +
        `(fingerprint ${lost.fingerprint}). Put the file back, or set COFFER_MASTER_KEY_FILE to where it is.`
    })
  }
  t.same(await readdir(dataDir), [], 'nothing was made')
})

t.test('a wrong key is refused, and the right one named', async (t) => {
  const { db } = await createTestDatabase(t)
  const right = localMasterKey(randomBytes(32))
  await ensureGeneration(db, new Keyring([right]))
  const keyring = await openKeyring(configFor(t.testdir({}), await writeKey(t, hex)), db)
  await t.rejects(loadGenerations(db, keyring), {
    name: 'RefusedToStart',
    message: `The database was encrypted under master key ${right.fingerprint}; given: ${fingerprint}. Set COFFER_MASTER_KEY_FILE to the file that holds it.`
  })
  t.notOk(keyring.isReady)
})

t.test('of several files the first wraps, and all unwrap', async (t) => {
  const { db } = await createTestDatabase(t)
  const folder = t.testdir({})
  await mkdir(path.join(folder, 'old keys'))
  const oldFile = path.join(folder, 'old keys', 'old.key')
  const old = await createMasterKey(oldFile)
  const newFile = path.join(folder, 'new.key')
  const fresh = await createMasterKey(newFile)
  await ensureGeneration(db, new Keyring([old]))

  const keyring = await openKeyring(configFor(folder, `${newFile}:${oldFile}`), db)
  t.equal(keyring.wrappingKey.fingerprint, fresh.fingerprint)
  await loadGenerations(db, keyring)
  t.ok(keyring.isReady)

  await t.rejects(loadGenerations(db, await openKeyring(configFor(folder, newFile), db)), {
    message: new RegExp(`master key ${old.fingerprint}; given: ${fresh.fingerprint}\\.`)
  })
  await t.rejects(
    openKeyring(configFor(folder, `${newFile}:${path.join(folder, 'gone.key')}`), db),
    /gone\.key cannot be opened \(ENOENT\)/
  )
})

t.test('a key for a database server is never made', async (t) => {
  const { db, url } = await createTestDatabase(t)
  t.throws(() => loadConfig({ DATABASE_URL: url }), /COFFER_MASTER_KEY_FILE must be set/)
  const folder = t.testdir({})
  const file = path.join(folder, 'master.key')
  const { config } = loadConfig({ DATABASE_URL: url, COFFER_MASTER_KEY_FILE: file })
  await t.rejects(openKeyring(config, db), /cannot be opened \(ENOENT\)/)
  t.same(await readdir(folder), [])
})
