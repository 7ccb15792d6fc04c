import { type Kysely, sql, type Transaction } from 'kysely'
import { inTheNameOf } from '../directory/change.ts'
import { storeEnvironmentToken } from '../directory/environment-tokens.ts'
import { forgetTokens } from '../directory/tokens.ts'
import { Conflict, LeaseTaken } from '../errors.ts'
import type {
  Assignment,
  ClaimRequest,
  Content,
  DesiredPhase,
  GitSource,
  Lease,
  SecretReference,
  StatusReport
} from '../runner/interface.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { deleteEnvironment, type LockedEnvironment } from '../store/environments.ts'
import {
  deleteTokensOfLeased,
  giveUpLeases,
  type LeasedEnvironment,
  listExisting,
  lockLeasedEnvironment,
  prolongLeases,
  type RunnerReference,
  takeLeases,
  updateStatus
} from '../store/leases.ts'
import { touchRunner } from '../store/runners.ts'
import type { Database } from '../store/tables.ts'
import { sourceOf } from './context-url.ts'
import { type EnvironmentPhase, mayFollow, phasesBefore } from './lifecycle.ts'
import type { ResolvedSecret } from './resolve.ts'
import type { EnvironmentSpec } from './spec.ts'
import { ENVIRONMENTS_CHANNEL, type Wakes } from './wakes.ts'

// Who works on which environment: leases in the database, with an epoch that refuses whoever had one before.

/** Longer than values are fetched for, even when the server is away meanwhile. */
const TOKEN_SECONDS = 24 * 3600
/** Its processes have this one until the spec changes, or the environment is started again. */
const INSIDE_TOKEN_SECONDS = 30 * 24 * 3600
/** So often it is looked for what nobody tells: leases that have run out. */
const LOOK_MS = 4_000

/** Who asks: a runner by its token, or the servers themselves. */
export interface RunnerSelf {
  principal: Principal
  runners: RunnerReference
  /** where environments reach this server */
  serverUrl: string
}

/** What {@link RunnerInterface.claim} is on this side. */
export async function claim(
  db: Kysely<Database>,
  wakes: Wakes,
  self: RunnerSelf,
  request: ClaimRequest,
  signal?: AbortSignal
): Promise<Assignment[]> {
  const end = Date.now() + request.waitSeconds * 1000
  for (;;) {
    const listening = wakes.listen(self.runners === 'hosted' ? 'hosted' : self.runners.runnerId)
    try {
      const assignments = await claimNow(db, self, request)
      const left = end - Date.now()
      if (assignments.length > 0 || left <= 0 || signal?.aborted) return assignments
      await listening.wait(Math.min(left, LOOK_MS), signal)
      if (signal?.aborted) return []
    } finally {
      listening.stop()
    }
  }
}

async function claimNow(
  db: Kysely<Database>,
  { principal, runners, serverUrl }: RunnerSelf,
  { holder, held, capacity }: ClaimRequest
): Promise<Assignment[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    if (runners !== 'hosted') await touchRunner(tx, runners.runnerId)
    const leased = await takeLeases(tx, runners, holder, capacity)
    const versions = new Map(held.map(({ environmentId, specVersion }) => [environmentId, specVersion]))
    const news = leased.filter((row) => versions.get(row.environment_uid) !== String(row.spec_version))
    const assignments: Assignment[] = []
    for (const row of news) assignments.push(await assign(tx, row, serverUrl))
    return assignments
  })
}

async function assign(
  tx: Transaction<Database>,
  row: LeasedEnvironment,
  serverUrl: string
): Promise<Assignment> {
  const spec = row.spec as EnvironmentSpec
  const secrets = (row.resolution as ResolvedSecret[]).map(referenceOf)
  const terms = { purpose: 'deliver', leaseEpoch: row.lease_epoch, lifetimeSeconds: TOKEN_SECONDS } as const
  const { token } = await storeEnvironmentToken(tx, runnerPrincipal(row), row, terms)
  return {
    environmentId: row.environment_uid,
    epoch: row.lease_epoch,
    specVersion: String(row.spec_version),
    desiredPhase: row.desired_phase as DesiredPhase,
    phase: row.phase as EnvironmentPhase,
    accessToken: token,
    insideToken: await makeInsideToken(tx, row, secrets),
    serverUrl,
    content: contentOf(spec),
    secrets
  }
}

/** Only where there is something that it reads. */
async function makeInsideToken(
  tx: Transaction<Database>,
  row: LeasedEnvironment,
  secrets: readonly SecretReference[]
): Promise<string> {
  if (!secrets.some(({ mount, problem }) => mount.kind === 'api-only' && problem === undefined)) return ''
  const terms = { purpose: 'inside', lifetimeSeconds: INSIDE_TOKEN_SECONDS } as const
  return (await storeEnvironmentToken(tx, runnerPrincipal(row), row, terms)).token
}

