import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import os from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'
import { startTestServer, type TestServer, type TestServerOptions } from '../helper.ts'
import type { Program } from '../installed.ts'
import { makeCertificates } from './certificates.ts'

// GitHub's own command line. Without TLS it speaks over a unix socket alone.

export const gh: Program = { file: '/usr/bin/gh', probe: ['--version'], package: 'gh' }
export const overTls: readonly Program[] = [gh, { file: 'openssl', probe: ['version'], package: 'openssl' }]
export const git: Program = { file: 'git', probe: ['--version'], package: 'git' }
/** Runs a command in a pseudo terminal. */
export const terminal: Program = { file: 'script', probe: ['--version'], package: 'bsdutils' }

/** gh that waits for an answer on a terminal is ended, and the test fails. */
const LONGEST_RUN_MS = 60_000

export type Way = 'socket' | 'tls'
/** Each way with what it needs. */
export const WAYS: readonly (readonly [Way, readonly Program[]])[] = [
  ['socket', [gh]],
  ['tls', overTls]
]

export interface Run {
  code: number | null
  stdout: string
  stderr: string
}

export interface GhOptions {
  /** the token; undefined: none is in the environment */
  as?: string | undefined
  input?: string
  /** further variables, or undefined for one that shall not be set */
  env?: Record<string, string | undefined>
  cwd?: string
}

export interface Gh {
  server: TestServer
  /** as gh names the server: `127.0.0.1:40001` */
  host: string
  /** gh's home and configuration */
  folder: string
  /** what was asked of the server since the last call, as it came: `GET /api/v3/user` */
  requests(): string[]
  run(args: readonly string[], options?: GhOptions): Promise<Run>
  /** gives what it printed; it ended with 0 and without a word of complaint */
  succeed(args: readonly string[], options?: GhOptions): Promise<string>
  /** what it shows on a terminal of 200 columns; it ended with 0 */
  show(args: readonly string[], options?: GhOptions): Promise<string>
}

/** A server that gh reaches in one of the ways, and gh beside it. */
export async function startForGh(t: Test, way: Way, options: TestServerOptions = {}): Promise<Gh> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-gh-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const certificates = way === 'tls' ? makeCertificates(folder) : undefined
  const server = await startTestServer(t, {
    publicUrl: null,
    ...(certificates && {
      tls: { cert: await readFile(certificates.cert), key: await readFile(certificates.key) }
    }),
    ...options
  })
  const { host } = new URL(await server.listen())
  const requests: string[] = []
  const record = ({ method, url }: IncomingMessage) => void requests.push(`${method} ${url}`)
  if (way === 'socket') {
    const socket = path.join(folder, 'coffer.sock')
    await listenOnSocket(t, server, socket, record)
    await writeFile(path.join(folder, 'config.yml'), `http_unix_socket: ${JSON.stringify(socket)}\n`)
  } else {
    server.app.server.prependListener('request', record)
  }

  const name = way === 'socket' ? 'localhost' : host
  const variables = ({ as, env }: GhOptions): Record<string, string> => {
    const all = {
      HOME: folder,
      PATH: process.env.PATH ?? '',
      TZ: 'UTC',
      GH_CONFIG_DIR: folder,
      GH_HOST: name,
      GH_NO_UPDATE_NOTIFIER: '1',
      NO_COLOR: '1',
      GH_ENTERPRISE_TOKEN: as,
      SSL_CERT_FILE: certificates?.authority,
      ...env
    }
    return Object.fromEntries(
      Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined)
    )
  }
  const execute = (file: string, args: readonly string[], options: GhOptions) =>
    run(file, args, variables(options), options.cwd ?? folder, options.input ?? '')
  return {
    server,
    host: name,
    folder,
    requests: () => requests.splice(0),
    run: (args, options = {}) => execute(gh.file, args, options),
    async succeed(args, options = {}) {
      const { code, stdout, stderr } = await execute(gh.file, args, options)
      t.equal(code, 0, `gh ${args.join(' ')} ${stderr}`)
      t.equal(stderr, '', `gh ${args.join(' ')}: no complaint`)
      return stdout
    },
    async show(args, options = {}) {
      const command = [gh.file, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
      const terminalArgs = ['-qec', `stty cols 200; ${command}`, '/dev/null']
      const env = { TERM: 'dumb', ...options.env }
      const { code, stdout } = await execute(terminal.file, terminalArgs, { ...options, env })
      t.equal(code, 0, `gh ${args.join(' ')} ${stdout}`)
      return stdout.replaceAll('\r', '')
    }
  }
}

async function listenOnSocket(
  t: Test,
  { app }: TestServer,
  socket: string,
  record: (request: IncomingMessage) => void
): Promise<void> {
  const server = createServer((request, response) => {
    record(request)
    app.routing(request, response)
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  t.teardown(async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  })
}

/** Runs a program to its end. */
function run(
  file: string,
  args: readonly string[],
  env: Record<string, string>,
  cwd: string,
  input: string
): Promise<Run> {
  const child = spawn(file, args, { cwd, env, timeout: LONGEST_RUN_MS })
  return new Promise((resolve, reject) => {
    const result: Run = { code: null, stdout: '', stderr: '' }
    child.stdout.on('data', (piece) => {
      result.stdout += piece
    })
    child.stderr.on('data', (piece) => {
      result.stderr += piece
    })
    child.once('error', reject)
    child.once('close', (code) => resolve({ ...result, code }))
    child.stdin.end(input)
  })
}

export const MAX_SECRETS = 100

/** A server with mona, her repository `web` and her token, and gh, which has that token unless told otherwise. */
export async function prepare(t: Test, way: Way = 'socket') {
  const client = await startForGh(t, way, { maxSecrets: MAX_SECRETS })
  const { server } = client
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'read:org'] })
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  const as = { as: token }
  return {
    ...client,
    mona,
    repositoryId,
    token,
    ask: (args: readonly string[], options: GhOptions = {}) => client.run(args, { ...as, ...options }),
    succeed: (args: readonly string[], options: GhOptions = {}) =>
      client.succeed(args, { ...as, ...options }),
    show: (args: readonly string[], options: GhOptions = {}) => client.show(args, { ...as, ...options }),
    userValue: async (name: string) => (await server.reveal('user', mona.uid, name))?.toString(),
    repoValue: async (name: string) => (await server.reveal('repository', uid, name))?.toString()
  }
}
