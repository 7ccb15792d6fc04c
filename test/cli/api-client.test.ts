import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import t from 'tap'
import {
  type ApiClient,
  type ApiRequest,
  ask,
  FailedByServer,
  RefusedByServer
} from '../../src/cli/api-client.ts'
import { NoAnswer } from '../../src/cli/no-answer.ts'
import { CommandFailed } from '../../src/cli/terminal.ts'
import { type Program, testWith } from '../installed.ts'
import { coffer, makeFolder } from './helper.ts'
import { clientOf, type Scripted, startScripted } from './secret/helper.ts'

const BOX = Buffer.alloc(90, 7).toString('base64')
const PUT = {
  method: 'PUT',
  path: '/user/codespaces/secrets/X',
  body: { encrypted_value: BOX, key_id: '1' }
} as const
const GET = { method: 'GET', path: '/repos/mona/web', notFound: 'There is no mona/web.' } as const

const scopes = (has: string, accepted: string) => ({
  'x-oauth-scopes': has,
  'x-accepted-oauth-scopes': accepted
})
const html = { 'content-type': 'text/html; charset=utf-8' }

async function failureOf(client: ApiClient, request: ApiRequest): Promise<Error> {
  return await ask(client, request).then(
    () => new Error('it was not refused'),
    (error: Error) => error
  )
}

