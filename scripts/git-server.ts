import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const IDENTITY = {
  GIT_AUTHOR_NAME: 'Ada',
  GIT_AUTHOR_EMAIL: 'ada@example.com',
  GIT_COMMITTER_NAME: 'Ada',
  GIT_COMMITTER_EMAIL: 'ada@example.com'
}

export interface GitServer {
  /** `http://127.0.0.1:port` */
  url: string
  /** `127.0.0.1:port` */
  host: string
  /** the folder of repositories */
  folder: string
  /** runs git in a repository */
  git(repository: string, ...args: string[]): Promise<string>
  /** what was asked for, with the user name of each request */
  requests: { path: string; user: string | undefined }[]
  close(): Promise<void>
}

export interface GitServerOptions {
  /** `username:password` that is asked for; undefined: anybody may read */
  credentials?: string
  /** answers instead of git */
  answer?: (request: IncomingMessage, response: ServerResponse) => boolean
}

/** Real repositories, served by git's own `http-backend` behind a CGI on loopback. */
export async function startGitServer({ credentials, answer }: GitServerOptions = {}): Promise<GitServer> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-git-'))
  const requests: GitServer['requests'] = []
  const server = createServer((request, response) => {
    const [, encoded = ''] = /^Basic (.*)$/.exec(request.headers.authorization ?? '') ?? []
    const given = Buffer.from(encoded, 'base64').toString()
    requests.push({ path: request.url!, user: encoded ? given.split(':')[0] : undefined })
    if (answer?.(request, response)) return
    if (credentials === undefined || given === credentials) {
      serveRequest(folder, request, response)
    } else {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end()
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = async () => {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true, force: true })
  }
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const git = async (repository: string, ...args: string[]) => {
    const { stdout } = await promisify(execFile)('git', args, {
      cwd: path.join(folder, repository),
      env: { PATH: '/usr/bin:/bin', HOME: folder, GIT_CONFIG_NOSYSTEM: '1', ...IDENTITY }
    })
    return stdout.trim()
  }
  return { url: `http://${host}`, host, folder, git, requests, close }
}

/** A repository with a branch `main` of two commits, a branch `other`, a tag `v1` and a commit that no branch has. */
export async function makeRepository({ folder, git }: GitServer, name: string) {
  await git('', 'init', '--quiet', '--initial-branch=main', name)
  const commit = async (text: string) => {
    await writeFile(path.join(folder, name, 'file'), text)
    await git(name, 'add', '.')
    await git(name, 'commit', '--quiet', '--message', text)
    return await git(name, 'rev-parse', 'HEAD')
  }
  const first = await commit('first')
  await git(name, 'tag', '--annotate', '--message', 'one', 'v1')
  const main = await commit('second')
  await git(name, 'checkout', '--quiet', '-b', 'other', first)
  const other = await commit('other')
  await git(name, 'checkout', '--quiet', '--detach')
  const hidden = await commit('hidden')
  await git(name, 'update-ref', 'refs/pull/1/head', hidden)
  await git(name, 'checkout', '--quiet', 'main')
  return { first, main, other, hidden }
}

/** CGI (RFC 3875), as far as git needs it. */
function serveRequest(folder: string, request: IncomingMessage, response: ServerResponse): void {
  const { pathname, search } = new URL(request.url!, 'http://localhost')
  const child = spawn('git', ['http-backend'], {
    env: {
      PATH: '/usr/bin:/bin',
      GIT_PROJECT_ROOT: folder,
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      GIT_CONFIG_COUNT: '1',
      GIT_CONFIG_KEY_0: 'safe.directory',
      GIT_CONFIG_VALUE_0: '*',
      PATH_INFO: pathname,
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: request.method!,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      REMOTE_USER: 'somebody',
      REMOTE_ADDR: '127.0.0.1'
    },
    stdio: ['pipe', 'pipe', 'ignore']
  })
  child.stdin.on('error', () => {})
  request.pipe(child.stdin)
  let head = Buffer.alloc(0)
  const onHead = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    child.stdout.off('data', onHead)
    const headers = Object.fromEntries(
      head
        .subarray(0, end)
        .toString()
        .split('\r\n')
        .map((line) => line.split(': ') as [string, string])
    )
    const { Status: status = '200', ...others } = headers
    response.writeHead(Number.parseInt(status, 10), others)
    response.write(head.subarray(end + 4))
    child.stdout.pipe(response)
  }
  child.stdout.on('data', onHead)
  child.once('close', () => response.end())
  // Whoever goes away in the middle reads nothing more, and git would wait for that.
  response.once('close', () => child.kill())
}
