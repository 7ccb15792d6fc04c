import type { Kysely } from 'kysely'
import { findRepository } from '../store/repositories.ts'
import type { Database } from '../store/tables.ts'
import type { Initializer } from './spec.ts'

// Whether a project's remote is a repository that is known here, whose secrets then join.

/**
 * The owner and the name of a repository, when its remote is on one of these hosts: compared with the port, never by
 * path alone. Both ways to write a remote over SSH are read.
 *
 * @param hosts `host` or `host:port`, in lower case; without a port the scheme's own is meant
 */
export function readRemote(
  remoteUri: string,
  hosts: ReadonlySet<string>
): { owner: string; repo: string } | undefined {
  const scp = /^[^/@:\s]+@([^/:\s]+):(?!\/)([^\s]+)$/.exec(remoteUri)
  const url = scp ? `ssh://${scp[1]}/${scp[2]}` : remoteUri
  if (!URL.canParse(url)) return undefined
  const { protocol, host, pathname, search, hash } = new URL(url)
  if (!['http:', 'https:', 'ssh:'].includes(protocol) || search || hash) return undefined
  if (!hosts.has(host.toLowerCase())) return undefined
  const [owner, name, ...rest] = pathname.replace(/^\/+/, '').replace(/\/+$/, '').split('/')
  if (!owner || !name || rest.length > 0) return undefined
  try {
    return { owner: decodeURIComponent(owner), repo: decodeURIComponent(name.replace(/\.git$/, '')) }
  } catch {
    return undefined
  }
}

/** The first remote of an initializer; undefined without one. */
export function firstRemote(initializer: Initializer | undefined): string | undefined {
  const [first] = initializer?.specs ?? []
  return first?.git?.remoteUri ?? first?.contextUrl?.url
}

/** The number of the repository that an environment is about; null when none is known here. */
export async function findRepositoryOf(
  db: Kysely<Database>,
  actorId: number,
  initializer: Initializer | undefined,
  hosts: ReadonlySet<string>
): Promise<number | null> {
  const remote = firstRemote(initializer)
  const locator = remote === undefined ? undefined : readRemote(remote, hosts)
  if (!locator) return null
  return (await findRepository(db, actorId, locator))?.repository_id ?? null
}
