import { createHmac, createPrivateKey, createPublicKey, createSign, generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { isSignedByOneOf, readAppJwt } from '../../src/auth/app-jwt.ts'
import { fingerprintOf, makeAppKey } from '../../src/auth/app-key.ts'
import { Unauthenticated } from '../../src/errors.ts'
import { forgeJwt, seconds, signJwt } from '../github-app.ts'

const NOT_DECODED = 'A JSON web token could not be decoded'
const EXPIRED =
  "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
const TOO_LONG = "'Expiration time' claim ('exp') is too far in the future"
const ISSUED_AT =
  "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
const NO_ISSUER = "Missing 'issuer' claim ('iss') in assertion"
const BAD_ISSUER = "'Issuer' claim ('iss') must be an Integer"

const NOW = 1_800_000_000
const HEADER = { alg: 'RS256', typ: 'JWT' }
const CLAIMS = { iss: '1000', iat: NOW - 30, exp: NOW + 570 }

/** What is said about the claims, whatever the signature is; undefined: nothing. */
function refusalOf(jwt: string, now = NOW): string | undefined {
  try {
    readAppJwt(jwt, now)
    return undefined
  } catch (error) {
    if (error instanceof Unauthenticated) return error.message
    throw error
  }
}

const claiming = (claims: object) => forgeJwt(HEADER, { ...CLAIMS, ...claims }, 'signature')

t.test('an App is named by its id, as a number or in decimal, or by its client id', async (t) => {
  t.same(readAppJwt(claiming({ iss: 1000 }), NOW), { integrationId: 1000 })
  t.same(readAppJwt(claiming({ iss: '1000' }), NOW), { integrationId: 1000 })
  t.same(readAppJwt(claiming({ iss: 'Iv1.0123456789abcdef' }), NOW), { clientId: 'Iv1.0123456789abcdef' })
  for (const iss of [undefined, null]) t.equal(refusalOf(claiming({ iss })), NO_ISSUER)
  for (const iss of ['', ' 1000', 'a b', '\0', 1.5, 1e300, true, [1000], { id: 1000 }, 'x'.repeat(65)])
    t.equal(refusalOf(claiming({ iss })), BAD_ISSUER, JSON.stringify(iss))
})

t.test('exp is at most ten minutes ahead, and iat not ahead, give or take a minute', async (t) => {
  const cases: [claims: object, refusal: string | undefined][] = [
    [{ exp: NOW + 600 }, undefined],
    [{ exp: NOW + 660 }, undefined],
    [{ exp: NOW + 661 }, TOO_LONG],
    [{ exp: NOW + 1e12 }, TOO_LONG],
    [{ exp: NOW - 59 }, undefined],
    [{ exp: NOW - 60 }, EXPIRED],
    [{ exp: 0 }, EXPIRED],
    [{ exp: -1 }, EXPIRED],
    [{ exp: NOW + 10.5 }, undefined],
    [{ exp: undefined }, EXPIRED],
    [{ exp: null }, EXPIRED],
    [{ exp: String(NOW + 60) }, EXPIRED],
    [{ exp: [NOW + 60] }, EXPIRED],
    [{ iat: NOW }, undefined],
    [{ iat: NOW + 60 }, undefined],
    [{ iat: NOW + 61 }, ISSUED_AT],
    [{ iat: 0 }, undefined],
    [{ iat: undefined }, ISSUED_AT],
    [{ iat: null }, ISSUED_AT],
    [{ iat: NOW - 0.5 }, ISSUED_AT],
    [{ iat: String(NOW) }, ISSUED_AT],
    [{ iat: true }, ISSUED_AT]
  ]
  for (const [claims, refusal] of cases) t.equal(refusalOf(claiming(claims)), refusal, JSON.stringify(claims))
})

t.test('nothing but RS256, and no extension', async (t) => {
  for (const alg of [
    'none',
    'None',
    'HS256',
    'RS384',
    'RS512',
    'PS256',
    'ES256',
    'EdDSA',
    'rs256',
    '',
    null,
    1,
    []
  ])
    t.equal(refusalOf(forgeJwt({ alg, typ: 'JWT' }, CLAIMS, 'signature')), NOT_DECODED, String(alg))
  t.equal(refusalOf(forgeJwt({ typ: 'JWT' }, CLAIMS, 'signature')), NOT_DECODED, 'no alg')
  for (const crit of [[], ['exp'], ['b64'], 'exp', null])
    t.equal(refusalOf(forgeJwt({ ...HEADER, crit, b64: true }, CLAIMS)), NOT_DECODED, JSON.stringify(crit))
  t.equal(refusalOf(forgeJwt(HEADER, { ...CLAIMS, filler: 'x'.repeat(4096) })), NOT_DECODED, 'too long')
  t.equal(refusalOf(forgeJwt(HEADER, CLAIMS)), undefined, 'the signature is for later')
})

t.test('what is no JWT at all is refused as such, and never breaks anything', async (t) => {
  const good = forgeJwt(HEADER, CLAIMS, 'signature')
  const [header = '', payload = ''] = good.split('.')
  for (const broken of [
    '',
    '.',
    '..',
    '...',
    'a.b.c',
    `${header}.${payload}`,
    `${good}.more`,
    `${header}..signature`,
    `.${payload}.signature`,
    `${header}=.${payload}.x`,
    forgeJwt(HEADER, 'null'),
    forgeJwt(HEADER, '[]'),
    forgeJwt(HEADER, '"text"'),
    forgeJwt(HEADER, '{"iss":'),
    forgeJwt('null', CLAIMS),
    forgeJwt('[]', CLAIMS),
    forgeJwt('{', CLAIMS),
    forgeJwt('\ud800', CLAIMS)
  ])
    t.equal(refusalOf(broken), NOT_DECODED, broken.slice(0, 60))
})

t.test('any header, any claims, any bytes: an answer for each', async (t) => {
  const publicKeys = [(await makeAppKey()).publicKey]
  const part = fc.oneof(
    fc.string(),
    fc.json(),
    fc.jsonValue().map((value) => JSON.stringify(value))
  )
  const jwts = fc.oneof(
    fc.string(),
    fc.tuple(part, part, fc.string()).map((parts) => forgeJwt(...parts)),
    fc
      .tuple(
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.dictionary(fc.constantFrom('iss', 'exp', 'iat', 'nbf', 'aud', 'jti'), fc.jsonValue())
      )
      .map(([header, claims]) => forgeJwt({ ...HEADER, ...header }, { ...CLAIMS, ...claims }))
  )
  await fc.assert(
    fc.asyncProperty(jwts, async (jwt) => {
      refusalOf(jwt)
      return !(await isSignedByOneOf(jwt, publicKeys))
    }),
    { numRuns: 500 }
  )
  t.pass('nothing but Unauthenticated was thrown, and nothing verified')
})

t.test('keys are RSA of 2048 bits, in the form in which GitHub gives them', async (t) => {
  const { pem, publicKey } = await makeAppKey()
  t.match(pem, /^-----BEGIN RSA PRIVATE KEY-----\n[^-]+-----END RSA PRIVATE KEY-----\n$/)
  const key = createPrivateKey(pem)
  t.equal(key.asymmetricKeyType, 'rsa')
  t.equal(key.asymmetricKeyDetails?.modulusLength, 2048)
  t.same(createPublicKey(pem).export({ type: 'spki', format: 'der' }), publicKey)
  t.match(fingerprintOf(publicKey), /^SHA256:[A-Za-z0-9+/]{43}=$/)
  t.not((await makeAppKey()).pem, pem)
})

t.test('any of the keys may have signed, and nothing else', async (t) => {
  const [first, second, stranger] = [await makeAppKey(), await makeAppKey(), await makeAppKey()]
  const both = [first.publicKey, second.publicKey]
  const by = (pem: string) => signJwt({ id: 1000, pem })
  t.ok(await isSignedByOneOf(await by(first.pem), both))
  t.ok(await isSignedByOneOf(await by(second.pem), both))
  t.notOk(await isSignedByOneOf(await by(second.pem), [first.publicKey]))
  t.notOk(await isSignedByOneOf(await by(stranger.pem), both))
  t.notOk(await isSignedByOneOf(await by(first.pem), []))

  const jwt = await by(first.pem)
  const [header, payload, signature = ''] = jwt.split('.')
  const other = forgeJwt(HEADER, { ...CLAIMS, iss: '1001' }).split('.')[1]
  t.notOk(await isSignedByOneOf(`${header}.${other}.${signature}`, both), 'other claims')
  t.notOk(await isSignedByOneOf(`${header}.${payload}.`, both), 'no signature')
  for (const position of [0, 100, signature.length - 2]) {
    const flipped = signature[position] === 'A' ? 'B' : 'A'
    const changed = signature.slice(0, position) + flipped + signature.slice(position + 1)
    t.notOk(await isSignedByOneOf(`${header}.${payload}.${changed}`, both), `character ${position}`)
  }
})

t.test(
  'the public key is no secret to sign with, and other algorithms of the same key do not count',
  async (t) => {
    const { pem, publicKey } = await makeAppKey()
    const now = seconds()
    const claims = { iss: '1000', iat: now - 30, exp: now + 570 }
    const spki = createPublicKey(pem).export({ type: 'spki', format: 'pem' })
    for (const secret of [publicKey, Buffer.from(spki), Buffer.from(`${spki}`.trim())]) {
      for (const alg of ['HS256', 'RS256']) {
        const [header, payload] = forgeJwt({ ...HEADER, alg }, claims).split('.')
        const mac = createHmac('sha256', secret).update(`${header}.${payload}`).digest()
        t.notOk(await isSignedByOneOf(forgeJwt({ ...HEADER, alg }, claims, mac), [publicKey]), alg)
      }
    }
    for (const [alg, digest] of [
      ['RS384', 'sha384'],
      ['RS512', 'sha512'],
      ['RS1', 'sha1']
    ] as const) {
      const [header, payload] = forgeJwt({ ...HEADER, alg }, claims).split('.')
      const signature = createSign(digest).update(`${header}.${payload}`).sign(pem)
      t.notOk(await isSignedByOneOf(forgeJwt({ ...HEADER, alg }, claims, signature), [publicKey]), alg)
      t.notOk(await isSignedByOneOf(forgeJwt(HEADER, claims, signature), [publicKey]), `${alg} as RS256`)
    }
    t.notOk(await isSignedByOneOf(forgeJwt({ ...HEADER, alg: 'none' }, claims), [publicKey]), 'none')
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const foreign = ec.publicKey.export({ type: 'spki', format: 'der' })
    t.notOk(await isSignedByOneOf(await signJwt({ id: 1000, pem }), [foreign]), 'a key that is no RSA key')
  }
)

t.test('the library checks the claims, too', async (t) => {
  const { pem, publicKey } = await makeAppKey()
  const now = seconds()
  t.notOk(await isSignedByOneOf(await signJwt({ id: 1, pem }, { exp: now - 120 }), [publicKey]), 'expired')
  const early = { nbf: now + 300 } as object
  t.notOk(await isSignedByOneOf(await signJwt({ id: 1, pem }, early), [publicKey]), 'not valid yet')
})
