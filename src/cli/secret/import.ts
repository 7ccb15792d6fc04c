import { type Command, InvalidArgumentError } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import { canonicalName } from '../../secrets/names.ts'
import { CommandFailed, printJson, stopSignal } from '../terminal.ts'
import {
  addCollectionOptions,
  type Collection,
  type CollectionOptions,
  readCollection
} from './collection.ts'
import { parseEnvFile, type Refusal, type Variable } from './env-file.ts'
import { importAll, type Outcome } from './import-all.ts'
import { previewOf, printPreview } from './preview.ts'
import { Progress } from './progress.ts'
import { fetchPublicKey, listSecrets } from './secrets-api.ts'
import {
  addSelectionOptions,
  readSelection,
  resolveSelection,
  type SelectionOptions,
  selectionKeeper
} from './selection.ts'
import { addSessionOptions, openSession, type SessionOptions } from './session.ts'
import { readFileBytes } from './value.ts'

const PARALLEL = 4

const HELP = `
The file is read as the dotenv package reads it: NAME=VALUE, export, comments, quotes of three kinds, several lines
within quotes, \\n in double quotes, and $ left alone. A line that is no assignment, a value that a # would cut, a name
that comes twice or that GitHub does not allow is refused, with its line, before anything is sent; --skip leaves a
name out. Running it again does no harm.

Examples:
  $ npx coffer secret import .env --repo mona/web --dry-run
  $ npx coffer secret import .env --repo mona/web --skip GITHUB_TOKEN
  $ npx coffer secret import .env --org acme --app actions --repos web,api`

interface ImportOptions extends CollectionOptions, SelectionOptions, SessionOptions {
  dryRun?: true
  parallel: number
  skip?: string[]
  json?: true
}

export function addImportCommand(secret: Command): void {
  const command = secret
    .command('import')
    .description('Create or update a secret for each variable of a .env file.')
    .argument('<file>', 'the file; - is standard input')
    .option('--dry-run', 'show what would be done, without values, and send nothing')
    .option('--skip <names>', 'variables to leave out, separated by commas', parseNames)
    .option('--parallel <number>', 'how many requests at once', parseParallel, PARALLEL)
    .option('--json', 'print JSON')
  addSessionOptions(addSelectionOptions(addCollectionOptions(command)))
    .addHelpText('after', HELP)
    .action(importFile)
}

async function importFile(file: string, options: ImportOptions): Promise<void> {
  const collection = readCollection(options)
  const asked = readSelection(options, collection)
  const { variables, refusals } = await readVariables(file, options.skip ?? [])
  if (options.dryRun) return await preview(collection, variables, refusals, options)
  if (refusals.length > 0) {
    for (const { line, name, reason } of refusals) {
      process.stderr.write(`line ${line}${name === undefined ? '' : `, ${name}`}: ${reason}\n`)
    }
    throw new RefusedToStart(`${file} is refused, and nothing was sent. --skip leaves a name out.`)
  }

  const progress = new Progress(variables.length)
  const signal = stopSignal()
  const client = openSession(options, { signal, say: (line) => progress.say(line) })
  const key = await fetchPublicKey(client, collection)
  const fixed = asked.visibility && (await resolveSelection(client, collection, asked))
  const keep = selectionKeeper(client, collection)
  const found = new Map(
    !fixed && collection.kind === 'organization'
      ? (await listSecrets(client, collection)).map((secret) => [canonicalName(secret.name), secret])
      : []
  )
  const outcome = await importAll(client, collection, key, {
    variables,
    selectionOf: async (name) => fixed ?? (await keep(found.get(name))),
    parallel: options.parallel,
    progress,
    signal
  })
  report(outcome, collection, options)
}

async function readVariables(file: string, skipped: readonly string[]) {
  const bytes = await readFileBytes(file)
  const parsed = parseEnvFile(bytes)
  bytes.fill(0)
  const there = new Set(
    [...parsed.variables, ...parsed.refusals].map(({ name }) => canonicalName(name ?? ''))
  )
  const unknown = skipped.filter((name) => !there.has(name))
  if (unknown.length > 0)
    throw new RefusedToStart(`--skip names what ${file} does not have: ${unknown.join(', ')}`)
  const isKept = ({ name }: { name?: string }) => name === undefined || !skipped.includes(canonicalName(name))
  const kept = { variables: parsed.variables.filter(isKept), refusals: parsed.refusals.filter(isKept) }
  if (kept.variables.length + kept.refusals.length === 0)
    throw new RefusedToStart(`${file} holds no variables.`)
  return kept
}

async function preview(
  collection: Collection,
  variables: readonly Variable[],
  refusals: readonly Refusal[],
  options: ImportOptions
): Promise<void> {
  const present = await listSecrets(openSession(options), collection)
  const rows = previewOf(variables, refusals, new Set(present.map(({ name }) => canonicalName(name))))
  for (const { value } of variables) value.fill(0)
  if (options.json) printJson(rows)
  else printPreview(rows)
  const count = (action: string) => rows.filter((row) => row.action === action).length
  process.stderr.write(
    `${count('create')} to create and ${count('update')} to update in the ${collection.name}; nothing was sent.\n`
  )
  if (refusals.length > 0) throw new RefusedToStart(`${refusals.length} refused: nothing would be sent.`)
}

function report(outcome: Outcome, collection: Collection, { json }: ImportOptions): void {
  const { created, updated, failed, notSent, stopped } = outcome
  for (const { name, message } of failed) process.stderr.write(`FAILED ${name}: ${message}\n`)
  if (notSent.length > 0) process.stderr.write(`Not sent: ${notSent.join(', ')}\n`)
  if (json) printJson({ created, updated, failed, not_sent: notSent })
  else {
    process.stdout.write(
      `${created.length} created and ${updated.length} updated in the ${collection.name}; ` +
        `${failed.length} failed, ${notSent.length} not sent.\n`
    )
  }
  const again = 'Run it again to go on.'
  if (stopped) throw new CommandFailed(`Stopped. ${again}`)
  if (notSent.length > 0) throw new CommandFailed(`Given up, since what failed would go on to fail. ${again}`)
  if (failed.length > 0) throw new CommandFailed(`${failed.length} of the secrets failed. ${again}`)
}

function parseNames(text: string): string[] {
  return text
    .split(',')
    .map((name) => canonicalName(name.trim()))
    .filter((name) => name !== '')
}

function parseParallel(text: string): number {
  if (/^([1-9]|[12][0-9]|3[0-2])$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Give a whole number from 1 to 32.')
}
