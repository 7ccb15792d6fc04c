import { request as httpRequest, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { startTestServer } from '../../helper.ts'

// What real clients send, each request over a socket, byte for byte as the client writes it.

const REPO = '/api/v3/repos/mona/web/codespaces/secrets'
const USER = '/api/v3/user/codespaces/secrets'
const ORG = '/api/v3/orgs/acme/codespaces/secrets'
const ENVIRONMENT = '/api/v3/repos/mona/web/environments/production/secrets'

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: string
}

interface Sent {
  headers?: OutgoingHttpHeaders
  body?: string
  /** without a length, in pieces of this many bytes */
  chunkBytes?: number
}

function send(
  base: string,
  method: string,
  path: string,
  { headers = {}, body, chunkBytes }: Sent
): Promise<Answer> {
  const bytes = Buffer.from(body ?? '')
  return new Promise((resolve, reject) => {
    const framing: OutgoingHttpHeaders = chunkBytes
      ? { 'transfer-encoding': 'chunked' }
      : body === undefined
        ? {}
        : { 'content-length': bytes.length }
    const request = httpRequest(
      `${base}${path}`,
      { method, headers: { ...framing, ...headers } },
      (response) => {
        const pieces: Buffer[] = []
        response.on('data', (piece) => pieces.push(piece))
        response.once('end', () =>
          resolve({
            status: response.statusCode!,
            headers: response.headers,
            body: Buffer.concat(pieces).toString('utf8')
          })
        )
      }
    )
    request.once('error', reject)
    for (let start = 0; chunkBytes && start < bytes.length; start += chunkBytes) {
      request.write(bytes.subarray(start, start + chunkBytes))
    }
    request.end(chunkBytes ? undefined : bytes)
  })
}

/** Writes exactly this and gives the answer as it came. */
function exchange(base: string, lines: string[], body = ''): Promise<string> {
  const { port, hostname } = new URL(base)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    let text = ''
    socket.on('data', (piece) => {
      text += piece
    })
    socket.once('end', () => resolve(text))
    socket.once('error', reject)
    socket.write(`${[...lines, 'Host: coffer', 'Connection: close'].join('\r\n')}\r\n\r\n${body}`)
  })
}

async function prepare(t: Test) {
  const server = await startTestServer(t, { publicUrl: null })
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const base = await server.listen()
  const ask = (method: string, path: string, { headers, ...rest }: Sent = {}) =>
    send(base, method, path, { headers: { authorization: `Bearer ${token}`, ...headers }, ...rest })
  const sealed = async (value: string) => JSON.stringify(await server.seal(USER, token, value))
  const value = async (name: string) => (await server.reveal('user', mona.uid, name))?.toString()
  return { server, mona, repositoryId, token, base, ask, sealed, value }
}

t.test('a body is JSON whatever its Content-Type says', async (t) => {
  const { ask, sealed, value } = await prepare(t)
  const types = [
    undefined,
    '',
    'application/json',
    'application/json; charset=utf-8',
    'application/x-www-form-urlencoded',
    'text/plain;charset=UTF-8',
    'application/octet-stream',
    'multipart/form-data',
    'application/vnd.github+json',
    'application/json; charset=latin1',
    'nonsense',
    ';;;',
    '/',
    'application/json, application/json'
  ]
  for (const [index, type] of types.entries()) {
    const name = `T${index}`
    const text = `värde ${index}`
    const headers = type === undefined ? {} : { 'content-type': type }
    const created = await ask('PUT', `${USER}/${name}`, { headers, body: await sealed(text) })
    t.equal(created.status, 201, `Content-Type: ${type}`)
    t.equal(created.body, '{}')
    t.equal(await value(name), text)
  }
})

t.test('a body in chunks, or with a newline after it, is read like any other', async (t) => {
  const { ask, sealed, value } = await prepare(t)
  const body = await sealed('chunked')
  const headers = { 'content-type': 'application/json; charset=utf-8' }
  t.equal((await ask('PUT', `${USER}/A`, { headers, body, chunkBytes: 7 })).status, 201)
  t.equal((await ask('PUT', `${USER}/B`, { headers, body: `${body}\n` })).status, 201)
  t.equal((await ask('PUT', `${USER}/C`, { body: `\r\n  ${body}\r\n` })).status, 201)
  t.equal(await value('A'), 'chunked')
  t.equal(await value('B'), 'chunked')
})

