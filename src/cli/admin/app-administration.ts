/** What an administrator does with GitHub Apps, over HTTP or on the database itself. Apps are named by their slug. */
export interface AppAdministration {
  create(app: NewApp): Promise<AppSummary & { key: KeySummary; pem: string }>
  list(): Promise<AppSummary[]>
  update(slug: string, change: AppChange): Promise<AppSummary>
  delete(slug: string): Promise<void>
  listKeys(slug: string): Promise<KeySummary[]>
  createKey(slug: string): Promise<KeySummary & { pem: string }>
  deleteKey(slug: string, keyId: number): Promise<void>
  listInstallations(slug: string): Promise<InstallationSummary[]>
  install(slug: string, account: string, grant: Grant): Promise<InstallationSummary>
  changeInstallation(slug: string, account: string, grant: Grant): Promise<InstallationSummary>
  suspend(slug: string, account: string): Promise<void>
  unsuspend(slug: string, account: string): Promise<void>
  uninstall(slug: string, account: string): Promise<void>
}

export type PermissionMap = Readonly<Record<string, string>>

export interface AppChange {
  description?: string
  permissions?: PermissionMap
}

export interface NewApp extends AppChange {
  name: string
  owner: string
  permissions: PermissionMap
}

/** What an installation is given; what is absent stays, or is all that the App asks for. */
export interface Grant {
  /** names, without their owner, or all that the account owns, now and later */
  repositories?: readonly string[] | 'all'
  permissions?: PermissionMap
}

export interface AppSummary {
  id: number
  slug: string
  client_id: string
  owner: string
  permissions: PermissionMap
  installations_count: number
}

export interface KeySummary {
  id: number
  fingerprint: string
  created_at: string
  /** false after a restore */
  valid: boolean
}

export interface InstallationSummary {
  id: number
  account: string
  repository_selection: string
  permissions: PermissionMap
  suspended_at: string | null
}
