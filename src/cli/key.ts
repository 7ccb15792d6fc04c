import { existsSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import type { Kysely } from 'kysely'
import { type Config, loadConfig, readEnvironment } from '../config.ts'
import { RefusedToStart } from '../errors.ts'
import { createMasterKey, type Keyring, readMasterKey } from '../keyring/index.ts'
import { masterKeyFilesOf, openKeyring } from '../open.ts'
import {
  activateWhenReady,
  beginRotation,
  changeGrace,
  destroy,
  loadGenerations,
  PATIENCE_MS,
  reencryptAll,
  rewrap
} from '../secrets/generations.ts'
import {
  findPendingGeneration,
  type GenerationStatus,
  listGenerationStatus
} from '../store/key-generations.ts'
import type { Database } from '../store/tables.ts'
import { openMigratedStore } from './existing.ts'
import { CommandFailed, printJson, printTable, refuseMisuse, stopSignal } from './terminal.ts'

const POLL_MS = 250
const MAX_GRACE_HOURS = 8760

const HELP = `
These commands use the server's configuration (.env.example) and work beside a running server, and without one.

Secrets are encrypted under a key generation; its id is the key_id that clients see. The generations themselves are
encrypted ("wrapped") by the master key, which is a file and never in the database.

Example, a new generation and the end of the old one:
  $ npx coffer key rotate
  $ npx coffer key reencrypt
  $ npx coffer key destroy 4123456789012345678 --yes`

const STATUS_HELP = `
Example:
  $ npx coffer key status
  $ npx coffer key status --json`

const ROTATE_HELP = `
New values are encrypted under the new generation once every running server can open with it, 15 seconds later at the
latest. The old one goes on to open what clients sealed for it until the grace ends, then its key_id is refused; 0 ends
it at once. It opens stored values until "coffer key reencrypt" has moved them.

Example:
  $ npx coffer key rotate --grace 1`

const REENCRYPT_HELP = `
Nothing that clients see changes: no value, time or version. It may be interrupted and run again. Old backups still
hold values under the old generation.

Example:
  $ npx coffer key reencrypt`

const REWRAP_HELP = `
Every server must know the new master key before: start them with COFFER_MASTER_KEY_FILE=NEW:OLD first. The first file
wraps, all of them unwrap. Clients notice nothing, and no value is encrypted again.

Example:
  $ npx coffer key generate /etc/coffer/new.key
  $ COFFER_MASTER_KEY_FILE=/etc/coffer/new.key:/etc/coffer/master.key npx coffer key rewrap`

const DESTROY_HELP = `
It is refused while the generation is active, pending or in use. Nothing opens what was encrypted under it ever again;
only a backup taken before still has it.

Example:
  $ npx coffer key destroy 4123456789012345678 --yes`

const GENERATE_HELP = `
The file has mode 0600, and one that is there is never replaced. Keep a copy of it apart from the backups of the
database: without the master key no secret can be opened.

Example:
  $ npx coffer key generate /etc/coffer/master.key`

export function keyCommand(): Command {
  const key = refuseMisuse(new Command('key'))
    .description('Show, rotate, replace and destroy the keys that secrets are encrypted under.')
    .addHelpText('after', HELP)
  key
    .command('status')
    .description('List the key generations and the master keys.')
    .option('--json', 'print JSON')
    .addHelpText('after', STATUS_HELP)
    .action(status)
  key
    .command('rotate')
    .description('Make a new key generation, and retire the active one.')
    .option('--expect <id>', 'only if this generation is the active one')
    .option(
      '--grace <hours>',
      'how long the old one opens what clients sealed (COFFER_KEY_GRACE_HOURS)',
      parseHours
    )
    .option('--json', 'print JSON')
    .addHelpText('after', ROTATE_HELP)
    .action(rotate)
  key
    .command('reencrypt')
    .description('Encrypt all stored values under the active generation.')
    .option('--json', 'print JSON')
    .addHelpText('after', REENCRYPT_HELP)
    .action(reencrypt)
  key
    .command('rewrap')
    .description('Wrap all generations with the first of the master keys.')
    .option('--json', 'print JSON')
    .addHelpText('after', REWRAP_HELP)
    .action(rewrapAll)
  key
    .command('destroy')
    .description('Destroy a retired generation that no value uses.')
    .argument('<id>', 'the generation')
    .option('--yes', 'do not ask')
    .addHelpText('after', DESTROY_HELP)
    .action(destroyOne)
  key
    .command('generate')
    .description('Make a new master key; needs no database.')
    .argument('<file>', 'where to')
    .option('--if-missing', 'leave a key that is there as it is')
    .addHelpText('after', GENERATE_HELP)
    .action(generate)
  return key
}

function parseHours(text: string): number {
  const hours = Number(text)
  if (/^[0-9]+(\.[0-9]+)?$/.test(text) && hours <= MAX_GRACE_HOURS) return hours
  throw new InvalidArgumentError(`It must be a number of hours from 0 to ${MAX_GRACE_HOURS}.`)
}

async function withDatabase(work: (db: Kysely<Database>, config: Config) => Promise<void>): Promise<void> {
  const { config, secrets } = loadConfig(readEnvironment())
  const store = await openMigratedStore(config, secrets, 'attach')
  try {
    await work(store.db, config)
  } finally {
    await store.close()
  }
}

async function withKeyring(
  work: (db: Kysely<Database>, keyring: Keyring, config: Config) => Promise<void>
): Promise<void> {
  await withDatabase(async (db, config) => {
    const keyring = await openKeyring(config, db)
    try {
      await loadGenerations(db, keyring)
      await work(db, keyring, config)
    } finally {
      keyring.close()
    }
  })
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

// ---- status ----

interface GivenMasterKey {
  file: string
  fingerprint: string | null
  problem: string | null
}

async function readGivenKeys(config: Config): Promise<GivenMasterKey[]> {
  const given: GivenMasterKey[] = []
  for (const file of masterKeyFilesOf(config)) {
    try {
      given.push({ file, fingerprint: (await readMasterKey(file)).fingerprint, problem: null })
    } catch (error) {
      if (!(error instanceof RefusedToStart)) throw error
      given.push({ file, fingerprint: null, problem: error.message })
    }
  }
  return given
}

async function status({ json }: { json?: true }): Promise<void> {
  await withDatabase(async (db, config) => {
    const generations = await listGenerationStatus(db)
    const masterKeys = await readGivenKeys(config)
    const given = new Set(masterKeys.map(({ fingerprint }) => fingerprint))
    const isGiven = (fingerprint: string | null) => fingerprint !== null && given.has(fingerprint)
    if (json) {
      const shown = generations.map(({ fingerprint, retired_for_ms: _, ...generation }) => ({
        ...generation,
        master_key: fingerprint,
        master_key_given: isGiven(fingerprint)
      }))
      printJson({ generations: shown, master_keys: masterKeys })
      return
    }
    printTable(
      ['GENERATION', 'STATE', 'CREATED', 'OPENS BOXES UNTIL', 'SECRETS', 'MASTER KEY'],
      generations.map((generation) => [
        generation.id,
        generation.state,
        generation.created_at.toISOString(),
        describeWindow(generation),
        String(generation.secrets),
        generation.fingerprint
          ? `${generation.fingerprint}${isGiven(generation.fingerprint) ? '' : ' (not given)'}`
          : '-'
      ])
    )
    say('')
    printTable(
      ['MASTER KEY', 'FILE'],
      masterKeys.map(({ file, fingerprint, problem }) => [fingerprint ?? '-', problem ?? file])
    )
  })
}

function describeWindow({ state, accepts_boxes_until: until }: GenerationStatus): string {
  if (state === 'destroyed') return '-'
  return until ? until.toISOString() : 'no end'
}

// ---- rotate ----

interface Rotation {
  id: string
  replaces: string
}

async function rotate(options: { expect?: string; grace?: number; json?: true }): Promise<void> {
  const signal = stopSignal()
  await withKeyring(async (db, keyring, config) => {
    await requireWrappingKeyInUse(db, keyring)
    const rotation =
      (await findInterrupted(db, options.expect)) ?? (await beginRotation(db, keyring, options.expect))
    const { id, replaces } = rotation
    if (!options.json) say(`Key generation ${id} is pending; it replaces ${replaces}.`)
    const graceSeconds = options.grace === undefined ? config.keyGraceSeconds : options.grace * 3600
    await activate(db, rotation, graceSeconds, options.json === true, signal)

    const old = (await listGenerationStatus(db)).find((generation) => generation.id === replaces)
    const until = old?.accepts_boxes_until?.toISOString() ?? null
    if (options.json) {
      printJson({ id, replaces, opens_boxes_until: until, secrets: old?.secrets ?? 0 })
      return
    }
    say(`Key generation ${id} is active.`)
    say(`Key generation ${replaces} opens what clients sealed until ${until}, then its key_id is refused.`)
    say(
      old?.secrets
        ? `${old.secrets} stored values are still encrypted under it. Next: npx coffer key reencrypt`
        : `No stored value is encrypted under it. When the window is over: npx coffer key destroy ${replaces}`
    )
  })
}

/** Servers that know only the old master key could not open a generation wrapped by the new one. */
async function requireWrappingKeyInUse(db: Kysely<Database>, keyring: Keyring): Promise<void> {
  const active = (await listGenerationStatus(db)).find(({ state }) => state === 'active')
  if (!active || active.fingerprint === keyring.wrappingKey.fingerprint) return
  throw new RefusedToStart(
    `The first of the given master keys (${keyring.wrappingKey.fingerprint}) is not the one in use ` +
      `(${active.fingerprint}). Run coffer key rewrap first.`
  )
}

/** A rotation whose command was interrupted while no server ran that could have finished it. */
async function findInterrupted(
  db: Kysely<Database>,
  expected: string | undefined
): Promise<Rotation | undefined> {
  const pending = await findPendingGeneration(db)
  if (!pending || pending.age_ms < PATIENCE_MS) return undefined
  return expected === undefined || expected === pending.replaces ? pending : undefined
}

async function activate(
  db: Kysely<Database>,
  { id, replaces }: Rotation,
  graceSeconds: number,
  quiet: boolean,
  signal: AbortSignal
): Promise<void> {
  let shown = ''
  for (;;) {
    const progress = await activateWhenReady(db, graceSeconds)
    if (progress.state !== 'waiting') break
    const line = `Waiting for servers: ${progress.ready} of ${progress.live} can open with it.`
    if (line !== shown && !quiet) say(line)
    shown = line
    await sleep(POLL_MS, undefined, { signal }).catch(() => {
      throw new CommandFailed(
        `Stopped: key generation ${id} stays pending. A running server makes it active; without one, run ` +
          'coffer key rotate again.'
      )
    })
  }
  // A server may have activated it, with the grace of its own configuration.
  await changeGrace(db, replaces, graceSeconds)
}

// ---- reencrypt ----

async function reencrypt({ json }: { json?: true }): Promise<void> {
  const signal = stopSignal()
  const terminal = process.stderr.isTTY === true
  await withKeyring(async (db, keyring) => {
    const { done, unreadable } = await reencryptAll({ db, keyring }, (progress) => {
      if (terminal) process.stderr.write(`\r${progress.done} of ${progress.total} values`)
      if (signal.aborted) {
        if (terminal) process.stderr.write('\n')
        throw new CommandFailed(
          `Stopped after ${progress.done} of ${progress.total} values. Run it again to go on.`
        )
      }
    })
    if (terminal) process.stderr.write('\n')
    const generations = await listGenerationStatus(db)
    const active = generations.find(({ state }) => state === 'active')!.id
    if (json) printJson({ generation: active, reencrypted: done, unreadable })
    else {
      say(`${done} values were encrypted again; all that open are under key generation ${active} now.`)
      for (const { id, state, secrets } of generations) {
        if (state === 'retired' && secrets === 0)
          say(`No value uses ${id} any more: npx coffer key destroy ${id}`)
      }
    }
    if (unreadable.length > 0) {
      throw new CommandFailed(
        `${unreadable.length} values do not open with their key and were left as they are; write them anew, or ` +
          `restore a backup: ${unreadable.join(', ')}`
      )
    }
  })
}

// ---- rewrap ----

async function rewrapAll({ json }: { json?: true }): Promise<void> {
  await withKeyring(async (db, keyring, config) => {
    const { fingerprint } = keyring.wrappingKey
    const [file, ...others] = masterKeyFilesOf(config)
    const rewrapped = await rewrap(db, keyring)
    if (json) {
      printJson({ master_key: fingerprint, file, rewrapped })
      return
    }
    for (const id of rewrapped) say(`Key generation ${id} is wrapped by master key ${fingerprint} now.`)
    if (rewrapped.length === 0) say(`All generations are wrapped by master key ${fingerprint} already.`)
    if (others.length > 0) {
      say(`Once every server runs with ${file} first in COFFER_MASTER_KEY_FILE, ${others.join(', ')} can go;`)
      say('keep it as long as you keep backups that were taken before.')
    }
  })
}

// ---- destroy ----

async function destroyOne(id: string, { yes }: { yes?: true }): Promise<void> {
  if (!yes) await confirmDestroying(id)
  await withDatabase(async (db) => {
    await destroy(db, id)
    say(`Key generation ${id} is destroyed.`)
  })
}

async function confirmDestroying(id: string): Promise<void> {
  if (!process.stdin.isTTY) {
    throw new RefusedToStart(`Destroying key generation ${id} cannot be undone. If you mean it, add --yes.`)
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await terminal.question(
    `Nothing will open what was encrypted under key generation ${id}, ever again. Type yes to destroy it: `
  )
  terminal.close()
  if (answer.trim() !== 'yes') throw new RefusedToStart('Not destroyed.')
}

// ---- generate ----

async function generate(file: string, { ifMissing }: { ifMissing?: true }): Promise<void> {
  const target = path.resolve(file)
  if (ifMissing && existsSync(target)) {
    const { fingerprint } = await readMasterKey(target)
    say(`${target} is there already, and stays: master key ${fingerprint}.`)
    return
  }
  const { fingerprint } = await createMasterKey(target)
  say(`${target} holds a new master key: ${fingerprint}. Keep a copy of it apart from the backups.`)
}
