import type { Answer } from './api-client.ts'

// What an answer says about coming too often, or too early.
// https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately

const MINIMUM_MS = 1_000
/** What GitHub asks for where a secondary limit names no time. */
const UNNAMED_MS = 60_000

export function isRateLimited({ status, headers, body }: Answer): boolean {
  if (status === 429) return true
  if (status !== 403) return false
  const { message } = (body ?? {}) as { message?: unknown }
  const said = typeof message === 'string' ? message : ''
  // Waiting does not make a token valid.
  if (/login attempts/i.test(said)) return false
  return (
    headers.has('retry-after') || headers.get('x-ratelimit-remaining') === '0' || /rate limit/i.test(said)
  )
}

/** How long a rate limited client is to wait. */
export function rateLimitMs({ headers }: Pick<Answer, 'headers'>, now: number): number {
  const asked = retryAfterMs(headers, now) ?? untilReset(headers, now) ?? UNNAMED_MS
  return Math.max(asked, MINIMUM_MS)
}

/** Of `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). */
export function retryAfterMs(headers: Headers, now: number): number | undefined {
  const text = headers.get('retry-after')?.trim()
  if (!text) return undefined
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) * 1000
  const at = Date.parse(text)
  return Number.isNaN(at) ? undefined : Math.max(0, at - serverTime(headers, now))
}

/** The reset is to the second, so it may lie up to one before the end of the limit. */
function untilReset(headers: Headers, now: number): number | undefined {
  const text = headers.get('x-ratelimit-reset')
  if (headers.get('x-ratelimit-remaining') !== '0' || !text || !/^[0-9]{1,12}$/.test(text)) return undefined
  return Math.max(0, Number(text) * 1000 - serverTime(headers, now)) + 1000
}

/** By the server's own clock, since ours may be wrong. */
function serverTime(headers: Headers, now: number): number {
  const date = Date.parse(headers.get('date') ?? '')
  return Number.isNaN(date) ? now : date
}
