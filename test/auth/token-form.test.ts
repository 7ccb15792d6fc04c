import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import t from 'tap'
import { hashToken, isWellFormedToken, lastEight, makeToken } from '../../src/auth/token.ts'

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** The checksum, written down a second time. */
function checksumOf(text: string): string {
  const digits: string[] = []
  for (let rest = crc32(text); digits.length < 6; rest = Math.floor(rest / 62))
    digits.unshift(DIGITS[rest % 62]!)
  return digits.join('')
}

t.test('a token tells its kind by its prefix, has no dots, and ends in a checksum', async (t) => {
  for (const [kind, form] of [
    ['classic', /^coffer_pat_[0-9A-Za-z]{49}$/],
    ['fine-grained', /^coffer_fgt_[0-9A-Za-z]{49}$/]
  ] as const) {
    const token = makeToken(kind)
    t.match(token, form)
    t.equal(token.slice(-6), checksumOf(token.slice(0, -6)))
    t.ok(isWellFormedToken(token))
  }
})

t.test('two tokens have nothing in common but the prefix', async (t) => {
  const made = new Set(Array.from({ length: 1000 }, () => makeToken('classic').slice(11, 54)))
  t.equal(made.size, 1000)
  const first = new Set([...made].map((secret) => secret[0]))
  t.ok(first.size > 1, 'the first character is random too')
  const last = new Set([...made].map((secret) => secret.at(-1)))
  t.ok(last.size > 50, 'the last one is any of 62')
})

t.test('the checksum of a known token stays what it is', async (t) => {
  const body = `coffer_pat_${'0'.repeat(43)}`
  const known = `${body}${checksumOf(body)}`
  t.equal(known.length, 60)
  t.ok(isWellFormedToken(known))
  t.equal(hashToken(known).toString('hex'), createHash('sha256').update(known).digest('hex'))
  t.equal(lastEight(known), known.slice(52))
})

t.test('a token with any character changed is no token', async (t) => {
  const token = makeToken('classic')
  for (let index = 'coffer_pat_'.length; index < token.length; index += 1) {
    const other = token[index] === 'x' ? 'y' : 'x'
    t.notOk(isWellFormedToken(token.slice(0, index) + other + token.slice(index + 1)), `position ${index}`)
  }
  t.notOk(isWellFormedToken(token.replace('coffer_pat_', 'coffer_fgt_')), 'the prefix is in the checksum')
})

t.test('every prefix of ours needs the checksum, also those that nothing makes yet', async (t) => {
  for (const kind of ['pat', 'fgt', 'env', 'ops', 'run', 'ins']) {
    const body = `coffer_${kind}_${'a'.repeat(43)}`
    t.ok(isWellFormedToken(body + checksumOf(body)), kind)
    t.notOk(isWellFormedToken(`${body}000000`), kind)
  }
})

t.test("an operator's own token is 32 to 255 of letters, digits, _ and -", async (t) => {
  const allowed = [
    'x'.repeat(32),
    '-'.repeat(255),
    '_aZ9-'.repeat(10),
    `ghp_${'0'.repeat(36)}`,
    `coffer_${'x'.repeat(40)}`
  ]
  for (const token of allowed) t.ok(isWellFormedToken(token), token)
  const x31 = 'x'.repeat(31)
  const refused = [
    '',
    x31,
    'x'.repeat(256),
    `${x31} `,
    ` ${x31}x`,
    `${x31}x\n`,
    `${x31}.`,
    `${x31}ä`,
    `${x31}\0`,
    `${x31}=`
  ]
  for (const token of refused) t.notOk(isWellFormedToken(token), JSON.stringify(token))
})
