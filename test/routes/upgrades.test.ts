import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { makeCertificates } from '../clients/certificates.ts'
import { startTestServer, type TestServer } from '../helper.ts'

// Requests that would like another protocol, as curl and Java's HttpClient send them, are served in the one they are in.

const UPGRADE = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n'

interface Answer {
  status: number
  headers: string
  body: string
}

/** Reads answers with a length one after the other, from a connection that stays. */
class Line {
  #text = ''
  readonly #socket: Socket
  #wake = () => {}
  ended = false

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('latin1')
    socket.on('data', (chunk) => {
      this.#text += chunk
      this.#wake()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.ended = true
      this.#wake()
    })
  }

  send(bytes: string | Buffer): void {
    this.#socket.write(bytes)
  }

  async answer(): Promise<Answer | undefined> {
    for (;;) {
      const end = this.#text.indexOf('\r\n\r\n')
      const headers = this.#text.slice(0, end)
      const length = Number(/content-length: (\d+)/i.exec(headers)?.[1] ?? 0)
      if (end >= 0 && this.#text.length >= end + 4 + length) {
        const body = this.#text.slice(end + 4, end + 4 + length)
        this.#text = this.#text.slice(end + 4 + length)
        return { status: Number(headers.split(' ')[1]), headers, body }
      }
      if (this.ended) return undefined
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  async close(): Promise<void> {
    while (!this.ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}

function open(t: Test, url: string): Line {
  const { hostname, port, protocol } = new URL(url)
  const target = { host: hostname, port: Number(port) }
  const socket =
    protocol === 'https:' ? connectTls({ ...target, rejectUnauthorized: false }) : connect(target)
  t.teardown(() => socket.destroy())
  return new Line(socket)
}

function get(server: TestServer, more = UPGRADE): string {
  return `GET /user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${server.admin.token}\r\n${more}\r\n`
}

function put(server: TestServer, name: string, sealed: object, framing: 'length' | 'chunked'): string {
  const body = JSON.stringify(sealed)
  const half = body.length >> 1
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
  const [header, bytes] =
    framing === 'length'
      ? [`Content-Length: ${body.length}\r\n`, body]
      : ['Transfer-Encoding: chunked\r\n', `${chunk(body.slice(0, half))}${chunk(body.slice(half))}0\r\n\r\n`]
  return (
    `PUT /user/codespaces/secrets/${name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${server.admin.token}\r\n` +
    `Content-Type: application/json\r\n${UPGRADE}${header}\r\n${bytes}`
  )
}

async function exchange(t: Test, server: TestServer, url: string): Promise<void> {
  const sealed = await server.seal('/user/codespaces/secrets', server.admin.token, 'x')
  const line = open(t, url)
  for (let times = 0; times < 25; times++) {
    line.send(get(server))
    const answer = await line.answer()
    t.equal(answer?.status, 200)
    t.equal(JSON.parse(answer!.body).login, 'root')
    t.notMatch(answer!.headers, /connection: close/i)
  }
  for (const framing of ['length', 'chunked'] as const) {
    line.send(put(server, `BY_${framing.toUpperCase()}`, sealed, framing))
    t.equal((await line.answer())?.status, 201, framing)
  }
  line.send(put(server, 'SLOWLY', sealed, 'length').slice(0, -20))
  line.send(put(server, 'SLOWLY', sealed, 'length').slice(-20))
  t.equal((await line.answer())?.status, 201, 'in pieces')
  line.send(get(server) + get(server, '') + get(server))
  const answers = [await line.answer(), await line.answer(), await line.answer()]
  t.strictSame(
    answers.map((answer) => answer?.status),
    [200, 200, 200],
    'one behind the other'
  )
  line.send(get(server, 'Connection: close, Upgrade\r\nUpgrade: h2c\r\n'))
  t.equal((await line.answer())?.status, 200)
  await line.close()
}

/** What Node says when something piles up. */
function hearWarnings(t: Test): string[] {
  const heard: string[] = []
  const hear = (warning: Error) => heard.push(warning.message)
  process.on('warning', hear)
  t.teardown(() => process.off('warning', hear))
  return heard
}

t.test('h2c, with and without a body, on one connection', async (t) => {
  const warnings = hearWarnings(t)
  const server = await startTestServer(t)
  await exchange(t, server, await server.listen())
  t.strictSame(warnings, [])
})

t.test('the same over TLS', async (t) => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-upgrade-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const { cert, key } = makeCertificates(folder)
  const tls = { cert: await readFile(cert), key: await readFile(key) }
  const warnings = hearWarnings(t)
  const server = await startTestServer(t, { tls })
  await exchange(t, server, await server.listen())
  t.strictSame(warnings, [])
})

t.test('a WebSocket where there is none, and other protocols', async (t) => {
  const server = await startTestServer(t)
  const url = await server.listen()
  for (const protocol of ['websocket', 'WebSocket', 'h2c', 'TLS/1.0', 'foo/2, bar']) {
    const line = open(t, url)
    line.send(get(server, `Connection: Upgrade\r\nUpgrade: ${protocol}\r\n`))
    t.equal((await line.answer())?.status, 200, protocol)
    line.send('GET /nothing/here HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    t.equal((await line.answer())?.status, 404)
  }
})

t.test('what is wrong with such a request is answered as before', async (t) => {
  const server = await startTestServer(t)
  const url = await server.listen()
  const line = open(t, url)
  line.send(`GET /user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nope\r\n${UPGRADE}\r\n`)
  t.equal((await line.answer())?.status, 401)
  line.send(`GET /user HTTP/1.1\r\nHost: x\r\nX-Header: caf\xe9\r\n${UPGRADE}\r\n`)
  t.equal((await line.answer())?.status, 401)
  line.send(get(server))
  t.equal((await line.answer())?.status, 200)
  line.send('GET /user HTTP/9.9\r\n\r\n')
  t.equal((await line.answer())?.status, 400)
  await line.close()
})

t.test('a server that closes does not wait for such connections', async (t) => {
  const server = await startTestServer(t)
  const line = open(t, await server.listen())
  line.send(get(server))
  t.equal((await line.answer())?.status, 200)
  await server.app.close()
  await line.close()
  t.ok(line.ended)
})
