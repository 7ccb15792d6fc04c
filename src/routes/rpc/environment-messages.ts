import type { Static } from '@sinclair/typebox'
import type { PHASES } from '../../environments/lifecycle.ts'
import type { Choice, ChosenSecret, Delivery, Origin, ResolvedSecret } from '../../environments/resolve.ts'
import type { EnvironmentSpec as StoredSpec } from '../../environments/spec.ts'
import type { StatusReport } from '../../runner/interface.ts'
import type { EnvironmentFacts } from '../../store/environments.ts'
import { invalid } from './decode.ts'
import { compact, compactAll, Subject, subject, timestamp } from './present.ts'
import { EnvironmentInitializer, RelativePath, Uri } from './project-messages.ts'
import {
  Bool,
  Duration,
  Enum,
  EXAMPLE_UUID,
  Int32,
  List,
  MapOf,
  Message,
  Text,
  Timestamp,
  Uint64,
  Uuid,
  withExample
} from './schema.ts'
import { CredentialProxy, GitHost } from './secret-messages.ts'

// The messages of environments, and how rows become them. What this server does not act on is kept and shown.

export const EnvironmentPhase = Enum('ENVIRONMENT_PHASE', {
  ENVIRONMENT_PHASE_CREATING: 10,
  ENVIRONMENT_PHASE_STARTING: 20,
  ENVIRONMENT_PHASE_RUNNING: 40,
  ENVIRONMENT_PHASE_UPDATING: 45,
  ENVIRONMENT_PHASE_STOPPING: 50,
  ENVIRONMENT_PHASE_STOPPED: 60,
  ENVIRONMENT_PHASE_DELETING: 70,
  ENVIRONMENT_PHASE_DELETED: 80
} satisfies Record<(typeof PHASES)[number], number>)

export const EnvironmentRole = Enum('ENVIRONMENT_ROLE', {
  ENVIRONMENT_ROLE_DEFAULT: 1,
  ENVIRONMENT_ROLE_PREBUILD: 2,
  ENVIRONMENT_ROLE_WORKFLOW: 3
})

export const ContentPhase = Enum('CONTENT_PHASE', {
  CONTENT_PHASE_CREATING: 10,
  CONTENT_PHASE_INITIALIZING: 20,
  CONTENT_PHASE_READY: 30,
  CONTENT_PHASE_UPDATING: 35,
  CONTENT_PHASE_FAILED: 40,
  CONTENT_PHASE_UNAVAILABLE: 45
})

const AdmissionLevel = Enum('ADMISSION_LEVEL', {
  ADMISSION_LEVEL_OWNER_ONLY: 1,
  ADMISSION_LEVEL_EVERYONE: 2,
  ADMISSION_LEVEL_ORGANIZATION: 3,
  ADMISSION_LEVEL_CREATOR_ONLY: 4
})

const KernelControlsAction = Enum('KERNEL_CONTROLS_ACTION', {
  KERNEL_CONTROLS_ACTION_BLOCK: 1,
  KERNEL_CONTROLS_ACTION_AUDIT: 2
})

const VetoFileSurface = Enum('VETO_FILE_SURFACE', {
  VETO_FILE_SURFACE_ACCESS: 1,
  VETO_FILE_SURFACE_CONTENT_MUTATION: 2,
  VETO_FILE_SURFACE_CONTENT_READ: 3
})

