// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Test } from 'tap'
import { startRunnerOf } from '../../environments/with-runner.ts'
import type { TestServerOptions } from '../../helper.ts'
import { type OnaServer, startOnaServer } from '../../routes/rpc/helper.ts'
import { BIN, coffer, type Finished, makeFolder, until, type Variables } from '../helper.ts'

/** A command that runs, and what it has written so far. */
export interface Running {
  pid: number
  stdout(): string
  stderr(): string
  type(text: string): void
  signal(name: NodeJS.Signals): void
  finished: Promise<Finished>
}

export interface World extends OnaServer {
  url: string
  folder: string
  variables: Variables
  /** calls a method in the owner's name; throws what is no success */
  ask(method: string, message: object, token?: string): Promise<any>
  /** coffer in the owner's name, to its end */
  coffer(args: readonly string[], input?: string | Uint8Array, variables?: Variables): Promise<Finished>
  /** the same, while it runs */
  start(args: readonly string[], variables?: Variables): Running
  /** gives its id */
  createProject(name: string, remoteUri?: string): Promise<string>
  createSecret(projectId: string, name: string, more?: object): Promise<string>
  /** a program that looks at all environments of the organization */
  listEnvironments(): Promise<any[]>
}

/** A server that listens with a runner in it, and the command line of the owner of an organization. */
export async function startWorld(t: Test, options: TestServerOptions = {}): Promise<World> {
  const server = await startOnaServer(t, { events: true, publicUrl: null, logLevel: 'silent', ...options })
  await startRunnerOf(t, server)
  const url = await server.listen()
  const folder = await makeFolder(t)
  const variables = { COFFER_URL: url, COFFER_TOKEN: server.owner.token }
  const ask = async (method: string, message: object, token = server.owner.token) => {
    const { status, body } = await server.call(method, token, message)
    if (status !== 200) throw new Error(`${method} answered ${status}: ${JSON.stringify(body)}`)
    return body
  }
  return Object.assign(server, {
    url,
    folder,
    variables,
    ask,
    coffer: (args: readonly string[], input?: string | Uint8Array, more: Variables = {}) =>
      coffer(folder, args, { ...variables, ...more }, input),
    start: (args: readonly string[], more: Variables = {}) =>
      startCommand(t, [process.execPath, BIN, ...args], folder, { ...variables, ...more }),
    async createProject(name: string, remoteUri?: string) {
      const specs = remoteUri === undefined ? [] : [{ git: { remoteUri } }]
      const message = { name, initializer: { specs }, environmentClass: {} }
      return (await ask('ProjectService/CreateProject', message)).project.id
    },
    async createSecret(projectId: string, name: string, more: object = { environmentVariable: true }) {
      const message = { scope: { projectId }, name, value: VALUE, ...more }
      return (await ask('SecretService/CreateSecret', message)).secret.id
    },
    async listEnvironments() {
      return (await ask('EnvironmentService/ListEnvironments', {})).environments ?? []
    }
  })
}

/** Of every secret; never shown. */
export const VALUE = 'value-that-nobody-shows'

export function startCommand(
  t: Test,
  [program, ...args]: readonly string[],
  folder: string,
  variables: Variables
): Running {
  const child = spawn(program!, args, {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, ...variables },
    stdio: 'pipe'
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (piece) => (stdout += piece))
  child.stderr.on('data', (piece) => (stderr += piece))
  child.stdin.on('error', () => {})
  t.teardown(() => child.kill('SIGKILL'))
  return {
    pid: child.pid!,
    stdout: () => stdout,
    stderr: () => stderr,
    type: (text) => void child.stdin.write(text),
    signal: (name) => void child.kill(name),
    finished: once(child, 'close').then(([code]) => ({ code, stdout, stderr }))
  }
}

/** Waits until a command has written that. */
export async function shown(running: Running, text: string): Promise<void> {
  await until(() => running.stdout().includes(text) || running.stderr().includes(text))
}
