import type { Kysely } from 'kysely'
import { insertAuditEvents } from '../store/audit.ts'
import { listIdle, lockIdle, updateEnvironment } from '../store/environments.ts'
import type { Database } from '../store/tables.ts'

const AT_A_TIME = 100

/** Stops environments in which nobody was at work for as long as their timeout. */
export async function stopIdle(db: Kysely<Database>): Promise<void> {
  for (;;) {
    const ids = await listIdle(db, AT_A_TIME)
    for (const id of ids) await stop(db, id)
    if (ids.length < AT_A_TIME) return
  }
}

async function stop(db: Kysely<Database>, environmentId: number): Promise<void> {
  await db.transaction().execute(async (tx) => {
    const now = await lockIdle(tx, environmentId)
    if (!now) return
    await updateEnvironment(tx, environmentId, {
      desiredPhase: 'ENVIRONMENT_PHASE_STOPPED',
      newVersion: true
    })
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
