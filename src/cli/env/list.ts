import type { Command } from 'commander'
import type { ApiClient } from '../api-client.ts'
import { printJson, printTable } from '../terminal.ts'
import { call, listAll, openClient, say } from './client.ts'
import { nameOf, phaseOf } from './describe.ts'
import { findProject, listProjectNames } from './find.ts'
import type { Environment } from './messages.ts'

const HELP = `
Examples:
  $ npx coffer env list
  $ npx coffer env list --project web --all --json`

interface ListOptions {
  project?: string
  all?: true
  archived?: true
  json?: true
}

export function addListCommand(env: Command): void {
  env
    .command('list')
    .alias('ls')
    .description("List one's own environments, newest first.")
    .option('-p, --project <project>', 'of this project alone, by name or id')
    .option('-a, --all', "for owners of the organization: everybody's")
    .option('--archived', 'those in the archive')
    .option('--json', 'print JSON, as the server has it')
    .addHelpText('after', HELP)
    .action(list)
}

async function list(options: ListOptions): Promise<void> {
  const client = openClient()
  const filter = await readFilter(client, options)
  const method = 'gitpod.v1.EnvironmentService/ListEnvironments'
  const environments = await listAll<Environment>(client, method, { filter }, 'environments')
  if (options.json) return printJson(environments)
  if (environments.length === 0) return say('There are no environments.')
  const projects = await listProjectNames(client)
  printTable(
    ['ID', 'NAME', 'PHASE', 'PROJECT', 'CREATED'],
    environments.map((environment) => {
      const { id = '', metadata: { projectId, createdAt = '' } = {} } = environment
      const project = projectId ? (projects.get(projectId) ?? projectId) : ''
      return [id, nameOf(environment), phaseOf(environment), project, createdAt]
    })
  )
}

async function readFilter(client: ApiClient, { project, all, archived }: ListOptions): Promise<object> {
  return {
    archivalStatus: archived ? 'ARCHIVAL_STATUS_ARCHIVED' : 'ARCHIVAL_STATUS_ACTIVE',
    ...(project !== undefined && { projectIds: [(await findProject(client, project)).id] }),
    ...(!all && { creatorIds: [await findOwnId(client)] })
  }
}

async function findOwnId(client: ApiClient): Promise<string | undefined> {
  const method = 'gitpod.v1.IdentityService/GetAuthenticatedIdentity'
  return (await call<{ subject: { id?: string } }>(client, method, {})).subject?.id
}
