import type { Kysely } from 'kysely'
import { findRepository } from '../store/repositories.ts'
import type { Database } from '../store/tables.ts'
import { sourceOf } from './context-url.ts'
import type { Initializer } from './spec.ts'

// Whether a project's remote is a repository that is known here, whose secrets then join.

/** A remote whose host is plain to see: programs differ in what they make of backslashes and of missing slashes. */
const URL_FORM = /^(?:https?|ssh):\/\/[^/\\][^\\\s]*$/i
const SCP_FORM = /^[^/@:\s]+@(?<host>[^/@:\s]+):(?<path>[^/\\\s][^\\\s]*)$/
/** What accounts and repositories are called. */
const NAME = /^[\w.-]+$/

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
  const scp = SCP_FORM.exec(remoteUri)?.groups
  const text = scp ? `ssh://${scp.host}/${scp.path}` : remoteUri
  if (!URL_FORM.test(text) || !URL.canParse(text)) return undefined
  const { host, pathname, search, hash } = new URL(text)
  if (search || hash || !hosts.has(host.toLowerCase())) return undefined
  const [owner, name, ...rest] = pathname
    .replace(/^\/+|\/+$/g, '')
    .split('/')
    .map(decode)
  const repo = name?.replace(/\.git$/, '')
  if (!owner || !repo || rest.length > 0 || !NAME.test(owner) || !NAME.test(repo)) return undefined
  return { owner, repo }
}

/** Undefined for what is no percent-encoded UTF-8. */
function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment)
  } catch {
    return undefined
  }
}

/** The first remote of an initializer, as it is cloned; undefined without one. */
export function firstRemote(initializer: Initializer | undefined): string | undefined {
  for (const spec of initializer?.specs ?? []) {
    const source = sourceOf(spec)
    if (source) return source.remoteUri
  }
  return undefined
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
