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

/** Writes only what differs, since most of a long selection tends to stay. */
export async function replaceSelection(
  tx: Transaction<Database>,
  secretId: number,
  repositoryIds: readonly number[]
): Promise<void> {
  await tx
    .deleteFrom('secret_repositories')
    .where('secret_id', '=', secretId)
    .where('repository_id', '!=', sql<number>`all(${repositoryIds}::bigint[])`)
    .execute()
  if (repositoryIds.length > 0) await addToSelection(tx, secretId, repositoryIds)
}

export async function addToSelection(
  tx: Transaction<Database>,
  secretId: number,
  repositoryIds: readonly number[]
): Promise<void> {
  await sql`insert into secret_repositories (secret_id, repository_id)
    select ${secretId}::bigint, r.id from repositories r
    where r.id = any(${repositoryIds}::bigint[]) and not exists (
      select 1 from secret_repositories sr where sr.secret_id = ${secretId}::bigint and sr.repository_id = r.id)
    for key share of r
    on conflict do nothing`.execute(tx)
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
