import { randomUUID } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { isCheckpointSigned, parseCheckpointLine, Root } from '../../src/audit/checkpoint.ts'
import { CheckpointFiles } from '../../src/audit/checkpoint-files.ts'
import { Checkpointer, takeCheckpoint } from '../../src/audit/checkpointer.ts'
import { type AuditSettings, startAudit } from '../../src/audit/jobs.ts'
import { createAuditKey, parsePublicKeys, readAuditKey } from '../../src/audit/key.ts'
import { createLogger } from '../../src/logger.ts'
import { getInstance } from '../../src/store/instance.ts'
import { createTestDatabase } from '../helper.ts'
import { makeAuditKey, makeFolder, record, STREAMS, sealAll } from './helper.ts'

const [A, B] = STREAMS
const NODES = ['aaaaaaaa-0000-4000-8000-000000000001', 'aaaaaaaa-0000-4000-8000-000000000002'] as const

async function makeSource(t: Test) {
  const { url, db } = await createTestDatabase(t)
  const { uid: instanceUid } = await getInstance(db)
  const key = await makeAuditKey(t)
  const folder = await makeFolder(t)
  const files = new CheckpointFiles(folder)
  await files.prepare(instanceUid)
  return { url, folder, source: { db, instanceUid, key, files } }
}

const read = (folder: string, name = 'checkpoint.jsonl') => readFile(path.join(folder, name), 'utf8')
const counterOf = (text: string) => Number(/"counter":(\d+)/.exec(text)![1])

t.test('a checkpoint has the ends of all streams, is signed, and follows the one before', async (t) => {
  const { folder, source } = await makeSource(t)
  const { db, key, instanceUid } = source
  await record(db, A, 'one', 'two')
  await record(db, B, 'one')
  await sealAll(db)
  const take = () => takeCheckpoint(source, { node: NODES[0], leastCounter: 0, intervalMs: 0 })
  const first = await take()
  const idle = await take()
  await record(db, B, 'two')
  await sealAll(db)
  const third = await take()
  t.match(first, {
    instance: instanceUid,
    counter: 1,
    previous: null,
    key: key.fingerprint,
    streams: 2,
    records: 3
  })
  t.match(idle, { counter: 2, root: first!.root })
  t.match(third, { counter: 3, records: 4 })
  t.not(third!.root, first!.root)
  t.equal(new Set([first, idle, third].map((checkpoint) => checkpoint!.previous)).size, 3)

  const keys = parsePublicKeys(key.publicKey)
  const lines = (await read(folder))
    .trimEnd()
    .split('\n')
    .map((line) => parseCheckpointLine(line)!)
  const ends = lines.flatMap((line) => ('end' in line ? [line.end] : []))
  t.strictSame(
    ends.map(({ stream, sequence }) => [stream, sequence]),
    [
      [A, 2],
      [B, 2]
    ]
  )
  const last = lines.at(-1)!
  t.ok('checkpoint' in last && isCheckpointSigned(keys, last.checkpoint))
  const root = new Root()
  for (const end of ends) root.add(end)
  t.equal(root.digest(), third!.root)
  t.throws(() => root.add(ends[0]!), /not in order/)

  const names = (await readdir(folder)).sort()
  t.equal(names.length, 2, 'no half-written file is left')
  const log = (await read(folder, names[1])).trimEnd().split('\n')
  t.equal(log.length, 3)
  for (const line of log)
    t.ok(line.length < 700, 'a line of the log is short, however many streams there are')
  for (const name of names) t.equal((await stat(path.join(folder, name))).mode & 0o777, 0o600)
})

t.test('a counter is given once, whoever asks at the same time, and only when it is due', async (t) => {
  const { source } = await makeSource(t)
  const ask = (node: string, intervalMs: number) =>
    takeCheckpoint(source, { node, leastCounter: 0, intervalMs })
  const nodes = Array.from({ length: 12 }, () => randomUUID())
  const many = await Promise.all(nodes.map((node) => ask(node, 0)))
  t.strictSame(
    many.flatMap((checkpoint) => (checkpoint ? [checkpoint.counter] : [])),
    [1],
    'one of them takes it'
  )
  const holder = (await sql<{ node_uid: string }>`select node_uid from audit_checkpoint`.execute(source.db))
    .rows[0]!.node_uid
  const other = nodes.find((node) => node !== holder)!
  t.equal(await ask(holder, 60_000), undefined, 'not yet')
  t.equal(await ask(other, 0), undefined, "it is the other server's turn")
  await sql`update audit_checkpoint set taken_at = taken_at - interval '91 seconds'`.execute(source.db)
  t.equal((await ask(other, 60_000))?.counter, 2, 'which is gone')
  t.equal(await ask(holder, 60_000), undefined)
})

t.test('the counter does not go back, neither after a restart nor with an older database', async (t) => {
  const { folder, source } = await makeSource(t)
  const { db, instanceUid } = source
  const failed: string[] = []
  const events = { onTaken: () => {}, onFailure: () => failed.push('failed') }
  const run = async () => {
    const checkpointer = new Checkpointer(
      { ...source, files: new CheckpointFiles(folder) },
      events,
      createLogger('silent')
    )
    await checkpointer.start()
    await checkpointer.stop()
    return counterOf(await read(folder))
  }
  const counters = [await run(), await run()]
  await sql`update audit_checkpoint set counter = 1, hash = null`.execute(db)
  counters.push(await run(), await run())
  t.strictSame(counters, [1, 2, 4, 5], 'one is left out where the statement before is unknown')
  t.strictSame(failed, [])
  t.equal(await new CheckpointFiles(folder).prepare(instanceUid), 5)

  t.equal(await new CheckpointFiles(folder).prepare(NODES[0]), 5 - 5, 'of another instance it says nothing')
  t.ok((await readdir(folder)).includes(`checkpoint-of-${instanceUid}.jsonl`), 'which keeps its own')
})

