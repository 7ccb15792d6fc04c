import type { Logger } from 'pino'
import { CofferError, Conflict } from '../errors.ts'
import { Delivery, TOKEN_FILE } from './delivery.ts'
import type { ExecRequest } from './exec-request.ts'
import type { Folders } from './folders.ts'
import {
  type Assignment,
  type EnvironmentPhase,
  LeaseLost,
  type RunnerInterface,
  type SecretReference,
  type SecretStatus
} from './interface.ts'
import { pauseAfter } from './patience.ts'
import { Processes } from './processes.ts'
import { Reports } from './reports.ts'
import type { EnvironmentFolders, Sandbox, SandboxedProcess } from './sandbox.ts'
import { Values } from './values.ts'
import { variablesOf } from './variables.ts'
import { Workspace } from './workspace.ts'

/** Between tries of what fails for reasons that seldom go by themselves, as a full disk. */
const LONGEST_PAUSE_MS = 60_000
const UNISOLATED =
  'Processes of this environment are not isolated: they run as the user of the runner, and see what it sees.'

export interface EnvironmentContext {
  server: Pick<RunnerInterface, 'report' | 'readSecret' | 'parallelReads'>
  sandbox: Sandbox
  folders: Folders
  cloneTimeoutMs: number
  logger: Logger
  /** it was deleted, or its lease was lost, and nothing of it runs any more */
  onLeft: (environment: Environment) => void
}

/**
 * Makes one environment become what its newest assignment says: one step at a time, by one loop. A step that a newer
 * assignment made pointless is aborted; otherwise the newer one follows it.
 */
export class Environment {
  readonly id: string
  readonly #context: EnvironmentContext
  readonly #folders: EnvironmentFolders
  readonly #logger: Logger
  readonly #reports: Reports
  readonly #values = new Values()
  readonly #delivery: Delivery
  readonly #workspace: Workspace
  readonly #processes: Processes
  readonly #variables: Record<string, string>
  /** the newest, the one that is worked on, and the last that was reached */
  #assignment: Assignment
  #acting: Assignment
  #reached: Assignment | undefined
  #phase: EnvironmentPhase
  #failure: string | undefined
  /** what a clone was tried with that failed */
  #failedAttempt = ''
  /** whether processes may be started */
  #open = false
  #step = new AbortController()
  #rest = new AbortController()
  #busy = false
  #working: Promise<void> = Promise.resolve()
  #leaving: Promise<void> | undefined

