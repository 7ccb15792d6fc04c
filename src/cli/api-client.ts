import { RefusedToStart } from '../errors.ts'
import { VERSION } from '../version.ts'
import { describeRefusal, shortOf } from './api-errors.ts'
import { noAnswerOf } from './no-answer.ts'
import type { Patience } from './patience.ts'
import { isRateLimited, rateLimitMs } from './rate-limit.ts'
import { CommandFailed } from './terminal.ts'

const TIMEOUT_MS = 30_000

export interface ApiRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  body?: object
  /** what a 404 means here; undefined: as the server says it */
  notFound?: string
}

/** Where a server is, and in whose name it is asked. */
export interface Server {
  url: string
  token: string
}

export interface ApiClient extends Server {
  /** what should answer at the URL, as in "no … answers" */
  expected: string
  remedies: Remedies
  /** without: one try */
  patience?: Patience
}

export interface Remedies {
  /** nothing answers at the URL */
  unreachable: string
  /** something else answers */
  wrongUrl: string
  /** the token is not valid */
  token: string
}

export interface Answer {
  status: number
  headers: Headers
  /** what the JSON says, {} for an empty body; undefined: it is no JSON */
  body: unknown
  /** an attempt before this one may have been carried out */
  maybeDone: boolean
}

/** The server understood, and said no. */
export class RefusedByServer extends RefusedToStart {
  readonly answered: number

  constructor(message: string, answered: number) {
    super(message)
    this.answered = answered
  }
}

/** The server failed, or asks to come back later than there was patience for. */
export class FailedByServer extends CommandFailed {
  readonly answered: number

  constructor(message: string, answered: number) {
    super(message)
    this.answered = answered
  }
}

/**
 * Asks a server, and gives what it answered.
 *
 * @throws RefusedToStart for an answer of class 3xx or 4xx, with all that the server says about it
 * @throws CommandFailed when there is no answer, or the server failed
 */
export async function ask<T>(client: ApiClient, request: ApiRequest): Promise<T> {
  return requireSuccess(client, request, await exchange(client, request)).body as T
}

/** An answer, whatever its status; throws `NoAnswer`. */
export async function exchange(client: ApiClient, request: ApiRequest): Promise<Answer> {
  const { patience } = client
  return patience ? await patience.through(() => send(client, request)) : await send(client, request)
}

/** Gives the answer back when it is a success of the API, and throws as `ask` does otherwise. */
export function requireSuccess(client: ApiClient, request: ApiRequest, answer: Answer): Answer {
  const { status, headers, body } = answer
  if (status >= 300 && status < 400)
    throw new RefusedByServer(describeRedirect(client, request, answer), status)
  if (body === undefined && status < 500) {
    const type = headers.get('content-type')?.split(';')[0]
    throw new CommandFailed(
      `What answers at ${client.url} is no ${client.expected} (${[`status ${status}`, type].filter(Boolean).join(', ')}). ` +
        client.remedies.wrongUrl
    )
  }
  if (status < 300) return answer
  const details = [
    ...(status === 401 ? [client.remedies.token] : []),
    ...(status === 404 && request.notFound ? [request.notFound] : []),
    ...(isRateLimited(answer) ? [waitingAdvice(client, answer)] : [])
  ]
  const text = describeRefusal(request, answer, { token: client.token, details })
  if (status >= 500 || isRateLimited(answer)) throw new FailedByServer(text, status)
  throw new RefusedByServer(text, status)
}

/**
 * The query of the next page, from RFC 8288's `<https://…?page=2>; rel="next"`. No more is taken of it: the token goes
 * to no other address, and a server behind another name than its own links is listed all the same.
 */
export function nextQuery({ headers }: Answer): string | undefined {
  const target = /<([^<>]+)>\s*;\s*rel="?next"?/.exec(headers.get('link') ?? '')?.[1]
  return target === undefined ? undefined : new URL(target, 'http://localhost').search
}

/** A part of a path, whatever is in it. */
export function segment(text: string): string {
  return encodeURIComponent(text)
}

async function send(client: ApiClient, { method, path, body }: ApiRequest): Promise<Answer> {
  try {
    const response = await fetch(client.url + path, {
      method,
      headers: {
        accept: 'application/vnd.github+json',
        authorization: `Bearer ${client.token}`,
        'user-agent': `coffer/${VERSION}`,
        ...(body && { 'content-type': 'application/json' })
      },
      ...(body && { body: JSON.stringify(body) }),
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS)
    })
    const { status, headers } = response
    return { status, headers, body: parseBody(await response.text()), maybeDone: false }
  } catch (error) {
    throw noAnswerOf(client, error, TIMEOUT_MS)
  }
}

function parseBody(text: string): unknown {
  if (text === '') return {}
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

/** Followed, a redirect would act on a repository of another name than the one that was typed, or elsewhere. */
function describeRedirect(
  { url, remedies }: ApiClient,
  { path }: ApiRequest,
  { status, headers }: Answer
): string {
  const location = headers.get('location')
  const target = location && URL.canParse(location, url) ? new URL(location, url) : undefined
  if (!target || /\/repositories\/[0-9]+(\/|$)/.test(target.pathname)) {
    return `${path} has moved (${status}): it was renamed. Use its present name.`
  }
  return `${url} leads to ${shortOf(target.origin)} (${status}), which is not followed. ${remedies.wrongUrl}`
}

function waitingAdvice({ patience }: ApiClient, answer: Answer): string {
  const seconds = Math.ceil(rateLimitMs(answer, Date.now()) / 1000)
  return `The server asks to wait ${seconds} s. Run it again then${patience ? ', or with a longer --max-wait' : ''}.`
}
