import { type FastifyInstance, fastify } from 'fastify'
import t, { type Test } from 'tap'
import { hashToken, makeToken } from '../../../src/auth/token.ts'
import {
  AlreadyExists,
  BodyTooLarge,
  Conflict,
  CorruptEnvelope,
  Forbidden,
  InvalidInput,
  LimitExceeded,
  NotFound,
  PreconditionFailed,
  RateLimited,
  TooManyFailedLogins,
  Unauthenticated,
  Unavailable,
  Unimplemented,
  UnreadableBody
} from '../../../src/errors.ts'
import { Metrics } from '../../../src/metrics.ts'
import { handleError } from '../../../src/routes/rpc/errors.ts'
import { Gate } from '../../gate.ts'
import { startSecondNode, type TestRequest } from '../../helper.ts'
import { sendRaw } from '../../raw-http.ts'
import { stored } from '../github/refusal.ts'
import { type OnaServer, startOnaServer } from './helper.ts'
import { isRefusal, type Refusal } from './refusal.ts'

const LIST = 'gitpod.v1.SecretService/ListSecrets'
const CREATE = 'gitpod.v1.SecretService/CreateSecret'
const MARKER = 'MARKER-of-a-request-6a0c'
const MEGABYTES = 10 * 1024 * 1024
const LIMITS = { core: 1000, codespaces: 1000, graphql: 1000, address: 1000, store: 'memory' } as const

const server = await startOnaServer(t)
const { token } = server.owner

type Method = 'GET' | 'HEAD' | 'PUT' | 'POST' | 'PATCH' | 'DELETE' | 'OPTIONS' | 'TRACE'

/** What a request is answered with, as `isRefusal` looks at it. */
async function ask(
  app: FastifyInstance,
  method: Method,
  url: string,
  { token, body, headers, address }: TestRequest & { address?: string } = {}
) {
  const response = await app.inject({
    method: method as 'GET',
    url,
    ...(address && { remoteAddress: address }),
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
    ...(body !== undefined && {
      payload: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body)
    })
  })
  const { statusCode: status, headers: answered } = response
  return {
    status,
    headers: answered,
    body: method === 'HEAD' ? response.body : response.json(),
    text: response.body
  }
}

const post = (url: string, request?: TestRequest & { address?: string }) =>
  ask(server.app, 'POST', url, request)

const NO_METHOD: Refusal = { code: 'unimplemented', status: 404, message: 'This server has no such method.' }
const NOT_POST: Refusal = { code: 'unimplemented', status: 405, message: 'Methods are called with POST.' }
const TOO_LARGE: Refusal = { code: 'resource_exhausted', message: 'The request body is too large.' }
const NO_TOKEN: Refusal = { code: 'unauthenticated', message: 'Requires authentication' }
const WRONG_TOKEN: Refusal = { code: 'unauthenticated', message: 'Bad credentials' }

t.test('an answer is JSON, with and without /api', async (t) => {
  for (const prefix of ['/', '/api/']) {
    const answer = await post(`${prefix}${LIST}`, { token, body: {} })
    t.equal(answer.status, 200)
    t.equal(answer.text, '{"pagination":{}}', 'without defaults')
    t.equal(answer.headers['content-type'], 'application/json')
    t.equal(answer.headers['cache-control'], 'no-store')
    t.match(answer.headers['x-request-id'], /^[0-9A-F:]{26,}$/)
    t.equal(answer.headers['x-should-retry'], undefined)
  }
})

/** One request as it stands on the wire. */
async function raw(url: string, path: string, headers: readonly string[], body = '') {
  const head = [`POST ${path} HTTP/1.1`, 'Host: h', 'Connection: close', ...headers].join('\r\n')
  const answer = await sendRaw(url, `${head}\r\n\r\n${body}`)
  return { status: answer!.statusCode, headers: answer!.headers, body: JSON.parse(answer!.body) }
}

