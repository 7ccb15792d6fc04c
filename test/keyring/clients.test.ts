import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import libsodium from 'libsodium-wrappers'
import t from 'tap'
import sealedBox from 'tweetnacl-sealedbox-js'
import tweetsodium from 'tweetsodium'
import {
  boxKeyPair,
  decodeSealedBox,
  openWithSodium,
  openWithTweetnacl
} from '../../src/keyring/sealed-box.ts'

// The ways to seal that GitHub documents and that clients use, each as in the sample for its language.

await libsodium.ready

const PYTHON = `
import sys
from base64 import b64encode
from nacl import encoding, public
key = public.PublicKey(sys.argv[1].encode("utf-8"), encoding.Base64Encoder())
print(b64encode(public.SealedBox(key).encrypt(sys.argv[2].encode("utf-8"))).decode("utf-8"))
`
const RUBY = `
require "rbnacl"
require "base64"
key = RbNaCl::PublicKey.new(Base64.decode64(ARGV[0]))
print Base64.strict_encode64(RbNaCl::Boxes::Sealed.from_public_key(key).encrypt(ARGV[1]))
`

type Seal = (key: string, value: string) => string

function installed(command: string, ...check: string[]): boolean {
  return spawnSync(command, check).status === 0
}

function seals(command: string, flag: string, program: string): Seal {
  return (key, value) => {
    const { status, stdout, stderr } = spawnSync(command, [flag, program, key, value], { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
    return stdout.trim()
  }
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
const CLIENTS: Record<string, { seal: Seal; absent?: boolean }> = {
  'libsodium-wrappers': {
    seal(key, value) {
      const publicKey = libsodium.from_base64(key, libsodium.base64_variants.ORIGINAL)
      const sealed = libsodium.crypto_box_seal(libsodium.from_string(value), publicKey)
      return libsodium.to_base64(sealed, libsodium.base64_variants.ORIGINAL)
    }
  },
  tweetsodium: {
    seal: (key, value) => base64(tweetsodium.seal(Buffer.from(value), Buffer.from(key, 'base64')))
  },
  'tweetnacl-sealedbox-js': {
    seal: (key, value) => base64(sealedBox.seal(Buffer.from(value), Buffer.from(key, 'base64')))
  },
  pynacl: { seal: seals('python3', '-c', PYTHON), absent: !installed('python3', '-c', 'import nacl') },
  rbnacl: { seal: seals('ruby', '-e', RUBY), absent: !installed('ruby', '-e', 'require "rbnacl"') }
}

for (const [name, { seal, absent }] of Object.entries(CLIENTS)) {
  t.test(
    `a value that ${name} sealed opens`,
    { skip: absent ? `${name} is not installed` : false },
    async (t) => {
      const pair = boxKeyPair(randomBytes(32))
      for (const value of ['s3cr3t', 'pässwörd €', '', 'x'.repeat(5000), 'two\nlines\n']) {
        const sealed = decodeSealedBox(seal(pair.publicKey.toString('base64'), value))
        t.equal(openWithSodium(sealed, pair)?.toString('utf8'), value)
        t.equal(openWithTweetnacl(sealed, pair)?.toString('utf8'), value)
      }
    }
  )
}
