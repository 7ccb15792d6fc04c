import { RefusedToStart } from '../errors.ts'
import { CommandFailed } from './terminal.ts'

const TIMEOUT_MS = 30_000

export interface ApiRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  body?: object
  /** what a 404 means here; undefined: as the server says it */
  notFound?: string
}

/** GitHub's form of an error. */
interface ErrorBody {
  message?: unknown
  errors?: unknown
}

/** Where a server is, and in whose name it is asked. */
export interface ApiClient {
  url: string
  token: string
}

/**
 * Asks a Coffer server, and gives what it answered.
 *
 * @throws RefusedToStart for an answer of class 3xx or 4xx, with all that the server says about it
 * @throws CommandFailed when there is no answer, or the server failed
 */
export async function ask<T>(client: ApiClient, request: ApiRequest): Promise<T> {
  const response = await send(client, request)
  const body = await readBody(client, response)
  if (response.ok) return body as T
  // Followed, a redirect would act on a repository of another name than the one that was typed.
  if (response.status < 400) {
    throw new RefusedToStart(
      `${request.path} has moved (${response.status}): it was renamed. Use its present name.`
    )
  }
  const text = describe(request, response.status, body as ErrorBody)
  throw response.status < 500 ? new RefusedToStart(text) : new CommandFailed(text)
}

/** A part of a path, whatever is in it. */
export function segment(text: string): string {
  return encodeURIComponent(text)
}

async function send({ url, token }: ApiClient, { method, path, body }: ApiRequest): Promise<Response> {
  try {
    return await fetch(url + path, {
      method,
      headers: {
        accept: 'application/vnd.github+json',
        authorization: `Bearer ${token}`,
        ...(body && { 'content-type': 'application/json' })
      },
      ...(body && { body: JSON.stringify(body) }),
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS)
    })
  } catch (error) {
    throw new CommandFailed(`No Coffer server answers at ${url} (${reasonOf(error)}). ${remedyFor(error)}`)
  }
}

function codeOf(error: unknown): string | undefined {
  const { cause } = error as { cause?: { code?: unknown } }
  return typeof cause?.code === 'string' ? cause.code : undefined
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && error.name === 'TimeoutError')
    return `nothing in ${TIMEOUT_MS / 1000} seconds`
  return codeOf(error) ?? 'no connection'
}

function remedyFor(error: unknown): string {
  const code = codeOf(error)
  if (code !== undefined && /CERT|SIGNATURE|ISSUER/.test(code)) {
    return 'Its certificate is not trusted: set NODE_EXTRA_CA_CERTS to the file of its authority.'
  }
  return 'Set COFFER_URL to where the server is; --offline works on the database while no server runs.'
}

async function readBody({ url }: ApiClient, response: Response): Promise<unknown> {
  const text = await response.text()
  if (text === '') return {}
  try {
    return JSON.parse(text)
  } catch {
    throw new CommandFailed(
      `What answers at ${url} is no Coffer server (status ${response.status}). Set COFFER_URL.`
    )
  }
}

function describe(
  { method, path, notFound }: ApiRequest,
  status: number,
  { message, errors }: ErrorBody
): string {
  const details = (Array.isArray(errors) ? errors : [])
    .map((error: { message?: unknown }) => error?.message)
    .filter((detail) => typeof detail === 'string')
  if (status === 401)
    details.push('Set COFFER_TOKEN, or COFFER_TOKEN_FILE, to a valid token of an administrator.')
  if (status === 404 && notFound) details.push(notFound)
  const said = typeof message === 'string' ? message : 'no message'
  return [`${said} (${status}, ${method} ${path})`, ...details.map((detail) => `  ${detail}`)].join('\n')
}
