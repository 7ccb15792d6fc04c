import { type ApiClient, FailedByServer, RefusedByServer } from '../api-client.ts'
import { shortOf } from '../api-errors.ts'
import { Stopped } from '../patience.ts'
import type { Collection } from './collection.ts'
import type { Variable } from './env-file.ts'
import type { Progress } from './progress.ts'
import { type PublicKey, putSecret } from './secrets-api.ts'
import type { SelectionMembers } from './selection.ts'

/** By name, in the file's order. */
export interface Outcome {
  created: string[]
  updated: string[]
  failed: { name: string; message: string }[]
  notSent: string[]
  /** by Ctrl-C */
  stopped: boolean
}

export interface ImportPlan {
  variables: readonly Variable[]
  selectionOf: (name: string) => Promise<SelectionMembers>
  parallel: number
  progress: Pick<Progress, 'step' | 'say' | 'clear'>
  signal: AbortSignal
}

/** Sets all, a few at once; what will fail for all of them ends it, what is about one secret does not. */
export async function importAll(
  client: ApiClient,
  collection: Collection,
  key: PublicKey,
  { variables, selectionOf, parallel, progress, signal }: ImportPlan
): Promise<Outcome> {
  const results = new Map<string, 'created' | 'updated' | Error>()
  const queue = variables.values()
  let givenUp = false

  const work = async () => {
    for (const { name, value } of queue) {
      if (givenUp || signal.aborted) return
      try {
        const selection = await selectionOf(name)
        const result = await putSecret(client, collection, key, { name, value, selection })
        results.set(name, result)
        progress.step(`${result} ${name}`)
      } catch (error) {
        if (error instanceof Stopped && !error.sent) return
        results.set(name, error as Error)
        givenUp ||= isAboutAll(error)
        progress.step(`failed ${name}`)
      }
    }
  }
  const tellStop = () =>
    progress.say('Stopping when the requests under way are answered; Ctrl-C again ends at once.')
  signal.addEventListener('abort', tellStop, { once: true })
  await Promise.all(Array.from({ length: parallel }, work))
  signal.removeEventListener('abort', tellStop)
  for (const { value } of variables) value.fill(0)
  progress.clear()

  const having = (result: string) =>
    variables.map(({ name }) => name).filter((name) => results.get(name) === result)
  return {
    created: having('created'),
    updated: having('updated'),
    failed: variables.flatMap(({ name }) => {
      const result = results.get(name)
      return result instanceof Error ? [{ name, message: shortOf(result.message) }] : []
    }),
    notSent: variables.map(({ name }) => name).filter((name) => !results.has(name)),
    stopped: signal.aborted
  }
}

/** No server, no right, no collection; and what is no failure of a request at all. */
function isAboutAll(error: unknown): boolean {
  if (error instanceof RefusedByServer) return ![400, 409, 413, 422].includes(error.answered)
  if (error instanceof FailedByServer) return error.answered !== 500
  return true
}
