import { readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import path from 'node:path'
import { RefusedToStart } from './errors.ts'

/** Everything that is set from outside and may be shown. */
export interface Config {
  readonly host: string
  readonly port: number
  /** undefined: in the data folder; null: none */
  readonly socket: string | null | undefined
  readonly publicUrl: string | undefined
  readonly tls: { certFile: string; keyFile: string } | undefined
  readonly allowPlaintext: boolean
  readonly trustedProxies: readonly string[]
  /** hosts of git, beside the server's own, whose repositories are those that are known here */
  readonly gitHosts: readonly string[]
  readonly dataDir: string
  readonly runtimeDir: string | undefined
  readonly postgresUser: string | undefined
  /** without `DATABASE_URL` */
  readonly embedded: boolean
  readonly poolSize: number
  readonly prepare: boolean
  /** the first wraps, all unwrap; empty: the one in the data folder, made when it is missing */
  readonly masterKeyFiles: readonly string[]
  /** undefined: in the data folder, made when it is missing */
  readonly auditKeyFile: string | undefined
  /** the folder for checkpoints; undefined: in the data folder */
  readonly auditCheckpoints: string | undefined
  /** undefined: audit records stay forever */
  readonly auditRetentionDays: number | undefined
  readonly logLevel: string
  readonly maxValueBytes: number
  /** undefined: as many as GitHub allows, which differs from collection to collection */
  readonly maxSecrets: number | undefined
  /** undefined: none */
  readonly rateLimits: RateLimitConfig | undefined
  readonly keyGraceSeconds: number
  readonly tokenDefaultDays: number
  readonly tokenMaxDays: number
  readonly adminLogin: string
  /** the login of the first administrator's organization */
  readonly organization: string
  /** where the operator put the first token, for the lines that are printed */
  readonly adminTokenFile: string | undefined
  readonly runner: RunnerConfig
}

/** How environments run on this machine. */
export interface RunnerConfig {
  /** whether the server runs environments itself */
  readonly enabled: boolean
  /** who their processes are, where this is root; undefined: nobody */
  readonly user: string | undefined
  /** without walls: for the machine of one person */
  readonly unisolated: boolean
  /** in memory; undefined: /dev/shm */
  readonly secretsDir: string | undefined
  /** so many run at most; undefined: as many as the runner takes by itself */
  readonly capacity: number | undefined
}

/** Requests an hour. */
export interface RateLimitConfig {
  /** of one token, to each kind of resource */
  readonly core: number
  readonly codespaces: number
  readonly graphql: number
  /** of one address, without a valid token */
  readonly address: number
  readonly store: 'database' | 'memory'
}

/** Everything that is never shown; kept apart so that it cannot be logged along. */
export interface Secrets {
  readonly databaseUrl: string | undefined
  /** for LISTEN and migrations, where `databaseUrl` leads to a pooler */
  readonly databaseDirectUrl: string | undefined
  readonly adminToken: string | undefined
  readonly metricsToken: string | undefined
}

export type Environment = Readonly<Record<string, string | undefined>>

/** The administrator's own token for an unattended first start; the form of Coffer's own does not bind it. */
export const OPERATOR_TOKEN = /^[A-Za-z0-9_-]{32,255}$/

/** What accounts may be called. */
export const LOGIN = /^[A-Za-z0-9](?:[A-Za-z0-9_]|-(?=[A-Za-z0-9_])){0,38}$/
export const LOGIN_RULE =
  'may only contain letters, digits, underscores and single hyphens, cannot begin or end with a hyphen, ' +
  'and is 39 characters at most'

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']
export const DEFAULT_MASTER_KEY = path.join('keys', 'master.key')

/** Collects what is wrong, so that one start tells all of it. */
class Reader {
  readonly problems: string[] = []
  readonly #environment: Environment

  constructor(environment: Environment) {
    this.#environment = environment
  }

  text(name: string): string | undefined {
    const value = this.#environment[name]
    return value === undefined || value === '' ? undefined : value
  }

  /** of names that are not Coffer's own */
  firstOf(names: readonly string[]): string | undefined {
    return names.map((name) => this.text(name)).find((value) => value !== undefined)
  }

  integer(name: string, fallback: number, least: number, most: number): number {
    return this.optionalInteger(name, least, most) ?? fallback
  }

  optionalInteger(name: string, least: number, most: number): number | undefined {
    const text = this.text(name)
    if (text === undefined) return undefined
    const value = Number(text)
    if (/^[0-9]+$/.test(text) && value >= least && value <= most) return value
    this.problems.push(`${name} must be a whole number from ${least} to ${most}`)
    return undefined
  }

  flag(name: string, fallback: boolean): boolean {
    const text = this.text(name)?.toLowerCase()
    if (text === undefined) return fallback
    if (['1', 'true', 'yes', 'on'].includes(text)) return true
    if (['0', 'false', 'no', 'off'].includes(text)) return false
    this.problems.push(`${name} must be 1 or 0`)
    return fallback
  }

  oneOf(name: string, fallback: string, allowed: readonly string[]): string {
    const text = this.text(name)
    if (text === undefined || allowed.includes(text)) return text ?? fallback
    this.problems.push(`${name} must be one of ${allowed.join(', ')}`)
    return fallback
  }

  login(name: string, fallback: string): string {
    const text = this.text(name)
    if (text === undefined || LOGIN.test(text)) return text ?? fallback
    this.problems.push(`${name} ${LOGIN_RULE}`)
    return fallback
  }

  url(name: string, protocols: readonly string[]): string | undefined {
    const text = this.text(name)
    if (text === undefined) return undefined
    if (URL.canParse(text) && protocols.includes(new URL(text).protocol)) return text
    this.problems.push(
      `${name} must be a URL that begins with ${protocols.map((p) => `${p}//`).join(' or ')}`
    )
    return undefined
  }

  file(name: string): string | undefined {
    const text = this.text(name)
    if (text === undefined) return undefined
    const file = path.resolve(text)
    if (statSync(file, { throwIfNoEntry: false })?.isFile()) return file
    this.problems.push(`${name} names no file`)
    return undefined
  }

  /** Where something is, or shall be. */
  path(name: string): string | undefined {
    const text = this.text(name)
    return text === undefined ? undefined : path.resolve(text)
  }

  /** A secret given as it is, or (preferred) in a file of its own; without the newline at the end. */
  secret(name: string): string | undefined {
    const file = this.text(`${name}_FILE`)
    if (file === undefined) return this.text(name)
    try {
      return readFileSync(file, 'utf8').replace(/\r?\n$/, '')
    } catch {
      this.problems.push(`${name}_FILE names no file that can be read`)
      return undefined
    }
  }
}

function readPublicUrl(reader: Reader): string | undefined {
  const text = reader.url('COFFER_PUBLIC_URL', ['http:', 'https:'])
  if (text === undefined) return undefined
  const url = new URL(text)
  if (url.search || url.hash || url.username || url.password) {
    reader.problems.push('COFFER_PUBLIC_URL must have no user, query or fragment')
  }
  return (url.origin + url.pathname).replace(/\/+$/, '')
}

function readTls(reader: Reader): Config['tls'] {
  const certFile = reader.file('COFFER_TLS_CERT_FILE')
  const keyFile = reader.file('COFFER_TLS_KEY_FILE')
  const given = [reader.text('COFFER_TLS_CERT_FILE'), reader.text('COFFER_TLS_KEY_FILE')]
  if (given.filter((text) => text !== undefined).length === 1) {
    reader.problems.push('COFFER_TLS_CERT_FILE and COFFER_TLS_KEY_FILE go together')
  }
  return certFile && keyFile ? { certFile, keyFile } : undefined
}

function readTrustedProxies(reader: Reader): string[] {
  const entries = (reader.text('COFFER_TRUSTED_PROXIES') ?? '').split(',').map((entry) => entry.trim())
  const proxies = entries.filter((entry) => entry !== '')
  for (const proxy of proxies) {
    const [address = '', bits, ...rest] = proxy.split('/')
    const named = ['loopback', 'linklocal', 'uniquelocal'].includes(proxy)
    const valid =
      isIP(address) !== 0 && (bits === undefined || /^[0-9]{1,3}$/.test(bits)) && rest.length === 0
    if (!named && !valid) {
      reader.problems.push('COFFER_TRUSTED_PROXIES must be addresses or networks, separated by commas')
      break
    }
  }
  return proxies
}

const MAX_RATE_LIMIT = 1_000_000_000

function readRateLimits(reader: Reader): RateLimitConfig | undefined {
  const core = reader.integer('COFFER_RATE_LIMIT', 0, 0, MAX_RATE_LIMIT)
  const limits: RateLimitConfig = {
    core,
    codespaces: reader.integer('COFFER_RATE_LIMIT_CODESPACES', core, 1, MAX_RATE_LIMIT),
    graphql: reader.integer('COFFER_RATE_LIMIT_GRAPHQL', core, 1, MAX_RATE_LIMIT),
    address: reader.integer('COFFER_RATE_LIMIT_ADDRESS', 60, 1, MAX_RATE_LIMIT),
    store: reader.oneOf('COFFER_RATE_LIMIT_STORE', 'database', ['database', 'memory']) as
      | 'database'
      | 'memory'
  }
  if (core > 0) return limits
  for (const part of ['CODESPACES', 'GRAPHQL', 'ADDRESS', 'STORE']) {
    if (reader.text(`COFFER_RATE_LIMIT_${part}`) === undefined) continue
    reader.problems.push(`COFFER_RATE_LIMIT_${part} counts only with COFFER_RATE_LIMIT; set that, too`)
  }
  return undefined
}

function readRunner(reader: Reader): RunnerConfig {
  return {
    enabled: reader.flag('COFFER_RUNNER', true),
    user: reader.text('COFFER_RUNNER_USER'),
    unisolated: reader.flag('COFFER_RUNNER_UNISOLATED', false),
    secretsDir: reader.path('COFFER_RUNNER_SECRETS_DIR'),
    capacity: reader.optionalInteger('COFFER_RUNNER_CAPACITY', 1, 10_000)
  }
}

/** What `coffer runner` needs: a runner on another machine than the server. */
export interface RemoteRunnerConfig {
  readonly url: string
  /** an exchange token, or a runner's token */
  readonly token: string
  readonly dataDir: string
  readonly logLevel: string
  readonly runner: RunnerConfig
}

/** @throws RefusedToStart naming every variable that is wrong, and never a value of a secret */
export function loadRunnerConfig(environment: Environment): RemoteRunnerConfig {
  const reader = new Reader(environment)
  const url = readClientUrl(reader)
  const token = reader.secret('COFFER_RUNNER_TOKEN')
  if (token === undefined) {
    reader.problems.push(
      'COFFER_RUNNER_TOKEN (or COFFER_RUNNER_TOKEN_FILE) must hold an exchange token: RunnerService/CreateRunner gives one'
    )
  }
  const config = {
    url,
    token: token ?? '',
    dataDir: path.resolve(reader.text('COFFER_DATA_DIR') ?? 'runner-data'),
    logLevel: reader.oneOf('COFFER_LOG_LEVEL', 'info', LOG_LEVELS),
    runner: readRunner(reader)
  }
  if (reader.problems.length > 0) throw new RefusedToStart(reader.problems.join('\n'))
  return config
}

const GIT_HOST = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$/

function readGitHosts(reader: Reader): string[] {
  const hosts = (reader.text('COFFER_GIT_HOSTS') ?? '')
    .split(',')
    .map((host) => host.trim().toLowerCase())
    .filter((host) => host !== '')
  if (!hosts.every((host) => GIT_HOST.test(host))) {
    reader.problems.push('COFFER_GIT_HOSTS must be hosts (host or host:port), separated by commas')
  }
  return hosts
}

const LOOPBACK_HOSTS = /^(localhost|127(\.[0-9]{1,3}){3}|::1)$/

function requireProtection(reader: Reader, config: Config): void {
  if (LOOPBACK_HOSTS.test(config.host) || config.tls || config.allowPlaintext) return
  reader.problems.push(
    `COFFER_HOST is ${config.host}, which others can reach, and there is no TLS: tokens would travel in plain. ` +
      'Set COFFER_TLS_CERT_FILE and COFFER_TLS_KEY_FILE, or COFFER_ALLOW_PLAINTEXT=1 behind a proxy that does TLS'
  )
}

function readAdminToken(reader: Reader): string | undefined {
  const token = reader.secret('COFFER_ADMIN_TOKEN')
  if (token !== undefined && !OPERATOR_TOKEN.test(token)) {
    reader.problems.push('COFFER_ADMIN_TOKEN must be 32 to 255 characters from A-Z, a-z, 0-9, _ and -')
    return undefined
  }
  return token
}

/**
 * Reads the environment of the server.
 *
 * @throws RefusedToStart naming every variable that is wrong, and never a value of a secret
 */
export function loadConfig(environment: Environment): { config: Config; secrets: Secrets } {
  const reader = new Reader(environment)
  const socket = reader.text('COFFER_SOCKET')
  const databaseUrl = reader.url('DATABASE_URL', ['postgres:', 'postgresql:'])
  const keyFiles = reader.text('COFFER_MASTER_KEY_FILE')?.split(':') ?? []
  const config: Config = {
    host: reader.text('COFFER_HOST') ?? '127.0.0.1',
    port: reader.integer('COFFER_PORT', 3000, 0, 65_535),
    socket: socket === undefined ? undefined : socket === 'off' ? null : path.resolve(socket),
    publicUrl: readPublicUrl(reader),
    tls: readTls(reader),
    allowPlaintext: reader.flag('COFFER_ALLOW_PLAINTEXT', false),
    trustedProxies: readTrustedProxies(reader),
    gitHosts: readGitHosts(reader),
    dataDir: path.resolve(reader.text('COFFER_DATA_DIR') ?? 'data'),
    runtimeDir: reader.text('XDG_RUNTIME_DIR'),
    postgresUser: reader.text('COFFER_POSTGRES_USER'),
    embedded: reader.text('DATABASE_URL') === undefined,
    poolSize: reader.integer('COFFER_DATABASE_POOL', 10, 1, 500),
    prepare: reader.flag('COFFER_DATABASE_PREPARE', true),
    masterKeyFiles: keyFiles.filter((file) => file !== '').map((file) => path.resolve(file)),
    auditKeyFile: reader.path('COFFER_AUDIT_KEY_FILE'),
    auditCheckpoints: reader.path('COFFER_AUDIT_CHECKPOINTS'),
    auditRetentionDays: reader.optionalInteger('COFFER_AUDIT_RETENTION_DAYS', 1, 36_500),
    logLevel: reader.oneOf('COFFER_LOG_LEVEL', 'info', LOG_LEVELS),
    maxValueBytes: reader.integer('COFFER_MAX_VALUE_BYTES', 48 * 1024, 1, 16 * 1024 * 1024),
    maxSecrets: reader.optionalInteger('COFFER_MAX_SECRETS', 1, 100_000),
    rateLimits: readRateLimits(reader),
    keyGraceSeconds: reader.integer('COFFER_KEY_GRACE_HOURS', 24, 0, 8760) * 3600,
    tokenDefaultDays: reader.integer('COFFER_TOKEN_DEFAULT_DAYS', 90, 1, 3650),
    tokenMaxDays: reader.integer('COFFER_TOKEN_MAX_DAYS', 366, 1, 3650),
    adminLogin: reader.login('COFFER_ADMIN_LOGIN', 'admin'),
    organization: reader.login('COFFER_ORGANIZATION', 'coffer'),
    adminTokenFile: reader.text('COFFER_ADMIN_TOKEN_FILE'),
    runner: readRunner(reader)
  }
  const secrets: Secrets = {
    databaseUrl,
    databaseDirectUrl: reader.url('COFFER_DATABASE_DIRECT_URL', ['postgres:', 'postgresql:']),
    adminToken: readAdminToken(reader),
    metricsToken: reader.secret('COFFER_METRICS_TOKEN')
  }
  requireProtection(reader, config)
  if (!config.embedded && config.masterKeyFiles.length === 0) {
    reader.problems.push(
      'COFFER_MASTER_KEY_FILE must be set when DATABASE_URL is; make a key with: coffer key generate FILE'
    )
  }
  if (config.tokenDefaultDays > config.tokenMaxDays) {
    reader.problems.push('COFFER_TOKEN_DEFAULT_DAYS must not be more than COFFER_TOKEN_MAX_DAYS')
  }
  if (reader.problems.length > 0) {
    throw new RefusedToStart(
      `The configuration is not valid:\n${reader.problems.map((p) => `  ${p}`).join('\n')}`
    )
  }
  return { config: Object.freeze(config), secrets: Object.freeze(secrets) }
}

/** The process's environment, with what a `.env` in the working folder adds to it. */
export function readEnvironment(): Environment {
  try {
    process.loadEnvFile('.env')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new RefusedToStart('The file .env cannot be read; make it readable, or remove it.')
    }
  }
  return readOwnEnvironment()
}