const KernelControlsConfig = Message('KernelControlsConfig', {
  veto: Message('Veto', {
    exec: Message('Veto.Exec', {
      enabled: Bool(),
      denylist: List(Text({ max: 4096 }), { max: 1000 }),
      action: KernelControlsAction,
      resolveBareNames: Bool(),
      untouchable: Bool(),
      watch: Bool(),
      denyBlockDevices: Bool()
    }),
    file: Message('Veto.File', {
      enabled: Bool(),
      paths: Message('VetoFilePathPolicy', {
        entries: List(
          Message('VetoFilePathEntry', {
            path: Text({ max: 4096 }),
            surface: VetoFileSurface,
            effect: KernelControlsAction,
            trackChanges: Bool()
          }),
          { max: 1000 }
        ),
        defaultSurface: VetoFileSurface,
        defaultEffect: KernelControlsAction
      }),
      blockDevices: Message('VetoFileBlockDevicesPolicy', { enabled: Bool(), action: KernelControlsAction }),
      supervisorProtection: Message('Veto.File.SupervisorProtection', {
        enabled: Bool(),
        effect: KernelControlsAction
      })
    })
  }),
  bpfDebugLevel: Enum('BPF_DEBUG_LEVEL', { BPF_DEBUG_LEVEL_INFO: 1, BPF_DEBUG_LEVEL_VERBOSE: 2 })
})

const Timeout = Duration({ least: 1800, orZero: true })
const Session = (what: string) => Text({ max: 255, description: `Another one asks for ${what} again` })

const Port = Message('EnvironmentSpec.EnvironmentPort', {
  port: Int32({ required: true, min: 1024, max: 65_535 }),
  admission: AdmissionLevel,
  name: Text({ min: 1, max: 100 }),
  protocol: Enum('PROTOCOL', { PROTOCOL_HTTP: 1, PROTOCOL_HTTPS: 2 }),
  authNonce: Uint64()
})

const SecretReference = Message(
  'EnvironmentSpec.Secret',
  {
    name: Text({ max: 255 }),
    source: Text({ max: 255, description: '`control-plane`' }),
    sourceRef: Text({ max: 255, description: 'The id of the secret' }),
    session: Text({ max: 255, description: 'Moves with each value' }),
    id: Text({ max: 255 }),
    scope: Enum('SCOPE', {
      SCOPE_ORGANIZATION: 1,
      SCOPE_PROJECT: 2,
      SCOPE_USER: 3,
      SCOPE_SERVICE_ACCOUNT: 4,
      SCOPE_RUNNER: 5
    }),
    filePath: Text({ max: 4096 }),
    environmentVariable: Text({ max: 255 }),
    gitCredentialHost: GitHost('For git on this host'),
    containerRegistryBasicAuthHost: Text({ max: 1024 }),
    apiOnly: Bool(),
    credentialProxy: CredentialProxy
  },
  {
    oneofs: {
      mount: {
        members: [
          'filePath',
          'environmentVariable',
          'gitCredentialHost',
          'containerRegistryBasicAuthHost',
          'apiOnly'
        ]
      }
    }
  }
)

const PublicKey = Message('EnvironmentSpec.SSHPublicKey', {
  id: Text({ required: true, min: 1, max: 255 }),
  value: Text({ max: 16_384 })
})

const Name = (max: number) => Text({ min: 1, max, description: 'One is made where none is given' })

export const EnvironmentSpec = Message('EnvironmentSpec', {
  specVersion: Uint64({ description: 'Moves with each change' }),
  desiredPhase: EnvironmentPhase,
  machine: Message('EnvironmentSpec.Machine', {
    session: Session('the machine'),
    class: withExample(Uuid({ description: 'The environment class' }), EXAMPLE_UUID),
    preferDualDisk: Bool()
  }),
  content: Message('EnvironmentSpec.Content', {
    session: Session('the content'),
    initializer: EnvironmentInitializer,
    gitUsername: Text({ max: 255 }),
    gitEmail: Text({ max: 255 })
  }),
  secrets: List(SecretReference, {
    max: 1000,
    description: 'References; in a request they narrow what the environment would receive'
  }),
  ports: List(Port, { max: 1000 }),
  timeout: Message('EnvironmentSpec.Timeout', { disconnected: Timeout }),
  admission: AdmissionLevel,
  devcontainer: Message('EnvironmentSpec.DevContainer', {
    session: Session('the dev container'),
    devcontainerFilePath: RelativePath('In the repository'),
    dotfiles: Message('EnvironmentSpec.DevContainer.Dotfiles', { repository: Uri() }),
    defaultDevcontainerImage: Text({ max: 1024 }),
    lifecycleStage: Enum('LIFECYCLE_STAGE', { LIFECYCLE_STAGE_FULL: 1, LIFECYCLE_STAGE_PREBUILD: 2 })
  }),
  sshPublicKeys: List(PublicKey, { max: 100 }),
  automationsFile: Message('EnvironmentSpec.AutomationsFile', {
    session: Session('the automations'),
    automationsFilePath: RelativePath('In the repository'),
    triggerFilter: List(
      Message('AutomationTrigger', {
        manual: Bool(),
        postMachineStart: Bool(),
        postEnvironmentStart: Bool(),
        postDevcontainerStart: Bool(),
        prebuild: Bool(),
        beforeSnapshot: Bool()
      }),
      { max: 100 }
    )
  }),
  workflowActionId: Text({ max: 255 }),
  kernelControlsConfig: KernelControlsConfig,
  securityPolicyId: Text({ max: 255 })
})
type Spec = Static<typeof EnvironmentSpec>

