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

/** A member as Ona's API shows it. */
export interface MemberDescription {
  id: number
  uid: string
  login: string
  name: string | null
  email: string | null
  role: OrganizationRole
  member_since: Date
  /** by what it is ordered, as text */
  sort_key: string
}

export interface MemberFilter {
  /** in the name, the login or the email address, whatever the case */
  search?: string | undefined
  roles?: readonly OrganizationRole[] | undefined
  userUids?: readonly string[] | undefined
  /** not those who are in one of these groups */
  withoutGroupUids?: readonly string[] | undefined
}

export interface MemberOrder {
  by: 'name' | 'joined'
  descending?: boolean
  /** comes before all others */
  firstId?: number | undefined
}

const MEMBER_NAME = sql<string>`coalesce(a.name, a.login)`

function describedMembers(
  db: Kysely<Database>,
  organizationId: number,
  { search, roles, userUids, withoutGroupUids }: MemberFilter
) {
  let query = members(db, organizationId)
  if (roles) query = query.where('m.role', '=', sql<OrganizationRole>`any(${roles}::text[])`)
  if (userUids) query = query.where('a.uid', '=', sql<string>`any(${userUids}::uuid[])`)
  if (search !== undefined) {
    query = query.where(
      sql<boolean>`strpos(lower(concat_ws(E'\n', a.name, a.login, a.email)), lower(${search})) > 0`
    )
  }
  if (withoutGroupUids) {
    query = query.where(
      sql<boolean>`not exists (select 1 from groups g where g.organization_id = m.organization_id
        and g.uid = any(${withoutGroupUids}::uuid[]) and (g.everyone or exists (
          select 1 from group_members gm where gm.group_id = g.id and gm.account_id = a.id)))`
    )
  }
  return query
}

/** Members in an order, behind a key of it. */
export async function listMembersInOrder(
  db: Kysely<Database>,
  organizationId: number,
  filter: MemberFilter,
  { by, descending = false, firstId }: MemberOrder,
  page: { after: readonly [sortKey: string, id: number] | undefined; limit: number }
): Promise<MemberDescription[]> {
  const first = firstId === undefined ? sql`''` : sql`(case when a.id = ${firstId} then '0' else '1' end)`
  const key =
    by === 'name'
      ? sql<string>`(${first} || lower(${MEMBER_NAME})) collate "C"`
      : sql<string>`to_char(m.created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') collate "C"`
  let query = describedMembers(db, organizationId, filter)
  if (page.after) {
    const [sortKey, id] = page.after
    const behind = descending ? sql`<` : sql`>`
    query = query.where(sql<boolean>`(${key}, a.id) ${behind} (${sortKey}::text, ${id}::bigint)`)
  }
  const direction = descending ? 'desc' : 'asc'
  return await query
    .select(['a.id', 'a.uid', 'a.login', 'a.name', 'a.email', 'm.role', 'm.created_at as member_since'])
    .select(key.as('sort_key'))
    .orderBy(key, direction)
    .orderBy('a.id', direction)
    .limit(page.limit)
    .execute()
}

/** How many of them there are; at most one more than `atMost` are counted. */
export async function countMembers(
  db: Kysely<Database>,
  organizationId: number,
  filter: MemberFilter,
  atMost: number
): Promise<number> {
  const some = describedMembers(db, organizationId, filter)
    .select('a.id')
    .limit(atMost + 1)
  const { total } = await db
    .selectFrom(some.as('some'))
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  return total
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

/** Ends a membership, and what the account has by it: roles on the organization's repositories, and its groups. */
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
  await tx
    .deleteFrom('group_members')
    .where('account_id', '=', accountId)
    .where('group_id', 'in', (eb) =>
      eb.selectFrom('groups').select('id').where('organization_id', '=', organizationId)
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
