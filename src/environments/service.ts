import { randomUUID } from 'node:crypto'
import type { Kysely, Transaction } from 'kysely'
import { inTheNameOf } from '../directory/change.ts'
import { forgetTokens } from '../directory/tokens.ts'
import { ClassNotAllowed, Conflict, Forbidden, InvalidInput, NotFound } from '../errors.ts'
import { lockAccount } from '../store/accounts.ts'
import { auditRow, insertAuditEvents, type Principal } from '../store/audit.ts'
import { type ClassOfRunner, findClassOfRunner } from '../store/environment-classes.ts'
import {
  deleteEnvironment,
  deleteTokensOfEnvironment,
  type EnvironmentFacts,
  insertEnvironment,
  type LockedEnvironment,
  lockEnvironment,
  updateEnvironment
} from '../store/environments.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import type { ProjectFacts } from '../store/projects.ts'
import type { EnvironmentOrigin } from '../store/resolution.ts'
import type { Database } from '../store/tables.ts'
import { compose, type SpecUpdate, update } from './compose.ts'
import { decide, type Wish } from './lifecycle.ts'
import { findRepositoryOf, firstRemote } from './repositories.ts'
import { holdsOwnSecrets, resolveAgain, resolveNow } from './resolution.ts'
import type { Choice, Explanation, ResolvedSecret } from './resolve.ts'
import type { EnvironmentSpec, Initializer, ProjectDefaults } from './spec.ts'

type Organization = Pick<OrganizationFacts, 'organization_id' | 'organization_uid'>
type Environment = Pick<
  EnvironmentFacts,
  'environment_id' | 'environment_uid' | 'organization_uid' | 'name' | 'creator_uid'
>

/** Who makes an environment. */
export interface Creator {
  principal: Principal
  organization: Organization
  /** by which roles are asked for */
  actorId: number
  /** hosts of git whose repositories are those that are known here */
  gitHosts: ReadonlySet<string>
  /** why the servers run no environments themselves; undefined: they do */
  hostedRefusal: string | undefined
}

export interface NewEnvironment {
  spec: EnvironmentSpec
  project: ProjectFacts | undefined
  name: string | undefined
  sessionId: string | undefined
  annotations: Readonly<Record<string, string>>
  /** undefined: all that resolution gives, as it is */
  choice: Choice | undefined
}

/**
 * Makes an environment: composes its spec, resolves its secrets, and leaves the rest to its runner.
 *
 * @returns its id, for a second look at what it receives, and its uid
 * @throws ClassNotAllowed for a class that the project does not allow
 * @throws InvalidInput without a class, or for one that the organization does not have
 * @throws Conflict for a class or a runner that makes none now
 * @throws NotFound for a chosen secret that resolution does not give
 */
export async function createEnvironment(
  db: Kysely<Database>,
  creator: Creator,
  { spec, project, name, sessionId, annotations, choice }: NewEnvironment
): Promise<{ id: number; uid: string }> {
  const { principal, organization } = creator
  const composed = compose(spec, project && defaultsOf(project), randomUUID)
  const initializer = composed.content?.initializer
  const repositoryId = await findRepositoryOf(db, creator.actorId, initializer, creator.gitHosts)
  const origin = originOf(creator, project, repositoryId)
  const [environmentClass, { secrets, readable }] = await Promise.all([
    requireClass(db, creator, composed, project),
    resolveNow(db, origin, choice ?? null)
  ])
  requireChosen(secrets, choice)
  const uid = randomUUID()
  const environment = {
    environment_uid: uid,
    organization_id: organization.organization_id,
    project_id: project?.project_id ?? null,
    runner_id: environmentClass.runner_id,
    environment_class_id: environmentClass.id,
    repository_id: repositoryId,
    creator_kind: principal.kind,
    creator_uid: principal.uid!,
    name: name ?? makeName(project, initializer),
    session_id: sessionId || randomUUID(),
    annotations,
    original_context_url: contextUrlOf(initializer),
    spec: composed,
    chosen_secrets: choice,
    own_secrets: origin.ownSecrets,
    resolution: secrets,
    secretIds: readable,
    held_own_secrets: holdsOwnSecrets(secrets)
  }
  const id = await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockAccount(tx, organization.organization_uid))) throw new NotFound()
    const record = auditRow({
      streamUid: organization.organization_uid,
      principal,
      action: 'development_environment.create',
      subjectUid: uid,
      name: name ?? uid
    })
    return await insertEnvironment(tx, environment, record)
  })
  return { id, uid }
}

function defaultsOf(project: ProjectFacts): ProjectDefaults {
  return {
    initializer: project.initializer as Initializer,
    devcontainerFilePath: project.devcontainer_file_path,
    automationsFilePath: project.automations_file_path,
    classUids: project.classes.flatMap(({ environment_class_uid }) => environment_class_uid ?? [])
  }
}

function originOf(
  { principal, organization }: Creator,
  project: ProjectFacts | undefined,
  repositoryId: number | null
): EnvironmentOrigin {
  return {
    organizationId: organization.organization_id,
    creatorKind: principal.kind,
    creatorUid: principal.uid!,
    projectId: project?.project_id ?? null,
    repositoryId,
    ownSecrets: actsForItself(principal)
  }
}

