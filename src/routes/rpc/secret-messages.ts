import type { Static } from '@sinclair/typebox'
import type { SecretDescription } from '../../store/secret-facts.ts'
import { PaginationRequest } from './pagination.ts'
import { Subject, subject, timestamp } from './present.ts'
import { Bool, EXAMPLE_UUID, List, Message, Text, Timestamp, Uuid, withExample } from './schema.ts'
import { SecretScope } from './secret-scopes.ts'

// The messages of secrets, and how rows become them.

const MAX_VALUE_CHARACTERS = 10_240

const MOUNTS = [
  'environmentVariable',
  'filePath',
  'containerRegistryBasicAuthHost',
  'gitCredentialHost',
  'apiOnly'
] as const

/** A host of git, with a port where it is not that of HTTPS. */
export const GitHost = (description: string) =>
  Text({
    min: 1,
    max: 255,
    pattern: '^(http://)?[A-Za-z0-9.-]+(:[0-9]{1,5})?$',
    rule: 'must be a host, host:port, or http://host:port for one without TLS',
    description: `${description}: the value is \`username:password\`, or a token`
  })

const mounts = {
  environmentVariable: Bool({ description: 'As a variable of the same name' }),
  filePath: Text({
    max: 4096,
    pattern: '^/[^/].*$',
    rule: 'must be an absolute path, as /path/to/file',
    description: 'As a file at this absolute path'
  }),
  containerRegistryBasicAuthHost: Text({
    min: 1,
    max: 1024,
    description: 'For a container registry: the value is `username:password`, or the same in base64'
  }),
  gitCredentialHost: GitHost('An extension: for git on this host'),
  apiOnly: Bool({ description: 'Not delivered: read through the API from inside an environment' })
}

export const CredentialProxy = Message('Secret.CredentialProxy', {
  targetHosts: List(
    Text({
      required: true,
      max: 255,
      pattern: '^(\\*\\.)?[^\\s/*@]+$',
      rule: 'must be a host, or *. and one'
    }),
    { required: true, min: 1, max: 100, description: '`*.example.com` stands for its subdomains' }
  ),
  header: Text({
    required: true,
    max: 255,
    pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    rule: 'must be the name of an HTTP header'
  })
})

const Source = Message(
  'Secret.Source',
  {
    verbatim: Bool({ description: 'The value as it was given' }),
    oidcJfrog: Message(
      'Secret.Source.OidcJfrog',
      { host: Text({ max: 255 }), providerName: Text({ max: 255 }) },
      { description: 'Refused: this server asks nobody for values' }
    )
  },
  { oneofs: { source: { members: ['verbatim', 'oidcJfrog'] } } }
)

export const Secret = Message(
  'Secret',
  {
    id: Uuid(),
    name: Text(),
    projectId: Uuid({ description: 'Deprecated: `scope.projectId`' }),
    createdAt: Timestamp(),
    updatedAt: Timestamp({ description: 'Of the value' }),
    creator: Subject,
    ...mounts,
    scope: SecretScope,
    credentialProxy: CredentialProxy
  },
  { oneofs: { mount: { members: MOUNTS } } }
)

export const Value = withExample(
  Text({ required: true, min: 1, max: MAX_VALUE_CHARACTERS, nul: true }),
  'postgres://db/one'
)

export const CreateSecretRequest = Message(
  'CreateSecretRequest',
  {
    name: withExample(
      Text({
        required: true,
        min: 3,
        max: 127,
        pattern: '^[0-9a-zA-Z_]{3,}$',
        rule: 'must have letters, digits and underscores alone'
      }),
      'DB_URL'
    ),
    value: Value,
    ...mounts,
    scope: withExample(SecretScope, { projectId: EXAMPLE_UUID }),
    projectId: Uuid({ description: 'Deprecated: `scope.projectId`' }),
    credentialProxy: CredentialProxy,
    source: Source
  },
  { oneofs: { mount: { members: MOUNTS, required: true } } }
)

export const ListSecretsRequest = Message('ListSecretsRequest', {
  pagination: PaginationRequest,
  filter: Message('ListSecretsRequest.Filter', {
    scope: SecretScope,
    projectIds: List(Uuid({ required: true }), { max: 25, description: 'Deprecated: `scope.projectId`' })
  })
})

export const SecretRequest = { secretId: Uuid({ required: true }) }

export function presentSecret(row: SecretDescription): Static<typeof Secret> {
  const { kind, owner_uid, mount, mount_target } = row
  // What is undefined is unset, too. There are up to a hundred of these in an answer, and `compact` copies each.
  return {
    id: row.secret_uid,
    name: row.secret_name,
    projectId: kind === 'project' ? owner_uid : undefined,
    createdAt: timestamp(row.created_at),
    updatedAt: timestamp(row.updated_at),
    creator: subject(row.creator_kind, row.creator_uid),
    environmentVariable: mount === 'variable' || undefined,
    filePath: mount === 'file' ? mount_target : undefined,
    containerRegistryBasicAuthHost: mount === 'registry' ? mount_target : undefined,
    gitCredentialHost: mount === 'git' ? mount_target : undefined,
    apiOnly: mount === 'api-only' || undefined,
    scope: { [SCOPE_MEMBERS[kind]!]: owner_uid },
    credentialProxy: row.credential_proxy ?? undefined
  } as Static<typeof Secret>
}

const SCOPE_MEMBERS: Readonly<Record<string, string>> = {
  project: 'projectId',
  user: 'userId',
  organization: 'organizationId',
  'service-account': 'serviceAccountId'
}
