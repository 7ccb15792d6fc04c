import { connect, createServer, type NetConnectOpts, type Server, type Socket } from 'node:net'

export type Direction = 'query' | 'result'

/** A way to the database that can be cut, all at once or at a certain point of the traffic. */
export class Gate {
  readonly #url: string
  readonly #target: NetConnectOpts
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #port = 0
  /** called with each piece of traffic before it is passed on; true cuts */
  onTraffic: (direction: Direction) => boolean = () => false

  constructor(url: string) {
    this.#url = url
    const { hostname, port, searchParams } = new URL(url)
    const folder = searchParams.get('host')
    this.#target = folder?.startsWith('/')
      ? { path: `${folder}/.s.PGSQL.${port || 5432}` }
      : { host: hostname, port: Number(port || 5432) }
  }

  /** The database's URL, by this way. */
  get url(): string {
    const url = new URL(this.#url)
    url.searchParams.delete('host')
    url.hostname = '127.0.0.1'
    url.port = String(this.#port)
    return url.href
  }

  async open(): Promise<void> {
    const server = createServer((client) => this.#join(client))
    this.#server = server
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve))
    this.#port = (server.address() as { port: number }).port
  }

  #join(client: Socket): void {
    const upstream = connect(this.#target)
    const pass = (from: Socket, to: Socket, direction: Direction) => {
      this.#sockets.add(from)
      from.on('data', (bytes) => (this.onTraffic(direction) ? this.cut() : to.write(bytes)))
      from.on('error', () => {})
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroy()
      })
    }
    pass(client, upstream, 'query')
    pass(upstream, client, 'result')
  }

  /** Ends every connection, and takes no new one. */
  cut(): void {
    this.#server?.close()
    this.#server = undefined
    for (const socket of this.#sockets) socket.destroy()
  }

  async restore(): Promise<void> {
    this.onTraffic = () => false
    if (!this.#server) await this.open()
  }
}
