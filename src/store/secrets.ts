import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import { audited, auditedEach, type WithAudit } from './audit.ts'
import { utc } from './repositories.ts'
import { type Statement, statement } from './statement.ts'
import type { CredentialProxy, Database, Mount, Visibility } from './tables.ts'
import { type TokenCheck, tokenIsValid } from './tokens.ts'

/** The columns that name a collection; every query on secrets gives all three. */
export interface CollectionColumns {
  app: string
  kind: string
  ownerUid: string
}

/** A secret without its value. Times are text, UTC, without zone. */
export interface SecretHead {
  secret_id: number
  secret_uid: string
  secret_name: string
  mount: Mount
  visibility: Visibility | null
  value_version: number
  row_version: number
  created_at: string
  updated_at: string
}

/** One entry of a list. */
export interface SecretItem {
  name: string
  visibility: Visibility | null
  created_at: string
  updated_at: string
}

export interface SecretPage {
  total: number
  secrets: SecretItem[]
}

/** A secret that may be absent: all members null then. */
export type MaybeHead = { [K in keyof SecretHead]: SecretHead[K] | null }

export const HEAD = [
  's.id as secret_id',
  's.uid as secret_uid',
  's.name as secret_name',
  's.mount',
  's.visibility',
  's.value_version',
  's.row_version',
  utc('s.created_at').as('created_at'),
  utc('s.updated_at').as('updated_at')
] as const

export function headOf(row: MaybeHead | undefined): SecretHead | undefined {
  return row && row.secret_id !== null ? (row as SecretHead) : undefined
}

export interface Page {
  limit: number
  offset: number
}

/** Count and page of a collection's GitHub names as two columns, so that no secrets still give a row. */
export function pageColumns(
  app: RawBuilder<string> | string,
  kind: string,
  ownerUid: RawBuilder<string> | string,
  { limit, offset }: Page,
  condition: RawBuilder<boolean> = sql<boolean>`true`
) {
  const inCollection = sql`app = ${app} and kind = ${kind} and owner_uid = ${ownerUid} and github_name
    and ${condition}`
  return [
    sql<number>`(select count(*) from secrets where ${inCollection})`.as('total'),
    sql<SecretItem[]>`coalesce((select json_agg(page) from (
      select name, visibility, ${utc('created_at')} as created_at, ${utc('updated_at')} as updated_at
      from secrets where ${inCollection} order by name limit ${limit}::bigint offset ${offset}::bigint
    ) page), '[]')`.as('secrets')
  ] as const
}

export const findSecrets: Statement<CollectionColumns & { secretName: string }, SecretHead> = statement(
  (db, { app, kind, ownerUid, secretName }) =>
    db
      .selectFrom('secrets as s')
      .select(HEAD)
      .where('s.app', '=', app)
      .where('s.kind', '=', kind)
      .where('s.owner_uid', '=', ownerUid)
      .where('s.name', '=', secretName)
)

export async function findSecret(
  db: Kysely<Database>,
  parameters: CollectionColumns & { secretName: string }
): Promise<SecretHead | undefined> {
  const [row] = await findSecrets(db, parameters)
  return row
}

const secretPages = statement<CollectionColumns & Page, SecretPage>(
  (db, { app, kind, ownerUid, limit, offset }) =>
    db.selectNoFrom(pageColumns(app, kind, ownerUid, { limit, offset }))
)

export async function listSecrets(
  db: Kysely<Database>,
  parameters: CollectionColumns & Page
): Promise<SecretPage> {
  const [page] = await secretPages(db, parameters)
  return page!
}

