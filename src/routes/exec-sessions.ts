import { randomUUID } from 'node:crypto'
import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream'
import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import { createWebSocketStream, type WebSocket, WebSocketServer } from 'ws'
import { ACCESS, requireAccess } from '../auth/access.ts'
import { type Actor, principalOf } from '../auth/actor.ts'
import type { Authenticator } from '../auth/authenticate.ts'
import { readAuthorization, tokenCacheKey } from '../auth/token.ts'
import { inTheNameOf } from '../directory/change.ts'
import type { Attachments } from '../environments/attachments.ts'
import { enterEnvironment } from '../environments/service.ts'
import { CofferError, Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated } from '../errors.ts'
import { describeError } from '../logger.ts'
import { isTemporaryDatabaseError } from '../store/database.ts'
import { type EnvironmentFacts, findEnvironment, touchEnvironment } from '../store/environments.ts'
import { findHolder } from '../store/leases.ts'
import type { Database } from '../store/tables.ts'
import { errorAnswer } from './rpc/errors.ts'
import { Ignored } from './upgrades.ts'

// Commands in environments: a client and the runner of the environment each have a WebSocket to this server, which
// decides who may enter and then passes bytes on without looking at them. What these say is `runner/frames.ts`.

/** A frame of the sessions with its head. */
const MAX_MESSAGE_BYTES = 2 * 1024 * 1024
/** How long a runner has to come for a session. */
const ANSWER_MS = 15_000
/** How often it is asked whether the token still lets in, and noted that somebody is at work. */
const CHECK_MS = 10_000
const ACTIVE_MS = 60_000
/** So that what is between does not take a line for dead, and a dead one is found out. */
const PING_MS = 20_000

const PATHS = {
  exec: '/coffer.v1.EnvironmentService/Exec',
  attach: '/coffer.v1.RunnerInterfaceService/Attach',
  serve: '/coffer.v1.RunnerInterfaceService/Serve'
} as const

export interface ExecDependencies {
  db: Kysely<Database>
  authenticator: Authenticator
  attachments: Attachments
  logger: Logger
}

interface Asking {
  actor: Actor
  acting: { tokenId: number; actorId: number }
  /** the token's hash as base64 */
  tokenKey: string
  query: URLSearchParams
  requestId: string
}

/** What waits for a runner to come. */
interface Waiting {
  runnerId: number
  serve(stream: Duplex): void
}

