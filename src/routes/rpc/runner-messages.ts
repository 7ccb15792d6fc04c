import type { Static } from '@sinclair/typebox'
import { NO_PROVIDER, type RunnerConfiguration as StoredConfiguration } from '../../directory/runners.ts'
import type { RunnerFacts } from '../../store/runners.ts'
import { VERSION } from '../../version.ts'
import { compact, Subject, subject, timestamp } from './present.ts'
import { Bool, Enum, List, Message, Text, Timestamp, Uuid } from './schema.ts'

// The messages of runners, and how rows become them. What this server does not act on is kept and shown.

const CREATABLE_KINDS = { RUNNER_KIND_LOCAL: 1, RUNNER_KIND_REMOTE: 2 } as const

export const RunnerKind = Enum('RUNNER_KIND', { ...CREATABLE_KINDS, RUNNER_KIND_LOCAL_CONFIGURATION: 3 })

const CREATABLE_PROVIDERS = {
  RUNNER_PROVIDER_AWS_EC2: 1,
  RUNNER_PROVIDER_LINUX_HOST: 2,
  RUNNER_PROVIDER_DESKTOP_MAC: 3,
  RUNNER_PROVIDER_GCP: 5
} as const

export const RunnerProvider = Enum('RUNNER_PROVIDER', {
  ...CREATABLE_PROVIDERS,
  RUNNER_PROVIDER_MANAGED: 4,
  RUNNER_PROVIDER_DEV_AGENT: 6
})

const DESIRABLE_PHASES = { RUNNER_PHASE_INACTIVE: 2, RUNNER_PHASE_ACTIVE: 3 } as const

const RunnerPhase = Enum('RUNNER_PHASE', {
  RUNNER_PHASE_CREATED: 1,
  ...DESIRABLE_PHASES,
  RUNNER_PHASE_DELETING: 4,
  RUNNER_PHASE_DELETED: 5,
  RUNNER_PHASE_DEGRADED: 6
})

const RunnerCapability = Enum('RUNNER_CAPABILITY', {
  RUNNER_CAPABILITY_FETCH_LOCAL_SCM_INTEGRATIONS: 1,
  RUNNER_CAPABILITY_SECRET_CONTAINER_REGISTRY: 2,
  RUNNER_CAPABILITY_AGENT_EXECUTION: 3,
  RUNNER_CAPABILITY_ALLOW_ENV_TOKEN_POPULATION: 4,
  RUNNER_CAPABILITY_DEFAULT_DEV_CONTAINER_IMAGE: 5
})

const RunnerReleaseChannel = Enum('RUNNER_RELEASE_CHANNEL', {
  RUNNER_RELEASE_CHANNEL_STABLE: 1,
  RUNNER_RELEASE_CHANNEL_LATEST: 2
})

const LogLevel = Enum('LOG_LEVEL', {
  LOG_LEVEL_DEBUG: 1,
  LOG_LEVEL_INFO: 2,
  LOG_LEVEL_WARN: 3,
  LOG_LEVEL_ERROR: 4
})

/** A password is refused, not dropped: whoever sends one would believe that it is kept. Nothing here could use it. */
const metrics = {
  enabled: Bool(),
  url: Text({
    max: 2048,
    pattern: '^$|^https?://[^\\s/?#@]+(?:[/?#]\\S*)?$',
    rule: 'must be an http or https URL without a user and a password'
  }),
  username: Text({ max: 255 }),
  password: Text({
    pattern: '^$',
    rule: 'must not be set: this server keeps no credentials of runners; give it to the runner itself',
    description: 'Never kept, and refused'
  }),
  managedMetricsEnabled: Bool()
}

const settings = {
  releaseChannel: RunnerReleaseChannel,
  autoUpdate: Bool(),
  logLevel: LogLevel,
  devcontainerImageCacheEnabled: Bool()
}

const DesiredPhase = Enum('RUNNER_PHASE', DESIRABLE_PHASES, {
  description: 'Inactive: no environments are made on it'
})

const RunnerConfiguration = Message('RunnerConfiguration', {
  region: Text({ max: 255, description: 'Where it shall run, which is but a hint' }),
  ...settings,
  metrics: Message('MetricsConfiguration', metrics)
})

const RunnerSpec = Message('RunnerSpec', { desiredPhase: DesiredPhase, configuration: RunnerConfiguration })

export const CreateRunnerRequest = Message('CreateRunnerRequest', {
  name: Text({ required: true, min: 1, max: 80 }),
  kind: Enum('RUNNER_KIND', CREATABLE_KINDS, { description: 'Unset: it follows from the provider' }),
  provider: Enum('RUNNER_PROVIDER', CREATABLE_PROVIDERS),
  spec: RunnerSpec
})

export const UpdateRunnerRequest = Message('UpdateRunnerRequest', {
  runnerId: Uuid({ required: true }),
  name: Text({ min: 1, max: 80 }),
  spec: Message('UpdateRunnerRequest.Spec', {
    desiredPhase: DesiredPhase,
    configuration: Message('UpdateRunnerRequest.RunnerConfiguration', {
      ...settings,
      metrics: Message('UpdateRunnerRequest.MetricsConfiguration', metrics)
    })
  })
})

export const Runner = Message('Runner', {
  runnerId: Uuid(),
  createdAt: Timestamp(),
  updatedAt: Timestamp(),
  name: Text(),
  spec: RunnerSpec,
  status: Message('RunnerStatus', {
    updatedAt: Timestamp({ description: 'When it was last heard of' }),
    version: Text(),
    phase: RunnerPhase,
    capabilities: List(RunnerCapability)
  }),
  creator: Subject,
  kind: RunnerKind,
  provider: RunnerProvider
})

type Creation = Static<typeof CreateRunnerRequest>
type Update = Static<typeof UpdateRunnerRequest>

/** What of a runner a request sets. */
export function runnerSettings({ name, spec = {} }: Pick<Creation | Update, 'name' | 'spec'>) {
  const { desiredPhase, configuration } = spec
  return { name, desiredPhase, configuration: configuration && withoutPassword(configuration) }
}

/** It is empty, since any other one is refused. */
function withoutPassword({ metrics, ...rest }: Static<typeof RunnerConfiguration>): StoredConfiguration {
  if (!metrics) return rest
  const { password: _, ...kept } = metrics
  return { ...rest, metrics: kept }
}

function presentConfiguration({ metrics, ...rest }: StoredConfiguration) {
  const shown = compact(metrics ?? {})
  const message = compact({ ...rest, metrics: Object.keys(shown).length > 0 ? shown : undefined })
  return Object.keys(message).length > 0 ? (message as Static<typeof RunnerConfiguration>) : undefined
}

export function presentRunner(row: RunnerFacts): Static<typeof Runner> {
  const { provider } = row
  return compact({
    runnerId: row.runner_uid,
    createdAt: timestamp(row.created_at),
    updatedAt: timestamp(row.updated_at),
    name: row.name,
    spec: compact({
      desiredPhase: row.desired_phase as Static<typeof DesiredPhase>,
      configuration: presentConfiguration(row.configuration)
    }),
    status: compact({
      updatedAt: row.last_seen_at && timestamp(row.last_seen_at),
      version: row.hosted ? VERSION : undefined,
      phase: row.phase
    }),
    creator: subject(row.creator_kind, row.creator_uid),
    kind: row.kind as Static<typeof RunnerKind>,
    provider: provider === NO_PROVIDER ? undefined : (provider as Static<typeof RunnerProvider>)
  })
}
