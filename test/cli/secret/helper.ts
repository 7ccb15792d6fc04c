import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import nacl from 'tweetnacl'
import sealedBox from 'tweetnacl-sealedbox-js'
import type { ApiClient } from '../../../src/cli/api-client.ts'

export interface Asked {
  method: string
  path: string
  authorization: string | undefined
  body: Record<string, unknown>
}

export interface Scripted {
  status: number
  headers?: Record<string, string>
  /** a string as it is, anything else as JSON; absent: none */
  body?: unknown
  /** instead of an answer */
  hangUp?: true
}

export interface ScriptedServer {
  url: string
  asked: Asked[]
  close(): Promise<void>
}

/** A server that answers as it is told: with GitHub's limits and failures, which Coffer does not have. */
export async function startScripted(
  t: Test,
  answer: (asked: Asked, number: number) => Scripted | Promise<Scripted>
): Promise<ScriptedServer> {
  const asked: Asked[] = []
  const server = createServer(async (request, response) => {
    const each = await readRequest(request)
    asked.push(each)
    const { status, headers, body, hangUp } = await answer(each, asked.length)
    if (hangUp) {
      request.socket.destroy()
      return
    }
    response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers })
    response.end(typeof body === 'string' || body === undefined ? body : JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  t.teardown(close)
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, close }
}

async function readRequest(request: IncomingMessage): Promise<Asked> {
  const pieces: Buffer[] = []
  for await (const piece of request) pieces.push(piece as Buffer)
  const text = Buffer.concat(pieces).toString()
  return {
    method: request.method!,
    path: request.url!,
    authorization: request.headers.authorization,
    body: text === '' ? {} : JSON.parse(text)
  }
}

/** A key pair of a server, and what it finds in a PUT. */
export function makeBoxes() {
  const { publicKey, secretKey } = nacl.box.keyPair()
  return {
    publicKey: { status: 200, body: { key_id: '17', key: Buffer.from(publicKey).toString('base64') } },
    open: ({ body }: Asked) =>
      Buffer.from(
        sealedBox.open(Buffer.from(body.encrypted_value as string, 'base64'), publicKey, secretKey)!
      ).toString()
  }
}

export function clientOf(url: string): ApiClient {
  return {
    url,
    token: 'token-of-the-test',
    expected: 'server of the test',
    remedies: { unreachable: 'Start it.', wrongUrl: 'Take another URL.', token: 'Take another token.' }
  }
}
