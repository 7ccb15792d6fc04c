import { hash, randomUUID } from 'node:crypto'
import type { Kysely, Transaction } from 'kysely'
import type { CollectionKind } from '../apps.ts'
import {
  AlreadyExists,
  Forbidden,
  LimitExceeded,
  NotFound,
  PreconditionFailed,
  Unauthenticated,
  Unavailable
} from '../errors.ts'
import { decodeSealedBox, type Keyring, SEALED_BOX_OVERHEAD, type ValueContext } from '../keyring/index.ts'
import { lockAccount } from '../store/accounts.ts'
import { auditRecords, auditRow, type Principal } from '../store/audit.ts'
import { lockDeploymentEnvironment } from '../store/deployment-environments.ts'
import { lockProject } from '../store/projects.ts'
import { lockRepository } from '../store/repositories.ts'
import { listReceived, type ReceivedSecret } from '../store/resolution.ts'
import {
  deleteSecret,
  findSecret,
  findStoredValue,
  insertSecret,
  lockSecret,
  recordDeliveries,
  replaceEnvelope,
  type SecretHead,
  type StoredValue,
  updateValue
} from '../store/secrets.ts'
import { lockServiceAccount } from '../store/service-accounts.ts'
import type { CredentialProxy, Database, Mount, Visibility } from '../store/tables.ts'
import { tokenCheckOf } from '../store/tokens.ts'
import { type Collection, collectionName, type Limits, maxSecretsOf } from './collection.ts'
import { Gathering } from './gathering.ts'

/**
 * The only file that sees plaintext, the keyring and a row at once: the one to audit. Plaintext lives in
 * buffers of this process, from opening a box to sealing the envelope, and is zeroed when the call ends.
 */

export interface Vault {
  db: Kysely<Database>
  keyring: Keyring
  limits: Limits
  /** asks the store for generations that the keyring does not hold yet; bounded in how often it does */
  reloadGenerations: () => Promise<void>
}

/** A write in the name of a token; it is refused when the token is revoked before it commits. */
export type TokenPrincipal = Principal & { tokenId: number; uid: string }

export interface SealedValue {
  keyId: string
  /** base64 of a libsodium sealed box */
  sealedBox: string
}

/** What of a secret is said once, when it is made. */
export interface SecretAttributes {
  mount: Mount
  /** the path of a file, the host of a registry; null for other mounts */
  mountTarget: string | null
  credentialProxy: CredentialProxy | null
  visibility: Visibility | null
}

/** Which secret is written, and by whom. */
interface WriteSecret {
  principal: TokenPrincipal
  collection: Collection
  name: string
}

export interface PutSecret extends WriteSecret {
  value: SealedValue
  /** what was found of the secret when access was decided */
  found: SecretHead | undefined
  /** opaque part of If-Match; undefined: unconditional */
  ifMatch?: string | undefined
  /** for a secret that does not exist yet */
  initialVisibility?: Visibility
  /** more changes to the same secret, in the same transaction */
  alongside?: Alongside | undefined
}

/** Changes what belongs to a secret, beside its value. */
export interface Alongside {
  /** whether a secret that is there is as it shall be, so that only its value changes */
  isDone(secret: Pick<SecretHead, 'visibility'>): boolean
  /** for a secret that is locked, or new */
  apply(tx: Transaction<Database>, secret: { secretId: number; visibility: Visibility | null }): Promise<void>
}

/** How often a write is tried without a lock before it waits for its turn. */
const OPTIMISTIC_TRIES = 2

/** ETag of one secret: moves with every change to it, and with nothing else. */
export function secretTag({
  secret_uid,
  row_version
}: Pick<SecretHead, 'secret_uid' | 'row_version'>): string {
  return hash('sha256', `${secret_uid}/${row_version}`, 'hex')
}

/** Throws `PreconditionFailed` when If-Match is given and is not what is there. */
export function requireMatch(ifMatch: string | undefined, head: SecretHead | undefined): void {
  if (ifMatch === undefined) return
  if (!head || (ifMatch !== '*' && !ifMatch.split(',').includes(secretTag(head))))
    throw new PreconditionFailed()
}

