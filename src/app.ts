import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { fastifySwagger } from '@fastify/swagger'
import { fastifySwaggerUi } from '@fastify/swagger-ui'
import fastJsonStringify, { type Schema } from 'fast-json-stringify'
import {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifySerializerCompiler,
  fastify,
  LogController
} from 'fastify'
import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import { Denials } from './audit/denials.ts'
import { Authenticator } from './auth/authenticate.ts'
import { FailedLogins } from './auth/failed-logins.ts'
import { type RateLimitSettings, RateLimits } from './auth/rate-limits.ts'
import { DatabaseWindows, MemoryWindows } from './auth/windows.ts'
import { TOKENS_CHANNEL, type TokenLifetimes } from './directory/tokens.ts'
import { Attachments } from './environments/attachments.ts'
import { LiveUpdates, RESOLUTION_CHANNEL } from './environments/live.ts'
import { ENVIRONMENTS_CHANNEL, Wakes } from './environments/wakes.ts'
import { EVENTS_CHANNEL, EventHub } from './events/hub.ts'
import type { Keyring } from './keyring/index.ts'
import { describeError } from './logger.ts'
import { Metrics } from './metrics.ts'
import { ExecSessions } from './routes/exec-sessions.ts'
import { API_PREFIX } from './routes/github/context.ts'
import { errorBody, handleRouterError } from './routes/github/errors.ts'
import { gitHubApi } from './routes/github/github.ts'
import { healthRoutes } from './routes/health.ts'
import { openApiOptions } from './routes/openapi.ts'
import { handleOnaRouterError, isMethodPath, ONA_DESCRIPTION, onaApi } from './routes/rpc/ona.ts'
import { valueReader } from './routes/rpc/secret-values.ts'
import type { Limits } from './secrets/collection.ts'
import { Deliveries, type Vault } from './secrets/vault.ts'
import type { Handlers } from './store/listener.ts'
import type { Database } from './store/tables.ts'
import { VERSION } from './version.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** where absolute links begin, without the prefix of an API and without a slash at the end */
    baseUrl(): string
    metrics: Metrics
    authenticator: Authenticator
    /** what the database tells is for it; it leads it to the streams */
    events: EventHub
    /** runners that wait for work */
    wakes: Wakes
    /** GetSecretValue within this process: an environment's token, the uid of a secret, and its exact bytes */
    readValue: (accessToken: string, secretUid: string) => Promise<Buffer>
    /** what keeps environments up to date */
    liveUpdates: LiveUpdates
    /** runners that this server reaches */
    attachments: Attachments
    /** no environment is made that this server itself would have to run: the reason, with its remedy */
    refuseHosted(reason: string): void
    execSessions: ExecSessions
  }
}

export interface AppDependencies {
  db: Kysely<Database>
  keyring: Keyring
  /** asks the store for key generations that are newer than what the keyring holds */
  reloadGenerations: () => Promise<void>
  limits: Limits
  tokenLifetimes: TokenLifetimes
  /** undefined: none */
  rateLimits?: RateLimitSettings | undefined
  logger: Logger
  /** undefined: where the server listens */
  publicUrl?: string | undefined
  trustedProxies?: readonly string[]
  /** hosts of git, beside this server's own, whose repositories are those that are known here; in lower case */
  gitHosts?: readonly string[]
  tls?: { cert: Buffer; key: Buffer } | undefined
  isMetricsToken?: (token: string) => boolean
  /** how often a stream of events has a sign of life; undefined: as clients need it */
  eventKeepaliveMs?: number | undefined
}

const REQUEST_TIMEOUT_MS = 30_000
const KEEP_ALIVE_MS = 72_000
/** The longest path parameter: a name of 255 characters, each percent-encoded. */
const MAX_PARAM_LENGTH = 1024
/** Around the base64 of a value: JSON and a few thousand repository ids. */
const BODY_SLACK_BYTES = 512 * 1024

/**
 * For the pages below `/docs`: nothing from elsewhere, and no upgrade to HTTPS, which a server on plain HTTP could
 * not answer. The hash is of the style that Swagger UI's script adds to the page.
 */
const DOCS_CSP = {
  'default-src': "'none'",
  'base-uri': "'none'",
  'connect-src': "'self'",
  'font-src': "'self' data:",
  'form-action': "'none'",
  'frame-ancestors': "'none'",
  'img-src': "'self' data:",
  'script-src': "'self'",
  'style-src': "'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='"
}

