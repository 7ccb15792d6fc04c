import { Unavailable } from '../errors.ts'
import { VERSION } from '../version.ts'

const TIMEOUT_MS = 30_000

/** Codes of failures that go by; the request may be sent again. */
const PASSING: ReadonlySet<string> = new Set([
  'unavailable',
  'deadline_exceeded',
  'resource_exhausted',
  'canceled'
])

export interface Call {
  /** the server's, without `/api` */
  url: string
  /** `coffer.v1.RunnerInterfaceService/ClaimEnvironments` */
  method: string
  body: object
  /** undefined: in nobody's name */
  token?: string | undefined
  timeoutMs?: number
  signal?: AbortSignal | undefined
}

/** The server understood, and said no, in Connect's words. */
export class ConnectError extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.name = 'ConnectError'
    this.code = code
  }
}

/**
 * Calls a method of the server, https://connectrpc.com/docs/protocol#unary-request
 *
 * @returns what the JSON says, with which members left out that have their default
 * @throws Unavailable when the server is away, ConnectError when it refuses, and what the signal was aborted with
 */
export async function call<T>({ url, method, body, token, timeoutMs, signal }: Call): Promise<Partial<T>> {
  const patience = AbortSignal.timeout(timeoutMs ?? TIMEOUT_MS)
  try {
    const response = await fetch(`${url}/api/${method}`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'user-agent': `coffer-runner/${VERSION}`,
        ...(token && { authorization: `Bearer ${token}` })
      },
      body: JSON.stringify(body),
      // A token is for the server that was named, and for none that it leads to.
      redirect: 'error',
      signal: signal ? AbortSignal.any([signal, patience]) : patience
    })
    const answer = (await response.json().catch(ifNoJson)) as Record<string, unknown> | undefined
    if (response.ok && answer) return answer as Partial<T>
    throw refusal(response.status, answer)
  } catch (error) {
    signal?.throwIfAborted()
    throw error instanceof ConnectError ? error : new Unavailable()
  }
}

/** A proxy in between may say something else; the message of a parser would quote it. */
function ifNoJson(error: unknown): undefined {
  if (!(error instanceof SyntaxError)) throw error
}

function refusal(status: number, answer: Record<string, unknown> | undefined): Error {
  const { code, message } = answer ?? {}
  if (typeof code !== 'string') return status >= 500 ? new Unavailable() : notCoffer(status)
  if (PASSING.has(code)) return new Unavailable()
  return new ConnectError(code, typeof message === 'string' ? message : '')
}

function notCoffer(status: number): ConnectError {
  return new ConnectError(
    'unknown',
    `What answers at the URL of the server is not Coffer (status ${status}).`
  )
}