/**
 * Stores a value that a client sealed: opens the box, encrypts the value for its row, and writes both the row
 * and its audit record, or neither.
 *
 * @returns whether the secret is new
 * @throws UnknownKey, ImproperlyEncrypted when the box does not open
 * @throws LimitExceeded for a value too large, or one secret too many
 * @throws PreconditionFailed when `ifMatch` is not what is there
 * @throws NotFound when the owner is gone, Unauthenticated when the token is
 */
export async function put(vault: Vault, request: PutSecret): Promise<{ created: boolean }> {
  requireMatch(request.ifMatch, request.found)
  const plaintext = await openBox(vault, request)
  try {
    return await write(vault, request, plaintext)
  } finally {
    plaintext.fill(0)
  }
}

async function openBox(vault: Vault, { collection, value }: PutSecret): Promise<Buffer> {
  const { keyring, limits } = vault
  const sealed = decodeSealedBox(value.sealedBox)
  requireSize(limits, sealed.length - SEALED_BOX_OVERHEAD)
  if (!keyring.acceptsBoxesFor(value.keyId)) await vault.reloadGenerations()
  return keyring.openBox(collectionName(collection), value.keyId, sealed)
}

function requireSize({ maxValueBytes }: Limits, bytes: number): void {
  if (bytes <= maxValueBytes) return
  throw new LimitExceeded(
    `The value is larger than ${maxValueBytes} bytes, the limit that COFFER_MAX_VALUE_BYTES sets.`
  )
}

async function write(vault: Vault, request: PutSecret, plaintext: Buffer): Promise<{ created: boolean }> {
  const { alongside } = request
  let head = request.found
  for (let tries = 0; head && tries < OPTIMISTIC_TRIES; tries++) {
    if (alongside && !alongside.isDone(head)) break
    if (await update(vault, vault.db, request, head, plaintext)) return { created: false }
    head = await findSecret(vault.db, { ...request.collection, secretName: request.name })
    requireMatch(request.ifMatch, head)
  }
  return await vault.db.transaction().execute((tx) => writeInTurn(vault, tx, request, head, plaintext))
}

/** One writer of a collection at a time, so that its limit holds exactly and a first PUT is first once. */
async function writeInTurn(
  vault: Vault,
  tx: Transaction<Database>,
  request: PutSecret,
  found: SecretHead | undefined,
  plaintext: Buffer
): Promise<{ created: boolean }> {
  const { collection, name, alongside } = request
  await lockOwner(tx, collection)
  if (!found) {
    const visibility = request.initialVisibility ?? null
    const inserted = await insert(vault, tx, { ...request, attributes: variable(visibility) }, plaintext)
    if (inserted) {
      await alongside?.apply(tx, { secretId: inserted.secretId, visibility })
      return { created: true }
    }
  }
  const head = await lockSecret(tx, collection, name)
  requireMatch(request.ifMatch, head)
  // Deleted since it was found: now that nobody else writes here, it can be made anew.
  if (!head) return await writeInTurn(vault, tx, request, undefined, plaintext)
  if (!(await update(vault, tx, request, head, plaintext))) throw new Unauthenticated(true)
  await alongside?.apply(tx, { secretId: head.secret_id, visibility: head.visibility })
  return { created: false }
}

const LOCK: Record<CollectionKind, (tx: Transaction<Database>, uid: string) => Promise<boolean>> = {
  repository: lockRepository,
  user: lockAccount,
  organization: lockAccount,
  'deployment-environment': lockDeploymentEnvironment,
  project: lockProject,
  'service-account': lockServiceAccount
}

/** What GitHub's API makes: it knows variables alone. */
function variable(visibility: Visibility | null): SecretAttributes {
  return { mount: 'variable', mountTarget: null, credentialProxy: null, visibility }
}

/** Locks the row of the owner, in a statement of its own; throws `NotFound` when the owner is gone. */
export async function lockOwner(tx: Transaction<Database>, { kind, ownerUid }: Collection): Promise<void> {
  if (!(await LOCK[kind](tx, ownerUid))) throw new NotFound()
}

