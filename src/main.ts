import { createHash } from 'node:crypto'
import { chmod, mkdir, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { connect } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import type { TlsOptions } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import { answerBrokenRequest, buildApp, catchUp, notificationHandlers } from './app.ts'
import { startAudit } from './audit/jobs.ts'
import { hashToken } from './auth/token.ts'
import type { Config, Secrets } from './config.ts'
import { RefusedToStart } from './errors.ts'
import {
  ensureAdmin,
  type FirstAdmin,
  firstCommands,
  shellQuote,
  writeGhConfig,
  writeTokenFile
} from './first-start.ts'
import { startHostedRunner } from './hosted-runner.ts'
import { createLogger, describeError } from './logger.ts'
import { openKeyring, openStore } from './open.ts'
import { ensureGeneration, GENERATIONS_CHANNEL, loadGenerations } from './secrets/generations.ts'
import { KeyRefresh } from './secrets/key-refresh.ts'
import { type DatabaseOptions, openDatabase } from './store/database.ts'
import { Listener } from './store/listener.ts'
import { migrate } from './store/migrations.ts'
import type { Database } from './store/tables.ts'
import { VERSION } from './version.ts'

/** The longest path that a unix socket may have everywhere is 103 bytes. */
const MAX_SOCKET_PATH_BYTES = 100
const CLOSE_PATIENCE_MS = 20_000

export interface RunningServer {
  url: string
  socket: string | undefined
  app: FastifyInstance
  close(): Promise<void>
}

export interface ServeOptions {
  /** for people: what to do first; undefined keeps quiet */
  print?: (line: string) => void
  /** whether somebody reads along, who may be shown a token */
  terminal?: boolean
  logger?: Logger
  onLost?: (error: RefusedToStart) => void
}

/**
 * Starts the whole server and returns when it answers. What it opened is closed in reverse by `close`, or when
 * a later step refuses.
 */
export async function serve(
  config: Config,
  secrets: Secrets,
  options: ServeOptions = {}
): Promise<RunningServer> {
  const logger = options.logger ?? createLogger(config.logLevel)
  const closers: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) {
      await closer().catch((error) => logger.warn({ err: describeError(error) }, 'not closed cleanly'))
    }
  }
  try {
    return { ...(await start(config, secrets, options, logger, closers)), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function start(
  config: Config,
  secrets: Secrets,
  options: ServeOptions,
  logger: Logger,
  closers: (() => Promise<unknown>)[]
): Promise<Omit<RunningServer, 'close'>> {
  const store = await openStore(config, secrets, 'serve', {
    log: (message, details) => logger.info({ details }, message),
    ...(options.onLost && { onLost: options.onLost })
  })
  closers.push(() => store.close())
  const { db } = store
  const applied = await migrateDirectly(store.direct)
  if (applied.length > 0) logger.info({ applied }, 'database migrated')

  const keyring = await openKeyring(config, db)
  closers.push(async () => keyring.close())
  await ensureGeneration(db, keyring)
  await loadGenerations(db, keyring)
  const keyRefresh = new KeyRefresh(db, keyring, config.keyGraceSeconds, logger)
  await keyRefresh.start()
  closers.push(() => keyRefresh.stop())

  const admin = await ensureAdmin(db, config, secrets)
  if (!admin && secrets.adminToken !== undefined) {
    logger.warn('COFFER_ADMIN_TOKEN is ignored: there is an administrator already')
  }

  // Closed after the requests are, whose records it seals.
  let audit: Awaited<ReturnType<typeof startAudit>> | undefined
  closers.push(async () => audit?.stop())

  const metricsToken = secrets.metricsToken && hashToken(secrets.metricsToken)
  const app = await buildApp({
    db,
    keyring,
    reloadGenerations: () => keyRefresh.reload(),
    limits: { maxValueBytes: config.maxValueBytes, maxSecrets: config.maxSecrets },
    tokenLifetimes: { defaultDays: config.tokenDefaultDays, maxDays: config.tokenMaxDays },
    rateLimits: config.rateLimits,
    logger,
    publicUrl: config.publicUrl,
    trustedProxies: config.trustedProxies,
    gitHosts: config.gitHosts,
    tls: config.tls && (await readTls(config.tls)),
    isMetricsToken: (token) =>
      metricsToken !== undefined && metricsToken !== '' && hashToken(token).equals(metricsToken)
  })
  closers.push(() => closeWithGrace(app))
  audit = await startAudit(db, config, app.metrics, logger)

  const listener = new Listener(
    store.direct,
    {
      ...notificationHandlers(app),
      [GENERATIONS_CHANNEL]: () => void keyRefresh.refreshQuietly()
    },
    () => {
      void keyRefresh.refreshQuietly()
      catchUp(app)
    }
  )
  await listener.start()
  closers.push(() => listener.close())

  const socket = await listenOnSocket(config, app)
  if (socket) closers.push(socket.close)
  await startRunner(app, db, config, logger, closers)
  // Before anything waits for connections that streams keep open.
  closers.push(async () => app.events.close())
  await listen(app, config)
  const url = app.baseUrl()
  logger.info(
    { url, socket: socket?.path, version: VERSION, database: store.folder ?? 'external' },
    'serving'
  )
  logger.flush()
  await welcome(config, options, { url, socket: socket?.path, admin, folder: store.folder })
  return { url, socket: socket?.path, app }
}

/** Environments of this server's own; without walls to keep them apart by, it is of use all the same. */
async function startRunner(
  app: FastifyInstance,
  db: Kysely<Database>,
  config: Config,
  logger: Logger,
  closers: (() => Promise<unknown>)[]
): Promise<void> {
  if (!config.runner.enabled) {
    app.refuseHosted(
      'This server runs no environments itself (COFFER_RUNNER=0): take a class of another runner.'
    )
    return
  }
  const started = await startHostedRunner(app, db, { config: config.runner, dataDir: config.dataDir, logger })
  if ('problem' in started) {
    logger.warn({ reason: started.problem }, 'environments cannot run here')
    app.refuseHosted(started.problem)
    return
  }
  const { runner } = started
  closers.push(() => runner.close())
  app.attachments.add({ runner: 'hosted', holder: runner.holder }, runner)
}

/** Past a pooler, and without the time limit that requests have. */
async function migrateDirectly(connection: DatabaseOptions['connection']): Promise<string[]> {
  const db = openDatabase({ connection, poolSize: 1, prepare: false })
  try {
    return await migrate(db)
  } finally {
    await db.destroy()
  }
}

async function listen(app: FastifyInstance, { host, port }: Config): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') {
      throw new RefusedToStart(`Port ${port} on ${host} is in use. Set COFFER_PORT to another one.`)
    }
    if (code === 'EACCES' || code === 'EADDRNOTAVAIL') {
      throw new RefusedToStart(
        `Cannot listen on ${host} port ${port} (${code}). Set COFFER_HOST and COFFER_PORT.`
      )
    }
    throw error
  }
}

