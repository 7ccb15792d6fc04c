import { Type } from '@sinclair/typebox'
import { fingerprintOf } from '../../auth/app-key.ts'
import type { Installation } from '../../store/installations.ts'
import type { CountedIntegration, Integration, IntegrationKey } from '../../store/integrations.ts'
import { nodeId, presentSimpleUser, SimpleUser } from './account-presenter.ts'
import { DateTime, Nullable, Uri } from './schemas.ts'
import { toSecond } from './secret-presenter.ts'

export const Permissions = Type.Record(Type.String(), Type.String())

/** A GitHub App. */
export const IntegrationItem = Type.Object({
  id: Type.Integer(),
  slug: Type.String(),
  client_id: Type.String(),
  node_id: Type.String(),
  owner: SimpleUser,
  name: Type.String(),
  description: Nullable(Type.String()),
  external_url: Uri,
  html_url: Uri,
  created_at: DateTime,
  updated_at: DateTime,
  permissions: Permissions,
  events: Type.Array(Type.String()),
  installations_count: Type.Optional(Type.Integer())
})

function pagesOf(base: string): string {
  return base.replace(/\/api\/v3$/, '')
}

export function presentIntegration(base: string, integration: Integration | CountedIntegration) {
  const { integration_id, owner_id, owner_login, owner_kind } = integration
  return {
    id: integration_id,
    slug: integration.slug,
    client_id: integration.client_id,
    node_id: nodeId('Integration', integration_id),
    owner: presentSimpleUser(base, {
      id: owner_id,
      login: owner_login,
      kind: owner_kind,
      site_admin: false
    }),
    name: integration.name,
    description: integration.description,
    external_url: pagesOf(base),
    html_url: `${pagesOf(base)}/apps/${integration.slug}`,
    created_at: toSecond(integration.created_at),
    updated_at: toSecond(integration.updated_at),
    permissions: integration.permissions,
    events: [],
    ...('installations_count' in integration && { installations_count: integration.installations_count })
  }
}

export const InstallationItem = Type.Object({
  id: Type.Integer(),
  account: SimpleUser,
  repository_selection: Type.String({ description: 'all or selected' }),
  access_tokens_url: Uri,
  repositories_url: Uri,
  html_url: Uri,
  app_id: Type.Integer(),
  client_id: Type.String(),
  app_slug: Type.String(),
  target_id: Type.Integer(),
  target_type: Type.String(),
  permissions: Permissions,
  events: Type.Array(Type.String()),
  created_at: DateTime,
  updated_at: DateTime,
  single_file_name: Type.Null(),
  has_multiple_single_files: Type.Boolean(),
  single_file_paths: Type.Array(Type.String()),
  suspended_by: Type.Null(),
  suspended_at: Nullable(DateTime)
})
export const InstallationList = Type.Object({
  total_count: Type.Integer(),
  installations: Type.Array(InstallationItem)
})

export function presentInstallation(base: string, installation: Installation) {
  const { installation_id, account_id, account_login, account_kind, suspended_at } = installation
  const account = presentSimpleUser(base, {
    id: account_id,
    login: account_login,
    kind: account_kind,
    site_admin: false
  })
  const settings = account_kind === 'organization' ? `/organizations/${account_login}` : ''
  return {
    id: installation_id,
    account,
    repository_selection: installation.all_repositories ? 'all' : 'selected',
    access_tokens_url: `${base}/app/installations/${installation_id}/access_tokens`,
    repositories_url: `${base}/installation/repositories`,
    html_url: `${pagesOf(base)}${settings}/settings/installations/${installation_id}`,
    app_id: installation.integration_id,
    client_id: installation.client_id,
    app_slug: installation.slug,
    target_id: account_id,
    target_type: account.type,
    permissions: installation.permissions,
    events: [],
    created_at: toSecond(installation.created_at),
    updated_at: toSecond(installation.updated_at),
    single_file_name: null,
    has_multiple_single_files: false,
    single_file_paths: [],
    suspended_by: null,
    suspended_at: suspended_at && toSecond(suspended_at)
  }
}

/** A public key of an App, without what it is. */
export const KeyItem = Type.Object({
  id: Type.Integer(),
  fingerprint: Type.String({ description: 'SHA-256 of the public key, as GitHub shows it' }),
  created_at: DateTime,
  valid: Type.Boolean({ description: 'false after a restore, which voids the keys of the backup' })
})

export function presentKey({ id, public_key, created_at, valid }: IntegrationKey) {
  return { id, fingerprint: fingerprintOf(public_key), created_at: toSecond(created_at), valid }
}
