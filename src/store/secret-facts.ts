import { type Kysely, sql } from 'kysely'
import type { CollectionKind } from '../apps.ts'
import { ACTING_FACTS, type Acting, actingOrganization } from './acting.ts'
import type { OrganizationFacts } from './organizations.ts'
import { projectRole } from './projects.ts'
import { utc } from './repositories.ts'
import type { SecretHead } from './secrets.ts'
import { type Statement, statement } from './statement.ts'
import type { CredentialProxy, Database, ProjectRole } from './tables.ts'

// Secrets by their uid, as Ona's API names them, with what access to them depends on.

/** A secret as Ona's API shows it, and no column more: there are up to a hundred in a list. */
export interface SecretDescription
  extends Pick<SecretHead, 'secret_uid' | 'secret_name' | 'mount' | 'created_at' | 'updated_at'> {
  kind: CollectionKind
  owner_uid: string
  mount_target: string | null
  credential_proxy: CredentialProxy | null
  creator_kind: string
  creator_uid: string
}

/**
 * A secret of an environment's kind. `role` is the actor's in the organization that the token acts in, null without
 * one; `project_role` on the project that owns the secret, where it is in that organization.
 */
export type SecretFacts = SecretHead &
  SecretDescription &
  ({ [K in keyof OrganizationFacts]: OrganizationFacts[K] } | { organization_id: null; role: null }) & {
    organization_uid: string | null
    project_role: ProjectRole | null
    /** whether the service account that owns it is in the organization */
    service_account_here: boolean
  }

const DESCRIPTION = [
  's.uid as secret_uid',
  's.name as secret_name',
  's.mount',
  utc('s.created_at').as('created_at'),
  utc('s.updated_at').as('updated_at'),
  sql<CollectionKind>`s.kind`.as('kind'),
  's.owner_uid',
  's.mount_target',
  's.credential_proxy',
  's.creator_kind',
  's.creator_uid'
] as const

const facts: Statement<Acting & { secretUid: string }, SecretFacts> = statement(
  (db, parameter) =>
    db
      .selectFrom('secrets as s')
      .leftJoin(
        actingOrganization(db, parameter).select(ACTING_FACTS).select('m.role as member_role').as('a'),
        (join) => join.onTrue()
      )
      .leftJoin('projects as p', (join) =>
        join
          .on('s.kind', '=', 'project')
          .onRef('p.uid', '=', 's.owner_uid')
          .onRef('p.organization_id', '=', 'a.organization_id')
      )
      .leftJoin('service_accounts as sa', (join) =>
        join
          .on('s.kind', '=', 'service-account')
          .onRef('sa.uid', '=', 's.owner_uid')
          .onRef('sa.organization_id', '=', 'a.organization_id')
          .on('sa.suspended_at', 'is', null)
      )
      .select(DESCRIPTION)
      .select(['s.id as secret_id', 's.visibility', 's.value_version', 's.row_version'])
      .select([
        'a.organization_id',
        'a.organization_uid',
        'a.login',
        'a.organization_name',
        'a.organization_created_at',
        'a.organization_updated_at',
        'a.role',
        sql<ProjectRole | null>`case when p.id is not null then ${projectRole(parameter.actorId, 'a.member_role')} end`.as(
          'project_role'
        ),
        sql<boolean>`sa.id is not null`.as('service_account_here')
      ])
      .where('s.uid', '=', parameter.secretUid)
      .where('s.app', '=', 'codespaces')
      .where('s.kind', 'in', ['user', 'organization', 'project', 'service-account']) as never
)

export async function findSecretFacts(
  db: Kysely<Database>,
  acting: Acting,
  secretUid: string
): Promise<SecretFacts | undefined> {
  const [row] = await facts(db, { ...acting, secretUid })
  return row
}

/** Whose secrets: a collection of Codespaces. */
export interface SecretOwnerKey {
  kind: CollectionKind
  ownerUid: string
}

/** The last secret of the page before. */
export type SecretKey = readonly [kind: string, ownerUid: string, name: string]

const BEGINNING: SecretKey = ['', '00000000-0000-0000-0000-000000000000', '']

const described = statement<
  {
    kinds: readonly string[]
    ownerUids: readonly string[]
    afterKind: string
    afterOwner: string
    afterName: string
    limit: number
  },
  SecretDescription
>((db, { kinds, ownerUids, afterKind, afterOwner, afterName, limit }) => {
  // One index leads to the next names of each owner, and to those behind the last one of the page before.
  const behind = sql`(owner.kind collate "C", owner.uid) = (${afterKind}::text, ${afterOwner}::uuid)`
  return db
    .selectFrom(
      sql<{ kind: string; uid: string }>`unnest(${kinds}::text[], ${ownerUids}::uuid[])`.as<'owner'>(
        sql`owner(kind, uid)`
      )
    )
    .innerJoinLateral(
      (eb) =>
        eb
          .selectFrom('secrets as s')
          .select(DESCRIPTION)
          .where('s.app', '=', 'codespaces')
          .whereRef('s.kind', '=', sql.ref('owner.kind'))
          .whereRef('s.owner_uid', '=', sql.ref('owner.uid'))
          .where('s.name', '>', sql<string>`case when ${behind} then ${afterName}::text else '' end`)
          .orderBy('s.name')
          .limit(limit)
          .as('d'),
      (join) => join.onTrue()
    )
    .selectAll('d')
    .where(sql<boolean>`(owner.kind collate "C", owner.uid) >= (${afterKind}::text, ${afterOwner}::uuid)`)
    .orderBy(sql`owner.kind collate "C"`)
    .orderBy('owner.uid')
    .orderBy('d.secret_name')
    .limit(limit) as never
})

/** Secrets of these owners, by owner and name, behind a key. */
export async function listSecretsOfOwners(
  db: Kysely<Database>,
  owners: readonly SecretOwnerKey[],
  after: SecretKey | undefined,
  limit: number
): Promise<SecretDescription[]> {
  const [afterKind, afterOwner, afterName] = after ?? BEGINNING
  return await described(db, {
    kinds: owners.map(({ kind }) => kind),
    ownerUids: owners.map(({ ownerUid }) => ownerUid),
    afterKind,
    afterOwner,
    afterName,
    limit
  })
}

/** The projects that an actor has a role on. */
export const listVisibleProjects = statement<Acting, { uid: string; project_role: ProjectRole }>(
  (db, acting) =>
    actingOrganization(db, acting)
      .innerJoin('projects as p', 'p.organization_id', 'o.id')
      .select(['p.uid', projectRole(acting.actorId).$castTo<ProjectRole>().as('project_role')])
      .where(sql<boolean>`${projectRole(acting.actorId)} is not null`)
)