async function insert(
  { keyring, limits }: Vault,
  tx: Transaction<Database>,
  { principal, collection, name, attributes }: WriteSecret & { attributes: SecretAttributes },
  plaintext: Buffer
): Promise<{ secretId: number; secretUid: string; createdAt: string } | undefined> {
  const maxSecrets = maxSecretsOf(limits, collection)
  const secretUid = randomUUID()
  const context = { collection: collectionName(collection), secretUid, name, valueVersion: 1 }
  const { envelope, generationId } = keyring.sealValue(context, plaintext)
  const [result] = await insertSecret(tx, {
    app: collection.app,
    kind: collection.kind,
    ownerUid: collection.ownerUid,
    secretUid,
    secretName: name,
    mount: attributes.mount,
    mountTarget: attributes.mountTarget,
    credentialProxy: attributes.credentialProxy,
    initialVisibility: attributes.visibility,
    newEnvelope: envelope,
    generationId: generationId.toString(),
    maxSecrets,
    ...auditOf('secret.create', principal, collection, context, envelope)
  })
  const { token_valid, secret_id, created_at, total } = result!
  if (!token_valid) throw new Unauthenticated(true)
  if (secret_id !== null) return { secretId: secret_id, secretUid, createdAt: created_at! }
  if (total >= maxSecrets) {
    const exists = await lockSecret(tx, collection, name)
    if (!exists) throw tooManySecrets(maxSecrets)
  }
  return undefined
}

function tooManySecrets(maxSecrets: number): LimitExceeded {
  return new LimitExceeded(
    `This collection holds ${maxSecrets} secrets, the limit that COFFER_MAX_SECRETS sets; secrets whose names this API ` +
      'does not list count too. Remove one first.'
  )
}

/** False when the row moved on, or the token is no longer valid. */
async function update(
  { keyring }: Vault,
  db: Kysely<Database>,
  { principal, collection, name }: WriteSecret,
  head: SecretHead,
  plaintext: Buffer
): Promise<boolean> {
  const context = {
    collection: collectionName(collection),
    secretUid: head.secret_uid,
    name,
    valueVersion: head.value_version + 1
  }
  const { envelope, generationId } = keyring.sealValue(context, plaintext)
  const written = await updateValue(db, {
    secretId: head.secret_id,
    rowVersion: head.row_version,
    newEnvelope: envelope,
    generationId: generationId.toString(),
    ...auditOf('secret.update', principal, collection, context, envelope)
  })
  return written.length > 0
}

/**
 * Makes a secret of a value that came in plain, inside TLS. The caller zeroes `plaintext` when done.
 *
 * @returns its uid, and when it was made: text, UTC, without zone
 * @throws AlreadyExists when the collection has one of that name
 * @throws LimitExceeded for a value too large, or one secret too many
 * @throws NotFound when the owner is gone, Unauthenticated when the token is
 */
export async function create(
  vault: Vault,
  request: WriteSecret & { attributes: SecretAttributes },
  plaintext: Buffer
): Promise<{ secretUid: string; createdAt: string }> {
  requireSize(vault.limits, plaintext.length)
  return await vault.db.transaction().execute(async (tx) => {
    await lockOwner(tx, request.collection)
    const inserted = await insert(vault, tx, request, plaintext)
    if (!inserted) {
      throw new AlreadyExists('There is a secret of that name already; update its value, or delete it first.')
    }
    return inserted
  })
}

/**
 * Gives a secret that was found a new value, which came in plain. The caller zeroes `plaintext` when done.
 *
 * @throws NotFound when it is gone, or another one of that name is there now
 * @throws LimitExceeded for a value too large
 * @throws Unauthenticated when the token was revoked meanwhile
 */
export async function replace(
  vault: Vault,
  request: WriteSecret & { found: SecretHead },
  plaintext: Buffer
): Promise<void> {
  requireSize(vault.limits, plaintext.length)
  if (await update(vault, vault.db, request, request.found, plaintext)) return
  await vault.db.transaction().execute(async (tx) => {
    const head = await lockSecret(tx, request.collection, request.name)
    if (head?.secret_uid !== request.found.secret_uid) throw new NotFound()
    if (!(await update(vault, tx, request, head, plaintext))) throw new Unauthenticated(true)
  })
}

/** How often a value may change while it is read. */
const READ_TRIES = 5
/** So many values are read together at most, and so many bytes, if each were as large as values may be. */
const READ_TOGETHER = { values: 100, bytes: 8 * 1024 * 1024 }

