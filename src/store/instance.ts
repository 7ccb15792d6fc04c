import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './tables.ts'

/** `epoch` counts the restores that voided all tokens. */
export async function getInstance(db: Kysely<Database>): Promise<{ uid: string; epoch: number }> {
  return await db.selectFrom('instance').select(['uid', 'epoch']).executeTakeFirstOrThrow()
}

/** Voids every token that was issued so far. */
export async function beginEpoch(tx: Transaction<Database>): Promise<void> {
  await tx.updateTable('instance').set({ epoch: sql<number>`epoch + 1` }).execute()
}
