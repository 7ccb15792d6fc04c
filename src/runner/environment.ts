import type { Logger } from 'pino'
import { CofferError, Conflict } from '../errors.ts'
import { Delivery } from './delivery.ts'
import type { ExecRequest } from './exec-request.ts'
import type { Folders } from './folders.ts'
import { CloneFailed, cloneSources } from './git.ts'
import {
  type Assignment,
  type Content,
  type ContentStatus,
  type EnvironmentPhase,
  LeaseLost,
  type RunnerInterface,
  type SecretReference,
  type SecretStatus
} from './interface.ts'
import { pauseAfter } from './patience.ts'
import { type EnvironmentRecord, findRecord, writeRecord } from './record.ts'
import { RemoteRefused } from './remotes.ts'
import { Reports } from './reports.ts'
import type { EnvironmentFolders, Sandbox, SandboxedProcess } from './sandbox.ts'
import { Values } from './values.ts'
import { type Variable, variablesOf } from './variables.ts'

/** Between tries of what fails for reasons that seldom go by themselves, as a full disk. */
const LONGEST_PAUSE_MS = 60_000
const UNISOLATED =
  'Processes of this environment are not isolated: they run as the user of the runner, and see what it sees.'

export interface EnvironmentContext {
  server: Pick<RunnerInterface, 'report' | 'readSecret'>
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
  readonly #variables: Record<string, string>
  /** each with the values of variables that it was started with: secret id → session */
  readonly #processes = new Map<SandboxedProcess, ReadonlyMap<string, string>>()
  readonly #starting = new Set<Promise<unknown>>()
  /** the newest, the one that is worked on, and the last that was reached */
  #assignment: Assignment
  #acting: Assignment
  #reached: Assignment | undefined
  #phase: EnvironmentPhase
  #failure: string | undefined
  #content: ContentStatus | undefined
  #record: EnvironmentRecord | undefined
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