t.test('what a server refuses is told on one line, with what to do below it', async (t) => {
  let answer: Scripted = { status: 200 }
  const { url } = await startScripted(t, () => answer)
  const client = clientOf(url)
  const refusals: [Scripted, string, typeof RefusedByServer | typeof FailedByServer][] = [
    [
      { status: 401, headers: scopes('', 'repo'), body: { message: 'Bad credentials' } },
      'Bad credentials (401, GET /repos/mona/web)\n  Take another token.',
      RefusedByServer
    ],
    [
      { status: 404, headers: scopes('codespace', 'repo'), body: { message: 'Not Found' } },
      'Not Found (404, GET /repos/mona/web)\n  The token has the scopes codespace; this needs repo.\n  There is no mona/web.',
      RefusedByServer
    ],
    [
      { status: 404, headers: scopes('repo, gist', 'repo'), body: { message: 'Not Found' } },
      'Not Found (404, GET /repos/mona/web)\n  There is no mona/web.',
      RefusedByServer
    ],
    [
      { status: 403, headers: scopes('', 'codespace, codespace:secrets'), body: { message: 'No' } },
      'No (403, GET /repos/mona/web)\n  The token has no scopes; this needs codespace or codespace:secrets.',
      RefusedByServer
    ],
    [
      { status: 403, headers: scopes('codespace', 'codespace:secrets'), body: { message: 'No' } },
      'No (403, GET /repos/mona/web)',
      RefusedByServer
    ],
    [
      { status: 403, headers: scopes('admin:org', 'read:org'), body: { message: 'No' } },
      'No (403, GET /repos/mona/web)',
      RefusedByServer
    ],
    [
      {
        status: 403,
        headers: { 'x-accepted-github-permissions': 'codespaces_secrets=write' },
        body: { message: 'Resource not accessible by personal access token' }
      },
      'Resource not accessible by personal access token (403, GET /repos/mona/web)\n' +
        '  The token needs the permission codespaces_secrets=write.',
      RefusedByServer
    ],
    [
      {
        status: 403,
        headers: { 'x-github-sso': 'required; url=https://github.test/orgs/acme/sso?a=b' },
        body: { message: 'Resource protected by organization SAML enforcement.' }
      },
      'Resource protected by organization SAML enforcement. (403, GET /repos/mona/web)\n' +
        '  Authorize the token for the organization: https://github.test/orgs/acme/sso?a=b',
      RefusedByServer
    ],
    [
      {
        status: 422,
        headers: scopes('repo', 'admin:org'),
        body: {
          message: 'Invalid\n\nrequest.',
          errors: ['one', { message: 'two' }, { field: 'f', code: 'c' }, 3]
        }
      },
      'Invalid request. (422, GET /repos/mona/web)\n  one\n  two\n  f: c',
      RefusedByServer
    ],
    [
      { status: 422, body: { message: `\x1b[31mred\x1b[0m ${'long '.repeat(400)}` } },
      `${`[31mred [0m ${'long '.repeat(400)}`.slice(0, 600)}… (422, GET /repos/mona/web)`,
      RefusedByServer
    ],
    [
      { status: 429, headers: { 'retry-after': '40' }, body: { message: 'Slow down' } },
      'Slow down (429, GET /repos/mona/web)\n  The server asks to wait 40 s. Run it again then.',
      FailedByServer
    ],
    [
      { status: 500, body: { message: 'Server Error' } },
      'Server Error (500, GET /repos/mona/web)',
      FailedByServer
    ],
    [{ status: 502, headers: html, body: '<html>' }, 'no message (502, GET /repos/mona/web)', FailedByServer],
    [{ status: 409, body: {} }, 'no message (409, GET /repos/mona/web)', RefusedByServer],
    [
      { status: 301, headers: { location: `${url}/repositories/17` }, body: { message: 'Moved' } },
      '/repos/mona/web has moved (301): it was renamed. Use its present name.',
      RefusedByServer
    ],
    [
      { status: 302, headers: { ...html, location: 'https://sso.test/login?token=1' }, body: '<html>' },
      `${url} leads to https://sso.test (302), which is not followed. Take another URL.`,
      RefusedByServer
    ]
  ]
  for (const [scripted, message, type] of refusals) {
    answer = scripted
    const error = await failureOf(client, GET)
    t.equal(error.message, message)
    t.type(error, type, message)
  }
})

t.test('an answer that is no JSON is no answer of the API', async (t) => {
  const statuses = [200, 201, 404, 406]
  const { url } = await startScripted(t, (_, number) => ({
    status: statuses[number - 1]!,
    headers: html,
    body: '<html>'
  }))
  for (const status of statuses) {
    const error = await failureOf(clientOf(url), GET)
    t.equal(
      error.message,
      `What answers at ${url} is no server of the test (status ${status}, text/html). Take another URL.`
    )
    t.type(error, CommandFailed)
  }
})

t.test('what was sent is not repeated, even where the server does', async (t) => {
  let message = ''
  const { url, asked } = await startScripted(t, () => ({
    status: 422,
    body: { message, errors: [{ message }] }
  }))
  for (message of [
    `Invalid request.\n\n${BOX} does not match /^(?:[A-Za-z0-9+\\/]{4})*$/.`,
    `with the token token-of-the-test in it`,
    `a piece of a box: ${BOX.slice(0, 70)}`
  ]) {
    const { message: told } = await failureOf(clientOf(url), PUT)
    t.match(told, '…')
    t.notMatch(told, BOX.slice(0, 60))
    t.notMatch(told, 'token-of-the-test')
  }
  t.equal(asked[0]!.authorization, 'Bearer token-of-the-test')
  t.equal(asked[0]!.body.encrypted_value, BOX)
})

t.test('no redirect is followed, so the token goes nowhere else', async (t) => {
  const other = await startScripted(t, () => ({ status: 200, body: {} }))
  const { url } = await startScripted(t, () => ({
    status: 307,
    headers: { location: `${other.url}/repos/mona/web` }
  }))
  await t.rejects(ask(clientOf(url), GET), /which is not followed/)
  t.same(other.asked, [])
})

t.test('without an answer the reason and the remedy are told', async (t) => {
  const server = await startScripted(t, () => ({ status: 200, hangUp: true }))
  const broken = await failureOf(clientOf(server.url), GET)
  t.type(broken, NoAnswer)
  t.equal((broken as NoAnswer).transient, true)
  t.match(
    broken.message,
    /^No server of the test answers at http:.* \(\w+\)\. If it has TLS, set COFFER_URL to https:/
  )
  await server.close()
  const absent = await failureOf(clientOf(server.url), GET)
  t.equal(absent.message, `No server of the test answers at ${server.url} (ECONNREFUSED). Start it.`)
})

const openssl: Program = { file: 'openssl', probe: ['version'], package: 'openssl' }

await testWith(t, openssl, 'a certificate that is not accepted is told with its remedy', async (t) => {
  const folder = await makeFolder(t)
  const port = await listenTls(folder, 'localhost')
  t.teardown(() => port.server.close())
  const list = (url: string, variables = {}) =>
    coffer(folder, ['secret', 'list', '--user'], { COFFER_URL: url, COFFER_TOKEN: 'x', ...variables })

  const untrusted = await list(`https://localhost:${port.number}`)
  t.equal(untrusted.code, 1)
  t.match(untrusted.stderr, /SELF_SIGNED_CERT.*Its certificate is not trusted: set NODE_EXTRA_CA_CERTS/)
  const trust = { NODE_EXTRA_CA_CERTS: path.join(folder, 'cert.pem') }
  const trusted = await list(`https://localhost:${port.number}`, trust)
  t.match(trusted, { code: 0, stdout: '', stderr: 'There are no codespaces secrets of the user.\n' })
  const misnamed = await list(`https://127.0.0.1:${port.number}`, trust)
  t.match(misnamed.stderr, /ALTNAME.*Its certificate is for another name/)

  const withoutTls = await list(`http://localhost:${port.number}`, trust)
  t.match(withoutTls.stderr, `If it has TLS, set COFFER_URL to https://localhost:${port.number}.`)

  const plain = await startScripted(t, () => ({ status: 200, body: {} }))
  const noTls = await list(plain.url.replace('http:', 'https:'))
  t.match(noTls.stderr, `There is no TLS there: set COFFER_URL to ${plain.url}.`)
  t.same(plain.asked, [])
})

async function listenTls(folder: string, name: string): Promise<{ server: Server; number: number }> {
  const files = ['-keyout', path.join(folder, 'key.pem'), '-out', path.join(folder, 'cert.pem')]
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`]
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  execFileSync('openssl', ['req', '-x509', '-days', '2', ...key, ...files, ...subject], { stdio: 'ignore' })
  const server = createServer(
    { key: readFileSync(path.join(folder, 'key.pem')), cert: readFileSync(path.join(folder, 'cert.pem')) },
    (_, response) => {
      response.setHeader('content-type', 'application/json')
      response.end('{"total_count":0,"secrets":[]}')
    }
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, number: (server.address() as AddressInfo).port }
}
