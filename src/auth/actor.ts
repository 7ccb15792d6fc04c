import type { Principal } from '../store/audit.ts'
import type { Sight } from '../store/repositories.ts'
import type { AccountKind, TokenKind } from '../store/tables.ts'
import type { TokenRow } from '../store/tokens.ts'
import { isScope, normalized, type Scope, withImplied } from './scopes.ts'

/** Who asks: the account of a token, with what the token allows. */
export interface Actor {
  accountId: number
  accountUid: string
  kind: AccountKind
  login: string
  siteAdmin: boolean
  token: {
    id: number
    kind: TokenKind
    /** classic: with all that they imply */
    scopes: ReadonlySet<Scope>
    /** the same for people: sorted, without those that another one implies */
    scopeNames: string
    /** fine-grained: name → level */
    permissions: Readonly<Record<string, 'read' | 'write'>>
    /** fine-grained: the repositories that it reaches; null: all that the account reaches */
    repositoryIds: ReadonlySet<number> | null
    issuedByUid: string | null
    expiresAt: Date | null
    /** the same as GitHub's header shows it */
    expiration: string | undefined
  }
}

export function actorOf(row: TokenRow): Actor {
  const fineGrained = row.token_kind === 'fine-grained'
  return {
    accountId: row.account_id,
    accountUid: row.account_uid,
    kind: row.account_kind,
    login: row.login,
    siteAdmin: row.site_admin,
    token: {
      id: row.token_id,
      kind: row.token_kind,
      scopes: withImplied(row.scopes),
      scopeNames: normalized(row.scopes.filter(isScope)).join(', '),
      permissions: row.permissions,
      repositoryIds: fineGrained && !row.all_repositories ? new Set(row.repository_ids) : null,
      issuedByUid: row.issued_by_uid,
      expiresAt: row.expires_at,
      expiration: row.expires_at
        ? `${row.expires_at.toISOString().slice(0, 19).replace('T', ' ')} UTC`
        : undefined
    }
  }
}

export function principalOf(actor: Actor, requestId: string | null): Principal {
  return {
    kind: 'user',
    uid: actor.accountUid,
    login: actor.login,
    tokenId: actor.token.id,
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

/** The same as a condition for queries. */
export function sightOf(actor: Actor): Sight {
  const { kind, scopes, repositoryIds } = actor.token
  const privateAmong =
    kind === 'classic' ? (scopes.has('repo') ? null : []) : repositoryIds === null ? null : [...repositoryIds]
  return { actorId: actor.accountId, privateAmong }
}