  constructor(assignment: Assignment, context: EnvironmentContext) {
    const { server, sandbox, folders, logger } = context
    this.id = assignment.environmentId
    this.#context = context
    this.#folders = folders.of(this.id)
    this.#logger = logger.child({ environment: this.id })
    this.#reports = new Reports(server, (epoch) => {
      if (epoch === this.#assignment.epoch) void this.leave()
    })
    this.#delivery = new Delivery(sandbox, this.#folders, folders.user)
    this.#workspace = new Workspace(this.id, folders, sandbox)
    this.#processes = new Processes(() => {
      if (this.#open) this.#report(this.#phase)
    })
    this.#variables = variablesOf(this.id, sandbox.inside(this.#folders))
    this.#assignment = assignment
    this.#acting = assignment
    this.#phase = assignment.phase
    this.#work()
  }

  /** The newest. */
  get assignment(): Assignment {
    return this.#assignment
  }

  get isLeft(): boolean {
    return this.#leaving !== undefined
  }

  assign(assignment: Assignment): void {
    const before = this.#assignment
    this.#assignment = assignment
    if (isOtherWork(before, assignment)) this.#step.abort()
    this.#rest.abort()
    this.#work()
  }

  /**
   * Ends its processes and takes its secrets away, without a word to the server: somebody else has the environment, or
   * will. Its workspace stays.
   */
  async leave(): Promise<void> {
    this.#leaving ??= this.#leave()
    await this.#leaving
  }

  /** Where its content lies, for its processes; undefined: there is none yet. */
  get location(): string | undefined {
    return this.#workspace.status?.location
  }

  /**
   * Starts a process in the environment, with the secrets that are delivered now.
   *
   * @throws Conflict when the environment is not running
   */
  async start(request: ExecRequest): Promise<SandboxedProcess> {
    if (!this.#open) throw new Conflict('The environment is not running.')
    const { sandbox } = this.#context
    const variables = [...this.#delivery.variables.values()]
    // What is held is zeroed when it is replaced, which may be while the process starts.
    const secrets = Object.fromEntries(variables.map(({ name, value }) => [name, copyOf(value)]))
    const starting = sandbox.start(this.#folders, {
      ...request,
      variables: { ...secrets, ...this.#variables, ...this.#serverVariables() },
      links: this.#delivery.freshLinks
    })
    try {
      return await this.#processes.add(starting, variables)
    } finally {
      for (const value of Object.values(secrets)) value.fill(0)
    }
  }

  /** Where a process asks for what is not delivered, and with which token; none where there is nothing of that kind. */
  #serverVariables(): Record<string, string> {
    const { insideToken, serverUrl } = this.#acting
    if (insideToken === '') return {}
    const { secrets } = this.#context.sandbox.inside(this.#folders)
    return { COFFER_URL: serverUrl, COFFER_TOKEN_FILE: `${secrets}/${TOKEN_FILE}` }
  }

  #work(): void {
    if (!this.#busy) this.#working = this.#run()
  }

  async #run(): Promise<void> {
    this.#busy = true
    let failures = 0
    while (!this.isLeft && this.#assignment !== this.#reached) {
      const assignment = this.#assignment
      if (assignment !== this.#acting) this.#failure = undefined
      this.#acting = assignment
      this.#step = new AbortController()
      this.#rest = new AbortController()
      try {
        await this.#become(assignment, this.#step.signal)
        this.#reached = assignment
        failures = 0
      } catch (error) {
        if (this.isLeft || this.#assignment !== assignment) continue
        if (error instanceof LeaseLost) {
          void this.leave()
          continue
        }
        failures += 1
        this.#fail(error)
        await pauseAfter(failures, this.#rest.signal, LONGEST_PAUSE_MS).catch(() => {})
      }
    }
    this.#busy = false
  }

  async #become(assignment: Assignment, signal: AbortSignal): Promise<void> {
    switch (assignment.desiredPhase) {
      case 'ENVIRONMENT_PHASE_RUNNING':
        return this.#open ? await this.#update(assignment, signal) : await this.#bringUp(assignment, signal)
      case 'ENVIRONMENT_PHASE_STOPPED':
        return await this.#stop()
      case 'ENVIRONMENT_PHASE_DELETED':
        return await this.#delete(signal)
    }
  }

  async #bringUp(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const { content, secrets } = assignment
    const attempt = JSON.stringify([content.session, secrets.filter(isForGit)])
    if (attempt === this.#failedAttempt) return this.#failClone()
    this.#values.retain(idsOf(secrets))
    const isWhole = await this.#workspace.find()
    await this.#workspace.prepare(content, signal)
    const goesOn = isWhole && isUp(this.#phase)
    this.#report(goesOn ? 'ENVIRONMENT_PHASE_UPDATING' : 'ENVIRONMENT_PHASE_STARTING')

    // Git asks for its credentials while it clones; all the others come meanwhile.
    await this.#fetch(assignment, secrets.filter(isForGit), signal)
    this.#delivery.update(secrets, this.#values, assignment.insideToken)
    await this.#fetchAndFill(assignment, signal)
    if (this.#workspace.failure) {
      this.#failedAttempt = attempt
      await this.#withdraw()
      return this.#failClone()
    }
    await this.#deliver(assignment, signal)
    this.#open = true
    this.#succeed('ENVIRONMENT_PHASE_RUNNING')
  }

  /** That is final, until there is other content or another credential, or the environment is stopped. */
  #failClone(): void {
    this.#failure = this.#workspace.failure
    this.#report('ENVIRONMENT_PHASE_STARTING')
  }

  async #update(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const before = this.#reached?.secrets
    if (JSON.stringify(before) !== JSON.stringify(assignment.secrets)) {
      // What is not given any more goes first, whether or not the server gives what is new.
      this.#values.retain(idsOf(assignment.secrets))
      this.#delivery.update(assignment.secrets, this.#values, assignment.insideToken)
      this.#report('ENVIRONMENT_PHASE_UPDATING')
    }
    await this.#fetch(assignment, assignment.secrets, signal)
    await this.#deliver(assignment, signal)
    this.#succeed('ENVIRONMENT_PHASE_RUNNING')
  }

  async #stop(): Promise<void> {
    if (this.#phase !== 'ENVIRONMENT_PHASE_STOPPED') this.#report('ENVIRONMENT_PHASE_STOPPING')
    await this.#withdraw()
    await this.#workspace.find()
    this.#failedAttempt = ''
    this.#succeed('ENVIRONMENT_PHASE_STOPPED')
  }

  async #delete(signal: AbortSignal): Promise<void> {
    this.#report('ENVIRONMENT_PHASE_DELETING')
    await this.#withdraw()
    await this.#workspace.remove(signal)
    this.#succeed('ENVIRONMENT_PHASE_DELETED')
    await this.#reports.settled()
    void this.leave()
  }

  async #leave(): Promise<void> {
    this.#reports.drop()
    this.#step.abort()
    this.#rest.abort()
    await this.#working
    await this.#withdraw().catch((err) => this.#logger.error({ err }, 'an environment could not be left'))
    this.#context.onLeft(this)
  }

  /** Ends all processes; nothing is delivered any more. */
  async #withdraw(): Promise<void> {
    this.#open = false
    const { ended } = await this.#processes.kill()
    this.#delivery.withdraw()
    this.#values.retain(new Set())
    this.#values.release()
    await this.#context.folders.removeSecrets(this.id)
    await ended
  }

  /**
   * Fetches values while the workspace is filled and has its links. The failure of one aborts the other, and is the one
   * that counts.
   */
  async #fetchAndFill(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const failed = new AbortController()
    const both = AbortSignal.any([signal, failed.signal])
    const abort = (error: unknown) => failed.abort(error)
    const { hasGitCredentials: hasCredentials } = this.#delivery
    const { cloneTimeoutMs: timeoutMs } = this.#context
    const fill = async () => {
      await this.#workspace.fill(assignment.content, { hasCredentials, timeoutMs, signal: both })
      if (!this.#workspace.failure) await this.#link(both)
    }
    await Promise.all([this.#fetch(assignment, assignment.secrets, both).catch(abort), fill().catch(abort)])
    both.throwIfAborted()
  }

  async #fetch(
    { accessToken }: Assignment,
    references: readonly SecretReference[],
    signal: AbortSignal
  ): Promise<void> {
    const { server } = this.#context
    await this.#values.fetch(
      references.filter(isFetched),
      (secretId) => server.readSecret(accessToken, secretId),
      server.parallelReads,
      signal
    )
  }

  async #deliver({ secrets, insideToken }: Assignment, signal: AbortSignal): Promise<void> {
    this.#delivery.update(secrets, this.#values, insideToken)
    await this.#link(signal)
  }

  async #link(signal: AbortSignal): Promise<void> {
    const links = this.#delivery.keptLinks
    // Links are on record from before they are made until after they are removed.
    await this.#workspace.remember({ ...this.#workspace.links, ...links })
    await this.#delivery.link(this.#workspace.links, signal)
    await this.#workspace.remember(links)
  }

  #fail(error: unknown): void {
    this.#logger.error({ err: error }, 'an environment does not become what it should')
    const { code } = error as NodeJS.ErrnoException
    this.#failure =
      error instanceof CofferError
        ? error.message
        : `The runner failed (${code ?? 'see its log'}); it tries again.`
    this.#report(this.#phase)
  }

  #succeed(phase: EnvironmentPhase): void {
    this.#failure = undefined
    this.#report(phase)
  }

  #report(phase: EnvironmentPhase): void {
    if (phase !== this.#phase) this.#logger.info({ phase }, 'an environment has another phase')
    this.#phase = phase
    const { status: content } = this.#workspace
    const { epoch, specVersion, secrets } = this.#acting
    this.#reports.offer(
      { environmentId: this.id, epoch },
      {
        phase,
        specVersion,
        ...(this.#failure && { failureMessage: this.#failure }),
        ...(!this.#context.sandbox.isolated && { warningMessage: UNISOLATED }),
        ...(content && { content }),
        secrets: secrets.map((reference) => this.#describeSecret(reference)),
        secretsInSync: this.#processes.areInSync(this.#delivery.variables.values())
      }
    )
  }

  #describeSecret(reference: SecretReference): SecretStatus {
    const { id, name } = reference
    const withheld = isDown(this.#phase) || this.#workspace.failure !== undefined
    if (withheld) return { id, secretName: name, phase: 'CONTENT_PHASE_UNAVAILABLE', session: '' }
    return this.#delivery.describe(reference, this.#values)
  }
}

/** Whether what is worked on now should not be brought to its end. */
function isOtherWork(before: Assignment, after: Assignment): boolean {
  return (
    before.epoch !== after.epoch ||
    before.desiredPhase !== after.desiredPhase ||
    before.content.session !== after.content.session
  )
}

function isFetched({ problem, mount }: SecretReference): boolean {
  return problem === undefined && mount.kind !== 'api-only'
}

/** Of those whose values may be held. */
function idsOf(references: readonly SecretReference[]): Set<string> {
  return new Set(references.filter(isFetched).map(({ id }) => id))
}

/** Outside of the memory that node's buffers share. */
function copyOf(value: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(value.length)
  value.copy(copy)
  return copy
}

function isForGit({ mount }: SecretReference): boolean {
  return mount.kind === 'git'
}

function isUp(phase: EnvironmentPhase): boolean {
  return phase === 'ENVIRONMENT_PHASE_RUNNING' || phase === 'ENVIRONMENT_PHASE_UPDATING'
}

function isDown(phase: EnvironmentPhase): boolean {
  return phase === 'ENVIRONMENT_PHASE_STOPPED' || phase === 'ENVIRONMENT_PHASE_DELETED'
}
