import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Assignment,
  type ClaimRequest,
  type Content,
  type EnvironmentPhase,
  type Lease,
  LeaseLost,
  type RunnerInterface,
  type SecretMount,
  type SecretReference,
  type StatusReport,
  ValueRefused
} from '../../src/runner/interface.ts'

const PATIENCE_MS = 60_000

type ShortPhase = EnvironmentPhase extends `ENVIRONMENT_PHASE_${infer Short}` ? Short : never

interface Entry {
  assignment: Assignment
  /** moves with each change */
  version: number
  /** who has the lease */
  holder: string | undefined
  gone: boolean
  reports: StatusReport[]
}

export interface NewEnvironment {
  secrets?: readonly SecretReference[]
  content?: Partial<Content>
}

/** What a server does for runners, in memory: the rules of leases and epochs, and the values. */
export class MemoryServer implements RunnerInterface {
  /** secret id → value, or why there is none */
  readonly values = new Map<string, Buffer | string>()
  /** ids of the secrets whose values were read */
  readonly reads: string[] = []
  /** called before each step, by its name: may throw, or make it wait */
  before: (step: string) => unknown = () => {}
  readonly #entries = new Map<string, Entry>()
  readonly #dead = new Set<string>()
  readonly #events = new EventEmitter().setMaxListeners(0)

  /** A secret with a value, to be named in an environment. */
  secret(name: string, mount: SecretMount, value: string | Buffer = `value of ${name}`): SecretReference {
    const id = randomUUID()
    this.values.set(id, Buffer.from(value))
    return { id, name, session: randomUUID(), mount }
  }

