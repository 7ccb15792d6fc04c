import { type Kysely, sql, type Transaction } from 'kysely'
import { statement } from './statement.ts'
import type { AccountKind, Database, RepositoryRole } from './tables.ts'

/** What access to a repository depends on, and what its JSON shows. `role` is the actor's; null: none. */
export interface RepositoryFacts {
  repository_id: number
  repository_uid: string
  name: string
  private: boolean
  description: string | null
  default_branch: string
  /** text, UTC, without zone */
  repository_created_at: string
  repository_updated_at: string
  owner_id: number
  owner_uid: string
  owner_login: string
  owner_kind: AccountKind
  role: RepositoryRole | null
}

/** Names a repository as a path does: by owner and name, or by number. */
export type RepositoryLocator = { owner: string; repo: string } | { repositoryId: number }

/** A column of type timestamptz as UTC text, whatever the session's time zone. */
export function utc(column: string) {
  return sql<string>`${sql.ref(column)} at time zone 'UTC'`
}

/**
 * Repositories with their owner and the role that an actor has there: an account, or an installation on the account
 * that owns them.
 */
export function repositoriesSeenBy(db: Kysely<Database>, actorId: number) {
  return db
    .selectFrom('repositories as r')
    .innerJoin('accounts as o', 'o.id', 'r.owner_id')
    .leftJoin('collaborators as c', (join) =>
      join.onRef('c.repository_id', '=', 'r.id').on('c.account_id', '=', actorId)
    )
    .leftJoin('memberships as m', (join) =>
      join.onRef('m.organization_id', '=', 'o.id').on('m.account_id', '=', actorId)
    )
    .leftJoin('installations as n', (join) =>
      join.onRef('n.account_id', '=', 'o.id').on('n.id', '=', actorId).on('n.suspended_at', 'is', null)
    )
}

/**
 * Members of an organization read. An installation has every role on the repositories that were given to it: what it
 * may do there is for its permissions to say.
 */
export function roleOf(actorId: number) {
  return sql<RepositoryRole | null>`case
    when ${sql.ref('o.id')} = ${actorId} or ${sql.ref('m.role')} = 'admin' then 'admin'
    when ${sql.ref('c.role')} is not null then ${sql.ref('c.role')}
    when ${sql.ref('m.role')} = 'member' then 'read'
    when ${sql.ref('n.id')} is not null and (${sql.ref('n.all_repositories')} or exists (
      select 1 from installation_repositories x
      where x.installation_id = ${sql.ref('n.id')} and x.repository_id = ${sql.ref('r.id')})) then 'admin'
  end`
}

export function repositoryFacts(actorId: number) {
  return [
    'r.id as repository_id',
    'r.uid as repository_uid',
    'r.name',
    'r.private',
    'r.description',
    'r.default_branch',
    utc('r.created_at').as('repository_created_at'),
    utc('r.updated_at').as('repository_updated_at'),
    'o.id as owner_id',
    'o.uid as owner_uid',
    'o.login as owner_login',
    'o.kind as owner_kind',
    roleOf(actorId).as('role')
  ] as const
}

type FactsBuilder = ReturnType<typeof repositoriesSeenBy>

export function locatedByName(query: FactsBuilder, owner: string, repo: string): FactsBuilder {
  return query
    .where('o.login_key', '=', sql<string>`lower(${owner}::text collate "C")`)
    .where('r.name_key', '=', sql<string>`lower(${repo}::text collate "C")`)
}

const byName = statement<{ actorId: number; owner: string; repo: string }, RepositoryFacts>(
  (db, { actorId, owner, repo }) =>
    locatedByName(repositoriesSeenBy(db, actorId), owner, repo).select(repositoryFacts(actorId))
)

const byId = statement<{ actorId: number; repositoryId: number }, RepositoryFacts>(
  (db, { actorId, repositoryId }) =>
    repositoriesSeenBy(db, actorId).where('r.id', '=', repositoryId).select(repositoryFacts(actorId))
)

export async function findRepository(
  db: Kysely<Database>,
  actorId: number,
  locator: RepositoryLocator
): Promise<RepositoryFacts | undefined> {
  const [row] =
    'repo' in locator ? await byName(db, { actorId, ...locator }) : await byId(db, { actorId, ...locator })
  return row
}

const redirected = statement<{ actorId: number; owner: string; repo: string }, RepositoryFacts>(
  (db, { actorId, owner, repo }) =>
    repositoriesSeenBy(db, actorId)
      .innerJoin('repository_redirects as old', 'old.repository_id', 'r.id')
      .innerJoin('accounts as old_owner', 'old_owner.id', 'old.owner_id')
      .where('old_owner.login_key', '=', sql<string>`lower(${owner}::text collate "C")`)
      .where('old.name_key', '=', sql<string>`lower(${repo}::text collate "C")`)
      .select(repositoryFacts(actorId))
)

/** The repository that had this name before it was renamed. */
export async function findRenamedRepository(
  db: Kysely<Database>,
  actorId: number,
  owner: string,
  repo: string
): Promise<RepositoryFacts | undefined> {
  const [row] = await redirected(db, { actorId, owner, repo })
  return row
}

/** How far an actor sees with a token: public repositories, and of the private ones with a role those among. */
export interface Sight {
  actorId: number
  /** null: all */
  privateAmong: readonly number[] | null
  /** of public ones, too, only those with a role and among */
  withRole?: boolean
}

