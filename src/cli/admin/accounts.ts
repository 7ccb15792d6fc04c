import { type Command, Option } from 'commander'
import type { OrganizationRole } from '../../store/tables.ts'
import { parseLogin } from '../names.ts'
import { printJson, printTable } from '../terminal.ts'
import { ORGANIZATION_ROLES } from './administration.ts'
import {
  administer,
  type CommonOptions,
  group,
  leaf,
  login,
  organization,
  report,
  requireYes,
  withJson
} from './common.ts'

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
  const org = group(admin, 'org', 'Make and delete organizations, and say who belongs to them.')

  withJson(leaf(org, 'create', 'Make an organization.', 'admin org create octo --owner mona'))
    .addArgument(organization())
    .requiredOption('--owner <login>', 'the user who owns it', parseLogin)
    .action(async (login: string, options: CommonOptions & { owner: string }) => {
      const created = await administer(options, (administration) =>
        administration.createOrganization(login, options.owner)
      )
      report(options.json, created, `Organization ${created.login} made, id ${created.id}.`)
    })

  leaf(
    org,
    'delete',
    'Delete an organization with its secrets and repositories, as one of its owners.',
    'admin org delete octo --yes'
  )
    .addArgument(organization())
    .option('--yes', 'do it: it cannot be undone')
    .action(async (login: string, options: CommonOptions & { yes?: true }) => {
      requireYes(options, `This deletes ${login} with all its secrets and repositories.`)
      await administer(options, (administration) => administration.deleteOrganization(login))
      report(undefined, {}, `Organization ${login} deleted.`)
    })

  addMemberCommands(org)
}

function addMemberCommands(org: Command): void {
  const member = group(org, 'member', 'Say who belongs to an organization, as one of its owners.')

  leaf(
    member,
    'set',
    'Make a user a member or an owner, at once.',
    'admin org member set octo hubot --role admin'
  )
    .addArgument(organization())
    .addArgument(login())
    .addOption(
      new Option('--role <role>', 'admin: an owner').choices(ORGANIZATION_ROLES).default('member' as const)
    )
    .action(async (org: string, login: string, options: CommonOptions & { role: OrganizationRole }) => {
      const { role } = options
      await administer(options, (administration) => administration.setMember(org, login, role))
      report(undefined, {}, `${login} is ${role === 'admin' ? 'an owner' : 'a member'} of ${org}.`)
    })

  leaf(
    member,
    'remove',
    'End a membership, with the roles on repositories of the organization, at once.',
    'admin org member remove octo hubot'
  )
    .addArgument(organization())
    .addArgument(login())
    .action(async (org: string, login: string, options: CommonOptions) => {
      await administer(options, (administration) => administration.removeMember(org, login))
      report(undefined, {}, `${login} is no member of ${org} any more.`)
    })

  withJson(leaf(member, 'list', 'List members, owners first.', 'admin org member list octo'))
    .addArgument(organization())
    .action(async (org: string, options: CommonOptions) => {
      const members = await administer(options, (administration) => administration.listMembers(org))
      if (options.json) return printJson(members)
      printTable(
        ['ID', 'LOGIN', 'ROLE'],
        members.map(({ id, login, role }) => [String(id), login, role])
      )
    })
}
