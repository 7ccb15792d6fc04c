import { type Command, InvalidArgumentError, Option } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import { type ApiClient, ask } from '../api-client.ts'
import { parseRepository, type RepositoryName } from '../names.ts'
import { type Collection, noRepository, repositoryPath } from './collection.ts'
import { listSelectedIds, type SecretHead } from './secrets-api.ts'

const VISIBILITIES = ['all', 'private', 'selected'] as const
export type Visibility = (typeof VISIBILITIES)[number]

export interface SelectionOptions {
  visibility?: Visibility
  repos?: string[]
  /** false: --no-repos-selected */
  reposSelected: boolean
}

/** Which repositories receive a secret of an organization or a user; empty: as it is, or as the server has it. */
export interface Selection {
  visibility?: Visibility
  repositories?: readonly RepositoryName[]
}

/** What of it goes into a request. */
export interface SelectionMembers {
  visibility?: Visibility
  selected_repository_ids?: readonly (number | string)[]
}

export function addSelectionOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '-v, --visibility <visibility>',
        'with --org: which of its repositories receive it; a new one: private'
      ).choices([...VISIBILITIES])
    )
    .option(
      '-r, --repos <list>',
      'with --org or --user: the repositories that receive it, separated by commas',
      parseList
    )
    .option('--no-repos-selected', 'with --org or --user: selected, and no repository for now')
}

/** Checks what was asked, before anything is sent. */
export function readSelection(
  { visibility, repos, reposSelected }: SelectionOptions,
  { kind, org }: Collection
): Selection {
  const none = !reposSelected
  if (visibility === undefined && repos === undefined && !none) return {}
  if (kind === 'repository' || kind === 'deployment-environment') {
    throw new RefusedToStart('--visibility, --repos and --no-repos-selected go with --org or --user.')
  }
  if (repos && none) throw new RefusedToStart('Give --repos or --no-repos-selected, not both.')
  if (visibility === 'selected' && !repos && !none) {
    throw new RefusedToStart(
      'With --visibility selected, name them with --repos, or give --no-repos-selected.'
    )
  }
  if (visibility !== undefined && visibility !== 'selected' && (repos || none)) {
    throw new RefusedToStart(`--visibility ${visibility} selects no repositories; leave --repos out.`)
  }
  if (kind === 'user' && visibility === 'private') {
    throw new RefusedToStart('A secret of a user has the visibility all or selected.')
  }
  if (!repos && !none) return { visibility: visibility! }
  return { visibility: 'selected', repositories: (repos ?? []).map((name) => readRepository(name, org)) }
}

/** Asks for the ids that the names have. */
export async function resolveSelection(
  client: ApiClient,
  { kind, app }: Collection,
  { visibility, repositories }: Selection
): Promise<SelectionMembers> {
  if (!repositories) return visibility ? { visibility } : {}
  const ids: number[] = []
  for (const repository of repositories) {
    const { id } = await ask<{ id: number }>(client, {
      method: 'GET',
      path: repositoryPath(repository),
      notFound: noRepository(repository)
    })
    ids.push(id)
  }
  const selected_repository_ids = writtenIds(app, ids)
  // GitHub knows no other visibility of a user's secret, and no such member.
  return kind === 'user' ? { selected_repository_ids } : { visibility: 'selected', selected_repository_ids }
}

/**
 * What to send for a secret when nothing was asked: an organization's PUT must have a visibility, and would reset
 * it. A server that is not Coffer may forget the selection too, where it is left out.
 *
 * @returns a function of the secret as it is; undefined for a new one
 */
export function selectionKeeper(
  client: ApiClient,
  collection: Collection
): (found: SecretHead | undefined) => Promise<SelectionMembers> {
  if (collection.kind !== 'organization') return async () => ({})
  let coffer: Promise<boolean> | undefined
  return async (found) => {
    const visibility = found?.visibility ?? 'private'
    if (!found || visibility !== 'selected') return { visibility }
    coffer ??= isCoffer(client)
    if (await coffer) return { visibility }
    const ids = await listSelectedIds(client, collection, found.name)
    return { visibility, selected_repository_ids: writtenIds(collection.app, ids) }
  }
}

async function isCoffer(client: ApiClient): Promise<boolean> {
  const meta = await ask<{ coffer_version?: unknown }>(client, { method: 'GET', path: '/meta' })
  return typeof meta.coffer_version === 'string'
}

/** GitHub's dependabot wanted strings for long; the others want integers. */
function writtenIds(app: Collection['app'], ids: readonly number[]): (number | string)[] {
  return app === 'dependabot' ? ids.map(String) : [...ids]
}

function parseList(text: string): string[] {
  const names = text.split(',').map((name) => name.trim())
  if (names.every((name) => name !== '')) return names
  throw new InvalidArgumentError('Separate names by commas; for none, there is --no-repos-selected.')
}

/** A name alone is one of the organization's, whose secrets are for its own repositories. */
function readRepository(text: string, org: string | undefined): RepositoryName {
  const repository = parseName(text.includes('/') || org === undefined ? text : `${org}/${text}`)
  if (!repository) {
    throw new RefusedToStart(
      `--repos takes names of repositories as OWNER/NAME${org === undefined ? '' : ', or NAME alone'}.`
    )
  }
  if (org !== undefined && repository.owner.toLowerCase() !== org.toLowerCase()) {
    throw new RefusedToStart(`A secret of ${org} is for its own repositories: ${text} is none.`)
  }
  return repository
}

function parseName(text: string): RepositoryName | undefined {
  try {
    return parseRepository(text)
  } catch {
    return undefined
  }
}
