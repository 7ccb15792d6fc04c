import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import sodium from 'libsodium-wrappers'
import t, { type Test } from 'tap'
import sealedBox from 'tweetnacl-sealedbox-js'
import tweetsodium from 'tweetsodium'
import { startTestServer } from '../helper.ts'
import { type Program, testWith } from '../installed.ts'

// Whatever a client seals with, Coffer holds the bytes that it sealed.

const PATH = '/user/codespaces/secrets'
const MAX_BYTES = 49_152

const VALUES: Record<string, Buffer> = {
  TEXT: Buffer.from('plain text'),
  EMPTY: Buffer.alloc(0),
  LINES: Buffer.from(' leading, trailing \r\n\tand a last line\n'),
  UNICODE: Buffer.from('påsswörd ✓ 🔑 \u0000 \ufeff'),
  EVERY_BYTE: Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
  LARGEST: randomBytes(MAX_BYTES)
}

/** The text to send for a value and the `key` of a public key, in base64. */
type Seal = (value: Buffer, key: string) => string

/** Seals every value with one client, sends it, and compares what is stored. */
async function keepsEveryByte(t: Test, seal: Seal): Promise<void> {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const { key, key_id } = (await server.request('GET', `${PATH}/public-key`, { token })).json()
  for (const [name, value] of Object.entries(VALUES)) {
    const encrypted_value = seal(value, key)
    t.equal(Buffer.from(encrypted_value, 'base64').length, value.length + 48, `${name}: a sealed box`)
    const response = await server.request('PUT', `${PATH}/${name}`, {
      token,
      body: { encrypted_value, key_id }
    })
    t.equal(response.statusCode, 201, `${name} ${response.body}`)
    t.ok((await server.reveal('user', mona.uid, name))?.equals(value), `${name}: identical`)
  }
  const tooLarge = { encrypted_value: seal(randomBytes(MAX_BYTES + 1), key), key_id }
  t.equal((await server.request('PUT', `${PATH}/TEXT`, { token, body: tooLarge })).statusCode, 422)
  t.ok((await server.reveal('user', mona.uid, 'TEXT'))?.equals(VALUES.TEXT!), 'the old value stays')
}

/** Runs a script that reads value and key as two lines of base64, and writes the text to send. */
function sealWith({ file }: Program, script: string[]): Seal {
  return (value, key) => {
    const { status, stdout, stderr } = spawnSync(file, script, {
      input: `${value.toString('base64')}\n${key}\n`,
      encoding: 'utf8'
    })
    if (status !== 0) throw new Error(`${file}: ${stderr}`)
    return stdout.trim()
  }
}

t.test('libsodium-wrappers', async (t) => {
  await sodium.ready
  await keepsEveryByte(t, (value, key) => {
    const publicKey = sodium.from_base64(key, sodium.base64_variants.ORIGINAL)
    return sodium.to_base64(sodium.crypto_box_seal(value, publicKey), sodium.base64_variants.ORIGINAL)
  })
})

t.test('libsodium-wrappers in its default, url-safe base64 is refused with the reason', async (t) => {
  await sodium.ready
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const { key, key_id } = (await server.request('GET', `${PATH}/public-key`, { token })).json()
  const publicKey = sodium.from_base64(key, sodium.base64_variants.ORIGINAL)
  const encrypted_value = sodium.to_base64(sodium.crypto_box_seal(Buffer.from('value'), publicKey))
  const response = await server.request('PUT', `${PATH}/A`, { token, body: { encrypted_value, key_id } })
  t.equal(response.statusCode, 422)
  t.match(response.json().errors, [{ field: 'encrypted_value', message: /standard, padded base64/ }])
  t.equal(await server.reveal('user', mona.uid, 'A'), undefined)
})

t.test('tweetsodium', async (t) => {
  await keepsEveryByte(t, (value, key) =>
    Buffer.from(tweetsodium.seal(value, Buffer.from(key, 'base64'))).toString('base64')
  )
})

t.test('tweetnacl-sealedbox-js', async (t) => {
  await keepsEveryByte(t, (value, key) =>
    Buffer.from(sealedBox.seal(value, Buffer.from(key, 'base64'))).toString('base64')
  )
})

const python: Program = {
  file: '/usr/bin/python3',
  probe: ['-c', 'import nacl.public'],
  package: 'python3-nacl'
}
const PYTHON = `
import base64, sys
from nacl import encoding, public
value = base64.b64decode(sys.stdin.readline())
key = public.PublicKey(sys.stdin.readline().strip().encode(), encoding.Base64Encoder())
print(base64.b64encode(public.SealedBox(key).encrypt(value)).decode())
`
await testWith(t, python, 'PyNaCl', (t) => keepsEveryByte(t, sealWith(python, ['-c', PYTHON])))

const ruby: Program = { file: '/usr/bin/ruby', probe: ['-e', 'require "rbnacl"'], package: 'ruby-rbnacl' }
const RUBY = `
require "base64"
require "rbnacl"
value = Base64.decode64($stdin.gets)
key = RbNaCl::PublicKey.new(Base64.decode64($stdin.gets))
puts Base64.strict_encode64(RbNaCl::Boxes::Sealed.from_public_key(key).encrypt(value))
`
await testWith(t, ruby, 'RbNaCl', (t) => keepsEveryByte(t, sealWith(ruby, ['-e', RUBY])))
