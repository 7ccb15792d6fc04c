import type { Kysely } from 'kysely'
import { inTheNameOf } from '../directory/change.ts'
import { NotFound } from '../errors.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import {
  type EnvironmentClassFacts,
  type EnvironmentClassValues,
  insertEnvironmentClass,
  updateEnvironmentClass
} from '../store/environment-classes.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import { lockRunner } from '../store/runners.ts'
import type { Database } from '../store/tables.ts'

type Organization = Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>

export interface NewEnvironmentClass {
  displayName: string
  description: string
  /** what the runner makes of it */
  configuration: readonly { key: string; value: string }[]
}

/**
 * Makes a class of environments on a runner; gives its uid. A class is never deleted but with its runner: it is
 * disabled.
 *
 * @throws NotFound when the organization has no runner of this id
 */
export async function createEnvironmentClass(
  db: Kysely<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Organization,
  runnerUid: string,
  { displayName, description, configuration }: NewEnvironmentClass
): Promise<string> {
  return await inTheNameOf(db, principal, async (tx) => {
    const runner = await lockRunner(tx, organization_id, runnerUid)
    if (!runner) throw new NotFound('There is no such runner in the organization of this token.')
    const { uid } = await insertEnvironmentClass(tx, {
      runner_id: runner.runner_id,
      display_name: displayName,
      description,
      configuration
    })
    await insertAuditEvents(tx, [
      {
        streamUid: organization_uid,
        principal,
        action: 'environment_class.create',
        subjectUid: uid,
        name: displayName
      }
    ])
    return uid
  })
}

/** Changes what is given of a class; throws `NotFound` when it is gone. */
export async function updateEnvironmentClassSettings(
  db: Kysely<Database>,
  principal: Principal,
  { organization_uid }: Pick<Organization, 'organization_uid'>,
  environmentClass: Pick<EnvironmentClassFacts, 'environment_class_id' | 'environment_class_uid'>,
  values: Partial<EnvironmentClassValues>
): Promise<void> {
  if (Object.keys(values).length === 0) return
  const { environment_class_id, environment_class_uid } = environmentClass
  await inTheNameOf(db, principal, async (tx) => {
    const name = await updateEnvironmentClass(tx, environment_class_id, values)
    if (name === undefined) throw new NotFound()
    await insertAuditEvents(tx, [
      {
        streamUid: organization_uid,
        principal,
        action: 'environment_class.update',
        subjectUid: environment_class_uid,
        name
      }
    ])
  })
}
