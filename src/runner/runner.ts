import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { CofferError, NotFound } from '../errors.ts'
import { Environment, type EnvironmentContext } from './environment.ts'
import { serveExec } from './exec.ts'
import type { ExecRequest } from './exec-request.ts'
import { Folders } from './folders.ts'
import type { Assignment, Lease, RunnerInterface } from './interface.ts'
import { killLeftovers } from './leftovers.ts'
import { pauseAfter, whileWanted } from './patience.ts'
import type { Sandbox } from './sandbox.ts'

const RENEW_MS = 10_000
const WAIT_SECONDS = 20
/** How long a server may take to hear that its runner ends. */
const RELEASE_MS = 2_000
/** Environments that are up, on one runner. */
const CAPACITY = 100
const CLONE_TIMEOUT_MS = 10 * 60_000

export interface RunnerOptions {
  /** the runner's own, on disk */
  dataDir: string
  /** on a tmpfs; undefined: /dev/shm */
  secretsDir?: string | undefined
  /** so many environments are up at most; 100 by itself */
  capacity?: number
  /** of all clones of one environment together; 10 minutes by itself */
  cloneTimeoutMs?: number
  /** between renewals of leases; 10 s by itself */
  renewMs?: number
  logger: Logger
}

/**
 * Makes environments become what a server wants them to be. It asks for work, keeps its leases alive, and tells what
 * came of it; while the server is away, environments go on as they are.
 */
export class Runner {
  readonly #server: RunnerInterface
  readonly #sandbox: Sandbox
  readonly #options: RunnerOptions
  readonly #logger: Logger
  /** this process, to the server */
  readonly #holder = randomUUID()
  readonly #environments = new Map<string, Environment>()
  readonly #closed = new AbortController()
  /** ends the present wait for work, because there is room for more */
  #claiming = new AbortController()
  #folders: Folders | undefined
  #loops: Promise<unknown> = Promise.resolve()

  constructor(server: RunnerInterface, sandbox: Sandbox, options: RunnerOptions) {
    this.#server = server
    this.#sandbox = sandbox
    this.#options = options
    this.#logger = options.logger
  }

  /**
   * Takes the folders, removes what secrets an earlier process left there, and begins to work.
   *
   * @throws RefusedToStart when it cannot work here
   */
  async start(): Promise<void> {
    const { dataDir, secretsDir } = this.#options
    const folders = await Folders.open({ dataDir, secretsDir, user: this.#sandbox.user })
    this.#folders = folders
    const left = await folders.list()
    // This process holds nothing yet, so nothing may run, and nobody may have any of them.
    await killLeftovers(folders.secrets)
    for (const id of left) await folders.removeSecrets(id)
    const context = this.#makeContext(folders)
    this.#loops = Promise.all([
      this.#claim(context),
      this.#renew(folders),
      this.#removeUnknown(folders, left)
    ])
  }

