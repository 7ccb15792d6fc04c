import { setTimeout as sleep } from 'node:timers/promises'

const FIRST_PAUSE_MS = 200
const LONGEST_PAUSE_MS = 5_000

/**
 * Waits before the next try of something that failed so many times already.
 *
 * @throws AbortError when the signal ends the wait
 */
export async function pauseAfter(
  failures: number,
  signal: AbortSignal,
  longestMs = LONGEST_PAUSE_MS
): Promise<void> {
  const ms = Math.min(longestMs, FIRST_PAUSE_MS * 2 ** Math.min(failures - 1, 10))
  await sleep(ms, undefined, { signal })
}

/**
 * What the promise gives, but no longer than the signal lets wait.
 *
 * @param late gets what came after nobody waited for it any more
 * @throws what the signal was aborted with
 */
export async function whileWanted<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  late: (value: T) => void = () => {}
): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const abort = () => {
      promise.then(late, () => {})
      reject(signal.reason)
    }
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
