// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { randomUUID } from 'node:crypto'
import { on, once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { sendRaw } from '../raw-http.ts'
import { makeServiceAccount } from '../routes/rpc/machines.ts'
import { furnish as furnishWorld, RUNNING, type World } from './world.ts'

// Commands in environments, as far as the server has to do with them: who is let in, and that bytes are passed on.

t.setTimeout(120_000)

const EXEC = '/api/coffer.v1.EnvironmentService/Exec'
const ATTACH = '/api/coffer.v1.RunnerInterfaceService/Attach'
const SERVE = '/api/coffer.v1.RunnerInterfaceService/Serve'

interface Refusal {
  status: number
  type: string | undefined
  body: any
}

async function furnish(t: Test, options = {}) {
  const world = await furnishWorld(t, options)
  await world.openProject()
  const url = await world.listen()
  const sockets = new Set<WebSocket>()
  t.teardown(() => {
    for (const socket of sockets) socket.terminate()
  })
  const open = (target: string, token: string | undefined): WebSocket => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const socket = new WebSocket(`${url.replace('http', 'ws')}${target}`, { headers })
    sockets.add(socket)
    heard.set(socket, on(socket, 'message')[Symbol.asyncIterator]() as AsyncIterator<unknown[]>)
    socket.on('error', () => {})
    return socket
  }
  return Object.assign(world, {
    url,
    async connect(target: string, token: string | undefined): Promise<WebSocket> {
      const socket = open(target, token)
      await once(socket, 'open')
      return socket
    },
    async refused(target: string, token: string | undefined): Promise<Refusal> {
      const socket = open(target, token)
      const answered = new Promise<IncomingMessage>((resolve, reject) => {
        socket.once('unexpected-response', (_request, response) => resolve(response))
        socket.once('open', () => reject(new Error(`${target} let somebody in`)))
      })
      const response = await answered
      let text = ''
      for await (const chunk of response) text += chunk
      return {
        status: response.statusCode!,
        type: response.headers['content-type'],
        body: JSON.parse(text)
      }
    },
    /** an environment that runs, and where its runner's process is attached: it answers what it hears, and its name */
    async run(token: string, more: object = {}): Promise<string> {
      const assignment = await world.start(token, more)
      await world.runner.report(assignment, RUNNING)
      const { id } = await world.db
        .selectFrom('runners')
        .select('id')
        .where('uid', '=', world.runner.id)
        .executeTakeFirstOrThrow()
      world.app.attachments.add(
        { runner: id, holder: world.runner.holder },
        {
          exec(environmentId: string, stream: Duplex) {
            stream.write(environmentId)
            stream.pipe(stream)
          }
        }
      )
      return assignment.environmentId
    }
  })
}

function exec(environmentId: string): string {
  return `${EXEC}?environmentId=${environmentId}`
}

/** What each socket has heard, from the beginning. */
const heard = new WeakMap<WebSocket, AsyncIterator<unknown[]>>()

async function nextMessage(socket: WebSocket): Promise<string> {
  const { value } = await heard.get(socket)!.next()
  return String(value[0])
}

async function actions({ db }: World, action: string): Promise<(string | null)[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select('actor_uid')
    .where('action', '=', action)
    .orderBy('id')
    .execute()
  return rows.map(({ actor_uid }) => actor_uid)
}

t.test('whoever may enter talks to the runner, and that is recorded', async (t) => {
  const world = await furnish(t)
  const { ask, owner, member } = world
  const environmentId = await world.run(member.token)
  const { accessToken } = await ask(
    'EnvironmentService/CreateEnvironmentAccessToken',
    { environmentId },
    member.token
  )
  for (const token of [member.token, owner.token, accessToken]) {
    const socket = await world.connect(exec(environmentId), token)
    t.equal(await nextMessage(socket), environmentId)
    const bytes = Buffer.alloc(300_000, 'x')
    socket.send(bytes)
    let echoed = 0
    while (echoed < bytes.length) echoed += (await nextMessage(socket)).length
    t.equal(echoed, bytes.length)
    socket.close()
  }
  t.strictSame(await actions(world, 'development_environment.exec'), [
    member.account.uid,
    owner.account.uid,
    environmentId
  ])
})

