import { randomBytes } from 'node:crypto'
import sodium from 'libsodium-wrappers'
import t from 'tap'
import nacl from 'tweetnacl'
import sealedBox from 'tweetnacl-sealedbox-js'
import { sealFor, startTestServer } from '../../helper.ts'
import { type Refusal, refuses } from './refusal.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/acme/codespaces/secrets'
const ENVIRONMENT = '/repos/mona/web/environments/production/secrets'
const COLLECTIONS = [REPO, USER, ORG, ENVIRONMENT]
const VALUE = 'MARKER-of-a-value-93ab'

const improper = (field: string, reason: string): Refusal => ({
  status: 422,
  message: 'Bad request - validation failed due to an improperly encrypted secret',
  errors: [[field, 'custom', reason]]
})
const NOT_BASE64 = improper('encrypted_value', 'encrypted_value is not standard, padded base64')
const TOO_SHORT = improper(
  'encrypted_value',
  'encrypted_value is shorter than a sealed box: it decodes to fewer than 48 bytes'
)
const NOT_FOR_THIS = improper(
  'encrypted_value',
  "encrypted_value was not sealed for this collection's public key; fetch the public key again"
)
const UNKNOWN_KEY = improper(
  'key_id',
  'key_id names no key that is accepted now; fetch the public key again and seal the value for it'
)

const server = await startTestServer(t)
const mona = await server.createUser('mona')
await server.createRepository(mona, 'web')
await server.createRepository(mona, 'other')
await server.createOrganization('acme', mona)
const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
await server.request('PUT', '/repos/mona/web/environments/production', { token })
const hubot = await server.createUser('hubot')
const hubotToken = await server.createToken(hubot, { scopes: ['codespace'] })
/** What an organization's secret needs besides the value. */
const extra = (path: string) => (path === ORG ? { visibility: 'all' } : {})
for (const path of COLLECTIONS) {
  const body = { ...(await server.seal(path, token, 'stays')), ...extra(path) }
  await server.request('PUT', `${path}/KEPT`, { token, body })
}

const publicKey = async (path: string, token: string): Promise<{ key: string; key_id: string }> =>
  (await server.request('GET', `${path}/public-key`, { token })).json()

/** Puts what must be refused, once for a new name and once for one that is there. */
async function refusesValue(
  t: Parameters<typeof refuses>[0],
  path: string,
  body: { encrypted_value: string; key_id: string },
  expected: Refusal,
  name: string
): Promise<void> {
  for (const secret of ['NEW', 'KEPT']) {
    const url = `${path}/${secret}`
    const attempt = { method: 'PUT', url, token, body: { ...body, ...extra(path) }, secret: [VALUE] } as const
    await refuses(t, server, attempt, expected, `${path}/${secret}, ${name}`)
  }
}

t.test('base64 of another kind than the standard, padded one is refused', async (t) => {
  for (const path of COLLECTIONS) {
    const { key, key_id } = await publicKey(path, token)
    // A box whose base64 has both characters that differ between the alphabets, and padding.
    let box = ''
    while (!/^(?=.*\+)(?=.*\/).*==$/.test(box))
      box = sealFor(key, `${VALUE}${randomBytes(6).toString('hex')}`)
    const forms: [string, string][] = [
      ['url-safe', box.replaceAll('+', '-').replaceAll('/', '_')],
      ['url-safe, unpadded', Buffer.from(box, 'base64').toString('base64url')],
      ['unpadded', box.replace(/=+$/, '')],
      ['one of two paddings', box.slice(0, -1)],
      ['too much padding', `${box}=`],
      ['a newline at the end', `${box}\n`],
      ['a newline within', `${box.slice(0, 76)}\n${box.slice(76)}`],
      ['a blank before', ` ${box}`],
      ['a tab within', `${box.slice(0, 8)}\t${box.slice(8)}`],
      ['a NUL at the end', `${box}\0`],
      ['characters that are not base64', box.replace(/.{4}/, '!@#$')],
      ['non-ASCII', box.replace(/.{4}/, 'äöüß')],
      ['a full-width letter', box.replace(/./, 'Ａ')],
      ['a data URL', `data:;base64,${box}`],
      ['the value itself', `${VALUE} in plain`],
      ['hexadecimal of odd length', Buffer.from(box, 'base64').toString('hex').slice(1)],
      ['empty', '']
    ]
    for (const [name, encrypted_value] of forms) {
      await refusesValue(t, path, { encrypted_value, key_id }, NOT_BASE64, name)
    }
  }
})

