import { type Kysely, sql, type Transaction } from 'kysely'
import {
  isVisible,
  type RepositoryFacts,
  repositoriesSeenBy,
  repositoryFacts,
  type Sight
} from './repositories.ts'
import type { Page } from './secrets.ts'
import type { Database } from './tables.ts'

/**
 * Keeps repositories from being deleted before this transaction ends; gives those that there are. In order, and
 * before a selection is touched: so does who deletes them, and neither waits for the other in a circle.
 */
async function holdRepositories(
  tx: Transaction<Database>,
  repositoryIds: readonly number[]
): Promise<number[]> {
  if (repositoryIds.length === 0) return []
  const rows = await tx
    .selectFrom('repositories')
    .select('id')
    .where('id', '=', sql<number>`any(${repositoryIds}::bigint[])`)
    .orderBy('id')
    .forKeyShare()
    .execute()
  return rows.map(({ id }) => id)
}

export async function replaceSelection(
  tx: Transaction<Database>,
  secretId: number,
  repositoryIds: readonly number[]
): Promise<void> {
  const held = await holdRepositories(tx, repositoryIds)
  await tx
    .deleteFrom('secret_repositories')
    .where('secret_id', '=', secretId)
    .where('repository_id', '!=', sql<number>`all(${held}::bigint[])`)
    .execute()
  await insertSelection(tx, secretId, held)
}

export async function addToSelection(
  tx: Transaction<Database>,
  secretId: number,
  repositoryIds: readonly number[]
): Promise<void> {
  await insertSelection(tx, secretId, await holdRepositories(tx, repositoryIds))
}

async function insertSelection(
  tx: Transaction<Database>,
  secretId: number,
  held: readonly number[]
): Promise<void> {
  if (held.length === 0) return
  await sql`insert into secret_repositories (secret_id, repository_id)
    select ${secretId}::bigint, unnest(${held}::bigint[]) on conflict do nothing`.execute(tx)
}

/** False when it was not selected. */
export async function removeFromSelection(
  tx: Transaction<Database>,
  secretId: number,
  repositoryId: number
): Promise<boolean> {
  const { numDeletedRows } = await tx
    .deleteFrom('secret_repositories')
    .where('secret_id', '=', secretId)
    .where('repository_id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}

export async function listSelectedIds(db: Kysely<Database>, secretId: number): Promise<number[]> {
  const rows = await db
    .selectFrom('secret_repositories')
    .select('repository_id')
    .where('secret_id', '=', secretId)
    .execute()
  return rows.map(({ repository_id }) => repository_id)
}

const COUNT = sql<number>`count(*)`.as('total')

/**
 * Selected repositories that are visible, by id, with their full count. Who is known to see all of them is spared
 * asking for each: the count is the index's then, and the page costs the same however many are selected.
 */
export async function listSelection(
  db: Kysely<Database>,
  sight: Sight,
  secretId: number,
  page: Page & { allVisible: boolean }
): Promise<{ total: number; repositories: RepositoryFacts[] }> {
  let selected = repositoriesSeenBy(db, sight.actorId)
    .innerJoin('secret_repositories as sr', 'sr.repository_id', 'r.id')
    .where('sr.secret_id', '=', secretId)
  if (!page.allVisible) selected = selected.where(isVisible(sight))
  const counted = page.allVisible
    ? db.selectFrom('secret_repositories').where('secret_id', '=', secretId).select(COUNT)
    : selected.select(COUNT)
  const { total } = await counted.executeTakeFirstOrThrow()
  const repositories = await selected
    .select(repositoryFacts(sight.actorId))
    .orderBy('sr.repository_id')
    .limit(page.limit)
    .offset(page.offset)
    .execute()
  return { total, repositories }
}