const RunnerAck = Message('EnvironmentStatus.RunnerACK', {
  specVersion: Uint64(),
  statusCode: Enum('STATUS_CODE', {
    STATUS_CODE_OK: 1,
    STATUS_CODE_INVALID_RESOURCE: 2,
    STATUS_CODE_FAILED_PRECONDITION: 3
  }),
  message: Text()
})

const ActivitySignal = Message('EnvironmentActivitySignal', {
  source: Text({ min: 3, max: 80 }),
  timestamp: Timestamp()
})

const DevContainerPhase = Enum('PHASE', {
  PHASE_CREATING: 10,
  PHASE_RUNNING: 20,
  PHASE_STOPPED: 30,
  PHASE_FAILED: 40
})
const MachinePhase = Enum('PHASE', {
  PHASE_CREATING: 10,
  PHASE_STARTING: 20,
  PHASE_RUNNING: 30,
  PHASE_STOPPING: 40,
  PHASE_STOPPED: 50,
  PHASE_DELETING: 60,
  PHASE_DELETED: 70
})

const EnvironmentStatus = Message('EnvironmentStatus', {
  statusVersion: Uint64({ description: 'Moves with each change' }),
  runnerAck: RunnerAck,
  phase: EnvironmentPhase,
  failureMessage: List(Text(), { description: 'Not empty: the environment failed' }),
  environmentUrls: Message('EnvironmentStatus.EnvironmentURLs', { logs: Text() }),
  machine: Message('EnvironmentStatus.Machine', {
    session: Text(),
    phase: MachinePhase,
    failureMessage: Text(),
    warningMessage: Text()
  }),
  secrets: List(
    Message('EnvironmentStatus.Secret', {
      id: Text(),
      phase: ContentPhase,
      secretName: Text(),
      failureMessage: Text({ description: 'Why it is not delivered' }),
      warningMessage: Text(),
      session: Text({ description: 'Which value is held' })
    })
  ),
  content: Message('EnvironmentStatus.Content', {
    session: Text(),
    phase: ContentPhase,
    git: Message('EnvironmentGitStatus', { cloneUrl: Text(), branch: Text(), latestCommit: Text() }),
    contentLocationInMachine: Text(),
    failureMessage: Text()
  }),
  devcontainer: Message('EnvironmentStatus.DevContainer', {
    session: Text(),
    phase: DevContainerPhase,
    secretsInSync: Bool({ description: 'Whether running processes have the present values' }),
    remoteUser: Text(),
    remoteWorkspaceFolder: Text()
  }),
  warningMessage: List(Text()),
  activitySignal: ActivitySignal
})

export const Environment = Message('Environment', {
  id: Uuid(),
  metadata: Message('EnvironmentMetadata', {
    organizationId: Uuid(),
    annotations: MapOf(Text()),
    name: Text(),
    creator: Subject,
    originalContextUrl: Text(),
    createdAt: Timestamp(),
    projectId: Uuid(),
    runnerId: Uuid(),
    lastStartedAt: Timestamp(),
    archivedAt: Timestamp(),
    role: EnvironmentRole,
    lockdownAt: Timestamp(),
    sessionId: Text()
  }),
  spec: EnvironmentSpec,
  status: EnvironmentStatus
})

