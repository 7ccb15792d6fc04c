import type { Kysely, Transaction } from 'kysely'
import type { AccountsTable, Database, RepositoryRole } from './tables.ts'

/** Sets the role that an account has on a repository; true when it had none. */
export async function upsertCollaborator(
  tx: Transaction<Database>,
  repositoryId: number,
  accountId: number,
  role: RepositoryRole
): Promise<boolean> {
  const previous = await tx
    .selectFrom('collaborators')
    .select('role')
    .where('repository_id', '=', repositoryId)
    .where('account_id', '=', accountId)
    .forUpdate()
    .executeTakeFirst()
  await tx
    .insertInto('collaborators')
    .values({ repository_id: repositoryId, account_id: accountId, role })
    .onConflict((oc) => oc.columns(['repository_id', 'account_id']).doUpdateSet({ role }))
    .execute()
  return previous === undefined
}

export async function deleteCollaborator(
  tx: Transaction<Database>,
  repositoryId: number,
  accountId: number
): Promise<boolean> {
  const { numDeletedRows } = await tx
    .deleteFrom('collaborators')
    .where('repository_id', '=', repositoryId)
    .where('account_id', '=', accountId)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}

export type Collaborator = Pick<AccountsTable, 'login' | 'kind'> & {
  id: number
  uid: string
  site_admin: boolean
  role: RepositoryRole
}

export async function listCollaborators(
  db: Kysely<Database>,
  repositoryId: number,
  page: { limit: number; offset: number }
): Promise<{ total: number; collaborators: Collaborator[] }> {
  const { total } = await db
    .selectFrom('collaborators')
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .where('repository_id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  const collaborators = await db
    .selectFrom('collaborators as c')
    .innerJoin('accounts as a', 'a.id', 'c.account_id')
    .select(['a.id', 'a.uid', 'a.login', 'a.kind', 'a.site_admin', 'c.role'])
    .where('c.repository_id', '=', repositoryId)
    .orderBy('a.id')
    .limit(page.limit)
    .offset(page.offset)
    .execute()
  return { total, collaborators }
}
