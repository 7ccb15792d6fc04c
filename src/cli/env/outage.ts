import { setTimeout as sleep } from 'node:timers/promises'
import { FailedByServer } from '../api-client.ts'
import { NoAnswer } from '../no-answer.ts'

const LONGEST_MS = 120_000
const PAUSE_MS = 1_000

/** Does again, each second and for two minutes, what a server that is away or restarts cannot answer. */
export async function throughOutage<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (const end = Date.now() + LONGEST_MS; ; ) {
    try {
      return await work()
    } catch (error) {
      if (!isPassing(error) || Date.now() > end || signal.aborted) throw error
      await pause(PAUSE_MS, signal)
    }
  }
}

/** No answer, or none that says anything about what was asked. */
export function isPassing(error: unknown): boolean {
  return (error instanceof NoAnswer && error.transient) || error instanceof FailedByServer
}

/** Until the time has passed, or the signal comes. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {})
}