const creation = {
  spec: EnvironmentSpec,
  name: withExample(Name(80), 'web'),
  sessionId: Text({
    max: 255,
    description: 'Of environments that belong together; one is made where none is given'
  }),
  annotations: MapOf(Text({ max: 1024 }), { description: 'Kept and shown' })
}
export const CreateEnvironmentRequest = Message('CreateEnvironmentRequest', creation)
export const CreateEnvironmentFromProjectRequest = Message('CreateEnvironmentFromProjectRequest', {
  projectId: Uuid({ required: true }),
  ...creation
})

export const UpdateEnvironmentRequest = Message('UpdateEnvironmentRequest', {
  environmentId: Uuid({ required: true }),
  metadata: Message('UpdateEnvironmentRequest.Metadata', {
    name: withExample(Text({ min: 1, max: 128 }), 'web'),
    lockdownAt: Timestamp({ description: 'For owners of the organization; 1970-01-01T00:00:00Z removes it' })
  }),
  spec: Message('UpdateEnvironmentRequest.Spec', {
    content: Message('UpdateEnvironmentRequest.Content', {
      session: Session('the content'),
      initializer: EnvironmentInitializer,
      gitUsername: Text({ max: 255 }),
      gitEmail: Text({ max: 255 })
    }),
    sshPublicKeys: List(
      Message('UpdateEnvironmentRequest.SSHPublicKey', {
        id: Text({ required: true, min: 1, max: 255 }),
        value: Text({ max: 16_384, description: 'Unset: the key is removed' })
      }),
      { max: 100 }
    ),
    devcontainer: Message('UpdateEnvironmentRequest.DevContainer', {
      session: Session('the dev container'),
      devcontainerFilePath: RelativePath('In the repository')
    }),
    ports: List(Port, { max: 1000 }),
    timeout: Message('UpdateEnvironmentRequest.Timeout', { disconnected: Timeout }),
    automationsFile: Message('UpdateEnvironmentRequest.AutomationsFile', {
      session: Session('the automations'),
      automationsFilePath: RelativePath('In the repository')
    }),
    kernelControlsConfig: KernelControlsConfig
  })
})

export const MarkEnvironmentActiveRequest = Message('MarkEnvironmentActiveRequest', {
  environmentId: Uuid({ required: true }),
  activitySignal: ActivitySignal
})

/** What of a spec in a request is its own: not the secrets, nor what the server says. */
export function readSpec(spec: Spec | undefined): StoredSpec {
  const { secrets: _secrets, specVersion: _version, desiredPhase: _phase, ...rest } = spec ?? {}
  return rest as StoredSpec
}

