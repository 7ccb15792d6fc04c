import type { Kysely } from 'kysely'
import { Conflict, InvalidInput, NotFound } from '../errors.ts'
import { lockAccount } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { withdrawClassesOf } from '../store/environment-classes.ts'
import { deleteTokensOfEnvironmentsOn, lockEnvironmentsOn } from '../store/environments.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import {
  deleteRunner,
  excludeUsersOfRunner,
  findRunner,
  insertRunner,
  lockRunner,
  updateRunner
} from '../store/runners.ts'
import type { Database } from '../store/tables.ts'
import { deleteTokensOfRunner } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'
import { removeEnvironments } from './owned-environments.ts'
import { storeExchangeToken } from './runner-tokens.ts'
import { forgetTokens } from './tokens.ts'

type Organization = Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>

/** Which kind of runner each provider makes; those that are missing are Ona's own. */
const KINDS: Readonly<Record<string, string>> = {
  RUNNER_PROVIDER_AWS_EC2: 'RUNNER_KIND_REMOTE',
  RUNNER_PROVIDER_GCP: 'RUNNER_KIND_REMOTE',
  RUNNER_PROVIDER_LINUX_HOST: 'RUNNER_KIND_REMOTE',
  RUNNER_PROVIDER_DESKTOP_MAC: 'RUNNER_KIND_LOCAL'
}
/** Of a runner that was registered by its kind alone. */
export const NO_PROVIDER = 'RUNNER_PROVIDER_UNSPECIFIED'

/** What a request sets of a runner; what is undefined stays. */
export interface RunnerSettings {
  name?: string | undefined
  desiredPhase?: string | undefined
  configuration?: RunnerConfiguration | undefined
}

/** By Ona's names; nothing here acts on it. It never has a credential. */
export type RunnerConfiguration = Readonly<Record<string, unknown>> & {
  readonly metrics?: Readonly<Record<string, unknown>>
}

export interface NewRunner extends RunnerSettings {
  name: string
  kind?: string | undefined
  provider?: string | undefined
}

function requireKind({ kind, provider }: NewRunner): { kind: string; provider: string } {
  if (provider === undefined) {
    if (kind === undefined) throw invalid('provider', 'set provider, from which the kind follows, or kind')
    return { kind, provider: NO_PROVIDER }
  }
  const implied = KINDS[provider]
  if (implied === undefined) throw invalid('provider', `must be one of ${Object.keys(KINDS).join(', ')}`)
  if (kind !== undefined && kind !== implied) {
    throw invalid('kind', 'is not that of the provider; leave it out, and it follows from the provider')
  }
  return { kind: implied, provider }
}

function invalid(field: string, message: string): InvalidInput {
  return new InvalidInput(`${field}: ${message}`, [{ field, code: 'invalid', message }])
}

/** A configuration with what is given of it changed. */
function changed(stored: RunnerConfiguration, given: RunnerConfiguration): RunnerConfiguration {
  const metrics = { ...stored.metrics, ...given.metrics }
  return { ...stored, ...given, ...(Object.keys(metrics).length > 0 && { metrics }) }
}

/**
 * Registers a runner, with the first token that it can be exchanged for its own.
 *
 * @returns its uid and the exchange token, which is shown once
 * @throws InvalidInput for a kind that is not the provider's, or without both
 */
export async function createRunner(
  db: Kysely<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Organization,
  runner: NewRunner
): Promise<{ uid: string; exchangeToken: string }> {
  const { name, desiredPhase, configuration } = runner
  const { kind, provider } = requireKind(runner)
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization_uid))) throw new NotFound()
    const { id, uid } = await insertRunner(tx, {
      organization_id,
      name,
      kind,
      provider,
      hosted: false,
      desired_phase: desiredPhase ?? 'RUNNER_PHASE_ACTIVE',
      configuration: changed({}, configuration ?? {}),
      creator_kind: principal.kind,
      creator_uid: principal.uid
    })
    await insertAuditEvents(tx, [
      { streamUid: organization_uid, principal, action: 'runner.create', subjectUid: uid, name }
    ])
    const exchangeToken = await storeExchangeToken(tx, principal, organization_uid, { id, uid, name })
    return { uid, exchangeToken }
  })
}

function hasEnvironments(number: number): string {
  return `The runner has ${number} environments: delete them first, or delete the runner with force.`
}

const HOSTED =
  'This runner is the server itself: it cannot be deleted. Set its desiredPhase to RUNNER_PHASE_INACTIVE.'

/** Changes what is given of a runner; throws `NotFound` when the organization has none of this id. */
export async function updateRunnerSettings(
  db: Kysely<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Organization,
  runnerUid: string,
  { name, desiredPhase, configuration }: RunnerSettings
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    const runner = await lockRunner(tx, organization_id, runnerUid)
    if (!runner) throw new NotFound()
    await updateRunner(tx, runner.runner_id, {
      ...(name !== undefined && { name }),
      ...(desiredPhase !== undefined && { desired_phase: desiredPhase }),
      ...(configuration && { configuration: changed(runner.configuration, configuration) })
    })
    await insertAuditEvents(tx, [
      {
        streamUid: organization_uid,
        principal,
        action: 'runner.update',
        subjectUid: runnerUid,
        name: name ?? runner.name
      }
    ])
  })
}

/**
 * Removes a runner with its tokens and its classes, which projects allow no more.
 *
 * @param force with its environments, too, which it finds out when it asks again
 *
 * @returns the hashes of the revoked tokens, as caches hold them
 * @throws NotFound when the organization has none of this id
 * @throws Conflict for the hosted one: the servers go on; and without force for one that has environments
 */
export async function removeRunner(
  db: Kysely<Database>,
  principal: Principal,
  { organization_id, organization_uid }: Organization,
  runnerUid: string,
  force: boolean
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    const runner = await findRunner(tx, organization_id, runnerUid)
    if (!runner) throw new NotFound()
    if (runner.hosted) throw new Conflict(HOSTED)
    // Who acts with a token of the runner holds that first; what was exchanged meanwhile goes after.
    const hashes = await deleteTokensOfRunner(tx, runner.runner_id)
    if (!(await lockRunner(tx, organization_id, runnerUid))) throw new NotFound()
    hashes.push(...(await deleteTokensOfRunner(tx, runner.runner_id)))
    hashes.push(...(await deleteTokensOfEnvironmentsOn(tx, runner.runner_id)))
    const removeAll = async () => {
      const environments = await lockEnvironmentsOn(tx, 'runner', runner.runner_id)
      if (environments.length > 0 && !force) throw new Conflict(hasEnvironments(environments.length))
      hashes.push(...(await removeEnvironments(tx, principal, environments)))
    }
    await removeAll()
    const classes = await withdrawClassesOf(tx, runner.runner_id)
    await excludeUsersOfRunner(tx, runner.runner_id)
    // Those that were made meanwhile.
    await removeAll()
    await deleteRunner(tx, runner.runner_id)
    const common = { streamUid: organization_uid, principal }
    await insertAuditEvents(tx, [
      ...classes.map(({ uid, display_name }) => ({
        ...common,
        action: 'environment_class.remove',
        subjectUid: uid,
        name: display_name
      })),
      { ...common, action: 'runner.remove', subjectUid: runnerUid, name: runner.name }
    ])
    return await forgetTokens(tx, hashes)
  })
}
