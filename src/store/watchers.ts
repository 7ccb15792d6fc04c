import { type Kysely, sql } from 'kysely'
import { ACTING_FACTS, type Acting, actingOrganization } from './acting.ts'
import type { OrganizationFacts } from './organizations.ts'
import { projectRole } from './projects.ts'
import { type Statement, statement } from './statement.ts'
import type { Database, OrganizationRole, ProjectRole } from './tables.ts'

// What is asked for those who watch events: many at once.

/** A token that acts in an organization now. */
export interface ActingNow {
  token_id: number
  organization_uid: string
  role: OrganizationRole
  /** on the project that was asked about; null: none, or it is not there */
  project_role: ProjectRole | null
  /** whether that project is there */
  project_here: boolean
}

const actingNow: Statement<
  { tokenIds: readonly number[]; actorIds: readonly number[]; projectUid: string | null },
  ActingNow
> = statement(
  (db, { tokenIds, actorIds, projectUid }) =>
    db
      .selectFrom(
        sql<{
          token_id: number
          actor_id: number
        }>`unnest(${tokenIds}::bigint[], ${actorIds}::bigint[])`.as<'v'>(sql`v(token_id, actor_id)`)
      )
      .innerJoinLateral(
        () => {
          const actorId = sql.ref<number>('v.actor_id')
          return actingOrganization(db, { tokenId: sql.ref<number>('v.token_id'), actorId })
            .leftJoin('projects as p', (join) =>
              join.on('p.uid', '=', sql<string>`${projectUid}::uuid`).onRef('p.organization_id', '=', 'o.id')
            )
            .select([
              'o.uid as organization_uid',
              sql<OrganizationRole>`coalesce(m.role, 'member')`.as('role'),
              sql<ProjectRole | null>`case when p.id is not null then ${projectRole(actorId)} end`.as(
                'project_role'
              ),
              sql<boolean>`p.id is not null`.as('project_here')
            ])
            .as('a')
        },
        (join) => join.onTrue()
      )
      .select(['v.token_id', 'a.organization_uid', 'a.role', 'a.project_role', 'a.project_here']) as never
)

/** Where these tokens act now, by token; who acts nowhere, or has no valid token, is not among them. */
export async function findActingNow(
  db: Kysely<Database>,
  watching: readonly Acting[],
  projectUid: string | null
): Promise<Map<number, ActingNow>> {
  const rows = await actingNow(db, {
    tokenIds: watching.map(({ tokenId }) => tokenId),
    actorIds: watching.map(({ actorId }) => actorId),
    projectUid
  })
  return new Map(rows.map((row) => [row.token_id, row]))
}

/** Tables that know who created what is in them. */
export type CreatedTable = 'projects' | 'runners' | 'service_accounts' | 'environments' | 'secrets'

/** Who created what is there now; undefined when it is gone, or nobody did. */
export async function findCreator(
  db: Kysely<Database>,
  table: CreatedTable,
  uid: string
): Promise<string | undefined> {
  const row = await db.selectFrom(table).select('creator_uid').where('uid', '=', uid).executeTakeFirst()
  return row?.creator_uid ?? undefined
}

/** What of an organization not everybody in it sees: the newest projects with a role, and environments of one's own. */
export const listSeen: Statement<Acting & { actorUid: string; limit: number }, { uid: string }> = statement(
  (db, { tokenId, actorId, actorUid, limit }) =>
    actingOrganization(db, { tokenId, actorId })
      .innerJoin('projects as p', 'p.organization_id', 'o.id')
      .where(sql<boolean>`${projectRole(actorId)} is not null`)
      .select(['p.uid', 'p.created_at'])
      .unionAll(
        actingOrganization(db, { tokenId, actorId })
          .innerJoin('environments as v', 'v.organization_id', 'o.id')
          .where('v.creator_uid', '=', actorUid)
          .select(['v.uid', 'v.created_at'])
      )
      .orderBy('created_at', 'desc')
      .limit(limit)
)

/** An environment of the organization that a token acts in. */
export type WatchedEnvironment = OrganizationFacts & { environment_uid: string; creator_uid: string }

const environments = statement<Acting & { environmentUid: string }, WatchedEnvironment>(
  (db, { tokenId, actorId, environmentUid }) =>
    actingOrganization(db, { tokenId, actorId })
      .innerJoin('environments as v', 'v.organization_id', 'o.id')
      .where('v.uid', '=', environmentUid)
      .select(ACTING_FACTS)
      .select(['v.uid as environment_uid', 'v.creator_uid'])
)

export async function findWatchedEnvironment(
  db: Kysely<Database>,
  acting: Acting,
  environmentUid: string
): Promise<WatchedEnvironment | undefined> {
  const { tokenId, actorId } = acting
  const [row] = await environments(db, { tokenId, actorId, environmentUid })
  return row
}