/** What a request says about which secrets, and how; undefined: nothing. */
export function readChoice(spec: Spec | undefined): Choice | undefined {
  const secrets = (spec?.secrets ?? []).map(
    ({ sourceRef, id, source, gitCredentialHost }, index): ChosenSecret => {
      const field = `spec.secrets[${index}]`
      if (source && source !== 'control-plane') {
        throw invalid(`${field}.source`, 'must be control-plane: this server has no other secrets')
      }
      const reference = sourceRef || id
      if (!reference || !UUID.test(reference))
        throw invalid(`${field}.sourceRef`, 'must be the id of a secret')
      return { id: reference.toLowerCase(), ...(gitCredentialHost && { gitHost: gitCredentialHost }) }
    }
  )
  if (secrets.length === 0) return undefined
  return { narrows: secrets.some(({ gitHost }) => gitHost === undefined), secrets }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** A repository is nearest to its project: Ona's API has no name for it. */
const SCOPES: Readonly<Record<Origin, NonNullable<Static<typeof SecretReference>['scope']>>> = {
  user: 'SCOPE_USER',
  'service-account': 'SCOPE_SERVICE_ACCOUNT',
  project: 'SCOPE_PROJECT',
  repository: 'SCOPE_PROJECT',
  organization: 'SCOPE_ORGANIZATION'
}

function presentMount(mount: Delivery) {
  switch (mount.kind) {
    case 'variable':
      return { environmentVariable: mount.name }
    case 'file':
      return { filePath: mount.path }
    case 'registry':
      return { containerRegistryBasicAuthHost: mount.host }
    case 'git':
      return { gitCredentialHost: mount.host }
    case 'api-only':
      return { apiOnly: true }
  }
}

function presentReference({ id, name, origin, session, mount, credentialProxy }: ResolvedSecret) {
  return compact({
    id,
    name,
    source: 'control-plane',
    sourceRef: id,
    session,
    scope: SCOPES[origin],
    ...presentMount(mount),
    credentialProxy
  })
}

function presentSpec(row: EnvironmentFacts): Spec {
  return compact({
    ...compactAll(row.spec as Spec),
    specVersion: String(row.spec_version),
    desiredPhase: row.desired_phase as Spec['desiredPhase'],
    secrets: (row.resolution as ResolvedSecret[]).map(presentReference)
  }) as Spec
}

const ALIVE = new Set(['ENVIRONMENT_PHASE_RUNNING', 'ENVIRONMENT_PHASE_UPDATING'])

type MachinePhaseName = NonNullable<Static<typeof MachinePhase>>

function presentMachine(phase: string): { phase: MachinePhaseName } {
  const name = ALIVE.has(phase) ? 'RUNNING' : phase.slice('ENVIRONMENT_PHASE_'.length)
  return { phase: `PHASE_${name}` as MachinePhaseName }
}

function presentStatus(row: EnvironmentFacts): Static<typeof EnvironmentStatus> {
  const { failureMessage, warningMessage, content, secrets, secretsInSync, specVersion } =
    row.status as Partial<StatusReport>
  const alive = ALIVE.has(row.phase)
  return compact({
    statusVersion: String(row.status_version),
    phase: row.phase as NonNullable<Spec['desiredPhase']>,
    runnerAck: specVersion === undefined ? undefined : { specVersion, statusCode: 'STATUS_CODE_OK' as const },
    failureMessage: failureMessage ? [failureMessage] : [],
    warningMessage: warningMessage ? [warningMessage] : [],
    machine: presentMachine(row.phase),
    secrets: (secrets ?? []).map((secret) => compact(secret)),
    content:
      content &&
      compact({
        phase: content.phase,
        session: content.session,
        contentLocationInMachine: content.location,
        failureMessage: content.failureMessage,
        git: content.git && compact(content.git)
      }),
    devcontainer: alive
      ? compact({
          phase: 'PHASE_RUNNING' as const,
          session: (row.spec as StoredSpec).devcontainer?.session,
          secretsInSync,
          remoteWorkspaceFolder: content?.location
        })
      : undefined,
    activitySignal: row.activity as Static<typeof ActivitySignal> | null
  }) as Static<typeof EnvironmentStatus>
}

export function presentEnvironment(row: EnvironmentFacts): Static<typeof Environment> {
  return {
    id: row.environment_uid,
    metadata: compact({
      organizationId: row.organization_uid,
      annotations: Object.keys(row.annotations).length > 0 ? row.annotations : undefined,
      name: row.name,
      creator: subject(row.creator_kind, row.creator_uid),
      originalContextUrl: row.original_context_url,
      createdAt: timestamp(row.created_at),
      projectId: row.project_uid,
      runnerId: row.runner_uid,
      lastStartedAt: timestamp(row.last_started_at),
      archivedAt: row.archived_at && timestamp(row.archived_at),
      role: row.environment_role as NonNullable<Static<typeof EnvironmentRole>>,
      lockdownAt: row.lockdown_at && timestamp(row.lockdown_at),
      sessionId: row.session_id
    }) as NonNullable<Static<typeof Environment>['metadata']>,
    spec: presentSpec(row),
    status: presentStatus(row)
  }
}