function runnerPrincipal({ runner_uid }: LeasedEnvironment): Principal {
  return { kind: 'runner', uid: runner_uid, tokenId: null, issuedByUid: null, requestId: null }
}

function contentOf({ content }: EnvironmentSpec): Content {
  return {
    sources: (content?.initializer?.specs ?? []).flatMap(
      (spec): GitSource | GitSource[] => sourceOf(spec) ?? []
    ),
    gitUsername: content?.gitUsername ?? '',
    gitEmail: content?.gitEmail ?? '',
    session: content?.session ?? ''
  }
}

function referenceOf({ id, name, session, mount, problem }: ResolvedSecret): SecretReference {
  return { id, name, session, mount, ...(problem !== undefined && { problem }) }
}

/** What {@link RunnerInterface.renew} is on this side. */
export async function renew(
  db: Kysely<Database>,
  { runners, principal }: RunnerSelf,
  holder: string,
  leases: readonly Lease[]
): Promise<string[]> {
  const kept = await inTheNameOf(db, principal, async (tx) => {
    if (runners !== 'hosted') await touchRunner(tx, runners.runnerId)
    return new Set(await prolongLeases(tx, runners, holder, leases))
  })
  return leases.map(({ environmentId }) => environmentId).filter((uid) => !kept.has(uid))
}

/** What {@link RunnerInterface.release} is on this side. */
export async function release(
  db: Kysely<Database>,
  { runners, principal }: RunnerSelf,
  holder: string,
  leases: readonly Lease[]
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    await giveUpLeases(tx, runners, holder, leases)
    await sql`select pg_notify(${ENVIRONMENTS_CHANNEL}, '')`.execute(tx)
  })
}

/**
 * What {@link RunnerInterface.report} is on this side: the state replaces the one before, and who watches is told when
 * it can be read. An environment that is reported as deleted is gone.
 *
 * @throws LeaseTaken when the lease has another epoch by now, or the environment is gone
 * @throws Conflict for a phase that cannot follow the present one
 */
export async function report(
  db: Kysely<Database>,
  self: RunnerSelf,
  lease: Lease,
  state: StatusReport
): Promise<void> {
  if (state.phase === 'ENVIRONMENT_PHASE_DELETED') return await remove(db, self, lease)
  const { principal, runners } = self
  const { phase, ...status } = state
  const told = {
    environmentUid: lease.environmentId,
    leaseEpoch: lease.epoch,
    phase,
    status,
    phasesBefore: phasesBefore(phase)
  }
  const tell = (to: Kysely<Database>) => updateStatus(to, runners, told)
  // Without a token to hold, one statement is a transaction of its own.
  if (await (principal.tokenId === null ? tell(db) : inTheNameOf(db, principal, tell))) return
  await inTheNameOf(db, principal, async (tx) => {
    await lockLeased(tx, self, lease, phase)
    await tell(tx)
  })
}

/** What is reported as deleted is gone, with its tokens. */
async function remove(db: Kysely<Database>, self: RunnerSelf, lease: Lease): Promise<void> {
  const { principal, runners } = self
  await inTheNameOf(db, principal, async (tx) => {
    const hashes = await deleteTokensOfLeased(tx, lease.environmentId, lease.epoch, runners)
    const now = await lockLeased(tx, self, lease, 'ENVIRONMENT_PHASE_DELETED')
    if (now.desired_phase !== 'ENVIRONMENT_PHASE_DELETED') {
      throw new Conflict('Nobody asked for this environment to be deleted.')
    }
    hashes.push(...(await deleteEnvironment(tx, now.environment_id)))
    await forgetTokens(tx, hashes)
    await insertAuditEvents(tx, [
      {
        streamUid: now.organization_uid,
        principal,
        action: 'development_environment.remove',
        subjectUid: now.environment_uid,
        name: now.name || now.environment_uid
      }
    ])
  })
}

/** @throws LeaseTaken, Conflict */
async function lockLeased(
  tx: Transaction<Database>,
  { runners }: RunnerSelf,
  { environmentId, epoch }: Lease,
  phase: EnvironmentPhase
): Promise<LockedEnvironment> {
  const now = await lockLeasedEnvironment(tx, environmentId, epoch, runners)
  if (!now) throw new LeaseTaken()
  if (mayFollow(now.phase as EnvironmentPhase, phase)) return now
  throw new Conflict(`An environment in ${now.phase} cannot be in ${phase} next.`)
}

/** What {@link RunnerInterface.findEnvironments} is on this side. */
export async function findEnvironments(
  db: Kysely<Database>,
  { runners }: RunnerSelf,
  environmentIds: readonly string[]
): Promise<string[]> {
  return await listExisting(db, runners, environmentIds)
}
