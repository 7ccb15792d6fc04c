import type { Command } from 'commander'
import { stopSignal } from '../terminal.ts'
import { call, openClient, say } from './client.ts'
import { fullNameOf } from './describe.ts'
import { findEnvironment } from './find.ts'
import { Progress } from './progress.ts'
import { type Goal, waitFor } from './wait.ts'

interface Verb {
  name: 'start' | 'stop'
  description: string
  goal: Goal
  help: string
}

const START: Verb = {
  name: 'start',
  description: 'Start an environment that was stopped; its workspace is as it was.',
  goal: 'running',
  help: `
Example:
  $ npx coffer env start web-1a2b3c`
}

const STOP: Verb = {
  name: 'stop',
  description: 'Stop an environment: its processes end, its secrets go, its workspace stays.',
  goal: 'stopped',
  help: `
Example:
  $ npx coffer env stop web-1a2b3c`
}

export function addStartAndStopCommands(env: Command): void {
  for (const verb of [START, STOP]) {
    env
      .command(verb.name)
      .description(verb.description)
      .argument('<environment>', 'its name or id')
      .option('--no-wait', 'do not wait until that is done')
      .addHelpText('after', verb.help)
      .action((nameOrId: string, { wait }: { wait: boolean }) => ask(verb, nameOrId, wait))
  }
}

async function ask({ name, goal }: Verb, nameOrId: string, wait: boolean): Promise<void> {
  const client = openClient()
  const environment = await findEnvironment(client, nameOrId)
  const environmentId = environment.id!
  const method = name === 'start' ? 'StartEnvironment' : 'StopEnvironment'
  await call(client, `gitpod.v1.EnvironmentService/${method}`, { environmentId })
  if (wait) {
    const progress = new Progress(say, environment)
    const onState = progress.report.bind(progress)
    await waitFor(client, environmentId, goal, { signal: stopSignal(), onState })
  }
  process.stdout.write(`${fullNameOf(environment)} ${wait ? 'is' : 'will be'} ${goal}.\n`)
}
