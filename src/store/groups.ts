import type { Kysely, Transaction } from 'kysely'
import type { Database } from './tables.ts'

export interface Group {
  id: number
  uid: string
  name: string
}

export async function findGroup(
  db: Kysely<Database>,
  organizationId: number,
  groupUid: string
): Promise<Group | undefined> {
  return await db
    .selectFrom('groups')
    .select(['id', 'uid', 'name'])
    .where('organization_id', '=', organizationId)
    .where('uid', '=', groupUid)
    .executeTakeFirst()
}

export async function insertGroup(
  tx: Transaction<Database>,
  values: { organization_id: number; name: string; description: string; everyone: boolean }
): Promise<{ id: number; uid: string }> {
  return await tx.insertInto('groups').values(values).returning(['id', 'uid']).executeTakeFirstOrThrow()
}
