import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { loadConfig } from '../src/config.ts'
import type { Keyring } from '../src/keyring/index.ts'
import { type OpenStore, openKeyring, openStore } from '../src/open.ts'
import { loadGenerations } from '../src/secrets/generations.ts'
import { CHECKOUT } from './checkout.ts'

const BIN = path.join(CHECKOUT, 'bin', 'coffer.mjs')
const START_PATIENCE_MS = 60_000

export type Environment = Record<string, string>

export interface ChildServer {
  url: string
  /** all that it has written so far */
  output(): string
  kill(signal: NodeJS.Signals): Promise<void>
}

/** A data folder that is removed at the end, with the PostgreSQL that may still run in it. */
export async function makeDataDir(t: Test): Promise<string> {
  const base = await realpath(await mkdtemp(path.join(tmpdir(), 'coffer-child-')))
  await chmod(base, 0o711)
  const dataDir = path.join(base, 'data')
  t.teardown(async () => {
    await killPostgres(dataDir).catch(() => {})
    await rm(base, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  })
  return dataDir
}

function environmentOf(dataDir: string, environment: Environment): Environment {
  return { COFFER_DATA_DIR: dataDir, COFFER_PORT: '0', COFFER_LOG_LEVEL: 'trace', ...environment }
}

/** `coffer serve` in a process of its own, which answers when this returns. */
export async function startChildServer(
  t: Test,
  dataDir: string,
  environment: Environment
): Promise<ChildServer> {
  const child = spawn(process.execPath, [BIN, 'serve'], {
    cwd: path.dirname(dataDir),
    env: { PATH: process.env.PATH, ...environmentOf(dataDir, environment) },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => {
      output += text
    })
  }
  const exited = once(child, 'exit')
  const kill = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
    await exited
  }
  t.teardown(() => kill('SIGKILL'))
  for (const end = Date.now() + START_PATIENCE_MS; ; await sleep(20)) {
    const url = /"url":"([^"]+)".*"msg":"serving"/.exec(output)?.[1]
    if (url) return { url, output: () => output, kill }
    if (child.exitCode !== null || Date.now() > end) throw new Error(`it does not serve: ${output}`)
  }
}

export async function postmasterPid(dataDir: string): Promise<number> {
  return Number((await readFile(path.join(dataDir, 'pg', 'postmaster.pid'), 'utf8')).split('\n')[0])
}

/** Kills the postmaster, and returns when it is gone. Its children follow by themselves. */
export async function killPostgres(dataDir: string): Promise<void> {
  const pid = await postmasterPid(dataDir)
  if ((await realpath(`/proc/${pid}/cwd`)) !== (await realpath(path.join(dataDir, 'pg')))) return
  process.kill(pid, 'SIGKILL')
  while (await realpath(`/proc/${pid}/cwd`).catch(() => undefined)) await sleep(5)
}

/** What is stored, with the keys to it: beside the server, or when it has ended. */
export async function withStore<T>(
  dataDir: string,
  environment: Environment,
  use: (store: { db: OpenStore['db']; keyring: Keyring }) => Promise<T>
): Promise<T> {
  const { config, secrets } = loadConfig(environmentOf(dataDir, environment))
  const store = await openStore(config, secrets, 'attach', { log: () => {} })
  try {
    const keyring = await openKeyring(config, store.db)
    await loadGenerations(store.db, keyring)
    try {
      return await use({ db: store.db, keyring })
    } finally {
      keyring.close()
    }
  } finally {
    await store.close()
  }
}