/** A value that an environment asks for. */
export interface ReadValue {
  principal: TokenPrincipal
  environmentId: number
  secretUid: string
  /** why the environment does not get it any more; undefined: it does */
  refuse: (received: ReceivedSecret) => string | undefined
}

/** What may leave once that is recorded. */
interface Readable {
  principal: TokenPrincipal
  stored: ReceivedSecret
}

/** Nothing comes out when the row moved on, or the token is no longer valid. */
type ReadOutcome = { value: Buffer } | { error: Error } | { rowVersion: number }

/**
 * The values of secrets for environments that receive them. That one was read is recorded, and committed, before it
 * leaves; those that the same token asks for at the same time share a commit, and each has a record of its own.
 */
export class Deliveries {
  readonly #parts: Pick<Vault, 'db' | 'keyring'>
  readonly #reads: Gathering<number, ReadValue, ReadOutcome>

  constructor({ db, keyring, limits }: Pick<Vault, 'db' | 'keyring' | 'limits'>) {
    this.#parts = { db, keyring }
    const fitting = Math.floor(READ_TOGETHER.bytes / limits.maxValueBytes)
    const atMost = Math.max(1, Math.min(READ_TOGETHER.values, fitting))
    this.#reads = new Gathering((reads) => this.#readTogether(reads), atMost)
  }

  /**
   * @returns the exact bytes; the caller zeroes them when done
   * @throws NotFound when the environment was not given it, Forbidden when it is withheld by now
   * @throws Unauthenticated when its token was revoked meanwhile
   * @throws CorruptEnvelope when the row was altered or belongs to another keyring
   */
  async read(request: ReadValue): Promise<Buffer> {
    let tried: number | undefined
    for (let tries = 0; tries < READ_TRIES; tries++) {
      const outcome = await this.#reads.add(request.principal.tokenId, request)
      if ('error' in outcome) throw outcome.error
      if ('value' in outcome) return outcome.value
      if (outcome.rowVersion === tried) throw new Unauthenticated(true)
      tried = outcome.rowVersion
    }
    throw new Unavailable()
  }

  /** For one token, and so for one environment. */
  async #readTogether(reads: readonly ReadValue[]): Promise<ReadOutcome[]> {
    const { db } = this.#parts
    const { environmentId, principal } = reads[0]!
    const uids = [...new Set(reads.map(({ secretUid }) => secretUid))]
    const rows = new Map((await listReceived(db, environmentId, uids)).map((row) => [row.secret_uid, row]))
    const found = reads.map((read) => findReadable(rows.get(read.secretUid), read))
    const readable = found.flatMap((row) => (row instanceof Error ? [] : [row]))
    const recorded = readable.length > 0 ? await this.#record(principal, environmentId, readable) : new Set()
    let no = 0
    return found.map((row) => {
      if (row instanceof Error) return { error: row }
      no += 1
      return recorded.has(no) ? this.#open(row.stored) : { rowVersion: row.stored.row_version }
    })
  }

  /** Gives the numbers, from 1, of those that may leave. */
  async #record(
    principal: TokenPrincipal,
    environmentId: number,
    readable: readonly Readable[]
  ): Promise<Set<number>> {
    const recorded = await recordDeliveries(this.#parts.db, {
      environmentId,
      secretIds: readable.map(({ stored }) => stored.secret_id),
      rowVersions: readable.map(({ stored }) => stored.row_version),
      records: auditRecords(
        readable.map(({ principal, stored }) =>
          auditRowOf(
            'secret.read',
            principal,
            { streamUid: stored.stream_uid },
            contextOf(stored),
            stored.envelope
          )
        )
      ),
      ...tokenCheckOf(principal.tokenId, principal.needs)
    })
    return new Set(recorded.map(({ no }) => no))
  }

  #open(stored: ReceivedSecret): ReadOutcome {
    try {
      return { value: this.#parts.keyring.openValue(contextOf(stored), stored.envelope) }
    } catch (error) {
      return { error: error as Error }
    }
  }
}

