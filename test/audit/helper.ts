import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Kysely, sql, type Transaction } from 'kysely'
import type { Test } from 'tap'
import { type CheckpointFile, readEvidence } from '../../src/audit/evidence.ts'
import { exportAudit, exportWithin } from '../../src/audit/export.ts'
import { type AuditKey, parsePublicKeys, readAuditKey } from '../../src/audit/key.ts'
import { sealBatch } from '../../src/audit/sealer.ts'
import { type Verification, verifyExport } from '../../src/audit/verify.ts'
import { insertAuditEvents } from '../../src/store/audit.ts'
import { countUnchained } from '../../src/store/audit-records.ts'
import { getInstance } from '../../src/store/instance.ts'
import type { Database } from '../../src/store/tables.ts'
import { SYSTEM } from '../helper.ts'

export const STREAMS = [
  '11111111-1111-4111-8111-111111111111',
  '22222222-2222-4222-8222-222222222222',
  '33333333-3333-4333-8333-333333333333'
] as const

export async function makeFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'coffer-audit-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

export async function makeAuditKey(t: Test): Promise<AuditKey> {
  const file = path.join(await makeFolder(t), 'key')
  const { privateKey } = generateKeyPairSync('ed25519')
  await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
  return (await readAuditKey(file))!
}

/** Records events in streams, each in a transaction of its own. */
export async function record(db: Kysely<Database>, stream: string, ...names: string[]): Promise<void> {
  for (const name of names) {
    await insertAuditEvents(db, [{ streamUid: stream, principal: SYSTEM, action: 'test.event', name }])
  }
}

const PATIENCE_MS = 20_000

/**
 * Seals until there is nothing left; gives how many records were. Transactions of other tests in the same cluster
 * may hold it up for a moment.
 */
export async function sealAll(db: Kysely<Database>, limit?: number): Promise<number> {
  const { uid } = await getInstance(db)
  const end = Date.now() + PATIENCE_MS
  for (let sealed = 0; ; ) {
    const batch = await sealBatch(db, uid, limit)
    sealed += batch.sealed
    if (batch.more) continue
    if ((await countUnchained(db)) === 0) return sealed
    if (Date.now() > end) throw new Error('not everything was sealed in time')
    await sleep(5)
  }
}

export async function exportText(db: Kysely<Database>): Promise<string> {
  let text = ''
  await exportAudit(db, async (lines) => {
    text += lines
  })
  return text
}

async function* linesOf(text: string): AsyncGenerator<string> {
  yield* text.split('\n')
}

export function checkpointFile(name: string, text: string): CheckpointFile {
  return { name, lines: linesOf(text) }
}

/** Verifies an export against the texts of checkpoints. */
export async function verify(
  text: string,
  options: { checkpoints?: readonly string[]; keys?: readonly AuditKey[] } = {}
): Promise<Verification> {
  const keys = parsePublicKeys((options.keys ?? []).map(({ publicKey }) => publicKey).join(''))
  const files = (options.checkpoints ?? []).map((checkpoint, index) =>
    checkpointFile(`checkpoint-${index}`, checkpoint)
  )
  return await verifyExport(linesOf(text), await readEvidence(files, keys), keys)
}

const TRIGGERED = ['audit_events', 'audit_chain']

async function alter(tx: Transaction<Database>, statements: readonly string[]): Promise<void> {
  for (const table of TRIGGERED) await sql.raw(`alter table ${table} disable trigger user`).execute(tx)
  for (const statement of statements) await sql.raw(statement).execute(tx)
  for (const table of TRIGGERED) await sql.raw(`alter table ${table} enable trigger user`).execute(tx)
}

/** Changes the database as somebody does who owns it: past the triggers. */
export async function tamper(db: Kysely<Database>, ...statements: string[]): Promise<void> {
  await db.transaction().execute((tx) => alter(tx, statements))
}

class Undone extends Error {}

/** An export of the database as it would be after such a change, and no change. */
export async function exportAfter(db: Kysely<Database>, ...statements: string[]): Promise<string> {
  let text = ''
  await db
    .transaction()
    .execute(async (tx) => {
      await alter(tx, statements)
      await exportWithin(tx, async (lines) => {
        text += lines
      })
      throw new Undone()
    })
    .catch((error) => {
      if (!(error instanceof Undone)) throw error
    })
  return text
}

export interface ChainRow {
  event_id: number
  stream_uid: string
  sequence: number
  hash: Buffer
}

export async function listChain(db: Kysely<Database>): Promise<ChainRow[]> {
  return await db
    .selectFrom('audit_chain')
    .select(['event_id', 'stream_uid', 'sequence', 'hash'])
    .orderBy('stream_uid')
    .orderBy('sequence')
    .execute()
}

/** Every record once in a chain, and every chain without gaps. */
export async function isWholeChain(t: Test, db: Kysely<Database>): Promise<void> {
  const { rows } = await sql<{ stream_uid: string; places: number; last: number; head: number }>`
    select c.stream_uid, count(*) as places, max(c.sequence) as last, max(s.sequence) as head
    from audit_chain c left join audit_streams s on s.stream_uid = c.stream_uid group by c.stream_uid`.execute(
    db
  )
  for (const { stream_uid, places, last, head } of rows) {
    t.strictSame([places, head], [last, last], `${stream_uid} has no gap`)
  }
  const { rows: missing } = await sql`
    select id from audit_events e where not exists (select 1 from audit_chain where event_id = e.id)`.execute(
    db
  )
  t.strictSame(missing, [], 'nothing was skipped')
}
