import type { CollectionKind } from '../apps.ts'
import { hasRole } from '../auth/access.ts'
import { isReservedVariable } from '../secrets/mounts.ts'
import type { CandidateSecret, ResolutionContext } from '../store/resolution.ts'
import type { CredentialProxy } from '../store/tables.ts'

/**
 * Which secrets an environment receives, and why: user before project before repository before organization, by name
 * and kind of mount. A service account that makes an environment takes the user's place.
 */

/** Where a secret comes from, the highest first. */
export const ORDER = ['user', 'service-account', 'project', 'repository', 'organization'] as const
export type Origin = (typeof ORDER)[number]

/** How a secret is delivered. */
export type Delivery =
  | { kind: 'variable'; name: string }
  | { kind: 'file'; path: string }
  | { kind: 'registry'; host: string }
  | { kind: 'git'; host: string }
  | { kind: 'api-only' }

/** A secret that an environment receives, as it is stored with it and told to its runner. */
export interface ResolvedSecret {
  id: string
  name: string
  origin: Origin
  /** moves with each value */
  session: string
  mount: Delivery
  credentialProxy?: CredentialProxy
  /** why it is not delivered, whatever its value */
  problem?: string
}

/** What a creator says about the secrets of an environment: which, and how. */
export interface Choice {
  /** whether nothing else comes in; else it only says how these are delivered */
  narrows: boolean
  secrets: readonly ChosenSecret[]
}

export interface ChosenSecret {
  id: string
  /** instead of the secret's own mount: for git, at this host */
  gitHost?: string
}

export type Verdict =
  /** it is delivered */
  | { result: 'wins' }
  /** another one of the same name and kind of mount comes first */
  | { result: 'loses'; to: Origin }
  /** it does not come in at all, or is not delivered */
  | { result: 'withheld'; reason: string }

/** For each secret that could come in: what became of it. */
export interface Explanation {
  secret: CandidateSecret
  origin: Origin
  verdict: Verdict
}

export interface Resolution {
  secrets: ResolvedSecret[]
  /** ids of what the environment's tokens may read */
  readable: number[]
  explanations: Explanation[]
}

/**
 * Whose secrets could come into an environment. Those of a project or a repository on which the creator may not use
 * them are not even looked at: that they are there is not the creator's to know.
 */
export function ownersOf(context: ResolutionContext): { kind: CollectionKind; ownerUid: string }[] {
  const { creator_here, creator_kind, creator_uid, project_uid, organization_uid, repository_uid } = context
  if (!creator_here) return []
  return [
    { kind: creator_kind as CollectionKind, ownerUid: creator_uid },
    ...(project_uid && context.project_role ? [{ kind: 'project' as const, ownerUid: project_uid }] : []),
    ...(repository_uid && joinsRepository(context)
      ? [{ kind: 'repository' as const, ownerUid: repository_uid }]
      : []),
    { kind: 'organization', ownerUid: organization_uid }
  ]
}

/** Whether the repository's secrets, and those of others for it, come in: who may write there may have them. */
function joinsRepository({ repository_private, repository_role }: ResolutionContext): boolean {
  return hasRole({ private: repository_private ?? true, role: repository_role }, 'write')
}

/** Why a secret does not come into an environment, by what its creator is now; undefined: it does. */
export function reasonToWithhold(context: ResolutionContext, secret: CandidateSecret): string | undefined {
  if (!context.creator_here) return 'the creator of the environment is no member of the organization any more'
  switch (secret.kind) {
    case 'user':
    case 'service-account':
      if (!context.own_secrets) return 'somebody else than its creator may be in the environment'
      return secret.kind === 'user' ? outOfSight(context, secret) : undefined
    case 'project':
      return context.project_role ? undefined : 'the creator has no role on the project any more'
    case 'repository':
      return joinsRepository(context)
        ? undefined
        : 'the creator has not the role write on the repository any more'
    case 'organization':
      return outOfSight(context, secret)
    default:
      return 'it is for no environment of this kind'
  }
}

