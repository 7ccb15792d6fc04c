import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import WebSocket, { createWebSocketStream } from 'ws'
import { VERSION } from '../../version.ts'
import {
  type Answer,
  type ApiClient,
  type ApiRequest,
  RefusedByServer,
  requireSuccess
} from '../api-client.ts'
import { noAnswerOf } from '../no-answer.ts'
import { CommandFailed } from '../terminal.ts'

const PATH = '/api/coffer.v1.EnvironmentService/Exec'
const REQUEST: ApiRequest = { method: 'GET', path: PATH }
const TIMEOUT_MS = 30_000
/** A server that is there sends a ping every 20 seconds. */
const SILENCE_MS = 50_000

/**
 * A stream to the runner of an environment, for one command.
 *
 * @throws CommandFailed when the server refuses, or does not answer
 */
export async function openSession(client: ApiClient, environmentId: string): Promise<Duplex> {
  const socket = new WebSocket(
    `${client.url.replace(/^http/, 'ws')}${PATH}?environmentId=${encodeURIComponent(environmentId)}`,
    {
      headers: { authorization: `Bearer ${client.token}`, 'user-agent': `coffer/${VERSION}` },
      perMessageDeflate: false,
      followRedirects: false,
      handshakeTimeout: TIMEOUT_MS
    }
  )
  // Before it is open: what comes with the opening is told once.
  const stream = createWebSocketStream(socket)
  stream.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    socket.once('open', () => resolve())
    socket.on('error', (cause) => reject(noAnswerOf(client, { cause }, TIMEOUT_MS)))
    socket.once('unexpected-response', (_request, response) => {
      refusalOf(client, response)
        .catch((cause) => noAnswerOf(client, { cause }, TIMEOUT_MS))
        .then((error) => {
          reject(error)
          socket.terminate()
        })
    })
  })
  endWhenSilent(socket)
  return stream
}

function endWhenSilent(socket: WebSocket): void {
  const hear = () => {
    clearTimeout(timer)
    timer = setTimeout(() => socket.terminate(), SILENCE_MS)
  }
  let timer: NodeJS.Timeout | undefined
  hear()
  socket.on('ping', hear)
  socket.once('close', () => clearTimeout(timer))
}

/** An answer of HTTP instead of a WebSocket. */
async function refusalOf(client: ApiClient, response: IncomingMessage): Promise<CommandFailed> {
  try {
    requireSuccess(client, REQUEST, await readAnswer(response))
  } catch (error) {
    if (!(error instanceof RefusedByServer)) return error as CommandFailed
    return new CommandFailed(
      error.answered === 405
        ? `${error.message}\n  A proxy on the way does not pass WebSockets on.`
        : error.message
    )
  }
  return new CommandFailed(
    `What answers at ${client.url} opens no WebSocket: a proxy on the way may not pass it on.`
  )
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const body = await text(response)
  const headers = new Headers()
  for (const [name, value] of Object.entries(response.headers)) {
    if (typeof value === 'string') headers.set(name, value)
  }
  return { status: response.statusCode ?? 0, headers, body: parse(body), maybeDone: false }
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}