/** The process's environment alone, for commands that run in folders of other people. */
export function readOwnEnvironment(): Environment {
  return { ...process.env }
}

export interface ClientConfig {
  url: string
  token: string
}

/** What the client side of the command line needs; `whose` says which token that is. */
export function loadClientConfig(environment: Environment, whose = 'of an administrator'): ClientConfig {
  const reader = new Reader(environment)
  const url = readClientUrl(reader)
  const token = readClientToken(reader)
  if (token === undefined) {
    reader.problems.push(`COFFER_TOKEN (or COFFER_TOKEN_FILE) must hold a token ${whose}`)
  }
  if (reader.problems.length > 0) throw new RefusedToStart(reader.problems.join('\n'))
  return { url, token: token! }
}

/**
 * What the client of the secrets API needs: the server may be GitHub itself, which has names of its own for a
 * token. Those go nowhere else, and a token of Coffer's does not go there.
 */
export function loadSecretsClientConfig(environment: Environment): ClientConfig {
  const reader = new Reader(environment)
  const given = readClientUrl(reader)
  const url = gitHubApi(reader, given)
  let token = readClientToken(reader)
  if (url === undefined) {
    if (token === undefined) {
      reader.problems.push(
        'COFFER_TOKEN (or COFFER_TOKEN_FILE) must hold a token for the server at COFFER_URL; a .env is not read here'
      )
    }
  } else if (token === undefined || token.startsWith('coffer_')) {
    token = reader.firstOf(['GH_TOKEN', 'GITHUB_TOKEN'])
    if (token === undefined) {
      reader.problems.push(
        'GH_TOKEN, GITHUB_TOKEN or COFFER_TOKEN (or COFFER_TOKEN_FILE) must hold a token of GitHub; a .env is not read here'
      )
    }
  }
  if (reader.problems.length > 0) throw new RefusedToStart(reader.problems.join('\n'))
  return { url: url ?? given, token: token! }
}

function readClientUrl(reader: Reader): string {
  const text = reader.url('COFFER_URL', ['http:', 'https:']) ?? 'http://127.0.0.1:3000'
  const url = new URL(text)
  if (url.search || url.hash || url.username || url.password) {
    reader.problems.push('COFFER_URL must have no user, query or fragment')
  }
  return text.replace(/\/+$/, '')
}

function readClientToken(reader: Reader): string | undefined {
  const token = reader.secret('COFFER_TOKEN')
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return token
  reader.problems.push('COFFER_TOKEN (or COFFER_TOKEN_FILE) holds something else than one token')
  return token
}

/** GitHub's API, for the address of its website too; undefined for every other server. */
function gitHubApi(reader: Reader, text: string): string | undefined {
  const { protocol, hostname } = new URL(text)
  const host = hostname.replace(/^(www|api)\./, '')
  if (host !== 'github.com' && !/^[a-z0-9-]+\.ghe\.com$/.test(host)) return undefined
  if (protocol !== 'https:') reader.problems.push('COFFER_URL must begin with https:// for GitHub')
  return `https://api.${host}`
}
