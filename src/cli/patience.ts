import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer } from './api-client.ts'
import { NoAnswer } from './no-answer.ts'
import { isRateLimited, rateLimitMs, retryAfterMs } from './rate-limit.ts'
import { CommandFailed } from './terminal.ts'

/** Of one request, where the server fails or goes away; a rate limit is bounded by time alone. */
const MAX_ATTEMPTS = 5
const FIRST_BACKOFF_MS = 1_000
const SAID_FROM_MS = 1_000

export interface PatienceOptions {
  /** how long all requests together may wait */
  maxWaitSeconds: number
  /** tells a person why nothing happens */
  say: (line: string) => void
  /** ends a wait */
  signal?: AbortSignal
  now?: () => number
  wait?: (ms: number, signal: AbortSignal | undefined) => Promise<void>
}

/**
 * Tries again what may succeed later: rate limits, failures of the server, and lost connections to a server that
 * has answered before. A wait is for all requests at once, so that parallel ones do not run into the same limit.
 */
export class Patience {
  readonly #options: Required<Omit<PatienceOptions, 'signal'>> & Pick<PatienceOptions, 'signal'>
  #leftMs: number
  #notBefore = 0
  #reached = false

  constructor(options: PatienceOptions) {
    this.#options = { now: Date.now, wait: waitFor, ...options }
    this.#leftMs = options.maxWaitSeconds * 1000
  }

  /** The first answer that is final, or the last one when patience ends; throws `NoAnswer` alike. */
  async through(send: () => Promise<Answer>): Promise<Answer> {
    let maybeDone = false
    for (let attempt = 1; ; attempt++) {
      await this.#waitForTurn(attempt > 1)
      const outcome = await send().catch((error) => error as Error)
      if (outcome instanceof Error) {
        if (!this.#mayTryAgain(outcome, attempt)) throw outcome
        maybeDone = true
        continue
      }
      this.#reached = true
      if (!this.#mayAskAgain(outcome, attempt)) return { ...outcome, maybeDone }
      maybeDone ||= outcome.status >= 500
    }
  }

  #mayTryAgain(error: Error, attempt: number): boolean {
    const transient = error instanceof NoAnswer && error.transient && this.#reached
    return (
      transient && attempt < MAX_ATTEMPTS && this.#postpone(backoffMs(attempt), 'The connection was lost')
    )
  }

  #mayAskAgain(answer: Answer, attempt: number): boolean {
    const now = this.#options.now()
    if (isRateLimited(answer)) {
      return this.#postpone(rateLimitMs(answer, now), `The server limits the rate (${answer.status})`)
    }
    if (answer.status < 500 || attempt >= MAX_ATTEMPTS) return false
    const ms = Math.max(backoffMs(attempt), retryAfterMs(answer.headers, now) ?? 0)
    return this.#postpone(ms, `The server failed (${answer.status})`)
  }

  /** Puts off all requests, unless that were longer than is left to wait. */
  #postpone(ms: number, reason: string): boolean {
    const { now, say } = this.#options
    const until = now() + ms
    const longer = until - Math.max(this.#notBefore, now())
    if (longer > this.#leftMs) return false
    if (longer <= 0) return true
    this.#leftMs -= longer
    this.#notBefore = until
    // Parallel requests meet the same limit a moment apart.
    if (longer >= SAID_FROM_MS) say(`${reason}; trying again in ${Math.ceil(ms / 1000)} s.`)
    return true
  }

  async #waitForTurn(sent: boolean): Promise<void> {
    const { now, wait, signal } = this.#options
    for (let ms = this.#notBefore - now(); ms > 0 && !signal?.aborted; ms = this.#notBefore - now()) {
      await wait(ms, signal)
    }
    if (signal?.aborted) throw new Stopped(sent)
  }
}

/** By Ctrl-C, before a request was sent, or while it waited to be sent again. */
export class Stopped extends CommandFailed {
  readonly sent: boolean

  constructor(sent: boolean) {
    super(sent ? 'Stopped while it waited to try again.' : 'Stopped: nothing was sent.')
    this.sent = sent
  }
}

function backoffMs(attempt: number): number {
  return FIRST_BACKOFF_MS * 2 ** (attempt - 1)
}

async function waitFor(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal && { signal }).catch(() => {})
}
