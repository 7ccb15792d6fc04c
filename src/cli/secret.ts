import { Command } from 'commander'
import { addDeleteCommand } from './secret/delete.ts'
import { addImportCommand } from './secret/import.ts'
import { addListCommand } from './secret/list.ts'
import { addSetCommand } from './secret/set.ts'
import { refuseMisuse } from './terminal.ts'

const HELP = `
It asks the server at COFFER_URL (http://127.0.0.1:3000) with COFFER_TOKEN, or COFFER_TOKEN_FILE. Any server of GitHub's
secrets API will do: Coffer, https://HOST/api/v3 of GitHub Enterprise Server, and https://api.github.com, where
GH_TOKEN and GITHUB_TOKEN serve too. A .env in the working folder is not read: it may be somebody else's.

Values are sealed here, for a key of the server's; nothing on the way sees them.

Exit codes: 0 done, 1 failed, 2 refused because of what was asked or how it is set up.

Example:
  $ export COFFER_TOKEN_FILE=data/admin-token
  $ npx coffer secret set DB_URL --repo admin/web`

export function secretCommand(): Command {
  const secret = refuseMisuse(new Command('secret'))
    .description('Set, list, delete and import secrets.')
    .addHelpText('after', HELP)
  addSetCommand(secret)
  addListCommand(secret)
  addDeleteCommand(secret)
  addImportCommand(secret)
  return secret
}
