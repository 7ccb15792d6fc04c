import type { Command } from 'commander'
import { parseLogin } from '../names.ts'
import { administer, type CommonOptions, group, leaf, login, report, requireYes, withJson } from './common.ts'

export function addUserCommands(admin: Command): void {
  const user = group(admin, 'user', 'Make and delete users.')

  withJson(leaf(user, 'create', 'Make a user.', 'admin user create mona --email mona@example.com'))
    .addArgument(login())
    .option('--email <address>', 'shown in the profile')
    .option('--name <name>', 'shown in the profile')
    .option('--site-admin', 'may administer this server')
    .action(
      async (login: string, options: CommonOptions & { email?: string; name?: string; siteAdmin?: true }) => {
        const { email, name, siteAdmin } = options
        const created = await administer(options, (administration) =>
          administration.createUser({
            login,
            ...(email !== undefined && { email }),
            ...(name !== undefined && { name }),
            ...(siteAdmin && { siteAdmin })
          })
        )
        report(options.json, created, `User ${created.login} made, id ${created.id}.`)
      }
    )

  leaf(user, 'delete', 'Delete a user with tokens, secrets and repositories.', 'admin user delete mona --yes')
    .addArgument(login())
    .option('--yes', 'do it: it cannot be undone')
    .action(async (login: string, options: CommonOptions & { yes?: true }) => {
      requireYes(options, `This deletes ${login} with all tokens, secrets and repositories of that account.`)
      await administer(options, (administration) => administration.deleteUser(login))
      report(undefined, {}, `User ${login} deleted.`)
    })
}

export function addOrganizationCommands(admin: Command): void {
  const organization = group(admin, 'org', 'Make organizations.')

  withJson(leaf(organization, 'create', 'Make an organization.', 'admin org create octo --owner mona'))
    .addArgument(login())
    .requiredOption('--owner <login>', 'the user who owns it', parseLogin)
    .action(async (login: string, options: CommonOptions & { owner: string }) => {
      const created = await administer(options, (administration) =>
        administration.createOrganization(login, options.owner)
      )
      report(options.json, created, `Organization ${created.login} made, id ${created.id}.`)
    })
}
