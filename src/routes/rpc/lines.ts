import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'

/** What a reader may leave unread before its stream ends. */
const MAX_UNREAD_BYTES = 1024 * 1024
/** How long a reader may take for the rest when a stream has ended. */
const END_PATIENCE_MS = 2_000

/** An answer that goes on: each message is a line of JSON. Its headers are out at once, since clients wait for them. */
export class Lines<T> {
  readonly #response: ServerResponse

  constructor(reply: FastifyReply) {
    reply.header('content-type', 'application/jsonl')
    // A proxy that gathers answers would hold events back, and a connection that carried a stream carries nothing else.
    reply.header('x-accel-buffering', 'no').header('connection', 'close')
    reply.hijack()
    this.#response = reply.raw
    this.#response.writeHead(200, reply.getHeaders() as OutgoingHttpHeaders)
    this.#response.flushHeaders()
  }

  send(message: T): void {
    if (this.#response.writableEnded || this.#response.destroyed) return
    this.#response.write(`${JSON.stringify(message)}\n`)
    if (this.#response.writableLength > MAX_UNREAD_BYTES) this.#response.destroy()
  }

  end(): void {
    this.#response.end()
    const timer = setTimeout(() => this.#response.destroy(), END_PATIENCE_MS)
    timer.unref()
    this.onClose(() => clearTimeout(timer))
  }

  /** When the reader has left, or has all of it. The request ends when its body is read, which says neither. */
  onClose(listener: () => void): void {
    if (this.#response.closed) listener()
    else this.#response.once('close', listener)
  }
}
