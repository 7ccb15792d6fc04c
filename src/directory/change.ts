import type { Kysely, Transaction } from 'kysely'
import { NotFound, Unauthenticated } from '../errors.ts'
import type { Principal } from '../store/audit.ts'
import { isDeadlock, isForeignKeyViolation } from '../store/database.ts'
import type { Database } from '../store/tables.ts'
import { holdToken } from '../store/tokens.ts'

/** Changes that waited for each other in a circle: the one that PostgreSQL ended is tried again. */
const TRIES = 3

/**
 * Runs a change of the directory as one transaction, in the name of a principal whose token is still valid
 * when it commits. An operator at the command line has no token, and neither has a GitHub App that signed a JWT.
 *
 * @param change may run more than once, and keeps nothing outside of its transaction
 * @param revokes whether the change may revoke that token itself
 */
export async function inTheNameOf<T>(
  db: Kysely<Database>,
  principal: Principal,
  change: (tx: Transaction<Database>) => Promise<T>,
  { revokes = false } = {}
): Promise<T> {
  const run = async () =>
    await db.transaction().execute(async (tx) => {
      const { tokenId, needs } = principal
      if (tokenId !== null && !(await holdToken(tx, tokenId, needs, revokes))) throw new Unauthenticated(true)
      return await change(tx)
    })
  for (let tries = 1; ; tries++) {
    try {
      return await run()
    } catch (error) {
      if (isDeadlock(error) && tries < TRIES) continue
      // What the change is about was removed while it ran.
      throw isForeignKeyViolation(error) ? new NotFound() : error
    }
  }
}
