import autocannon from 'autocannon'
import { ADMIN_TOKEN } from './server.ts'

export interface Measured {
  /** successful answers per second */
  throughput: number
  p50: number
  p99: number
}

export interface Request {
  method: 'GET' | 'PUT' | 'POST'
  path: string
  body?: string
  /** instead of the first administrator's */
  token?: string
}

/** Drives one subject for a while; each request is the next of an endless series. */
export async function drive(
  url: string,
  connections: number,
  seconds: number,
  next: () => Request
): Promise<Measured> {
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    requests: [
      {
        setupRequest: (request) => {
          const { method, path, body, token = ADMIN_TOKEN } = next()
          const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
          return { ...request, method, path, headers, body: body ?? '' }
        }
      }
    ]
  })
  if (result.non2xx > 0 || result.errors > 0) {
    throw new Error(`${result.non2xx} answers were no success, ${result.errors} requests failed`)
  }
  return { throughput: result.requests.average, p50: result.latency.p50, p99: result.latency.p99 }
}

export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
