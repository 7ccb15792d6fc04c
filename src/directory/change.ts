import type { Kysely, Transaction } from 'kysely'
import { NotFound, Unauthenticated } from '../errors.ts'
import type { Principal } from '../store/audit.ts'
import { isForeignKeyViolation } from '../store/database.ts'
import type { Database } from '../store/tables.ts'
import { holdToken } from '../store/tokens.ts'

/**
 * Runs a change of the directory as one transaction, in the name of a principal whose token is still valid
 * when it commits. An operator at the command line has no token, and neither has a GitHub App that signed a JWT.
 *
 * @param revokes whether the change may revoke that token itself
 */
export async function inTheNameOf<T>(
  db: Kysely<Database>,
  principal: Principal,
  change: (tx: Transaction<Database>) => Promise<T>,
  { revokes = false } = {}
): Promise<T> {
  const run = db.transaction().execute(async (tx) => {
    const { tokenId, needs } = principal
    if (tokenId !== null && !(await holdToken(tx, tokenId, needs, revokes))) throw new Unauthenticated(true)
    return await change(tx)
  })
  return await run.catch((error) => {
    // What the change is about was removed while it ran.
    throw isForeignKeyViolation(error) ? new NotFound() : error
  })
}
