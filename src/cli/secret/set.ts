import { type Command, Option } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import { requireGitHubName } from '../../secrets/names.ts'
import type { ApiClient } from '../api-client.ts'
import {
  addCollectionOptions,
  type Collection,
  type CollectionOptions,
  readCollection
} from './collection.ts'
import { fetchPublicKey, findSecret, putSecret } from './secrets-api.ts'
import {
  addSelectionOptions,
  readSelection,
  resolveSelection,
  type Selection,
  type SelectionMembers,
  type SelectionOptions,
  selectionKeeper
} from './selection.ts'
import { addSessionOptions, openSession, type SessionOptions } from './session.ts'
import { addValueOptions, readValue, type ValueOptions } from './value.ts'

const HELP = `
The value comes from --value-file, from standard input when that is no terminal, and is asked for otherwise, without
showing it. It is never an argument: those are seen by every user of the machine in the list of processes, and stay
in the history of the shell. No byte of it is changed; --strip-newline is for what echo and editors put at the end.

An organization's secret that exists keeps its visibility and repositories when no option says otherwise.

Examples:
  $ npx coffer secret set DB_URL --repo mona/web
  $ pass show db | npx coffer secret set DB_URL --repo mona/web --strip-newline
  $ npx coffer secret set SSH_KEY --user --repos mona/web,mona/api --value-file ~/.ssh/id_ed25519
  $ npx coffer secret set NPM_TOKEN --org acme --visibility all --value-file npm-token
  $ npx coffer secret set DEPLOY_KEY --repo mona/web --env production --value-file key.pem`

type SetOptions = CollectionOptions & SelectionOptions & ValueOptions & SessionOptions & { body?: string }

export function addSetCommand(secret: Command): void {
  const command = secret
    .command('set')
    .description('Create a secret, or give it a new value.')
    .argument('<name>', 'letters, digits and underscores; in upper case on the server')
  addSessionOptions(addValueOptions(addSelectionOptions(addCollectionOptions(command))))
    // So that who comes from gh learns why, instead of that it is unknown.
    .addOption(new Option('-b, --body <value>').hideHelp())
    .addHelpText('after', HELP)
    .action(set)
}

async function set(text: string, options: SetOptions): Promise<void> {
  if (options.body !== undefined) {
    throw new RefusedToStart(
      'A value is not taken as an argument: every user of the machine sees those, and the shell keeps them. Pipe it ' +
        'in, or give --value-file. This one has been seen: choose another.'
    )
  }
  const name = requireGitHubName(text)
  const collection = readCollection(options)
  const selection = readSelection(options, collection)
  const client = openSession(options)
  const outcome = await setSecret(client, collection, {
    name,
    selection,
    read: () => readValue(name, options)
  })
  process.stdout.write(
    `${outcome === 'created' ? 'Created' : 'Updated'} ${name} in the ${collection.name}.\n`
  )
  if (outcome === 'created' && collection.kind === 'user' && !selection.visibility) {
    process.stderr.write('No repository receives it yet; --repos names some.\n')
  }
}

/** Reads the value last: what may be refused is, before somebody types it. */
export async function setSecret(
  client: ApiClient,
  collection: Collection,
  { name, selection, read }: { name: string; selection: Selection; read: () => Promise<Uint8Array> }
): Promise<'created' | 'updated'> {
  const key = await fetchPublicKey(client, collection)
  const members = selection.visibility
    ? await resolveSelection(client, collection, selection)
    : await keptSelection(client, collection, name)
  return await putSecret(client, collection, key, { name, value: await read(), selection: members })
}

async function keptSelection(
  client: ApiClient,
  collection: Collection,
  name: string
): Promise<SelectionMembers> {
  const found = collection.kind === 'organization' ? await findSecret(client, collection, name) : undefined
  return await selectionKeeper(client, collection)(found)
}
