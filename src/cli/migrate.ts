import { Command } from 'commander'
import { loadConfig, readEnvironment } from '../config.ts'
import { openStore } from '../open.ts'
import { openDatabase } from '../store/database.ts'
import { listMigrations, migrate } from '../store/migrations.ts'
import { openExistingStore } from './existing.ts'
import { printJson, printTable, refuseMisuse } from './terminal.ts'

const HELP = `
It uses the server's configuration and works beside a running server, which migrates by itself when it starts.

Example:
  $ npx coffer migrate --status`

export function migrateCommand(): Command {
  return refuseMisuse(new Command('migrate'))
    .description("Bring the database's schema up to date.")
    .option('--status', 'list the migrations, and change nothing')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(run)
}

async function run({ status, json }: { status?: true; json?: true }): Promise<void> {
  const { config, secrets } = loadConfig(readEnvironment())
  const store = status
    ? await openExistingStore(config, secrets, 'attach')
    : await openStore(config, secrets, 'attach', { log: () => {} })
  // Past the pooler, and without a limit on how long a statement takes.
  const db = openDatabase({ connection: store.direct, poolSize: 1, prepare: false })
  try {
    const applied = status ? [] : await migrate(db)
    const migrations = await listMigrations(db)
    if (json)
      printJson({
        applied,
        migrations: migrations.map(({ name, appliedAt = null }) => ({ name, applied_at: appliedAt }))
      })
    else if (status) printTable(['MIGRATION', 'APPLIED'], migrations.map(row))
    else process.stdout.write(`${describe(applied)}\n`)
  } finally {
    await db.destroy()
    await store.close()
  }
}

function row({ name, appliedAt }: { name: string; appliedAt: Date | undefined }): string[] {
  return [name, appliedAt ? appliedAt.toISOString() : 'pending']
}

function describe(applied: readonly string[]): string {
  return applied.length === 0 ? 'The database is up to date.' : `Applied ${applied.join(', ')}.`
}
