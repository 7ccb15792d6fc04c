import type { Command } from 'commander'
import { requireGitHubName } from '../../secrets/names.ts'
import { addCollectionOptions, type CollectionOptions, readCollection } from './collection.ts'
import { deleteSecret } from './secrets-api.ts'
import { addSessionOptions, openSession, type SessionOptions } from './session.ts'

const HELP = `
It is done at once, without asking.

Example:
  $ npx coffer secret delete DB_URL --repo mona/web`

export function addDeleteCommand(secret: Command): void {
  const command = secret
    .command('delete')
    .alias('remove')
    .description('Delete a secret.')
    .argument('<name>', 'its name, in upper or lower case')
  addSessionOptions(addCollectionOptions(command)).addHelpText('after', HELP).action(remove)
}

async function remove(text: string, options: CollectionOptions & SessionOptions): Promise<void> {
  const name = requireGitHubName(text)
  const collection = readCollection(options)
  await deleteSecret(openSession(options), collection, name)
  process.stdout.write(`Deleted ${name} from the ${collection.name}.\n`)
}
