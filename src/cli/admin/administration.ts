import type { OrganizationRole, TokenKind } from '../../store/tables.ts'
import type { RepositoryName } from '../names.ts'
import type { AppAdministration } from './app-administration.ts'

/** What an administrator does with the directory, over HTTP or on the database itself. */
export interface Administration {
  apps: AppAdministration
  createUser(user: {
    login: string
    email?: string
    name?: string
    siteAdmin?: boolean
  }): Promise<UserSummary>
  deleteUser(login: string): Promise<void>
  createOrganization(login: string, owner: string): Promise<AccountSummary>
  deleteOrganization(login: string): Promise<void>
  /** owners first */
  listMembers(organization: string): Promise<MemberSummary[]>
  setMember(organization: string, login: string, role: OrganizationRole): Promise<void>
  removeMember(organization: string, login: string): Promise<void>
  createToken(login: string, request: TokenOrder): Promise<TokenSummary>
  /** all that the user has */
  revokeTokens(login: string): Promise<void>
  createRepository(repository: RepositoryName, isPrivate: boolean): Promise<RepositorySummary>
  deleteRepository(repository: RepositoryName): Promise<void>
  listRepositories(): Promise<RepositorySummary[]>
  setCollaborator(repository: RepositoryName, login: string, role: Role): Promise<void>
  removeCollaborator(repository: RepositoryName, login: string): Promise<void>
}

export const ROLES = ['read', 'triage', 'write', 'maintain', 'admin'] as const
export type Role = (typeof ROLES)[number]

export interface TokenOrder {
  /** classic */
  scopes?: readonly string[]
  /** fine-grained: name → level */
  permissions?: Readonly<Record<string, string>>
  repositories?: readonly RepositoryName[]
  allRepositories?: boolean
  note?: string
  expiresInDays?: number
}

export interface AccountSummary {
  id: number
  login: string
}

export interface UserSummary extends AccountSummary {
  site_admin: boolean
}

export const ORGANIZATION_ROLES = ['admin', 'member'] as const satisfies readonly OrganizationRole[]

export interface MemberSummary extends AccountSummary {
  role: OrganizationRole
}

export interface TokenSummary {
  id: number
  token: string
  kind: TokenKind
  scopes: string[]
  permissions: Record<string, string>
  note: string | null
  token_last_eight: string
  /** ISO 8601, to the second; null: never */
  expires_at: string | null
}

export interface RepositorySummary {
  id: number
  full_name: string
  private: boolean
}
