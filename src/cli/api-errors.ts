import type { Answer, ApiRequest } from './api-client.ts'

// The words for what a server refused. It may repeat what it was sent: nothing of that is shown.

const MAX_LENGTH = 600

/** GitHub's form of an error. */
interface ErrorBody {
  message?: unknown
  errors?: unknown
}

/** Message, status and request in one line; below it what else the server says, and what to do. */
export function describeRefusal(
  request: ApiRequest,
  { status, headers, body }: Answer,
  { token, details }: { token: string; details: readonly string[] }
): string {
  const { message, errors } = (body ?? {}) as ErrorBody
  const clean = (text: string) => shortOf(conceal(text, request, token))
  const said = typeof message === 'string' && message !== '' ? clean(message) : 'no message'
  const lines = [
    ...(Array.isArray(errors) ? errors : [])
      .map(describeEntry)
      .filter((line) => line !== undefined)
      .map(clean),
    ...(status === 401 ? [] : [describeScopes(status, headers), describeSso(headers)]),
    ...details
  ].filter((line) => line !== undefined)
  return [`${said} (${status}, ${request.method} ${request.path})`, ...lines.map((line) => `  ${line}`)].join(
    '\n'
  )
}

/** On one line, without what a terminal would act on. */
export function shortOf(text: string): string {
  const line = text.replace(/[\s\p{Cc}\p{Cf}]+/gu, ' ').trim()
  return line.length > MAX_LENGTH ? `${line.slice(0, MAX_LENGTH)}…` : line
}

function describeEntry(entry: unknown): string | undefined {
  if (typeof entry === 'string') return entry
  const { message, field, code } = (entry ?? {}) as Record<string, unknown>
  if (typeof message === 'string') return message
  return typeof field === 'string' && typeof code === 'string' ? `${field}: ${code}` : undefined
}

/** GitHub echoes a value that it does not take for base64, and proxies show whole requests. */
function conceal(text: string, { body }: ApiRequest, token: string): string {
  const { encrypted_value } = (body ?? {}) as { encrypted_value?: unknown }
  const sent = typeof encrypted_value === 'string' ? [encrypted_value, token] : [token]
  return sent
    .filter((secret) => secret !== '')
    .reduce((shown, secret) => shown.replaceAll(secret, '…'), text)
    .replace(/[A-Za-z0-9+/_-]{60,}={0,2}/g, '…')
}

/** What a scope brings along. https://docs.github.com/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps */
const IMPLIED: Readonly<Record<string, readonly string[]>> = {
  repo: ['public_repo', 'repo:status', 'repo_deployment', 'repo:invite', 'security_events'],
  'admin:org': ['write:org', 'read:org'],
  'write:org': ['read:org'],
  codespace: ['codespace:secrets']
}

/** Which scope or permission is missing, where the server lets that be seen. */
function describeScopes(status: number, headers: Headers): string | undefined {
  if (status !== 403 && status !== 404) return undefined
  const permissions = headers.get('x-accepted-github-permissions')
  if (status === 403 && permissions) return `The token needs the permission ${shortOf(permissions)}.`
  const has = headers.get('x-oauth-scopes')
  const accepted = listOf(headers.get('x-accepted-oauth-scopes'))
  if (has === null || accepted.length === 0) return undefined
  const held = listOf(has)
  const all = new Set(held.flatMap((scope) => [scope, ...(IMPLIED[scope] ?? [])]))
  if (accepted.some((scope) => all.has(scope))) return undefined
  return `The token has ${held.length === 0 ? 'no scopes' : `the scopes ${held.join(', ')}`}; this needs ${accepted.join(' or ')}.`
}

/** An organization with SAML. */
function describeSso(headers: Headers): string | undefined {
  const url = /^required; url=(https:\/\/\S+)$/.exec(headers.get('x-github-sso') ?? '')?.[1]
  return url && `Authorize the token for the organization: ${shortOf(url)}`
}

function listOf(text: string | null): string[] {
  return (text ?? '')
    .split(',')
    .map((part) => shortOf(part))
    .filter((part) => part !== '')
}
