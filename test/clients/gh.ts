import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import os from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'
import { startTestServer, type TestServer } from '../helper.ts'
import type { Program } from '../installed.ts'

export const gh: Program = { file: '/usr/bin/gh', probe: ['--version'], package: 'gh' }
export const MAX_SECRETS = 100

export interface Run {
  code: number | null
  stdout: string
  stderr: string
}

export interface RunOptions {
  /** the token that gh finds in its environment; null: none */
  as?: string | null
  input?: string
  /** where gh runs; the folder of its configuration by default */
  cwd?: string
  environment?: Record<string, string>
}

/** Serves the routes on a socket in a folder that also is gh's configuration; gives the folder. */
async function listenOnSocket(t: Test, { app, listen }: TestServer): Promise<string> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-gh-'))
  const socket = path.join(folder, 'coffer.sock')
  const server = createServer((request, response) => app.routing(request, response))
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  await listen()
  await writeFile(path.join(folder, 'config.yml'), `http_unix_socket: ${JSON.stringify(socket)}\n`)
  t.teardown(async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
    await rm(folder, { recursive: true })
  })
  return folder
}

/** Runs gh with nothing of this machine's configuration. */
export function runGh(folder: string, args: readonly string[], options: RunOptions): Promise<Run> {
  const { as = null, input = '', cwd = folder, environment = {} } = options
  const child = spawn(gh.file, args, {
    cwd,
    env: {
      HOME: folder,
      PATH: process.env.PATH ?? '',
      TZ: 'UTC',
      GH_CONFIG_DIR: folder,
      GH_HOST: 'localhost',
      ...(as !== null && { GH_ENTERPRISE_TOKEN: as }),
      GH_NO_UPDATE_NOTIFIER: '1',
      NO_COLOR: '1',
      ...environment
    }
  })
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

/** A server on a unix socket with mona, her repository `web`, her token, and gh. */
export async function prepare(t: Test) {
  const server = await startTestServer(t, { publicUrl: null, maxSecrets: MAX_SECRETS })
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'read:org'] })
  const folder = await listenOnSocket(t, server)
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  const ask = (args: readonly string[], options: RunOptions = {}) =>
    runGh(folder, args, { as: token, ...options })
  return {
    server,
    mona,
    repositoryId,
    token,
    folder,
    ask,
    succeed: async (args: readonly string[], options: RunOptions = {}) => {
      const { code, stdout, stderr } = await ask(args, options)
      t.equal(code, 0, `gh ${args.join(' ')} ${stderr}`)
      t.equal(stderr, '')
      return stdout
    },
    userValue: async (name: string) => (await server.reveal('user', mona.uid, name))?.toString(),
    repoValue: async (name: string) => (await server.reveal('repository', uid, name))?.toString()
  }
}
