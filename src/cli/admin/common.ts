import { Argument, type Command, InvalidArgumentError } from 'commander'
import { loadClientConfig, loadConfig, readEnvironment } from '../../config.ts'
import { RefusedToStart } from '../../errors.ts'
import { openMigratedStore } from '../existing.ts'
import { parseLogin, parseRepository } from '../names.ts'
import { printJson } from '../terminal.ts'
import type { Administration } from './administration.ts'
import { offlineAdministration } from './offline.ts'
import { onlineAdministration } from './online.ts'

export interface CommonOptions {
  offline?: true
  json?: true
}

/** Does the work over HTTP, or with the database in its hands that no server may use meanwhile. */
export async function administer<T>(
  { offline }: CommonOptions,
  work: (administration: Administration) => Promise<T>
): Promise<T> {
  if (!offline) return await work(onlineAdministration(loadClientConfig(readEnvironment())))
  const { config, secrets } = loadConfig(readEnvironment())
  const store = await openMigratedStore(config, secrets, 'hold')
  try {
    return await work(offlineAdministration(store.db, config))
  } finally {
    await store.close()
  }
}

/** A command of the administrator: what all of them take, and an example. */
export function leaf(parent: Command, usage: string, description: string, example: string): Command {
  return parent
    .command(usage)
    .description(description)
    .option('--offline', "work on the server's database itself, with its configuration, while no server runs")
    .addHelpText('after', `\nExample:\n  $ npx coffer ${example}`)
}

export function withJson(command: Command): Command {
  return command.option('--json', 'print JSON')
}

export function group(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description)
}

export function report(json: true | undefined, value: object, sentence: string): void {
  if (json) printJson(value)
  else process.stdout.write(`${sentence}\n`)
}

/** What cannot be undone is done for those who say so. */
export function requireYes({ yes }: { yes?: true }, consequence: string): void {
  if (!yes) throw new RefusedToStart(`${consequence} Add --yes to do it.`)
}

export function login(): Argument {
  return new Argument('<login>', 'login of a user').argParser(parseLogin)
}

export function organization(): Argument {
  return new Argument('<org>', 'login of an organization').argParser(parseLogin)
}

export function repository(): Argument {
  return new Argument('<owner/name>', 'a repository').argParser(parseRepository)
}

/** Permissions in one argument, as `name=level,name=level`. */
export function parsePermissions(text: string): Record<string, string> {
  const pairs = text
    .split(',')
    .map((pair) => pair.trim())
    .filter((pair) => pair !== '')
  if (pairs.length === 0) throw new InvalidArgumentError('Write it as NAME=LEVEL,NAME=LEVEL.')
  return Object.fromEntries(pairs.map(parsePermission))
}

export function parsePermission(text: string): [name: string, level: string] {
  const [name = '', level = '', ...rest] = text.split('=')
  if (name !== '' && level !== '' && rest.length === 0) return [name, level]
  throw new InvalidArgumentError('Write it as NAME=LEVEL.')
}

export function describePermissions(permissions: Readonly<Record<string, string>>): string {
  return Object.entries(permissions)
    .map((pair) => pair.join('='))
    .join(', ')
}
