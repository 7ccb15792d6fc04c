import { createHash } from 'node:crypto'
import t from 'tap'
import { append, genesis, hashParts, link } from '../../src/audit/chain.ts'
import { differingColumn, parseCanonical } from '../../src/audit/record.ts'
import { auditRow } from '../../src/store/audit.ts'
import { SYSTEM } from '../helper.ts'

const INSTANCE = '00000000-0000-4000-8000-000000000001'
const STREAM = '00000000-0000-4000-8000-000000000002'

function lengths(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat(
    parts.flatMap((part) => {
      const bytes = Buffer.from(part as string)
      return [Buffer.from([0, 0, bytes.length >> 8, bytes.length & 255]), bytes]
    })
  )
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

t.test('a chain is what its description says, by an independent computation', async (t) => {
  const start = genesis(INSTANCE, STREAM)
  t.equal(start.toString('hex'), sha256(lengths('coffer/audit/genesis/v1', INSTANCE, STREAM)))
  const canonical = Buffer.from('["coffer/audit/v2"]')
  const first = append({ sequence: 0, hash: start }, canonical)
  t.equal(first.sequence, 1)
  t.equal(first.hash.toString('hex'), sha256(lengths('coffer/audit/link/v1', start, '1', canonical)))
})

t.test('committed vectors, which never change', async (t) => {
  const start = genesis(INSTANCE, STREAM)
  t.equal(start.toString('hex'), '51fa337d7bce17f77db4b9b7b21931345b2221df36cbb813185a2f2f96829a7a')
  t.equal(
    link(start, 1, Buffer.from('a')).toString('hex'),
    'de65097f3bdcc85643e1613b2345c19df6ad366a5a293fef7a813c85f7c2fbec'
  )
})

t.test('every part counts, and where it ends', async (t) => {
  const start = genesis(INSTANCE, STREAM)
  const bytes = Buffer.from('record')
  const hashes = [
    genesis(STREAM, INSTANCE),
    genesis(INSTANCE, INSTANCE),
    start,
    link(start, 1, bytes),
    link(start, 2, bytes),
    link(genesis(INSTANCE, INSTANCE), 1, bytes),
    link(start, 1, Buffer.from('recorD')),
    hashParts(['ab', 'c']),
    hashParts(['a', 'bc']),
    hashParts(['abc'])
  ].map((hash) => hash.toString('hex'))
  t.equal(new Set(hashes).size, hashes.length)
})

t.test('canonical bytes are read back, in both forms, and told apart from their columns', async (t) => {
  const { canonical, ...row } = auditRow({
    streamUid: STREAM,
    principal: { ...SYSTEM, kind: 'user', uid: INSTANCE, login: 'mona', tokenId: 7 },
    action: 'secret.update',
    collection: `codespaces/repository/${STREAM}`,
    name: 'TOKEN',
    envelopeSha256: Buffer.alloc(32, 1),
    address: '::1',
    occurrences: 3
  })
  const columns = {
    ...row,
    envelope_sha256: '01'.repeat(32),
    occurred_at: row.occurred_at.toISOString()
  }
  const read = parseCanonical(canonical)!
  t.strictSame(read, columns as typeof read)
  t.equal(read.repository_uid, STREAM, 'of the collection')
  for (const column of Object.keys(columns) as (keyof typeof columns)[]) {
    t.equal(differingColumn({ ...columns, [column]: 'another' }, read), column)
  }

  const first = JSON.parse(canonical.toString())
  const v1 = ['coffer/audit/v1', ...first.slice(1, 4), ...first.slice(5, 14), ...first.slice(17)]
  const old = parseCanonical(Buffer.from(JSON.stringify(v1)))!
  t.strictSame(old, { ...read, actor_login: null, repository_uid: null, address: null, occurrences: null })
  t.equal(differingColumn(columns, old), 'actor_login', 'what the form does not hold must not be there')

  for (const bad of [
    '',
    '{}',
    '[]',
    '["coffer/audit/v3"]',
    JSON.stringify(v1.slice(0, -1)),
    '["constructor"]'
  ]) {
    t.equal(parseCanonical(Buffer.from(bad)), undefined, bad)
  }
  t.equal(parseCanonical(Buffer.from([0xff])), undefined)
})
