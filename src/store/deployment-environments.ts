import { type Kysely, sql, type Transaction } from 'kysely'
import { utc } from './repositories.ts'
import type { Page } from './secrets.ts'
import type { Database } from './tables.ts'

/** A deployment environment of a repository, as its JSON shows it. */
export interface DeploymentEnvironment {
  environment_id: number
  environment_uid: string
  environment_name: string
  /** text, UTC, without zone */
  environment_created_at: string
  environment_updated_at: string
}

/** As part of a query that may find none. */
export type MaybeEnvironment = { [K in keyof DeploymentEnvironment]: DeploymentEnvironment[K] | null }

export const ENVIRONMENT = [
  'e.id as environment_id',
  'e.uid as environment_uid',
  'e.name as environment_name',
  utc('e.created_at').as('environment_created_at'),
  utc('e.updated_at').as('environment_updated_at')
] as const

export function environmentOf(row: MaybeEnvironment | undefined): DeploymentEnvironment | undefined {
  return row && row.environment_id !== null ? (row as DeploymentEnvironment) : undefined
}

function environments(db: Kysely<Database>, repositoryId: number) {
  return db.selectFrom('deployment_environments as e').where('e.repository_id', '=', repositoryId)
}

/** Names are compared without regard to case. */
export async function findEnvironment(
  db: Kysely<Database>,
  repositoryId: number,
  name: string
): Promise<DeploymentEnvironment | undefined> {
  return await environments(db, repositoryId)
    .where('e.name_key', '=', sql<string>`lower(${name}::text collate "C")`)
    .select(ENVIRONMENT)
    .executeTakeFirst()
}

/** By name, with the full count. */
export async function listEnvironments(
  db: Kysely<Database>,
  repositoryId: number,
  page: Page
): Promise<{ total: number; environments: DeploymentEnvironment[] }> {
  const all = environments(db, repositoryId)
  const { total } = await all.select((eb) => eb.fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
  const rows = await all
    .select(ENVIRONMENT)
    .orderBy('e.name_key')
    .limit(page.limit)
    .offset(page.offset)
    .execute()
  return { total, environments: rows }
}

/** Makes an environment, or moves the time of its last update when it is there. */
export async function upsertEnvironment(
  tx: Transaction<Database>,
  repositoryId: number,
  name: string
): Promise<{ uid: string; name: string; created: boolean }> {
  return await tx
    .insertInto('deployment_environments')
    .values({ repository_id: repositoryId, name })
    .onConflict((oc) =>
      oc.columns(['repository_id', 'name_key']).doUpdateSet({ updated_at: sql<Date>`now()` })
    )
    .returning(['uid', 'name', sql<boolean>`xmax = 0`.as('created')])
    .executeTakeFirstOrThrow()
}

/** Locks the row, so that nothing is added to what the environment owns; false when it is gone. */
export async function lockDeploymentEnvironment(tx: Transaction<Database>, uid: string): Promise<boolean> {
  const row = await tx
    .selectFrom('deployment_environments')
    .select('id')
    .where('uid', '=', uid)
    .forNoKeyUpdate()
    .executeTakeFirst()
  return row !== undefined
}

/** Locks all of a repository, in order. */
export async function lockEnvironmentsOf(
  tx: Transaction<Database>,
  repositoryId: number
): Promise<{ uid: string; name: string }[]> {
  return await tx
    .selectFrom('deployment_environments')
    .select(['uid', 'name'])
    .where('repository_id', '=', repositoryId)
    .orderBy('id')
    .forUpdate()
    .execute()
}

export async function deleteEnvironment(tx: Transaction<Database>, uid: string): Promise<void> {
  await tx.deleteFrom('deployment_environments').where('uid', '=', uid).execute()
}