  /**
   * Ends all processes and takes all secrets away. Workspaces stay, and the server is told of no other phase: whoever
   * comes next takes the environments over and runs them again.
   */
  async close(): Promise<void> {
    this.#closed.abort()
    this.#claiming.abort()
    await this.#loops
    const leases = this.#held().map(({ environmentId, epoch }) => ({ environmentId, epoch }))
    await Promise.all([...this.#environments.values()].map((environment) => environment.leave()))
    await this.#release(leases)
    this.#folders?.close()
  }

  /** When the server cannot be told now, the leases run out. */
  async #release(leases: readonly Lease[]): Promise<void> {
    if (leases.length === 0) return
    const patience = AbortSignal.timeout(RELEASE_MS)
    await whileWanted(this.#server.release(this.#holder, leases), patience).catch(() => {})
  }

  /** This process, as it says to the server who has its leases. */
  get holder(): string {
    return this.#holder
  }

  /** Serves a client that runs a command in an environment; the stream is closed at the end. */
  exec(environmentId: string, stream: Duplex): void {
    const start = async (request: ExecRequest) => {
      const environment = this.getEnvironment(environmentId)
      const { location } = environment
      return await environment.start({ ...(location && { workingDirectory: location }), ...request })
    }
    serveExec(stream, start).catch((err) =>
      this.#logger.error({ err, environment: environmentId }, 'a command could not be started')
    )
  }

  /** @throws NotFound when this runner does not hold the environment */
  getEnvironment(environmentId: string): Environment {
    const environment = this.#environments.get(environmentId)
    if (!environment || environment.isLeft) throw new NotFound()
    return environment
  }

  #makeContext(folders: Folders): EnvironmentContext {
    const { cloneTimeoutMs = CLONE_TIMEOUT_MS, logger } = this.#options
    const onLeft = ({ id }: Environment) => {
      this.#environments.delete(id)
      this.#claiming.abort()
    }
    return { server: this.#server, sandbox: this.#sandbox, folders, cloneTimeoutMs, logger, onLeft }
  }

  async #claim(context: EnvironmentContext): Promise<void> {
    await this.#again('work could not be asked for', async () => {
      this.#claiming = new AbortController()
      const signal = AbortSignal.any([this.#closed.signal, this.#claiming.signal])
      const held = this.#held()
      const up = held.filter(({ desiredPhase }) => desiredPhase === 'ENVIRONMENT_PHASE_RUNNING')
      const request = {
        holder: this.#holder,
        held: held.map(({ environmentId, epoch, specVersion }) => ({ environmentId, epoch, specVersion })),
        capacity: Math.max(0, (this.#options.capacity ?? CAPACITY) - up.length),
        waitSeconds: WAIT_SECONDS
      }
      const assignments = await this.#server.claim(request, signal).catch((error) => {
        // What was given and did not arrive is given again.
        if (this.#claiming.signal.aborted) return []
        throw error
      })
      for (const assignment of assignments) await this.#take(assignment, context)
      return true
    })
  }

  async #take(assignment: Assignment, context: EnvironmentContext): Promise<void> {
    const { environmentId } = assignment
    const existing = this.#environments.get(environmentId)
    if (existing && !existing.isLeft) return existing.assign(assignment)
    await existing?.leave()
    if (!this.#closed.signal.aborted) {
      this.#environments.set(environmentId, new Environment(assignment, context))
    }
  }

  async #renew(folders: Folders): Promise<void> {
    await this.#again('leases could not be renewed', async () => {
      const leases: Lease[] = this.#held().map(({ environmentId, epoch }) => ({ environmentId, epoch }))
      const renewed = leases.length > 0 ? this.#server.renew(this.#holder, leases) : Promise.resolve([])
      const lost = await whileWanted(renewed, this.#closed.signal)
      for (const id of lost)
        this.#lose(
          leases.find(({ environmentId }) => environmentId === id),
          folders
        )
      await sleep(this.#options.renewMs ?? RENEW_MS, undefined, { signal: this.#closed.signal })
      return true
    })
  }

  #lose(lease: Lease | undefined, folders: Folders): void {
    const environment = lease && this.#environments.get(lease.environmentId)
    // It may have been given anew while the answer was under way.
    if (!environment || environment.assignment.epoch !== lease.epoch) return
    this.#logger.warn({ environment: environment.id }, 'the lease of an environment was lost')
    // Somebody else may have it, and what is in its workspace; when it was deleted, nobody wants that any more.
    void environment.leave().then(() => this.#removeUnknown(folders, [environment.id]))
  }

  /** Removes what is left of environments that the server does not know any more. */
  async #removeUnknown(folders: Folders, left: readonly string[]): Promise<void> {
    let known: Set<string> | undefined
    await this.#again('environments that are gone could not be removed', async () => {
      const { signal } = this.#closed
      known ??= new Set(left.length > 0 ? await whileWanted(this.#server.findEnvironments(left), signal) : [])
      for (const id of left) if (!known.has(id)) await folders.remove(id, signal)
      return false
    })
  }

  #held(): Assignment[] {
    const environments = [...this.#environments.values()].filter(({ isLeft }) => !isLeft)
    return environments.map(({ assignment }) => assignment)
  }

  /** Does something again and again while it says that there is more, until the runner closes; failures make it pause. */
  async #again(failure: string, work: () => Promise<boolean>): Promise<void> {
    const { signal } = this.#closed
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (!(await work())) return
        failures = 0
      } catch (err) {
        if (signal.aborted) return
        failures += 1
        this.#logger.warn({ err, ...(err instanceof CofferError && { reason: err.message }) }, failure)
        await pauseAfter(failures, signal).catch(() => {})
      }
    }
  }
}
