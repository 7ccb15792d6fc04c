import type { Transaction } from 'kysely'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { lockEnvironmentsOn } from '../store/environments.ts'
import { deleteProject } from '../store/projects.ts'
import type { Database } from '../store/tables.ts'
import { removeSecrets } from './owned-secrets.ts'

/** Removes a locked project with its secrets, and records each. */
export async function removeProjectRow(
  tx: Transaction<Database>,
  principal: Principal,
  organizationUid: string,
  project: { id: number; uid: string; name: string }
): Promise<void> {
  await lockEnvironmentsOn(tx, 'project', project.id)
  await removeSecrets(tx, principal, organizationUid, 'project', project.uid)
  await deleteProject(tx, project.id)
  await insertAuditEvents(tx, [
    {
      streamUid: organizationUid,
      principal,
      action: 'project.remove',
      subjectUid: project.uid,
      name: project.name
    }
  ])
}
