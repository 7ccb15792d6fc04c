import type { Transaction } from 'kysely'
import { appsOf, type CollectionKind } from '../apps.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { deleteSecretsOfOwner } from '../store/secrets.ts'
import type { Database } from '../store/tables.ts'

/**
 * Removes all secrets of an owner that is about to be removed, of every app, and records each: the owner of a
 * secret is polymorphic, so no foreign key does it. The owner is locked by the caller.
 */
export async function removeSecrets(
  tx: Transaction<Database>,
  principal: Principal,
  streamUid: string,
  kind: CollectionKind,
  ownerUid: string,
  repositoryUid?: string
): Promise<void> {
  const removed = await deleteSecretsOfOwner(tx, appsOf(kind), kind, ownerUid)
  await insertAuditEvents(
    tx,
    removed.map((secret) => ({
      streamUid,
      principal,
      action: 'secret.remove',
      collection: `${secret.app}/${secret.kind}/${ownerUid}`,
      subjectUid: secret.uid,
      name: secret.name,
      valueVersion: secret.value_version,
      ...(repositoryUid && { repositoryUid })
    }))
  )
}
