import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { link, open, readFile, readlink, realpath, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { lastLines, run, spawnAs } from './child.ts'
import { hasCode, makePrivateFolder } from './files.ts'
import { type Cluster, port } from './folder.ts'

/** What postmaster.pid says; it may be stale. `socketFolder` is empty while PostgreSQL is not yet listening. */
export interface PostmasterFile {
  pid: number
  port: number
  socketFolder: string
  text: string
}

/** A PostgreSQL that we have started. `failure` is set when it has ended, to what it said last. */
export interface Launched {
  failure?: string
}

/** Settings that keep promises, so neither postgresql.conf nor ALTER SYSTEM can change them. */
const settings = {
  fsync: 'on',
  full_page_writes: 'on',
  synchronous_commit: 'on',
  listen_addresses: '',
  unix_socket_permissions: '0700',
  password_encryption: 'scram-sha-256',
  timezone: 'UTC',
  log_timezone: 'UTC',
  cluster_name: 'coffer',
  // One file a day, each overwritten a week later. Nothing of a statement gets there: neither its text nor its
  // parameters, nor the messages of statements that failed, which quote what they were given.
  logging_collector: 'on',
  log_destination: 'stderr',
  log_directory: 'log',
  log_filename: 'postgresql-%a.log',
  log_truncate_on_rotation: 'on',
  log_rotation_age: '1d',
  log_rotation_size: '0',
  log_file_mode: '0600',
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
  log_statement: 'none',
  log_min_duration_statement: '-1',
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
  log_lock_waits: 'off',
  log_checkpoints: 'off'
}

export function readPostmasterFile(pgdata: string): Promise<PostmasterFile | undefined> {
  return readLockFile(join(pgdata, 'postmaster.pid'))
}

/** The lock file of a data folder and the one of a socket have the same form. */
async function readLockFile(path: string): Promise<PostmasterFile | undefined> {
  try {
    const text = await readFile(path, 'utf8')
    const lines = text.split('\n')
    const pid = Number(lines[0])
    if (!Number.isSafeInteger(pid) || pid <= 1) return undefined
    // PostgreSQL writes the file anew, longer, while it starts: a last line without its end is not all of it.
    const socketFolder = lines.length > 5 ? lines[4]! : ''
    return { pid, port: Number(lines[3]), socketFolder, text }
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/**
 * The postmaster of this folder, when it lives. The pid in the file is believed only when that process is
 * PostgreSQL's user's and works in this folder: pids are reused, and root's signals reach everybody.
 */
export async function findPostmaster({ pgdata, account }: Cluster): Promise<PostmasterFile | undefined> {
  const file = await readPostmasterFile(pgdata)
  return file && (await inspect(file.pid, pgdata, account.uid)) === 'postmaster' ? file : undefined
}

async function inspect(pid: number, pgdata: string, uid: number): Promise<'postmaster' | 'other' | 'gone'> {
  if (process.platform !== 'linux') return inspectWithPs(pid, uid)
  try {
    if ((await stat(`/proc/${pid}`)).uid !== uid) return 'gone'
    // Field 3, after the command, which is in brackets and may hold anything: Z and X have ended.
    const state = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '')[0]
    if (state === 'Z' || state === 'X') return 'other'
    // A process that is about to end has no folder any more, and one of another security domain shows none:
    // neither proves that it is somebody else.
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined)
    return cwd === undefined || cwd === (await realpath(pgdata)) ? 'postmaster' : 'other'
  } catch {
    return 'gone'
  }
}

/** Without /proc the folder cannot be told; the login with our password tells it later. */
async function inspectWithPs(pid: number, uid: number): Promise<'postmaster' | 'other' | 'gone'> {
  const { code, output } = await run('ps', ['-o', 'uid=,comm=', '-p', String(pid)])
  const [owner, command = ''] = output.trim().split(/\s+/, 2)
  if (code !== 0 || Number(owner) !== uid) return 'gone'
  return command.includes('postgres') ? 'postmaster' : 'other'
}

/**
 * Starts PostgreSQL and returns at once. It is in a session of its own and holds no pipe of ours, so that
 * neither a signal to our process group nor our sudden death touches it.
 */
export async function launchPostmaster(cluster: Cluster): Promise<Launched> {
  const { account, binaries, dataDir, pgdata, socketFolder } = cluster
  await makePrivateFolder(socketFolder, account)
  await removeStaleLockFile(join(pgdata, 'postmaster.pid'), cluster)
  await removeStaleLockFile(join(socketFolder, `.s.PGSQL.${port}.lock`), cluster)
  const startLog = join(dataDir, 'postgres-start.log')
  await rm(startLog, { force: true })
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants
  const output = await open(startLog, O_CREAT | O_RDWR | O_APPEND | O_NOFOLLOW, 0o600)
  const since = Date.now()
  // A list of folders, so quoted; in quotes, quotes are doubled.
  const folders = `"${socketFolder.replaceAll('"', '""')}"`
  const all = Object.entries({ ...settings, port, unix_socket_directories: folders })
  const launched: Launched = {}
  const child = spawn(
    binaries.postgres,
    ['-D', pgdata, ...all.flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    { ...spawnAs(account), detached: true, stdio: ['ignore', output.fd, output.fd] }
  )
  child.unref()
  child.on('error', (error) => {
    launched.failure ??= error.message
    void output.close()
  })
  child.on('exit', async (code) => {
    // Its log writer ends, and writes, a moment after it.
    if (code !== 0) await sleep(50)
    const early = await readTail(output).catch(() => '')
    launched.failure ??= findCause(early + (await readServerLog(pgdata, since)))
    void output.close()
  })
  return launched
}

/**
 * Stops the postmaster in an orderly way (fast shutdown: sessions are ended, everything is written) and waits
 * until it is gone. After 30 seconds without success it is stopped at once, which the log then repairs.
 */
export async function stopPostmaster(cluster: Cluster, log: (message: string) => void): Promise<void> {
  for (const [signal, seconds] of [
    ['SIGINT', 30],
    ['SIGQUIT', 10]
  ] as const) {
    const found = await findPostmaster(cluster)
    if (!found) return
    signalProcess(found.pid, signal)
    for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(10)) {
      if ((await inspect(found.pid, cluster.pgdata, cluster.account.uid)) !== 'postmaster') return
    }
    log(`the embedded PostgreSQL did not stop within ${seconds} seconds of ${signal}`)
  }
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!hasCode(error, 'ESRCH')) throw error
  }
}