t.test('adding a repository takes a body of any kind, or none', async (t) => {
  const { server, mona, token, ask, sealed, repositoryId } = await prepare(t)
  const acme = await server.createOrganization('acme', mona)
  const ofAcme = await server.createRepository(acme, 'web')
  const body = { ...(await server.seal(ORG, token, 'value')), visibility: 'selected' }
  await ask('PUT', `${ORG}/TOKEN`, { body: JSON.stringify(body) })
  await ask('PUT', `${USER}/TOKEN`, { body: await sealed('value') })
  const urls = [`${USER}/TOKEN/repositories/${repositoryId}`, `${ORG}/TOKEN/repositories/${ofAcme}`]
  const ways: Record<string, Sent> = {
    'octokit.js': { headers: { 'content-type': 'text/plain;charset=UTF-8' }, body: '' },
    'gh api': { headers: { 'content-type': 'application/json; charset=utf-8' }, body: '' },
    'octokit.rb': { headers: { 'content-type': 'application/json' }, body: '{}' },
    'go-github': { body: '' },
    'an unknown member': { headers: { 'content-type': 'application/json' }, body: '{"x":1}' },
    'nothing at all': {},
    'chunked and empty': { headers: { 'transfer-encoding': 'chunked' } }
  }
  for (const [client, sent] of Object.entries(ways)) {
    for (const url of urls) {
      const added = await ask('PUT', url, sent)
      t.equal(added.status, 204, client)
      t.equal(added.body, '')
      const removed = await ask('DELETE', url, sent)
      t.equal(removed.status, 204, `${client} removes`)
    }
    for (const [url, status] of [
      ['/api/v3/orgs/acme/memberships/root', 200],
      ['/api/v3/repos/mona/web/environments/staging', 200]
    ] as const) {
      t.equal((await ask('PUT', url, sent)).status, status, `${client}: PUT ${url}`)
      t.equal((await ask('DELETE', url, sent)).status, 204, `${client}: DELETE ${url}`)
    }
  }
})

t.test('DELETE and GET take bodies and content types that mean nothing', async (t) => {
  const { ask, sealed } = await prepare(t)
  const ways: Record<string, Sent> = {
    gh: { headers: { 'content-type': 'application/json; charset=utf-8' } },
    'octokit.rb': { headers: { 'content-type': 'application/json' }, body: '{}' },
    chunked: { headers: { 'content-type': 'application/json' }, body: '{}', chunkBytes: 1 },
    'no type': { body: '{}' },
    form: { headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: '' }
  }
  for (const [client, sent] of Object.entries(ways)) {
    await ask('PUT', `${USER}/TOKEN`, { body: await sealed('value') })
    t.equal((await ask('GET', `${USER}/TOKEN`, sent)).status, 200, `GET by ${client}`)
    t.equal((await ask('GET', USER, sent)).status, 200, `list by ${client}`)
    t.equal((await ask('DELETE', `${USER}/TOKEN`, sent)).status, 204, `DELETE by ${client}`)
    t.equal((await ask('GET', `${USER}/TOKEN`)).status, 404)
  }
})

t.test('an empty body where one is needed is named, not a fault', async (t) => {
  const { server, mona, ask } = await prepare(t)
  await server.createOrganization('acme', mona)
  await ask('PUT', '/api/v3/repos/mona/web/environments/production')
  for (const type of [undefined, 'application/json; charset=utf-8', 'text/plain;charset=UTF-8']) {
    for (const url of [REPO, USER, ORG, ENVIRONMENT].map((path) => `${path}/TOKEN`)) {
      const headers = type === undefined ? {} : { 'content-type': type }
      const response = await ask('PUT', url, { headers, body: '' })
      t.equal(response.status, 422, `${url} ${type}`)
      t.match(JSON.parse(response.body).message, /"encrypted_value".* supplied\.$/)
    }
  }
})

t.test('credentials come as token, Bearer or Basic, in any case', async (t) => {
  const { base, token } = await prepare(t)
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
  const valid = [
    `Bearer ${token}`,
    `bearer ${token}`,
    `BEARER ${token}`,
    `token ${token}`,
    `Token ${token}`,
    `TOKEN ${token}`,
    `Bearer   ${token}`,
    basic(`mona:${token}`),
    basic(`x-access-token:${token}`),
    basic(`:${token}`),
    basic(`${token}:`),
    basic(`mona:${token}`).replace('Basic', 'basic')
  ]
  for (const authorization of valid) {
    const response = await send(base, 'GET', '/api/v3/user', { headers: { authorization } })
    t.equal(response.status, 200, authorization.split(' ')[0]!)
    t.equal(JSON.parse(response.body).login, 'mona')
  }
})

