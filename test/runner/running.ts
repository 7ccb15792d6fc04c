import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import { createLogger } from '../../src/logger.ts'
import { Bubblewrap } from '../../src/runner/bubblewrap.ts'
import type { GitSource, RunnerInterface } from '../../src/runner/interface.ts'
import { Runner, type RunnerOptions } from '../../src/runner/runner.ts'
import type { Sandbox } from '../../src/runner/sandbox.ts'

/** A data folder for a runner, and where in memory its secrets are; both are gone at the end. */
export async function makeDataDir(t: Test): Promise<{ dataDir: string; secretsDir: string }> {
  const dataDir = await realpath(await mkdtemp(path.join(os.tmpdir(), 'coffer-runner-')))
  await chmod(dataDir, 0o711)
  const name = createHash('sha256').update(dataDir).digest('hex').slice(0, 16)
  const secretsDir = `/dev/shm/coffer-${name}`
  t.teardown(async () => {
    spawnSync('chmod', ['-R', 'u+rwx', dataDir])
    for (const folder of [dataDir, secretsDir]) await rm(folder, { recursive: true, force: true })
  })
  return { dataDir, secretsDir }
}

export interface StartOptions extends Partial<RunnerOptions> {
  sandbox?: Sandbox
  /** of an earlier runner */
  folders?: { dataDir: string; secretsDir: string }
}

/** A runner that works for this server, with bubblewrap, and what it logs. */
export async function startRunner(t: Test, server: RunnerInterface, options: StartOptions = {}) {
  const { sandbox = await Bubblewrap.open(), folders = await makeDataDir(t), ...rest } = options
  const { dataDir, secretsDir } = folders
  const log: string[] = []
  const logger = createLogger('debug', { write: (line) => void log.push(line) })
  const runner = new Runner(server, sandbox, { dataDir, logger, ...rest })
  t.teardown(() => runner.close())
  await runner.start()
  return { runner, sandbox, folders, dataDir, secretsDir, log }
}

/** A repository, cloned as it is by itself. */
export function sourceOf(remoteUri: string): GitSource {
  return {
    remoteUri,
    upstreamRemoteUri: '',
    targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD',
    cloneTarget: '',
    checkoutLocation: ''
  }
}

export interface Outcome {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs a script of sh in an environment, to its end. */
export async function runInside(runner: Runner, environmentId: string, script: string): Promise<Outcome> {
  const process = await runner.getEnvironment(environmentId).start({
    command: ['/bin/sh', '-c', script]
  })
  process.stdin.end()
  const [stdout, stderr, { code }] = await Promise.all([
    text(process.stdout),
    text(process.stderr),
    process.exit
  ])
  return { code, stdout, stderr }
}

/** Names of all files below a folder. */
export async function listFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .sort()
}

/** Command lines of this machine's processes. */
export async function commandLines(): Promise<string[]> {
  const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  return await Promise.all(processes.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
}

/** Something that is waited for until a test lets it happen. */
export class Gate {
  readonly passed: Promise<void>
  open!: () => void

  constructor() {
    this.passed = new Promise((resolve) => {
      this.open = resolve
    })
  }
}
