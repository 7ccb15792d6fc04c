import type { Command } from 'commander'
import { outliveReaders } from '../terminal.ts'
import { openClient } from './client.ts'
import { runRemotely, workingDirectoryOf } from './command.ts'
import { findEnvironment } from './find.ts'
import { openSession } from './session.ts'
import { Signals, statusOfSignal } from './signals.ts'

const EXEC_HELP = `
Standard input, output and error are the command's, and so are signals (INT, TERM, HUP, QUIT, USR1, USR2). Where a
script has input of its own that the command shall not take, add </dev/null.

Exit code: the command's, 128 + n when signal n ended it; 1 when it could not be run, or the connection was lost; 2 when
what was asked cannot be.

Examples:
  $ npx coffer env exec web-1a2b3c -- npm test
  $ npx coffer env exec web-1a2b3c --cwd packages/api -- sh -c 'npm ci && npm test'
  $ npx coffer env exec web-1a2b3c -- tar -c . > workspace.tar
  $ npx coffer env exec web-1a2b3c --tty -- top`

const SHELL_HELP = `
It is bash, or sh where there is none, with a terminal of its own, as large as this one.

Example:
  $ npx coffer env shell web-1a2b3c`

interface ExecOptions {
  cwd?: string
  tty?: true
}

/** For those who come from a shell. */
const LOGIN_SHELL = ['sh', '-c', 'if command -v bash >/dev/null 2>&1; then exec bash -l; fi; exec sh -l']

export function addExecCommands(env: Command): void {
  env
    .command('exec')
    .description('Run a command in an environment, with its secrets.')
    .argument('<environment>', 'its name or id')
    .argument('<command...>', 'the command and its arguments, after --')
    .option('--cwd <folder>', 'where it is run; the workspace otherwise')
    .option('-t, --tty', 'give it a terminal, as large as this one')
    .addHelpText('after', EXEC_HELP)
    .action((nameOrId: string, command: string[], options: ExecOptions) => exec(nameOrId, command, options))

  env
    .command('shell')
    .description('Open a shell in an environment.')
    .argument('<environment>', 'its name or id')
    .option('--cwd <folder>', 'where it begins; the workspace otherwise')
    .addHelpText('after', SHELL_HELP)
    .action((nameOrId: string, options: Pick<ExecOptions, 'cwd'>) => {
      const { isTTY } = process.stdin
      return exec(nameOrId, LOGIN_SHELL, { ...options, ...(isTTY && { tty: true }) })
    })
}

async function exec(nameOrId: string, command: readonly string[], { cwd, tty }: ExecOptions): Promise<void> {
  outliveReaders()
  const client = openClient()
  const environment = await findEnvironment(client, nameOrId)
  const session = await openSession(client, environment.id!)
  const signals = new Signals((name) => process.exit(statusOfSignal(name)))
  try {
    const order = { command, ...workingDirectoryOf(environment, cwd), ...(tty && { tty }) }
    process.exitCode = await runRemotely(session, order, signals)
  } finally {
    signals.close()
  }
}
