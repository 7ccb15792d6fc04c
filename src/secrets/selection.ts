import type { Kysely, Transaction } from 'kysely'
import { collectionRules } from '../apps.ts'
import { hasPermission } from '../auth/access.ts'
import { type Actor, reachesPrivate, reachOf } from '../auth/actor.ts'
import { Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated } from '../errors.ts'
import { insertAuditEvents } from '../store/audit.ts'
import { findRepositoryUid, listVisibleIds } from '../store/repositories.ts'
import { lockSecret, type SecretHead, touchSecret } from '../store/secrets.ts'
import {
  addToSelection,
  listSelectedIds,
  removeFromSelection,
  replaceSelection
} from '../store/selections.ts'
import type { Database, Visibility } from '../store/tables.ts'
import { holdToken } from '../store/tokens.ts'
import { collectionName, type GitHubCollection } from './collection.ts'
import { type Alongside, requireMatch, type TokenPrincipal } from './vault.ts'

const FIELD = 'selected_repository_ids'

/**
 * Repository ids as clients send them: integers and decimal strings alike, repeated or not; null clears.
 *
 * @throws InvalidInput naming the position, never the value
 */
export function parseRepositoryIds(input: readonly unknown[] | null, field = FIELD): number[] {
  const ids = (input ?? []).map((entry, index) => {
    const id = typeof entry === 'string' && /^[0-9]+$/.test(entry) ? Number(entry) : entry
    if (typeof id === 'number' && Number.isInteger(id)) return id
    throw new InvalidInput(
      `Invalid request.\n\nInvalid property /${field}/${index}: it is neither an integer nor a decimal string.`,
      [
        {
          field,
          code: 'custom',
          message: `${field}/${index} is neither an integer nor a decimal string`
        }
      ]
    )
  })
  return [...new Set(ids)]
}

function unknownRepository(): InvalidInput {
  return new InvalidInput('Validation Failed', [
    {
      field: FIELD,
      code: 'custom',
      message: `${FIELD} names a repository that does not exist, or that this token cannot see`
    }
  ])
}

/**
 * Checks that all ids name repositories that this token sees; what is invisible is answered as what does not
 * exist, as is for an installation what it does not have. A secret of an organization is for its own repositories.
 * A secret of a user may be for those of others, so a fine-grained token also needs to be allowed to write the
 * secrets of those that it adds.
 *
 * @param secretId whose present selection counts as there already; undefined for a new secret
 * @throws InvalidInput, Forbidden
 */
export async function requireSelectable(
  db: Kysely<Database>,
  actor: Actor,
  collection: GitHubCollection,
  ids: readonly number[],
  secretId: number | undefined
): Promise<void> {
  if (ids.length === 0) return
  const representable = ids.filter((id) => id > 0 && Number.isSafeInteger(id))
  const ownerUid = collection.kind === 'organization' ? collection.ownerUid : undefined
  const visible = new Set(await listVisibleIds(db, reachOf(actor), representable, ownerUid))
  if (!ids.every((id) => visible.has(id))) throw unknownRepository()
  if (actor.token.kind === 'classic') return
  const selected = new Set(secretId === undefined ? [] : await listSelectedIds(db, secretId))
  requireAddable(
    actor,
    collection,
    ids.filter((id) => !selected.has(id))
  )
}

function requireAddable(actor: Actor, { app, kind }: GitHubCollection, added: readonly number[]): void {
  if (added.length === 0) return
  if (kind === 'user' && !hasPermission(actor, collectionRules(app, 'repository').permission, 'write')) {
    throw new Forbidden('Resource not accessible by personal access token')
  }
  if (!added.every((id) => reachesPrivate(actor, id))) throw unknownRepository()
}

/** Whether one repository can be selected; throws `NotFound` when it cannot be seen. */
export async function requireSelectableRepository(
  db: Kysely<Database>,
  actor: Actor,
  collection: GitHubCollection,
  repositoryId: number,
  secretId: number
): Promise<void> {
  try {
    await requireSelectable(db, actor, collection, [repositoryId], secretId)
  } catch (error) {
    throw error instanceof InvalidInput ? new NotFound() : error
  }
}

/** A change to who receives a secret; undefined leaves as it is. */
export interface SelectionChange {
  visibility?: Visibility | undefined
  repositoryIds?: readonly number[] | undefined
}

/** A change that goes with a new value. Clients that send the present visibility along change nothing by it. */
export function alongside(change: SelectionChange): Alongside {
  return {
    isDone: ({ visibility }) => !change.repositoryIds && (change.visibility ?? visibility) === visibility,
    apply: (tx, secret) => applySelection(tx, secret, change)
  }
}

