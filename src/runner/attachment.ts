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
    const socket = await this.#dial(`Attach?holder=${this.#options.holder}`)
    this.#onAttached()
    let silence: NodeJS.Timeout | undefined
    const hear = () => {
      clearTimeout(silence)
      silence = setTimeout(() => socket.terminate(), SILENCE_MS)
    }
    hear()
    socket.on('ping', hear)
    socket.on('message', (message) => {
      this.#serve(String(message)).catch((error: Error) =>
        this.#options.logger.warn({ reason: error.message }, 'a session could not be served')
      )
    })
    await new Promise<void>((resolve) => {
      socket.once('close', () => resolve())
    })
    clearTimeout(silence)
  }

  async #serve(message: string): Promise<void> {
    const { session, environmentId } = JSON.parse(message) as Record<string, unknown>
    if (typeof session !== 'string' || !isUuid(session)) return
    if (typeof environmentId !== 'string' || !isUuid(environmentId)) return
    const socket = await this.#dial(`Serve?session=${session}`)
    this.#options.exec(environmentId, createWebSocketStream(socket))
  }

  /** Resolves when the line is open. */
  async #dial(method: string): Promise<WebSocket> {
    const { url, token } = this.#options
    const authorization = `Bearer ${await token()}`
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/${SERVICE}/${method}`, {
      headers: { authorization },
      perMessageDeflate: false,
      followRedirects: false
    })
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    await new Promise<void>((resolve, reject) => {
      socket.once('open', () => resolve())
      socket.on('error', reject)
    })
    return socket
  }
}
