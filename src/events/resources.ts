import type { CreatedTable } from '../store/watchers.ts'

/** What Ona's API calls the things that audit records are about. */
export type ResourceType =
  | 'RESOURCE_TYPE_ENVIRONMENT'
  | 'RESOURCE_TYPE_RUNNER'
  | 'RESOURCE_TYPE_PROJECT'
  | 'RESOURCE_TYPE_ORGANIZATION'
  | 'RESOURCE_TYPE_USER'
  | 'RESOURCE_TYPE_ENVIRONMENT_CLASS'
  | 'RESOURCE_TYPE_GROUP'
  | 'RESOURCE_TYPE_SERVICE_ACCOUNT'
  | 'RESOURCE_TYPE_SECRET'
  | 'RESOURCE_TYPE_USER_SECRET'
  | 'RESOURCE_TYPE_ORGANIZATION_SECRET'
  | 'RESOURCE_TYPE_SERVICE_ACCOUNT_SECRET'

export type ResourceOperation =
  | 'RESOURCE_OPERATION_CREATE'
  | 'RESOURCE_OPERATION_UPDATE'
  | 'RESOURCE_OPERATION_DELETE'
  | 'RESOURCE_OPERATION_UPDATE_STATUS'

export interface Resource {
  type: ResourceType
  /** how the actions about it begin */
  action: string
  /** how the collection of a secret begins */
  collection?: string
  /** where its creator is kept; absent: nowhere */
  createdIn?: CreatedTable
  /** watchers hear of the organization that it is part of instead, as changed */
  partOfOrganization?: true
}

/** The records that have a resource; all others are about what Ona's API does not know. */
const RESOURCES: readonly Resource[] = [
  { type: 'RESOURCE_TYPE_PROJECT', action: 'project.', createdIn: 'projects' },
  { type: 'RESOURCE_TYPE_RUNNER', action: 'runner.', createdIn: 'runners' },
  { type: 'RESOURCE_TYPE_ENVIRONMENT_CLASS', action: 'environment_class.' },
  { type: 'RESOURCE_TYPE_SERVICE_ACCOUNT', action: 'service_account.', createdIn: 'service_accounts' },
  { type: 'RESOURCE_TYPE_GROUP', action: 'group.' },
  { type: 'RESOURCE_TYPE_ORGANIZATION', action: 'organization.' },
  { type: 'RESOURCE_TYPE_USER', action: 'membership.', partOfOrganization: true },
  { type: 'RESOURCE_TYPE_ENVIRONMENT', action: 'development_environment.', createdIn: 'environments' },
  secret('RESOURCE_TYPE_SECRET', 'project'),
  secret('RESOURCE_TYPE_USER_SECRET', 'user'),
  secret('RESOURCE_TYPE_ORGANIZATION_SECRET', 'organization'),
  secret('RESOURCE_TYPE_SERVICE_ACCOUNT_SECRET', 'service-account')
]

function secret(type: ResourceType, kind: string): Resource {
  return { type, action: 'secret.', collection: `codespaces/${kind}/`, createdIn: 'secrets' }
}

/** What a record is about; undefined where Ona's API knows no such thing. */
export function resourceOf(action: string, collection: string | null): Resource | undefined {
  return RESOURCES.find((resource) =>
    resource.collection === undefined
      ? action.startsWith(resource.action)
      : action.startsWith(resource.action) && collection?.startsWith(resource.collection)
  )
}

/** Those of these types. */
export function resourcesOfTypes(types: readonly string[]): readonly Resource[] {
  return RESOURCES.filter(({ type }) => types.includes(type))
}

/** Something has happened to a resource. */
export interface ResourceEvent {
  operation: ResourceOperation
  type: ResourceType
  uid: string
  /** the account in whose log it is recorded: an organization, or a user */
  streamUid: string
  createdIn: CreatedTable | undefined
  /** of a secret: whose it is */
  collection: { kind: CollectionKind; ownerUid: string } | undefined
}

type CollectionKind = 'user' | 'organization' | 'project' | 'service-account'

/** What one notification says; undefined when it says nothing that is known here. */
export function readEvent(payload: string): ResourceEvent | undefined {
  const record = parse(payload)
  if (!record) return undefined
  const { stream, action, collection, subject } = record
  const resource = resourceOf(action, collection)
  const uid = resource?.partOfOrganization ? stream : subject
  if (!resource || uid === null) return undefined
  const [, kind, ownerUid] = collection?.split('/') ?? []
  return {
    operation: resource.partOfOrganization ? 'RESOURCE_OPERATION_UPDATE' : operationOf(action),
    type: resource.partOfOrganization ? 'RESOURCE_TYPE_ORGANIZATION' : resource.type,
    uid,
    streamUid: stream,
    createdIn: resource.createdIn,
    collection: resource.collection ? { kind: kind as CollectionKind, ownerUid: ownerUid! } : undefined
  }
}

const OPERATIONS: Readonly<Record<string, ResourceOperation>> = {
  create: 'RESOURCE_OPERATION_CREATE',
  remove: 'RESOURCE_OPERATION_DELETE',
  status: 'RESOURCE_OPERATION_UPDATE_STATUS'
}

/** What is removed from a thing, as `project.policy.remove`, changes it. */
function operationOf(action: string): ResourceOperation {
  const [, verb, more] = action.split('.')
  return (more === undefined && OPERATIONS[verb!]) || 'RESOURCE_OPERATION_UPDATE'
}

interface ToldRecord {
  stream: string
  action: string
  collection: string | null
  subject: string | null
}

/** Whoever may use the database may notify, and not only in this form. */
function parse(payload: string): ToldRecord | undefined {
  try {
    const { stream, action, collection, subject } = JSON.parse(payload) ?? {}
    const text = (value: unknown) => value === null || typeof value === 'string'
    const known = typeof stream === 'string' && typeof action === 'string'
    return known && text(collection) && text(subject) ? { stream, action, collection, subject } : undefined
  } catch {
    return undefined
  }
}