async function closeWithGrace(app: FastifyInstance): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_PATIENCE_MS)
  timer.unref()
  await app.close()
  clearTimeout(timer)
}

async function readTls({
  certFile,
  keyFile
}: NonNullable<Config['tls']>): Promise<{ cert: Buffer; key: Buffer }> {
  try {
    return { cert: await readFile(certFile), key: await readFile(keyFile) }
  } catch (error) {
    const { code, path: file } = error as NodeJS.ErrnoException
    throw new RefusedToStart(`The TLS file ${file} cannot be read (${code}).`)
  }
}

/** Reads certificate and key again, for new connections; what does not fit changes nothing. */
export async function reloadTls(config: Config, app: FastifyInstance, logger: Logger): Promise<void> {
  if (!config.tls) return
  try {
    const server = app.server as unknown as { setSecureContext(options: TlsOptions): void }
    server.setSecureContext(await readTls(config.tls))
    logger.info('TLS certificate reloaded')
  } catch (error) {
    logger.error({ err: describeError(error) }, 'TLS certificate not reloaded; the old one stays')
  }
}

/** The same routes on a unix socket, in plain HTTP: whoever may open the socket still needs a token. */
async function listenOnSocket(
  config: Config,
  app: FastifyInstance
): Promise<{ path: string; close: () => Promise<unknown> } | undefined> {
  if (config.socket === null) return undefined
  const file = config.socket ?? (await defaultSocket(config.dataDir))
  await removeStaleSocket(file)
  const server = createServer((request, response) => app.routing(request, response))
  app.execSessions.listenTo(server)
  server.on('clientError', answerBrokenRequest)
  server.requestTimeout = app.server.requestTimeout
  server.keepAliveTimeout = app.server.keepAliveTimeout
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(file, resolve)
  }).catch((error: NodeJS.ErrnoException) => {
    throw new RefusedToStart(
      `Cannot listen on the socket ${file} (${error.code}). Set COFFER_SOCKET, or to off.`
    )
  })
  await chmod(file, 0o600)
  return { path: file, close: () => closeServer(server) }
}