  /**
   * Starts a process in the environment, with the secrets that are delivered now.
   *
   * @throws Conflict when the environment is not running
   */
  async start(request: ExecRequest): Promise<SandboxedProcess> {
    const starting = this.#begin(request)
    this.#starting.add(starting)
    try {
      return await starting
    } finally {
      this.#starting.delete(starting)
    }
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
    const { folders } = this.#context
    const { content, secrets } = assignment
    if (this.#content?.phase === 'CONTENT_PHASE_FAILED' && this.#content.session === content.session) {
      this.#failure = this.#content.failureMessage
      return this.#report(this.#phase)
    }
    this.#values.retain(idsOf(secrets))
    this.#record = await findRecord(folders.ownOf(this.id))
    if (!this.#record) {
      if (this.#phase === 'ENVIRONMENT_PHASE_CREATING') this.#report(this.#phase)
      // What was begun to be put there cannot be told from what is whole.
      await folders.removeContent(this.id, signal)
    }
    await folders.make(this.id)
    if (this.#record) this.#describeContent(this.#record.content, 'CONTENT_PHASE_READY')
    else this.#describeContent({ session: content.session }, 'CONTENT_PHASE_INITIALIZING')
    this.#report(
      this.#record && isUp(this.#phase) ? 'ENVIRONMENT_PHASE_UPDATING' : 'ENVIRONMENT_PHASE_STARTING'
    )

    // Git asks for its credentials while it clones; all the others come meanwhile.
    await this.#fetch(assignment, secrets.filter(isForGit), signal)
    this.#delivery.update(secrets, this.#values)
    const put = await this.#whileFetching(assignment, signal, async (both) => {
      return this.#record?.content ?? (await this.#clone(content, both))
    })
    if (!put) {
      await this.#withdraw()
      return this.#report('ENVIRONMENT_PHASE_STARTING')
    }
    this.#describeContent(put, 'CONTENT_PHASE_READY')
    await this.#deliver(assignment, put, signal)
    this.#open = true
    this.#succeed('ENVIRONMENT_PHASE_RUNNING')
  }

  async #update(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const before = this.#reached?.secrets
    if (JSON.stringify(before) !== JSON.stringify(assignment.secrets)) {
      // What is not given any more goes first, whether or not the server gives what is new.
      this.#values.retain(idsOf(assignment.secrets))
      this.#delivery.update(assignment.secrets, this.#values)
      this.#report('ENVIRONMENT_PHASE_UPDATING')
    }
    await this.#fetch(assignment, assignment.secrets, signal)
    await this.#deliver(assignment, this.#record!.content, signal)
    this.#succeed('ENVIRONMENT_PHASE_RUNNING')
  }

  async #stop(): Promise<void> {
    this.#record ??= await findRecord(this.#context.folders.ownOf(this.id))
    if (this.#phase !== 'ENVIRONMENT_PHASE_STOPPED') this.#report('ENVIRONMENT_PHASE_STOPPING')
    await this.#withdraw()
    this.#content = undefined
    if (this.#record) this.#describeContent(this.#record.content, 'CONTENT_PHASE_READY')
    this.#succeed('ENVIRONMENT_PHASE_STOPPED')
  }

  async #delete(signal: AbortSignal): Promise<void> {
    this.#report('ENVIRONMENT_PHASE_DELETING')
    await this.#withdraw()
    await this.#context.folders.remove(this.id, signal)
    this.#record = undefined
    this.#content = undefined
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
    await Promise.allSettled(this.#starting)
    const processes = [...this.#processes.keys()]
    for (const process of processes) process.kill()
    this.#delivery.withdraw()
    this.#values.retain(new Set())
    this.#values.release()
    await this.#context.folders.removeSecrets(this.id)
    await Promise.all(processes.map((process) => process.exit))
  }

  /** Fetches values while something else is done; the failure of one aborts the other, and is the one that counts. */
  async #whileFetching<T>(
    assignment: Assignment,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>
  ): Promise<T> {
    const failed = new AbortController()
    const both = AbortSignal.any([signal, failed.signal])
    const abort = (error: unknown): never => {
      failed.abort(error)
      throw both.reason
    }
    const working = work(both).catch(abort)
    const fetching = this.#fetch(assignment, assignment.secrets, both).catch(abort)
    await Promise.allSettled([working, fetching])
    await fetching
    return await working
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
      signal
    )
  }

  async #deliver(
    { secrets }: Assignment,
    content: EnvironmentRecord['content'],
    signal: AbortSignal
  ): Promise<void> {
    this.#delivery.update(secrets, this.#values)
    const links = this.#delivery.keptLinks
    // Links are on record from before they are made until after they are removed.
    await this.#remember({ content, links: { ...this.#record?.links, ...links } })
    await this.#delivery.link(this.#record!.links, signal)
    await this.#remember({ content, links })
  }

  async #remember(record: EnvironmentRecord): Promise<void> {
    if (JSON.stringify(record) !== JSON.stringify(this.#record)) {
      await writeRecord(this.#context.folders.ownOf(this.id), record)
    }
    this.#record = record
  }

  /** @returns undefined when it failed: that is final, until there is other content or the environment is stopped */
  async #clone(content: Content, signal: AbortSignal): Promise<EnvironmentRecord['content'] | undefined> {
    const { session, sources, gitUsername, gitEmail } = content
    if (sources.length === 0) return { session }
    const { sandbox, cloneTimeoutMs: timeoutMs } = this.#context
    const { hasGitCredentials: hasCredentials } = this.#delivery
    try {
      const options = { gitUsername, gitEmail, timeoutMs, signal, hasCredentials }
      return { session, ...(await cloneSources(sandbox, this.#folders, sources, options)) }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof CloneFailed || error instanceof RemoteRefused)) throw error
      const { message: failureMessage } = error
      this.#describeContent({ session }, 'CONTENT_PHASE_FAILED')
      this.#content = { ...this.#content!, failureMessage }
      this.#failure = failureMessage
      return undefined
    }
  }

  async #begin(request: ExecRequest): Promise<SandboxedProcess> {
    if (!this.#open) throw new Conflict('The environment is not running.')
    const chosen = [...this.#delivery.variables.values()]
    // What is held is zeroed when it is replaced, which may be while the process starts.
    const secrets = Object.fromEntries(chosen.map(({ name, value }) => [name, copyOf(value)]))
    const process = await this.#context.sandbox
      .start(this.#folders, {
        ...request,
        variables: { ...secrets, ...this.#variables },
        links: this.#delivery.freshLinks
      })
      .finally(() => {
        for (const value of Object.values(secrets)) value.fill(0)
      })
    const held = sessionsOf(chosen)
    this.#processes.set(process, held)
    void process.exit.then(() => {
      this.#processes.delete(process)
      if (this.#open) this.#report(this.#phase)
    })
    return process
  }

  #describeContent(content: EnvironmentRecord['content'], phase: ContentStatus['phase']): void {
    const { session, git } = content
    const location = this.#context.sandbox.inside(this.#folders).workspace
    this.#content = { phase, session, location, ...(git && { git }) }
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
    this.#phase = phase
    const { epoch, specVersion, secrets } = this.#acting
    const current = sessionsOf([...this.#delivery.variables.values()])
    const secretsInSync = [...this.#processes.values()].every((held) =>
      [...held].every(([id, session]) => current.get(id) === session)
    )
    this.#reports.offer(
      { environmentId: this.id, epoch },
      {
        phase,
        specVersion,
        ...(this.#failure && { failureMessage: this.#failure }),
        ...(!this.#context.sandbox.isolated && { warningMessage: UNISOLATED }),
        ...(this.#content && { content: this.#content }),
        secrets: secrets.map((reference) => this.#describeSecret(reference)),
        secretsInSync
      }
    )
  }

  #describeSecret(reference: SecretReference): SecretStatus {
    const { id, name } = reference
    const withheld = isDown(this.#phase) || this.#content?.phase === 'CONTENT_PHASE_FAILED'
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

function sessionsOf(variables: readonly Variable[]): Map<string, string> {
  return new Map(variables.map(({ secretId, session }) => [secretId, session]))
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
