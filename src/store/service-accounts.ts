import type { Kysely, Transaction } from 'kysely'
import type { Database } from './tables.ts'

/** Locks the row, so that nothing is added to what it owns; false when it is gone or deleted. */
export async function lockServiceAccount(
  tx: Transaction<Database>,
  serviceAccountUid: string
): Promise<boolean> {
  const row = await tx
    .selectFrom('service_accounts')
    .select('id')
    .where('uid', '=', serviceAccountUid)
    .where('suspended_at', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst()
  return row !== undefined
}

/** Whether there is such a service account in an organization, and it was not deleted. */
export async function isServiceAccountOf(
  db: Kysely<Database>,
  organizationId: number,
  serviceAccountUid: string
): Promise<boolean> {
  const row = await db
    .selectFrom('service_accounts')
    .select('id')
    .where('uid', '=', serviceAccountUid)
    .where('organization_id', '=', organizationId)
    .where('suspended_at', 'is', null)
    .executeTakeFirst()
  return row !== undefined
}

export async function listServiceAccountUids(
  db: Kysely<Database>,
  organizationId: number
): Promise<string[]> {
  const rows = await db
    .selectFrom('service_accounts')
    .select('uid')
    .where('organization_id', '=', organizationId)
    .where('suspended_at', 'is', null)
    .execute()
  return rows.map(({ uid }) => uid)
}
