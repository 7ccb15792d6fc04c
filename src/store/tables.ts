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
  service_accounts: ServiceAccountsTable
  groups: GroupsTable
  group_members: GroupMembersTable
  runners: RunnersTable
  runner_exchange_tokens: RunnerExchangeTokensTable
  environment_classes: EnvironmentClassesTable
  projects: ProjectsTable
  project_environment_classes: ProjectEnvironmentClassesTable
  project_policies: ProjectPoliciesTable
  environments: EnvironmentsTable
  environment_secrets: EnvironmentSecretsTable
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
export type ProjectRole = 'admin' | 'editor' | 'user'
export type TokenKind =
  | 'classic'
  | 'fine-grained'
  | 'installation'
  | 'service-account'
  | 'environment'
  | 'runner'
/** Permissions by name, of fine-grained tokens, GitHub Apps and their installations. */
export type Permissions = Record<string, 'read' | 'write'>
export type Visibility = 'all' | 'private' | 'selected'
export type Mount = 'variable' | 'file' | 'registry' | 'git' | 'api-only'
/**
 * What a token of an environment is for: to deliver values, to read inside it what is not delivered by itself, to
 * enter it, or to read its logs.
 */
export type EnvironmentTokenPurpose = 'deliver' | 'inside' | 'access' | 'logs'
/** For which hosts a proxy puts the real value into which header. */
export interface CredentialProxy {
  targetHosts: string[]
  header: string
}

/** A column that holds JSON: written as text, read as what it says. */
type Json<T> = ColumnType<T, string | undefined, string>
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
  uid: Generated<string>
  hash: Buffer
  kind: TokenKind
  account_id: number
  scopes: Generated<string[]>
  permissions: ColumnType<Permissions, string | undefined, string>
  all_repositories: Generated<boolean>
  installation_id: ColumnType<number | null, number | null | undefined, never>
  service_account_id: ColumnType<number | null, number | null | undefined, never>
  environment_id: ColumnType<number | null, number | null | undefined, never>
  runner_id: ColumnType<number | null, number | null | undefined, never>
  /** where it acts on Ona's API; null: in its account's first organization */
  organization_id: ColumnType<number | null, number | null | undefined, never>
  read_only: Generated<boolean>
  /** of environments alone */
  purpose: ColumnType<EnvironmentTokenPurpose | null, EnvironmentTokenPurpose | null | undefined, never>
  /** of one that delivers: the lease that it is good for */
  lease_epoch: ColumnType<number | null, number | null | undefined, never>
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
  /** the path of a file, the host of a registry or of git */
  mount_target: string | null
  credential_proxy: ColumnType<CredentialProxy | null, CredentialProxy | null | undefined, never>
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

/** Acts for itself, in one organization. Deleted ones stay, suspended. */
export interface ServiceAccountsTable {
  /** of the same sequence as the ids of accounts */
  id: Generated<number>
  uid: Generated<string>
  organization_id: number
  name: string
  description: Generated<string>
  creator_kind: string
  creator_uid: string | null
  valid_until: Date | null
  suspended_at: Date | null
  created_at: Now
}

export interface GroupsTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  organization_id: number
  name: string
  description: Generated<string>
  /** all members and service accounts of the organization are in it, without rows */
  everyone: Generated<boolean>
  created_at: Now
  updated_at: Now
}

export interface GroupMembersTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  group_id: number
  account_id: number | null
  service_account_id: number | null
}

export interface RunnersTable {
  /** of the same sequence as the ids of accounts */
  id: Generated<number>
  uid: Generated<string>
  organization_id: number
  name: string
  /** kind, provider and phase by Ona's names */
  kind: string
  provider: string
  /** the servers themselves */
  hosted: Generated<boolean>
  desired_phase: string
  configuration: Json<Record<string, unknown>>
  creator_kind: string
  creator_uid: string | null
  last_seen_at: Date | null
  created_at: Now
  updated_at: Now
}

export interface RunnerExchangeTokensTable {
  hash: Buffer
  runner_id: number
  issued_by_uid: string | null
  epoch: number
  expires_at: Date
}

export interface EnvironmentClassesTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  runner_id: number
  display_name: string
  description: Generated<string>
  configuration: Json<{ key: string; value: string }[]>
  enabled: Generated<boolean>
  created_at: Now
}

export interface ProjectsTable {
  id: GeneratedAlways<number>
  uid: Generated<string>
  organization_id: number
  name: string
  /** as Ona's API has it */
  initializer: Json<object>
  devcontainer_file_path: Generated<string>
  automations_file_path: Generated<string>
  technical_description: Generated<string>
  prebuild_configuration: ColumnType<object | null, string | null | undefined, string | null>
  recommended_editors: ColumnType<object | null, string | null | undefined, string | null>
  creator_kind: string
  creator_uid: string | null
  created_at: Now
  updated_at: Now
}

export interface ProjectEnvironmentClassesTable {
  project_id: number
  position: number
  /** null: a runner on the user's own machine */
  environment_class_id: number | null
  sort_order: number
}

export interface ProjectPoliciesTable {
  project_id: number
  group_id: number
  role: ProjectRole
}

export interface EnvironmentsTable {
  /** of the same sequence as the ids of accounts */
  id: Generated<number>
  uid: Generated<string>
  organization_id: number
  project_id: number | null
  creator_kind: string
  creator_uid: string
  created_at: Now
  name: Generated<string>
  /** null: of a test */
  runner_id: number | null
  environment_class_id: number | null
  /** whose secrets join; null: none is known here, or its host is not trusted */
  repository_id: number | null
  role: Generated<string>
  session_id: Generated<string>
  annotations: Json<Record<string, string>>
  original_context_url: Generated<string>
  /** as Ona's API has it, without what has columns of its own: secrets, version, desired phase */
  spec: Json<object>
  /** what its creator said about which secrets, and how; null: nothing */
  chosen_secrets: ColumnType<object | null, string | null | undefined, never>
  /** whether the creator's own secrets come in: never again once somebody else was let in */
  own_secrets: Generated<boolean>
  /** whether they ever did: what was in it may be there still */
  held_own_secrets: Generated<boolean>
  /** which secrets it receives, as they were when it was last resolved */
  resolution: Json<object[]>
  /** phases by Ona's names */
  desired_phase: Generated<string>
  phase: Generated<string>
  spec_version: Generated<number>
  status_version: Generated<number>
  /** as its runner last reported it */
  status: Json<object>
  activity: ColumnType<object | null, string | null | undefined, string | null>
  last_started_at: Now
  last_active_at: Now
  archived_at: Date | null
  lockdown_at: Date | null
  /** the process that works on it, for as long as it prolongs that */
  lease_holder: string | null
  lease_epoch: Generated<number>
  lease_until: Date | null
  /** of the spec; null: it says none */
  timeout_seconds: GeneratedAlways<number | null>
}

/** The secrets that an environment receives: all that its token may read. */
export interface EnvironmentSecretsTable {
  environment_id: number
  secret_id: number
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
