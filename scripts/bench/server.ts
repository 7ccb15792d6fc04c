import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { createInterface } from 'node:readline'

export const ADMIN_TOKEN = 'benchmark-token-of-the-first-administrator'

/** A process under load: where it answers, and what it uses. */
export interface Subject {
  url: string
  pid: number
  stop(): Promise<void>
}

async function untilReady(
  child: ChildProcess,
  isReady: (line: string) => string | undefined
): Promise<string> {
  const lines = createInterface({ input: child.stdout! })
  const url = await new Promise<string>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`it ended with ${code} before it was ready`)))
    lines.on('line', (line) => {
      const found = isReady(line)
      if (found) resolve(found)
    })
  })
  child.removeAllListeners('exit')
  // From here on its output is read and dropped: whoever drives the load does not read a line for each request.
  lines.close()
  child.stdout!.resume()
  return url
}

function subject(child: ChildProcess, url: string): Subject {
  return {
    url,
    pid: child.pid!,
    async stop() {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGTERM')
      await ended
    }
  }
}

/** The real server as a user starts it, with its embedded PostgreSQL. */
export async function startCoffer(dataDir: string): Promise<Subject> {
  const child = spawn(process.execPath, ['bin/coffer.mjs', 'serve'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH,
      COFFER_DATA_DIR: dataDir,
      COFFER_PORT: '0',
      COFFER_ADMIN_TOKEN: ADMIN_TOKEN,
      COFFER_MAX_SECRETS: '100000'
    }
  })
  const url = await untilReady(child, (line) => /"url":"(http[^"]+)".*"msg":"serving"/.exec(line)?.[1])
  return subject(child, url)
}

/** The floor: bare Fastify over the same database. */
export async function startFloor(dataDir: string): Promise<Subject> {
  const floor = path.join(import.meta.dirname, 'floor.ts')
  // As the server does: else V8 makes lists a third more expensive in some runs, and in others not.
  const flags = ['--no-allocation-site-pretenuring', '--import', 'tsx']
  const child = spawn(process.execPath, [...flags, floor, dataDir], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH }
  })
  const url = await untilReady(child, (line) => /^ready (http.*)$/.exec(line)?.[1])
  return subject(child, url)
}

/** Resident memory in MiB, now and at its highest; undefined where /proc does not tell. */
export async function readMemory(pid: number): Promise<{ rss: number; peak: number } | undefined> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => undefined)
  if (!status) return undefined
  const read = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024
  return { rss: read('VmRSS'), peak: read('VmHWM') }
}