/** GitHub's form: hexadecimal groups. `randomUUID` keeps entropy at hand, so that an id costs no system call. */
function makeRequestId(): string {
  const hex = randomUUID().replaceAll('-', '').toUpperCase()
  return `${hex.slice(0, 4)}:${hex.slice(4, 8)}:${hex.slice(8, 13)}:${hex.slice(17, 22)}:${hex.slice(22, 30)}`
}

/** Beside the REST API's prefix and not below it, as on GitHub Enterprise Server. */
const API_GRAPHQL = /^\/api\/graphql(?:[/?]|$)/

/** Both prefixes lead to the same routes; which one it was is kept for the links in the answer. */
function rewriteUrl(request: IncomingMessage): string {
  const url = request.url ?? '/'
  if (API_GRAPHQL.test(url) || (url.startsWith('/api/') && isMethodPath(url.slice('/api'.length)))) {
    return url.slice('/api'.length)
  }
  if (url !== '/api/v3' && !url.startsWith('/api/v3/') && !url.startsWith('/api/v3?')) return url
  Object.assign(request, { [API_PREFIX]: '/api/v3' })
  const rest = url.slice('/api/v3'.length)
  return rest.startsWith('/') ? rest : `/${rest}`
}

/** What the router cannot even decode is answered as its API does. */
function answerUndecodable(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const answer = isMethodPath(request.url) ? handleOnaRouterError : handleRouterError
  answer(error, request, reply)
}

/**
 * A serializer is made when its route first answers with that status. There are thousands of them, most for errors,
 * which have their own, and all together they are a quarter of the heap of a server at rest.
 */
const compileWhenNeeded: FastifySerializerCompiler<Schema> = ({ schema }) => {
  let serialize: ((data: unknown) => string) | undefined
  return (data) => {
    serialize ??= fastJsonStringify(schema)
    return serialize(data)
  }
}

