import { once } from 'node:events'
import { createServer, type IncomingMessage, request as send } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Test } from 'tap'

/** What is between a client and a server, and fails as networks and proxies do. */
export interface Proxy {
  url: string
  /** paths, as they came */
  requests: string[]
  /** these are answered by the proxy itself, with this status */
  refuse: Map<string, number>
  /** these reach the server, and the client has no answer */
  lose: Set<string>
  /** as proxies do that are not told to pass WebSockets on */
  stripsUpgrades: boolean
  /** all that is open now breaks */
  cut(): void
}

export async function startProxy(t: Test, target: string): Promise<Proxy> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    const path = request.url!
    proxy.requests.push(path)
    const status = proxy.refuse.get(path)
    if (status !== undefined) {
      response.writeHead(status).end('no')
      return
    }
    const { method, headers } = request
    const passed = send({ hostname, port, path, method, headers }, (answer) => {
      if (proxy.lose.has(path)) {
        answer.resume().once('end', () => request.socket.destroy())
        return
      }
      response.writeHead(answer.statusCode!, answer.headers)
      response.flushHeaders()
      answer.pipe(response)
      answer.once('error', () => response.destroy())
    })
    passed.on('error', () => response.destroy())
    response.once('close', () => passed.destroy())
    request.pipe(passed)
  })
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    proxy.requests.push(request.url!)
    const passed = connect(Number(port), hostname)
    for (const [one, other] of [
      [socket, passed],
      [passed, socket]
    ] as const) {
      one.on('error', () => {})
      one.once('close', () => other.destroy())
    }
    const lines = [`${request.method} ${request.url} HTTP/1.1`]
    for (let n = 0; n < request.rawHeaders.length; n += 2) {
      const name = request.rawHeaders[n]!
      if (proxy.stripsUpgrades && /^(upgrade|connection)$/i.test(name)) continue
      lines.push(`${name}: ${request.rawHeaders[n + 1]}`)
    }
    passed.write(`${lines.join('\r\n')}\r\n\r\n`)
    passed.write(head)
    socket.pipe(passed).pipe(socket)
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const proxy: Proxy = {
    url: '',
    requests: [],
    refuse: new Map(),
    lose: new Set(),
    stripsUpgrades: false,
    cut() {
      for (const socket of sockets) socket.destroy()
    }
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  t.teardown(() => {
    proxy.cut()
    server.close()
  })
  return proxy
}
