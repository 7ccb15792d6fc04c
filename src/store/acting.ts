import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { OrganizationFacts } from './organizations.ts'
import { utc } from './repositories.ts'
import { statement } from './statement.ts'
import type { Database, OrganizationRole } from './tables.ts'

/** Who asks on Ona's API: with which token, and by which number roles are asked for. */
export interface Acting {
  tokenId: number
  actorId: number
}

/**
 * The organization that a token acts in: the one that it was made for, or its account's first; no row where it acts in
 * none. Who is no account but belongs to the organization is there as a member is.
 */
export function actingOrganization(
  db: Kysely<Database>,
  { tokenId, actorId }: { [K in keyof Acting]: number | RawBuilder<number> }
) {
  const first = sql<number>`(select f.organization_id from memberships f where f.account_id = t.account_id
    order by f.created_at, f.organization_id limit 1)`
  return db
    .selectFrom('tokens as t')
    .innerJoin('accounts as o', (join) =>
      join
        .on('o.id', '=', sql<number>`coalesce(t.organization_id, ${first})`)
        .on('o.kind', '=', 'organization')
    )
    .leftJoin('memberships as m', (join) =>
      join.onRef('m.organization_id', '=', 'o.id').on('m.account_id', '=', actorId)
    )
    .where('t.id', '=', tokenId)
    .where((eb) => eb.or([eb('m.role', 'is not', null), eb('t.account_id', '=', eb.ref('o.id'))]))
}

/** What access in the acting organization depends on, and what its JSON shows. */
export const ACTING_FACTS = [
  'o.id as organization_id',
  'o.uid as organization_uid',
  'o.login',
  'o.name as organization_name',
  utc('o.created_at').as('organization_created_at'),
  utc('o.updated_at').as('organization_updated_at'),
  sql<OrganizationRole>`coalesce(m.role, 'member')`.as('role')
] as const

const organizations = statement<Acting, OrganizationFacts>((db, acting) =>
  actingOrganization(db, acting).select(ACTING_FACTS)
)

export async function findActingOrganization(
  db: Kysely<Database>,
  acting: Acting
): Promise<OrganizationFacts | undefined> {
  const [row] = await organizations(db, acting)
  return row
}
