import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import path from 'node:path'
import t, { type Test } from 'tap'
import { RemoteServer } from '../../src/runner/remote.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { EXCHANGE_TOKEN, type HttpServer, send, serveHttp } from './http-server.ts'
import { MemoryServer } from './memory-server.ts'
import { makeDataDir, runInside, startRunner } from './running.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// The wire between a runner and a server elsewhere.

const SERVICE = 'coffer.v1.RunnerInterfaceService'
const HOURS = 3_600_000
const CLAIM = { holder: crypto.randomUUID(), held: [], capacity: 10, waitSeconds: 0 }

async function connect(t: Test, token = EXCHANGE_TOKEN) {
  const memory = new MemoryServer()
  const http = await serveHttp(t, memory)
  const { dataDir } = await makeDataDir(t)
  const file = path.join(dataDir, 'runner-token')
  const open = (given = token) => new RemoteServer({ url: `${http.url}/`, token: given, file })
  return { memory, http, file, open, remote: open() }
}

function methodsOf({ requests }: HttpServer): string[] {
  return requests.map(({ method }) => method.split('/')[1]!)
}

t.test('a runner works for a server over HTTP', async (t) => {
  const { memory, http, remote } = await connect(t)
  const { runner } = await startRunner(t, remote)
  const bytes = Buffer.from([0, 255, 1, 254])
  const secrets = [
    memory.secret('BYTES', { kind: 'file', path: '/workspace/bytes' }, bytes),
    memory.secret('EMPTY', { kind: 'variable', name: 'EMPTY' }, ''),
    memory.secret('GONE', { kind: 'variable', name: 'GONE' })
  ]
  memory.values.delete(secrets[2]!.id)
  const id = memory.add({ secrets })
  t.match((await memory.untilPhase(id, 'RUNNING')).secrets, [
    { phase: 'CONTENT_PHASE_READY' },
    { phase: 'CONTENT_PHASE_READY' },
    { phase: 'CONTENT_PHASE_FAILED', failureMessage: 'There is no such secret.' }
  ])
  t.match(await runInside(runner, id, 'od -An -tx1 bytes; printenv EMPTY'), { stdout: ' 00 ff 01 fe\n\n' })
  memory.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  await memory.untilPhase(id, 'DELETED')
  const values = http.requests.filter(({ method }) => method.endsWith('GetSecretValue'))
  t.ok(values.every(({ token }) => token === memory.assignmentOf(id).accessToken))
  t.ok(http.requests.every(({ method, token }) => !method.startsWith(SERVICE) || token === http.token))
})

t.test('members that are left out have their default', async (t) => {
  const { memory, http, remote } = await connect(t)
  t.same(await remote.claim(CLAIM), [])
  t.same(await remote.renew(CLAIM.holder, []), [])
  t.same(await remote.findEnvironments([crypto.randomUUID()]), [])
  const environmentId = crypto.randomUUID()
  const id = crypto.randomUUID()
  http.instead = (method, response) => {
    const sources = [{ remoteUri: 'https://example.com' }]
    const secrets = [{ id, mount: { kind: 'api-only' } }]
    const assignments = [
      { environmentId, epoch: '3', content: { sources }, secrets },
      { environmentId, epoch: 3 }
    ]
    if (method.endsWith('ClaimEnvironments')) send(response, 200, { assignments })
    return method.endsWith('ClaimEnvironments')
  }
  const [full, bare] = await remote.claim(CLAIM)
  t.match(full, {
    environmentId,
    epoch: 3,
    specVersion: '',
    content: {
      sources: [{ remoteUri: 'https://example.com', upstreamRemoteUri: '', checkoutLocation: '' }],
      session: ''
    },
    secrets: [{ id, name: '', session: '', mount: { kind: 'api-only' } }]
  })
  t.match(bare, { epoch: 3, content: { sources: [], gitUsername: '' }, secrets: [] })
  const environment = memory.add({ secrets: [memory.secret('EMPTY', { kind: 'api-only' }, '')] })
  http.instead = () => false
  const [assignment] = await remote.claim(CLAIM)
  t.equal(assignment!.environmentId, environment)
  t.same(await remote.readSecret(assignment!.accessToken, assignment!.secrets[0]!.id), Buffer.alloc(0))
})

t.test('ids that are no UUIDs are not taken: they become names of folders', async (t) => {
  const { http, remote } = await connect(t)
  for (const assignment of [
    { environmentId: '../../etc' },
    { environmentId: crypto.randomUUID(), secrets: [{ id: '../x', mount: { kind: 'api-only' } }] }
  ]) {
    http.instead = (method, response) => {
      if (method.endsWith('ClaimEnvironments')) send(response, 200, { assignments: [assignment] })
      return method.endsWith('ClaimEnvironments')
    }
    await t.rejects(remote.claim(CLAIM), { message: /is not a UUID/ })
  }
})

