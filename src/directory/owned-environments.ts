import type { Transaction } from 'kysely'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { deleteEnvironment, type LockedEnvironment } from '../store/environments.ts'
import type { Database } from '../store/tables.ts'

/** Removes locked environments with their tokens, and records each; gives the hashes of the tokens. */
export async function removeEnvironments(
  tx: Transaction<Database>,
  principal: Principal,
  environments: readonly LockedEnvironment[]
): Promise<Buffer[]> {
  const hashes: Buffer[] = []
  for (const { environment_id } of environments) hashes.push(...(await deleteEnvironment(tx, environment_id)))
  await insertAuditEvents(
    tx,
    environments.map(({ organization_uid, environment_uid, name }) => ({
      streamUid: organization_uid,
      principal,
      action: 'development_environment.remove',
      subjectUid: environment_uid,
      name: name || environment_uid
    }))
  )
  return hashes
}
