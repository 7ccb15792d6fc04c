import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import { statement } from './statement.ts'
import type { AccountKind, Database, EnvironmentTokenPurpose, Permissions, TokenKind } from './tables.ts'

/** A token that is valid now, with its account. */
export interface TokenRow {
  token_id: number
  token_kind: TokenKind
  scopes: string[]
  permissions: Permissions
  all_repositories: boolean
  repository_ids: number[]
  /** whose token it is, as it is now; null: the account's own */
  installation: {
    id: number
    uid: string
    slug: string
    permissions: Permissions
    suspended: boolean
  } | null
  /** the service account, environment or runner that it acts for; null: the account or the installation */
  machine: { id: number; uid: string; name: string } | null
  read_only: boolean
  /** of an environment's alone */
  purpose: EnvironmentTokenPurpose | null
  issued_by_uid: string | null
  expires_at: Date | null
  used_lately: boolean
  account_id: number
  account_uid: string
  account_kind: AccountKind
  login: string
  site_admin: boolean
}

const MACHINE = sql<TokenRow['machine']>`case
  when s.id is not null then json_build_object('id', s.id, 'uid', s.uid, 'name', s.name)
  when v.id is not null then json_build_object('id', v.id, 'uid', v.uid, 'name', v.uid)
  when r.id is not null then json_build_object('id', r.id, 'uid', r.uid, 'name', r.name) end`

/** How coarse `last_used_at` is. */
const LAST_USED_STEP = sql`interval '1 hour'`

