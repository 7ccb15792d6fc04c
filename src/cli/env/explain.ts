import type { Command } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import type { ApiClient } from '../api-client.ts'
import { shortOf } from '../api-errors.ts'
import { printJson, printTable } from '../terminal.ts'
import { openClient, say } from './client.ts'
import { explainSecrets, findEnvironment, findProject } from './find.ts'
import type { ExplainedSecret } from './messages.ts'

const HELP = `
A user's secret comes before a project's, that before a repository's, and that before an organization's, where name and
kind of mount are the same. Secrets whose names this token may not know are not listed.

Examples:
  $ npx coffer env explain web-1a2b3c
  $ npx coffer env explain --project web`

interface ExplainOptions {
  project?: string
  json?: true
}

export function addExplainCommand(env: Command): void {
  env
    .command('explain')
    .description('Tell which secrets an environment receives, and why it does not receive others.')
    .argument('[environment]', 'its name or id')
    .option('-p, --project <project>', 'what an environment that is made from this project now would receive')
    .option('--json', 'print JSON, as the server has it')
    .addHelpText('after', HELP)
    .action(explain)
}

async function explain(environment: string | undefined, { project, json }: ExplainOptions): Promise<void> {
  if ((environment === undefined) === (project === undefined)) {
    throw new RefusedToStart('Give an environment, or --project.')
  }
  const client = openClient()
  const secrets = await explainSecrets(client, await readSubject(client, environment, project))
  if (json) return printJson(secrets)
  if (secrets.length === 0) return say('There are no secrets that it could receive.')
  printTable(['NAME', 'MOUNT', 'FROM', 'VERDICT'], secrets.map(rowOf))
}

async function readSubject(
  client: ApiClient,
  environment: string | undefined,
  project: string | undefined
): Promise<{ environmentId: string } | { projectId: string }> {
  return environment === undefined
    ? { projectId: (await findProject(client, project!)).id! }
    : { environmentId: (await findEnvironment(client, environment)).id! }
}

function rowOf({
  name = '',
  mount = '',
  target,
  origin = '',
  result = '',
  reason
}: ExplainedSecret): string[] {
  const whereTo = target && target !== name ? `${mount} ${target}` : mount
  return [name, whereTo, origin, reason ? `${result}: ${reason}` : result].map(shortOf)
}
