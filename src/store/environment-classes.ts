import { type Kysely, sql } from 'kysely'
import type { Database } from './tables.ts'

/** The classes of an organization's runners among these, by uid. */
export async function findEnvironmentClasses(
  db: Kysely<Database>,
  organizationId: number,
  uids: readonly string[]
): Promise<Map<string, { id: number; enabled: boolean }>> {
  const rows = await db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .select(['c.id', 'c.uid', 'c.enabled'])
    .where('r.organization_id', '=', organizationId)
    .where('c.uid', '=', sql<string>`any(${uids}::uuid[])`)
    .execute()
  return new Map(rows.map(({ uid, ...row }) => [uid, row]))
}

/** The oldest class that is enabled; undefined when an organization has none. */
export async function findFirstEnvironmentClass(
  db: Kysely<Database>,
  organizationId: number
): Promise<number | undefined> {
  const row = await db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .select('c.id')
    .where('r.organization_id', '=', organizationId)
    .where('c.enabled', '=', true)
    .orderBy('c.id')
    .limit(1)
    .executeTakeFirst()
  return row?.id
}