/** @throws InvalidInput when repositories are named for a secret that is not for selected ones, and stays so */
async function applySelection(
  tx: Transaction<Database>,
  secret: { secretId: number; visibility: Visibility | null },
  { visibility, repositoryIds }: SelectionChange
): Promise<void> {
  if (repositoryIds?.length) requireNameable(visibility ?? secret.visibility)
  if (repositoryIds) await replaceSelection(tx, secret.secretId, repositoryIds)
  else if (visibility && visibility !== 'selected') await replaceSelection(tx, secret.secretId, [])
  if (visibility && visibility !== secret.visibility) await touchSecret(tx, secret.secretId, { visibility })
}

interface SelectionRequest {
  principal: TokenPrincipal
  collection: GitHubCollection
  name: string
  ifMatch?: string | undefined
}

/** Runs a change of one secret in a transaction with its audit record; its value and times do not move. */
async function changeSelection(
  db: Kysely<Database>,
  { principal, collection, name, ifMatch }: SelectionRequest,
  action: string,
  change: (tx: Transaction<Database>, head: SecretHead) => Promise<Visibility | undefined>,
  repositoryId?: number
): Promise<void> {
  await db.transaction().execute(async (tx) => {
    // The token before the secret, as who removes the whole account does.
    if (!(await holdToken(tx, principal.tokenId, principal.needs))) throw new Unauthenticated(true)
    const head = await lockSecret(tx, collection, name)
    if (!head) throw new NotFound()
    requireMatch(ifMatch, head)
    const visibility = await change(tx, head)
    await touchSecret(tx, head.secret_id, visibility ? { visibility } : {})
    const repositoryUid = repositoryId === undefined ? undefined : await findRepositoryUid(tx, repositoryId)
    await insertAuditEvents(tx, [
      {
        streamUid: collection.streamUid,
        principal,
        action,
        collection: collectionName(collection),
        subjectUid: head.secret_uid,
        name,
        valueVersion: head.value_version,
        ...(repositoryUid && { repositoryUid })
      }
    ])
  })
}

/** Changes visibility, selection or both, and leaves the value alone. */
export async function updateSelection(
  db: Kysely<Database>,
  request: SelectionRequest,
  change: SelectionChange
): Promise<void> {
  await changeSelection(db, request, 'secret.visibility', async (tx, head) => {
    const secret = { secretId: head.secret_id, visibility: head.visibility }
    await applySelection(tx, secret, change)
    return change.visibility
  })
}

/** Replaces the selection of a secret that is for selected repositories; throws `Conflict` for another. */
export async function setRepositories(
  db: Kysely<Database>,
  request: SelectionRequest,
  repositoryIds: readonly number[]
): Promise<void> {
  await changeSelection(db, request, 'secret.repositories', async (tx, head) => {
    requireSelected(head.visibility, request.collection)
    await replaceSelection(tx, head.secret_id, repositoryIds)
    return undefined
  })
}

/** Selects one more repository; one that is selected already stays so. */
export async function addRepository(
  db: Kysely<Database>,
  request: SelectionRequest,
  repositoryId: number
): Promise<void> {
  const add = async (tx: Transaction<Database>, head: SecretHead) => {
    requireSelected(head.visibility, request.collection)
    await addToSelection(tx, head.secret_id, [repositoryId])
    return undefined
  }
  await changeSelection(db, request, 'secret.repository.add', add, repositoryId)
}

/** Selects one repository less; throws `NotFound` when it was not selected. */
export async function removeRepository(
  db: Kysely<Database>,
  request: SelectionRequest,
  repositoryId: number
): Promise<void> {
  const remove = async (tx: Transaction<Database>, head: SecretHead) => {
    requireSelected(head.visibility, request.collection)
    if (!(await removeFromSelection(tx, head.secret_id, repositoryId))) throw new NotFound()
    return undefined
  }
  await changeSelection(db, request, 'secret.repository.remove', remove, repositoryId)
}

/** Repositories are named for `selected` alone, whether the visibility comes along or is there already. */
export function requireNameable(visibility: Visibility | null | undefined): void {
  if (visibility === 'selected') return
  throw new InvalidInput('Validation Failed', [
    {
      field: FIELD,
      code: 'custom',
      message: `${FIELD} can be given only when visibility is selected`
    }
  ])
}

function requireSelected(visibility: Visibility | null, { app, kind }: GitHubCollection): void {
  if (visibility === 'selected') return
  const situation = `The secret's visibility is ${visibility}, so repositories cannot be `
  if (kind === 'user') {
    throw new Conflict(
      `${situation}added or removed one by one. Set its selected repositories first, which makes it selected.`
    )
  }
  const { valueOptional } = collectionRules(app, kind)
  throw new Conflict(
    `${situation}selected for it. Update it with visibility "selected" first` +
      `${valueOptional ? ', without encrypted_value to keep its value' : ''}.`
  )
}
