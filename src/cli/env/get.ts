import type { Command } from 'commander'
import { printJson, printTable } from '../terminal.ts'
import { openClient } from './client.ts'
import { contentOf, failuresOf, nameOf, phaseOf, secretsOf, warningsOf, wordOf } from './describe.ts'
import { findEnvironment, listProjectNames } from './find.ts'
import type { Environment } from './messages.ts'

const HELP = `
Values are not shown: environments alone read them.

Examples:
  $ npx coffer env get web-1a2b3c
  $ npx coffer env get web-1a2b3c --json`

export function addGetCommand(env: Command): void {
  env
    .command('get')
    .description('Show an environment: its phase, and each secret with its mount and state.')
    .argument('<environment>', 'its name or id')
    .option('--json', 'print JSON, as the server has it')
    .addHelpText('after', HELP)
    .action(get)
}

async function get(nameOrId: string, { json }: { json?: true }): Promise<void> {
  const client = openClient()
  const environment = await findEnvironment(client, nameOrId)
  if (json) return printJson(environment)
  const { projectId } = environment.metadata ?? {}
  const project = projectId && ((await listProjectNames(client)).get(projectId) ?? projectId)
  for (const [label, text] of factsOf(environment, project)) {
    if (text) process.stdout.write(`${label.padEnd(LABEL_WIDTH)}${text}\n`)
  }
  const secrets = secretsOf(environment)
  if (secrets.length === 0) return
  process.stdout.write('\n')
  printTable(
    ['SECRET', 'MOUNT', 'STATE', 'REASON'],
    secrets.map(({ name, mount, state, reason }) => [name, mount, state, reason])
  )
}

const LABEL_WIDTH = 10

function factsOf(environment: Environment, project: string | undefined): [string, string | undefined][] {
  const { id, metadata, spec, status } = environment
  const phase = phaseOf(environment)
  const desired = wordOf(spec?.desiredPhase, 'ENVIRONMENT_PHASE_')
  const inSync = status?.devcontainer?.secretsInSync
  return [
    ['Name', nameOf(environment)],
    ['Id', id],
    ['Phase', phase === desired ? phase : `${phase}, to be ${desired}`],
    ...failuresOf(environment).map((failure): [string, string] => ['Failure', failure]),
    ...warningsOf(environment).map((warning): [string, string] => ['Warning', warning]),
    ['Project', project],
    ['Content', contentOf(environment)],
    ['Created', metadata?.createdAt],
    ['Started', metadata?.lastStartedAt],
    ['Archived', metadata?.archivedAt],
    ['Timeout', spec?.timeout?.disconnected],
    [
      'In sync',
      phase === 'running' ? (inSync ? 'yes' : 'no: running processes have older values') : undefined
    ]
  ]
}
