import type { Server } from '../api-client.ts'

/** A stream that is alive has a line every 20 seconds. */
const SILENCE_MS = 50_000
const KEEP_ALIVE = '{}'

/** `refused`: asking again is of no use; `away`: it may be of use later. */
export type NoEvents = 'refused' | 'away'

/**
 * Watches what happens to an environment: yields once when the stream is open, and then each time that something has
 * happened. Ends with the stream, however that ends.
 */
export async function openEvents(
  { url, token }: Server,
  environmentId: string,
  signal: AbortSignal
): Promise<AsyncIterable<void> | NoEvents> {
  const silence = new Silence()
  try {
    const response = await fetch(`${url}/api/gitpod.v1.EventService/WatchEvents`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ environmentId }),
      redirect: 'manual',
      signal: AbortSignal.any([signal, silence.signal])
    })
    if (response.ok && response.body) {
      const body: unknown = response.body
      return happenings(body as AsyncIterable<Uint8Array>, silence)
    }
    silence.end()
    return response.status >= 500 || response.status === 429 ? 'away' : 'refused'
  } catch {
    silence.end()
    return 'away'
  }
}

async function* happenings(body: AsyncIterable<Uint8Array>, silence: Silence): AsyncGenerator<void> {
  const decoder = new TextDecoder()
  let rest = ''
  try {
    yield
    for await (const bytes of body) {
      silence.broken()
      const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
      rest = lines.pop()!
      if (lines.some((line) => line !== '' && line !== KEEP_ALIVE)) yield
    }
  } catch {
    // Whoever follows opens another one.
  } finally {
    silence.end()
  }
}

/** Aborts a stream of which nothing is heard any more, or that nobody wants. */
class Silence {
  readonly #controller = new AbortController()
  #timer: NodeJS.Timeout

  constructor() {
    this.#timer = this.#wait()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  broken(): void {
    clearTimeout(this.#timer)
    this.#timer = this.#wait()
  }

  end(): void {
    clearTimeout(this.#timer)
    this.#controller.abort()
  }

  #wait(): NodeJS.Timeout {
    return setTimeout(() => this.#controller.abort(), SILENCE_MS)
  }
}
