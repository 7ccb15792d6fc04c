import { Argument, type Command } from 'commander'
import { fullName, type RepositoryName } from '../names.ts'
import { printJson, printTable } from '../terminal.ts'
import { ROLES, type Role } from './administration.ts'
import {
  administer,
  type CommonOptions,
  group,
  leaf,
  login,
  report,
  repository,
  requireYes,
  withJson
} from './common.ts'

/** GitHub's names for two of the roles. */
const ALIASES: Readonly<Record<string, Role>> = { pull: 'read', push: 'write' }

export function addRepositoryCommands(admin: Command): void {
  const repo = group(admin, 'repo', 'Make, list and delete repositories.')

  withJson(
    leaf(
      repo,
      'create',
      "Make a repository: of the token's own account or of an organization; --offline: of anybody.",
      'admin repo create mona/web'
    )
  )
    .addArgument(repository())
    .option('--public', 'everybody sees it; without, those with a role on it')
    .action(async (repository: RepositoryName, options: CommonOptions & { public?: true }) => {
      const created = await administer(options, (administration) =>
        administration.createRepository(repository, options.public !== true)
      )
      report(options.json, created, `Repository ${created.full_name} made, id ${created.id}.`)
    })

  leaf(repo, 'delete', 'Delete a repository with its secrets.', 'admin repo delete mona/web --yes')
    .addArgument(repository())
    .option('--yes', 'do it: it cannot be undone')
    .action(async (repository: RepositoryName, options: CommonOptions & { yes?: true }) => {
      requireYes(options, `This deletes ${fullName(repository)} with all its secrets.`)
      await administer(options, (administration) => administration.deleteRepository(repository))
      report(undefined, {}, `Repository ${fullName(repository)} deleted.`)
    })

  withJson(
    leaf(
      repo,
      'list',
      "List repositories: those on which the token's account has a role; --offline: all.",
      'admin repo list --json'
    )
  ).action(async (options: CommonOptions) => {
    const repositories = await administer(options, (administration) => administration.listRepositories())
    if (options.json) return printJson(repositories)
    printTable(
      ['ID', 'REPOSITORY', 'VISIBILITY'],
      repositories.map(({ id, full_name, private: flag }) => [
        String(id),
        full_name,
        flag ? 'private' : 'public'
      ])
    )
  })
}

export function addCollaboratorCommands(admin: Command): void {
  const collaborator = group(admin, 'collaborator', 'Give users roles on repositories.')

  leaf(collaborator, 'set', 'Give a user a role, at once.', 'admin collaborator set mona/web hubot write')
    .addArgument(repository())
    .addArgument(login())
    .addArgument(new Argument('<role>', 'the role').choices([...ROLES, ...Object.keys(ALIASES)]))
    .action(async (repository: RepositoryName, login: string, name: string, options: CommonOptions) => {
      const role = ALIASES[name] ?? (name as Role)
      await administer(options, (administration) => administration.setCollaborator(repository, login, role))
      report(undefined, {}, `${login} has the role ${role} on ${fullName(repository)}.`)
    })

  leaf(
    collaborator,
    'remove',
    "Take a user's role away, at once.",
    'admin collaborator remove mona/web hubot'
  )
    .addArgument(repository())
    .addArgument(login())
    .action(async (repository: RepositoryName, login: string, options: CommonOptions) => {
      await administer(options, (administration) => administration.removeCollaborator(repository, login))
      report(undefined, {}, `${login} has no role of their own on ${fullName(repository)}.`)
    })
}
