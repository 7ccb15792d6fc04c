import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { loadConfig } from '../../../src/config.ts'
import { createMasterKey } from '../../../src/keyring/index.ts'
import { serve } from '../../../src/main.ts'
import { createTestDatabase, startTestServer } from '../../helper.ts'
import { sendRaw } from '../../raw-http.ts'
import { isRefusal, type Refusal, refuses, stored } from './refusal.ts'

const USER = '/user/codespaces/secrets'
const NOT_FOUND: Refusal = { status: 404, message: 'Not Found' }
const BAD_REQUEST: Refusal = { status: 400, message: 'Bad Request' }

const server = await startTestServer(t)
const mona = await server.createUser('mona')
const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
const url = await server.listen()
const body = JSON.stringify(await server.seal(USER, token, 'value'))

const request = (line: string, headers: string[] = [], content = '') =>
  `${line}\r\n${['Host: coffer.test', `Authorization: Bearer ${token}`, 'Connection: close', ...headers].join('\r\n')}\r\n\r\n${content}`

t.test('a method that does not exist here is not found', async (t) => {
  for (const method of ['POST', 'PATCH'] as const) {
    for (const path of [`${USER}/A`, USER, '/user']) {
      await refuses(t, server, { method, url: path, token, body }, NOT_FOUND, `${method} ${path}`)
    }
  }
  const methods = [
    'PROPFIND',
    'MKCOL',
    'LOCK',
    'TRACE',
    'SEARCH',
    'M-SEARCH',
    'PURGE',
    'LINK',
    'REPORT',
    'COPY',
    'MOVE',
    'SUBSCRIBE'
  ]
  for (const method of methods) {
    for (const path of ['/', '/user', `${USER}/A`, '/api/v3/user', '/healthz']) {
      const before = await stored(server.db)
      const answer = await sendRaw(url, request(`${method} ${path} HTTP/1.1`))
      isRefusal(t, answer!, NOT_FOUND, `${method} ${path}`)
      t.strictSame(await stored(server.db), before)
    }
  }
})

t.test('what is no HTTP is answered once, as JSON, and the connection ended', async (t) => {
  const put = `PUT ${USER}/MARKER HTTP/1.1`
  const broken: [string, string | Buffer, Refusal][] = [
    ['an unknown method', request('FOO / HTTP/1.1'), BAD_REQUEST],
    ['an unknown method below /api/v3', request('MARKER /api/v3/user HTTP/1.1'), BAD_REQUEST],
    ['a method in lower case', request('get /user HTTP/1.1'), BAD_REQUEST],
    ['no HTTP at all', 'MARKER MARKER MARKER\r\n\r\n', BAD_REQUEST],
    ['a TLS hello', Buffer.from('16030100a5010000a1030358', 'hex'), BAD_REQUEST],
    ['another protocol', request('GET /user FTP/1.1'), BAD_REQUEST],
    ['no path', request('GET  HTTP/1.1'), BAD_REQUEST],
    ['a header without a colon', request('GET /user HTTP/1.1', ['MARKER']), BAD_REQUEST],
    ['a header with a NUL', request('GET /user HTTP/1.1', ['X-A: a\0MARKER']), BAD_REQUEST],
    ['a header with a blank in its name', request('GET /user HTTP/1.1', ['X MARKER: a']), BAD_REQUEST],
    ['two lengths', request(put, ['Content-Length: 5', 'Content-Length: 6'], 'MARKER'), BAD_REQUEST],
    [
      'a length and chunks',
      request(put, ['Content-Length: 5', 'Transfer-Encoding: chunked'], '0\r\n\r\n'),
      BAD_REQUEST
    ],
    ['a length that is no number', request(put, ['Content-Length: MARKER']), BAD_REQUEST],
    ['a negative length', request(put, ['Content-Length: -1']), BAD_REQUEST],
    [
      'a chunk whose length is no number',
      request(put, ['Transfer-Encoding: chunked'], 'ZZ\r\nMARKER\r\n'),
      BAD_REQUEST
    ],
    [
      'more headers than fit',
      request('GET /user HTTP/1.1', [`X-A: MARKER${'a'.repeat(20_000)}`]),
      { status: 431, message: 'Request Header Fields Too Large' }
    ],
    [
      'a path longer than the headers may be',
      request(`GET /user/${'MARKER'.repeat(4000)} HTTP/1.1`),
      { status: 431, message: 'Request Header Fields Too Large' }
    ],
    [
      'a body longer than allowed',
      request(put, ['Content-Length: 10485760'], 'MARKER'),
      { status: 413, message: 'The request body is too large.' }
    ],
    [
      'a body in chunks that grows longer than allowed',
      request(put, ['Transfer-Encoding: chunked'], `a00000\r\n${'MARKER'.repeat(120_000)}`),
      { status: 413, message: 'The request body is too large.' }
    ]
  ]
  const before = await stored(server.db)
  for (const [name, bytes, expected] of broken) {
    const answer = await sendRaw(url, bytes)
    if (!answer) {
      t.fail(`${name}: no answer`)
      continue
    }
    isRefusal(t, answer, expected, name)
    t.equal(answer.headers.connection, 'close', name)
    t.notMatch(JSON.stringify(answer), /MARKER/, `${name}: the answer does not hold what was sent`)
    t.notOk(JSON.stringify(answer).includes(token), `${name}: nor the token`)
  }
  t.strictSame(await stored(server.db), before, 'nothing changed')
})

