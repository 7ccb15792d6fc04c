import { type Kysely, sql, type Transaction } from 'kysely'
import { utc } from './repositories.ts'
import { statement } from './statement.ts'
import type { AccountKind, Database } from './tables.ts'

export interface Account {
  id: number
  uid: string
  kind: AccountKind
  login: string
  name: string | null
  email: string | null
  site_admin: boolean
  /** text, UTC, without zone */
  created_at: string
  updated_at: string
}

function accounts(db: Kysely<Database>) {
  return db
    .selectFrom('accounts')
    .select([
      'id',
      'uid',
      'kind',
      'login',
      'name',
      'email',
      'site_admin',
      utc('created_at').as('created_at'),
      utc('updated_at').as('updated_at')
    ])
}

/** Logins are compared without regard to case. */
export async function findAccount(db: Kysely<Database>, login: string): Promise<Account | undefined> {
  return await accounts(db)
    .where('login_key', '=', sql<string>`lower(${login}::text collate "C")`)
    .executeTakeFirst()
}

/** As `findAccount`, for many logins in one query: one answer for each, in their order. */
export async function findAccounts(
  db: Kysely<Database>,
  logins: readonly string[]
): Promise<(Account | undefined)[]> {
  const asked = sql<{ asked_login: string; position: number }>`
    unnest(${logins}::text[]) with ordinality`.as<'asked'>(sql`asked(asked_login, position)`)
  const rows = await accounts(db)
    .innerJoin(asked, (join) =>
      join.on('login_key', '=', sql<string>`lower(${sql.ref('asked_login')} collate "C")`)
    )
    .select('position')
    .execute()
  const found = logins.map((): Account | undefined => undefined)
  for (const { position, ...account } of rows) found[position - 1] = account
  return found
}

export async function findAccountByUid(db: Kysely<Database>, uid: string): Promise<Account | undefined> {
  return await accounts(db).where('uid', '=', uid).executeTakeFirst()
}

async function getAccountById(db: Kysely<Database>, id: number): Promise<Account> {
  return await accounts(db).where('id', '=', id).executeTakeFirstOrThrow()
}

export async function siteAdminExists(db: Kysely<Database>): Promise<boolean> {
  const row = await db
    .selectFrom('accounts')
    .select('id')
    .where('site_admin', '=', true)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

/** Refuses with unique violation `accounts_login_key_key` when the login is taken. */
export async function insertAccount(
  tx: Transaction<Database>,
  values: { kind: AccountKind; login: string; name?: string; email?: string; site_admin?: boolean }
): Promise<Account> {
  const { id } = await tx
    .insertInto('accounts')
    .values({
      kind: values.kind,
      login: values.login,
      name: values.name ?? null,
      email: values.email ?? null,
      site_admin: values.site_admin ?? false
    })
    .returning('id')
    .executeTakeFirstOrThrow()
  return await getAccountById(tx, id)
}

const lock = statement<{ accountUid: string }, { id: number }>((db, { accountUid }) =>
  db.selectFrom('accounts').select('id').where('uid', '=', accountUid).forNoKeyUpdate()
)

/** Locks the row, so that nothing is added to what the account owns; false when it is gone. */
export async function lockAccount(tx: Transaction<Database>, accountUid: string): Promise<boolean> {
  return (await lock(tx, { accountUid })).length > 0
}

export async function updateAccountName(
  tx: Transaction<Database>,
  accountId: number,
  name: string
): Promise<void> {
  await tx
    .updateTable('accounts')
    .set({ name, updated_at: sql<Date>`now()` })
    .where('id', '=', accountId)
    .execute()
}

export async function deleteAccount(tx: Transaction<Database>, accountId: number): Promise<void> {
  await tx.deleteFrom('accounts').where('id', '=', accountId).execute()
}