t.test('what a failure means', async (t) => {
  const { http, remote } = await connect(t)
  await remote.claim(CLAIM)
  const lease = { environmentId: crypto.randomUUID(), epoch: 1 }
  const report = {
    phase: 'ENVIRONMENT_PHASE_RUNNING',
    specVersion: '1',
    secrets: [],
    secretsInSync: true
  } as const
  const message = 'It is so.'
  const answer = (status: number, body: unknown) => {
    http.instead = (_, response) => {
      send(response, status, body)
      return true
    }
  }
  const value = () => remote.readSecret('token', crypto.randomUUID())
  answer(409, { code: 'aborted', message })
  await t.rejects(remote.report(lease, report), { name: 'LeaseLost' })
  await t.rejects(value(), { name: 'LeaseLost' })
  answer(401, { code: 'unauthenticated', message })
  await t.rejects(value(), { name: 'LeaseLost' })
  await t.rejects(remote.report(lease, report), { code: 'refused_to_start', message: /exchange token/ })
  for (const code of ['not_found', 'permission_denied', 'failed_precondition', 'invalid_argument']) {
    answer(400, { code, message })
    await t.rejects(value(), { name: 'ValueRefused', message })
    await t.rejects(remote.report(lease, report), { name: 'ConnectError', code })
  }
  for (const code of ['unavailable', 'deadline_exceeded', 'resource_exhausted', 'canceled']) {
    answer(503, { code, message })
    await t.rejects(value(), { code: 'unavailable' })
    await t.rejects(remote.claim(CLAIM), { name: 'Unavailable' })
  }
  answer(500, { code: 'internal', message })
  await t.rejects(value(), { name: 'ConnectError', code: 'internal' })
  answer(502, 'a proxy')
  await t.rejects(value(), { name: 'Unavailable' })
  answer(404, 'another server')
  await t.rejects(value(), { message: /is not Coffer \(status 404\)/ })
  answer(200, { valueBase64: 'no base64!' })
  await t.rejects(value(), { message: 'a value is not base64' })
  http.instead = (_, response) => {
    response.end('<html>secret</html>')
    return true
  }
  await t.rejects(value(), { message: /is not Coffer/ })
  http.instead = (_, response) => {
    response.writeHead(307, { location: 'http://127.0.0.1:1/' }).end()
    return true
  }
  await t.rejects(value(), { name: 'Unavailable' }, 'no other server gets the token')
  await http.stop()
  await t.rejects(remote.claim(CLAIM), { name: 'Unavailable' })
})

t.test('a wait for work ends when nobody wants it', async (t) => {
  const { remote, http } = await connect(t)
  const closed = new AbortController()
  const claimed = remote.claim({ ...CLAIM, waitSeconds: 30 }, closed.signal)
  while (!methodsOf(http).includes('ClaimEnvironments')) await new Promise(setImmediate)
  closed.abort()
  await t.rejects(claimed, { name: 'AbortError' })
})

t.test('a server that takes connections and says nothing is away', async (t) => {
  const silent = createServer()
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  t.teardown(() => silent.close())
  const { call } = await import('../../src/runner/connect.ts')
  const { port } = silent.address() as { port: number }
  await t.rejects(call({ url: `http://127.0.0.1:${port}`, method: 'a/b', body: {}, timeoutMs: 100 }), {
    name: 'Unavailable'
  })
})

t.test('the token of a runner', async (t) => {
  await t.test('is exchanged once, whoever asks first, and kept', async (t) => {
    const { http, remote, file, open } = await connect(t)
    await Promise.all([remote.claim(CLAIM), remote.renew(CLAIM.holder, []), remote.findEnvironments([])])
    t.equal(methodsOf(http).filter((method) => method === 'ExchangeToken').length, 1)
    t.equal((await stat(file)).mode & 0o777, 0o600)
    const kept = await readFile(file, 'utf8')
    t.ok(kept.includes(http.token))
    t.notOk(kept.includes(EXCHANGE_TOKEN))
    await open().claim(CLAIM)
    t.equal(methodsOf(http).filter((method) => method === 'ExchangeToken').length, 1)
    await t.rejects(open('coffer_rex_another').claim(CLAIM), { message: /not valid.*Make another one/ })
  })

  await t.test('is exchanged later when the server is away', async (t) => {
    const { http, remote } = await connect(t)
    await http.stop()
    await t.rejects(remote.claim(CLAIM), { name: 'Unavailable' })
    await http.listen()
    t.same(await remote.claim(CLAIM), [])
  })

  await t.test('is renewed in time, and the old one serves until then', async (t) => {
    const { http, remote, file, open } = await connect(t)
    await remote.claim(CLAIM)
    const kept = JSON.parse(await readFile(file, 'utf8'))
    await writeFile(file, JSON.stringify({ ...kept, renewedAt: Date.now() - 5 * HOURS }))
    await open().claim(CLAIM)
    t.notOk(methodsOf(http).includes('RenewToken'))
    await writeFile(file, JSON.stringify({ ...kept, renewedAt: Date.now() - 7 * HOURS }))
    const again = open()
    await again.claim(CLAIM).catch(() => {})
    while (!(await readFile(file, 'utf8')).includes('coffer_run_2')) await new Promise(setImmediate)
    // It is written down before it is used; this server does not know the old one any more.
    while (http.requests.at(-1)!.token !== 'coffer_run_2') await again.claim(CLAIM).catch(() => {})
    t.same(await again.claim(CLAIM), [])
    t.equal(methodsOf(http).filter((method) => method === 'RenewToken').length, 1)
    t.equal(http.requests.at(-1)!.token, 'coffer_run_2')
  })

  await t.test('may be given itself', async (t) => {
    const { http, remote, file } = await connect(t, 'coffer_run_0')
    t.same(await remote.claim(CLAIM).catch(() => []), [])
    const keeps = async (token: string) => (await readFile(file, 'utf8').catch(() => '')).includes(token)
    while (!(await keeps('coffer_run_1'))) await new Promise(setImmediate)
    t.ok(methodsOf(http).includes('RenewToken'))
    t.notOk(methodsOf(http).includes('ExchangeToken'))
  })

  await t.test('that cannot be read is not overwritten', async (t) => {
    const { file, remote } = await connect(t)
    await writeFile(file, 'nonsense')
    await t.rejects(remote.claim(CLAIM), { code: 'refused_to_start', message: /cannot be read/ })
    t.equal(await readFile(file, 'utf8'), 'nonsense')
  })
})
