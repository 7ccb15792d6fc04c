import { type Kysely, sql, type Transaction } from 'kysely'
import { utc } from './repositories.ts'
import type { Page } from './secrets.ts'
import { statement } from './statement.ts'
import type { Database, OrganizationRole } from './tables.ts'

/** What access to an organization depends on, and what its JSON shows. `role` is the actor's; null: none. */
export interface OrganizationFacts {
  organization_id: number
  organization_uid: string
  login: string
  organization_name: string | null
  /** text, UTC, without zone */
  organization_created_at: string
  organization_updated_at: string
  role: OrganizationRole | null
}

/** Names an organization as a path does: by login, or by number. */
export type OrganizationLocator = { org: string } | { organizationId: number }

/** Organizations with the role that an actor has there; an installation on one acts as its owners do. */
export function organizationsSeenBy(db: Kysely<Database>, actorId: number) {
  return db
    .selectFrom('accounts as o')
    .leftJoin('memberships as m', (join) =>
      join.onRef('m.organization_id', '=', 'o.id').on('m.account_id', '=', actorId)
    )
    .leftJoin('installations as n', (join) =>
      join.onRef('n.account_id', '=', 'o.id').on('n.id', '=', actorId).on('n.suspended_at', 'is', null)
    )
    .where('o.kind', '=', 'organization')
    .select([
      'o.id as organization_id',
      'o.uid as organization_uid',
      'o.login',
      'o.name as organization_name',
      utc('o.created_at').as('organization_created_at'),
      utc('o.updated_at').as('organization_updated_at'),
      sql<OrganizationRole | null>`case when n.id is not null then 'admin' else m.role end`.as('role')
    ])
}

export function organizationByLogin(db: Kysely<Database>, actorId: number, org: string) {
  return organizationsSeenBy(db, actorId).where(
    'o.login_key',
    '=',
    sql<string>`lower(${org}::text collate "C")`
  )
}

export function organizationById(db: Kysely<Database>, actorId: number, organizationId: number) {
  return organizationsSeenBy(db, actorId).where('o.id', '=', organizationId)
}

const byLogin = statement<{ actorId: number; org: string }, OrganizationFacts>((db, { actorId, org }) =>
  organizationByLogin(db, actorId, org)
)
const byId = statement<{ actorId: number; organizationId: number }, OrganizationFacts>(
  (db, { actorId, organizationId }) => organizationById(db, actorId, organizationId)
)

export async function findOrganization(
  db: Kysely<Database>,
  actorId: number,
  locator: OrganizationLocator
): Promise<OrganizationFacts | undefined> {
  const [row] =
    'org' in locator ? await byLogin(db, { actorId, ...locator }) : await byId(db, { actorId, ...locator })
  return row
}

/** The organizations of an account, by id, with their full count. */
export async function listOrganizationsOf(
  db: Kysely<Database>,
  accountId: number,
  page: Page
): Promise<{ total: number; organizations: OrganizationFacts[] }> {
  const joined = organizationsSeenBy(db, accountId).where('m.role', 'is not', null)
  const { total } = await joined
    .clearSelect()
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  const organizations = await joined.orderBy('o.id').limit(page.limit).offset(page.offset).execute()
  return { total, organizations }
}

export interface Member {
  id: number
  login: string
  kind: 'user' | 'organization'
  site_admin: boolean
  role: OrganizationRole
}

function members(db: Kysely<Database>, organizationId: number) {
  return db
    .selectFrom('memberships as m')
    .innerJoin('accounts as a', 'a.id', 'm.account_id')
    .where('m.organization_id', '=', organizationId)
}

/** Members by id, with their full count. */
export async function listMembers(
  db: Kysely<Database>,
  organizationId: number,
  filter: Page & { role?: OrganizationRole }
): Promise<{ total: number; members: Member[] }> {
  let query = members(db, organizationId)
  if (filter.role) query = query.where('m.role', '=', filter.role)
  const { total } = await query.select((eb) => eb.fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
  const rows = await query
    .select(['a.id', 'a.login', 'a.kind', 'a.site_admin', 'm.role'])
    .orderBy('a.id')
    .limit(filter.limit)
    .offset(filter.offset)
    .execute()
  return { total, members: rows }
}

export async function upsertMembership(
  tx: Transaction<Database>,
  organizationId: number,
  accountId: number,
  role: OrganizationRole
): Promise<void> {
  await tx
    .insertInto('memberships')
    .values({ organization_id: organizationId, account_id: accountId, role })
    .onConflict((oc) => oc.columns(['organization_id', 'account_id']).doUpdateSet({ role }))
    .execute()
}

/** The role that an account has in an organization; undefined when it is no member. */
export async function findMembershipRole(
  db: Kysely<Database>,
  organizationId: number,
  accountId: number
): Promise<OrganizationRole | undefined> {
  const row = await db
    .selectFrom('memberships')
    .select('role')
    .where('organization_id', '=', organizationId)
    .where('account_id', '=', accountId)
    .executeTakeFirst()
  return row?.role
}

/** Ends a membership, and the roles that the account has on the organization's repositories. */
export async function deleteMembership(
  tx: Transaction<Database>,
  organizationId: number,
  accountId: number
): Promise<void> {
  await tx
    .deleteFrom('memberships')
    .where('organization_id', '=', organizationId)
    .where('account_id', '=', accountId)
    .execute()
  await tx
    .deleteFrom('collaborators')
    .where('account_id', '=', accountId)
    .where('repository_id', 'in', (eb) =>
      eb.selectFrom('repositories').select('id').where('owner_id', '=', organizationId)
    )
    .execute()
}

/** How many owners an organization has besides one account. */
export async function countOtherOwners(
  tx: Transaction<Database>,
  organizationId: number,
  accountId: number
): Promise<number> {
  const { total } = await members(tx, organizationId)
    .where('m.role', '=', 'admin')
    .where('m.account_id', '!=', accountId)
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  return total
}
