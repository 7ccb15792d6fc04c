import { isUtf8 } from 'node:buffer'
import type { Static } from '@sinclair/typebox'
import { Conflict } from '../../errors.ts'
import { requireVariableName } from '../../secrets/mounts.ts'
import { create, deliver, remove, replace, type SecretAttributes } from '../../secrets/vault.ts'
import { listSecretsOfOwners, type SecretDescription, type SecretKey } from '../../store/secret-facts.ts'
import { invalid } from './decode.ts'
import { method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact, Subject, subject, timestamp } from './present.ts'
import { Bool, Empty, EXAMPLE_UUID, List, Message, Text, Timestamp, Uuid, withExample } from './schema.ts'
import { getCollection, getSecret, listOwners, SecretScope } from './secret-scopes.ts'

// Secrets of projects, users, organizations and service accounts: the same that GitHub's API has, where it has any.
// https://ona.com/docs/ona/configuration/secrets/overview

const MAX_VALUE_CHARACTERS = 10_240

const MOUNTS = ['environmentVariable', 'filePath', 'containerRegistryBasicAuthHost', 'apiOnly'] as const

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
  apiOnly: Bool({ description: 'Not delivered: read through the API from inside an environment' })
}

const CredentialProxy = Message('Secret.CredentialProxy', {
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

const Value = withExample(
  Text({ required: true, min: 1, max: MAX_VALUE_CHARACTERS, nul: true }),
  'postgres://db/one'
)

const CreateSecretRequest = Message(
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

const ListSecretsRequest = Message('ListSecretsRequest', {
  pagination: PaginationRequest,
  filter: Message('ListSecretsRequest.Filter', {
    scope: SecretScope,
    projectIds: List(Uuid({ required: true }), { max: 25, description: 'Deprecated: `scope.projectId`' })
  })
})

const SecretRequest = { secretId: Uuid({ required: true }) }

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

type Creation = Static<typeof CreateSecretRequest>

function attributesOf(input: Creation, kind: string): SecretAttributes {
  const { environmentVariable, filePath, containerRegistryBasicAuthHost, credentialProxy } = input
  const target = filePath ?? containerRegistryBasicAuthHost ?? null
  const mount =
    filePath !== undefined
      ? 'file'
      : containerRegistryBasicAuthHost !== undefined
        ? 'registry'
        : environmentVariable
          ? 'variable'
          : 'api-only'
  return {
    mount,
    mountTarget: target,
    credentialProxy: (credentialProxy as SecretAttributes['credentialProxy'] | undefined) ?? null,
    // GitHub's default, selected repositories and none, would hide it from every environment.
    visibility: kind === 'user' || kind === 'organization' ? 'all' : null
  }
}

function scopeOf({ scope = {}, projectId }: Creation): Static<typeof SecretScope> {
  if (projectId === undefined) return scope
  if (Object.keys(scope).length === 0 || scope.projectId === projectId) return { projectId }
  throw invalid('projectId', 'is not what scope says; set one of the two')
}

/** The bytes of a value that came as JSON; the caller zeroes them when done. */
function bytesOf(value: string): Buffer {
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(value))
  bytes.write(value)
  return bytes
}

export function secretService({ db, vault, metrics, pages }: OnaDependencies): Service {
  return {
    name: 'SecretService',
    description: 'Secrets of projects, users, organizations and service accounts',
    methods: [
      method({
        name: 'CreateSecret',
        summary: 'Create a secret',
        access: 'secret',
        request: CreateSecretRequest,
        response: Message('CreateSecretResponse', { secret: Secret }),
        async handle(input, call) {
          const { name, value, source } = input as Required<Creation>
          const collection = await getCollection(db, call, scopeOf(input), 'write')
          if (source?.oidcJfrog) throw invalid('source.oidcJfrog', 'is not supported by this server')
          const attributes = attributesOf(input, collection.kind)
          if (attributes.mount === 'variable') requireVariableName(name)
          const { principal } = call
          const plaintext = bytesOf(value)
          try {
            const made = await create(vault, { principal, collection, name, attributes }, plaintext)
            metrics.secretWritten('create')
            const secret = presentSecret({
              secret_uid: made.secretUid,
              secret_name: name,
              kind: collection.kind,
              owner_uid: collection.ownerUid,
              mount: attributes.mount,
              mount_target: attributes.mountTarget,
              credential_proxy: attributes.credentialProxy,
              creator_kind: principal.kind,
              creator_uid: principal.uid,
              created_at: made.createdAt,
              updated_at: made.createdAt
            })
            return { secret }
          } finally {
            plaintext.fill(0)
          }
        }
      }),
      method({
        name: 'ListSecrets',
        summary: 'List secrets, by owner and name',
        access: 'secret',
        reads: true,
        request: ListSecretsRequest,
        response: Message('ListSecretsResponse', { pagination: PaginationResponse, secrets: List(Secret) }),
        async handle(input, call) {
          const { scope = {}, projectIds = [] } = input.filter ?? {}
          const page = pages.open<SecretKey>(call, input)
          let owners = []
          if (Object.keys(scope).length > 0) owners = [await getCollection(db, call, scope, 'read')]
          else {
            owners = await listOwners(db, call)
            if (projectIds.length > 0) {
              owners = owners.filter(
                ({ kind, ownerUid }) => kind === 'project' && projectIds.includes(ownerUid)
              )
            }
          }
          const found = await listSecretsOfOwners(db, owners, page.after, page.limit)
          const { rows, pagination } = page.close(found, (row) => [row.kind, row.owner_uid, row.secret_name])
          return compact({ pagination, secrets: rows.map(presentSecret) })
        }
      }),
      method({
        name: 'GetSecretValue',
        summary: 'Read the value of a secret, from an environment that receives it',
        access: 'environment',
        reads: true,
        request: Message('GetSecretValueRequest', {
          ...SecretRequest,
          valueBase64: Bool({ description: 'An extension: the exact bytes, in base64' })
        }),
        response: Message('GetSecretValueResponse', {
          value: Text(),
          valueBase64: Text({ description: 'An extension: instead of `value`, where it was asked for' })
        }),
        async handle({ secretId, valueBase64 }, { principal, actor }) {
          const value = await deliver(vault, {
            principal,
            environmentId: actor.accountId,
            secretUid: secretId!
          })
          try {
            if (valueBase64) return compact({ valueBase64: value.toString('base64') })
            if (!isUtf8(value)) throw new Conflict('The value is not UTF-8; ask for valueBase64.')
            return compact({ value: value.toString('utf8') })
          } finally {
            value.fill(0)
          }
        }
      }),
      method({
        name: 'UpdateSecretValue',
        summary: 'Give a secret a new value',
        access: 'secret',
        request: Message('UpdateSecretValueRequest', { ...SecretRequest, value: Value }),
        response: Empty,
        async handle({ secretId, value }, call) {
          const { secret, collection } = await getSecret(db, call, secretId!, 'write')
          const plaintext = bytesOf(value!)
          try {
            const request = { principal: call.principal, collection, name: secret.secret_name, found: secret }
            await replace(vault, request, plaintext)
          } finally {
            plaintext.fill(0)
          }
          metrics.secretWritten('update')
          return {}
        }
      }),
      method({
        name: 'DeleteSecret',
        summary: 'Delete a secret',
        access: 'secret',
        request: Message('DeleteSecretRequest', SecretRequest),
        response: Empty,
        async handle({ secretId }, call) {
          const { secret, collection } = await getSecret(db, call, secretId!, 'write')
          await remove(vault, {
            principal: call.principal,
            collection,
            name: secret.secret_name,
            found: secret,
            onlyThis: true
          })
          metrics.secretWritten('remove')
          return {}
        }
      })
    ]
  }
}
