import { type Kysely, sql, type Transaction } from 'kysely'
import { isScope, normalized, SCOPES } from '../auth/scopes.ts'
import { hashToken, lastEight, makeToken } from '../auth/token.ts'
import { InvalidInput } from '../errors.ts'
import type { Account } from '../store/accounts.ts'
import { hasAuditEvent, insertAuditEvents, type Principal } from '../store/audit.ts'
import type { Database, Permissions } from '../store/tables.ts'
import { deleteTokens, insertToken, type RevokedToken, type TokensOf } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'
import { requirePermissions } from './permissions.ts'

/** Tells every node which tokens were revoked: hashes as base64, separated by commas. */
export const TOKENS_CHANNEL = 'coffer_tokens'
const HASHES_PER_NOTIFICATION = 100

const DAY_SECONDS = 86_400
const HOUR_SECONDS = 3_600

export interface TokenLifetimes {
  defaultDays: number
  maxDays: number
}

export interface TokenRequest {
  /** classic */
  scopes?: readonly string[]
  /** fine-grained, when given: name → level */
  permissions?: Readonly<Record<string, string>>
  repositoryIds?: readonly number[]
  allRepositories?: boolean
  note?: string | null
  expiresInDays?: number
}

export interface IssuedToken {
  id: number
  /** shown once, stored nowhere */
  token: string
  kind: 'classic' | 'fine-grained'
  scopes: string[]
  permissions: Permissions
  note: string | null
  lastEight: string
  createdAt: Date
  expiresAt: Date | null
}

function invalid(field: string, message: string): InvalidInput {
  return new InvalidInput('Validation Failed', [{ field, code: 'invalid', message }])
}

function requireScopes(scopes: readonly string[]): string[] {
  if (!scopes.every(isScope)) throw invalid('scopes', `scopes may only contain ${SCOPES.join(', ')}`)
  return normalized(scopes.filter(isScope))
}

/**
 * Makes a token for an account. One that an administrator makes for somebody else records who did, lives an
 * hour unless the account never had a token or a lifetime is asked for, and is audited in both streams.
 */
export async function issueToken(
  db: Kysely<Database>,
  principal: Principal,
  account: Pick<Account, 'id' | 'uid' | 'login'>,
  request: TokenRequest,
  lifetimes: TokenLifetimes
): Promise<IssuedToken> {
  const kind = request.permissions ? 'fine-grained' : 'classic'
  const scopes = requireScopes(request.scopes ?? [])
  const permissions = requirePermissions(request.permissions ?? {})
  const { expiresInDays } = request
  if (expiresInDays !== undefined && !(expiresInDays >= 1 && expiresInDays <= lifetimes.maxDays)) {
    throw invalid(
      'expires',
      `expires is a number of days from 1 to ${lifetimes.maxDays}, the limit that COFFER_TOKEN_MAX_DAYS sets`
    )
  }
  const token = makeToken(kind)
  const forSomebodyElse = principal.kind === 'user' && principal.uid !== account.uid
  return await inTheNameOf(db, principal, async (tx) => {
    const short = forSomebodyElse && (await hasAuditEvent(tx, account.uid, 'token.create'))
    const lifetimeSeconds =
      expiresInDays !== undefined
        ? expiresInDays * DAY_SECONDS
        : short
          ? HOUR_SECONDS
          : lifetimes.defaultDays * DAY_SECONDS
    const row = await insertToken(tx, {
      hash: hashToken(token),
      kind,
      accountId: account.id,
      scopes,
      permissions,
      allRepositories: request.allRepositories ?? false,
      repositoryIds: [...new Set(request.repositoryIds ?? [])],
      note: request.note ?? null,
      lastEight: lastEight(token),
      issuedByUid: forSomebodyElse ? principal.uid : null,
      lifetimeSeconds
    })
    await insertAuditEvents(tx, tokenEvents(principal, account, 'token.create', row.id))
    return {
      id: row.id,
      token,
      kind,
      scopes,
      permissions,
      note: request.note ?? null,
      lastEight: lastEight(token),
      createdAt: row.created_at,
      expiresAt: row.expires_at
    }
  })
}

/**
 * The token of the first administrator, with every scope: the operator's own, which does not end, or a new one.
 *
 * @returns what was made, undefined when it was given
 */
export async function storeFirstToken(
  tx: Transaction<Database>,
  principal: Principal,
  account: Account,
  given: string | undefined,
  defaultDays: number
): Promise<{ token: string; expiresAt: Date | null } | undefined> {
  const token = given ?? makeToken('classic')
  const row = await insertToken(tx, {
    hash: hashToken(token),
    kind: 'classic',
    accountId: account.id,
    scopes: normalized(SCOPES),
    note: 'first administrator',
    lastEight: lastEight(token),
    lifetimeSeconds: given === undefined ? defaultDays * DAY_SECONDS : null
  })
  await insertAuditEvents(tx, tokenEvents(principal, account, 'token.create', row.id))
  return given === undefined ? { token, expiresAt: row.expires_at } : undefined
}

/**
 * Revokes every token of an account itself, on every node within a second; those of installations on it are the
 * App's, those of service accounts, environments and runners theirs. Gives their hashes, as caches hold them.
 */
export async function revokeAll(
  tx: Transaction<Database>,
  principal: Principal,
  account: Pick<Account, 'id'>
): Promise<string[]> {
  return await revokeTokens(tx, principal, { accountId: account.id })
}

/** The same for others, each recorded. */
export async function revokeTokens(
  tx: Transaction<Database>,
  principal: Principal,
  tokens: TokensOf
): Promise<string[]> {
  const revoked = await deleteTokens(tx, tokens)
  const events = revoked.flatMap((token) => tokenEvents(principal, bearerOf(token), 'token.revoke', token.id))
  await insertAuditEvents(tx, events)
  return await forgetTokens(
    tx,
    revoked.map(({ hash }) => hash)
  )
}

function bearerOf({ account_uid, login, machine }: RevokedToken): TokenBearer {
  return machine
    ? { uid: machine.uid, login: machine.name, streamUid: account_uid }
    : { uid: account_uid, login }
}

/** Lets every node forget what it knows of tokens when this commits; gives the hashes as caches hold them. */
export async function forgetTokens(tx: Transaction<Database>, hashes: readonly Buffer[]): Promise<string[]> {
  const keys = hashes.map((hash) => hash.toString('base64'))
  for (let start = 0; start < keys.length; start += HASHES_PER_NOTIFICATION) {
    const payload = keys.slice(start, start + HASHES_PER_NOTIFICATION).join(',')
    await sql`select pg_notify(${TOKENS_CHANNEL}, ${payload})`.execute(tx)
  }
  return keys
}

/** Whom a token acts for. */
export interface TokenBearer {
  uid: string
  login: string
  /** in whose log it is, of a bearer that has none of its own */
  streamUid?: string
}

/** The records of a token that is made or revoked: for its bearer, and for the user who does it. */
export function tokenEvents(
  principal: Principal,
  { uid, login, streamUid = uid }: TokenBearer,
  action: 'token.create' | 'token.revoke',
  tokenId: number
) {
  const event = { principal, action, subjectUid: uid, name: `${login}#${tokenId}` }
  const streams = new Set([streamUid, (principal.kind === 'user' && principal.uid) || streamUid])
  return [...streams].map((streamUid) => ({ ...event, streamUid }))
}
