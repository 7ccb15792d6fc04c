import { Command } from 'commander'
import { addOrganizationCommands, addUserCommands } from './admin/accounts.ts'
import { addAppCommands } from './admin/apps.ts'
import { addCollaboratorCommands, addRepositoryCommands } from './admin/repositories.ts'
import { addTokenCommands } from './admin/tokens.ts'
import { refuseMisuse } from './terminal.ts'

const HELP = `
It asks the server at COFFER_URL (http://127.0.0.1:3000) with COFFER_TOKEN, or COFFER_TOKEN_FILE: a token of an
administrator with the scope site_admin. With --offline it opens the database that the server's configuration
names, and is refused while a server uses it.

Example:
  $ export COFFER_TOKEN_FILE=data/admin-token
  $ npx coffer admin user create mona`

export function adminCommand(): Command {
  const admin = refuseMisuse(new Command('admin'))
    .description('Manage users, organizations, tokens, repositories, collaborators and GitHub Apps.')
    .addHelpText('after', HELP)
  addUserCommands(admin)
  addOrganizationCommands(admin)
  addTokenCommands(admin)
  addRepositoryCommands(admin)
  addCollaboratorCommands(admin)
  addAppCommands(admin)
  return admin
}
