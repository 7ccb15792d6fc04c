import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'

/** A service account as it is shown. */
export interface ServiceAccount {
  id: number
  uid: string
  name: string
  description: string
  creator_kind: string
  creator_uid: string | null
  valid_until: Date | null
  suspended_at: Date | null
  created_at: Date
}

const SERVICE_ACCOUNT = [
  'id',
  'uid',
  'name',
  'description',
  'creator_kind',
  'creator_uid',
  'valid_until',
  'suspended_at',
  'created_at'
] as const

/** One of an organization's, whether it was deleted or not. */
export async function findServiceAccount(
  db: Kysely<Database>,
  organizationId: number,
  serviceAccountUid: string
): Promise<ServiceAccount | undefined> {
  return await db
    .selectFrom('service_accounts')
    .select(SERVICE_ACCOUNT)
    .where('organization_id', '=', organizationId)
    .where('uid', '=', serviceAccountUid)
    .executeTakeFirst()
}

export interface ServiceAccountFilter {
  serviceAccountUids?: readonly string[] | undefined
  /** in the name, the description or the id, whatever the case */
  search?: string | undefined
  /** those that were deleted, too */
  includeSuspended?: boolean | undefined
}

/** Service accounts by id, behind one. */
export async function listServiceAccounts(
  db: Kysely<Database>,
  organizationId: number,
  { serviceAccountUids, search, includeSuspended }: ServiceAccountFilter,
  page: { after: number; limit: number }
): Promise<ServiceAccount[]> {
  let query = db
    .selectFrom('service_accounts')
    .select(SERVICE_ACCOUNT)
    .where('organization_id', '=', organizationId)
    .where('id', '>', page.after)
  if (!includeSuspended) query = query.where('suspended_at', 'is', null)
  if (serviceAccountUids) {
    query = query.where('uid', '=', sql<string>`any(${serviceAccountUids}::uuid[])`)
  }
  if (search !== undefined) {
    query = query.where(
      sql<boolean>`strpos(lower(concat_ws(E'\n', name, description, uid::text)), lower(${search})) > 0`
    )
  }
  return await query.orderBy('id').limit(page.limit).execute()
}

export async function insertServiceAccount(
  tx: Transaction<Database>,
  values: {
    organization_id: number
    name: string
    description: string
    creator_kind: string
    creator_uid: string | null
    valid_until: Date
  }
): Promise<ServiceAccount> {
  return await tx
    .insertInto('service_accounts')
    .values(values)
    .returning(SERVICE_ACCOUNT)
    .executeTakeFirstOrThrow()
}

export async function updateServiceAccount(
  tx: Transaction<Database>,
  serviceAccountId: number,
  values: { name?: string; description?: string }
): Promise<void> {
  await tx.updateTable('service_accounts').set(values).where('id', '=', serviceAccountId).execute()
}

/** What is deleted stays, so that what it did keeps a name; it leaves its groups. */
export async function suspendServiceAccount(
  tx: Transaction<Database>,
  serviceAccountId: number
): Promise<void> {
  await tx
    .updateTable('service_accounts')
    .set({ suspended_at: sql<Date>`now()` })
    .where('id', '=', serviceAccountId)
    .execute()
  await tx.deleteFrom('group_members').where('service_account_id', '=', serviceAccountId).execute()
}

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

function lockedServiceAccounts(tx: Transaction<Database>, organizationId: number) {
  return tx
    .selectFrom('service_accounts')
    .select(SERVICE_ACCOUNT)
    .where('organization_id', '=', organizationId)
    .where('suspended_at', 'is', null)
    .forNoKeyUpdate()
}

/** One of an organization's that is not deleted, locked. */
export async function lockServiceAccountOf(
  tx: Transaction<Database>,
  organizationId: number,
  serviceAccountUid: string
): Promise<ServiceAccount | undefined> {
  return await lockedServiceAccounts(tx, organizationId)
    .where('uid', '=', serviceAccountUid)
    .executeTakeFirst()
}

/** All of an organization's that are not deleted, locked in order of id. */
export async function lockServiceAccountsOf(
  tx: Transaction<Database>,
  organizationId: number
): Promise<ServiceAccount[]> {
  return await lockedServiceAccounts(tx, organizationId).orderBy('id').execute()
}

/** Whether there is such a service account in an organization, and it was not deleted. */
export async function isServiceAccountOf(
  db: Kysely<Database>,
  organizationId: number,
  serviceAccountUid: string
): Promise<boolean> {
  const found = await findServiceAccount(db, organizationId, serviceAccountUid)
  return found !== undefined && found.suspended_at === null
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