/**
 * PostgreSQL refuses to start when the pid in a stale lock file now belongs to another process of its user, as
 * it does after a container's restart. Whether old children still run it finds out without these files.
 */
async function removeStaleLockFile(path: string, { pgdata, account }: Cluster): Promise<void> {
  const judged = await readLockFile(path)
  if (!judged || (await inspect(judged.pid, pgdata, account.uid)) !== 'other') return
  const aside = `${path}.stale-${process.pid}`
  await rename(path, aside).catch((error) => {
    if (!hasCode(error, 'ENOENT')) throw error
  })
  // Another process may have started PostgreSQL since we looked: then this file is its, and goes back.
  const taken = await readFile(aside, 'utf8').catch(() => undefined)
  if (taken !== undefined && taken !== judged.text) await link(aside, path).catch(() => {})
  await rm(aside, { force: true })
}

/** What PostgreSQL said about its end: the last grave line and those before it, without times and pids. */
function findCause(said: string): string {
  const lines = said.split('\n').map((line) => line.replace(/^.* \[\d+\] /, ''))
  const grave = lines.findLastIndex((line) => /(FATAL|PANIC|ERROR|error): /.test(line))
  return lastLines(lines.slice(0, grave + 1 || undefined).join('\n')) || 'it ended without a message'
}

async function readTail(file: Awaited<ReturnType<typeof open>>): Promise<string> {
  const { size } = await file.stat()
  const length = Math.min(size, 2000)
  const { buffer } = await file.read({ buffer: Buffer.alloc(length), position: size - length })
  return buffer.toString()
}

async function readServerLog(pgdata: string, since: number): Promise<string> {
  const day = new Date().toLocaleDateString('en-US', { weekday: 'short', timeZone: 'UTC' })
  try {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
    const file = await open(join(pgdata, 'log', `postgresql-${day}.log`), flags)
    try {
      return (await file.stat()).mtimeMs >= since ? await readTail(file) : ''
    } finally {
      await file.close()
    }
  } catch {
    return ''
  }
}
