import { type TObject, type TSchema, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { APPS, type App, collectionRules, type GitHubCollectionKind } from '../../apps.ts'
import { NotFound } from '../../errors.ts'
import type { GitHubCollection } from '../../secrets/collection.ts'
import { lookupGitHubName } from '../../secrets/names.ts'
import type { SecretHead, SecretItem } from '../../store/secrets.ts'
import type { Visibility } from '../../store/tables.ts'
import { readIfMatch } from './conditional.ts'
import { type Found, principal } from './context.ts'
import type { PageRequest } from './pagination.ts'

/** An operation's name and title, as GitHub has them. */
export type OperationName = readonly [operationId: string, summary: string]

/** How the secrets of one kind of owner, for one app, appear on GitHub's API. */
export interface SecretOwner {
  app: App
  kind: GitHubCollectionKind
  /** where the collection is; the first is documented, the others are aliases */
  paths: readonly string[]
  /** the parameters of the documented path, besides the name of the secret */
  params: Record<string, TSchema>
  operations: Record<'list' | 'publicKey' | 'get' | 'put' | 'delete', OperationName>
  /** the schema of one secret */
  item: TObject
  present(request: FastifyRequest, secret: SecretItem): object
  /** where the collection is, by number: for links */
  location(request: FastifyRequest): string
  collection(request: FastifyRequest): GitHubCollection
  /** what access depends on, together with what the operation is about */
  find: {
    owner?: (request: FastifyRequest) => Promise<Found>
    secret(request: FastifyRequest, secretName: string | undefined): Promise<Found>
    page(request: FastifyRequest, page: PageRequest): Promise<Found>
  }
  /** who receives a secret; undefined: whatever its owner is */
  selection?: SecretSelection
}

/** How a secret is made for all, or for selected repositories. */
export interface SecretSelection {
  operations: Record<'list' | 'set' | 'add' | 'remove', OperationName>
  /** what PUT accepts as visibility */
  visibility: TSchema
  /** of a new secret for which none is given; undefined: it must be given */
  initial?: Visibility
  /** whether those who may read the secret see all repositories that it can be for, as far as the token goes */
  ownRepositories: boolean
  /** whether naming repositories makes a secret `selected`, whatever it was */
  selectsByNaming: boolean
}

/** Tags group the operations of the description. */
function tagOf({ app, kind }: SecretOwner): string {
  return app === 'codespaces' ? `${kind} secrets` : `${APPS[app].title} secrets`
}

/** The page of GitHub's reference: the anchors are the titles of the operations. */
function docsOf({ app, kind }: SecretOwner, [, summary]: OperationName): string {
  const anchor = summary.toLowerCase().replaceAll(' ', '-')
  return `https://docs.github.com/rest/${collectionRules(app, kind).docs}#${anchor}`
}

/** The schema and the page of one operation, on the documented path or hidden on an alias. */
export function described(
  owner: SecretOwner,
  documented: boolean,
  name: OperationName,
  { params = {}, ...schema }: { params?: TObject['properties'] } & Record<string, unknown>
) {
  const [operationId, summary] = name
  return {
    docs: docsOf(owner, name),
    schema: {
      tags: [tagOf(owner)],
      hide: !documented,
      operationId,
      summary,
      ...(documented && { params: Type.Object({ ...owner.params, ...params }) }),
      ...schema
    }
  }
}

/** The secret that the guard found. */
export function requireSecret({ found }: FastifyRequest): SecretHead {
  if (!found.secret) throw new NotFound()
  return found.secret
}

export function findSecretOf(owner: SecretOwner) {
  return (request: FastifyRequest) => {
    const { secret_name } = request.params as { secret_name: string }
    return owner.find.secret(request, lookupGitHubName(secret_name))
  }
}

/** What a write to the secret of a path needs to know. */
export function writeOf(owner: SecretOwner, request: FastifyRequest, name: string) {
  return {
    principal: principal(request),
    collection: owner.collection(request),
    name,
    ifMatch: readIfMatch(request)
  }
}
