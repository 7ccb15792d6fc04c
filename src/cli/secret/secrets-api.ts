import nacl from 'tweetnacl'
import sealedBox from 'tweetnacl-sealedbox-js'
import { type ApiClient, ask, exchange, nextQuery, requireSuccess, segment } from '../api-client.ts'
import { CommandFailed } from '../terminal.ts'
import type { Collection } from './collection.ts'
import type { SelectionMembers, Visibility } from './selection.ts'

// The calls of GitHub's secrets API. https://docs.github.com/rest/codespaces/repository-secrets

const PER_PAGE = 100
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

export interface SecretHead {
  name: string
  created_at: string
  updated_at: string
  /** of organizations and users */
  visibility?: Visibility
}

export interface PublicKey {
  id: string
  /** 32 bytes, X25519 */
  bytes: Uint8Array
}

export async function listSecrets(client: ApiClient, collection: Collection): Promise<SecretHead[]> {
  return await listPages<SecretHead>(client, collection.path, 'secrets', collection.notFound)
}

export async function listSelectedIds(
  client: ApiClient,
  collection: Collection,
  name: string
): Promise<number[]> {
  const path = `${secretPath(collection, name)}/repositories`
  const repositories = await listPages<{ id: number }>(client, path, 'repositories', collection.notFound)
  return repositories.map(({ id }) => id)
}

/** Undefined when there is none of that name. */
export async function findSecret(
  client: ApiClient,
  collection: Collection,
  name: string
): Promise<SecretHead | undefined> {
  const request = { method: 'GET', path: secretPath(collection, name) } as const
  const answer = await exchange(client, request)
  if (answer.status === 404 && answer.body !== undefined) return undefined
  return requireSuccess(client, request, answer).body as SecretHead
}

/** @throws CommandFailed unless the key is one that a box can be sealed for */
export async function fetchPublicKey(client: ApiClient, collection: Collection): Promise<PublicKey> {
  const { key, key_id } = await ask<{ key?: unknown; key_id?: unknown }>(client, {
    method: 'GET',
    path: `${collection.path}/public-key`,
    notFound: collection.notFound
  })
  const bytes = typeof key === 'string' && BASE64.test(key) ? Buffer.from(key, 'base64') : undefined
  if (bytes?.length !== nacl.box.publicKeyLength || typeof key_id !== 'string' || key_id === '') {
    throw new CommandFailed(
      `The public key of the server at ${client.url} is none: it must be ${nacl.box.publicKeyLength} bytes in base64, ` +
        'with a key_id. Nothing was sent.'
    )
  }
  return { id: key_id, bytes }
}

/** Seals and stores a value, whose bytes are zeroed then, whatever happens. */
export async function putSecret(
  client: ApiClient,
  collection: Collection,
  key: PublicKey,
  { name, value, selection }: { name: string; value: Uint8Array; selection: SelectionMembers }
): Promise<'created' | 'updated'> {
  const request = {
    method: 'PUT',
    path: secretPath(collection, name),
    body: { encrypted_value: sealAndWipe(value, key.bytes), key_id: key.id, ...selection },
    notFound: collection.notFound
  } as const
  const { status } = requireSuccess(client, request, await exchange(client, request))
  return status === 201 ? 'created' : 'updated'
}

export async function deleteSecret(client: ApiClient, collection: Collection, name: string): Promise<void> {
  const request = {
    method: 'DELETE',
    path: secretPath(collection, name),
    notFound: `There is no secret ${name} among the ${collection.name}, or this token cannot see them.`
  } as const
  const answer = await exchange(client, request)
  if (answer.status === 404 && answer.maybeDone) return
  requireSuccess(client, request, answer)
}

function sealAndWipe(value: Uint8Array, publicKey: Uint8Array): string {
  try {
    return Buffer.from(sealedBox.seal(value, publicKey)).toString('base64')
  } finally {
    value.fill(0)
  }
}

function secretPath(collection: Collection, name: string): string {
  return `${collection.path}/${segment(name)}`
}

/** All pages of a list. */
async function listPages<T>(
  client: ApiClient,
  path: string,
  member: 'secrets' | 'repositories',
  notFound: string
): Promise<T[]> {
  const listed: T[] = []
  const asked = new Set<string>()
  for (let query: string | undefined = `?per_page=${PER_PAGE}`; query !== undefined; ) {
    asked.add(query)
    const request = { method: 'GET', path: path + query, notFound } as const
    const answer = requireSuccess(client, request, await exchange(client, request))
    const page = (answer.body as Record<string, unknown>)[member]
    if (!Array.isArray(page)) {
      throw new CommandFailed(`What answers at ${client.url} lists no ${member}. ${client.remedies.wrongUrl}`)
    }
    listed.push(...page)
    query = nextQuery(answer)
    if (query !== undefined && asked.has(query)) {
      throw new CommandFailed(`The pages of the server at ${client.url} lead in a circle.`)
    }
  }
  return listed
}
