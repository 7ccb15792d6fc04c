import { randomUUID } from 'node:crypto'
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import { Bubblewrap, type BubblewrapOptions } from '../../src/runner/bubblewrap.ts'
import type { ExitStatus } from '../../src/runner/exit-status.ts'
import type { EnvironmentFolders, ProcessRequest, Sandbox } from '../../src/runner/sandbox.ts'

// These tests need the packages bubblewrap and git; without them they fail, with the line that installs them.

export interface TestRunner {
  sandbox: Bubblewrap
  dataDir: string
  makeFolders(): Promise<EnvironmentFolders>
}

/** A sandbox, with a data folder as the runner has it. */
export async function makeRunner(t: Test, options: BubblewrapOptions = {}): Promise<TestRunner> {
  const dataDir = await makeFolder(t, os.tmpdir())
  const values = await makeFolder(t, '/dev/shm')
  const sandbox = await Bubblewrap.open({ hiddenPaths: [dataDir], ...options })
  const makeFolders = async () => {
    const id = randomUUID()
    const folders = {
      workspace: path.join(dataDir, 'environments', id, 'workspace'),
      home: path.join(dataDir, 'environments', id, 'home'),
      secrets: path.join(values, id)
    }
    for (const folder of Object.values(folders)) await mkdir(folder, { recursive: true, mode: 0o711 })
    for (const own of [folders.workspace, folders.home]) await giveTo(sandbox, own)
    return folders
  }
  return { sandbox, dataDir, makeFolders }
}

/** The environment's user can pass through it. */
export async function makeFolder(t: Test, parent: string): Promise<string> {
  const folder = await mkdtemp(path.join(parent, 'coffer-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o711)
  return folder
}

export async function giveTo({ user }: Sandbox, file: string): Promise<void> {
  if (process.getuid!() === 0) await chown(file, user.uid, user.gid)
}

export interface Outcome extends ExitStatus {
  stdout: string
  stderr: string
}

/** Runs a command to its end. */
export async function run(
  sandbox: Sandbox,
  folders: EnvironmentFolders,
  command: readonly string[],
  { stdin = '', ...request }: Partial<ProcessRequest> & { stdin?: string } = {}
): Promise<Outcome> {
  const child = await sandbox.start(folders, { variables: {}, links: new Map(), ...request, command })
  child.stdin.end(stdin)
  const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), child.exit])
  return { stdout, stderr, ...status }
}

/** Runs a line of a shell to its end. */
export function sh(
  sandbox: Sandbox,
  folders: EnvironmentFolders,
  line: string,
  request: Partial<ProcessRequest> & { stdin?: string } = {}
): Promise<Outcome> {
  return run(sandbox, folders, ['sh', '-c', line], request)
}

/** As the runner delivers: files that the environment's user may read, in a folder that is not its own. */
export async function deliverFiles(
  sandbox: Sandbox,
  folders: EnvironmentFolders,
  files: ReadonlyMap<string, Buffer>
): Promise<void> {
  for (const [name, content] of files) {
    const file = path.join(folders.secrets, name)
    await mkdir(path.dirname(file), { recursive: true, mode: 0o711 })
    await writeFile(file, content, { mode: 0o400 })
    await giveTo(sandbox, file)
  }
}
