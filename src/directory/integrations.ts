import { randomBytes } from 'node:crypto'
import type { Kysely, Transaction } from 'kysely'
import { makeAppKey } from '../auth/app-key.ts'
import { commonPermissions, includesPermissions } from '../auth/scopes.ts'
import { InvalidInput, LimitExceeded, NotFound } from '../errors.ts'
import type { Account } from '../store/accounts.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import { isUniqueViolation } from '../store/database.ts'
import { lockInstallations, updateInstallation } from '../store/installations.ts'
import {
  deleteIntegration,
  deleteKey,
  type Integration,
  type IntegrationKey,
  insertIntegration,
  insertKey,
  listIntegrationsOf,
  listKeys,
  lockIntegration,
  updateIntegration
} from '../store/integrations.ts'
import type { Database } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'
import { forgetInstallations, recordInstallation, removeInstallations } from './installations.ts'
import { requireAppPermissions } from './permissions.ts'

// GitHub Apps: an integration is one here, since an app is what receives secrets.

const MAX_NAME_LENGTH = 34
const MAX_DESCRIPTION_LENGTH = 350
/** Each is tried for a JWT, so their number bounds what one costs. */
const MAX_KEYS = 10

export interface NewIntegration {
  name: string
  description?: string | null
  permissions: Readonly<Record<string, string>>
}

/** A key that was made just now: the private one is shown this once, and stored nowhere. */
export type NewKey = IntegrationKey & { pem: string }

function invalid(field: string, message: string): InvalidInput {
  return new InvalidInput('Validation Failed', [{ field, code: 'invalid', message }])
}

/** The name in an App's URL. */
function slugOf(name: string): string {
  const slug = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (slug !== '' && name.length <= MAX_NAME_LENGTH && !/[\u0000-\u001f\u007f]/.test(name)) return slug
  throw invalid(
    'name',
    `name is 1 to ${MAX_NAME_LENGTH} characters, with a letter from a to z or a digit, and without control characters`
  )
}

function requireDescription(description: string | null | undefined): void {
  if (!description || (description.length <= MAX_DESCRIPTION_LENGTH && !description.includes('\0'))) return
  throw invalid(
    'description',
    `description is ${MAX_DESCRIPTION_LENGTH} characters at most, and holds no NUL`
  )
}

function nameTaken(error: unknown): never {
  if (!isUniqueViolation(error, 'integrations_slug_key')) throw error
  throw new InvalidInput('Validation Failed', [
    { field: 'name', code: 'already_exists', message: 'there is an App of that name' }
  ])
}

function event(
  principal: Principal,
  integration: { owner_uid: string; integration_uid: string; slug: string },
  action: string
) {
  const { owner_uid, integration_uid, slug } = integration
  return { streamUid: owner_uid, principal, action, subjectUid: integration_uid, name: slug }
}

/** Registers an App with its first key; throws `InvalidInput` when there is one of that name. */
export async function registerApp(
  db: Kysely<Database>,
  principal: Principal,
  owner: Pick<Account, 'id' | 'uid'>,
  request: NewIntegration
): Promise<{ slug: string; key: NewKey }> {
  const slug = slugOf(request.name)
  requireDescription(request.description)
  const permissions = requireAppPermissions(request.permissions)
  const { pem, publicKey } = await makeAppKey()
  return await inTheNameOf(db, principal, async (tx) => {
    const { id, uid } = await insertIntegration(tx, {
      owner_id: owner.id,
      slug,
      client_id: `Iv1.${randomBytes(8).toString('hex')}`,
      name: request.name,
      description: request.description ?? null,
      permissions
    })
    const key = { ...(await insertKey(tx, id, publicKey)), pem }
    const integration = { owner_uid: owner.uid, integration_uid: uid, slug }
    await insertAuditEvents(tx, [event(principal, integration, 'app.create')])
    return { slug, key }
  }).catch(nameTaken)
}

