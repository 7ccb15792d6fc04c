import type { ColumnType, Generated, GeneratedAlways } from 'kysely'

/**
 * The database on one screen. A bigint is a number while it is safe as one, as every id from a sequence is; the
 * ids of key generations are random, never below 10^17, and strings. Names and logins compare bytewise.
 */
export interface Database {
  instance: InstanceTable
  accounts: AccountsTable
  memberships: MembershipsTable
  repositories: RepositoriesTable
  repository_redirects: RepositoryRedirectsTable
  collaborators: CollaboratorsTable
  deployment_environments: DeploymentEnvironmentsTable
  tokens: TokensTable
  token_repositories: TokenRepositoriesTable
  integrations: IntegrationsTable
  integration_keys: IntegrationKeysTable
  installations: InstallationsTable
  installation_repositories: InstallationRepositoriesTable
  key_generations: KeyGenerationsTable
  key_material: KeyMaterialTable
  nodes: NodesTable
  secrets: SecretsTable
  secret_repositories: SecretRepositoriesTable
  audit_events: AuditEventsTable
  audit_chain: AuditChainTable
  audit_streams: AuditStreamsTable
  audit_sealer: AuditSealerTable
  audit_checkpoint: AuditCheckpointTable
  audit_prunings: AuditPruningsTable
  rate_limits: RateLimitsTable
}

export type RepositoryRole = 'read' | 'triage' | 'write' | 'maintain' | 'admin'
export type AccountKind = 'user' | 'organization'
export type OrganizationRole = 'member' | 'admin'
export type TokenKind = 'classic' | 'fine-grained' | 'installation'
/** Permissions by name, of fine-grained tokens, GitHub Apps and their installations. */
export type Permissions = Record<string, 'read' | 'write'>
export type Visibility = 'all' | 'private' | 'selected'
export type Mount = 'variable' | 'file' | 'registry' | 'api-only'

type Now = ColumnType<Date, Date | undefined, Date>

export interface InstanceTable {
  uid: Generated<string>
  epoch: Generated<number>
  created_at: Now
}

export interface AccountsTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  kind: AccountKind
  login: string
  login_key: GeneratedAlways<string>
  name: string | null
  email: string | null
  site_admin: Generated<boolean>
  created_at: Now
  updated_at: Now
}

export interface MembershipsTable {
  organization_id: number
  account_id: number
  role: OrganizationRole
  created_at: Now
}

export interface RepositoriesTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  owner_id: number
  name: string
  name_key: GeneratedAlways<string>
  private: boolean
  description: string | null
  default_branch: Generated<string>
  created_at: Now
  updated_at: Now
}

export interface RepositoryRedirectsTable {
  owner_id: number
  name_key: string
  repository_id: number
}

export interface CollaboratorsTable {
  repository_id: number
  account_id: number
  role: RepositoryRole
  created_at: Now
}

export interface DeploymentEnvironmentsTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  repository_id: number
  name: string
  name_key: GeneratedAlways<string>
  created_at: Now
  updated_at: Now
}

export interface TokensTable {
  id: GeneratedAlways<number>
  hash: Buffer
  kind: TokenKind
  account_id: number
  scopes: Generated<string[]>
  permissions: ColumnType<Permissions, string | undefined, string>
  all_repositories: Generated<boolean>
  installation_id: ColumnType<number | null, number | null | undefined, never>
  note: string | null
  last_eight: string
  issued_by_uid: string | null
  epoch: number
  created_at: Now
  expires_at: Date | null
  last_used_at: Date | null
}

export interface TokenRepositoriesTable {
  token_id: number
  repository_id: number
}

/** GitHub Apps: an app alone is what receives secrets. */
export interface IntegrationsTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  owner_id: number
  slug: string
  client_id: string
  name: string
  description: string | null
  permissions: ColumnType<Permissions, string, string>
  created_at: Now
  updated_at: Now
}

export interface IntegrationKeysTable {
  id: GeneratedAlways<number>
  integration_id: number
  public_key: Buffer
  epoch: number
  created_at: Now
}

export interface InstallationsTable {
  /** of the same sequence as the ids of accounts */
  id: Generated<number>
  uid: Generated<string>
  integration_id: number
  account_id: number
  all_repositories: boolean
  permissions: ColumnType<Permissions, string, string>
  suspended_at: Date | null
  suspended_by: 'app' | 'administrator' | null
  created_at: Now
  updated_at: Now
}

export interface InstallationRepositoriesTable {
  installation_id: number
  repository_id: number
}

export interface KeyGenerationsTable {
  id: string
  state: 'pending' | 'active' | 'retired' | 'destroyed'
  replaces: string | null
  accepts_boxes_until: Date | null
  created_at: Now
  activated_at: Date | null
  retired_at: Date | null
  destroyed_at: Date | null
}

export interface KeyMaterialTable {
  generation_id: string
  wrapped: Buffer
  fingerprint: string
}

export interface NodesTable {
  uid: string
  generation_ids: string[]
  reported_at: Date
}

export interface SecretsTable {
  id: GeneratedAlways<number>
  uid: string
  app: string
  kind: string
  owner_uid: string
  name: string
  github_name: GeneratedAlways<boolean>
  mount: Generated<Mount>
  mount_target: string | null
  visibility: Visibility | null
  envelope: Buffer
  generation_id: string
  value_version: number
  row_version: number
  creator_kind: string
  creator_uid: string
  created_at: Date
  updated_at: Date
}

export interface SecretRepositoriesTable {
  secret_id: number
  repository_id: number
}

export interface AuditEventsTable {
  id: GeneratedAlways<number>
  transaction_id: GeneratedAlways<string>
  stream_uid: string
  actor_kind: string
  actor_uid: string | null
  token_id: number | null
  issued_by_uid: string | null
  action: string
  outcome: string
  collection: string | null
  subject_uid: string | null
  name: string | null
  value_version: number | null
  envelope_sha256: Buffer | null
  request_id: string | null
  occurred_at: Date
  canonical: Buffer
  actor_login: string | null
  repository_uid: string | null
  address: string | null
  occurrences: number | null
}

/** The place of a sealed record in the chain of its stream. */
export interface AuditChainTable {
  event_id: number
  stream_uid: string
  sequence: number
  hash: Buffer
}

/** The last place of each stream. */
export interface AuditStreamsTable {
  stream_uid: string
  sequence: number
  hash: Buffer
}

/** One row: how far the sealer is. */
export interface AuditSealerTable {
  /** the cluster whose transaction ids these are */
  cluster: string
  /** foreign records up to this id were gone through; null: all were */
  adopted_id: number | null
  transaction_id: string
  event_id: number
}

/** One row: the last checkpoint. */
export interface AuditCheckpointTable {
  counter: number
  hash: Buffer | null
  /** fingerprint of the key that signed it */
  key: string | null
  /** the server that writes them; null: whichever is first */
  node_uid: string | null
  taken_at: Date
}

/** Up to where a stream was removed after its time. */
export interface AuditPruningsTable {
  stream_uid: string
  through: number
  hash: Buffer
  before: Date
  pruned_at: Date
  key: string
  signature: Buffer
}

export interface RateLimitsTable {
  subject: string
  resource: string
  used: number
  /** whether the last request that was counted found the limit reached */
  refused: boolean
  resets_at: Date
}
