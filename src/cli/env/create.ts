import type { Command } from 'commander'
import { CommandFailed, printJson, stopSignal } from '../terminal.ts'
import { openClient, say } from './client.ts'
import { addCreationOptions, type CreationOptions, createEnvironment, readCreation } from './creation.ts'
import { fullNameOf } from './describe.ts'
import { Progress } from './progress.ts'
import { waitFor } from './wait.ts'

const HELP = `
It waits until the environment runs; Ctrl-C ends waiting, and the environment stays. Standard output has the id alone,
or with --json the environment.

Examples:
  $ npx coffer env create --project web
  $ npx coffer env create --project web --name review --branch fix-login --timeout 4h
  $ npx coffer env create --project web --secret DB_URL --secret NPM_TOKEN
  $ ID=$(npx coffer env create --project web) && npx coffer env exec $ID -- npm test`

interface CreateOptions extends CreationOptions {
  wait: boolean
  json?: true
}

export function addCreateCommand(env: Command): void {
  addCreationOptions(env.command('create').description('Create an environment from a project.'))
    .option('--no-wait', 'do not wait until it runs')
    .option('--json', 'print JSON, as the server has it')
    .addHelpText('after', HELP)
    .action(create)
}

async function create({ wait, json, ...options }: CreateOptions): Promise<void> {
  const client = openClient()
  const creation = await readCreation(client, options)
  const signal = stopSignal()
  let environment = await createEnvironment(client, creation)
  const progress = new Progress(say)
  progress.report(environment)
  try {
    if (wait) {
      const onState = progress.report.bind(progress)
      environment = (await waitFor(client, environment.id!, 'running', { signal, onState }))!
    }
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error
    throw new CommandFailed(`${error.message}\n${remedies(fullNameOf(environment), environment.id!)}`)
  }
  if (json) printJson(environment)
  else process.stdout.write(`${environment.id}\n`)
}

function remedies(name: string, id: string): string {
  return `  ${name} stays. To look at it, and to delete it:\n  npx coffer env get ${id}\n  npx coffer env delete ${id}`
}