/**
 * Changes what an App may ask for. Its installations lose at once what it loses; what it gains, each has to be given.
 *
 * @returns the hashes of tokens that changed with it, as caches hold them
 */
export async function changeApp(
  db: Kysely<Database>,
  principal: Principal,
  integration: Integration,
  change: { permissions?: Readonly<Record<string, string>>; description?: string | null }
): Promise<string[]> {
  requireDescription(change.description)
  const permissions = change.permissions && requireAppPermissions(change.permissions)
  const { integration_id } = integration
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockIntegration(tx, integration_id))) throw new NotFound()
    const { description } = change
    await updateIntegration(tx, integration_id, {
      ...(permissions && { permissions }),
      ...(description !== undefined && { description })
    })
    await insertAuditEvents(tx, [event(principal, integration, 'app.update')])
    if (!permissions) return []
    const installations = await lockInstallations(tx, { integrationId: integration_id })
    for (const installation of installations) {
      const left = commonPermissions(installation.permissions, permissions)
      if (includesPermissions(left, installation.permissions)) continue
      await updateInstallation(tx, installation.installation_id, { permissions: left })
      await recordInstallation(tx, principal, installation, 'installation.update')
    }
    return await forgetInstallations(
      tx,
      installations.map(({ installation_id }) => installation_id)
    )
  })
}

/**
 * Removes an App with its keys, its installations and their tokens.
 *
 * @returns the hashes of the revoked tokens, as caches hold them
 */
export async function removeApp(
  db: Kysely<Database>,
  principal: Principal,
  integration: Integration
): Promise<string[]> {
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockIntegration(tx, integration.integration_id))) throw new NotFound()
    return await removeAppRow(tx, principal, integration)
  })
}

async function removeAppRow(
  tx: Transaction<Database>,
  principal: Principal,
  integration: Pick<Integration, 'integration_id' | 'integration_uid' | 'owner_uid' | 'slug'>
): Promise<string[]> {
  const { integration_id } = integration
  const revoked = await removeInstallations(tx, principal, { integrationId: integration_id })
  await deleteIntegration(tx, integration_id)
  await insertAuditEvents(tx, [event(principal, integration, 'app.remove')])
  return revoked
}

/** Removes all Apps of an account that is about to be removed; gives the hashes of the revoked tokens. */
export async function removeAppsOf(
  tx: Transaction<Database>,
  principal: Principal,
  owner: Pick<Account, 'id' | 'uid'>
): Promise<string[]> {
  const revoked: string[] = []
  for (const { id, uid, slug } of await listIntegrationsOf(tx, owner.id)) {
    const integration = { integration_id: id, integration_uid: uid, owner_uid: owner.uid, slug }
    revoked.push(...(await removeAppRow(tx, principal, integration)))
  }
  return revoked
}

/** One more key, beside those that are there. */
export async function addKey(
  db: Kysely<Database>,
  principal: Principal,
  integration: Integration
): Promise<NewKey> {
  const { pem, publicKey } = await makeAppKey()
  return await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockIntegration(tx, integration.integration_id))) throw new NotFound()
    if ((await listKeys(tx, integration.integration_id)).length >= MAX_KEYS) {
      throw new LimitExceeded(`An App has ${MAX_KEYS} keys at most. Delete one first.`)
    }
    const key = await insertKey(tx, integration.integration_id, publicKey)
    await insertAuditEvents(tx, [event(principal, integration, 'app.key.create')])
    return { ...key, pem }
  })
}

/** What the key signed is refused from now on; throws `NotFound` when the App has no such key. */
export async function removeKey(
  db: Kysely<Database>,
  principal: Principal,
  integration: Integration,
  keyId: number
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await deleteKey(tx, integration.integration_id, keyId))) throw new NotFound()
    await insertAuditEvents(tx, [event(principal, integration, 'app.key.remove')])
  })
}
