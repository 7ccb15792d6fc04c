import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'

/** The server that wrote the last checkpoint goes on; another one takes its place when it has not for so long. */
const TAKEOVER = sql`interval '90 seconds'`

export interface ClaimedCheckpoint {
  counter: number
  /** hash of the statement before */
  previous: Buffer | null
  taken_at: Date
}

/**
 * Takes the next checkpoint, if one is due and it is this server's turn. Its counter is nobody else's: the row stays
 * locked until the transaction ends.
 *
 * @param leastCounter the last counter that this server's own files know of; when the database knows of fewer, one
 *   is left out, since the statement that it names as the one before is not that of the files
 */
export async function claimCheckpoint(
  tx: Transaction<Database>,
  {
    nodeUid,
    key,
    leastCounter,
    intervalMs
  }: { nodeUid: string; key: string; leastCounter: number; intervalMs: number }
): Promise<ClaimedCheckpoint | undefined> {
  await sql`insert into audit_checkpoint (counter, taken_at) values (0, '-infinity')
    on conflict (only_row) do nothing`.execute(tx)
  const { rows } = await sql<ClaimedCheckpoint>`
    update audit_checkpoint set
      counter = case when counter < ${leastCounter}::bigint then ${leastCounter}::bigint + 2 else counter + 1 end,
      key = ${key}, node_uid = ${nodeUid}::uuid,
      taken_at = greatest(taken_at, date_trunc('milliseconds', clock_timestamp()))
    where taken_at <= clock_timestamp() - case when node_uid is null or node_uid = ${nodeUid}::uuid
      then make_interval(secs => ${intervalMs / 1000}::double precision) else ${TAKEOVER} end
    returning counter, hash as previous, taken_at`.execute(tx)
  return rows[0]
}

export async function storeCheckpointHash(tx: Transaction<Database>, hash: Buffer): Promise<void> {
  await tx.updateTable('audit_checkpoint').set({ hash }).execute()
}

/** Lets another server write the next one as soon as it is due. */
export async function releaseCheckpoints(db: Kysely<Database>, nodeUid: string): Promise<void> {
  await db.updateTable('audit_checkpoint').set({ node_uid: null }).where('node_uid', '=', nodeUid).execute()
}

/** The last checkpoint; undefined before the first. */
export async function findLastCheckpoint(
  db: Kysely<Database>
): Promise<{ counter: number; key: string | null } | undefined> {
  return await db
    .selectFrom('audit_checkpoint')
    .select(['counter', 'key'])
    .where('counter', '>', 0)
    .executeTakeFirst()
}
