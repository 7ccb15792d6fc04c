import { type Kysely, sql, type Transaction } from 'kysely'
import { type RunnerPhase, runnerPhase } from './runners.ts'
import type { Database } from './tables.ts'

/** The classes of an organization's runners among these, by uid. */
export async function findEnvironmentClasses(
  db: Kysely<Database>,
  organizationId: number,
  uids: readonly string[]
): Promise<Map<string, { id: number; enabled: boolean }>> {
  const rows = await db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .select(['c.id', 'c.uid', 'c.enabled'])
    .where('r.organization_id', '=', organizationId)
    .where('c.uid', '=', sql<string>`any(${uids}::uuid[])`)
    .execute()
  return new Map(rows.map(({ uid, ...row }) => [uid, row]))
}

/** A class that an environment is to be made of, with its runner. */
export interface ClassOfRunner {
  id: number
  uid: string
  enabled: boolean
  runner_id: number
  /** of the servers themselves */
  hosted: boolean
  runner_phase: RunnerPhase
}

/** Only where it is a class of the organization. */
export async function findClassOfRunner(
  db: Kysely<Database>,
  organizationId: number,
  uid: string
): Promise<ClassOfRunner | undefined> {
  return await db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .select(['c.id', 'c.uid', 'c.enabled', 'c.runner_id', 'r.hosted', runnerPhase.as('runner_phase')])
    .where('r.organization_id', '=', organizationId)
    .where('c.uid', '=', uid)
    .executeTakeFirst()
}

/** The oldest class that is enabled; undefined when an organization has none. */
export async function findFirstEnvironmentClass(
  db: Kysely<Database>,
  organizationId: number
): Promise<number | undefined> {
  const row = await db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .select('c.id')
    .where('r.organization_id', '=', organizationId)
    .where('c.enabled', '=', true)
    .orderBy('c.id')
    .limit(1)
    .executeTakeFirst()
  return row?.id
}

/** A class of environments, with what its JSON shows. */
export interface EnvironmentClassFacts {
  environment_class_id: number
  environment_class_uid: string
  runner_uid: string
  display_name: string
  description: string
  configuration: { key: string; value: string }[]
  enabled: boolean
}

function classesOf(db: Kysely<Database>, organizationId: number) {
  return db
    .selectFrom('environment_classes as c')
    .innerJoin('runners as r', 'r.id', 'c.runner_id')
    .where('r.organization_id', '=', organizationId)
    .select([
      'c.id as environment_class_id',
      'c.uid as environment_class_uid',
      'r.uid as runner_uid',
      'c.display_name',
      'c.description',
      'c.configuration',
      'c.enabled'
    ])
}

/** Only where it is a class of the organization. */
export async function findEnvironmentClass(
  db: Kysely<Database>,
  organizationId: number,
  uid: string
): Promise<EnvironmentClassFacts | undefined> {
  return await classesOf(db, organizationId).where('c.uid', '=', uid).executeTakeFirst()
}

export interface EnvironmentClassFilter {
  runnerUids?: readonly string[] | undefined
  runnerKinds?: readonly string[] | undefined
  runnerProviders?: readonly string[] | undefined
  enabled?: boolean | undefined
  /** those that environments can be made of now */
  usable?: boolean | undefined
}

/** Classes of an organization by id, behind one. */
export async function listEnvironmentClasses(
  db: Kysely<Database>,
  organizationId: number,
  { runnerUids, runnerKinds, runnerProviders, enabled, usable }: EnvironmentClassFilter,
  { after, limit }: { after: number; limit: number }
): Promise<EnvironmentClassFacts[]> {
  let query = classesOf(db, organizationId).where('c.id', '>', after)
  if (runnerUids) query = query.where('r.uid', '=', sql<string>`any(${runnerUids}::uuid[])`)
  if (runnerKinds) query = query.where('r.kind', '=', sql<string>`any(${runnerKinds}::text[])`)
  if (runnerProviders) query = query.where('r.provider', '=', sql<string>`any(${runnerProviders}::text[])`)
  if (enabled !== undefined) query = query.where('c.enabled', '=', enabled)
  if (usable) {
    query = query.where('c.enabled', '=', true).where(sql<boolean>`${runnerPhase} = 'RUNNER_PHASE_ACTIVE'`)
  }
  return await query.orderBy('c.id').limit(limit).execute()
}

/** What of a class can be changed. */
export interface EnvironmentClassValues {
  display_name: string
  description: string
  enabled: boolean
}

export async function insertEnvironmentClass(
  tx: Transaction<Database>,
  values: {
    runner_id: number
    display_name: string
    description: string
    configuration?: readonly { key: string; value: string }[]
  }
): Promise<{ uid: string }> {
  return await tx
    .insertInto('environment_classes')
    .values({ ...values, configuration: JSON.stringify(values.configuration ?? []) })
    .returning('uid')
    .executeTakeFirstOrThrow()
}

/** Changes what is given of a class, which is something; its name as it is then, undefined when it is gone. */
export async function updateEnvironmentClass(
  tx: Transaction<Database>,
  classId: number,
  values: Partial<EnvironmentClassValues>
): Promise<string | undefined> {
  const row = await tx
    .updateTable('environment_classes')
    .set(values)
    .where('id', '=', classId)
    .returning('display_name')
    .executeTakeFirst()
  return row?.display_name
}

/**
 * Takes the classes of a runner out of the projects that allow them; gives the classes. Who changes the classes of a
 * project holds its rows before the classes, and so does this.
 */
export async function withdrawClassesOf(
  tx: Transaction<Database>,
  runnerId: number
): Promise<{ uid: string; display_name: string }[]> {
  const classes = await tx
    .selectFrom('environment_classes')
    .select(['id', 'uid', 'display_name'])
    .where('runner_id', '=', runnerId)
    .orderBy('id')
    .execute()
  const ids = classes.map(({ id }) => id)
  await tx
    .deleteFrom('project_environment_classes')
    .where('environment_class_id', '=', sql<number>`any(${ids}::bigint[])`)
    .execute()
  return classes
}
