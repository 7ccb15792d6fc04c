import { Command } from 'commander'
import { adminCommand } from './cli/admin.ts'
import { auditCommand } from './cli/audit.ts'
import { backupCommand, restoreCommand } from './cli/backup.ts'
import { keyCommand } from './cli/key.ts'
import { migrateCommand } from './cli/migrate.ts'
import { serveCommand } from './cli/serve.ts'
import { exitCodeOf, explain } from './cli/terminal.ts'
import { VERSION } from './version.ts'

const program = new Command('coffer')
  .description('Self-hosted secrets for development environments, behind the APIs that tools already speak.')
  .version(VERSION)
  .showHelpAfterError('(add --help for what it takes)')
  .addCommand(serveCommand())
  .addCommand(adminCommand())
  .addCommand(keyCommand())
  .addCommand(auditCommand())
  .addCommand(migrateCommand())
  .addCommand(backupCommand())
  .addCommand(restoreCommand())

try {
  await program.parseAsync()
} catch (error) {
  console.error(explain(error))
  process.exitCode = exitCodeOf(error)
}