t.test('no body, and bodies of any type', async (t) => {
  const url = await server.listen()
  const authorization = `Authorization: Bearer ${token}`
  const json = 'Content-Type: application/json'
  const bodies: [string, string[], string?][] = [
    ['nothing at all', []],
    ['length 0', ['Content-Length: 0']],
    ['JSON of length 0', [json, 'Content-Length: 0']],
    ['an empty object', [json, 'Content-Length: 2'], '{}'],
    ['an object without a type', ['Content-Length: 2'], '{}'],
    ['no chunks', [json, 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
    ['chunks', ['Transfer-Encoding: chunked'], '1\r\n{\r\n1\r\n}\r\n0\r\n\r\n'],
    ['JSON lines', ['Content-Type: application/jsonl', 'Content-Length: 2'], '{}'],
    ['a charset', [`${json}; charset=utf-8`, 'Content-Length: 2'], '{}'],
    ['a form', ['Content-Type: application/x-www-form-urlencoded', 'Content-Length: 2'], '{}'],
    ['parts', ['Content-Type: multipart/form-data; boundary=x', 'Content-Length: 2'], '{}'],
    ['text', ['Content-Type: text/plain', 'Content-Length: 2'], '{}'],
    ['an empty type', ['Content-Type:', 'Content-Length: 2'], '{}'],
    ['no type', ['Content-Type: ;;; /=', 'Content-Length: 2'], '{}'],
    ['blanks around', [json, 'Content-Length: 8'], ' \r\n{}\r\n ']
  ]
  for (const [name, headers, body] of bodies) {
    for (const path of [`/api/${LIST}`, `/${LIST}`]) {
      const answer = await raw(url, path, [authorization, ...headers], body)
      t.strictSame([answer.status, answer.body], [200, { pagination: {} }], name)
      t.equal(answer.headers['content-type'], 'application/json', name)
    }
  }
})

t.test('what is no message', async (t) => {
  const unreadable: [string, string | Buffer, string][] = [
    ['no JSON', MARKER, 'The body is not JSON.'],
    ['half of it', `{"name": "${MARKER}`, 'The body is not JSON.'],
    ['JSON lines', '{}\n{}', 'The body is not JSON.'],
    ['a form', `name=${MARKER}`, 'The body is not JSON.'],
    ['protobuf', Buffer.from([0x0a, 0x03, 0x61, 0x62, 0x63]), 'The body is not JSON.'],
    ['a frame of Connect', Buffer.from('\0\0\0\0\x02{}'), 'The body is not JSON.'],
    ['gzip', Buffer.from('1f8b0800', 'hex'), 'The body is not UTF-8.'],
    ['Latin-1', Buffer.from(`{"name": "${MARKER}é"}`, 'latin1'), 'The body is not UTF-8.'],
    ['a list', `["${MARKER}"]`, 'The body is not a JSON object.'],
    ['null', 'null', 'The body is not a JSON object.'],
    ['text', JSON.stringify(MARKER), 'The body is not a JSON object.']
  ]
  const before = await stored(server.db)
  for (const method of [LIST, CREATE, 'gitpod.v1.ProjectService/CreateProject']) {
    for (const [name, body, message] of unreadable) {
      const answer = await post(`/api/${method}`, { token, body })
      isRefusal(t, answer, { code: 'invalid_argument', message }, `${method}, ${name}`)
      t.notMatch(answer.text, MARKER)
    }
  }
  t.strictSame(await stored(server.db), before)
})

t.test('protobuf and streams are told apart by their type', async (t) => {
  const types = [
    'application/proto',
    'Application/Proto',
    'application/proto; charset=x',
    'application/connect+proto',
    'application/connect+json',
    'application/protobuf',
    'application/x-protobuf',
    'application/vnd.google.protobuf',
    'application/grpc',
    'application/grpc+proto',
    'application/grpc-web+json'
  ]
  for (const type of types) {
    for (const given of [token, undefined]) {
      const answer = await post(`/api/${LIST}`, {
        token: given,
        headers: { 'content-type': type },
        body: '{}'
      })
      isRefusal(
        t,
        answer,
        {
          code: 'unimplemented',
          status: 415,
          message: 'This server reads JSON: send content-type application/json.'
        },
        type
      )
      t.equal(answer.headers['accept-post'], 'application/json')
    }
  }
})

t.test('other HTTP methods', async (t) => {
  for (const method of ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'] as const) {
    for (const path of [
      `/api/${LIST}`,
      `/${LIST}?connect=v1&encoding=json&message=%7B%7D`,
      '/api/gitpod.v1.Nope/No'
    ]) {
      const answer = await ask(server.app, method, path, { token })
      t.equal(answer.headers.allow, 'POST', method)
      if (method === 'HEAD') t.equal(answer.status, 405)
      else isRefusal(t, answer, NOT_POST, `${method} ${path}`)
    }
  }
  const head = await fetch(`${server.app.listeningOrigin}/api/${LIST}`, { method: 'HEAD' })
  t.strictSame([head.status, head.headers.get('allow'), await head.text()], [405, 'POST', ''])
})

t.test('methods and services that are not here', async (t) => {
  const paths = [
    'gitpod.v1.SecretService/NoSuchMethod',
    'gitpod.v1.NoSuchService/ListSecrets',
    'gitpod.v1.SecretService',
    'gitpod.v1.SecretService/',
    `${LIST}/`,
    `${LIST}/more`,
    'gitpod.v1.SecretService/listsecrets',
    'gitpod.v1.secretservice/ListSecrets',
    'gitpod.v1.',
    'gitpod.v1./ListSecrets',
    'gitpod.v1.__proto__/constructor',
    `gitpod.v1.SecretService/${MARKER}`,
    `gitpod.v1.${'x'.repeat(10_000)}`,
    'gitpod.v1.%ZZ/ListSecrets',
    'gitpod.v1.SecretService/%C3%28',
    'gitpod.v1.SecretService%2FListSecrets',
    'gitpod.v1.SecretService/%00'
  ]
  for (const path of paths) {
    for (const given of [token, undefined, makeToken('classic')]) {
      for (const body of [undefined, '{}', MARKER]) {
        const answer = await post(`/api/${path}`, { token: given, body })
        isRefusal(t, answer, NO_METHOD, path)
        t.notMatch(answer.text, MARKER)
      }
    }
  }
  isRefusal(t, await post('/api/gitpod.v1.No/No', { body: 'x'.repeat(MEGABYTES) }), NO_METHOD, 'with 10 MB')
})

t.test('queries', async (t) => {
  const fine = [
    '?',
    '?x=1',
    '?token=',
    '?pageSize=',
    '?pageSize=0',
    '?pageSize=7',
    '?%ZZ=%ZZ&%00',
    '?__proto__=x'
  ]
  for (const query of fine) {
    const answer = await post(`/api/${LIST}${query}`, { token, body: {} })
    t.strictSame([answer.status, answer.body], [200, { pagination: {} }], query)
  }
  const wrong: [string, string][] = [
    ['?pageSize=101', 'pageSize: must be at most 100'],
    ['?pageSize=-1', 'pageSize: must be at least 0'],
    ['?pageSize=ten', 'pageSize: must be a whole number of 32 bits'],
    ['?pageSize=1&pageSize=2', 'pageSize: must be a whole number of 32 bits'],
    ['?token=a&token=b', 'token: must be a string'],
    ['?token=%00', 'token: must not contain NUL'],
    [
      `?token=${MARKER}`,
      'pagination.token: is no token of this list; start again without one, with the same request for each page'
    ]
  ]
  for (const [query, violation] of wrong) {
    const answer = await post(`/api/${LIST}${query}`, { token, body: {} })
    isRefusal(t, answer, { code: 'invalid_argument', violations: [violation] }, query)
    t.notMatch(answer.text, MARKER)
  }
})

t.test('bodies too large', async (t) => {
  const large = `{"name": "${MARKER}${'A'.repeat(MEGABYTES)}"}`
  const before = await stored(server.db)
  for (const method of [LIST, CREATE, 'gitpod.v1.ProjectService/CreateProjects']) {
    const answer = await post(`/api/${method}`, { token, body: large })
    isRefusal(t, answer, TOO_LARGE, method)
    t.notMatch(answer.text, MARKER)
    isRefusal(t, await post(`/api/${method}`, { body: large }), NO_TOKEN, `${method} without a token`)
  }
  t.strictSame(await stored(server.db), before)

  // Only the head is sent: who waits for the rest is never answered.
  const url = server.app.listeningOrigin
  const length = `Content-Length: ${MEGABYTES}`
  const wrong = `Authorization: Bearer ${makeToken('classic')}`
  const right = `Authorization: Bearer ${token}`
  isRefusal(t, await raw(url, `/api/${CREATE}`, [length]), NO_TOKEN, 'without a token, before it is read')
  isRefusal(
    t,
    await raw(url, `/api/${CREATE}`, [length, wrong]),
    WRONG_TOKEN,
    'with a wrong token, before it is read'
  )
  isRefusal(
    t,
    await raw(url, `/api/${CREATE}`, [length, right]),
    TOO_LARGE,
    'with a token, before it is read'
  )
  isRefusal(t, await raw(url, '/api/gitpod.v1.No/No', [length]), NO_METHOD, 'no method, before it is read')
  const chunk = `${MEGABYTES.toString(16)}\r\n${'x'.repeat(MEGABYTES)}\r\n`
  const chunked = ['Transfer-Encoding: chunked', right]
  isRefusal(t, await raw(url, `/api/${CREATE}`, chunked, chunk), TOO_LARGE, 'in chunks')
})

t.test('credentials', async (t) => {
  const wrong: [string, Record<string, string>, Refusal][] = [
    ['none', {}, NO_TOKEN],
    ['an unknown token', { authorization: `Bearer ${makeToken('classic')}` }, WRONG_TOKEN],
    [
      'an unknown token of another kind',
      { authorization: `Bearer ${makeToken('environment')}` },
      WRONG_TOKEN
    ],
    ['garbage', { authorization: `Bearer ${MARKER}` }, WRONG_TOKEN],
    [
      'a flipped token',
      { authorization: `Bearer ${token.slice(0, -1)}${token.endsWith('0') ? '1' : '0'}` },
      WRONG_TOKEN
    ],
    ['a token in the query', {}, NO_TOKEN]
  ]
  for (const [name, headers, expected] of wrong) {
    for (const body of ['{}', MARKER, '', undefined]) {
      const query = name.endsWith('query') ? `?access_token=${token}` : ''
      const answer = await post(`/api/${CREATE}${query}`, { headers, body, address: '10.1.1.1' })
      isRefusal(t, answer, expected, name)
      t.notMatch(answer.text, MARKER)
    }
  }
  const { status } = await post(`/api/${LIST}`, { headers: { authorization: `bearer ${token}` } })
  t.equal(status, 200, 'the scheme has no case')
})

t.test('too many failed logins', async (t) => {
  const address = '10.1.1.2'
  const guess = () => post(`/api/${LIST}`, { token: makeToken('classic'), address })
  for (let n = 0; n < 30; n++) t.equal((await guess()).status, 401)
  const answer = await guess()
  isRefusal(
    t,
    answer,
    {
      code: 'resource_exhausted',
      message: 'Maximum number of login attempts exceeded. Please try again later.',
      retryAfter: true
    },
    'the next one'
  )
  t.equal(answer.body.details[0].type, 'google.rpc.RetryInfo')
  const github = await server.app.inject({
    url: '/user',
    remoteAddress: address,
    headers: { authorization: `Bearer ${makeToken('classic')}` }
  })
  t.equal(github.statusCode, 403, "and GitHub's API counts the same")
  t.equal((await post(`/api/${LIST}`, { token, address })).status, 200, 'a valid token works from there')
  t.equal((await post(`/api/${LIST}`, { token: makeToken('classic'), address: '10.1.1.3' })).status, 401)
})

t.test("rate limits count what both APIs are asked, Ona's as core", async (t) => {
  const limited = await startOnaServer(t, { rateLimits: { ...LIMITS, core: 4, codespaces: 2, address: 3 } })
  const { token } = limited.owner
  const list = (request: TestRequest & { address?: string }) =>
    ask(limited.app, 'POST', `/api/${LIST}`, request)
  t.equal((await limited.request('GET', '/user', { token })).headers['x-ratelimit-used'], '1')
  t.equal((await list({ token })).status, 200)
  t.equal((await list({ token, body: MARKER })).status, 400, 'what fails counts')
  t.equal(
    (await ask(limited.app, 'POST', '/api/gitpod.v1.No/No', { token })).status,
    404,
    'what is not here counts'
  )
  const refused: Refusal = {
    code: 'resource_exhausted',
    message: /^API rate limit exceeded for token ID \d+: 4 requests an hour \(core\)\. It resets at /,
    retryAfter: true
  }
  for (const method of [LIST, CREATE, 'gitpod.v1.No/No']) {
    const answer = await ask(limited.app, 'POST', `/api/${method}`, { token })
    isRefusal(t, answer, refused, method)
    t.equal(answer.body.details[0].type, 'google.rpc.RetryInfo')
    t.ok(Number(answer.headers['retry-after']) <= 3601)
  }
  t.equal((await limited.request('GET', '/user', { token })).statusCode, 403)
  t.equal(
    (await limited.request('GET', '/user/codespaces/secrets', { token })).statusCode,
    200,
    'another count'
  )
  t.equal((await list({ token: limited.member.token })).status, 200, 'another token')

  const address = '10.2.2.2'
  isRefusal(t, await list({ address }), NO_TOKEN, 'the first from an address')
  isRefusal(t, await list({ address, token: makeToken('classic') }), WRONG_TOKEN, 'the second')
  isRefusal(t, await ask(limited.app, 'POST', '/api/gitpod.v1.No/No', { address }), NO_METHOD, 'the third')
  const strangers: Refusal = {
    code: 'resource_exhausted',
    message:
      /^API rate limit exceeded for your address, without a valid token: 3 requests an hour \(core\)\. /,
    retryAfter: true
  }
  isRefusal(t, await list({ address }), strangers, 'one too many')
  isRefusal(t, await ask(limited.app, 'POST', '/api/gitpod.v1.No/No', { address }), strangers, 'one too many')
  isRefusal(t, await list({ address: '10.2.2.3' }), NO_TOKEN, 'another address')
  t.match(
    (await limited.request('GET', '/metrics')).body,
    /^coffer_rate_limited_requests_total\{by="token"\} 4$/m
  )
})

t.test('who may not ask is told so before the message is read', async (t) => {
  const { db } = server
  const loner = await server.createUser('loner')
  const lonely = await server.createToken(loner, { scopes: ['codespace', 'admin:org'] })
  const narrow = await server.createToken(server.owner.account, { scopes: ['codespace'] })
  const reading = await server.createToken(server.owner.account, { scopes: ['read:org'] })
  const readOnly = await server.createToken(server.owner.account, { scopes: ['codespace', 'admin:org'] })
  const { id } = await db.selectFrom('tokens').select('id').orderBy('id', 'desc').executeTakeFirstOrThrow()
  await db.updateTable('tokens').set({ read_only: true }).where('id', '=', id).execute()
  const denied = (message: string | RegExp): Refusal => ({ code: 'permission_denied', message })
  const scope = (name: string) => denied(`This needs a token with the scope ${name}.`)
  const cases: [string, string, Refusal][] = [
    ['ProjectService/CreateProject', server.member.token, denied('Must be an owner of the organization.')],
    ['ProjectService/CreateProjects', server.member.token, denied('Must be an owner of the organization.')],
    ['ProjectService/CreateProject', narrow, scope('admin:org')],
    ['ProjectService/CreateProject', reading, scope('admin:org')],
    ['ProjectService/GetProject', narrow, scope('read:org')],
    ['ProjectService/ListProjects', narrow, scope('read:org')],
    ['ProjectService/UpdateProject', reading, scope('admin:org')],
    ['ProjectService/DeleteProjects', reading, scope('admin:org')],
    ['ProjectService/ListProjects', lonely, denied(/^This token acts in no organization: /)],
    ['ProjectService/CreateProject', lonely, denied(/^This token acts in no organization: /)],
    ['SecretService/CreateSecret', readOnly, denied('This token only reads.')],
    ['SecretService/UpdateSecretValue', readOnly, denied('This token only reads.')],
    ['SecretService/DeleteSecret', readOnly, denied('This token only reads.')],
    ['ProjectService/DeleteProject', readOnly, denied('This token only reads.')],
    ['SecretService/GetSecretValue', token, denied('This needs the token of an environment.')]
  ]
  for (const [method, given, expected] of cases) {
    for (const body of ['{}', MARKER, '[]', '', { name: 5, projectId: MARKER }]) {
      const answer = await post(`/api/gitpod.v1.${method}`, { token: given, body })
      isRefusal(t, answer, expected, method)
      t.notMatch(answer.text, MARKER)
    }
  }
  const { status } = await post(`/api/${LIST}`, { token: readOnly, body: {} })
  t.equal(status, 200, 'a token that only reads may list')
})

t.test('every error as Connect has it', async (t) => {
  const standing = { resource: 'core', limit: 1, used: 1, reset: 0 }
  const limit = (seconds: number) => new RateLimited({ kind: 'token', name: '1' }, standing, seconds)
  const violation = { field: 'name', message: 'is wrong', code: 'invalid' } as const
  const taken = { field: 'name', message: 'is taken', code: 'already_exists' } as const
  const long = { field: 'a'.repeat(100), message: 'ß'.repeat(300), code: 'invalid' } as const
  const defect = 'The server failed; its log has the request id.'
  const framework = (statusCode: number) => Object.assign(new Error(MARKER), { statusCode })
  const postgres = (code: string) => Object.assign(new Error(MARKER), { code })
  const away: Refusal = {
    code: 'unavailable',
    message: 'Service temporarily unavailable. Try again shortly.',
    retryAfter: 1,
    shouldRetry: true
  }
  const errors: [Error, Refusal][] = [
    [new Unauthenticated(false), NO_TOKEN],
    [new Unauthenticated(true), WRONG_TOKEN],
    [new TooManyFailedLogins(60), { code: 'resource_exhausted', retryAfter: 60 }],
    [new TooManyFailedLogins(5), { code: 'resource_exhausted', retryAfter: 5, shouldRetry: true }],
    [limit(6), { code: 'resource_exhausted', retryAfter: 6 }],
    [limit(3600), { code: 'resource_exhausted', retryAfter: 3600 }],
    [limit(1), { code: 'resource_exhausted', retryAfter: 1, shouldRetry: true }],
    [
      new NotFound(),
      { code: 'not_found', message: 'There is nothing of that id that this token may know of.' }
    ],
    [new NotFound('No such group.'), { code: 'not_found', message: 'No such group.' }],
    [new Forbidden('in the words of GitHub', 'in ours'), { code: 'permission_denied', message: 'in ours' }],
    [new InvalidInput('All is wrong.'), { code: 'invalid_argument', message: 'All is wrong.' }],
    [
      new InvalidInput('Validation Failed', [violation, long]),
      {
        code: 'invalid_argument',
        message: `name: is wrong; ${long.field}: ${long.message}`,
        violations: ['name: is wrong', `${long.field}: ${long.message}`]
      }
    ],
    [
      new InvalidInput('The name is taken already.', [taken]),
      { code: 'already_exists', message: 'The name is taken already.', violations: ['name: is taken'] }
    ],
    [
      new InvalidInput('Validation Failed', [taken, violation]),
      { code: 'invalid_argument', violations: ['name: is taken', 'name: is wrong'] }
    ],
    [new UnreadableBody('No JSON.'), { code: 'invalid_argument', message: 'No JSON.' }],
    [
      new BodyTooLarge(5),
      { code: 'resource_exhausted', message: 'The request body is larger than 5 bytes.' }
    ],
    [new LimitExceeded('Full.'), { code: 'failed_precondition', message: 'Full.' }],
    [new Conflict('Busy.'), { code: 'failed_precondition', message: 'Busy.' }],
    [new AlreadyExists('There.'), { code: 'already_exists', message: 'There.' }],
    [new PreconditionFailed(), { code: 'aborted' }],
    [new Unimplemented('Not here.'), { code: 'unimplemented', message: 'Not here.' }],
    [new Unavailable(), away],
    [postgres('57P01'), away],
    [postgres('40P01'), away],
    [postgres('ECONNREFUSED'), away],
    [postgres('22P02'), { code: 'internal', message: defect }],
    [new CorruptEnvelope(), { code: 'internal', message: defect }],
    [new TypeError(MARKER), { code: 'internal', message: defect }],
    [framework(400), { code: 'invalid_argument', message: 'The request cannot be read.' }],
    [framework(415), { code: 'invalid_argument', message: 'The request cannot be read.' }],
    [framework(413), TOO_LARGE],
    [framework(408), { code: 'deadline_exceeded', message: 'The request came too slowly.' }],
    [framework(500), { code: 'internal', message: defect }]
  ]
  const log: string[] = []
  const app = fastify({
    logger: { level: 'trace', stream: { write: (line: string) => void log.push(line) } }
  })
  app.decorate('metrics', new Metrics())
  app.setErrorHandler<Error>((error, request, reply) => {
    reply.header('cache-control', 'no-store')
    handleError(error, request, reply)
  })
  app.post<{ Params: { index: number } }>('/:index', ({ params }) => {
    throw errors[params.index]![0]
  })
  t.teardown(() => app.close())
  for (const [index, [error, expected]] of errors.entries()) {
    isRefusal(t, await ask(app, 'POST', `/${index}`), expected, `${error.name}, ${expected.code}`)
  }
  t.notMatch(
    log.filter((line) => line.includes('request failed')).join(''),
    MARKER,
    'a defect is logged without its message'
  )
})

/** The same database by a way that can be cut, and a server behind it. */
async function behindGate(t: Test, server: OnaServer) {
  const gate = new Gate(server.databaseUrl)
  await gate.open()
  t.teardown(() => gate.cut())
  const app = await startSecondNode(t, { ...server, databaseUrl: gate.url })
  const call = (method: string, body: unknown) =>
    ask(app, 'POST', `/api/gitpod.v1.${method}`, { token: server.owner.token, body })
  // Every call asks for its token, and so makes the same queries.
  const forget = () => app.authenticator.forget([hashToken(server.owner.token).toString('base64')])
  return { gate, call, forget, ready: () => ask(app, 'GET', '/readyz') }
}

const AWAY: Refusal = {
  code: 'unavailable',
  message: 'Service temporarily unavailable. Try again shortly.',
  retryAfter: 1,
  shouldRetry: true
}

t.test('while the database is away', async (t) => {
  const { gate, call, ready } = await behindGate(t, server)
  const scope = { userId: server.owner.account.uid }
  const secret = { name: 'AWAY', value: MARKER, apiOnly: true, scope }
  t.equal((await call('SecretService/ListSecrets', {})).status, 200)
  const before = await stored(server.db)
  gate.cut()
  for (const [method, message] of [
    ['SecretService/ListSecrets', {}],
    ['SecretService/CreateSecret', secret],
    ['ProjectService/CreateProject', { name: 'away', initializer: {} }],
    ['ProjectService/CreateProjects', { projects: [{ name: 'away', initializer: {} }] }],
    ['ProjectService/ListProjects', {}]
  ] as const) {
    const answer = await call(method, message)
    isRefusal(t, answer, AWAY, method)
    t.notMatch(answer.text, MARKER)
  }
  t.strictSame(await stored(server.db), before)
  await gate.restore()
  t.equal((await ready()).status, 200)
  t.equal((await call('SecretService/CreateSecret', secret)).status, 200, 'and all is well when it is back')
})

t.test('what was done is answered, wherever the database goes away', async (t) => {
  const { gate, call, forget, ready } = await behindGate(t, server)
  const { db } = server
  const made = async (table: 'secrets' | 'projects', name: string) =>
    (await db.selectFrom(table).select('id').where('name', 'like', `${name}%`).execute()).length
  let number = 0

  /** Cuts before the n-th piece of traffic; gives what was answered, and how much is there. */
  const cutAt = async (
    n: number,
    direction: 'query' | 'result',
    table: 'secrets' | 'projects',
    message: (name: string) => readonly [string, object]
  ) => {
    const name = `CUT_${++number}_`
    t.equal((await ready()).status, 200)
    forget()
    let pieces = 0
    let wasCut = false
    gate.onTraffic = (way) => {
      if (way === direction) pieces += 1
      wasCut ||= way === direction && pieces === n
      return wasCut
    }
    const answer = await call(...message(name))
    await gate.restore()
    return { wasCut, answer, there: await made(table, name) }
  }

  const scope = { userId: server.owner.account.uid }
  const single = {
    secrets: (name: string) =>
      ['SecretService/CreateSecret', { name: `${name}1`, value: MARKER, apiOnly: true, scope }] as const,
    projects: (name: string) =>
      ['ProjectService/CreateProject', { name: `${name}1`, initializer: {} }] as const
  }
  for (const table of ['secrets', 'projects'] as const) {
    for (const direction of ['query', 'result'] as const) {
      let lost = 0
      let n = 1
      for (let wasCut = true; wasCut && n < 60; n++) {
        const result = await cutAt(n, direction, table, single[table])
        wasCut = result.wasCut
        if (result.answer.status === 200) t.equal(result.there, 1, `${table}, ${direction} ${n}: it is there`)
        else isRefusal(t, result.answer, AWAY, `${table}, ${direction} ${n}`)
        if (result.answer.status !== 200 && result.there > 0) lost += 1
      }
      t.ok(n > 3 && n < 60, `${table}: ${n - 1} points where a ${direction} was cut`)
      t.ok(lost <= 1, `${table}: at most the answer to the commit itself is lost`)
    }
  }

  const names = ['a', 'b', 'c', 'd']
  const bulk = (name: string) =>
    [
      'ProjectService/CreateProjects',
      { projects: names.map((letter) => ({ name: `${name}${letter}`, initializer: {} })) }
    ] as const
  let partly = 0
  let n = 1
  for (let wasCut = true; wasCut && n < 200; n += 3) {
    const { answer, there, ...rest } = await cutAt(n, 'query', 'projects', bulk)
    wasCut = rest.wasCut
    if (answer.status !== 200) {
      isRefusal(t, answer, AWAY, `query ${n}`)
      t.ok(there <= 1, 'none is told that is there')
      continue
    }
    const { createdProjects = [], failedProjects = [] } = answer.body
    t.equal(createdProjects.length + failedProjects.length, names.length)
    t.ok(there === createdProjects.length || there === createdProjects.length + 1, 'what is there is told')
    for (const { error } of failedProjects) t.equal(error, AWAY.message)
    if (failedProjects.length > 0) partly += 1
  }
  t.ok(partly > 3, `${partly} times some were made`)
})

t.test('the log', async (t) => {
  const lines = server.log.join('')
  t.notMatch(lines, MARKER, 'nothing that was sent')
  for (const text of [token, 'This server has no such method']) t.notOk(lines.includes(text))
  const requests = server.log.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'request')
  t.match(
    requests.find(({ route }) => route === `/${CREATE}`),
    { method: 'POST', route: `/${CREATE}` }
  )
  t.ok(
    requests.some(({ route, actor }) => route === `/${LIST}` && actor === 'olga'),
    'who asked'
  )
  t.strictSame(
    server.log.map((line) => JSON.parse(line)).filter(({ level }) => level === 'error' || level === 'fatal'),
    []
  )
})
