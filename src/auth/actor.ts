import type { Principal } from '../store/audit.ts'
import type { Sight } from '../store/repositories.ts'
import type {
  AccountKind,
  EnvironmentTokenPurpose,
  Permissions,
  RepositoryRole,
  TokenKind
} from '../store/tables.ts'
import type { TokenNeeds, TokenRow } from '../store/tokens.ts'
import { commonPermissions, isScope, normalized, type Scope, withImplied } from './scopes.ts'
import { type Bearer, TOKEN_KINDS } from './token-kinds.ts'

/** Who asks: the account of a token, or whoever else acts for itself, with what the token allows. */
export interface Actor {
  /** what roles are asked for by: the id of an account or of who is none; no number is two of them */
  accountId: number
  accountUid: string
  kind: AccountKind | Exclude<Bearer, 'user'>
  login: string
  siteAdmin: boolean
  token: {
    id: number
    kind: TokenKind
    /** classic: with all that they imply */
    scopes: ReadonlySet<Scope>
    /** the same for people: sorted, without those that another one implies */
    scopeNames: string
    /** fine-grained and installation: name → level */
    permissions: Readonly<Permissions>
    /** fine-grained and installation: the repositories that it reaches; null: all that its bearer reaches */
    repositoryIds: ReadonlySet<number> | null
    /** nothing is changed with it */
    readOnly: boolean
    /** of an environment's alone: what it is for */
    purpose: EnvironmentTokenPurpose | null
    issuedByUid: string | null
    expiresAt: Date | null
    /** the same as GitHub's header shows it */
    expiration: string | undefined
  }
}

export function actorOf(row: TokenRow): Actor {
  const { limitedBy } = TOKEN_KINDS[row.token_kind]
  return {
    ...bearerOf(row),
    token: {
      id: row.token_id,
      kind: row.token_kind,
      scopes: withImplied(row.scopes),
      scopeNames: normalized(row.scopes.filter(isScope)).join(', '),
      permissions: row.installation
        ? commonPermissions(row.permissions, row.installation.permissions)
        : row.permissions,
      repositoryIds:
        limitedBy === 'permissions' && !row.all_repositories ? new Set(row.repository_ids) : null,
      readOnly: row.read_only,
      purpose: row.purpose,
      issuedByUid: row.issued_by_uid,
      expiresAt: row.expires_at,
      expiration: row.expires_at
        ? `${row.expires_at.toISOString().slice(0, 19).replace('T', ' ')} UTC`
        : undefined
    }
  }
}

/** Who is no account acts for itself, and has no part in what its account is, has and may elsewhere. */
function bearerOf(row: TokenRow): Omit<Actor, 'token'> {
  const { installation, machine } = row
  if (machine) {
    const { id, uid, name } = machine
    const { bearer } = TOKEN_KINDS[row.token_kind]
    return {
      accountId: id,
      accountUid: uid,
      kind: bearer as Exclude<Bearer, 'user'>,
      login: name,
      siteAdmin: false
    }
  }
  if (installation) {
    const { id, uid, slug } = installation
    return { accountId: id, accountUid: uid, kind: 'installation', login: `${slug}[bot]`, siteAdmin: false }
  }
  return {
    accountId: row.account_id,
    accountUid: row.account_uid,
    kind: row.account_kind,
    login: row.login,
    siteAdmin: row.site_admin
  }
}

const NO_NEEDS: TokenNeeds = { permission: null, repositoryId: null }

/** @param needs what an installation must still allow when a write commits, besides being there */
export function principalOf(actor: Actor, requestId: string | null, needs = NO_NEEDS): Principal {
  const { bearer } = TOKEN_KINDS[actor.token.kind]
  return {
    kind: bearer,
    uid: actor.accountUid,
    login: actor.login,
    tokenId: actor.token.id,
    ...(bearer === 'installation' && { needs }),
    issuedByUid: actor.token.issuedByUid,
    requestId
  }
}

/** Whether the token reaches private repositories of this id at all; the account needs a role besides. */
export function reachesPrivate(actor: Actor, repositoryId: number): boolean {
  const { kind, scopes, repositoryIds } = actor.token
  if (kind === 'classic') return scopes.has('repo')
  return repositoryIds === null || repositoryIds.has(repositoryId)
}

/** Whether the token's permissions count on a repository that its bearer sees. */
export function reaches(
  actor: Actor,
  facts: { repository_id: number; role: RepositoryRole | null }
): boolean {
  const { reachesPublic } = TOKEN_KINDS[actor.token.kind]
  return (reachesPublic || facts.role !== null) && reachesPrivate(actor, facts.repository_id)
}

/** How far the actor sees, as a condition for queries. */
export function sightOf(actor: Actor): Sight {
  const { kind, scopes, repositoryIds } = actor.token
  const privateAmong =
    kind === 'classic' ? (scopes.has('repo') ? null : []) : repositoryIds === null ? null : [...repositoryIds]
  return { actorId: actor.accountId, privateAmong }
}

/** The same without what is seen only because it is public, where the token's permissions do not count on that. */
export function reachOf(actor: Actor): Sight {
  return { ...sightOf(actor), withRole: !TOKEN_KINDS[actor.token.kind].reachesPublic }
}