export class ExecSessions {
  readonly #dependencies: ExecDependencies
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false
  })
  readonly #waiting = new Map<string, Waiting>()

  constructor(dependencies: ExecDependencies) {
    this.#dependencies = dependencies
  }

  /** Takes what wants to become a WebSocket at this server; all other requests it serves as before. */
  listenTo(server: Server): void {
    const ignored = new Ignored(server)
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      // Read by hand: there are targets that are no URL, and nobody would hear of it.
      const [target = '', query] = (request.url ?? '').split('?', 2)
      const path = target.replace(/^\/api(?=\/)/, '')
      const known = Object.values(PATHS).find((one) => one === path)
      if (!known || request.headers.upgrade?.toLowerCase() !== 'websocket') {
        ignored.passOn(request, socket, head)
        return
      }
      // Until it is a WebSocket, nobody else hears of what becomes of the connection.
      socket.on('error', () => {})
      void this.#admit(known, new URLSearchParams(query), request, socket, head)
    })
  }

  close(): void {
    for (const socket of this.#sockets.clients) socket.terminate()
    this.#sockets.close()
  }

  async #admit(
    path: string,
    query: URLSearchParams,
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer
  ): Promise<void> {
    try {
      const asking = await this.#authenticate(request, query)
      const begin = await this.#prepare(path, asking)
      if (socket.destroyed) return
      this.#sockets.handleUpgrade(request, socket, head, (webSocket) => {
        keepAlive(webSocket)
        begin(webSocket)
      })
    } catch (error) {
      if (!(error instanceof CofferError)) {
        this.#dependencies.logger.error({ err: describeError(error) }, 'a session could not begin')
      }
      refuse(socket, error)
    }
  }

  async #authenticate(request: IncomingMessage, query: URLSearchParams): Promise<Asking> {
    const { authorization } = request.headers
    const actor = await this.#dependencies.authenticator.authenticate(
      authorization,
      request.socket.remoteAddress
    )
    const token = readAuthorization(authorization)
    if (!token) throw new Unauthenticated(false)
    return {
      actor,
      acting: { tokenId: actor.token.id, actorId: actor.accountId },
      tokenKey: tokenCacheKey(token),
      query,
      requestId: randomUUID()
    }
  }

  /** Decides; what it gives begins the session, and cannot refuse any more. */
  async #prepare(path: string, asking: Asking): Promise<(webSocket: WebSocket) => void> {
    if (path === PATHS.exec) return await this.#prepareExec(asking)
    requireAccess(asking.actor, ACCESS.runner)
    return path === PATHS.attach ? this.#prepareAttachment(asking) : this.#prepareService(asking)
  }

  async #prepareExec(asking: Asking): Promise<(webSocket: WebSocket) => void> {
    const { db, attachments } = this.#dependencies
    const { actor, query, requestId } = asking
    if (actor.token.readOnly) throw new Forbidden('This token only reads.')
    const environment = await this.#findEnvironment(asking, uuidOf(query, 'environmentId'))
    if (!RUNS.has(environment.phase)) {
      throw new Conflict(
        `The environment is not running (${environment.phase}). Start it, and wait until it runs.`
      )
    }
    const holder = await findHolder(db, environment.environment_id)
    const runner = holder && attachments.find(holder)
    if (!runner) {
      throw new Conflict(
        'The runner of this environment is connected to another server, or to none; ask that server, or try again.'
      )
    }
    const principal = principalOf(actor, requestId)
    await inTheNameOf(db, principal, (tx) => enterEnvironment(tx, principal, environment, 'exec'))
    return (webSocket) => {
      this.#endWith(webSocket, asking, () => this.#findEnvironment(asking, environment.environment_uid))
      this.#keepActive(webSocket, environment)
      const stream = createWebSocketStream(webSocket)
      // Whoever serves it hears that it is over by its end.
      stream.on('error', () => {})
      runner.exec(environment.environment_uid, stream)
    }
  }

  /** For its creator, for owners of the organization, and for tokens that were made to enter it. */
  async #findEnvironment({ actor, acting }: Asking, environmentUid: string): Promise<EnvironmentFacts> {
    const found = await findEnvironment(this.#dependencies.db, acting, environmentUid)
    if (actor.kind === 'environment') {
      if (actor.token.purpose !== 'access') throw new Forbidden('This token does not enter environments.')
      if (found && actor.accountUid === environmentUid) return found
      throw new NotFound()
    }
    requireAccess(actor, ACCESS['environment:use'])
    if (found && (found.role === 'admin' || found.creator_uid === actor.accountUid)) return found
    throw new NotFound('There is no such environment that this token may know of.')
  }

  /** Ends what a token began when it is valid no longer, or allows it no more. */
  #endWith(webSocket: WebSocket, { tokenKey }: Asking, check: () => Promise<unknown>): void {
    const { authenticator } = this.#dependencies
    const isOver = async () => !(await authenticator.isValid(tokenKey)) || !(await check())
    const end = () => webSocket.terminate()
    // While the database is away nothing can be revoked either.
    const fail = (error: unknown) => isTemporaryDatabaseError(error) || end()
    const checks = setInterval(() => void isOver().then((over) => over && end(), fail), CHECK_MS)
    webSocket.once('close', () => clearInterval(checks))
  }

  /** Keeps an environment from being taken for idle. */
  #keepActive(webSocket: WebSocket, { environment_id }: EnvironmentFacts): void {
    const { db, logger } = this.#dependencies
    const marks = setInterval(() => {
      touchEnvironment(db, environment_id).catch((error) =>
        logger.debug({ err: describeError(error) }, 'activity not recorded')
      )
    }, ACTIVE_MS)
    webSocket.once('close', () => clearInterval(marks))
  }

  /** A runner elsewhere says that it can be reached here. */
  #prepareAttachment(asking: Asking): (webSocket: WebSocket) => void {
    const { accountId: runner } = asking.actor
    const holder = uuidOf(asking.query, 'holder')
    return (webSocket) => {
      const detach = this.#dependencies.attachments.add(
        { runner, holder },
        { exec: (environmentId, stream) => this.#call(webSocket, runner, environmentId, stream) }
      )
      this.#endWith(webSocket, asking, async () => true)
      webSocket.once('close', detach)
      webSocket.on('error', () => webSocket.terminate())
      webSocket.on('message', () => {})
    }
  }

  #call(webSocket: WebSocket, runnerId: number, environmentId: string, stream: Duplex): void {
    const session = randomUUID()
    const forget = () => {
      clearTimeout(timer)
      this.#waiting.delete(session)
    }
    const timer = setTimeout(() => {
      forget()
      stream.destroy()
    }, ANSWER_MS)
    stream.on('error', () => {})
    stream.once('close', forget)
    this.#waiting.set(session, {
      runnerId,
      serve: (other) => {
        forget()
        connect(stream, other)
      }
    })
    webSocket.send(JSON.stringify({ session, environmentId }))
  }

  /** The runner that was called comes for a session. */
  #prepareService({ actor, query }: Asking): (webSocket: WebSocket) => void {
    const session = uuidOf(query, 'session')
    if (this.#waiting.get(session)?.runnerId !== actor.accountId) throw new NotFound()
    return (webSocket) => {
      // Its client may have left, and who came twice for it is served once.
      const waiting = this.#waiting.get(session)
      if (waiting) waiting.serve(createWebSocketStream(webSocket))
      else webSocket.terminate()
    }
  }
}

const RUNS = new Set(['ENVIRONMENT_PHASE_RUNNING', 'ENVIRONMENT_PHASE_UPDATING'])
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

function uuidOf(query: URLSearchParams, name: string): string {
  const value = query.get(name)?.toLowerCase()
  if (value && UUID.test(value)) return value
  const message = 'must be a UUID'
  throw new InvalidInput(`${name}: ${message}`, [{ field: name, code: 'invalid', message }])
}

/** Each way until its end; when one breaks, both do. */
function connect(one: Duplex, other: Duplex): void {
  pipeline(one, other, one, () => {})
}

function keepAlive(webSocket: WebSocket): void {
  let alive = true
  webSocket.on('pong', () => {
    alive = true
  })
  const timer = setInterval(() => {
    if (!alive) webSocket.terminate()
    alive = false
    webSocket.ping()
  }, PING_MS)
  webSocket.once('close', () => clearInterval(timer))
}

/** A refusal in Connect's form, as methods answer, before there is a WebSocket. */
function refuse(socket: Duplex, error: unknown): void {
  const { status, body } = errorAnswer(error)
  const text = JSON.stringify(body)
  // Nobody waits for the other side to end the connection, too.
  socket.once('finish', () => socket.destroy())
  socket.end(
    `HTTP/1.1 ${status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n` +
      `cache-control: no-store\r\nconnection: close\r\n\r\n${text}`
  )
}
