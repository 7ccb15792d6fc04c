import { shortOf } from '../api-errors.ts'
import type { Environment, SecretReference, SecretStatus } from './messages.ts'

// The words for what an environment's messages say.

/** `ENVIRONMENT_PHASE_RUNNING` is "running". */
export function phaseOf({ status }: Environment): string {
  return wordOf(status?.phase, 'ENVIRONMENT_PHASE_')
}

export function wordOf(name: string | undefined, prefix: string): string {
  return (name ?? 'unknown').replace(prefix, '').toLowerCase()
}

export function nameOf({ id, metadata }: Environment): string {
  return shortOf(metadata?.name || id || '')
}

/** "web-1 (id)" */
export function fullNameOf(environment: Environment): string {
  return `${nameOf(environment)} (${environment.id})`
}

export function failuresOf({ status }: Environment): string[] {
  return (status?.failureMessage ?? []).map(shortOf)
}

export function warningsOf({ status }: Environment): string[] {
  return (status?.warningMessage ?? []).map(shortOf)
}

export interface SecretLine {
  id: string
  name: string
  mount: string
  state: string
  /** why it is not delivered, or what else there is to know */
  reason: string
  /** which value is held */
  session: string
}

/** What the environment is to receive, with what became of it. */
export function secretsOf({ spec, status }: Environment): SecretLine[] {
  const states = new Map((status?.secrets ?? []).map((state) => [state.id, state]))
  return (spec?.secrets ?? []).map((reference) => {
    const state: SecretStatus = states.get(reference.id) ?? {}
    return {
      id: reference.id ?? '',
      name: shortOf(reference.name ?? ''),
      mount: mountOf(reference),
      state: state.phase ? wordOf(state.phase, 'CONTENT_PHASE_') : 'waiting',
      reason: shortOf(state.failureMessage || state.warningMessage || ''),
      session: state.session ?? ''
    }
  })
}

export function failedSecretsOf(environment: Environment): SecretLine[] {
  return secretsOf(environment).filter(({ state }) => state === 'failed')
}

/** "a is not delivered: …" */
export function describeFailedSecret({ name, reason }: SecretLine): string {
  return `the secret ${name} is not delivered${reason ? `: ${reason}` : ''}`
}

export function mountOf(reference: SecretReference): string {
  const { environmentVariable, filePath, containerRegistryBasicAuthHost, gitCredentialHost } = reference
  if (environmentVariable) return `variable ${shortOf(environmentVariable)}`
  if (filePath) return `file ${shortOf(filePath)}`
  if (containerRegistryBasicAuthHost) return `registry ${shortOf(containerRegistryBasicAuthHost)}`
  if (gitCredentialHost) return `git ${shortOf(gitCredentialHost)}`
  return 'api-only'
}

/** "ready, /workspace/web, main at 1a2b3c4" */
export function contentOf({ status }: Environment): string {
  const { phase, contentLocationInMachine, git, failureMessage } = status?.content ?? {}
  if (!phase) return ''
  const commit = git?.latestCommit?.slice(0, 7)
  const checkout = [git?.branch, commit && `at ${commit}`].filter(Boolean).join(' ')
  const parts = [wordOf(phase, 'CONTENT_PHASE_'), contentLocationInMachine, checkout, failureMessage]
  return parts
    .filter((part) => part)
    .map((part) => shortOf(part!))
    .join(', ')
}
