import { RefusedToStart } from '../errors.ts'
import { ConnectError, call } from './connect.ts'
import {
  type Assignment,
  type ClaimRequest,
  type Content,
  type GitSource,
  type Lease,
  LeaseLost,
  type RunnerInterface,
  type SecretReference,
  type StatusReport,
  ValueRefused
} from './interface.ts'
import { RunnerToken, type RunnerTokenOptions } from './runner-token.ts'
import { isUuid } from './uuid.ts'

const SERVICE = 'coffer.v1.RunnerInterfaceService'
const VALUES = 'gitpod.v1.SecretService/GetSecretValue'
/** Beside what the server itself waits. */
const CLAIM_TIMEOUT_MS = 15_000

/** Codes that say of a value that it is not to be had, whoever asks again. */
const REFUSALS: ReadonlySet<string> = new Set([
  'not_found',
  'permission_denied',
  'failed_precondition',
  'invalid_argument'
])

interface CallOptions {
  timeoutMs?: number
  signal?: AbortSignal | undefined
}

/**
 * The server of a runner on another machine, over HTTP. Whatever fails in passing is thrown as Unavailable, for the
 * caller to try again.
 */
export class RemoteServer implements RunnerInterface {
  /** Enough to hide the way to the server, few enough to leave others a turn. */
  readonly parallelReads = 16
  readonly #url: string
  readonly #token: RunnerToken

  constructor(options: RunnerTokenOptions) {
    const url = options.url.replace(/\/+$/, '')
    this.#url = url
    this.#token = new RunnerToken({ ...options, url })
  }

  /** The runner's own, for what it asks in other ways. */
  async token(): Promise<string> {
    return await this.#token.get()
  }

  async claim(request: ClaimRequest, signal?: AbortSignal): Promise<Assignment[]> {
    const timeoutMs = request.waitSeconds * 1000 + CLAIM_TIMEOUT_MS
    const { assignments = [] } = await this.#call<{ assignments: object[] }>('ClaimEnvironments', request, {
      timeoutMs,
      signal
    })
    return assignments.map(readAssignment)
  }

  async renew(holder: string, leases: readonly Lease[]): Promise<string[]> {
    const answer = await this.#call<{ lostEnvironmentIds: string[] }>('RenewLeases', { holder, leases })
    return answer.lostEnvironmentIds ?? []
  }

  async release(holder: string, leases: readonly Lease[]): Promise<void> {
    await this.#call('ReleaseLeases', { holder, leases })
  }

  async report(lease: Lease, report: StatusReport): Promise<void> {
    await this.#call('ReportStatus', { lease, report })
  }

  async findEnvironments(environmentIds: readonly string[]): Promise<string[]> {
    const answer = await this.#call<{ environmentIds: string[] }>('FindEnvironments', { environmentIds })
    return answer.environmentIds ?? []
  }

  async readSecret(accessToken: string, secretId: string): Promise<Buffer> {
    try {
      const { valueBase64 = '' } = await call<{ valueBase64: string }>({
        url: this.#url,
        method: VALUES,
        body: { secretId, valueBase64: true },
        token: accessToken
      })
      return decode(valueBase64)
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error
      if (error.code === 'unauthenticated' || error.code === 'aborted') throw new LeaseLost()
      throw REFUSALS.has(error.code) ? new ValueRefused(error.message) : error
    }
  }

  async #call<T>(method: string, body: object, options: CallOptions = {}): Promise<Partial<T>> {
    const token = await this.#token.get()
    try {
      return await call<T>({ url: this.#url, method: `${SERVICE}/${method}`, body, token, ...options })
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error
      if (error.code === 'aborted') throw new LeaseLost()
      if (error.code !== 'unauthenticated') throw error
      throw new RefusedToStart(
        "The runner's token is not valid any more. Make an exchange token for it, and start it with that."
      )
    }
  }
}

/** Outside of the memory that node's buffers share. */
function decode(base64: string): Buffer {
  const value = Buffer.allocUnsafeSlow(Buffer.byteLength(base64, 'base64'))
  if (value.write(base64, 'base64') === value.length) return value
  throw new Error('a value is not base64')
}

/** As it is on the wire, where members that have their default are left out, and 64-bit integers are strings. */
type OnTheWire<T> = { [Member in keyof T]?: unknown }

function readAssignment(wire: OnTheWire<Assignment>): Assignment {
  const { environmentId, epoch, desiredPhase, phase, content, secrets } = wire
  if (!isUuid(environmentId)) throw new Error('the id of an environment is not a UUID')
  return {
    environmentId,
    epoch: Number(epoch ?? 0),
    specVersion: text(wire.specVersion),
    desiredPhase: text(desiredPhase) as Assignment['desiredPhase'],
    phase: text(phase) as Assignment['phase'],
    accessToken: text(wire.accessToken),
    insideToken: text(wire.insideToken),
    serverUrl: text(wire.serverUrl),
    content: readContent((content ?? {}) as OnTheWire<Content>),
    secrets: ((secrets ?? []) as OnTheWire<SecretReference>[]).map(readReference)
  }
}

function readContent({ sources, gitUsername, gitEmail, session }: OnTheWire<Content>): Content {
  return {
    sources: ((sources ?? []) as OnTheWire<GitSource>[]).map(readSource),
    gitUsername: text(gitUsername),
    gitEmail: text(gitEmail),
    session: text(session)
  }
}

function readSource(wire: OnTheWire<GitSource>): GitSource {
  return {
    remoteUri: text(wire.remoteUri),
    upstreamRemoteUri: text(wire.upstreamRemoteUri),
    targetMode: text(wire.targetMode) as GitSource['targetMode'],
    cloneTarget: text(wire.cloneTarget),
    checkoutLocation: text(wire.checkoutLocation)
  }
}

function readReference({ id, name, session, mount, problem }: OnTheWire<SecretReference>): SecretReference {
  if (!isUuid(id)) throw new Error('the id of a secret is not a UUID')
  return {
    id,
    name: text(name),
    session: text(session),
    mount: mount as SecretReference['mount'],
    ...(problem !== undefined && { problem: text(problem) })
  }
}

function text(member: unknown): string {
  return typeof member === 'string' ? member : ''
}
