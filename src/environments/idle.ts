import type { Kysely } from 'kysely'
import { insertAuditEvents } from '../store/audit.ts'
import { listIdle, lockEnvironment, updateEnvironment } from '../store/environments.ts'
import type { Database } from '../store/tables.ts'

const AT_A_TIME = 100

/** Stops environments in which nobody was at work for as long as their timeout; gives how many. */
export async function stopIdle(db: Kysely<Database>): Promise<number> {
  const ids = await listIdle(db, AT_A_TIME)
  for (const id of ids) {
    await db.transaction().execute(async (tx) => {
      const now = await lockEnvironment(tx, id)
      // Somebody came back, or stopped it, since it was found.
      if (!now || !(await listIdle(tx, AT_A_TIME)).includes(id)) return
      await updateEnvironment(tx, id, { desiredPhase: 'ENVIRONMENT_PHASE_STOPPED', newVersion: true })
      await insertAuditEvents(tx, [
        {
          streamUid: now.organization_uid,
          principal: { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null },
          action: 'development_environment.timeout',
          subjectUid: now.environment_uid,
          name: now.name || now.environment_uid
        }
      ])
    })
  }
  return ids.length
}
