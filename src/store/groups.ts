import type { Kysely } from 'kysely'
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
