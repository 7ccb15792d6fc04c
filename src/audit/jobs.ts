import path from 'node:path'
import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import { RefusedToStart } from '../errors.ts'
import { describeError } from '../logger.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { findSealingDelay } from '../store/audit-chain.ts'
import { findLastCheckpoint } from '../store/audit-checkpoint.ts'
import { getInstance } from '../store/instance.ts'
import type { Database } from '../store/tables.ts'
import { CheckpointFiles } from './checkpoint-files.ts'
import { Checkpointer } from './checkpointer.ts'
import { type AuditKey, createAuditKey, readAuditKey } from './key.ts'
import { Retention } from './retention.ts'
import { Sealer } from './sealer.ts'

const WATCH_MS = 60_000
const LONG_DELAY_SECONDS = 60
const SYSTEM: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

export interface AuditSettings {
  dataDir: string
  /** undefined: in the data folder, made when it is missing */
  auditKeyFile: string | undefined
  /** the folder for checkpoints; undefined: in the data folder */
  auditCheckpoints: string | undefined
  /** undefined: records stay forever */
  auditRetentionDays: number | undefined
}

/** What the jobs tell of themselves. */
export interface AuditMeasures {
  auditSealed(records: number): void
  auditJobFailed(job: 'seal' | 'checkpoint'): void
  auditDelay(seconds: number): void
  auditCheckpointTaken(at: Date): void
}

export function auditKeyFileOf({ auditKeyFile, dataDir }: AuditSettings): string {
  return auditKeyFile ?? path.join(dataDir, 'keys', 'audit-key')
}

export function checkpointsOf({ auditCheckpoints, dataDir }: AuditSettings): string {
  return auditCheckpoints ?? path.join(dataDir, 'audit')
}

/**
 * Seals, takes checkpoints and removes what is past its time, until `stop`; on any number of servers at once.
 *
 * @throws RefusedToStart when key or folder cannot be used
 */
export async function startAudit(
  db: Kysely<Database>,
  settings: AuditSettings,
  measures: AuditMeasures,
  logger: Logger
): Promise<{ stop(): Promise<void> }> {
  const { uid: instanceUid } = await getInstance(db)
  const key = await openAuditKey(db, settings, instanceUid, logger)
  const sealer = new Sealer(
    db,
    instanceUid,
    {
      onSealed: (records) => measures.auditSealed(records),
      onFailure: () => measures.auditJobFailed('seal')
    },
    logger
  )
  const checkpointer = new Checkpointer(
    { db, instanceUid, key, files: new CheckpointFiles(checkpointsOf(settings)) },
    {
      onTaken: ({ created_at }) => measures.auditCheckpointTaken(new Date(created_at)),
      onFailure: () => measures.auditJobFailed('checkpoint')
    },
    logger
  )
  await checkpointer.start()
  sealer.start()
  const { auditRetentionDays: days } = settings
  const retention = days === undefined ? undefined : new Retention({ db, instanceUid, key }, days, logger)
  retention?.start()
  const watch = setInterval(() => void watchDelay(db, measures, logger), WATCH_MS)
  watch.unref()
  return {
    async stop() {
      clearInterval(watch)
      await retention?.stop()
      await sealer.stop()
      await checkpointer.stop()
    }
  }
}

/** A new key is made where there is none, and that is recorded; but not where the operator said that one is. */
async function openAuditKey(
  db: Kysely<Database>,
  settings: AuditSettings,
  instanceUid: string,
  logger: Logger
): Promise<AuditKey> {
  const file = auditKeyFileOf(settings)
  const last = await findLastCheckpoint(db)
  const present = await readAuditKey(file)
  if (!present && settings.auditKeyFile && last) {
    throw new RefusedToStart(
      `COFFER_AUDIT_KEY_FILE names no file (${file}), and checkpoints were signed with the key ${last.key} so far. ` +
        `Put the file back; if it is lost, make another key: openssl genpkey -algorithm ed25519 -out '${file}'`
    )
  }
  const key = present ?? (await createAuditKey(file))
  if (!present) {
    await insertAuditEvents(db, [
      { streamUid: instanceUid, principal: SYSTEM, action: 'audit_key.create', name: key.fingerprint }
    ])
  }
  if (last?.key && last.key !== key.fingerprint) {
    logger.warn(
      { audit_key: key.fingerprint, previous_audit_key: last.key },
      'audit checkpoints are signed with another key than the last one: keep both public keys'
    )
  }
  return key
}

/** A transaction that stays open anywhere in the cluster holds the sealer up. */
async function watchDelay(db: Kysely<Database>, measures: AuditMeasures, logger: Logger): Promise<void> {
  try {
    const seconds = (await findSealingDelay(db)) ?? 0
    measures.auditDelay(seconds)
    if (seconds > LONG_DELAY_SECONDS) {
      logger.warn(
        { seconds: Math.round(seconds) },
        'audit records wait to be sealed: a transaction of this PostgreSQL has been open for long'
      )
    }
  } catch (error) {
    logger.debug({ err: describeError(error) }, 'the delay of the audit is not known')
  }
}