export const findValidToken = statement<{ hash: Buffer }, TokenRow>((db, { hash }) =>
  db
    .selectFrom('tokens as t')
    .innerJoin('accounts as a', 'a.id', 't.account_id')
    .innerJoin('instance as i', 'i.epoch', 't.epoch')
    .leftJoin('installations as n', 'n.id', 't.installation_id')
    .leftJoin('integrations as g', 'g.id', 'n.integration_id')
    .leftJoin('service_accounts as s', 's.id', 't.service_account_id')
    .leftJoin('environments as v', 'v.id', 't.environment_id')
    .leftJoin('runners as r', 'r.id', 't.runner_id')
    .select([
      't.id as token_id',
      't.kind as token_kind',
      't.scopes',
      't.permissions',
      't.all_repositories',
      sql<
        TokenRow['installation']
      >`case when n.id is not null then json_build_object('id', n.id, 'uid', n.uid,
        'slug', g.slug, 'permissions', n.permissions, 'suspended', n.suspended_at is not null) end`.as(
        'installation'
      ),
      sql<number[]>`array(select repository_id from token_repositories where token_id = t.id)`.as(
        'repository_ids'
      ),
      MACHINE.as('machine'),
      't.read_only',
      't.purpose',
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

/** What a write needs of the installation that it is made for; a token of an account needs none of it. */
export interface TokenNeeds {
  /** null: none */
  permission: { name: string; level: 'read' | 'write' } | null
  /** the repository that the write is about; null: none */
  repositoryId: number | null
}

/** The same as parameters of a statement. */
export interface TokenCheck {
  token_id: number
  needed_permission: string | null
  needed_level: string | null
  needed_repository_id: number | null
}

export function tokenCheckOf(tokenId: number, needs: TokenNeeds | undefined): TokenCheck {
  return {
    token_id: tokenId,
    needed_permission: needs?.permission?.name ?? null,
    needed_level: needs?.permission?.level ?? null,
    needed_repository_id: needs?.repositoryId ?? null
  }
}

/** Whether the installation `n` allows, as it is now, what is needed. */
function installationAllows(check: TokenCheck) {
  return sql<boolean>`(n.suspended_at is null
    and (${check.needed_permission}::text is null
      or n.permissions ->> ${check.needed_permission}::text in ('write', ${check.needed_level}::text))
    and (${check.needed_repository_id}::bigint is null or n.all_repositories
      or exists (select 1 from installation_repositories x
        where x.installation_id = n.id and x.repository_id = ${check.needed_repository_id}::bigint)))`
}

/**
 * Whether the token is still valid, as part of another statement: revoked, expired, void after a restore, or its
 * installation changed so that it no longer allows this?
 */
export function tokenIsValid(check: TokenCheck) {
  return sql<boolean>`exists (
    select 1 from tokens t join instance i on i.epoch = t.epoch
    where t.id = ${check.token_id}::bigint and (t.expires_at is null or t.expires_at > now())
      and (t.installation_id is null or exists (
        select 1 from installations n where n.id = t.installation_id and ${installationAllows(check)})))`
}

/**
 * Locks a token that is valid against being revoked before this transaction ends; false when it is not valid.
 *
 * @param needs for an installation, which is locked too, and first, as by who removes it
 * @param alone for a transaction that may revoke the token itself: two that share it would wait for each other
 */
export async function holdToken(
  tx: Transaction<Database>,
  tokenId: number,
  needs?: TokenNeeds,
  alone = false
): Promise<boolean> {
  if (needs && !(await holdInstallation(tx, tokenCheckOf(tokenId, needs)))) return false
  const valid = tx
    .selectFrom('tokens as t')
    .innerJoin('instance as i', 'i.epoch', 't.epoch')
    .select('t.id')
    .where('t.id', '=', tokenId)
    .where((eb) => eb.or([eb('t.expires_at', 'is', null), eb('t.expires_at', '>', sql<Date>`now()`)]))
  const row = await (alone ? valid.forUpdate('t') : valid.forShare('t')).executeTakeFirst()
  return row !== undefined
}

const there = statement<{ tokenId: number }, { id: number }>((db, { tokenId }) =>
  db
    .selectFrom('tokens as t')
    .innerJoin('instance as i', 'i.epoch', 't.epoch')
    .select('t.id')
    .where('t.id', '=', tokenId)
    .where((eb) => eb.or([eb('t.expires_at', 'is', null), eb('t.expires_at', '>', sql<Date>`now()`)]))
)

/** Whether a token that was valid a moment ago still is. */
export async function isTokenThere(db: Kysely<Database>, tokenId: number): Promise<boolean> {
  return (await there(db, { tokenId })).length > 0
}

async function holdInstallation(tx: Transaction<Database>, check: TokenCheck): Promise<boolean> {
  const row = await tx
    .selectFrom('installations as n')
    .select(installationAllows(check).as('allows'))
    .where('n.id', '=', (eb) =>
      eb.selectFrom('tokens').select('installation_id').where('id', '=', check.token_id)
    )
    .forShare('n')
    .executeTakeFirst()
  return row?.allows ?? false
}

export async function touchToken(db: Kysely<Database>, tokenId: number): Promise<void> {
  await db.updateTable('tokens').set({ last_used_at: sql<Date>`now()` }).where('id', '=', tokenId).execute()
}

export interface NewToken {
  hash: Buffer
  kind: Exclude<TokenKind, 'environment'>
  accountId: number
  scopes?: readonly string[]
  permissions?: Permissions
  allRepositories?: boolean
  repositoryIds?: readonly number[]
  installationId?: number
  serviceAccountId?: number
  runnerId?: number
  /** where it acts on Ona's API */
  organizationId?: number | null
  readOnly?: boolean
  note?: string | null
  lastEight: string
  issuedByUid?: string | null
  /** null: never */
  lifetimeSeconds: number | null
  /** it ends then at the latest */
  notAfter?: Date | null
}

export async function insertToken(
  tx: Transaction<Database>,
  token: NewToken
): Promise<{ id: number; uid: string; created_at: Date; expires_at: Date | null }> {
  const row = await tx
    .insertInto('tokens')
    .values({
      hash: token.hash,
      kind: token.kind,
      account_id: token.accountId,
      scopes: [...(token.scopes ?? [])],
      permissions: JSON.stringify(token.permissions ?? {}),
      all_repositories: token.allRepositories ?? false,
      installation_id: token.installationId ?? null,
      service_account_id: token.serviceAccountId ?? null,
      runner_id: token.runnerId ?? null,
      organization_id: token.organizationId ?? null,
      read_only: token.readOnly ?? false,
      note: token.note ?? null,
      last_eight: token.lastEight,
      issued_by_uid: token.issuedByUid ?? null,
      epoch: sql<number>`(select epoch from instance)`,
      expires_at:
        token.lifetimeSeconds === null
          ? null
          : sql<Date>`least(now() + make_interval(secs => ${token.lifetimeSeconds}::double precision),
              ${token.notAfter ?? null}::timestamptz)`
    })
    .returning(['id', 'uid', 'created_at', 'expires_at'])
    .executeTakeFirstOrThrow()
  if (token.repositoryIds?.length) {
    await tx
      .insertInto('token_repositories')
      .values(token.repositoryIds.map((id) => ({ token_id: row.id, repository_id: id })))
      .execute()
  }
  return row
}

/** A token that was deleted: whose it was, and its hash, for the caches. */
export interface RevokedToken {
  id: number
  hash: Buffer
  account_uid: string
  login: string
  /** the service account, environment or runner that it acted for; null: the account */
  machine: { uid: string; name: string } | null
}

/** Whose tokens: an account's own, those that act in an organization, or those of a service account. */
export type TokensOf =
  | { accountId: number }
  | { organizationId: number; bearers: 'accounts' | 'machines' | 'all' }
  | { serviceAccountId: number }

/** What an account itself acts with: what acts for others on it has its `account_id` too. */
const OWN_KINDS = sql`('classic', 'fine-grained')`
const WHOSE = {
  accounts: sql`and t.kind in ${OWN_KINDS}`,
  machines: sql`and t.kind in ('environment', 'runner')`,
  all: sql``
}

function isOf(tokens: TokensOf) {
  if ('accountId' in tokens) {
    return sql<boolean>`(t.account_id = ${tokens.accountId}::bigint and t.kind in ${OWN_KINDS})`
  }
  if ('serviceAccountId' in tokens) {
    return sql<boolean>`t.service_account_id = ${tokens.serviceAccountId}::bigint`
  }
  const { organizationId, bearers } = tokens
  return sql<boolean>`(t.organization_id = ${organizationId}::bigint ${WHOSE[bearers]})`
}

/**
 * Deletes tokens, locked in order of id. One of them may be making another one, which is there when its lock is
 * given up: so none is left only when none is found.
 */
export async function deleteTokens(tx: Transaction<Database>, tokens: TokensOf): Promise<RevokedToken[]> {
  const deleted: RevokedToken[] = []
  for (;;) {
    const { rows } = await sql<RevokedToken>`
      with revoked as (
        select t.id, t.hash, a.uid as account_uid, a.login, ${MACHINE} as machine
        from tokens t join accounts a on a.id = t.account_id
          left join service_accounts s on s.id = t.service_account_id
          left join environments v on v.id = t.environment_id
          left join runners r on r.id = t.runner_id
        where ${isOf(tokens)} order by t.id for update of t)
      delete from tokens d using revoked where d.id = revoked.id returning revoked.*`.execute(tx)
    if (rows.length === 0) return deleted
    deleted.push(...rows)
  }
}

/** All tokens of a runner; gives the hashes, for the caches. */
export async function deleteTokensOfRunner(tx: Transaction<Database>, runnerId: number): Promise<Buffer[]> {
  const rows = await tx.deleteFrom('tokens').where('runner_id', '=', runnerId).returning('hash').execute()
  return rows.map(({ hash }) => hash)
}

/** Of the tokens of installations that are still valid: what caches may hold. */
export async function listTokenHashes(
  tx: Transaction<Database>,
  installationIds: readonly number[]
): Promise<Buffer[]> {
  const rows = await tx
    .selectFrom('tokens')
    .select('hash')
    .where('installation_id', '=', sql<number>`any(${installationIds}::bigint[])`)
    .where('expires_at', '>', sql<Date>`now()`)
    .execute()
  return rows.map(({ hash }) => hash)
}

/**
 * All tokens of environments, for who removes these, and before they are locked: who acts with one holds it first.
 * Gives the hashes, for the caches.
 *
 * @param environments a condition on `e`
 */
export async function deleteTokensOfEnvironments(
  tx: Transaction<Database>,
  environments: RawBuilder<boolean>
): Promise<Buffer[]> {
  const { rows } = await sql<{ hash: Buffer }>`
    with ended as (
      select t.id from tokens t join environments e on e.id = t.environment_id
      where ${environments} order by t.id for update of t)
    delete from tokens d using ended where d.id = ended.id returning d.hash`.execute(tx)
  return rows.map(({ hash }) => hash)
}

/** Some of the tokens of a bearer that nothing can be done with any more, so that they do not pile up. */
export async function deleteExpiredTokens(
  tx: Transaction<Database>,
  bearer: { installationId: number } | { serviceAccountId: number } | { runnerId: number },
  atMost: number
): Promise<void> {
  const [column, id] =
    'installationId' in bearer
      ? ['installation_id', bearer.installationId]
      : 'runnerId' in bearer
        ? ['runner_id', bearer.runnerId]
        : ['service_account_id', bearer.serviceAccountId]
  await sql`delete from tokens where id in (
    select id from tokens where ${sql.ref(column)} = ${id}::bigint and expires_at < now()
    order by expires_at limit ${atMost}::bigint for update skip locked)`.execute(tx)
}

export async function deleteToken(tx: Transaction<Database>, tokenId: number): Promise<Buffer | undefined> {
  const row = await tx.deleteFrom('tokens').where('id', '=', tokenId).returning('hash').executeTakeFirst()
  return row?.hash
}

/** A token as it is shown to its bearer. */
export interface TokenDescription {
  id: number
  uid: string
  note: string | null
  read_only: boolean
  issued_by_uid: string | null
  created_at: Date
  expires_at: Date | null
  last_used_at: Date | null
}

function describedTokens(db: Kysely<Database>, tokens: TokensOf) {
  return db
    .selectFrom('tokens as t')
    .innerJoin('instance as i', 'i.epoch', 't.epoch')
    .select([
      't.id',
      't.uid',
      't.note',
      't.read_only',
      't.issued_by_uid',
      't.created_at',
      't.expires_at',
      't.last_used_at'
    ])
    .where(isOf(tokens))
}

/** Tokens by id, behind one. */
export async function listTokens(
  db: Kysely<Database>,
  tokens: TokensOf,
  page: { after: number; limit: number }
): Promise<TokenDescription[]> {
  return await describedTokens(db, tokens)
    .where('t.id', '>', page.after)
    .orderBy('t.id')
    .limit(page.limit)
    .execute()
}

export async function findToken(
  db: Kysely<Database>,
  tokens: TokensOf,
  tokenUid: string
): Promise<TokenDescription | undefined> {
  return await describedTokens(db, tokens).where('t.uid', '=', tokenUid).executeTakeFirst()
}