t.test('an empty Authorization is none, and others that say nothing are wrong', async (t) => {
  const { base, token } = await prepare(t)
  const message = async (authorization: string | undefined) => {
    const headers = authorization === undefined ? {} : { authorization }
    const response = await send(base, 'GET', USER, { headers })
    t.equal(response.status, 401, String(authorization).split(' ')[0]!)
    return JSON.parse(response.body).message
  }
  for (const none of [undefined, '', '   ']) t.equal(await message(none), 'Requires authentication')
  for (const wrong of ['Bearer', 'Bearer ', 'token', token, `Digest ${token}`, 'Basic !!!', 'Basic Og==']) {
    t.equal(await message(wrong), 'Bad credentials', wrong.split(' ')[0]!)
  }
  t.equal(await message(`Bearer ${token} ${token}`), 'Bad credentials')
  t.equal((await send(base, 'GET', '/api/v3/meta', { headers: { authorization: '' } })).status, 200)
})

t.test('any Accept that leaves room for JSON works, an empty one too', async (t) => {
  const { ask } = await prepare(t)
  for (const accept of [
    '',
    '*/*',
    'application/vnd.github.v3+json',
    'application/vnd.github.merge-info-preview+json, application/vnd.github.nebula-preview',
    'application/vnd.github.v3+json,application/vnd.github.stone-crop-preview+json'
  ]) {
    const response = await ask('GET', USER, { headers: { accept } })
    t.equal(response.status, 200, accept)
    t.equal(response.headers['content-type'], 'application/json; charset=utf-8')
  }
})

t.test('a request without User-Agent and with unusual headers is answered', async (t) => {
  const { base, token } = await prepare(t)
  const answer = await exchange(base, [
    `GET ${USER}?per_page=100 HTTP/1.1`,
    'Accept:',
    'Content-Type:',
    `authorization:token ${token}`,
    'Time-Zone: Etc/UTC',
    'Accept-Encoding: gzip'
  ])
  t.match(answer, /^HTTP\/1\.1 200 OK\r\n/)
  t.notMatch(answer, /content-encoding/i)
  t.ok(answer.endsWith('{"total_count":0,"secrets":[]}'))
  const old = await exchange(base, [`GET ${USER} HTTP/1.0`, `Authorization: Bearer ${token}`])
  t.match(old, /^HTTP\/1\.1 200 OK\r\n/)
})

t.test('on the wire 201 carries {}, 204 nothing, and HEAD no body', async (t) => {
  const { base, token, sealed } = await prepare(t)
  const put = async (value: string) => {
    const body = await sealed(value)
    return await exchange(
      base,
      [`PUT ${USER}/TOKEN HTTP/1.1`, `Authorization: Bearer ${token}`, `Content-Length: ${body.length}`],
      body
    )
  }
  const created = await put('one')
  t.match(created, /^HTTP\/1\.1 201 Created\r\n/)
  t.match(created, /\r\ncontent-type: application\/json; charset=utf-8\r\n/)
  t.match(created, /\r\ncontent-length: 2\r\n/)
  t.ok(created.endsWith('\r\n\r\n{}'))
  for (const bare of [
    await put('two'),
    await exchange(base, [`OPTIONS ${USER} HTTP/1.1`]),
    await exchange(base, [`DELETE ${USER}/TOKEN HTTP/1.1`, `Authorization: Bearer ${token}`])
  ]) {
    t.match(bare, /^HTTP\/1\.1 204 No Content\r\n/)
    t.notMatch(bare, /\r\ncontent-(type|length|encoding):/i)
    t.notMatch(bare, /\r\ntransfer-encoding:/i)
    t.ok(bare.endsWith('\r\n\r\n'))
  }
  for (const path of [USER, '/api/v3/nothing', `${USER}/NOTHING`]) {
    const head = await exchange(base, [`HEAD ${path} HTTP/1.1`, `Authorization: Bearer ${token}`])
    t.match(head, path === USER ? /^HTTP\/1\.1 200 / : /^HTTP\/1\.1 404 /)
    t.ok(head.endsWith('\r\n\r\n'), `HEAD ${path} has no body`)
  }
})

t.test('without COFFER_PUBLIC_URL links begin with where the server listens, never with Host', async (t) => {
  const { base, ask, sealed } = await prepare(t)
  const body = await sealed('value')
  for (const name of ['A', 'B']) await ask('PUT', `${USER}/${name}`, { body })
  const listed = await ask('GET', `${USER}?per_page=1`, {
    headers: { host: 'evil.example', 'x-forwarded-host': 'evil.example' }
  })
  t.equal(
    listed.headers.link,
    `<${base}${USER}?per_page=1&page=2>; rel="next", <${base}${USER}?per_page=1&page=2>; rel="last"`
  )
  t.equal(JSON.parse(listed.body).secrets[0].selected_repositories_url, `${base}${USER}/A/repositories`)
})
