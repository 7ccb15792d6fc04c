import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { Test } from 'tap'
import { Unavailable } from '../../src/errors.ts'
import {
  type ClaimRequest,
  type Lease,
  LeaseLost,
  type StatusReport,
  ValueRefused
} from '../../src/runner/interface.ts'
import type { MemoryServer } from './memory-server.ts'

export const EXCHANGE_TOKEN = 'coffer_rex_exchange'
const RUNNER_TOKEN = 'coffer_run_'

interface Failure {
  code: string
  message: string
}

/** A server in memory behind the wire: Connect's JSON, in which what has its default is left out. */
export class HttpServer {
  /** every request: method, token and body, in order */
  readonly requests: { method: string; token: string | undefined; body: unknown }[] = []
  /** how often the token of the runner was exchanged or renewed */
  tokens = 0
  /** answers in the place of the server, when it gives something */
  instead: (method: string, response: ServerResponse) => boolean = () => false
  readonly #memory: MemoryServer
  #server: Server
  #port = 0

  constructor(memory: MemoryServer) {
    this.#memory = memory
    this.#server = this.#create()
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** The token that is valid now. */
  get token(): string {
    return `${RUNNER_TOKEN}${this.tokens}`
  }

  /** Listens, again on the same port when it was stopped. */
  async listen(): Promise<void> {
    this.#server = this.#create()
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.#port = (this.#server.address() as AddressInfo).port
  }

  /** Breaks all connections, too. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    if (this.#server.listening) await once(this.#server, 'close')
  }

  #create(): Server {
    return createServer(async (request, response) => {
      const method = request.url!.replace(/^\/api\//, '')
      const token = request.headers.authorization?.replace('Bearer ', '')
      const body = JSON.parse((await buffer(request)).toString())
      this.requests.push({ method, token, body })
      if (this.instead(method, response)) return
      const gone = new AbortController()
      response.on('close', () => gone.abort())
      try {
        const answer = await this.#answer(method, token, body, gone.signal)
        send(response, 200, withoutDefaults(answer) ?? {})
      } catch (error) {
        if (!gone.signal.aborted) send(response, 400, failureOf(error))
      }
    })
  }

  async #answer(
    method: string,
    token: string | undefined,
    body: unknown,
    signal: AbortSignal
  ): Promise<unknown> {
    const [service, name] = method.split('/')
    if (method === 'gitpod.v1.IdentityService/ExchangeToken') return this.#exchange(body)
    if (method === 'gitpod.v1.SecretService/GetSecretValue') {
      const { secretId } = body as { secretId: string }
      return { valueBase64: (await this.#memory.readSecret(token ?? '', secretId)).toString('base64') }
    }
    if (service !== 'coffer.v1.RunnerInterfaceService') throw failure('unimplemented')
    if (token !== this.token) throw failure('unauthenticated')
    switch (name) {
      case 'RenewToken':
        this.tokens += 1
        return { accessToken: this.token }
      case 'ClaimEnvironments': {
        const assignments = await this.#memory.claim(body as ClaimRequest, signal)
        // 64-bit integers are strings in proto3's JSON.
        return {
          assignments: assignments.map((assignment) => ({ ...assignment, epoch: `${assignment.epoch}` }))
        }
      }
      case 'RenewLeases': {
        const { holder, leases } = body as { holder: string; leases: Lease[] }
        return { lostEnvironmentIds: await this.#memory.renew(holder, leases) }
      }
      case 'ReleaseLeases': {
        const { holder, leases } = body as { holder: string; leases: Lease[] }
        await this.#memory.release(holder, leases)
        return {}
      }
      case 'ReportStatus': {
        const { lease, report } = body as { lease: Lease; report: StatusReport }
        await this.#memory.report(lease, report)
        return {}
      }
      case 'FindEnvironments': {
        const { environmentIds } = body as { environmentIds: string[] }
        return { environmentIds: await this.#memory.findEnvironments(environmentIds) }
      }
      default:
        throw failure('unimplemented')
    }
  }

  #exchange(body: unknown): { accessToken: string } {
    const { exchangeToken } = body as { exchangeToken: string }
    if (exchangeToken !== EXCHANGE_TOKEN || this.tokens > 0) throw failure('unauthenticated')
    this.tokens = 1
    return { accessToken: this.token }
  }
}

export async function serveHttp(t: Test, memory: MemoryServer): Promise<HttpServer> {
  const server = new HttpServer(memory)
  await server.listen()
  t.teardown(() => server.stop())
  return server
}

export function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

function failure(code: string): Failure {
  return { code, message: code }
}

function failureOf(error: unknown): Failure {
  if (error instanceof LeaseLost) return { code: 'aborted', message: error.message }
  if (error instanceof ValueRefused) return { code: 'permission_denied', message: error.message }
  if (error instanceof Unavailable) return { code: 'unavailable', message: error.message }
  if (error instanceof Error) return { code: 'internal', message: 'Internal error.' }
  return error as Failure
}

/** As proto3's JSON: empty texts and lists, zero and false are not written. */
function withoutDefaults(value: unknown): unknown {
  if (Array.isArray(value))
    return value.length === 0 ? undefined : value.map((item) => withoutDefaults(item) ?? item)
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).map(([name, member]) => [name, withoutDefaults(member)] as const)
    return Object.fromEntries(members.filter(([, member]) => member !== undefined))
  }
  return value === '' || value === 0 || value === false ? undefined : value
}