t.test('base64 that holds no box for this collection is refused', async (t) => {
  const others = [
    (await publicKey('/repos/mona/other/codespaces/secrets', token)).key,
    (await publicKey(USER, hubotToken)).key,
    Buffer.from(nacl.box.keyPair().publicKey).toString('base64')
  ]
  const keys = await Promise.all(COLLECTIONS.map(async (path) => (await publicKey(path, token)).key))
  for (const path of COLLECTIONS) {
    const { key, key_id } = await publicKey(path, token)
    const box = Buffer.from(sealFor(key, VALUE), 'base64')
    const attempt = (bytes: Uint8Array, expected: Refusal, name: string) =>
      refusesValue(
        t,
        path,
        { encrypted_value: Buffer.from(bytes).toString('base64'), key_id },
        expected,
        name
      )

    await attempt(Buffer.from('secret'), TOO_SHORT, "the documentation's c2VjcmV0")
    await attempt(Buffer.alloc(1), TOO_SHORT, 'one byte')
    await attempt(box.subarray(0, 47), TOO_SHORT, '47 bytes')
    await attempt(box.subarray(0, 48), NOT_FOR_THIS, '48 bytes of a longer box')
    await attempt(box.subarray(0, -1), NOT_FOR_THIS, 'one byte less')
    await attempt(Buffer.concat([box, Buffer.alloc(1)]), NOT_FOR_THIS, 'one byte more')
    await attempt(randomBytes(100), NOT_FOR_THIS, 'noise')
    await attempt(Buffer.alloc(48), NOT_FOR_THIS, 'zeros')
    await attempt(Buffer.from(VALUE.padEnd(64, '.')), NOT_FOR_THIS, 'the value in plain')
    for (const other of [...others, ...keys.filter((each) => each !== key)]) {
      const sealed = Buffer.from(sealFor(other, VALUE), 'base64')
      await attempt(sealed, NOT_FOR_THIS, 'for another collection')
    }
  }
})