t.test('everybody else is refused, in HTTP, before there is a session', async (t) => {
  const world = await furnish(t)
  const { ask, owner, member, stranger, admin } = world
  const environmentId = await world.run(owner.token)
  const { accessToken: logs } = await ask('EnvironmentService/CreateEnvironmentLogsToken', { environmentId })
  const other = await world.create()
  const { accessToken: ofOther } = await ask('EnvironmentService/CreateEnvironmentAccessToken', {
    environmentId: other.id
  })
  const { token: reading } = await ask('UserService/CreatePersonalAccessToken', {
    userId: owner.account.uid,
    description: 'reads',
    validFor: '86400s',
    readOnly: true
  })
  const [deliver] = await world.runner.claim()
  const bot = await makeServiceAccount(world, owner.token)
  const few = await world.createToken(owner.account, { scopes: ['repo'] })
  const fine = await world.createToken(owner.account, { permissions: { codespaces_user_secrets: 'write' } })
  const cells: [string, string | undefined, number, string][] = [
    ['no token', undefined, 401, 'unauthenticated'],
    ['none of ours', 'coffer_pat_nope', 401, 'unauthenticated'],
    ['a member, not the creator', member.token, 404, 'not_found'],
    ['a stranger', stranger.token, 404, 'not_found'],
    ['a site administrator', admin.token, 404, 'not_found'],
    ['a service account', bot.token, 404, 'not_found'],
    ['a token without the scope', few, 403, 'permission_denied'],
    ['a fine-grained token', fine, 403, 'permission_denied'],
    ['a token that only reads', reading, 403, 'permission_denied'],
    ['a token for logs', logs, 403, 'permission_denied'],
    ['a token that delivers', deliver.accessToken, 403, 'permission_denied'],
    ['a token for another environment', ofOther, 404, 'not_found'],
    ['the runner', world.runner.token, 403, 'permission_denied']
  ]
  for (const [name, token, status, code] of cells) {
    t.match(
      await world.refused(exec(environmentId), token),
      {
        status,
        type: 'application/json',
        body: { code, message: /.+/ }
      },
      name
    )
  }
  t.match(await world.refused(exec(randomUUID()), owner.token), { status: 404, body: { code: 'not_found' } })
  t.strictSame(await actions(world, 'development_environment.exec'), [])
})

t.test('where secrets of its creator are held, an owner is refused', async (t) => {
  const world = await furnish(t)
  const { owner, member } = world
  await world.addSecret('MINE', 'x', { scope: { userId: member.account.uid } }, member.token)
  const environmentId = await world.run(member.token)
  t.match(await world.refused(exec(environmentId), owner.token), {
    status: 403,
    body: { code: 'permission_denied', message: /creator/ }
  })
  const socket = await world.connect(exec(environmentId), member.token)
  t.equal(await nextMessage(socket), environmentId)
})

t.test('what does not run, or whose runner is not here, says so', async (t) => {
  const world = await furnish(t)
  const { ask, owner, runner, db } = world
  const assignment = await world.start()
  const target = exec(assignment.environmentId)
  const conflict = (message: RegExp) => ({ status: 400, body: { code: 'failed_precondition', message } })
  t.match(await world.refused(target, owner.token), conflict(/not running/))
  await runner.report(assignment, RUNNING)
  t.match(await world.refused(target, owner.token), conflict(/another server/))
  await world.run(owner.token)
  t.equal(await nextMessage(await world.connect(target, owner.token)), assignment.environmentId)
  await db
    .updateTable('environments')
    .set({ lease_until: new Date(0) })
    .execute()
  t.match(
    await world.refused(target, owner.token),
    conflict(/another server/),
    'who has no lease is not asked'
  )
  await ask('EnvironmentService/DeleteEnvironment', {
    environmentId: assignment.environmentId,
    force: true
  })
  t.match(await world.refused(target, owner.token), { status: 404 })
})

