import type { ApiClient } from '../api-client.ts'
import { CommandFailed } from '../terminal.ts'
import { failuresOf, fullNameOf, phaseOf } from './describe.ts'
import { follow } from './follow.ts'
import type { Environment } from './messages.ts'

export type Goal = 'running' | 'stopped' | 'deleted'

export interface WaitOptions {
  /** ends waiting */
  signal: AbortSignal
  onState: (environment: Environment) => void
}

/** Nobody wants to wait any longer; what was asked of the environment goes on. */
export class StoppedWaiting extends CommandFailed {
  constructor() {
    super('Stopped waiting.')
  }
}

/**
 * Waits until an environment is as it was asked to be.
 *
 * @returns the environment then; undefined: it is gone
 * @throws CommandFailed when it failed, when somebody asked it for something else, and when it is gone before
 * @throws StoppedWaiting
 */
export async function waitFor(
  client: ApiClient,
  environmentId: string,
  goal: Goal,
  { signal, onState }: WaitOptions
): Promise<Environment | undefined> {
  try {
    for await (const environment of follow(client, environmentId, signal)) {
      if (!environment) {
        if (goal === 'deleted') return undefined
        throw new CommandFailed(`The environment ${environmentId} is gone: somebody has deleted it.`)
      }
      onState(environment)
      requireWish(environment, goal)
      // Before its runner has seen what is asked, the status tells of what was asked before.
      if (!isAcknowledged(environment)) continue
      if (phaseOf(environment) === goal) return environment
      if (goal === 'running') requireNoFailure(environment)
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
  throw new StoppedWaiting()
}

function requireWish(environment: Environment, goal: Goal): void {
  const desired = environment.spec?.desiredPhase
  if (desired === `ENVIRONMENT_PHASE_${goal.toUpperCase()}`) return
  const other = desired === 'ENVIRONMENT_PHASE_DELETED' ? 'deleted' : phaseWord(desired)
  throw new CommandFailed(
    `The environment ${fullNameOf(environment)} is to be ${other}: somebody asked for that.`
  )
}

function phaseWord(desired: string | undefined): string {
  return (desired ?? '').replace('ENVIRONMENT_PHASE_', '').toLowerCase()
}

function requireNoFailure(environment: Environment): void {
  const failures = failuresOf(environment)
  if (failures.length === 0) return
  throw new CommandFailed(`The environment ${fullNameOf(environment)} failed: ${failures.join('; ')}`)
}

function isAcknowledged({ spec, status }: Environment): boolean {
  const acknowledged = status?.runnerAck?.specVersion
  return acknowledged !== undefined && BigInt(acknowledged) >= BigInt(spec?.specVersion ?? 0)
}
