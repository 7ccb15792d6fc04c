import type { Static } from '@sinclair/typebox'
import type { AllowedClass } from '../../projects/projects.ts'
import type { ProjectPolicy as PolicyRow, ProjectFacts } from '../../store/projects.ts'
import type { ProjectRole as Role } from '../../store/tables.ts'
import { compact, compactAll, Subject, subject, timestamp } from './present.ts'
import {
  Bool,
  Duration,
  Enum,
  EXAMPLE_UUID,
  Int32,
  List,
  MapOf,
  Message,
  required,
  Text,
  Timestamp,
  Uuid,
  withExample
} from './schema.ts'

// The messages of projects, and how rows become them. What this server does not act on is kept and shown.

export const Uri = (description?: string) =>
  Text({
    max: 2048,
    pattern: '^[^\\u0000-\\u0020\\u007f]*$',
    rule: 'must be a URI, without spaces and control characters',
    ...(description && { description })
  })

export const RelativePath = (description: string) =>
  Text({ max: 1024, pattern: '^$|^[^/].*$', rule: 'must be relative: not begin with a slash', description })

export const CloneTargetMode = Enum('CLONE_TARGET_MODE', {
  CLONE_TARGET_MODE_REMOTE_HEAD: 1,
  CLONE_TARGET_MODE_REMOTE_COMMIT: 2,
  CLONE_TARGET_MODE_REMOTE_BRANCH: 3,
  CLONE_TARGET_MODE_LOCAL_BRANCH: 4,
  CLONE_TARGET_MODE_REMOTE_TAG: 5
})

export const EnvironmentInitializer = Message('EnvironmentInitializer', {
  specs: List(
    Message(
      'EnvironmentInitializer.Spec',
      {
        git: Message('GitInitializer', {
          remoteUri: Uri('Where it is cloned from'),
          upstreamRemoteUri: Uri(),
          targetMode: CloneTargetMode,
          cloneTarget: Text({ max: 1024, description: 'The branch, commit or tag' }),
          checkoutLocation: RelativePath('Where in the workspace it is cloned to')
        }),
        contextUrl: Message('ContextURLInitializer', { url: Uri() })
      },
      { oneofs: { spec: { members: ['git', 'contextUrl'] } } }
    ),
    { max: 100 }
  )
})

export const ProjectEnvironmentClass = Message(
  'ProjectEnvironmentClass',
  {
    environmentClassId: withExample(Uuid(), EXAMPLE_UUID),
    localRunner: Bool({ description: "A runner on the user's own machine" }),
    order: Int32({ description: 'Lower comes first' })
  },
  { oneofs: { environmentClass: { members: ['environmentClassId', 'localRunner'] } } }
)

const PrebuildConfiguration = Message('ProjectPrebuildConfiguration', {
  enabled: Bool(),
  environmentClassIds: List(Uuid({ required: true }), { max: 100 }),
  timeout: Duration({ least: 300, most: 7200 }),
  trigger: Message('PrebuildTrigger', {
    dailySchedule: Message('PrebuildTrigger.DailySchedule', { hourUtc: Int32({ min: 0, max: 23 }) })
  }),
  executor: Subject,
  enableJetbrainsWarmup: Bool()
})

const RecommendedEditors = Message('RecommendedEditors', {
  editors: MapOf(Message('EditorVersions', { versions: List(Text({ max: 100 }), { max: 100 }) }))
})

const settings = {
  devcontainerFilePath: RelativePath('The path of the devcontainer file in the repository'),
  automationsFilePath: RelativePath('The path of the automations file in the repository'),
  technicalDescription: Text({ max: 8192, description: 'Not shown by GetProject and ListProjects' }),
  prebuildConfiguration: PrebuildConfiguration
}

const Name = { min: 1, max: 80 }

const creation = {
  name: withExample(Text({ required: true, ...Name }), 'web'),
  initializer: withExample(required(EnvironmentInitializer), {
    specs: [{ git: { remoteUri: 'https://github.com/acme/web.git' } }]
  }),
  ...settings,
  environmentClass: ProjectEnvironmentClass
}
export const CreateProjectRequest = Message('CreateProjectRequest', creation)
type Creation = Static<typeof CreateProjectRequest>

export const UpdateProjectRequest = Message('UpdateProjectRequest', {
  projectId: Uuid({ required: true }),
  name: withExample(Text(Name), 'web'),
  initializer: EnvironmentInitializer,
  ...settings,
  recommendedEditors: RecommendedEditors,
  environmentClass: ProjectEnvironmentClass
})

const ProjectPhase = Enum('PROJECT_PHASE', { PROJECT_PHASE_ACTIVE: 1, PROJECT_PHASE_DELETED: 2 })

