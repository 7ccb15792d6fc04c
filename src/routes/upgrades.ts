import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

/**
 * Serves requests that ask for another protocol than ours, as HTTP/2 without TLS, in the one that they came in:
 * RFC 9110 section 7.8 lets a server ignore the wish. Node gives the connection away when anybody at all listens for
 * upgrades; here it gets it back, with the request as it was but for the wish.
 */
export class Ignored {
  readonly #server: Server
  /** the newest answer on each connection */
  readonly #answers = new WeakMap<Duplex, ServerResponse>()

  constructor(server: Server) {
    this.#server = server
    server.on('request', ({ socket }, response) => this.#answers.set(socket, response))
  }

  passOn(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.unshift(Buffer.concat([withoutWish(request), head]))
    const before = this.#answers.get(socket)
    // Answers to what was sent before it are still to come, and this one comes after them.
    if (before && !before.closed) before.once('close', () => this.#serve(socket))
    else this.#serve(socket)
  }

  #serve(socket: Duplex & { setTimeout?(milliseconds: number): void }): void {
    // That of a connection that nobody uses.
    socket.setTimeout?.(0)
    this.#server.emit('setSecureContext' in this.#server ? 'secureConnection' : 'connection', socket)
  }
}

function withoutWish({ method, url, httpVersion, rawHeaders, headers }: IncomingMessage): Buffer {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!
    if (!/^(upgrade|connection|http2-settings)$/i.test(name)) lines.push(`${name}: ${rawHeaders[index + 1]}`)
  }
  if (/\bclose\b/i.test(headers.connection ?? '')) lines.push('Connection: close')
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
}