async function closeServer(server: Server): Promise<void> {
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), CLOSE_PATIENCE_MS)
  timer.unref()
  await new Promise((resolve) => server.close(resolve))
  clearTimeout(timer)
}

async function defaultSocket(dataDir: string): Promise<string> {
  const file = path.join(dataDir, 'coffer.sock')
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  if (Buffer.byteLength(file) <= MAX_SOCKET_PATH_BYTES) return file
  const name = createHash('sha256').update(`${os.userInfo().uid}/${file}`).digest('hex').slice(0, 16)
  const folder = path.join(os.tmpdir(), `coffer-${name}`)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700).catch(() => {
    throw new RefusedToStart(
      `The folder ${folder} belongs to somebody else. Set COFFER_SOCKET to a short path.`
    )
  })
  return path.join(folder, 'coffer.sock')
}

/** Removes what a killed server left; a socket that somebody answers on stays. */
async function removeStaleSocket(file: string): Promise<void> {
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect(file)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
  if (answered) throw new RefusedToStart(`Another server answers on the socket ${file}. Set COFFER_SOCKET.`)
  await rm(file, { force: true })
}

interface Welcome {
  url: string
  socket: string | undefined
  admin: FirstAdmin | undefined
  folder: string | undefined
}

/** What a person who starts the server wants to know; a token is shown once, and to a terminal alone. */
async function welcome(
  config: Config,
  options: ServeOptions,
  { url, socket, admin, folder }: Welcome
): Promise<void> {
  const print = options.print ?? (() => {})
  const ghFolder = socket && (await writeGhConfig(config.dataDir, socket))
  print('')
  print(`Coffer ${VERSION} serves ${url}   (API also below ${url}/api/v3, documentation at ${url}/docs)`)
  if (folder) print(`Database: ${folder}   Master key and passwords: ${path.join(config.dataDir, 'keys')}`)
  if (admin) {
    const { login, organization, generated } = admin
    const { adminTokenFile } = config
    let token = adminTokenFile ? `$(cat ${shellQuote(adminTokenFile)})` : '$COFFER_ADMIN_TOKEN'
    print('')
    if (generated) {
      const until = generated.expiresAt
        ? `, valid until ${generated.expiresAt.toISOString().slice(0, 10)}`
        : ''
      if (options.terminal) {
        token = generated.token
        print(`The administrator is ${login}. This token is shown once${until}:`)
        print('')
        print(`  ${token}`)
      } else {
        const file = await writeTokenFile(config.dataDir, generated.token)
        token = `$(cat ${shellQuote(file)})`
        print(`The administrator is ${login}; the token is in ${file}${until}.`)
      }
    } else {
      print(`The administrator is ${login}, with the token from COFFER_ADMIN_TOKEN.`)
    }
    print(`It owns the organization ${organization}.`)
    print(`A lost token is replaced with: npx coffer admin token create ${login} --scopes all --offline`)
    print('The server must be stopped for that.')
    print('')
    print('Try it:')
    print('')
    for (const command of firstCommands(token, url, ghFolder)) print(`  ${command}`)
  }
  print('')
}
