import { randomBytes, randomUUID } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Test } from 'tap'
import { Keyring, type MasterKey } from '../../src/keyring/index.ts'
import { localMasterKey } from '../../src/keyring/master-key.ts'
import {
  activateWhenReady,
  beginRotation,
  ensureGeneration,
  loadGenerations
} from '../../src/secrets/generations.ts'
import { put, reveal } from '../../src/secrets/vault.ts'
import { listGenerationStatus } from '../../src/store/key-generations.ts'
import { findSecret } from '../../src/store/secrets.ts'
import type { Database } from '../../src/store/tables.ts'
import { createTestDatabase, sealFor, startTestServer, type TestServer } from '../helper.ts'

export const HOUR = 3600
export const COLLECTION = 'codespaces/user/7c9e6679-7425-40de-944b-e07fc1f90ae7'

export interface Fixture {
  db: Kysely<Database>
  masterKey: MasterKey
  /** another process's keyring, with what is stored now */
  openKeyring(...masterKeys: MasterKey[]): Promise<Keyring>
  keyring: Keyring
  first: string
}

/** A database with one generation, and a keyring that holds it. */
export async function setUp(t: Test): Promise<Fixture> {
  const { db } = await createTestDatabase(t)
  const masterKey = localMasterKey(randomBytes(32))
  const openKeyring = async (...masterKeys: MasterKey[]) => {
    const keyring = new Keyring(masterKeys.length > 0 ? masterKeys : [masterKey])
    await loadGenerations(db, keyring)
    return keyring
  }
  await ensureGeneration(db, new Keyring([masterKey]))
  const keyring = await openKeyring()
  return { db, masterKey, openKeyring, keyring, first: keyring.collectionKey(COLLECTION).keyId }
}

export async function statesOf(db: Kysely<Database>): Promise<Record<string, string>> {
  return Object.fromEntries((await listGenerationStatus(db)).map(({ id, state }) => [id, state]))
}

export async function auditOf(db: Kysely<Database>): Promise<string[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(['action', 'name'])
    .where('action', 'like', 'key.%')
    .orderBy('id')
    .execute()
  return rows.map(({ action, name }) => `${action} ${name}`)
}

/** As if this had happened so much earlier. */
export async function age(db: Kysely<Database>, id: string, seconds: number): Promise<void> {
  const back = sql`make_interval(secs => ${seconds})`
  await sql`update key_generations set created_at = created_at - ${back}, retired_at = retired_at - ${back},
    accepts_boxes_until = accepts_boxes_until - ${back} where id = ${id}`.execute(db)
}

/** A whole rotation, with nobody to wait for. */
export async function rotate(
  db: Kysely<Database>,
  keyring: Keyring,
  graceSeconds = 24 * HOUR
): Promise<string> {
  const { id } = await beginRotation(db, keyring)
  const progress = await activateWhenReady(db, graceSeconds)
  if (progress.state !== 'activated') throw new Error(`not activated: ${progress.state}`)
  return id
}

/** A server whose administrator has secrets, and what is known of them. */
export interface StoredValues {
  server: TestServer
  ownerUid: string
  values: Map<string, string>
  /** as a client does, with a box */
  store(name: string, value: string): Promise<void>
  rows(): Promise<Record<string, unknown>[]>
}

export async function storeValues(t: Test, count: number): Promise<StoredValues> {
  const server = await startTestServer(t, { maxSecrets: 1000, logLevel: 'silent' })
  const { account } = server.admin
  const { id: tokenId } = await server.db.selectFrom('tokens').select('id').executeTakeFirstOrThrow()
  const principal = { kind: 'user', uid: account.uid, tokenId, issuedByUid: null, requestId: null } as const
  const collection = {
    app: 'codespaces',
    kind: 'user',
    ownerUid: account.uid,
    streamUid: account.uid
  } as const
  const values = new Map<string, string>()
  const stored: StoredValues = {
    server,
    ownerUid: account.uid,
    values,
    async store(name, value) {
      const { keyId, publicKey } = server.keyring.collectionKey(`codespaces/user/${account.uid}`)
      const found = await findSecret(server.db, { ...collection, secretName: name })
      const sealedBox = sealFor(publicKey.toString('base64'), value)
      await put(server.vault, { principal, collection, name, value: { keyId, sealedBox }, found })
      values.set(name, value)
    },
    rows: () =>
      server.db
        .selectFrom('secrets')
        .select([
          'name',
          'value_version',
          'row_version',
          'created_at',
          'updated_at',
          sql<string>`xmin`.as('xmin')
        ])
        .orderBy('name')
        .execute()
  }
  const rows = Array.from({ length: count }, (_, index) => {
    const [name, secretUid] = [`NAME_${index}`, randomUUID()]
    values.set(name, `value ${index}`)
    const context = { collection: `codespaces/user/${account.uid}`, secretUid, name, valueVersion: 1 }
    const { envelope, generationId } = server.keyring.sealValue(context, Buffer.from(`value ${index}`))
    const now = new Date()
    return {
      uid: secretUid,
      app: 'codespaces',
      kind: 'user',
      owner_uid: account.uid,
      name,
      envelope,
      generation_id: `${generationId}`,
      value_version: 1,
      row_version: 1,
      creator_kind: 'user',
      creator_uid: account.uid,
      created_at: now,
      updated_at: now
    }
  })
  await server.db.insertInto('secrets').values(rows).execute()
  return stored
}

/** Every value is there, and is the one that was last stored. */
export async function allReadable(
  t: Test,
  { server, ownerUid, values }: StoredValues,
  keyring = server.keyring
): Promise<void> {
  const collection = { app: 'codespaces', kind: 'user', ownerUid } as const
  let readable = 0
  for (const [name, value] of values) {
    const revealed = await reveal({ db: server.db, keyring }, collection, name)
    if (revealed?.toString() === value) readable++
  }
  t.equal(readable, values.size)
}
