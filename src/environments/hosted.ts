import type { Kysely } from 'kysely'
import { Conflict, LeaseTaken } from '../errors.ts'
import {
  type Assignment,
  type ClaimRequest,
  type Lease,
  LeaseLost,
  type RunnerInterface,
  type StatusReport
} from '../runner/interface.ts'
import type { Database } from '../store/tables.ts'
import { claim, findEnvironments, type RunnerSelf, release, renew, report } from './leases.ts'
import type { Wakes } from './wakes.ts'

/** The servers' own runner of every organization; nobody signed for it. */
const NOBODY = { kind: 'runner', uid: null, tokenId: null, issuedByUid: null, requestId: null } as const

/** Reads a value as an environment does, with its token. */
export type ReadSecret = RunnerInterface['readSecret']

/** What the runner in this process asks of the server that it is part of. */
export class HostedServer implements RunnerInterface {
  /** What comes together is found and recorded together. */
  readonly parallelReads = 100
  readonly readSecret: ReadSecret
  readonly #db: Kysely<Database>
  readonly #wakes: Wakes
  readonly #serverUrl: () => string

  /**
   * @param readSecret by the API: in this process, too, values are given to environments alone, and recorded
   * @param serverUrl known when the server listens
   */
  constructor(db: Kysely<Database>, wakes: Wakes, readSecret: ReadSecret, serverUrl: () => string) {
    this.#db = db
    this.#wakes = wakes
    this.#serverUrl = serverUrl
    this.readSecret = readSecret
  }

  get #self(): RunnerSelf {
    return { principal: NOBODY, runners: 'hosted', serverUrl: this.#serverUrl() }
  }

  async claim(request: ClaimRequest, signal?: AbortSignal): Promise<Assignment[]> {
    return await claim(this.#db, this.#wakes, this.#self, request, signal)
  }

  async renew(holder: string, leases: readonly Lease[]): Promise<string[]> {
    return await renew(this.#db, this.#self, holder, leases)
  }

  async release(holder: string, leases: readonly Lease[]): Promise<void> {
    await release(this.#db, this.#self, holder, leases)
  }

  async report(lease: Lease, state: StatusReport): Promise<void> {
    try {
      await report(this.#db, this.#self, lease, state)
    } catch (error) {
      // A phase that cannot follow is told by one who is behind.
      throw error instanceof LeaseTaken || error instanceof Conflict ? new LeaseLost() : error
    }
  }

  async findEnvironments(environmentIds: readonly string[]): Promise<string[]> {
    return await findEnvironments(this.#db, this.#self, environmentIds)
  }
}