/** What never became a request: an unknown method, a malformed header, a body that came too slowly. */
export function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const status =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : error.code === 'HPE_HEADER_OVERFLOW' ? 431 : 400
  const reason = { 400: 'Bad Request', 408: 'Request Timeout', 431: 'Request Header Fields Too Large' }[
    status
  ]
  const body = JSON.stringify(errorBody(status, reason, undefined))
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`
  )
}

/** The whole server, not yet listening. */
export async function buildApp(dependencies: AppDependencies): Promise<FastifyInstance> {
  const { db, keyring, limits, rateLimits, logger } = dependencies
  const metrics = new Metrics()
  const app = fastify({
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: makeRequestId,
    // One logger for all: a child for each request costs more than the few lines that name the request.
    childLoggerFactory: (parent) => parent,
    rewriteUrl,
    trustProxy: dependencies.trustedProxies?.length ? [...dependencies.trustedProxies] : false,
    bodyLimit: Math.ceil((limits.maxValueBytes + 48) / 3) * 4 + BODY_SLACK_BYTES,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    frameworkErrors: answerUndecodable,
    clientErrorHandler: answerBrokenRequest,
    ...(dependencies.tls && { https: dependencies.tls })
  }) as unknown as FastifyInstance

  app.setSerializerCompiler(compileWhenNeeded)
  app.decorate('baseUrl', () => dependencies.publicUrl ?? listeningUrl(app))
  app.decorate('metrics', metrics)
  const windows = new DatabaseWindows(db)
  const authenticator = new Authenticator(db, new FailedLogins(windows), {
    onFailure: () => metrics.loginFailed(),
    onTouchError: (error) => logger.debug({ err: describeError(error) }, 'last use of a token not recorded')
  })
  app.decorate('authenticator', authenticator)
  const events = new EventHub(db, authenticator, {
    ...(dependencies.eventKeepaliveMs !== undefined && { keepaliveMs: dependencies.eventKeepaliveMs }),
    onStreams: (streams) => metrics.eventStreams(streams),
    onError: (error) => logger.warn({ err: describeError(error) }, 'streams of events ended or not checked')
  })
  app.decorate('events', events)
  const wakes = new Wakes()
  app.decorate('wakes', wakes)
  const liveUpdates = new LiveUpdates(db, {
    onError: (error) => logger.warn({ err: describeError(error) }, 'environments not brought up to date')
  })
  app.decorate('liveUpdates', liveUpdates)
  const attachments = new Attachments()
  app.decorate('attachments', attachments)
  const execSessions = new ExecSessions({ db, authenticator, attachments, logger })
  app.decorate('execSessions', execSessions)
  execSessions.listenTo(app.server)
  let hostedRefusal: string | undefined
  app.decorate('refuseHosted', (reason: string) => {
    hostedRefusal = reason
  })
  const closing = new AbortController()
  // Streams, and who waits for work, would keep the server from closing.
  app.addHook('preClose', async () => {
    events.close()
    closing.abort()
    execSessions.close()
    await liveUpdates.close()
  })
  const denials = new Denials(db, { onUnlisted: (requests) => metrics.denialsUnlisted(requests) })
  app.addHook('onClose', () => denials.close())

  app.addHook('onRequest', (request, reply, done) => {
    const browser =
      request.method === 'GET' && /^\/(\?|$)/.test(request.url) && !request.headers.authorization
    if (browser && request.headers.accept?.includes('text/html')) {
      reply.redirect('/docs')
      return
    }
    done()
  })
  app.addHook('onResponse', (request, reply, done) => {
    const route = request.routeOptions.url ?? 'unknown'
    const { elapsedTime } = reply
    // How long a stream was open is no time that answering took.
    const streamed = request.routeOptions.config?.stream && reply.statusCode === 200
    if (!streamed) metrics.requestAnswered(request.method, route, reply.statusCode, elapsedTime / 1000)
    logger.info(
      {
        reqId: request.id,
        method: request.method,
        route,
        status: reply.statusCode,
        ms: Math.round(elapsedTime * 10) / 10,
        actor: (request.actor ?? request.call?.actor)?.login ?? request.integration?.slug
      },
      'request'
    )
    done()
  })

  await app.register(fastifySwagger, openApiOptions(VERSION))
  await app.register(fastifySwaggerUi, {
    routePrefix: '/docs',
    staticCSP: DOCS_CSP,
    uiConfig: {
      urls: [
        { name: 'GitHub', url: '/docs/json' },
        { name: 'Ona', url: ONA_DESCRIPTION }
      ],
      persistAuthorization: false,
      docExpansion: 'list',
      tryItOutEnabled: true
    }
  })
  healthRoutes(app, { db, keyring, metrics, isMetricsToken: dependencies.isMetricsToken ?? (() => false) })
  const vault: Vault = { db, keyring, limits, reloadGenerations: dependencies.reloadGenerations }
  const deliveries = new Deliveries(vault)
  const reading = { db, authenticator, deliveries, denials, metrics, logger, makeRequestId }
  app.decorate('readValue', valueReader(reading))
  const shared = {
    db,
    keyring,
    vault,
    authenticator,
    rateLimits:
      rateLimits && new RateLimits(rateLimits, rateLimits.store === 'memory' ? new MemoryWindows() : windows),
    metrics,
    denials,
    tokenLifetimes: dependencies.tokenLifetimes
  }
  await app.register(gitHubApi({ ...shared, version: VERSION }))
  const gitHosts = () => new Set([new URL(app.baseUrl()).host, ...(dependencies.gitHosts ?? [])])
  await app.register(
    onaApi({
      ...shared,
      deliveries,
      events,
      wakes,
      liveUpdates,
      closing: closing.signal,
      gitHosts,
      hostedRefusal: () => hostedRefusal
    })
  )
  await app.ready()
  return app
}

/** What an app does with what the database tells every server. */
export function notificationHandlers(app: FastifyInstance): Handlers {
  return {
    [TOKENS_CHANNEL](hashes) {
      app.authenticator.forget(hashes.split(','))
      app.events.forget(hashes.split(','))
    },
    [EVENTS_CHANNEL]: (event) => app.events.receive(event),
    [ENVIRONMENTS_CHANNEL]: (runnerId) => app.wakes.wake(Number(runnerId)),
    [RESOLUTION_CHANNEL]: (collection) => app.liveUpdates.hear(collection)
  }
}

/** What it does when something may not have been heard. */
export function catchUp(app: FastifyInstance): void {
  app.events.reset()
  app.wakes.wake()
  app.liveUpdates.reset()
}

function listeningUrl(app: FastifyInstance): string {
  const scheme = 'setSecureContext' in app.server ? 'https' : 'http'
  const address = app.server.address()
  if (address === null || typeof address === 'string') return `${scheme}://localhost`
  const { family, port } = address
  const host = address.address === '0.0.0.0' || address.address === '::' ? 'localhost' : address.address
  return `${scheme}://${family === 'IPv6' && host !== 'localhost' ? `[${host}]` : host}:${port}`
}