function findReadable(
  stored: ReceivedSecret | undefined,
  { principal, refuse }: ReadValue
): Readable | Error {
  if (!stored) return new NotFound()
  const refusal = refuse(stored)
  if (refusal !== undefined) return new Forbidden(`The value is withheld: ${refusal}.`)
  return { principal, stored }
}

/**
 * Removes a secret, with its audit record.
 *
 * @throws NotFound when it is not there (any more)
 * @throws PreconditionFailed when `ifMatch` is not what is there
 * @throws Unauthenticated when the token was revoked meanwhile
 */
export async function remove(
  { db }: Vault,
  request: {
    principal: TokenPrincipal
    collection: Collection
    name: string
    found: SecretHead | undefined
    ifMatch?: string | undefined
    /** not another one of that name that took its place meanwhile */
    onlyThis?: boolean
  }
): Promise<void> {
  const { principal, collection, name, ifMatch, onlyThis } = request
  const removeAt = async (executor: Kysely<Database>, head: SecretHead | undefined) => {
    if (!head || (onlyThis && head.secret_uid !== request.found?.secret_uid)) throw new NotFound()
    requireMatch(ifMatch, head)
    const context = {
      collection: collectionName(collection),
      secretUid: head.secret_uid,
      name,
      valueVersion: head.value_version
    }
    const removed = await deleteSecret(executor, {
      secretId: head.secret_id,
      rowVersion: head.row_version,
      ...auditOf('secret.remove', principal, collection, context)
    })
    return removed.length > 0
  }
  if (await removeAt(db, request.found)) return
  await db.transaction().execute(async (tx) => {
    if (!(await removeAt(tx, await lockSecret(tx, collection, name)))) throw new Unauthenticated(true)
  })
}

/**
 * The value of a secret: for those that deliver it, never for a person.
 *
 * @returns the exact bytes; the caller zeroes them when done. Undefined when there is no such secret
 * @throws CorruptEnvelope when the row was altered or belongs to another keyring
 */
export async function reveal(
  { db, keyring }: Pick<Vault, 'db' | 'keyring'>,
  collection: Pick<Collection, 'app' | 'kind' | 'ownerUid'>,
  name: string
): Promise<Buffer | undefined> {
  const stored = await findStoredValue(db, collection, name)
  return stored && keyring.openValue(contextOf(stored), stored.envelope)
}

/**
 * Encrypts a stored value again, under the active generation. Neither version nor time of the secret moves.
 *
 * @returns false when a new value came in between
 */
export async function reencrypt(
  { db, keyring }: Pick<Vault, 'db' | 'keyring'>,
  stored: StoredValue & { generation_id: string }
): Promise<boolean> {
  const context = contextOf(stored)
  const plaintext = keyring.openValue(context, stored.envelope)
  try {
    const { envelope, generationId } = keyring.sealValue(context, plaintext)
    return await replaceEnvelope(db, stored, envelope, generationId.toString())
  } finally {
    plaintext.fill(0)
  }
}

function contextOf(stored: StoredValue) {
  return {
    collection: `${stored.app}/${stored.kind}/${stored.owner_uid}`,
    secretUid: stored.uid,
    name: stored.name,
    valueVersion: stored.value_version
  }
}

type AuditedAction = 'secret.create' | 'secret.update' | 'secret.remove' | 'secret.read'

function auditOf(
  action: AuditedAction,
  principal: TokenPrincipal,
  collection: Pick<Collection, 'streamUid' | 'repositoryUid'>,
  context: ValueContext,
  envelope?: Buffer
) {
  const row = auditRowOf(action, principal, collection, context, envelope)
  return { ...row, ...tokenCheckOf(principal.tokenId, principal.needs) }
}

function auditRowOf(
  action: AuditedAction,
  principal: TokenPrincipal,
  { streamUid, repositoryUid }: Pick<Collection, 'streamUid' | 'repositoryUid'>,
  context: ValueContext,
  envelope?: Buffer
) {
  return auditRow({
    streamUid,
    principal,
    action,
    collection: context.collection,
    subjectUid: context.secretUid,
    name: context.name,
    valueVersion: context.valueVersion,
    ...(repositoryUid && { repositoryUid }),
    ...(envelope && { envelopeSha256: hash('sha256', envelope, 'buffer') })
  })
}
