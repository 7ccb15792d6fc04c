import t from 'tap'
import { readAuthorization } from '../../src/auth/token.ts'
import { startTestServer } from '../helper.ts'

const basic = (credentials: string) => Buffer.from(credentials).toString('base64')

t.test('the token of a header is found, whatever the scheme and its case', async (t) => {
  for (const scheme of ['Bearer', 'bearer', 'BEARER', 'bEaReR', 'token', 'Token', 'TOKEN']) {
    t.equal(readAuthorization(`${scheme} abc`), 'abc', scheme)
    t.equal(readAuthorization(`${scheme}   abc  `), 'abc', scheme)
  }
  for (const scheme of ['Basic', 'basic', 'BASIC']) {
    t.equal(readAuthorization(`${scheme} ${basic('mona:abc')}`), 'abc', 'the password')
    t.equal(readAuthorization(`${scheme} ${basic(':abc')}`), 'abc', 'a password without a name')
    t.equal(readAuthorization(`${scheme} ${basic('abc:')}`), 'abc', 'a name without a password')
    t.equal(readAuthorization(`${scheme} ${basic('abc:x-oauth-basic:d')}`), 'x-oauth-basic:d')
  }
})

t.test('no header and an empty one are no credentials', async (t) => {
  for (const header of [undefined, '', ' ', '   ']) t.equal(readAuthorization(header), undefined)
})

t.test('everything else is credentials that are wrong', async (t) => {
  for (const header of [
    'abc',
    'Bearer',
    'Bearer ',
    'Digest abc',
    'Basic',
    'Basic ',
    'Basic !',
    `Basic ${basic('abc')}`
  ]) {
    t.equal(readAuthorization(header) || '', '', header)
  }
})

t.test('a server takes a valid token in every form, and nothing else', async (t) => {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: [] })
  const ask = async (authorization?: string) => {
    const headers = authorization === undefined ? {} : { authorization }
    const response = await server.request('GET', '/user', { headers })
    return `${response.statusCode} ${response.json().login ?? response.json().message}`
  }
  for (const header of [
    `Bearer ${token}`,
    `bearer ${token}`,
    `token ${token}`,
    `TOKEN ${token}`,
    `Bearer   ${token} `,
    `Basic ${basic(`mona:${token}`)}`,
    `basic ${basic(`anything:${token}`)}`,
    `Basic ${basic(`${token}:`)}`
  ]) {
    t.equal(await ask(header), '200 mona', header.replaceAll(token, 'T'))
  }
  for (const header of [undefined, '', '  ']) t.equal(await ask(header), '401 Requires authentication')
  for (const header of [
    token,
    `Bearer`,
    `Digest ${token}`,
    `Bearer "${token}"`,
    `Bearer ${token},`,
    `Bearer ${token} x`,
    `Bearer ${token.toLowerCase()}`,
    `Bearer ${token.slice(0, -1)}`,
    `Bearer ${token}0`,
    `Basic ${token}`,
    `Basic ${basic(token)}`,
    `Bearer ${'x'.repeat(10_000)}`
  ]) {
    t.equal(await ask(header), '401 Bad credentials', header.replaceAll(token, 'T').slice(0, 40))
  }
})
