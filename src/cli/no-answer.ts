import type { ApiClient } from './api-client.ts'
import { CommandFailed } from './terminal.ts'

/** There was no answer; where that is transient, a later one may come. */
export class NoAnswer extends CommandFailed {
  readonly transient: boolean

  constructor(message: string, transient: boolean) {
    super(message)
    this.transient = transient
  }
}

/** Codes of Node and OpenSSL for a certificate that is not accepted. */
const TRUST = /CERT|SIGNATURE|ISSUER/
/** What a server with TLS does to a request without. */
const HUNG_UP = /^(ECONNRESET|UND_ERR_SOCKET|HPE_INVALID_CONSTANT)$/

/** From what fetch threw. */
export function noAnswerOf(
  { url, expected, remedies }: ApiClient,
  error: unknown,
  timeoutMs: number
): NoAnswer {
  const code = codeOf(error)
  const timedOut = error instanceof Error && error.name === 'TimeoutError'
  const reason = timedOut ? `nothing in ${timeoutMs / 1000} seconds` : (code ?? 'no connection')
  const remedy = remedyFor(code ?? '', url) ?? remedies.unreachable
  return new NoAnswer(`No ${expected} answers at ${url} (${reason}). ${remedy}`, !TRUST.test(code ?? ''))
}

function codeOf(error: unknown): string | undefined {
  const { cause } = error as { cause?: { code?: unknown } }
  return typeof cause?.code === 'string' ? cause.code : undefined
}

function remedyFor(code: string, url: string): string | undefined {
  if (code === 'CERT_HAS_EXPIRED') return 'Its certificate has expired: renew it on the server.'
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'Its certificate is for another name: set COFFER_URL to the name that is in it.'
  }
  if (TRUST.test(code)) {
    return 'Its certificate is not trusted: set NODE_EXTRA_CA_CERTS to the file of its authority.'
  }
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER') {
    return `There is no TLS there: set COFFER_URL to ${url.replace(/^https/, 'http')}.`
  }
  if (HUNG_UP.test(code) && url.startsWith('http:')) {
    return `If it has TLS, set COFFER_URL to ${url.replace(/^http/, 'https')}.`
  }
  return undefined
}
