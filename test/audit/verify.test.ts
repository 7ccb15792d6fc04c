import { readFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { append, genesis, type Head } from '../../src/audit/chain.ts'
import { CheckpointFiles } from '../../src/audit/checkpoint-files.ts'
import { takeCheckpoint } from '../../src/audit/checkpointer.ts'
import type { AuditKey } from '../../src/audit/key.ts'
import { type Finding, NotAnExport } from '../../src/audit/verify.ts'
import { auditRow } from '../../src/store/audit.ts'
import { getInstance } from '../../src/store/instance.ts'
import { createTestDatabase, SYSTEM } from '../helper.ts'
import {
  exportAfter,
  exportText,
  listChain,
  makeAuditKey,
  makeFolder,
  record,
  STREAMS,
  sealAll,
  verify
} from './helper.ts'

const [A, B, C] = STREAMS
const NODE = '99999999-9999-4999-8999-999999999999'

async function world(t: Test) {
  const { db } = await createTestDatabase(t)
  const { uid: instanceUid } = await getInstance(db)
  const key = await makeAuditKey(t)
  const folder = await makeFolder(t)
  const files = new CheckpointFiles(folder)
  await files.prepare(instanceUid)
  /** the text of a new checkpoint */
  const checkpoint = async (signer: AuditKey = key) => {
    const source = { db, instanceUid, key: signer, files }
    await takeCheckpoint(source, { node: NODE, leastCounter: 0, intervalMs: 0 })
    return await readFile(path.join(folder, 'checkpoint.jsonl'), 'utf8')
  }
  await record(db, A, 'a1', 'a2', 'a3', 'a4', 'a5')
  await record(db, B, 'b1', 'b2', 'b3')
  await record(db, C, 'c1')
  await sealAll(db)
  const chain = await listChain(db)
  const id = (stream: string, sequence: number) =>
    chain.find((row) => row.stream_uid === stream && row.sequence === sequence)!.event_id
  return { db, instanceUid, key, folder, checkpoint, id }
}

/** What somebody runs who edits a record and then computes the chain anew, perfectly. */
async function rebuilt(
  { db, instanceUid }: { db: Parameters<typeof listChain>[0]; instanceUid: string },
  stream: string
) {
  const { canonical } = auditRow({
    streamUid: stream,
    principal: SYSTEM,
    action: 'test.event',
    name: 'harmless'
  })
  const columns = JSON.parse(canonical.toString())
  const rows = await db
    .selectFrom('audit_events')
    .selectAll()
    .where('stream_uid', '=', stream)
    .orderBy('id')
    .execute()
  const statements: string[] = []
  let head: Head = { sequence: 0, hash: genesis(instanceUid, stream) }
  for (const [index, row] of rows.entries()) {
    const bytes = index === 1 ? canonical : row.canonical
    head = append(head, bytes)
    const at = columns.at(-1)
    if (index === 1) {
      statements.push(
        `update audit_events set name = 'harmless', occurred_at = '${at}',
           canonical = '\\x${bytes.toString('hex')}' where id = ${row.id}`
      )
    }
    statements.push(
      `update audit_chain set hash = '\\x${head.hash.toString('hex')}' where event_id = ${row.id}`
    )
  }
  statements.push(
    `update audit_streams set hash = '\\x${head.hash.toString('hex')}' where stream_uid = '${stream}'`
  )
  return statements
}

t.test('what nobody touched fits, with and without a checkpoint', async (t) => {
  const { db, key, checkpoint } = await world(t)
  const kept = await checkpoint()
  await record(db, A, 'a6')
  await sealAll(db)
  const text = await exportText(db)
  const alone = await verify(text)
  t.match(alone, { findings: [], found: 0, records: 10, streams: 3, unsealed: 0, needsKey: false })
  t.match(alone.notes, [/^Without a checkpoint it cannot be seen whether the tail/])
  const against = await verify(text, { checkpoints: [kept], keys: [key] })
  t.match(against, { findings: [], found: 0 })
  t.match(against.notes, [/^Checkpoint 1 of .* covers 9 records\. What was cut behind it cannot be seen/])
})

t.test('every change is found, and the first record that does not fit is named', async (t) => {
  const { db, key, checkpoint, id } = await world(t)
  const kept = await checkpoint()
  const at = (stream: string, sequence: number) => `stream_uid = '${stream}' and sequence = ${sequence}`
  const remove = (stream: string, sequence: number) => [
    `delete from audit_events where id = ${id(stream, sequence)}`,
    `delete from audit_chain where ${at(stream, sequence)}`
  ]
  const cases: [string, string[], Finding, reason: RegExp][] = [
    [
      'canonical bytes edited',
      [
        `update audit_events set canonical = convert_to(replace(convert_from(canonical, 'UTF8'), 'a2', 'x2'), 'UTF8') where id = ${id(A, 2)}`
      ],
      { stream: A, sequence: 2, id: id(A, 2), reason: '' },
      /canonical bytes or its hash were altered/
    ],
    [
      'canonical bytes that are no text',
      [`update audit_events set canonical = '\\xff00' where id = ${id(A, 2)}`],
      { stream: A, sequence: 2, id: id(A, 2), reason: '' },
      /canonical bytes or its hash were altered/
    ],
    [
      'a column edited',
      [`update audit_events set name = 'other' where id = ${id(B, 3)}`],
      { stream: B, sequence: 3, id: id(B, 3), reason: '' },
      /the column name is not what was sealed/
    ],
    [
      'the time moved by a millisecond',
      [`update audit_events set occurred_at = occurred_at + interval '1 ms' where id = ${id(B, 1)}`],
      { stream: B, sequence: 1, id: id(B, 1), reason: '' },
      /the column occurred_at is not/
    ],
    [
      'the time moved by a microsecond',
      [`update audit_events set occurred_at = occurred_at + interval '1 microsecond' where id = ${id(B, 1)}`],
      { stream: B, sequence: 1, id: id(B, 1), reason: '' },
      /the column occurred_at is not/
    ],
    [
      'moved to another stream',
      [`update audit_events set stream_uid = '${B}' where id = ${id(A, 4)}`],
      { stream: A, sequence: 4, id: id(A, 4), reason: '' },
      /the column stream_uid is not/
    ],
    [
      'a hash edited',
      [`update audit_chain set hash = sha256('x') where ${at(A, 3)}`],
      { stream: A, sequence: 3, id: id(A, 3), reason: '' },
      /its hash were altered/
    ],
    [
      'removed in the middle',
      remove(A, 3),
      { stream: A, sequence: 4, id: id(A, 4), reason: '' },
      /sequence 3 is missing before it/
    ],
    [
      'the record removed, its place left',
      [`delete from audit_events where id = ${id(A, 3)}`],
      { stream: A, sequence: 3, id: id(A, 3), reason: '' },
      /the record itself is gone/
    ],
    [
      'removed in the middle, and the rest moved up',
      [
        ...remove(A, 3),
        `update audit_chain set sequence = sequence - 1 where stream_uid = '${A}' and sequence > 3`
      ],
      { stream: A, sequence: 3, id: id(A, 4), reason: '' },
      /canonical bytes or its hash were altered/
    ],
    [
      'removed at the beginning',
      [...remove(A, 1), ...remove(A, 2)],
      { stream: A, sequence: 3, id: id(A, 3), reason: '' },
      /sequence 1 to 2 are missing before it at the beginning, without a signed word/
    ],
    [
      'the tail cut',
      [...remove(A, 5), ...remove(A, 4)],
      { stream: A, sequence: 4, reason: '' },
      /it is missing: the recorded end of the stream is sequence 5/
    ],
    [
      'two records exchanged',
      [
        `update audit_chain set event_id = -1 where ${at(A, 2)}`,
        `update audit_chain set event_id = ${id(A, 2)} where ${at(A, 4)}`,
        `update audit_chain set event_id = ${id(A, 4)} where ${at(A, 2)}`
      ],
      { stream: A, sequence: 2, id: id(A, 4), reason: '' },
      /exchanged for another/
    ],
    [
      'two places exchanged',
      [
        `update audit_chain set sequence = 99 where ${at(A, 2)}`,
        `update audit_chain set sequence = 2 where ${at(A, 3)}`,
        `update audit_chain set sequence = 3 where ${at(A, 99)}`
      ],
      { stream: A, sequence: 2, id: id(A, 3), reason: '' },
      /its hash were altered/
    ],
    [
      'a record put behind the sealer, with the transaction of another',
      [
        `insert into audit_events (transaction_id, stream_uid, actor_kind, action, outcome, occurred_at, canonical)
           select transaction_id, stream_uid, actor_kind, action, outcome, occurred_at, canonical
           from audit_events where id = ${id(A, 1)}`
      ],
      { stream: A, id: 0, reason: '' },
      /it is in no chain/
    ],
    [
      'a record put into the chain',
      [
        `insert into audit_events (stream_uid, actor_kind, action, outcome, occurred_at, canonical)
           select stream_uid, actor_kind, action, outcome, occurred_at, canonical from audit_events where id = ${id(A, 1)}`,
        `update audit_chain set sequence = 6 where ${at(A, 5)}`,
        `insert into audit_chain select max(id), '${A}', 5, sha256('x') from audit_events`
      ],
      { stream: A, sequence: 5, id: 0, reason: '' },
      /canonical bytes or its hash were altered/
    ]
  ]
  for (const [name, statements, expected, reason] of cases) {
    const verification = await verify(await exportAfter(db, ...statements))
    const [first] = verification.findings
    const { reason: _, ...where } = expected
    if (where.id === 0) where.id = first?.id as number
    t.match(first, where, name)
    t.match(first?.reason, reason, name)
    t.ok((await verify(await exportAfter(db, ...statements), { checkpoints: [kept], keys: [key] })).found > 0)
  }
  t.equal((await verify(await exportText(db))).found, 0, 'and nothing was changed by all that')
})

t.test('what only a checkpoint shows', async (t) => {
  const { db, key, checkpoint, id, ...rest } = await world(t)
  const kept = await checkpoint()
  const cut = [
    `delete from audit_events where id in (${id(A, 4)}, ${id(A, 5)})`,
    `delete from audit_chain where stream_uid = '${A}' and sequence > 3`,
    `update audit_streams set sequence = 3, hash = (select hash from audit_chain where stream_uid = '${A}' and sequence = 3)
       where stream_uid = '${A}'`
  ]
  const gone = [
    `delete from audit_events where stream_uid = '${B}'`,
    `delete from audit_chain where stream_uid = '${B}'`,
    `delete from audit_streams where stream_uid = '${B}'`
  ]
  const anew = await rebuilt({ db, ...rest }, A)
  const cases: [string, string[], Partial<Finding>, RegExp][] = [
    [
      'the tail cut, and its end with it',
      cut,
      { stream: A, sequence: 4 },
      /missing, and all after it: checkpoint 1 has 5 records/
    ],
    [
      'a whole stream removed',
      gone,
      { stream: B, sequence: 1 },
      /the whole stream is missing: checkpoint 1 has 3 records/
    ],
    [
      'edited, and the chain computed anew',
      anew,
      { stream: A, sequence: 5, id: id(A, 5) },
      /checkpoint 1 has another hash here/
    ]
  ]
  for (const [name, statements, where, reason] of cases) {
    const text = await exportAfter(db, ...statements)
    const alone = await verify(text)
    t.equal(alone.found, 0, `${name}: not to be seen without one`)
    t.match(alone.notes, [/^Without a checkpoint it cannot be seen/])
    const against = await verify(text, { checkpoints: [kept], keys: [key] })
    t.match(against.findings[0], where, name)
    t.match(against.findings[0]?.reason, reason, name)
    t.equal(against.found, 1, name)
  }
})

t.test('an export that was edited itself', async (t) => {
  const { db } = await world(t)
  const lines = (await exportText(db)).trimEnd().split('\n')
  const cases: [string, (string | undefined)[], RegExp][] = [
    ['without its last line', lines.slice(0, -1), /ends without its last line/],
    ['without a record', lines.toSpliced(3, 1), /missing before it/],
    [
      'without a stream',
      lines.filter((line) => !line.includes(`"stream":"${B}"`)),
      /says that it has 9 records in 3 streams/
    ],
    [
      'without the end of a stream',
      lines.filter((line) => !/"end":\{"sequence":3/.test(line)),
      /its recorded end is missing/
    ],
    ['a line twice', lines.toSpliced(3, 0, lines[2]!), /out of order, or there twice/],
    ['two lines exchanged', [lines[0], lines[1], lines[3], lines[2], ...lines.slice(4)], /missing before it/],
    [
      'a stream in two parts',
      [...lines.slice(0, 3), ...lines.slice(7, 11), ...lines.slice(3, 7), ...lines.slice(11)],
      /its recorded end is missing/
    ],
    ['something behind the end', [...lines, lines[1]], /comes behind the end/],
    ['no JSON', lines.toSpliced(2, 1, '{'), /line 3 is none of an export/],
    ['another kind of JSON', lines.toSpliced(2, 1, '[1]'), /line 3 is none of an export/],
    [
      'another instance',
      [lines[0]!.replace(/"instance":"[^"]+"/, `"instance":"${NODE}"`), ...lines.slice(1)],
      /canonical bytes or its hash/
    ]
  ]
  for (const [name, altered, reason] of cases) {
    const { findings } = await verify(`${altered.join('\n')}\n`)
    t.match(findings[0]?.reason, reason, name)
  }
  for (const other of ['', 'x\n', '{}\n', '{"coffer_audit_export":1}\n', lines.slice(1).join('\n')]) {
    t.ok(
      (await verify(other).catch((error) => error)) instanceof NotAnExport,
      JSON.stringify(other.slice(0, 20))
    )
  }
})

t.test('checkpoints that are not genuine, and older ones', async (t) => {
  const { db, key, folder, checkpoint } = await world(t)
  const first = await checkpoint()
  await record(db, C, 'c2')
  await sealAll(db)
  const second = await checkpoint()
  const third = await checkpoint()
  const text = await exportText(db)
  const reasonOf = async (checkpoints: string[], keys = [key]) =>
    (await verify(text, { checkpoints, keys })).findings[0]?.reason ?? 'nothing'

  t.equal(await reasonOf([first, second, third]), 'nothing')
  t.equal(await reasonOf([third, first]), 'nothing', 'in any order')
  const other = await makeAuditKey(t)
  const forged = await checkpoint(other)
  t.match(await reasonOf([forged]), /checkpoint 4 names the key .*, and the given public keys are/)
  t.match(
    await reasonOf([forged.replace(other.fingerprint, key.fingerprint)]),
    /is not signed by the key that it names/
  )
  t.match(await reasonOf([third.replace('"counter":3', '"counter":4')]), /not signed/)
  t.match(await reasonOf([third.replace(/"created_at":"\d/, '"created_at":"3')]), /not signed/)
  t.match(
    await reasonOf([third.replace('"sequence":5', '"sequence":4')]),
    /other ends of streams than were signed/
  )
  t.match(await reasonOf([third.split('\n').slice(1).join('\n')]), /other ends of streams than were signed/)
  const [a, b, ...rest] = third.split('\n')
  t.match(await reasonOf([[b, a, ...rest].join('\n')]), /other ends of streams than were signed/)
  t.match(await reasonOf(['']), /it holds no checkpoint/)
  t.match(await reasonOf(['{"a":1}\n']), /line 1 is none of a checkpoint/)
  t.match(await reasonOf([third], []), /the given public keys are none/)

  const log = await readFile(
    path.join(folder, `checkpoints-${new Date().toISOString().slice(0, 7)}.jsonl`),
    'utf8'
  )
  const lines = log.trimEnd().split('\n').slice(0, 3)
  const replayed = await verify(text, { checkpoints: [first, `${lines.join('\n')}\n`], keys: [key] })
  t.equal(replayed.found, 0)
  t.match(replayed.notes[0], /^Checkpoint 1 of .* covers 9 records; the newest that is known of is \d/)
  t.match(await reasonOf([[lines[1], lines[0]].join('\n')]), /checkpoint 1 does not follow the one before it/)
  const unlinked = lines[2]!.replace(/"previous":"../, '"previous":"00')
  t.match(await reasonOf([[lines[0], lines[1], unlinked].join('\n')]), /not signed/)

  const old = text.replace(/"created_at":"\d{4}/, '"created_at":"2999')
  t.match(
    (await verify(old, { checkpoints: [first], keys: [key] })).notes.at(-1),
    /more than a day older than the export: it may be replayed/
  )
})

t.test('a database that was replaced by an older state of itself', async (t) => {
  const { db, key, checkpoint } = await world(t)
  await checkpoint()
  const before = await exportText(db)
  await record(db, B, 'b4')
  await sealAll(db)
  const kept = await checkpoint()
  const older = before.replace(
    /"created_at":"[^"]+"/,
    `"created_at":"${new Date(Date.now() + 1000).toISOString()}"`
  )
  const found = await verify(older, { checkpoints: [kept], keys: [key] })
  t.match(found.findings, [{ stream: B, sequence: 4, reason: /checkpoint 2 has 4 records of this stream$/ }])
  t.match(found.notes.at(-1), /checkpoints up to 1 only.*replaced by an older state/)
  const honest = await verify(before, { checkpoints: [kept], keys: [key] })
  t.match(honest.findings, [{ reason: /\(or the export is older than the checkpoint: take another one\)$/ }])
})

t.test('records of the first form go on to be verified', async (t) => {
  const { db } = await createTestDatabase(t)
  const { canonical, actor_login, repository_uid, address, occurrences, ...row } = auditRow({
    streamUid: A,
    principal: { ...SYSTEM, login: 'mona' },
    action: 'test.event',
    name: 'old'
  })
  const members = JSON.parse(canonical.toString())
  const v1 = JSON.stringify([
    'coffer/audit/v1',
    ...members.slice(1, 4),
    ...members.slice(5, 14),
    ...members.slice(17)
  ])
  await db
    .insertInto('audit_events')
    .values({ ...row, canonical: Buffer.from(v1) } as never)
    .execute()
  await record(db, A, 'new')
  await sealAll(db)
  t.equal((await verify(await exportText(db))).found, 0)
  const claimed = await exportAfter(db, `update audit_events set actor_login = 'hubot' where name = 'old'`)
  t.match((await verify(claimed)).findings, [
    { sequence: 1, reason: 'the column actor_login is not what was sealed' }
  ])
})