async function requireClass(
  db: Kysely<Database>,
  { organization, hostedRefusal }: Creator,
  { machine }: EnvironmentSpec,
  project: ProjectFacts | undefined
): Promise<ClassOfRunner> {
  const allowed = project && defaultsOf(project).classUids
  const field = 'spec.machine.class'
  if (!machine?.class) {
    if (allowed) throw new ClassNotAllowed(allowed)
    throw invalid(field, 'is required: the id of an environment class')
  }
  if (allowed && !allowed.includes(machine.class)) throw new ClassNotAllowed(allowed)
  const found = await findClassOfRunner(db, organization.organization_id, machine.class)
  if (!found) throw invalid(field, 'names no environment class of this organization')
  if (!found.enabled) throw new Conflict('The environment class is disabled.')
  if (found.hosted && hostedRefusal !== undefined) throw new Conflict(hostedRefusal)
  if (found.runner_phase === 'RUNNER_PHASE_ACTIVE') return found
  throw new Conflict('The runner of the environment class is not active: start it, or take another class.')
}

function invalid(field: string, message: string): InvalidInput {
  return new InvalidInput(`${field}: ${message}`, [{ field, code: 'invalid', message }])
}

function requireChosen(secrets: readonly ResolvedSecret[], choice: Choice | undefined): void {
  const given = new Set(secrets.map(({ id }) => id))
  if (choice?.secrets.every(({ id }) => given.has(id)) ?? true) return
  throw new NotFound('spec.secrets names a secret that this environment would not receive.')
}

/** What an environment is made from, as it was asked for. */
function contextUrlOf(initializer: Initializer | undefined): string {
  const [first] = initializer?.specs ?? []
  return first?.contextUrl?.url ?? first?.git?.remoteUri ?? ''
}

/** After what it is made from, and told apart by some random letters. */
function makeName(project: ProjectFacts | undefined, initializer: Initializer | undefined): string {
  const repository = firstRemote(initializer)
    ?.replace(/\/+$/, '')
    .split(/[/:]/)
    .at(-1)
    ?.replace(/\.git$/, '')
  const from = (project?.name ?? repository ?? '').trim() || 'environment'
  return `${[...from].slice(0, 70).join('')}-${randomUUID().slice(0, 6)}`
}

/**
 * What an environment would receive that this creator made now from these, with all that would not come in, and why.
 */
export async function explainCreation(
  db: Kysely<Database>,
  creator: Creator,
  project: ProjectFacts
): Promise<Explanation[]> {
  const initializer = project.initializer as Initializer
  const repositoryId = await findRepositoryOf(db, creator.actorId, initializer, creator.gitHosts)
  const { explanations } = await resolveNow(db, originOf(creator, project, repositoryId), null)
  return explanations
}

/** The same for one that is there. */
export async function explainEnvironment(
  db: Kysely<Database>,
  environment: EnvironmentFacts
): Promise<Explanation[]> {
  const origin: EnvironmentOrigin = {
    organizationId: environment.organization_id,
    creatorKind: environment.creator_kind,
    creatorUid: environment.creator_uid,
    projectId: environment.project_id,
    repositoryId: environment.repository_id,
    ownSecrets: environment.own_secrets
  }
  const choice = environment.chosen_secrets as Choice | null
  const { explanations } = await resolveNow(db, origin, choice)
  return explanations
}

function eventOf(principal: Principal, environment: Environment, action: string) {
  const { organization_uid, environment_uid, name } = environment
  const subject = { subjectUid: environment_uid, name: name || environment_uid }
  return { streamUid: organization_uid, principal, action: `development_environment.${action}`, ...subject }
}

async function change<T>(
  db: Kysely<Database>,
  principal: Principal,
  environment: Environment,
  run: (tx: Transaction<Database>, now: LockedEnvironment) => Promise<T>
): Promise<T> {
  return await inTheNameOf(db, principal, async (tx) => {
    const now = await lockEnvironment(tx, environment.environment_id)
    if (!now) throw new NotFound()
    return await run(tx, now)
  })
}

/**
 * Asks an environment to start, to stop, to be deleted, or into the archive and out of it.
 *
 * @throws NotFound when it is gone
 * @throws Conflict when that cannot be asked of it now
 */
export async function askEnvironment(
  db: Kysely<Database>,
  principal: Principal,
  environment: Environment,
  wish: Exclude<Wish, 'update'>
): Promise<void> {
  await change(db, principal, environment, async (tx, now) => {
    const archived = now.archived_at !== null
    const decision = decide(wish, { desiredPhase: now.desired_phase, archived })
    if ('refusal' in decision) throw new Conflict(decision.refusal)
    const { intention } = decision
    const newVersion = intention.desiredPhase !== now.desired_phase
    await updateEnvironment(tx, now.environment_id, {
      desiredPhase: intention.desiredPhase,
      ...(intention.archived !== archived && { archived: intention.archived }),
      ...(wish === 'start' && { started: true, phase: phaseAtStart(now.phase) }),
      newVersion
    })
    // One that was stopped missed what changed meanwhile.
    if (wish === 'start') await resolveAgain(tx, now.environment_id)
    await insertAuditEvents(tx, [eventOf(principal, environment, wish)])
  })
}