t.test('old logs are removed, and nothing else is', async (t) => {
  const { folder, source } = await makeSource(t)
  const old = Array.from({ length: 15 }, (_, index) => `checkpoints-20${10 + index}-01.jsonl`)
  for (const name of [...old, 'notes.txt', 'checkpoints.jsonl']) await writeFile(path.join(folder, name), '')
  await takeCheckpoint(source, { node: NODES[0], leastCounter: 0, intervalMs: 0 })
  const left = await readdir(folder)
  t.strictSame(left.filter((name) => old.includes(name)).sort(), old.slice(3), 'thirteen with the new one')
  t.ok(left.includes('notes.txt') && left.includes('checkpoints.jsonl'))
})

t.test('what cannot be written changes nothing, and the next one is written', async (t) => {
  const { folder, source } = await makeSource(t)
  const take = () => takeCheckpoint(source, { node: NODES[0], leastCounter: 0, intervalMs: 0 })
  await take()
  const before = await read(folder)
  await mkdir(path.join(folder, `.checkpoint.jsonl.${NODES[0]}`))
  await t.rejects(take(), { code: 'EISDIR' })
  t.equal(await read(folder), before)
  const { rows } = await sql<{ counter: number }>`select counter from audit_checkpoint`.execute(source.db)
  t.strictSame(rows, [{ counter: 1 }], 'the counter was not used')
})

t.test('the key file: made once, private, and nothing but an Ed25519 key', async (t) => {
  const folder = await makeFolder(t)
  const file = path.join(folder, 'keys', 'audit-key')
  t.equal(await readAuditKey(file), undefined)
  const made = await createAuditKey(file)
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.match(await readAuditKey(file), { fingerprint: made.fingerprint, publicKey: made.publicKey })
  t.match(made.fingerprint, /^[0-9a-f]{32}$/)
  t.strictSame([...parsePublicKeys(made.publicKey).keys()], [made.fingerprint])
  t.notMatch(made.publicKey, 'PRIVATE')
  await t.rejects(createAuditKey(file), /cannot be made \(EEXIST\)/, 'one that is there is never replaced')

  await chmod(file, 0o640)
  await t.rejects(readAuditKey(file), /can be read by others \(mode 640\)\. Run: chmod 600/)
  for (const [name, content] of Object.entries({
    empty: '',
    rsa: '-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBg\n-----END PRIVATE KEY-----\n',
    long: 'x'.repeat(5000),
    public: made.publicKey
  })) {
    const bad = path.join(folder, name)
    await writeFile(bad, content, { mode: 0o600 })
    await t.rejects(readAuditKey(bad), /does not hold an Ed25519 private key in PEM/, name)
  }
  await t.rejects(readAuditKey(folder), /does not hold an Ed25519 private key/)
  for (const text of ['', 'x', made.publicKey.replace('MCow', 'AAAA')]) t.equal(parsePublicKeys(text).size, 0)
})

t.test('a server makes its key once, records that, and says when another one signs', async (t) => {
  const { db } = await createTestDatabase(t)
  const dataDir = await makeFolder(t)
  const log: string[] = []
  const logger = createLogger('trace', { write: (line: string) => void log.push(line) })
  const measures = { auditSealed() {}, auditJobFailed() {}, auditDelay() {}, auditCheckpointTaken() {} }
  const settings: AuditSettings = {
    dataDir,
    auditKeyFile: undefined,
    auditCheckpoints: undefined,
    auditRetentionDays: undefined
  }
  const run = async (more: Partial<AuditSettings> = {}) =>
    await (await startAudit(db, { ...settings, ...more }, measures, logger)).stop()
  await run()
  await run()
  const made = await db.selectFrom('audit_events').select(['action', 'name', 'actor_kind']).execute()
  const { fingerprint } = (await readAuditKey(path.join(dataDir, 'keys', 'audit-key')))!
  t.strictSame(made, [{ action: 'audit_key.create', name: fingerprint, actor_kind: 'system' }])
  t.equal(counterOf(await read(path.join(dataDir, 'audit'))), 2)

  const missing = path.join(dataDir, 'elsewhere')
  await t.rejects(
    run({ auditKeyFile: missing }),
    new RegExp(`names no file.*signed with the key ${fingerprint}.*openssl`)
  )
  t.notMatch(log.join(''), 'another key')
  await createAuditKey(missing)
  await run({ auditKeyFile: missing })
  t.match(log.join(''), /signed with another key than the last one/)
  await writeFile(path.join(dataDir, 'file'), '')
  await t.rejects(
    startAudit(db, { ...settings, auditCheckpoints: path.join(dataDir, 'file', 'audit') }, measures, logger),
    /cannot be written to .* \(ENOTDIR\)\. Set COFFER_AUDIT_CHECKPOINTS/
  )
})