/** Waits for, and then excludes, other writers of this secret. */
export async function lockSecret(
  tx: Transaction<Database>,
  { app, kind, ownerUid }: CollectionColumns,
  name: string
): Promise<SecretHead | undefined> {
  return await tx
    .selectFrom('secrets as s')
    .select(HEAD)
    .where('s.app', '=', app)
    .where('s.kind', '=', kind)
    .where('s.owner_uid', '=', ownerUid)
    .where('s.name', '=', name)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

/** The stored value of a secret, and all that it is bound to. */
export interface StoredValue {
  secret_id: number
  uid: string
  app: string
  kind: string
  owner_uid: string
  name: string
  value_version: number
  envelope: Buffer
}

const STORED_VALUE = [
  'id as secret_id',
  'uid',
  'app',
  'kind',
  'owner_uid',
  'name',
  'value_version',
  'envelope'
] as const

export async function findStoredValue(
  db: Kysely<Database>,
  { app, kind, ownerUid }: CollectionColumns,
  name: string
): Promise<StoredValue | undefined> {
  return await db
    .selectFrom('secrets')
    .select(STORED_VALUE)
    .where('app', '=', app)
    .where('kind', '=', kind)
    .where('owner_uid', '=', ownerUid)
    .where('name', '=', name)
    .executeTakeFirst()
}

// ---- writes: each with its audit record in the same statement ----

/**
 * A new value for a secret that still is at `rowVersion`, by a token that still is valid; one round trip.
 * No row comes back when one of the two no longer holds, and then nothing was changed.
 */
export const updateValue = statement<
  WithAudit<{ secretId: number; rowVersion: number; newEnvelope: Buffer; generationId: string }>,
  { id: number }
>(
  (_, parameter) => sql`
    with written as (
      update secrets set envelope = ${parameter.newEnvelope}::bytea,
        generation_id = ${parameter.generationId}::bigint,
        value_version = value_version + 1, row_version = row_version + 1,
        updated_at = greatest(updated_at, clock_timestamp())
      where id = ${parameter.secretId}::bigint and row_version = ${parameter.rowVersion}::integer
        and ${tokenIsValid(parameter)}
      returning id)
    ${audited(parameter)}`
)

/**
 * A new secret, unless the collection is full, the name taken, or the token no longer valid; one round trip.
 * Its caller holds the lock of the owner, taken in a statement before: this one counts what was there when it
 * began, so that locking in it would let writers that waited count too little.
 */
export const insertSecret = statement<
  WithAudit<
    CollectionColumns & {
      secretUid: string
      secretName: string
      mount: Mount
      mountTarget: string | null
      credentialProxy: CredentialProxy | null
      initialVisibility: Visibility | null
      newEnvelope: Buffer
      generationId: string
      maxSecrets: number
    }
  >,
  { total: number; token_valid: boolean; secret_id: number | null; created_at: string | null }
>(
  (_, parameter) => sql`
    with counted as (
      select count(*) as total, ${tokenIsValid(parameter)} as token_valid from secrets
      where app = ${parameter.app} and kind = ${parameter.kind} and owner_uid = ${parameter.ownerUid}::uuid),
    written as (
      insert into secrets (uid, app, kind, owner_uid, name, mount, mount_target, credential_proxy, visibility,
        envelope, generation_id, value_version, row_version, creator_kind, creator_uid, created_at, updated_at)
      select ${parameter.secretUid}::uuid, ${parameter.app}, ${parameter.kind}, ${parameter.ownerUid}::uuid,
        ${parameter.secretName}, ${parameter.mount}, ${parameter.mountTarget}, ${parameter.credentialProxy}::jsonb,
        ${parameter.initialVisibility}, ${parameter.newEnvelope}::bytea,
        ${parameter.generationId}::bigint, 1, 1, ${parameter.actor_kind}, ${parameter.actor_uid}::uuid, at, at
      from counted, (select clock_timestamp() as at) clock
      where token_valid and total < ${parameter.maxSecrets}::bigint
      on conflict (app, kind, owner_uid, name) do nothing
      returning id, created_at),
    audit as (${audited(parameter)})
    select total, token_valid, (select id from written) as secret_id,
      (select created_at at time zone 'UTC' from written) as created_at from counted`
)

/** Removes a secret that still is at `rowVersion`, by a token that still is valid; one round trip. */
export const deleteSecret = statement<WithAudit<{ secretId: number; rowVersion: number }>, { id: number }>(
  (_, parameter) => sql`
    with written as (
      delete from secrets
      where id = ${parameter.secretId}::bigint and row_version = ${parameter.rowVersion}::integer
        and ${tokenIsValid(parameter)}
      returning id)
    ${audited(parameter)}`
)

export interface RemovedSecret {
  uid: string
  app: string
  kind: string
  name: string
  value_version: number
}

/** Removes everything that an owner has, in the transaction that removes the owner. */
export async function deleteSecretsOfOwner(
  tx: Transaction<Database>,
  apps: readonly string[],
  kind: string,
  ownerUid: string
): Promise<RemovedSecret[]> {
  return await tx
    .deleteFrom('secrets')
    .where('app', '=', sql<string>`any(${apps}::text[])`)
    .where('kind', '=', kind)
    .where('owner_uid', '=', ownerUid)
    .returning(['uid', 'app', 'kind', 'name', 'value_version'])
    .execute()
}

/** Moves the row version and nothing else that clients see of the secret itself. */
export async function touchSecret(
  tx: Transaction<Database>,
  secretId: number,
  change: { visibility?: Visibility } = {}
): Promise<void> {
  await tx
    .updateTable('secrets')
    .set({ ...change, row_version: sql<number>`row_version + 1` })
    .where('id', '=', secretId)
    .execute()
}

// ---- re-encryption ----

/** The next values, by id, that are encrypted under a generation other than the given one; some are left out. */
export async function listValuesOfOtherGenerations(
  db: Kysely<Database>,
  generationId: string,
  exceptIds: readonly number[],
  limit: number
): Promise<(StoredValue & { generation_id: string })[]> {
  return await db
    .selectFrom('secrets')
    .select([...STORED_VALUE, 'generation_id'])
    .where('generation_id', '!=', generationId)
    .where('id', '!=', sql<number>`all(${exceptIds}::bigint[])`)
    .orderBy('generation_id')
    .orderBy('id')
    .limit(limit)
    .execute()
}

export async function countValuesOfOtherGenerations(
  db: Kysely<Database>,
  generationId: string
): Promise<number> {
  const { total } = await db
    .selectFrom('secrets')
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .where('generation_id', '!=', generationId)
    .executeTakeFirstOrThrow()
  return total
}

/**
 * Puts the same value under another generation. Moves no version and no time; does nothing when a new value
 * came in between.
 */
export async function replaceEnvelope(
  db: Kysely<Database>,
  value: { secret_id: number; value_version: number; generation_id: string },
  envelope: Buffer,
  generationId: string
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('secrets')
    .set({ envelope, generation_id: generationId })
    .where('id', '=', value.secret_id)
    .where('value_version', '=', value.value_version)
    .where('generation_id', '=', value.generation_id)
    .executeTakeFirstOrThrow()
  return numUpdatedRows > 0n
}

// ---- delivery to environments ----

/** A value that an environment receives, and in whose stream its being read is recorded. */
export interface DeliverableValue extends StoredValue {
  row_version: number
  stream_uid: string
}

/**
 * Records that values are read, of each if it still is that one, still the environment's, and the token still valid: for
 * the lease that there is, or for what is read from inside. All in one commit.
 *
 * @returns the numbers of those that were recorded, from 1, in the order of the parameters
 */
export const recordDeliveries = statement<
  {
    environmentId: number
    secretIds: readonly number[]
    rowVersions: readonly number[]
    records: string
  } & TokenCheck,
  { no: number }
>(
  (_, parameter) => sql`
    with written as (
      select asked.no
      from unnest(${parameter.secretIds}::bigint[], ${parameter.rowVersions}::integer[])
          with ordinality as asked(secret_id, row_version, no)
        join secrets s on s.id = asked.secret_id and s.row_version = asked.row_version
        join environment_secrets es on es.secret_id = s.id and es.environment_id = ${parameter.environmentId}::bigint
        join environments e on e.id = es.environment_id
        join tokens d on d.id = ${parameter.token_id}::bigint and d.environment_id = e.id
      where ${tokenIsValid(parameter)}
        and (d.lease_epoch = e.lease_epoch or d.purpose = 'inside' and s.mount in ('api-only', 'git'))),
    recorded as (${auditedEach(parameter.records)})
    select no from written`
)
