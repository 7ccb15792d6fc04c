import { isUtf8 } from 'node:buffer'
import type { Static } from '@sinclair/typebox'
import { Conflict } from '../../errors.ts'
import { requireVariableName } from '../../secrets/mounts.ts'
import { create, remove, replace, type SecretAttributes } from '../../secrets/vault.ts'
import { listSecretsOfOwners, type SecretKey } from '../../store/secret-facts.ts'
import { invalid } from './decode.ts'
import { method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationResponse } from './pagination.ts'
import { compact } from './present.ts'
import { Bool, Empty, List, Message, Text } from './schema.ts'
import {
  CreateSecretRequest,
  ListSecretsRequest,
  presentSecret,
  Secret,
  SecretRequest,
  Value
} from './secret-messages.ts'
import { getCollection, getSecret, listOwners, type SecretScope } from './secret-scopes.ts'
import { readValue } from './secret-values.ts'

// Secrets of projects, users, organizations and service accounts: the same that GitHub's API has, where it has any.
// https://ona.com/docs/ona/configuration/secrets/overview

type Creation = Static<typeof CreateSecretRequest>

function attributesOf(input: Creation, kind: string): SecretAttributes {
  const { credentialProxy } = input
  return {
    ...mountOf(input),
    credentialProxy: (credentialProxy as SecretAttributes['credentialProxy'] | undefined) ?? null,
    // GitHub's default, selected repositories and none, would hide it from every environment.
    visibility: kind === 'user' || kind === 'organization' ? 'all' : null
  }
}

function mountOf(input: Creation): Pick<SecretAttributes, 'mount' | 'mountTarget'> {
  const { environmentVariable, filePath, containerRegistryBasicAuthHost, gitCredentialHost } = input
  if (filePath !== undefined) return { mount: 'file', mountTarget: filePath }
  if (gitCredentialHost !== undefined) return { mount: 'git', mountTarget: gitCredentialHost }
  if (containerRegistryBasicAuthHost !== undefined) {
    return { mount: 'registry', mountTarget: containerRegistryBasicAuthHost }
  }
  return { mount: environmentVariable ? 'variable' : 'api-only', mountTarget: null }
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

export function secretService({ db, vault, deliveries, metrics, pages }: OnaDependencies): Service {
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
        async handle({ secretId, valueBase64 }, call) {
          const value = await readValue(deliveries, call, secretId!)
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