t.test('a box with any byte flipped is refused', async (t) => {
  const { key, key_id } = await publicKey(REPO, token)
  const box = Buffer.from(sealFor(key, VALUE), 'base64')
  for (let position = 0; position < box.length; position++) {
    const flipped = Buffer.from(box)
    flipped[position]! ^= 0x01
    const body = { encrypted_value: flipped.toString('base64'), key_id }
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${REPO}/KEPT`, token, body, secret: [VALUE] },
      NOT_FOR_THIS,
      `byte ${position}`
    )
  }
})

/**
 * The points of low order on Curve25519 and its twist, and other encodings of them, from
 * https://cr.yp.to/ecdh.html#validate (the list that libsodium refuses).
 */
const LOW_ORDER = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'
]
/** Of low order only for who does not mask the highest bit, which RFC 7748 tells to do. */
const UNMASKED = [
  'cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880',
  '4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7',
  'd9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'daffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'dbffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff'
]

t.test('a box whose ephemeral key has low order is refused, though anybody could have made it', async (t) => {
  await sodium.ready
  const { key, key_id } = await publicKey(REPO, token)
  const recipient = Buffer.from(key, 'base64')
  // The shared secret with such a point is zero, whoever the recipient is.
  const sharedKey = nacl.box.before(Buffer.from(LOW_ORDER[0]!, 'hex'), nacl.box.keyPair().secretKey)
  const forge = (ephemeral: Buffer): Buffer => {
    const nonce = sodium.crypto_generichash(24, Buffer.concat([ephemeral, recipient]), null)
    return Buffer.concat([ephemeral, nacl.secretbox(Buffer.from(VALUE), nonce, sharedKey)])
  }
  const withHighBit = (point: string) => {
    const bytes = Buffer.from(point, 'hex')
    bytes[31]! |= 0x80
    return bytes.toString('hex')
  }
  for (const point of [...LOW_ORDER, ...LOW_ORDER.map(withHighBit), ...UNMASKED]) {
    const box = forge(Buffer.from(point, 'hex'))
    if (!UNMASKED.includes(point)) {
      const stranger = nacl.box.keyPair().secretKey
      const opened = sealedBox.open(box, recipient, stranger)
      t.equal(opened && Buffer.from(opened).toString(), VALUE, `${point}: without the check it would open`)
    }
    await refusesValue(t, REPO, { encrypted_value: box.toString('base64'), key_id }, NOT_FOR_THIS, point)
  }
})

t.test('a key_id that names no key is refused', async (t) => {
  for (const path of COLLECTIONS) {
    const { key, key_id } = await publicKey(path, token)
    const encrypted_value = sealFor(key, VALUE)
    const ids = [
      '',
      '0',
      '1',
      '-1',
      `-${key_id}`,
      ` ${key_id}`,
      `${key_id} `,
      `0${key_id}`,
      `${key_id}.0`,
      `${key_id}0`,
      `+${key_id}`,
      `${BigInt(key_id) + 1n}`,
      '9223372036854775808',
      '18446744073709551616',
      '1e18',
      '0x10',
      '\0',
      'MARKER-key',
      '١٢٣',
      '9'.repeat(10_000)
    ]
    for (const id of ids) {
      await refusesValue(
        t,
        path,
        { encrypted_value, key_id: id },
        UNKNOWN_KEY,
        `key_id ${JSON.stringify(id.slice(0, 40))}`
      )
    }
  }
})

t.test('48 KB fit, and one byte more does not', async (t) => {
  const largest = randomBytes(48 * 1024)
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('name', '=', 'web')
    .executeTakeFirstOrThrow()
  const tooLarge: Refusal = {
    status: 422,
    message: 'The value is larger than 49152 bytes, the limit that COFFER_MAX_VALUE_BYTES sets.'
  }
  for (const [path, kind, owner] of [
    [REPO, 'repository', uid],
    [USER, 'user', mona.uid]
  ] as const) {
    const url = `${path}/LARGE`
    const over = await server.seal(path, token, Buffer.concat([largest, Buffer.alloc(1)]))
    await refuses(t, server, { method: 'PUT', url, token, body: over }, tooLarge, `${path}, 49,153 bytes`)
    const body = await server.seal(path, token, largest)
    t.equal((await server.request('PUT', url, { token, body })).statusCode, 201, `${path}, 49,152 bytes`)
    t.strictSame(await server.reveal(kind, owner, 'LARGE'), largest)
    await refuses(
      t,
      server,
      { method: 'PUT', url, token, body: over },
      tooLarge,
      `${path}, 49,153 bytes again`
    )
    t.strictSame(await server.reveal(kind, owner, 'LARGE'), largest)
  }
})

t.test('the size that is allowed, and the number, are what is configured', async (t) => {
  const small = await startTestServer(t, { maxValueBytes: 10, maxSecrets: 2 })
  const user = await small.createUser('mona')
  const token = await small.createToken(user, { scopes: ['codespace'] })
  const put = async (name: string, value: string) =>
    ({ method: 'PUT', url: `${USER}/${name}`, token, body: await small.seal(USER, token, value) }) as const
  await refuses(
    t,
    small,
    await put('A', 'elevenbytes'),
    {
      status: 422,
      message: 'The value is larger than 10 bytes, the limit that COFFER_MAX_VALUE_BYTES sets.'
    },
    '11 bytes'
  )
  for (const name of ['A', 'B']) {
    const { method, url, ...rest } = await put(name, 'ten  bytes')
    t.equal((await small.request(method, url, rest)).statusCode, 201)
  }
  await refuses(
    t,
    small,
    await put('C', 'x'),
    { status: 422, message: /^This collection holds 2 secrets, the limit that COFFER_MAX_SECRETS sets/ },
    'the third'
  )
})

t.test('the 101st secret of a collection is refused, until there is room', async (t) => {
  await server.createRepository(mona, 'full')
  const full: Refusal = {
    status: 422,
    message:
      'This collection holds 100 secrets, the limit that COFFER_MAX_SECRETS sets; secrets whose names this API ' +
      'does not list count too. Remove one first.'
  }
  for (const path of ['/repos/mona/full/codespaces/secrets', USER]) {
    const body = await server.seal(path, token, 'one of many')
    const put = (name: string) => server.request('PUT', `${path}/${name}`, { token, body })
    const { total_count } = (await server.request('GET', path, { token })).json()
    for (let n = total_count; n < 100; n++) t.equal((await put(`N${n}`)).statusCode, 201)
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${path}/ONE_MORE`, token, body },
      full,
      `${path}, the 101st`
    )
    t.equal((await put('N99')).statusCode, 204, 'what is there can still be changed')
    t.equal((await server.request('DELETE', `${path}/N99`, { token })).statusCode, 204)
    t.equal((await put('ONE_MORE')).statusCode, 201, 'and a place that is free be taken')
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${path}/N99`, token, body },
      full,
      `${path}, the 101st again`
    )
  }
})
