import { type ApiClient, RefusedByServer } from '../api-client.ts'
import { call } from './client.ts'
import { openEvents } from './events.ts'
import type { Environment } from './messages.ts'
import { pause, throughOutage } from './outage.ts'

const POLL_MS = 1_000

export async function getEnvironment(client: ApiClient, environmentId: string): Promise<Environment> {
  const method = 'gitpod.v1.EnvironmentService/GetEnvironment'
  const { environment } = await call<{ environment: Environment }>(client, method, { environmentId })
  return environment ?? {}
}

/**
 * An environment as it is, and again each time that it is different; undefined, and the end, when it is gone. Each
 * state is asked for: events only say when. Where there are none, it is asked each second.
 *
 * @param signal ends it
 */
export async function* follow(
  { patience: _, ...client }: ApiClient,
  environmentId: string,
  signal: AbortSignal
): AsyncGenerator<Environment | undefined> {
  let known: string | undefined
  let isWatched = true
  while (!signal.aborted) {
    const events = isWatched ? await openEvents(client, environmentId, signal) : 'refused'
    if (events === 'refused') isWatched = false
    for await (const _happening of typeof events === 'string' ? [undefined] : events) {
      const environment = await throughOutage(() => findEnvironment(client, environmentId), signal)
      if (signal.aborted) return
      const version = `${environment?.spec?.specVersion} ${environment?.status?.statusVersion}`
      if (version !== known) yield environment
      if (!environment) return
      known = version
    }
    await pause(POLL_MS, signal)
  }
}

async function findEnvironment(client: ApiClient, environmentId: string): Promise<Environment | undefined> {
  try {
    return await getEnvironment(client, environmentId)
  } catch (error) {
    if (error instanceof RefusedByServer && error.answered === 404) return undefined
    throw error
  }
}
