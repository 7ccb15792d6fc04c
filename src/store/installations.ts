import { type Kysely, sql, type Transaction } from 'kysely'
import { type RepositoryFacts, repositoriesSeenBy, repositoryFacts, roleOf, utc } from './repositories.ts'
import type { Page } from './secrets.ts'
import type { AccountKind, Database, InstallationsTable, Permissions } from './tables.ts'

/** An installation of a GitHub App on an account, with what its JSON shows. */
export interface Installation {
  installation_id: number
  installation_uid: string
  integration_id: number
  slug: string
  client_id: string
  account_id: number
  account_uid: string
  account_login: string
  account_kind: AccountKind
  all_repositories: boolean
  permissions: Permissions
  /** text, UTC, without zone */
  suspended_at: string | null
  suspended_by: InstallationsTable['suspended_by']
  created_at: string
  updated_at: string
}

/** Which installations; every condition that is given holds. */
export interface InstallationFilter {
  installationId?: number
  integrationId?: number
  accountId?: number
}

function installations(db: Kysely<Database>, filter: InstallationFilter) {
  let query = db
    .selectFrom('installations as n')
    .innerJoin('integrations as g', 'g.id', 'n.integration_id')
    .innerJoin('accounts as o', 'o.id', 'n.account_id')
  if (filter.installationId !== undefined) query = query.where('n.id', '=', filter.installationId)
  if (filter.integrationId !== undefined) query = query.where('n.integration_id', '=', filter.integrationId)
  if (filter.accountId !== undefined) query = query.where('n.account_id', '=', filter.accountId)
  return query
}

const INSTALLATION = [
  'n.id as installation_id',
  'n.uid as installation_uid',
  'n.integration_id',
  'g.slug',
  'g.client_id',
  'o.id as account_id',
  'o.uid as account_uid',
  'o.login as account_login',
  'o.kind as account_kind',
  'n.all_repositories',
  'n.permissions',
  sql<string | null>`n.suspended_at at time zone 'UTC'`.as('suspended_at'),
  'n.suspended_by',
  utc('n.created_at').as('created_at'),
  utc('n.updated_at').as('updated_at')
] as const

export async function findInstallation(
  db: Kysely<Database>,
  filter: InstallationFilter
): Promise<Installation | undefined> {
  return await installations(db, filter).select(INSTALLATION).executeTakeFirst()
}

/** The App's installation on the account that owns a repository, if the repository was given to it. */
export async function findInstallationOnRepository(
  db: Kysely<Database>,
  integrationId: number,
  repositoryId: number
): Promise<Installation | undefined> {
  return await installations(db, { integrationId })
    .innerJoin('repositories as r', 'r.owner_id', 'o.id')
    .select(INSTALLATION)
    .where('r.id', '=', repositoryId)
    .where(
      sql<boolean>`(n.all_repositories or exists (select 1 from installation_repositories x
        where x.installation_id = n.id and x.repository_id = r.id))`
    )
    .executeTakeFirst()
}

/** By id, with the full count. */
export async function listInstallations(
  db: Kysely<Database>,
  filter: InstallationFilter,
  page: Page
): Promise<{ total: number; installations: Installation[] }> {
  const { total } = await installations(db, filter)
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  const rows = await installations(db, filter)
    .select(INSTALLATION)
    .orderBy('n.id')
    .limit(page.limit)
    .offset(page.offset)
    .execute()
  return { total, installations: rows }
}

/** What an installation may be given: repositories of the account, by number or by name without regard to case. */
export interface RepositoryNames {
  ids?: readonly number[]
  names?: readonly string[]
}

function named({ ids = [], names = [] }: RepositoryNames) {
  return sql<boolean>`(${sql.ref('r.id')} = any(${ids}::bigint[]) or ${sql.ref('r.name_key')} = any(
    select lower(asked collate "C") from unnest(${names}::text[]) as asked))`
}

/** Those of the repositories that the account owns. */
export async function findOwnedRepositories(
  db: Kysely<Database>,
  accountId: number,
  names: RepositoryNames
): Promise<{ id: number; name_key: string }[]> {
  return await db
    .selectFrom('repositories as r')
    .select(['r.id', 'r.name_key'])
    .where('r.owner_id', '=', accountId)
    .where(named(names))
    .execute()
}