/** By visibility: to all, to private repositories, or to selected ones. */
function outOfSight(context: ResolutionContext, secret: CandidateSecret): string | undefined {
  const { visibility, selected } = secret
  if (visibility === 'all') return undefined
  const { repository_id, repository_private, repository_here } = context
  // Who names a repository in a project has not thereby access to it, and does not learn whether it is there.
  if (repository_id === null || !joinsRepository(context)) {
    return 'it is for repositories, and the project has none on which the creator has the role write'
  }
  if (visibility === 'private') {
    return repository_private && repository_here
      ? undefined
      : 'it is for private repositories of the organization'
  }
  return selected ? undefined : 'it is for selected repositories, and the project’s is not among them'
}

function sortByRank(secrets: readonly CandidateSecret[]): CandidateSecret[] {
  const rank = ({ kind }: CandidateSecret) => ORDER.indexOf(kind as Origin)
  return [...secrets].sort((a, b) => rank(a) - rank(b) || (a.secret_name < b.secret_name ? -1 : 1))
}

function deliveryOf({ mount, mount_target, secret_name }: CandidateSecret, chosen?: ChosenSecret): Delivery {
  if (chosen?.gitHost !== undefined) return { kind: 'git', host: chosen.gitHost }
  switch (mount) {
    case 'variable':
      return { kind: 'variable', name: secret_name }
    case 'file':
      return { kind: 'file', path: mount_target! }
    case 'registry':
      return { kind: 'registry', host: mount_target! }
    case 'git':
      return { kind: 'git', host: mount_target! }
    case 'api-only':
      return { kind: 'api-only' }
  }
}

/** What two secrets cannot both have: a variable's name, a path, the credentials of one host. */
function placeOf(delivery: Delivery): string | undefined {
  switch (delivery.kind) {
    case 'file':
      return `file ${delivery.path}`
    case 'registry':
      return `registry ${delivery.host.toLowerCase()}`
    case 'git':
      return `git ${delivery.host.toLowerCase()}`
    default:
      return undefined
  }
}

/**
 * Decides for all candidates at once. Nothing is asked for here, and nothing depends on an order of rows.
 *
 * @param choice what the creator said; null: nothing
 */
export function resolve(
  context: ResolutionContext,
  candidates: readonly CandidateSecret[],
  choice: Choice | null
): Resolution {
  const winners = new Map<string, Origin>()
  const places = new Map<string, string>()
  const secrets: ResolvedSecret[] = []
  const readable: number[] = []
  const explanations: Explanation[] = []
  for (const secret of sortByRank(candidates)) {
    const origin = secret.kind as Origin
    const explain = (verdict: Verdict) => explanations.push({ secret, origin, verdict })
    const withheld = reasonToWithhold(context, secret)
    if (withheld !== undefined) {
      explain({ result: 'withheld', reason: withheld })
      continue
    }
    const key = `${secret.mount} ${secret.secret_name}`
    const first = winners.get(key)
    if (first) {
      explain({ result: 'loses', to: first })
      continue
    }
    winners.set(key, origin)
    const chosen = choice?.secrets.find(({ id }) => id === secret.secret_uid)
    if (choice?.narrows && !chosen) {
      explain({
        result: 'withheld',
        reason: 'the environment was made with other secrets alone (spec.secrets)'
      })
      continue
    }
    const mount = deliveryOf(secret, chosen)
    const problem = problemOf(secret, mount, places)
    const { credential_proxy, secret_uid, secret_name, value_version } = secret
    secrets.push({
      id: secret_uid,
      name: secret_name,
      origin,
      session: String(value_version),
      mount,
      ...(credential_proxy && { credentialProxy: credential_proxy }),
      ...(problem !== undefined && { problem })
    })
    if (problem === undefined) {
      const place = placeOf(mount)
      if (place) places.set(place, secret_name)
      readable.push(secret.secret_id)
    }
    explain(problem === undefined ? { result: 'wins' } : { result: 'withheld', reason: problem })
  }
  return { secrets, readable, explanations }
}

function problemOf(
  { secret_name, credential_proxy }: CandidateSecret,
  mount: Delivery,
  places: ReadonlyMap<string, string>
): string | undefined {
  if (mount.kind === 'variable' && isReservedVariable(secret_name)) {
    return 'the name is reserved, as a variable’s'
  }
  if (credential_proxy) return 'it is for a credential proxy, and none runs here'
  const taken = places.get(placeOf(mount) ?? '')
  return taken === undefined ? undefined : `the secret ${taken} has that place already`
}
