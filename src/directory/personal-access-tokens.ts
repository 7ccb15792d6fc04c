import type { Kysely } from 'kysely'
import { FULL_SCOPES } from '../auth/access.ts'
import { hashToken, lastEight, makeToken } from '../auth/token.ts'
import { NotFound } from '../errors.ts'
import { type Account, lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import type { Database } from '../store/tables.ts'
import { deleteToken, findToken, insertToken } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'
import { forgetTokens, tokenEvents } from './tokens.ts'

// Tokens that users make for themselves. They may all that their user may, but do not administer the site.

export interface NewPersonalAccessToken {
  description: string
  lifetimeSeconds: number
  readOnly: boolean
}

/**
 * Makes a token of the user that asks for it; shown once. It acts in the organization that the asking token acts in,
 * and keeps the name of whoever issued that one.
 */
export async function createPersonalAccessToken(
  db: Kysely<Database>,
  principal: Principal,
  account: Pick<Account, 'id' | 'uid' | 'login'>,
  organization: Pick<OrganizationFacts, 'organization_id' | 'organization_uid'> | undefined,
  { description, lifetimeSeconds, readOnly }: NewPersonalAccessToken
): Promise<string> {
  const token = makeToken('classic')
  return await inTheNameOf(db, principal, async (tx) => {
    // Who removes the organization revokes all tokens that act in it, this one too.
    if (organization && !(await lockAccount(tx, organization.organization_uid))) throw new NotFound()
    const { id } = await insertToken(tx, {
      hash: hashToken(token),
      kind: 'classic',
      accountId: account.id,
      organizationId: organization?.organization_id ?? null,
      scopes: FULL_SCOPES,
      readOnly,
      note: description,
      lastEight: lastEight(token),
      issuedByUid: principal.issuedByUid,
      lifetimeSeconds
    })
    await insertAuditEvents(tx, tokenEvents(principal, account, 'token.create', id))
    return token
  })
}

/** Revokes a token of the user that asks for it, which may be the asking one; gives its hash, as caches hold it. */
export async function removePersonalAccessToken(
  db: Kysely<Database>,
  principal: Principal,
  account: Pick<Account, 'id' | 'uid' | 'login'>,
  tokenUid: string
): Promise<string[]> {
  return await inTheNameOf(
    db,
    principal,
    async (tx) => {
      const token = await findToken(tx, { accountId: account.id }, tokenUid)
      const hash = token && (await deleteToken(tx, token.id))
      if (!hash) throw new NotFound()
      await insertAuditEvents(tx, tokenEvents(principal, account, 'token.revoke', token.id))
      return await forgetTokens(tx, [hash])
    },
    { revokes: true }
  )
}
