import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import type { GitSource } from '../../src/runner/interface.ts'

const NOBODY_ELSE = {
  PATH: process.env.PATH,
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  ...Object.fromEntries(
    ['AUTHOR', 'COMMITTER'].flatMap((who) => [
      [`GIT_${who}_NAME`, 'Test'],
      [`GIT_${who}_EMAIL`, 'test@example.com']
    ])
  )
}

/** Repositories behind `git http-backend` on loopback, as a git server gives them. */
export class GitRemote {
  /** `user:password` that is asked for; undefined: nobody is asked */
  credential: string | undefined
  /** requests for these repositories are never answered */
  readonly held = new Set<string>()
  /** paths that were asked for */
  readonly requests: string[] = []
  readonly #folder: string
  readonly #server: Server

  constructor(folder: string) {
    this.#folder = folder
    this.#server = createServer((request, response) => this.#answer(request, response))
  }

  /** For a git secret. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  /** Makes a repository of one commit, whose files are these. */
  async add(name: string, files: Readonly<Record<string, string>>): Promise<void> {
    const folder = path.join(this.#folder, `${name}.git`)
    await mkdir(folder, { recursive: true })
    const git = (...args: string[]) => promisify(execFile)('git', args, { cwd: folder, env: NOBODY_ELSE })
    await git('init', '--quiet', '--initial-branch=main')
    for (const [file, content] of Object.entries(files)) await writeFile(path.join(folder, file), content)
    await git('add', '.')
    await git('commit', '--quiet', '--message', name)
  }

  source(name: string): GitSource {
    return {
      remoteUri: `http://${this.host}/${name}.git`,
      upstreamRemoteUri: '',
      targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD',
      cloneTarget: '',
      checkoutLocation: ''
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, search } = new URL(request.url!, 'http://localhost')
    this.requests.push(pathname)
    if (this.held.has(pathname.split('/')[1]!.replace('.git', ''))) return
    const expected = this.credential && `Basic ${Buffer.from(this.credential).toString('base64')}`
    if (expected && request.headers.authorization !== expected) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end()
      return
    }
    const child = spawn('git', ['http-backend'], {
      env: {
        ...NOBODY_ELSE,
        GIT_PROJECT_ROOT: this.#folder,
        GIT_HTTP_EXPORT_ALL: '1',
        PATH_INFO: pathname.replace('.git/', '.git/.git/'),
        QUERY_STRING: search.slice(1),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers['content-type'],
        HTTP_CONTENT_ENCODING: request.headers['content-encoding'],
        GIT_PROTOCOL: request.headers['git-protocol'] as string | undefined
      },
      stdio: ['pipe', 'pipe', 'ignore']
    })
    child.stdin.on('error', () => {})
    request.pipe(child.stdin)
    const chunks: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.stdout.once('end', () => {
      const output = Buffer.concat(chunks)
      const end = output.indexOf('\r\n\r\n')
      const headers = output
        .subarray(0, end)
        .toString()
        .split('\r\n')
        .map((line) => line.split(': ') as [string, string])
      const status = headers.find(([name]) => name === 'Status')?.[1] ?? '200'
      response.writeHead(Number.parseInt(status, 10), Object.fromEntries(headers))
      response.end(output.subarray(end + 4))
    })
  }
}

export async function serveGit(t: Test): Promise<GitRemote> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-git-'))
  const remote = new GitRemote(folder)
  await remote.listen()
  t.teardown(async () => {
    remote.close()
    await rm(folder, { recursive: true, force: true })
  })
  return remote
}
