import { existsSync } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import type { Command } from 'commander'
import { type ExportSummary, exportAudit } from '../../audit/export.ts'
import { loadConfig, readEnvironment } from '../../config.ts'
import { RefusedToStart } from '../../errors.ts'
import { openDatabase } from '../../store/database.ts'
import { openMigratedStore } from '../existing.ts'
import { CommandFailed, printJson, refuseMisuse } from '../terminal.ts'
import { progress } from './progress.ts'

const STDOUT = '-'

const HELP = `
It uses the server's configuration and reads its database, also while servers run; the file holds one moment, and
nothing is changed. Each record comes with its canonical bytes, its place and its hash, so that "coffer audit verify"
needs nothing but the file, checkpoints and public keys. Names, logins and addresses are inside, values are not.

Example:
  $ npx coffer audit export /var/backups/audit-$(date +%F).jsonl
  $ npx coffer audit export - | gzip > audit.jsonl.gz`

export function addAuditExport(audit: Command): void {
  refuseMisuse(audit.command('export'))
    .description('Write all sealed records to a file, as JSON lines.')
    .argument('<file>', 'where to; - is standard output')
    .option('--force', 'replace the file if it is there')
    .option('--json', 'print what is in it as JSON')
    .addHelpText('after', HELP)
    .action(run)
}

async function run(file: string, { force, json }: { force?: true; json?: true }): Promise<void> {
  const { config, secrets } = loadConfig(readEnvironment())
  if (file === STDOUT && json) {
    throw new RefusedToStart('With - the export itself goes to standard output: leave --json out.')
  }
  if (file !== STDOUT && !force && existsSync(file)) {
    throw new RefusedToStart(`${file} is there already. Name another file, or replace it with --force.`)
  }
  const store = await openMigratedStore(config, secrets, 'attach')
  // Without the time limits that requests have.
  const db = openDatabase({ connection: store.direct, poolSize: 1, prepare: false })
  try {
    const done = progress('exported')
    const summary =
      file === STDOUT
        ? await exportAudit(db, writeOut, done)
        : await throughFile(file, (write) => exportAudit(db, write, done))
    if (json) printJson({ file, ...summary })
    process.stderr.write(`${describe(summary)}${file === STDOUT ? '' : ` in ${file}`}.\n`)
  } finally {
    await db.destroy()
    await store.close()
  }
}

function describe({ records, streams, unsealed }: ExportSummary): string {
  const waiting = unsealed > 0 ? `, ${unsealed} more wait to be sealed,` : ''
  return `${records} records of ${streams} streams${waiting} are`.replace(/ are$/, '')
}

async function writeOut(lines: string): Promise<void> {
  if (lines === '' || process.stdout.write(lines)) return
  await new Promise<void>((resolve) => process.stdout.once('drain', resolve))
}

/** Whole and on disk under its name, or not at all. */
async function throughFile<T>(
  file: string,
  work: (write: (lines: string) => Promise<void>) => Promise<T>
): Promise<T> {
  const partial = `${file}.partial`
  const handle = await openPartial(partial)
  try {
    const result = await work(async (lines) => {
      if (lines !== '') await handle.appendFile(lines)
    })
    await handle.sync()
    await handle.close()
    await rename(partial, file)
    return result
  } catch (error) {
    await handle.close().catch(() => {})
    await rm(partial, { force: true })
    const { syscall, code } = error as NodeJS.ErrnoException
    if (syscall === 'write' || syscall === 'fsync' || syscall === 'rename') {
      throw new CommandFailed(`The export could not be written (${code}).`)
    }
    throw error
  }
}

async function openPartial(partial: string): Promise<FileHandle> {
  try {
    return await open(partial, 'wx', 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') {
      throw new RefusedToStart(
        `${partial} is there: another export writes it, or one was killed. Then remove it.`
      )
    }
    throw new RefusedToStart(`The file ${partial} cannot be made (${code}).`)
  }
}
