import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { chmod, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { CHECKOUT } from '../checkout.ts'

/** The command as it is in the checkout, also when the tests run from their build folder. */
export const BIN = path.join(CHECKOUT, 'bin', 'coffer.mjs')

export type Variables = Readonly<Record<string, string | undefined>>

/** A folder that PostgreSQL's user can pass, removed at the end with what runs in it. */
export async function makeFolder(t: Test): Promise<string> {
  const folder = await realpath(await mkdtemp(path.join(tmpdir(), 'coffer-cli-')))
  await chmod(folder, 0o711)
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

export async function makeMasterKey(folder: string): Promise<string> {
  const file = path.join(folder, 'master.key')
  await writeFile(file, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 })
  return file
}

export interface Finished {
  code: number | null
  stdout: string
  stderr: string
}

function start(
  command: readonly string[],
  folder: string,
  variables: Variables,
  stdin: 'ignore' | 'pipe' = 'ignore'
): ChildProcess {
  const [file, ...args] = command
  return spawn(file!, args, {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, ...variables },
    stdio: [stdin, 'pipe', 'pipe']
  })
}

/** Runs a program with nothing in its environment but PATH, HOME and what is given. */
export async function run(
  command: readonly string[],
  folder: string,
  variables: Variables = {},
  input?: string | Uint8Array
): Promise<Finished> {
  const child = start(command, folder, variables, input === undefined ? 'ignore' : 'pipe')
  child.stdin?.end(input)
  let stdout = ''
  let stderr = ''
  child.stdout!.on('data', (piece) => (stdout += piece))
  child.stderr!.on('data', (piece) => (stderr += piece))
  const [code] = await once(child, 'close')
  return { code, stdout, stderr }
}

export async function coffer(
  folder: string,
  args: readonly string[],
  variables: Variables = {},
  input?: string | Uint8Array
) {
  return await run([process.execPath, BIN, ...args], folder, variables, input)
}

export interface Server {
  pid: number
  url: string
  socket: string | undefined
  /** all that it wrote, log and words for people */
  output(): string
  log(): Record<string, unknown>[]
  /** SIGTERM; the exit code */
  stop(): Promise<number | null>
  kill(): Promise<void>
}

const PATIENCE_MS = 40_000

/** Starts `coffer serve` on a free port and waits until it serves and has said all. */
export async function startServer(t: Test, folder: string, variables: Variables): Promise<Server> {
  const child = start([process.execPath, BIN, 'serve'], folder, { COFFER_PORT: '0', ...variables })
  let output = ''
  child.stdout!.on('data', (piece) => (output += piece))
  child.stderr!.on('data', (piece) => (output += piece))
  const closed = once(child, 'close')
  const server: Server = {
    pid: child.pid!,
    url: '',
    socket: undefined,
    output: () => output,
    log: () => readLog(output),
    async stop() {
      child.kill('SIGTERM')
      return (await closed)[0]
    },
    async kill() {
      child.kill('SIGKILL')
      await closed
    }
  }
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGTERM')
    await Promise.race([closed, sleep(15_000, undefined, { ref: false })])
    child.kill('SIGKILL')
  })
  const serving = await until(async () => {
    if (child.exitCode !== null) throw new Stop('the server ended')
    const line = server.log().find(({ msg }) => msg === 'serving')
    if (!line || !output.endsWith('\n\n')) return undefined
    const soFar = output
    await sleep(150)
    return output === soFar && child.exitCode === null ? line : undefined
  }).catch((error) => {
    throw new Error(`${error.message}\n${output}`)
  })
  server.url = serving.url as string
  server.socket = serving.socket as string | undefined
  return server
}

export function readLog(output: string): Record<string, unknown>[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
}

class Stop extends Error {}

export async function until<T>(probe: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (const end = Date.now() + PATIENCE_MS; ; await sleep(25)) {
    const found = await probe()
    if (found) return found
    if (Date.now() > end) throw new Stop('it did not come true in time')
  }
}

/** The pid of the PostgreSQL that runs on a data folder; undefined when none does. */
export function postgresOf(dataDir: string): number | undefined {
  const pgdata = path.join(dataDir, 'pg')
  const file = path.join(pgdata, 'postmaster.pid')
  if (!existsSync(file)) return undefined
  const pid = Number(readFileSync(file, 'utf8').split('\n')[0])
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === pgdata ? pid : undefined
  } catch {
    return undefined
  }
}

/** Ends a PostgreSQL that a failed test, or a killed server, has left. */
export function endPostgres(t: Test, dataDir: string): void {
  t.teardown(() => {
    const pid = postgresOf(dataDir)
    if (pid) process.kill(pid, 'SIGKILL')
  })
}

/** The status of `GET path` with this token. */
export async function statusOf(url: string, token: string, path = '/user'): Promise<number> {
  const response = await fetch(url + path, { headers: { authorization: `Bearer ${token}` } })
  await response.arrayBuffer()
  return response.status
}
