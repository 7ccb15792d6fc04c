import { Command } from 'commander'
import { exitCodeOf, explain } from './cli/terminal.ts'
import { VERSION } from './version.ts'

/** In the order of the help; only what is asked for is loaded, since a client needs no database. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import('./cli/serve.ts')).serveCommand(),
  secret: async () => (await import('./cli/secret.ts')).secretCommand(),
  run: async () => (await import('./cli/run.ts')).runCommand(),
  env: async () => (await import('./cli/env.ts')).envCommand(),
  admin: async () => (await import('./cli/admin.ts')).adminCommand(),
  key: async () => (await import('./cli/key.ts')).keyCommand(),
  audit: async () => (await import('./cli/audit.ts')).auditCommand(),
  runner: async () => (await import('./cli/runner.ts')).runnerCommand(),
  migrate: async () => (await import('./cli/migrate.ts')).migrateCommand(),
  backup: async () => (await import('./cli/backup.ts')).backupCommand(),
  restore: async () => (await import('./cli/backup.ts')).restoreCommand()
}

const program = new Command('coffer')
  .description('Self-hosted secrets for development environments, behind the APIs that tools already speak.')
  .version(VERSION)
  .showHelpAfterError('(add --help for what it takes)')
  // What follows the name of a command is for that command, which may run another one with it.
  .enablePositionalOptions()

try {
  const [, , name = ''] = process.argv
  const asked = Object.hasOwn(COMMANDS, name) ? [COMMANDS[name]!] : Object.values(COMMANDS)
  for (const command of asked) program.addCommand(await command())
  await program.parseAsync()
} catch (error) {
  console.error(explain(error))
  process.exitCode = exitCodeOf(error)
}
