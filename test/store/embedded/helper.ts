import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { chmod, mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, extname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import type { Test } from 'tap'
import type { EmbeddedDatabase, EmbeddedOptions } from '../../../src/store/embedded/embedded-postgres.ts'

export const isRoot = process.geteuid!() === 0
export const packageDir = fileURLToPath(
  new URL('..', import.meta.resolve(`@embedded-postgres/${process.platform}-${process.arch}`))
).replace(/\/$/, '')

/** A folder outside the checkout, which every user can pass, and options for a data folder in it. */
export async function makeOptions(t: Test, name = 'data'): Promise<EmbeddedOptions & { systemDir: string }> {
  const base = await realpath(await mkdtemp(join(tmpdir(), 'coffer-test-')))
  await chmod(base, 0o711)
  const options = { dataDir: join(base, name), systemDir: join(base, 'system'), log: () => {} }
  t.teardown(async () => {
    await killPostmaster(join(options.dataDir, 'pg'))
    await rm(base, { recursive: true, force: true })
  })
  return options
}

export async function query(
  { connection }: Pick<EmbeddedDatabase, 'connection'>,
  sql: string,
  values: unknown[] = []
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ ...connection, ssl: false })
  await client.connect()
  try {
    return (await client.query(sql, values)).rows
  } finally {
    await client.end()
  }
}

export async function readPid(pgdata: string): Promise<number> {
  return Number((await readFile(join(pgdata, 'postmaster.pid'), 'utf8')).split('\n')[0])
}

/** Kills what a failed test has left; after a good one there is nothing. */
async function killPostmaster(pgdata: string): Promise<void> {
  const pid = await readPid(pgdata).catch(() => undefined)
  if (!pid || !isAlive(pid)) return
  const cwd = await realpath(`/proc/${pid}/cwd`).catch(() => '')
  if (cwd === pgdata) process.kill(pid, 'SIGKILL')
}

/** A process that has ended counts as dead, also while nobody has collected its status. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return process.platform !== 'linux' || !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

export async function until<T>(probe: () => Promise<T> | T, milliseconds = 10_000): Promise<T> {
  for (const end = Date.now() + milliseconds; ; await sleep(20)) {
    const found = await Promise.resolve()
      .then(probe)
      .catch(() => undefined)
    if (found) return found
    if (Date.now() > end) throw new Error('it did not come true in time')
  }
}

/** Runs `holder.ts` in a process of its own, and in a process group of its own. */
export function startHolder(
  t: Test,
  mode: 'serve' | 'attach' | 'hold',
  { log: _log, ...options }: EmbeddedOptions,
  spawnOptions: { uid?: number; gid?: number; env?: NodeJS.ProcessEnv } = {}
) {
  const extension = extname(fileURLToPath(import.meta.url))
  const script = fileURLToPath(new URL(`holder${extension}`, import.meta.url))
  const loader = extension === '.ts' ? ['--import', import.meta.resolve('tsx')] : []
  const argv = [...loader, script, mode, JSON.stringify(options)]
  const child = spawn(process.execPath, argv, {
    cwd: dirname(script),
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
    ...spawnOptions
  })
  t.teardown(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const answers = createInterface(child.stdout)[Symbol.asyncIterator]()
  return {
    pid: child.pid!,
    exited,
    /** What it says once it has the database, or why it has not. */
    async answer(): Promise<EmbeddedDatabase & { refused?: string; settings?: Record<string, string> }> {
      return JSON.parse((await answers.next()).value)
    },
    /** Closes the database and waits until the process has ended by itself; its exit code. */
    async close(): Promise<number | null> {
      child.stdin.end()
      return (await exited)[0]
    },
    async kill(): Promise<void> {
      process.kill(-child.pid!, 'SIGKILL')
      await exited
    }
  }
}