t.test('a session ends with its token, and with the standing of who is in it', async (t) => {
  const world = await furnish(t)
  const { ask, owner, member, acme } = world
  const environmentId = await world.run(member.token)
  const second = await world.createUser('olaf')
  await world.addMember(acme, second, 'admin')
  const demoted = await world.createToken(second, { scopes: ['codespace', 'admin:org'] })
  const { token } = await ask(
    'UserService/CreatePersonalAccessToken',
    { userId: member.account.uid, description: 'short', validFor: '86400s' },
    member.token
  )
  const kept = await world.connect(exec(environmentId), member.token)
  const ending = [
    await world.connect(exec(environmentId), token),
    await world.connect(exec(environmentId), demoted)
  ]
  const closed = Promise.all(ending.map((socket) => once(socket, 'close')))
  const { personalAccessTokens } = await ask('UserService/ListPersonalAccessTokens', {}, member.token)
  const { id: personalAccessTokenId } = personalAccessTokens.find((one: any) => one.description === 'short')
  await ask('UserService/DeletePersonalAccessToken', { personalAccessTokenId }, member.token)
  await ask('OrganizationService/SetRole', {
    organizationId: acme.uid,
    userId: second.uid,
    role: 'ORGANIZATION_ROLE_MEMBER'
  })
  await closed
  t.equal(kept.readyState, WebSocket.OPEN)
  const last = once(kept, 'close')
  await ask('EnvironmentService/DeleteEnvironment', { environmentId, force: true }, owner.token)
  await last
})

t.test('a runner elsewhere is called, comes, and bytes go both ways', async (t) => {
  const world = await furnish(t)
  const { owner, runner } = world
  const assignment = await world.start()
  await runner.report(assignment, RUNNING)
  const { environmentId } = assignment
  const attached = await world.connect(`${ATTACH}?holder=${runner.holder}`, runner.token)
  const call = nextMessage(attached)
  const client = await world.connect(exec(environmentId), owner.token)
  const called = JSON.parse(await call)
  t.match(called, { environmentId, session: /^[0-9a-f-]{36}$/ })
  const stranger = await world.addRunner(world.stranger.token)
  const sibling = await world.addRunner()
  const target = `${SERVE}?session=${called.session}`
  for (const token of [stranger.token, sibling.token]) {
    t.match(await world.refused(target, token), { status: 404, body: { code: 'not_found' } })
  }
  t.match(await world.refused(target, owner.token), { status: 403, body: { code: 'permission_denied' } })
  const serving = await world.connect(target, runner.token)
  client.send('to the runner')
  t.equal(await nextMessage(serving), 'to the runner')
  serving.send('to the client')
  t.equal(await nextMessage(client), 'to the client')
  t.match(await world.refused(target, runner.token), { status: 404 }, 'once')
  const gone = once(client, 'close')
  serving.terminate()
  await gone
})

t.test('the client leaves, and so does the runner; it leaves before, and nobody is served', async (t) => {
  const world = await furnish(t)
  const { owner, runner } = world
  const assignment = await world.start()
  await runner.report(assignment, RUNNING)
  const attached = await world.connect(`${ATTACH}?holder=${runner.holder}`, runner.token)
  const begin = async () => {
    const call = nextMessage(attached)
    const client = await world.connect(exec(assignment.environmentId), owner.token)
    return { client, target: `${SERVE}?session=${JSON.parse(await call).session}` }
  }
  const one = await begin()
  const serving = await world.connect(one.target, runner.token)
  const gone = once(serving, 'close')
  one.client.close()
  await gone
  const other = await begin()
  const left = once(other.client, 'close')
  other.client.terminate()
  await left
  const until = async () => {
    for (;;) {
      const socket = new WebSocket(`${world.url.replace('http', 'ws')}${other.target}`, {
        headers: { authorization: `Bearer ${runner.token}` }
      })
      socket.on('error', () => {})
      const [status] = await Promise.race([
        once(socket, 'unexpected-response').then(([, response]) => [response.statusCode]),
        once(socket, 'close').then(() => ['closed'])
      ])
      if (status === 404) return status
    }
  }
  t.equal(await until(), 404)
  attached.terminate()
  await once(attached, 'close')
})