/** One that is stopped is so no longer: helpers of the SDK take a stopped environment for one that will not run. */
function phaseAtStart(phase: string): string {
  return phase === 'ENVIRONMENT_PHASE_STOPPED' ? 'ENVIRONMENT_PHASE_STARTING' : phase
}

/**
 * Removes an environment at once, whatever its runner does: that finds out, and cleans up.
 *
 * @returns the hashes of its tokens, for the caches
 */
export async function removeEnvironment(
  db: Kysely<Database>,
  principal: Principal,
  environment: Environment
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    const hashes = await deleteTokensOfEnvironment(tx, environment.environment_id)
    const now = await lockEnvironment(tx, environment.environment_id)
    if (!now) throw new NotFound()
    hashes.push(...(await deleteEnvironment(tx, now.environment_id)))
    await insertAuditEvents(tx, [eventOf(principal, environment, 'remove')])
    return await forgetTokens(tx, hashes)
  })
}

export interface EnvironmentUpdate {
  name?: string | undefined
  spec?: SpecUpdate | undefined
  /** text as the database reads it; null: none any more */
  lockdownAt?: string | null | undefined
  /** by which what is cloned is looked for among the repositories that are known here */
  actorId: number
  gitHosts: ReadonlySet<string>
}

/**
 * What is in an environment is changed by those who may enter it.
 *
 * @throws NotFound when it is gone, Conflict when it cannot be changed now
 * @throws Forbidden when the change would let somebody in
 */
export async function changeEnvironment(
  db: Kysely<Database>,
  principal: Principal,
  environment: Environment,
  { name, spec, lockdownAt, actorId, gitHosts }: EnvironmentUpdate
): Promise<void> {
  const initializer = spec?.content?.initializer
  const repositoryId = initializer && (await findRepositoryOf(db, actorId, initializer, gitHosts))
  const { timeout: _timeout, ...inside } = spec ?? {}
  await change(db, principal, environment, async (tx, now) => {
    const decision = decide('update', {
      desiredPhase: now.desired_phase,
      archived: now.archived_at !== null
    })
    if ('refusal' in decision) throw new Conflict(decision.refusal)
    if (Object.keys(inside).length > 0) await letIn(tx, principal, now)
    await updateEnvironment(tx, now.environment_id, {
      ...(name !== undefined && { name }),
      ...(spec && { spec: update(now.spec as EnvironmentSpec, spec) }),
      ...(lockdownAt !== undefined && { lockdownAt }),
      ...(repositoryId !== undefined && { repositoryId }),
      newVersion: spec !== undefined
    })
    if (repositoryId !== undefined) await resolveAgain(tx, now.environment_id)
    await insertAuditEvents(tx, [eventOf(principal, environment, 'update')])
  })
}

/** Somebody is at work in it. */
export async function markActive(
  db: Kysely<Database>,
  principal: Principal,
  environment: Environment,
  activity: object
): Promise<void> {
  await change(db, principal, environment, async (tx, now) => {
    await updateEnvironment(tx, now.environment_id, { active: true, activity, newVersion: false })
    await insertAuditEvents(tx, [eventOf(principal, environment, 'active')])
  })
}

const HELD_OWN_SECRETS =
  'The environment holds, or held, secrets of its creator, who alone may enter it. Ask for an environment of your own.'

/**
 * Notes that somebody enters an environment, in the transaction of what lets them in. When that is not its creator,
 * the creator's own secrets come into it no more.
 *
 * @throws Forbidden when it ever held secrets of its creator
 */
export async function enterEnvironment(
  tx: Transaction<Database>,
  principal: Principal,
  environment: Environment,
  action: string
): Promise<void> {
  const now = await lockEnvironment(tx, environment.environment_id)
  if (!now) throw new NotFound()
  await letIn(tx, principal, now)
  await updateEnvironment(tx, environment.environment_id, { active: true, newVersion: false })
  await insertAuditEvents(tx, [eventOf(principal, environment, action)])
}

async function letIn(tx: Transaction<Database>, principal: Principal, now: LockedEnvironment): Promise<void> {
  if (isCreator(principal, now)) return
  if (now.held_own_secrets) throw new Forbidden(HELD_OWN_SECRETS)
  await updateEnvironment(tx, now.environment_id, { ownSecrets: false, newVersion: false })
}

/** Whoever has a token for the environment was let in when it was made. */
function isCreator(principal: Principal, { creator_uid }: Pick<EnvironmentFacts, 'creator_uid'>): boolean {
  if (principal.kind === 'environment') return principal.issuedByUid === creator_uid
  return principal.uid === creator_uid && actsForItself(principal)
}

/** A token that somebody issued for another account is never as good as that account's own. */
function actsForItself({ kind, uid, issuedByUid }: Principal): boolean {
  return kind !== 'user' || issuedByUid === null || issuedByUid === uid
}
