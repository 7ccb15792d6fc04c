import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import WebSocket, { createWebSocketStream } from 'ws'
import { isUuid } from './uuid.ts'

const SERVICE = 'api/coffer.v1.RunnerInterfaceService'
const AGAIN_MS = 2_000
/** A server that is there sends a ping every 20 seconds. */
const SILENCE_MS = 50_000

export interface AttachmentOptions {
  /** the server's, without `/api` */
  url: string
  token(): Promise<string>
  /** this process, as it says to the server who has its leases */
  holder: string
  exec(environmentId: string, stream: Duplex): void
  logger: Logger
}

/**
 * Keeps a line open over which the server calls a runner that it cannot reach itself, for each client that runs a
 * command; the runner then comes for that session with a line of its own.
 */
export class Attachment {
  readonly #options: AttachmentOptions
  readonly #closed = new AbortController()
  readonly #sockets = new Set<WebSocket>()
  readonly #loop: Promise<void>
  #onAttached = () => {}
  /** resolves when the line was open for the first time */
  readonly attached = new Promise<void>((resolve) => {
    this.#onAttached = resolve
  })

  constructor(options: AttachmentOptions) {
    this.#options = options
    this.#loop = this.#stayAttached()
  }

  async close(): Promise<void> {
    this.#closed.abort()
    for (const socket of this.#sockets) socket.terminate()
    await this.#loop
  }

  async #stayAttached(): Promise<void> {
    const { signal } = this.#closed
    while (!signal.aborted) {
      try {
        await this.#attach()
      } catch (error) {
        this.#options.logger.debug({ reason: (error as Error).message }, 'not attached to the server')
      }
      await sleep(AGAIN_MS, undefined, { signal }).catch(() => {})
    }
  }

  /** Returns when the line is over. */
  async #attach(): Promise<void> {
    const { url, token, holder, logger } = this.#options
    const socket = this.#open(url, `Attach?holder=${holder}`, await token())
    let silence: NodeJS.Timeout | undefined
    const hear = () => {
      clearTimeout(silence)
      silence = setTimeout(() => socket.terminate(), SILENCE_MS)
    }
    socket.on('ping', hear)
    socket.on('message', (message) => {
      this.#serve(String(message)).catch((error: Error) =>
        logger.warn({ reason: error.message }, 'a session could not be served')
      )
    })
    await opened(socket)
    this.#onAttached()
    hear()
    await new Promise<void>((resolve) => {
      socket.once('close', () => resolve())
    })
    clearTimeout(silence)
  }

  async #serve(message: string): Promise<void> {
    const { session, environmentId } = JSON.parse(message) as Record<string, unknown>
    if (typeof session !== 'string' || !isUuid(session)) return
    if (typeof environmentId !== 'string' || !isUuid(environmentId)) return
    const { url, token, exec } = this.#options
    const socket = this.#open(url, `Serve?session=${session}`, await token())
    const stream = createWebSocketStream(socket)
    // Whoever serves it hears of that by its end.
    stream.on('error', () => {})
    await opened(socket)
    exec(environmentId, stream)
  }

  /** Who listens has to begin before the next event: what comes with the opening is told right then, and never again. */
  #open(url: string, method: string, token: string): WebSocket {
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/${SERVICE}/${method}`, {
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
      followRedirects: false
    })
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    return socket
  }
}

/** Rejects when it does not open. */
async function opened(socket: WebSocket): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once('open', () => resolve())
    socket.on('error', reject)
  })
}
