import type { Kysely, Transaction } from 'kysely'
import { hashToken, isExchangeToken, lastEight, makeExchangeToken, makeToken } from '../auth/token.ts'
import { Conflict, NotFound } from '../errors.ts'
import { lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import {
  deleteEndedExchangeTokens,
  findRunnerOfExchangeToken,
  insertExchangeToken,
  lockRunner,
  takeExchangeToken,
  touchRunner
} from '../store/runners.ts'
import type { Database } from '../store/tables.ts'
import { deleteExpiredTokens, insertToken } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'

/** As long as on Ona: time to bring it to a machine, and no longer. */
const EXCHANGE_TOKEN_SECONDS = 86_400
/** A day, so that what was stolen from a runner's machine ends by itself. */
const RUNNER_TOKEN_SECONDS = 86_400
/** More than are made at a time, so that those that ended never pile up. */
const CLEARED_AT_A_TIME = 100

/** Stores a new exchange token for a locked runner, with its audit record; it is shown once, stored nowhere. */
export async function storeExchangeToken(
  tx: Transaction<Database>,
  principal: Principal,
  organizationUid: string,
  runner: { id: number; uid: string; name: string }
): Promise<string> {
  const exchangeToken = makeExchangeToken()
  await deleteEndedExchangeTokens(tx, runner.id)
  await insertExchangeToken(tx, {
    hash: hashToken(exchangeToken),
    runnerId: runner.id,
    issuedByUid: principal.uid,
    lifetimeSeconds: EXCHANGE_TOKEN_SECONDS
  })
  await insertAuditEvents(tx, [
    {
      streamUid: organizationUid,
      principal,
      action: 'runner.token.create',
      subjectUid: runner.uid,
      name: runner.name
    }
  ])
  return exchangeToken
}

/**
 * Makes a token that a runner can exchange for its own, once, within a day.
 *
 * @throws NotFound when the organization has no runner of this id
 * @throws Conflict for the hosted one
 */
export async function createExchangeToken(
  db: Kysely<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>,
  runnerUid: string
): Promise<string> {
  return await inTheNameOf(db, principal, async (tx) => {
    const runner = await lockRunner(tx, organization_id, runnerUid)
    if (!runner) throw new NotFound()
    if (runner.hosted) throw new Conflict('This runner is the server itself: it needs no token.')
    const { runner_id: id, name } = runner
    return await storeExchangeToken(tx, principal, organization_uid, { id, uid: runnerUid, name })
  })
}

/**
 * Gives a runner its token for an exchange token, which is used up by that, whatever becomes of the answer.
 *
 * @param from the request, which nobody has signed; `address` is undefined for the unix socket
 * @returns the token; undefined when the exchange token is none, was used, has ended, or is void after a restore
 */
export async function exchangeRunnerToken(
  db: Kysely<Database>,
  exchangeToken: string,
  from: { requestId: string; address: string | undefined }
): Promise<string | undefined> {
  if (!isExchangeToken(exchangeToken)) return undefined
  const hash = hashToken(exchangeToken)
  return await db.transaction().execute(async (tx) => {
    const found = await findRunnerOfExchangeToken(tx, hash)
    // Locked from the top down, as by whoever removes the organization or the runner.
    if (!found || !(await lockAccount(tx, found.organization_uid))) return undefined
    const runner = await lockRunner(tx, found.organization_id, found.runner_uid)
    const taken = runner && (await takeExchangeToken(tx, hash))
    return taken && (await storeRunnerToken(tx, found, runner, taken.issued_by_uid, from))
  })
}

async function storeRunnerToken(
  tx: Transaction<Database>,
  organization: { organization_id: number; organization_uid: string },
  { runner_id, runner_uid, name }: { runner_id: number; runner_uid: string; name: string },
  issuedByUid: string | null,
  { requestId, address }: { requestId: string; address: string | undefined }
): Promise<string> {
  const token = makeToken('runner')
  await deleteExpiredTokens(tx, { runnerId: runner_id }, CLEARED_AT_A_TIME)
  const { id } = await insertToken(tx, {
    hash: hashToken(token),
    kind: 'runner',
    accountId: organization.organization_id,
    organizationId: organization.organization_id,
    runnerId: runner_id,
    lastEight: lastEight(token),
    issuedByUid,
    lifetimeSeconds: RUNNER_TOKEN_SECONDS
  })
  await touchRunner(tx, runner_id)
  const principal: Principal = {
    kind: 'runner',
    uid: runner_uid,
    login: name,
    tokenId: null,
    issuedByUid,
    requestId
  }
  await insertAuditEvents(tx, [
    {
      streamUid: organization.organization_uid,
      principal,
      action: 'runner.token.exchange',
      subjectUid: runner_uid,
      name: `${name}#${id}`,
      ...(address !== undefined && { address })
    }
  ])
  return token
}

/** Gives a runner another token of its own; the one that it asks with stays valid until it ends. */
export async function renewRunnerToken(
  db: Kysely<Database>,
  principal: Principal,
  organization: Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>,
  runner: { runner_id: number; runner_uid: string; name: string },
  from: { requestId: string; address: string | undefined }
): Promise<string> {
  return await inTheNameOf(db, principal, (tx) =>
    storeRunnerToken(tx, organization, runner, principal.issuedByUid, from)
  )
}