t.test('a request without a Host header is refused (RFC 9112, 3.2)', async (t) => {
  const answer = await sendRaw(url, `GET /user HTTP/1.1\r\nAuthorization: Bearer ${token}\r\n\r\n`)
  t.equal(answer?.statusCode, 400)
})

t.test('the unix socket answers what is no HTTP alike', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'coffer-http-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const keyFile = path.join(folder, 'master.key')
  await createMasterKey(keyFile)
  const { config, secrets } = loadConfig({
    DATABASE_URL: (await createTestDatabase(t)).url,
    COFFER_MASTER_KEY_FILE: keyFile,
    COFFER_DATA_DIR: folder,
    COFFER_SOCKET: path.join(folder, 'coffer.sock'),
    COFFER_PORT: '0',
    COFFER_LOG_LEVEL: 'silent'
  })
  const running = await serve(config, secrets)
  t.teardown(() => running.close())
  for (const target of [running.url, running.socket!]) {
    isRefusal(t, (await sendRaw(target, request('FOO / HTTP/1.1')))!, BAD_REQUEST, `FOO to ${target}`)
    const long = request('GET /user HTTP/1.1', [`X-A: ${'a'.repeat(20_000)}`])
    const tooLong = { status: 431, message: 'Request Header Fields Too Large' }
    isRefusal(t, (await sendRaw(target, long))!, tooLong, `long headers to ${target}`)
    isRefusal(t, (await sendRaw(target, request('PURGE /user HTTP/1.1')))!, NOT_FOUND, `PURGE to ${target}`)
  }
})

t.test('a body shorter than announced is not taken for one', async (t) => {
  const before = await stored(server.db)
  const bytes = request(`PUT ${USER}/SHORT HTTP/1.1`, [`Content-Length: ${body.length + 1}`], body)
  const answer = await sendRaw(url, bytes, async (socket) => void socket.end())
  if (answer) isRefusal(t, answer, BAD_REQUEST, 'half-closed')
  t.strictSame(await stored(server.db), before, 'nothing changed')
})

t.test('an Authorization header of blanks is none', async (t) => {
  for (const blanks of ['', ' ', '\t', '   ']) {
    const answer = await sendRaw(
      url,
      `GET /user HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization:${blanks}\r\n\r\n`
    )
    isRefusal(t, answer!, { status: 401, message: 'Requires authentication' }, JSON.stringify(blanks))
  }
})
