import { Command } from 'commander'
import { addCreateCommand } from './env/create.ts'
import { addDeleteCommand } from './env/delete.ts'
import { addExecCommands } from './env/exec.ts'
import { addExplainCommand } from './env/explain.ts'
import { addGetCommand } from './env/get.ts'
import { addListCommand } from './env/list.ts'
import { addLogsCommand } from './env/logs.ts'
import { addStartAndStopCommands } from './env/start-stop.ts'
import { refuseMisuse } from './terminal.ts'

const HELP = `
It asks the server at COFFER_URL (http://127.0.0.1:3000) with COFFER_TOKEN, or COFFER_TOKEN_FILE. A .env in the working
folder is not read: it may be somebody else's.

Environments and projects are given by their names or ids; a name that several have is refused, with their ids.

Exit codes: 0 done, 1 failed, 2 refused because of what was asked or how it is set up; exec and shell have the command's.

Example:
  $ export COFFER_TOKEN_FILE=data/admin-token
  $ npx coffer env create --project web --name review
  $ npx coffer env exec review -- npm test
  $ npx coffer env delete review`

export function envCommand(): Command {
  const env = refuseMisuse(new Command('env'))
    .description('Create environments, run commands in them, and delete them.')
    // What follows -- is for the command that is run, also where it looks like an option.
    .enablePositionalOptions()
    .addHelpText('after', HELP)
  addCreateCommand(env)
  addListCommand(env)
  addGetCommand(env)
  addStartAndStopCommands(env)
  addDeleteCommand(env)
  addLogsCommand(env)
  addExecCommands(env)
  addExplainCommand(env)
  return env
}
