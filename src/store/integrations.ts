import { type Kysely, sql, type Transaction } from 'kysely'
import { utc } from './repositories.ts'
import type { Page } from './secrets.ts'
import type { AccountKind, Database, Permissions } from './tables.ts'

/** A GitHub App, with what its JSON shows. */
export interface Integration {
  integration_id: number
  integration_uid: string
  slug: string
  client_id: string
  name: string
  description: string | null
  permissions: Permissions
  /** text, UTC, without zone */
  created_at: string
  updated_at: string
  owner_id: number
  owner_uid: string
  owner_login: string
  owner_kind: AccountKind
}

export interface CountedIntegration extends Integration {
  installations_count: number
}

/** Names an App as the `iss` of a JWT does. */
export type Issuer = { integrationId: number } | { clientId: string }

function integrations(db: Kysely<Database>) {
  return db.selectFrom('integrations as g').innerJoin('accounts as o', 'o.id', 'g.owner_id')
}

const INTEGRATION = [
  'g.id as integration_id',
  'g.uid as integration_uid',
  'g.slug',
  'g.client_id',
  'g.name',
  'g.description',
  'g.permissions',
  utc('g.created_at').as('created_at'),
  utc('g.updated_at').as('updated_at'),
  'o.id as owner_id',
  'o.uid as owner_uid',
  'o.login as owner_login',
  'o.kind as owner_kind'
] as const

const COUNTED_INTEGRATION = [
  ...INTEGRATION,
  sql<number>`(select count(*) from installations where integration_id = g.id)`.as('installations_count')
] as const

export async function findIntegration(
  db: Kysely<Database>,
  slug: string
): Promise<CountedIntegration | undefined> {
  return await integrations(db).select(COUNTED_INTEGRATION).where('g.slug', '=', slug).executeTakeFirst()
}

/** With the public keys, as SPKI in DER, of which one must have signed; none are left after a restore. */
export async function findIssuer(
  db: Kysely<Database>,
  issuer: Issuer
): Promise<(Integration & { public_keys: Buffer[] }) | undefined> {
  const query = integrations(db)
    .select(INTEGRATION)
    .select(
      sql<Buffer[]>`array(select k.public_key from integration_keys k join instance i on i.epoch = k.epoch
        where k.integration_id = g.id order by k.id)`.as('public_keys')
    )
  return await ('clientId' in issuer
    ? query.where('g.client_id', '=', issuer.clientId)
    : query.where('g.id', '=', issuer.integrationId)
  ).executeTakeFirst()
}

/** By slug, with the full count. */
export async function listIntegrations(
  db: Kysely<Database>,
  page: Page
): Promise<{ total: number; integrations: CountedIntegration[] }> {
  const { total } = await integrations(db)
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow()
  const rows = await integrations(db)
    .select(COUNTED_INTEGRATION)
    .orderBy('g.slug')
    .limit(page.limit)
    .offset(page.offset)
    .execute()
  return { total, integrations: rows }
}

/** Refuses with unique violation `integrations_slug_key` when there is one of that slug. */
export async function insertIntegration(
  tx: Transaction<Database>,
  values: {
    owner_id: number
    slug: string
    client_id: string
    name: string
    description: string | null
    permissions: Permissions
  }
): Promise<{ id: number; uid: string }> {
  const { permissions, ...rest } = values
  return await tx
    .insertInto('integrations')
    .values({ ...rest, permissions: JSON.stringify(permissions) })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
}

/** Locks the row, so that nothing is installed meanwhile; undefined when it is gone. */
export async function lockIntegration(
  tx: Transaction<Database>,
  integrationId: number
): Promise<{ permissions: Permissions } | undefined> {
  return await tx
    .selectFrom('integrations')
    .select('permissions')
    .where('id', '=', integrationId)
    .forUpdate()
    .executeTakeFirst()
}

export async function updateIntegration(
  tx: Transaction<Database>,
  integrationId: number,
  change: { permissions?: Permissions; description?: string | null }
): Promise<void> {
  const { permissions, ...rest } = change
  await tx
    .updateTable('integrations')
    .set({
      ...rest,
      ...(permissions && { permissions: JSON.stringify(permissions) }),
      updated_at: sql<Date>`now()`
    })
    .where('id', '=', integrationId)
    .execute()
}

/** With its keys, its installations and their tokens. */
export async function deleteIntegration(tx: Transaction<Database>, integrationId: number): Promise<void> {
  await tx.deleteFrom('integrations').where('id', '=', integrationId).execute()
}

export async function listIntegrationsOf(
  tx: Transaction<Database>,
  ownerId: number
): Promise<{ id: number; uid: string; slug: string }[]> {
  return await tx
    .selectFrom('integrations')
    .select(['id', 'uid', 'slug'])
    .where('owner_id', '=', ownerId)
    .orderBy('id')
    .forUpdate()
    .execute()
}

/** A public key of an App. */
export interface IntegrationKey {
  id: number
  public_key: Buffer
  /** text, UTC, without zone */
  created_at: string
  /** whether what it signs is accepted: a restore voids those of the backup */
  valid: boolean
}

export async function insertKey(
  tx: Transaction<Database>,
  integrationId: number,
  publicKey: Buffer
): Promise<IntegrationKey> {
  return await tx
    .insertInto('integration_keys')
    .values({
      integration_id: integrationId,
      public_key: publicKey,
      epoch: sql<number>`(select epoch from instance)`
    })
    .returning(['id', 'public_key', utc('created_at').as('created_at'), sql<boolean>`true`.as('valid')])
    .executeTakeFirstOrThrow()
}

export async function listKeys(db: Kysely<Database>, integrationId: number): Promise<IntegrationKey[]> {
  return await db
    .selectFrom('integration_keys as k')
    .select([
      'k.id',
      'k.public_key',
      utc('k.created_at').as('created_at'),
      sql<boolean>`k.epoch = (select epoch from instance)`.as('valid')
    ])
    .where('k.integration_id', '=', integrationId)
    .orderBy('k.id')
    .execute()
}

/** False when the App has no such key. */
export async function deleteKey(
  tx: Transaction<Database>,
  integrationId: number,
  keyId: number
): Promise<boolean> {
  const { numDeletedRows } = await tx
    .deleteFrom('integration_keys')
    .where('integration_id', '=', integrationId)
    .where('id', '=', keyId)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}
