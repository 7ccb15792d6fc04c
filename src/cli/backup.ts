import { existsSync } from 'node:fs'
import { access, type FileHandle, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { Command } from 'commander'
import { type Config, loadConfig, readEnvironment } from '../config.ts'
import { RefusedToStart } from '../errors.ts'
import { readMasterKey } from '../keyring/index.ts'
import { masterKeyFilesOf, openStore } from '../open.ts'
import { type BackupOptions, type OnProgress, type Summary, writeBackup } from '../store/backup/dump.ts'
import { loadBackup, verifyBackup } from '../store/backup/load.ts'
import type { DatabaseOptions } from '../store/database.ts'
import { VERSION } from '../version.ts'
import { openExistingStore } from './existing.ts'
import { CommandFailed, printJson, refuseMisuse, stopSignal } from './terminal.ts'

const STDOUT = '-'
const PROGRESS_MS = 2_000

const BACKUP_HELP = `
It uses the server's configuration and works beside a running server; the file holds one moment. The master key
is NOT inside: keep a copy of it apart from the backups, without it no secret in them can be opened.

Example:
  $ npx coffer backup /var/backups/coffer-$(date +%F).sql.gz`

const RESTORE_HELP = `
It restores into an empty database only, while no server uses it: a new COFFER_DATA_DIR, or a DATABASE_URL to a
new database. The master key is NOT inside a backup: put it in its place yourself. All tokens, and all keys of GitHub
Apps, are void afterwards, since a backup brings back what was revoked after it; --keep-tokens keeps them.

Example:
  $ COFFER_DATA_DIR=/srv/coffer npx coffer restore /var/backups/coffer-2025-06-01.sql.gz
  $ COFFER_DATA_DIR=/srv/coffer npx coffer admin token create admin --scopes all --offline`

export function backupCommand(): Command {
  return refuseMisuse(new Command('backup'))
    .description('Write all data to a file.')
    .argument('<file>', 'where to; - is standard output')
    .option('--force', 'replace the file if it is there')
    .option('--json', 'print JSON')
    .addHelpText('after', BACKUP_HELP)
    .action(backup)
}

export function restoreCommand(): Command {
  return refuseMisuse(new Command('restore'))
    .description('Load a backup into an empty database.')
    .argument('<file>', 'what coffer backup wrote')
    .option('--keep-tokens', 'tokens of the backup go on to be valid, those revoked since too')
    .option('--json', 'print JSON')
    .addHelpText('after', RESTORE_HELP)
    .action(restore)
}

async function backup(file: string, { force, json }: { force?: true; json?: true }): Promise<void> {
  const { config, secrets } = loadConfig(readEnvironment())
  if (file === STDOUT) {
    if (process.stdout.isTTY) throw new RefusedToStart('Standard output is a terminal: name a file.')
    if (json) throw new RefusedToStart('With - the backup itself goes to standard output: leave --json out.')
  } else if (!force && existsSync(file)) {
    throw new RefusedToStart(`${file} is there already. Name another file, or replace it with --force.`)
  }
  const store = await openExistingStore(config, secrets, 'attach')
  try {
    const options = { coffer: VERSION, onProgress: progress('wrote'), signal: stopSignal() }
    const summary =
      file === STDOUT
        ? await writeBackup(store.direct, process.stdout, options).catch(throwFailure)
        : await writeFile(store.direct, file, options)
    if (json) printJson({ file: path.resolve(file), ...summary.manifest, rows: summary.rows })
    process.stderr.write(`${total(summary.rows)} rows in the backup${file === STDOUT ? '' : ` ${file}`}.\n`)
    process.stderr.write(`${aboutMasterKey(config, summary.manifest.master_keys)}\n`)
  } finally {
    await store.close()
  }
}

/** Whole and on disk under its name, or not at all. */
async function writeFile(
  connection: DatabaseOptions['connection'],
  file: string,
  options: BackupOptions
): Promise<Summary> {
  const partial = `${file}.partial`
  const handle = await openPartial(partial)
  try {
    const summary = await writeBackup(connection, handle.createWriteStream({ autoClose: false }), options)
    await handle.sync()
    await handle.close()
    await rename(partial, file)
    await flushFolder(path.dirname(path.resolve(file)))
    return summary
  } catch (error) {
    await handle.close().catch(() => {})
    await rm(partial, { force: true })
    return throwFailure(error)
  }
}

async function openPartial(partial: string): Promise<FileHandle> {
  try {
    return await open(partial, 'wx', 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') {
      throw new RefusedToStart(
        `${partial} is there: another backup writes it, or one was killed. Then remove it.`
      )
    }
    throw new RefusedToStart(`The file ${partial} cannot be made (${code}).`)
  }
}

async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function throwFailure(error: unknown): never {
  const { name, code, syscall } = error as NodeJS.ErrnoException
  if (name === 'AbortError') throw new CommandFailed('Stopped; no backup was written.')
  if (syscall === 'write' || syscall === 'fsync' || syscall === 'rename') {
    throw new CommandFailed(`The backup could not be written (${code}).`)
  }
  throw error
}

async function restore(
  file: string,
  { keepTokens, json }: { keepTokens?: true; json?: true }
): Promise<void> {
  const { config, secrets } = loadConfig(readEnvironment())
  if (file === STDOUT)
    throw new RefusedToStart('A backup is read twice: write it to a file first, and name that.')
  const { manifest, trailer } = await verifyBackup(file)
  process.stderr.write(`The backup is whole: ${total(trailer.rows)} rows of ${manifest.created_at}.\n`)
  const store = await openStore(config, secrets, 'hold', {
    log: (message) => process.stderr.write(`${message}\n`)
  })
  try {
    await loadBackup(store.direct, file, {
      manifest,
      keepTokens: keepTokens === true,
      onProgress: progress('loaded')
    })
  } finally {
    await store.close()
  }
  if (json) printJson({ ...manifest, rows: trailer.rows, tokens_kept: keepTokens === true })
  process.stderr.write(
    `Restored. ${
      keepTokens
        ? 'The tokens of the backup are valid, those that were revoked since too.'
        : 'All tokens are void; make one with: npx coffer admin token create LOGIN --scopes all --offline'
    }\n`
  )
  if (!keepTokens && trailer.rows.integration_keys) {
    process.stderr.write(
      'The keys of GitHub Apps are void, too; make new ones with: npx coffer admin app key rotate APP --offline\n'
    )
  }
  process.stderr.write(`${aboutMasterKey(config, manifest.master_keys)}\n`)
  for (const warning of await findMissingKeys(config, manifest.master_keys))
    process.stderr.write(`${warning}\n`)
}

function aboutMasterKey(config: Config, fingerprints: readonly string[]): string {
  return (
    `The master key is NOT inside. Its place is ${masterKeyFilesOf(config).join(', ')}; the backup needs the one with ` +
    `the fingerprint ${fingerprints.join(', ') || '(none yet)'}. Keep a copy of it apart from the backup.`
  )
}

/** Keys that the backup needs and that are not where the server will look for them. */
async function findMissingKeys(config: Config, fingerprints: readonly string[]): Promise<string[]> {
  const present = new Set<string>()
  const warnings: string[] = []
  for (const file of masterKeyFilesOf(config)) {
    if (
      !(await access(file).then(
        () => true,
        () => false
      ))
    )
      continue
    try {
      present.add((await readMasterKey(file)).fingerprint)
    } catch (error) {
      if (!(error instanceof RefusedToStart)) throw error
      warnings.push(`WARNING: ${error.message}`)
    }
  }
  const missing = fingerprints.filter((fingerprint) => !present.has(fingerprint))
  if (missing.length > 0) {
    warnings.push(
      `WARNING: the master key with the fingerprint ${missing.join(', ')} is not there. The server will not start ` +
        'without it: put its file there, or set COFFER_MASTER_KEY_FILE to where it is.'
    )
  }
  return warnings
}

function total(rows: Record<string, number>): number {
  return Object.values(rows).reduce((sum, count) => sum + count, 0)
}

/** A line now and then, so that a long run is seen to go on. */
function progress(verb: string): OnProgress {
  let last = performance.now()
  return (table, rows) => {
    if (performance.now() - last < PROGRESS_MS) return
    last = performance.now()
    process.stderr.write(`${verb} ${rows} rows of ${table} …\n`)
  }
}
