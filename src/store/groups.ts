import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'

export interface Group {
  id: number
  uid: string
  name: string
  /** it has all members and service accounts of the organization, without rows */
  everyone: boolean
}

/** A group as it is shown. */
export interface GroupDescription extends Group {
  description: string
  created_at: Date
  updated_at: Date
  member_count: number
}

/** Who can be in a group: an account, or a service account. Their numbers are of one sequence. */
export interface GroupSubject {
  id: number
  uid: string
  kind: 'user' | 'service-account'
  /** of a service account: its name */
  login: string
}

/** One of a group's, or of those who are in it without a row. */
export interface GroupMembership extends GroupSubject {
  membership_uid: string
  name: string
}

const GROUP = ['g.id', 'g.uid', 'g.name', 'g.everyone'] as const

export async function findGroup(
  db: Kysely<Database>,
  organizationId: number,
  groupUid: string
): Promise<Group | undefined> {
  return await db
    .selectFrom('groups as g')
    .select(GROUP)
    .where('g.organization_id', '=', organizationId)
    .where('g.uid', '=', groupUid)
    .executeTakeFirst()
}

/** The same, locked against other changes of it. */
export async function lockGroup(
  tx: Transaction<Database>,
  organizationId: number,
  groupUid: string
): Promise<Group | undefined> {
  return await tx
    .selectFrom('groups as g')
    .select(GROUP)
    .where('g.organization_id', '=', organizationId)
    .where('g.uid', '=', groupUid)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

function describedGroups(db: Kysely<Database>, organizationId: number) {
  const everybody = sql`(select count(*) from memberships m where m.organization_id = g.organization_id)
    + (select count(*) from service_accounts s
      where s.organization_id = g.organization_id and s.suspended_at is null)`
  return db
    .selectFrom('groups as g')
    .select([...GROUP, 'g.description', 'g.created_at', 'g.updated_at'])
    .select(
      sql<number>`case when g.everyone then ${everybody}
        else (select count(*) from group_members gm where gm.group_id = g.id) end`.as('member_count')
    )
    .where('g.organization_id', '=', organizationId)
}

/** One group, by its uid or by its name. */
export async function findGroupDescription(
  db: Kysely<Database>,
  organizationId: number,
  group: { uid: string } | { name: string }
): Promise<GroupDescription | undefined> {
  const query = describedGroups(db, organizationId)
  return await ('uid' in group
    ? query.where('g.uid', '=', group.uid)
    : query.where('g.name', '=', group.name)
  ).executeTakeFirst()
}

export interface GroupFilter {
  /** in the name, the description or the id, whatever the case */
  search?: string | undefined
  groupUids?: readonly string[] | undefined
  everyone?: boolean | undefined
}

/** Groups by id, behind one. */
export async function listGroups(
  db: Kysely<Database>,
  organizationId: number,
  { search, groupUids, everyone }: GroupFilter,
  page: { after: number; limit: number }
): Promise<GroupDescription[]> {
  let query = describedGroups(db, organizationId).where('g.id', '>', page.after)
  if (groupUids) query = query.where('g.uid', '=', sql<string>`any(${groupUids}::uuid[])`)
  if (everyone !== undefined) query = query.where('g.everyone', '=', everyone)
  if (search !== undefined) {
    query = query.where(
      sql<boolean>`strpos(lower(concat_ws(E'\n', g.name, g.description, g.uid::text)), lower(${search})) > 0`
    )
  }
  return await query.orderBy('g.id').limit(page.limit).execute()
}

/** Refuses with unique violation `groups_organization_id_name_key` when the organization has one of that name. */
export async function insertGroup(
  tx: Transaction<Database>,
  values: { organization_id: number; name: string; description: string; everyone?: boolean }
): Promise<Group> {
  return await tx
    .insertInto('groups')
    .values(values)
    .returning(['id', 'uid', 'name', 'everyone'])
    .executeTakeFirstOrThrow()
}

/** Refuses as `insertGroup` does. */
export async function updateGroup(
  tx: Transaction<Database>,
  groupId: number,
  values: { name?: string | undefined; description?: string | undefined }
): Promise<void> {
  const { name, description } = values
  await tx
    .updateTable('groups')
    .set({
      ...(name !== undefined && { name }),
      ...(description !== undefined && { description }),
      updated_at: sql<Date>`now()`
    })
    .where('id', '=', groupId)
    .execute()
}

export async function deleteGroup(tx: Transaction<Database>, groupId: number): Promise<void> {
  await tx.deleteFrom('groups').where('id', '=', groupId).execute()
}

/**
 * Who is in the groups of an organization, as rows of `subject` with `membership_uid`; `g` is the group. Those who are
 * in one without a row have an id all the same, which is always the same one.
 */
function groupMemberships(organizationId: number) {
  return sql`groups g join (
      select a.id, a.uid, 'user' as kind, a.login, coalesce(a.name, a.login) as name,
        concat_ws(E'\n', a.name, a.login, a.email, a.uid) as words
      from memberships m join accounts a on a.id = m.account_id where m.organization_id = ${organizationId}::bigint
      union all
      select s.id, s.uid, 'service-account', s.name, s.name, concat_ws(E'\n', s.name, s.description, s.uid)
      from service_accounts s where s.organization_id = ${organizationId}::bigint and s.suspended_at is null
    ) subject on g.organization_id = ${organizationId}::bigint
    left join group_members gm
      on gm.group_id = g.id and coalesce(gm.account_id, gm.service_account_id) = subject.id`
}

const MEMBERSHIP_UID = sql`coalesce(gm.uid, md5(g.uid::text || subject.uid::text)::uuid)`
const MEMBERSHIP = sql`subject.id, subject.uid, subject.kind, subject.login, subject.name,
  ${MEMBERSHIP_UID} as membership_uid`

export interface MembershipFilter {
  /** in the name, login, email address, description or id, whatever the case */
  search?: string | undefined
  subject?: Pick<GroupSubject, 'uid' | 'kind'> | undefined
}

/** Memberships of a group by the number of who is in it, behind one. */
export async function listGroupMemberships(
  db: Kysely<Database>,
  organizationId: number,
  groupId: number,
  { search, subject }: MembershipFilter,
  page: { after: number; limit: number }
): Promise<GroupMembership[]> {
  const { rows } = await sql<GroupMembership>`
    select ${MEMBERSHIP} from ${groupMemberships(organizationId)}
    where g.id = ${groupId}::bigint and (g.everyone or gm.id is not null) and subject.id > ${page.after}::bigint
      and (${search ?? null}::text is null or strpos(lower(subject.words), lower(${search ?? null}::text)) > 0)
      and (${subject?.uid ?? null}::uuid is null
        or (subject.uid = ${subject?.uid ?? null}::uuid and subject.kind = ${subject?.kind ?? null}::text))
    order by subject.id limit ${page.limit}::bigint`.execute(db)
  return rows
}

/** A membership of one of an organization's groups, with its group. */
export async function findGroupMembership(
  db: Kysely<Database>,
  organizationId: number,
  membershipUid: string
): Promise<{ group: Group; membership: GroupMembership } | undefined> {
  const { rows } = await sql<GroupMembership & { group: Group }>`
    select ${MEMBERSHIP},
      json_build_object('id', g.id, 'uid', g.uid, 'name', g.name, 'everyone', g.everyone) as group
    from ${groupMemberships(organizationId)}
    where (g.everyone or gm.id is not null) and ${MEMBERSHIP_UID} = ${membershipUid}::uuid`.execute(db)
  const [row] = rows
  if (!row) return undefined
  const { group, ...membership } = row
  return { group, membership }
}

/** False when the subject is in the group already. */
export async function insertGroupMember(
  tx: Transaction<Database>,
  groupId: number,
  { id, kind }: Pick<GroupSubject, 'id' | 'kind'>
): Promise<boolean> {
  const row = await tx
    .insertInto('group_members')
    .values({
      group_id: groupId,
      account_id: kind === 'user' ? id : null,
      service_account_id: kind === 'user' ? null : id
    })
    .onConflict((oc) => oc.doNothing())
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

/** False when it is gone. */
export async function deleteGroupMember(tx: Transaction<Database>, membershipUid: string): Promise<boolean> {
  const { numDeletedRows } = await tx
    .deleteFrom('group_members')
    .where('uid', '=', membershipUid)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}