/** The condition of `Sight` on a query of `repositoriesSeenBy`. */
export function isVisible({ actorId, privateAmong, withRole = false }: Sight) {
  return sql<boolean>`((not ${sql.ref('r.private')} and not ${withRole}::boolean) or (${roleOf(actorId)} is not null
    and (${privateAmong}::bigint[] is null or ${sql.ref('r.id')} = any(${privateAmong}::bigint[]))))`
}

export interface RepositoryFilter {
  /** undefined: wherever the actor has a role */
  ownerId?: number
  visibility?: 'public' | 'private'
  /** by id, ascending, when absent and between equals */
  order?: { by: 'name_key' | 'created_at' | 'updated_at'; descending: boolean } | undefined
  limit: number
  offset: number
}

/** Visible repositories in order, with the full count. */
export async function listRepositories(
  db: Kysely<Database>,
  sight: Sight,
  filter: RepositoryFilter
): Promise<{ total: number; repositories: RepositoryFacts[] }> {
  const { actorId } = sight
  const { ownerId, visibility } = filter
  let query = repositoriesSeenBy(db, actorId).where(isVisible(sight))
  query =
    ownerId === undefined
      ? query.where(roleOf(actorId), 'is not', null)
      : query.where('r.owner_id', '=', ownerId)
  if (visibility) query = query.where('r.private', '=', visibility === 'private')
  const { total } = await query.select((eb) => eb.fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
  const { order } = filter
  const ordered = order ? query.orderBy(`r.${order.by}`, order.descending ? 'desc' : 'asc') : query
  const repositories = await ordered
    .select(repositoryFacts(actorId))
    .orderBy('r.id')
    .limit(filter.limit)
    .offset(filter.offset)
    .execute()
  return { total, repositories }
}

/** Refuses with unique violation `repositories_owner_id_name_key_key` when the owner has one of that name. */
export async function insertRepository(
  tx: Transaction<Database>,
  values: {
    owner_id: number
    name: string
    private: boolean
    description: string | null
    default_branch?: string
  }
): Promise<{ id: number; uid: string }> {
  const { default_branch = 'main', ...rest } = values
  return await tx
    .insertInto('repositories')
    .values({ ...rest, default_branch })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
}

export async function updateRepository(
  tx: Transaction<Database>,
  repositoryId: number,
  change: { name?: string; private?: boolean; description?: string | null; default_branch?: string }
): Promise<void> {
  await tx
    .updateTable('repositories')
    .set({ ...change, updated_at: sql<Date>`now()` })
    .where('id', '=', repositoryId)
    .execute()
}

/** Makes the name that a repository leaves lead to it. */
export async function insertRedirect(
  tx: Transaction<Database>,
  ownerId: number,
  oldName: string,
  repositoryId: number
): Promise<void> {
  await tx
    .insertInto('repository_redirects')
    .values({
      owner_id: ownerId,
      name_key: sql<string>`lower(${oldName}::text collate "C")`,
      repository_id: repositoryId
    })
    .onConflict((oc) => oc.columns(['owner_id', 'name_key']).doUpdateSet({ repository_id: repositoryId }))
    .execute()
}

/** A name that is taken again leads nowhere else. */
export async function deleteRedirect(
  tx: Transaction<Database>,
  ownerId: number,
  name: string
): Promise<void> {
  await tx
    .deleteFrom('repository_redirects')
    .where('owner_id', '=', ownerId)
    .where('name_key', '=', sql<string>`lower(${name}::text collate "C")`)
    .execute()
}

const lock = statement<{ repositoryUid: string }, { id: number }>((db, { repositoryUid }) =>
  db.selectFrom('repositories').select('id').where('uid', '=', repositoryUid).forNoKeyUpdate()
)

/** Locks the row, so that nothing is added to what the repository owns; false when it is gone. */
export async function lockRepository(tx: Transaction<Database>, repositoryUid: string): Promise<boolean> {
  return (await lock(tx, { repositoryUid })).length > 0
}

export async function findRepositoryUid(
  db: Kysely<Database>,
  repositoryId: number
): Promise<string | undefined> {
  const row = await db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirst()
  return row?.uid
}

export async function deleteRepository(tx: Transaction<Database>, repositoryId: number): Promise<void> {
  await tx.deleteFrom('repositories').where('id', '=', repositoryId).execute()
}

export async function listOwnedRepositoryUids(
  tx: Transaction<Database>,
  ownerId: number
): Promise<{ id: number; uid: string; name: string }[]> {
  return await tx
    .selectFrom('repositories')
    .select(['id', 'uid', 'name'])
    .where('owner_id', '=', ownerId)
    .orderBy('id')
    .forUpdate()
    .execute()
}

/** Those of the ids that are visible; of one owner, when given. */
export async function listVisibleIds(
  db: Kysely<Database>,
  sight: Sight,
  ids: readonly number[],
  ownerUid?: string
): Promise<number[]> {
  let query = repositoriesSeenBy(db, sight.actorId)
    .select('r.id')
    .where('r.id', '=', sql<number>`any(${ids}::bigint[])`)
    .where(isVisible(sight))
  if (ownerUid !== undefined) query = query.where('o.uid', '=', ownerUid)
  const rows = await query.execute()
  return rows.map(({ id }) => id)
}

/** Every repository of every owner, by id: for the operator alone. */
export async function listAllRepositories(
  db: Kysely<Database>
): Promise<{ id: number; owner: string; name: string; private: boolean }[]> {
  return await db
    .selectFrom('repositories as r')
    .innerJoin('accounts as o', 'o.id', 'r.owner_id')
    .select(['r.id', 'o.login as owner', 'r.name', 'r.private'])
    .orderBy('r.id')
    .execute()
}
