import type { Command } from 'commander'
import { shortOf } from '../api-errors.ts'
import { printJson, printTable } from '../terminal.ts'
import { addCollectionOptions, type CollectionOptions, readCollection } from './collection.ts'
import { listSecrets } from './secrets-api.ts'
import { addSessionOptions, openSession, type SessionOptions } from './session.ts'

const HELP = `
Examples:
  $ npx coffer secret list --repo mona/web
  $ npx coffer secret list --org acme --app actions --json`

type ListOptions = CollectionOptions & SessionOptions & { json?: true }

export function addListCommand(secret: Command): void {
  const command = secret
    .command('list')
    .alias('ls')
    .description('List secrets: names and times; nobody reads a value back.')
  addSessionOptions(addCollectionOptions(command))
    .option('--json', 'print JSON, as the server has it')
    .addHelpText('after', HELP)
    .action(list)
}

async function list(options: ListOptions): Promise<void> {
  const collection = readCollection(options)
  const secrets = await listSecrets(openSession(options), collection)
  if (options.json) return printJson(secrets)
  if (secrets.length === 0) {
    process.stderr.write(`There are no ${collection.name}.\n`)
    return
  }
  const selectable = collection.kind === 'organization' || collection.kind === 'user'
  printTable(
    ['NAME', 'UPDATED', ...(selectable ? ['VISIBILITY'] : [])],
    secrets.map(({ name, updated_at, visibility }) =>
      [name, updated_at, ...(selectable ? [visibility ?? ''] : [])].map((cell) => shortOf(String(cell)))
    )
  )
}