/** Those of the repositories that were given to the installation, by id. */
export async function findGivenRepositories(
  db: Kysely<Database>,
  installationId: number,
  names: RepositoryNames
): Promise<RepositoryFacts[]> {
  return await repositoriesSeenBy(db, installationId)
    .select(repositoryFacts(installationId))
    .where(roleOf(installationId), 'is not', null)
    .where(named(names))
    .orderBy('r.id')
    .execute()
}

/** Refuses with unique violation `installations_integration_id_account_id_key` when it is there already. */
export async function insertInstallation(
  tx: Transaction<Database>,
  values: { integration_id: number; account_id: number; all_repositories: boolean; permissions: Permissions }
): Promise<{ id: number; uid: string }> {
  return await tx
    .insertInto('installations')
    .values({ ...values, permissions: JSON.stringify(values.permissions) })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
}

/**
 * Locks an installation: `change` against all others that use or change it, `use` against changes. Undefined when it
 * is gone.
 */
export async function lockInstallation(
  tx: Transaction<Database>,
  installationId: number,
  purpose: 'change' | 'use'
): Promise<
  (Pick<InstallationsTable, 'all_repositories' | 'suspended_by'> & { permissions: Permissions }) | undefined
> {
  const query = tx
    .selectFrom('installations')
    .select(['all_repositories', 'suspended_by', 'permissions'])
    .where('id', '=', installationId)
  return await (purpose === 'change' ? query.forUpdate() : query.forShare()).executeTakeFirst()
}

/** Locks all that fit, in order. */
export async function lockInstallations(
  tx: Transaction<Database>,
  filter: InstallationFilter
): Promise<
  Pick<Installation, 'installation_id' | 'installation_uid' | 'account_uid' | 'slug' | 'permissions'>[]
> {
  return await installations(tx, filter)
    .select(['n.id as installation_id', 'n.uid as installation_uid', 'o.uid as account_uid'])
    .select(['g.slug', 'n.permissions'])
    .orderBy('n.id')
    .forUpdate('n')
    .execute()
}

export async function updateInstallation(
  tx: Transaction<Database>,
  installationId: number,
  change: { all_repositories?: boolean; permissions?: Permissions }
): Promise<void> {
  const { permissions, ...rest } = change
  await tx
    .updateTable('installations')
    .set({
      ...rest,
      ...(permissions && { permissions: JSON.stringify(permissions) }),
      updated_at: sql<Date>`now()`
    })
    .where('id', '=', installationId)
    .execute()
}

/** @param by null lifts the suspension */
export async function setSuspension(
  tx: Transaction<Database>,
  installationId: number,
  by: InstallationsTable['suspended_by']
): Promise<void> {
  await tx
    .updateTable('installations')
    .set({
      suspended_by: by,
      suspended_at: by ? sql<Date>`coalesce(suspended_at, now())` : null,
      updated_at: sql<Date>`now()`
    })
    .where('id', '=', installationId)
    .execute()
}

/** With its tokens. */
export async function deleteInstallation(tx: Transaction<Database>, installationId: number): Promise<void> {
  await tx.deleteFrom('installations').where('id', '=', installationId).execute()
}

export async function replaceGivenRepositories(
  tx: Transaction<Database>,
  installationId: number,
  repositoryIds: readonly number[]
): Promise<void> {
  await tx.deleteFrom('installation_repositories').where('installation_id', '=', installationId).execute()
  await sql`insert into installation_repositories (installation_id, repository_id)
    select ${installationId}::bigint, unnest(${repositoryIds}::bigint[]) on conflict do nothing`.execute(tx)
}

/** False when the installation had it already. */
export async function giveRepository(
  tx: Transaction<Database>,
  installationId: number,
  repositoryId: number
): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await tx
    .insertInto('installation_repositories')
    .values({ installation_id: installationId, repository_id: repositoryId })
    .onConflict((oc) => oc.doNothing())
    .executeTakeFirstOrThrow()
  return numInsertedOrUpdatedRows === 1n
}

/** False when the installation did not have it. */
export async function takeRepository(
  tx: Transaction<Database>,
  installationId: number,
  repositoryId: number
): Promise<boolean> {
  const { numDeletedRows } = await tx
    .deleteFrom('installation_repositories')
    .where('installation_id', '=', installationId)
    .where('repository_id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}