export const Project = Message('Project', {
  id: Uuid(),
  metadata: Message('ProjectMetadata', {
    organizationId: Uuid(),
    name: Text(),
    creator: Subject,
    createdAt: Timestamp(),
    updatedAt: Timestamp()
  }),
  initializer: EnvironmentInitializer,
  environmentClass: {
    ...ProjectEnvironmentClass,
    description: 'Deprecated: the first of `environmentClasses`'
  },
  environmentClasses: List(ProjectEnvironmentClass),
  ...settings,
  desiredPhase: ProjectPhase,
  recommendedEditors: RecommendedEditors,
  usedBy: Message('Project.UsedBy', {
    subjects: List(Subject, {
      description: 'Who made environments of it that are there, the newest first; 10 at most'
    }),
    totalSubjects: Int32()
  })
})

function presentClass({ environment_class_uid, sort_order }: ProjectFacts['classes'][number]) {
  return compact({
    environmentClassId: environment_class_uid ?? undefined,
    localRunner: environment_class_uid === null,
    order: sort_order
  })
}

export function presentClasses({ classes }: ProjectFacts): Static<typeof ProjectEnvironmentClass>[] {
  return classes.map(presentClass)
}

function presentUsers({ subjects, total }: ProjectFacts['used_by']) {
  if (total === 0) return undefined
  return compact({
    subjects: subjects.flatMap(({ kind, uid }) => subject(kind, uid) ?? []),
    totalSubjects: total
  })
}

/** @param whole with the technical description, which only who writes it gets */
export function presentProject(row: ProjectFacts, whole = false): Static<typeof Project> {
  const environmentClasses = presentClasses(row)
  return compact({
    id: row.project_uid,
    metadata: compact({
      organizationId: row.organization_uid,
      name: row.name,
      creator: subject(row.creator_kind, row.creator_uid),
      createdAt: timestamp(row.created_at),
      updatedAt: timestamp(row.updated_at)
    }),
    initializer: compactAll(row.initializer as Static<typeof EnvironmentInitializer>),
    environmentClass: environmentClasses[0] ?? {},
    environmentClasses,
    devcontainerFilePath: row.devcontainer_file_path,
    automationsFilePath: row.automations_file_path,
    technicalDescription: whole ? row.technical_description : undefined,
    prebuildConfiguration: compactAll(
      row.prebuild_configuration as Static<typeof PrebuildConfiguration> | null
    ),
    desiredPhase: 'PROJECT_PHASE_ACTIVE' as const,
    recommendedEditors: compactAll(row.recommended_editors as Static<typeof RecommendedEditors> | null),
    usedBy: presentUsers(row.used_by)
  })
}

/** What of a project a request sets, as it is stored. */
export function valuesOf(input: Creation & { recommendedEditors?: Static<typeof RecommendedEditors> }) {
  const { name, initializer, devcontainerFilePath, automationsFilePath, technicalDescription } = input
  const { prebuildConfiguration, recommendedEditors } = input
  return {
    ...(name !== undefined && { name }),
    ...(initializer && { initializer }),
    ...(devcontainerFilePath !== undefined && { devcontainer_file_path: devcontainerFilePath }),
    ...(automationsFilePath !== undefined && { automations_file_path: automationsFilePath }),
    ...(technicalDescription !== undefined && { technical_description: technicalDescription }),
    ...(prebuildConfiguration && { prebuild_configuration: prebuildConfiguration }),
    ...(recommendedEditors && {
      // A message without any clears what was recommended.
      recommended_editors:
        Object.keys(recommendedEditors.editors ?? {}).length > 0 ? recommendedEditors : null
    })
  }
}

/** The classes that a request names; one that names nothing is none. */
export function allowedClasses(classes: readonly Static<typeof ProjectEnvironmentClass>[]): AllowedClass[] {
  return classes
    .filter(({ environmentClassId, localRunner }) => environmentClassId !== undefined || localRunner)
    .map(({ environmentClassId, order }) => ({ environmentClassUid: environmentClassId, order: order ?? 0 }))
}

const ROLES = {
  admin: 'PROJECT_ROLE_ADMIN',
  user: 'PROJECT_ROLE_USER',
  editor: 'PROJECT_ROLE_EDITOR'
} as const

export const ProjectRole = Enum('PROJECT_ROLE', {
  PROJECT_ROLE_ADMIN: 1,
  PROJECT_ROLE_USER: 2,
  PROJECT_ROLE_EDITOR: 3
})

export function roleOf(role: Static<typeof ProjectRole>): Role {
  return (Object.keys(ROLES) as Role[]).find((name) => ROLES[name] === role)!
}

export const ProjectPolicy = Message('ProjectPolicy', { groupId: Uuid(), role: ProjectRole })

export function presentPolicy({ group_uid, role }: Pick<PolicyRow, 'group_uid' | 'role'>) {
  return { groupId: group_uid, role: ROLES[role] }
}
