import type { Command } from 'commander'
import { type ApiClient, RefusedByServer } from '../api-client.ts'
import { stopSignal } from '../terminal.ts'
import { call, openClient, say } from './client.ts'
import { fullNameOf } from './describe.ts'
import { findEnvironment } from './find.ts'
import type { Environment } from './messages.ts'
import { Progress } from './progress.ts'
import { waitFor } from './wait.ts'

const HELP = `
It is done at once, without asking: processes end, and the workspace goes with all that is in it.

Examples:
  $ npx coffer env delete web-1a2b3c
  $ npx coffer env delete web-1a2b3c web-4d5e6f --no-wait`

interface DeleteOptions {
  force?: boolean
  wait: boolean
}

export function addDeleteCommand(env: Command): void {
  env
    .command('delete')
    .alias('remove')
    .description('Delete environments.')
    .argument('<environment...>', 'names or ids')
    .option('-f, --force', 'at once, whatever the runner does; for one whose runner is gone')
    .option('--no-wait', 'do not wait until they are gone')
    .addHelpText('after', HELP)
    .action(remove)
}

async function remove(namesOrIds: string[], { force, wait }: DeleteOptions): Promise<void> {
  const client = openClient()
  // All are known before the first of them goes.
  const environments = new Map<string, Environment>()
  for (const nameOrId of namesOrIds) {
    const environment = await findEnvironment(client, nameOrId)
    environments.set(environment.id!, environment)
  }
  for (const id of environments.keys()) await askToDelete(client, id, force)
  const signal = stopSignal()
  for (const [id, environment] of environments) {
    const progress = new Progress(say, environment)
    const onState = progress.report.bind(progress)
    if (wait) await waitFor(client, id, 'deleted', { signal, onState })
    process.stdout.write(`${fullNameOf(environment)} is ${wait || force ? 'deleted' : 'being deleted'}.\n`)
  }
}

/** Resolves when the server will see to it, or there is nothing to delete any more. */
export async function askToDelete(client: ApiClient, environmentId: string, force = false): Promise<void> {
  try {
    const method = 'gitpod.v1.EnvironmentService/DeleteEnvironment'
    await call(client, method, { environmentId, ...(force && { force }) })
  } catch (error) {
    if (!(error instanceof RefusedByServer) || error.answered !== 404) throw error
  }
}