  add({ secrets = [], content = {} }: NewEnvironment = {}): string {
    const environmentId = randomUUID()
    this.#entries.set(environmentId, {
      version: 1,
      holder: undefined,
      gone: false,
      reports: [],
      assignment: {
        environmentId,
        epoch: 0,
        specVersion: '1',
        desiredPhase: 'ENVIRONMENT_PHASE_RUNNING',
        phase: 'ENVIRONMENT_PHASE_CREATING',
        accessToken: '',
        insideToken: '',
        serverUrl: 'http://coffer.test',
        content: { sources: [], gitUsername: '', gitEmail: '', session: randomUUID(), ...content },
        secrets
      }
    })
    this.#events.emit('change')
    return environmentId
  }

  /** Changes what an environment shall be; gives the version that it has then. */
  change(
    environmentId: string,
    change: Partial<Pick<Assignment, 'desiredPhase' | 'content' | 'secrets'>>
  ): string {
    const entry = this.#entries.get(environmentId)!
    entry.version += 1
    entry.assignment = { ...entry.assignment, ...change, specVersion: String(entry.version) }
    this.#events.emit('change')
    return entry.assignment.specVersion
  }

  /** Gives a secret another value, in this environment. */
  setValue(environmentId: string, secretId: string, value: string | Buffer): string {
    this.values.set(secretId, Buffer.from(value))
    const { secrets } = this.assignmentOf(environmentId)
    return this.change(environmentId, {
      secrets: secrets.map((secret) =>
        secret.id === secretId ? { ...secret, session: randomUUID() } : secret
      )
    })
  }

  assignmentOf(environmentId: string): Assignment {
    return this.#entries.get(environmentId)!.assignment
  }

  reportsOf(environmentId: string): readonly StatusReport[] {
    return this.#entries.get(environmentId)!.reports
  }

  /** As when the lease has run out: whoever asks next gets the environment, with another epoch. */
  expire(environmentId: string): void {
    this.#entries.get(environmentId)!.holder = undefined
    this.#events.emit('change')
  }

  /** As when its holder has died, though its last request for work may still be waiting here. */
  bury(environmentId: string): void {
    this.#dead.add(this.#entries.get(environmentId)!.holder!)
    this.expire(environmentId)
  }

  /** Somebody else has it, for good. */
  giveAway(environmentId: string): void {
    const entry = this.#entries.get(environmentId)!
    entry.holder = 'somebody else'
    this.#lease(entry)
  }

  /** The first report, from the last one on, that is as wanted. */
  async until(environmentId: string, wanted: (report: StatusReport) => boolean): Promise<StatusReport> {
    const { reports } = this.#entries.get(environmentId)!
    const signal = AbortSignal.timeout(PATIENCE_MS)
    for (let at = Math.max(0, reports.length - 1); ; at++) {
      while (reports.length <= at) {
        await once(this.#events, 'report', { signal }).catch(() => {
          throw new Error(`not reported: ${wanted}; last: ${JSON.stringify(reports.at(-1))}`)
        })
      }
      if (wanted(reports[at]!)) return reports[at]!
    }
  }

  async untilPhase(environmentId: string, phase: ShortPhase, specVersion?: string) {
    const full = `ENVIRONMENT_PHASE_${phase}`
    const version = specVersion ?? this.assignmentOf(environmentId).specVersion
    return await this.until(
      environmentId,
      (report) => report.phase === full && report.specVersion === version
    )
  }

  async claim({ holder, held, capacity, waitSeconds }: ClaimRequest, signal?: AbortSignal) {
    await this.before('claim')
    const until = Date.now() + waitSeconds * 1000
    const heldVersions = new Map(held.map(({ environmentId, specVersion }) => [environmentId, specVersion]))
    for (;;) {
      signal?.throwIfAborted()
      if (this.#dead.has(holder)) throw new Error('the dead ask for nothing')
      const given = [...this.#entries.values()].filter((entry) =>
        entry.gone
          ? false
          : entry.holder === holder
            ? heldVersions.get(entry.assignment.environmentId) !== entry.assignment.specVersion
            : entry.holder === undefined
      )
      const fresh = given.filter((entry) => entry.holder === undefined)
      for (const entry of fresh.slice(0, capacity)) {
        entry.holder = holder
        this.#lease(entry)
      }
      const assignments = given.filter((entry) => entry.holder === holder).map(({ assignment }) => assignment)
      const ms = until - Date.now()
      if (assignments.length > 0 || ms <= 0) return assignments
      const ended = new AbortController()
      const end = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal
      await Promise.race([
        once(this.#events, 'change', { signal: end }),
        sleep(ms, undefined, { signal: end })
      ]).finally(() => ended.abort())
    }
  }

  async renew(holder: string, leases: readonly Lease[]): Promise<string[]> {
    await this.before('renew')
    return leases
      .map(({ environmentId }) => environmentId)
      .filter((id) => {
        const entry = this.#entries.get(id)
        return !entry || entry.gone || entry.holder !== holder
      })
  }

  async release(holder: string, leases: readonly Lease[]): Promise<void> {
    await this.before('release')
    for (const { environmentId } of leases) {
      const entry = this.#entries.get(environmentId)
      if (entry?.holder === holder) entry.holder = undefined
    }
  }

  async report({ environmentId, epoch }: Lease, report: StatusReport): Promise<void> {
    await this.before(`report ${report.phase.replace('ENVIRONMENT_PHASE_', '')}`)
    const entry = this.#entries.get(environmentId)
    if (!entry || entry.gone || entry.assignment.epoch !== epoch) throw new LeaseLost()
    entry.assignment = { ...entry.assignment, phase: report.phase }
    entry.gone = report.phase === 'ENVIRONMENT_PHASE_DELETED'
    entry.reports.push(report)
    this.#events.emit('report')
  }

  readonly parallelReads = 16

  async readSecret(accessToken: string, secretId: string): Promise<Buffer> {
    await this.before(`read ${this.reads.length}`)
    const entry = [...this.#entries.values()].find(({ assignment }) => assignment.accessToken === accessToken)
    if (!entry) throw new LeaseLost()
    this.reads.push(secretId)
    const value = this.values.get(secretId)
    if (value === undefined) throw new ValueRefused('There is no such secret.')
    if (typeof value === 'string') throw new ValueRefused(value)
    return Buffer.from(value)
  }

  async findEnvironments(environmentIds: readonly string[]): Promise<string[]> {
    await this.before('find')
    return environmentIds.filter((id) => this.#entries.get(id)?.gone === false)
  }

  #lease(entry: Entry): void {
    const { environmentId, epoch } = entry.assignment
    const accessToken = `${environmentId} ${epoch + 1}`
    entry.assignment = { ...entry.assignment, epoch: epoch + 1, accessToken }
  }
}
