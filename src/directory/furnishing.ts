import type { Transaction } from 'kysely'
import type { Account } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { insertEnvironmentClass } from '../store/environment-classes.ts'
import { insertGroup } from '../store/groups.ts'
import { insertRunner } from '../store/runners.ts'
import type { Database } from '../store/tables.ts'

/** The hosted runner's name where it is not known on which machine the servers are. */
export const HOSTED_RUNNER = 'Coffer'

/**
 * What every organization has from its beginning, so that projects and environments can be made at once: a group of
 * everyone in it, the servers as its runner, and a class of environments on that.
 */
export async function furnishOrganization(
  tx: Transaction<Database>,
  principal: Principal,
  organization: Pick<Account, 'id' | 'uid'>,
  runnerName: string
): Promise<void> {
  const group = {
    name: 'everyone',
    description: 'All members and service accounts of the organization'
  }
  const { uid: groupUid } = await insertGroup(tx, {
    organization_id: organization.id,
    everyone: true,
    ...group
  })
  const { id: runnerId, uid: runnerUid } = await insertRunner(tx, {
    organization_id: organization.id,
    name: runnerName,
    kind: 'RUNNER_KIND_REMOTE',
    provider: 'RUNNER_PROVIDER_LINUX_HOST',
    hosted: true,
    desired_phase: 'RUNNER_PHASE_ACTIVE',
    configuration: {},
    creator_kind: principal.kind,
    creator_uid: principal.uid
  })
  const environmentClass = {
    display_name: 'Regular',
    description: 'On the machine that Coffer runs on'
  }
  const { uid: classUid } = await insertEnvironmentClass(tx, { runner_id: runnerId, ...environmentClass })
  const made = [
    { action: 'group.create', subjectUid: groupUid, name: group.name },
    { action: 'runner.create', subjectUid: runnerUid, name: runnerName },
    { action: 'environment_class.create', subjectUid: classUid, name: environmentClass.display_name }
  ]
  await insertAuditEvents(
    tx,
    made.map((event) => ({ streamUid: organization.uid, principal, ...event }))
  )
}