t.test('a runner is not taken for the process of another one, whatever it says', async (t) => {
  const world = await furnish(t)
  const { owner } = world
  const environmentId = await world.run(owner.token)
  const stranger = await world.addRunner(world.stranger.token)
  const sibling = await world.addRunner()
  for (const { token } of [stranger, sibling]) {
    const attached = await world.connect(`${ATTACH}?holder=${world.runner.holder}`, token)
    attached.on('message', () => t.fail('it is called'))
  }
  const client = await world.connect(exec(environmentId), owner.token)
  t.equal(await nextMessage(client), environmentId, 'the real one answers')
})

t.test('only runners attach', async (t) => {
  const world = await furnish(t)
  const target = `${ATTACH}?holder=${randomUUID()}`
  t.match(await world.refused(target, undefined), { status: 401 })
  t.match(await world.refused(target, world.owner.token), {
    status: 403,
    body: { code: 'permission_denied', message: /token of a runner/ }
  })
})

t.test('the line to a runner that is deleted ends', async (t) => {
  const world = await furnish(t)
  const other = await world.addRunner()
  const attached = await world.connect(`${ATTACH}?holder=${randomUUID()}`, other.token)
  const closed = once(attached, 'close')
  await world.ask('RunnerService/DeleteRunner', { runnerId: other.id })
  await closed
})

t.test('queries that are none', async (t) => {
  const world = await furnish(t)
  const { owner, runner } = world
  const queries: [string, string][] = [
    [EXEC, owner.token],
    [`${EXEC}?`, owner.token],
    [`${EXEC}?environmentId=`, owner.token],
    [`${EXEC}?environmentId=%00`, owner.token],
    [`${EXEC}?environmentId=%zz`, owner.token],
    [`${EXEC}?environmentId=${'a'.repeat(8000)}`, owner.token],
    [`${EXEC}?environmentId=../../x`, owner.token],
    [`${EXEC}?environmentid=${randomUUID()}`, owner.token],
    [`${ATTACH}?holder=1`, runner.token],
    [`${SERVE}?session='`, runner.token]
  ]
  for (const [target, token] of queries) {
    t.match(await world.refused(target, token), { status: 400, body: { code: 'invalid_argument' } }, target)
  }
})

t.test('targets that are no URL end no server', async (t) => {
  const world = await furnish(t)
  const upgrade = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
  for (const target of ['//', '///', 'http://[/', '*', '/%zz', '/?%zz', `//x${EXEC}`, '/../..']) {
    const answer = await sendRaw(
      world.url,
      `GET ${target} HTTP/1.1\r\n${upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\n` +
        'Connection: close\r\n\r\n'
    )
    t.ok(answer && answer.statusCode >= 200 && answer.statusCode < 500, `${target}: ${answer?.statusCode}`)
  }
  t.equal((await world.request('GET', '/healthz')).statusCode, 200)
})

t.test('who is refused and does not leave is left', async (t) => {
  const world = await furnish(t)
  const answer = await sendRaw(
    world.url,
    `GET ${exec(randomUUID())} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\n\r\n`
  )
  t.equal(answer?.statusCode, 401)
  t.equal(answer?.headers.connection, 'close')
  const { connections } = await new Promise<{ connections: number }>((resolve) =>
    world.app.server.getConnections((_error, connections) => resolve({ connections }))
  )
  t.equal(connections, 0)
})
