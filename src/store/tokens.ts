import { type Kysely, sql, type Transaction } from 'kysely'
import { statement } from './statement.ts'
import type { AccountKind, Database, TokenKind } from './tables.ts'

/** A token that is valid now, with its account. */
export interface TokenRow {
  token_id: number
  token_kind: TokenKind
  scopes: string[]
  permissions: Record<string, 'read' | 'write'>
  all_repositories: boolean
  repository_ids: number[]
  issued_by_uid: string | null
  expires_at: Date | null
  used_lately: boolean
  account_id: number
  account_uid: string
  account_kind: AccountKind
  login: string
  site_admin: boolean
}

/** How coarse `last_used_at` is. */
const LAST_USED_STEP = sql`interval '1 hour'`

export const findValidToken = statement<{ hash: Buffer }, TokenRow>((db, { hash }) =>
  db
    .selectFrom('tokens as t')
    .innerJoin('accounts as a', 'a.id', 't.account_id')
    .innerJoin('instance as i', 'i.epoch', 't.epoch')
    .select([
      't.id as token_id',
      't.kind as token_kind',
      't.scopes',
      't.permissions',
      't.all_repositories',
      sql<number[]>`array(select repository_id from token_repositories where token_id = t.id)`.as(
        'repository_ids'
      ),
      't.issued_by_uid',
      't.expires_at',
      sql<boolean>`coalesce(t.last_used_at > now() - ${LAST_USED_STEP}, false)`.as('used_lately'),
      'a.id as account_id',
      'a.uid as account_uid',
      'a.kind as account_kind',
      'a.login',
      'a.site_admin'
    ])
    .where('t.hash', '=', hash)
    .where((eb) => eb.or([eb('t.expires_at', 'is', null), eb('t.expires_at', '>', sql<Date>`now()`)]))
)

/** Whether the token is still valid, as part of another statement: revoked, expired, void after a restore? */
export function tokenIsValid(tokenId: number) {
  return sql<boolean>`exists (
    select 1 from tokens t join instance i on i.epoch = t.epoch
    where t.id = ${tokenId} and (t.expires_at is null or t.expires_at > now()))`
}

/** Locks a token that is valid against being revoked before this transaction ends; false when it is not. */
export async function holdToken(tx: Transaction<Database>, tokenId: number): Promise<boolean> {
  const row = await tx
    .selectFrom('tokens as t')
    .innerJoin('instance as i', 'i.epoch', 't.epoch')
    .select('t.id')
    .where('t.id', '=', tokenId)
    .where((eb) => eb.or([eb('t.expires_at', 'is', null), eb('t.expires_at', '>', sql<Date>`now()`)]))
    .forShare('t')
    .executeTakeFirst()
  return row !== undefined
}

export async function touchToken(db: Kysely<Database>, tokenId: number): Promise<void> {
  await db.updateTable('tokens').set({ last_used_at: sql<Date>`now()` }).where('id', '=', tokenId).execute()
}

export interface NewToken {
  hash: Buffer
  kind: TokenKind
  accountId: number
  scopes?: readonly string[]
  permissions?: Record<string, 'read' | 'write'>
  allRepositories?: boolean
  repositoryIds?: readonly number[]
  note?: string | null
  lastEight: string
  issuedByUid?: string | null
  /** null: never */
  lifetimeSeconds: number | null
}

export async function insertToken(
  tx: Transaction<Database>,
  token: NewToken
): Promise<{ id: number; created_at: Date; expires_at: Date | null }> {
  const row = await tx
    .insertInto('tokens')
    .values({
      hash: token.hash,
      kind: token.kind,
      account_id: token.accountId,
      scopes: [...(token.scopes ?? [])],
      permissions: JSON.stringify(token.permissions ?? {}),
      all_repositories: token.allRepositories ?? false,
      note: token.note ?? null,
      last_eight: token.lastEight,
      issued_by_uid: token.issuedByUid ?? null,
      epoch: sql<number>`(select epoch from instance)`,
      expires_at:
        token.lifetimeSeconds === null
          ? null
          : sql<Date>`now() + make_interval(secs => ${token.lifetimeSeconds}::double precision)`
    })
    .returning(['id', 'created_at', 'expires_at'])
    .executeTakeFirstOrThrow()
  if (token.repositoryIds?.length) {
    await tx
      .insertInto('token_repositories')
      .values(token.repositoryIds.map((id) => ({ token_id: row.id, repository_id: id })))
      .execute()
  }
  return row
}

/** Gives the hashes of what it deleted, for the caches. */
export async function deleteTokensOfAccount(
  tx: Transaction<Database>,
  accountId: number
): Promise<{ id: number; hash: Buffer }[]> {
  return await tx.deleteFrom('tokens').where('account_id', '=', accountId).returning(['id', 'hash']).execute()
}

export async function deleteToken(tx: Transaction<Database>, tokenId: number): Promise<Buffer | undefined> {
  const row = await tx.deleteFrom('tokens').where('id', '=', tokenId).returning('hash').executeTakeFirst()
  return row?.hash
}

export async function listTokens(db: Kysely<Database>, accountId: number) {
  return await db
    .selectFrom('tokens')
    .select([
      'id',
      'kind',
      'scopes',
      'permissions',
      'all_repositories',
      'note',
      'last_eight',
      'issued_by_uid',
      'created_at',
      'expires_at',
      'last_used_at'
    ])
    .where('account_id', '=', accountId)
    .orderBy('id')
    .execute()
}
