import pg from 'pg'
import t from 'tap'
import type { RefusedToStart } from '../../../src/errors.ts'
import { attachEmbedded, holdEmbedded, serveEmbedded } from '../../../src/store/embedded/embedded-postgres.ts'
import { isAlive, makeOptions, query, readPid, startHolder, until } from './helper.ts'

// One folder for all that do not need a new one: making a database takes most of the time here.
const shared = await makeOptions(t)

t.test('one server at a time, commands beside it', async (t) => {
  const options = shared
  const server = await serveEmbedded(options)
  const pid = await readPid(server.folder)

  const inUse = { name: 'DatabaseInUse', message: new RegExp(`process ${process.pid}`) }
  await t.rejects(serveEmbedded(options), inUse)
  await t.rejects(holdEmbedded(options), inUse)

  const command = await attachEmbedded(options)
  t.strictSame(await query(command, 'SELECT current_user AS name'), [{ name: 'coffer' }])
  await command.close()
  t.equal(await readPid(server.folder), pid, 'a command leaves the PostgreSQL of a server alone')

  await server.close()
  t.notOk(isAlive(pid))
  const offline = await holdEmbedded(options)
  await t.rejects(serveEmbedded(options), { name: 'DatabaseInUse' })
  await offline.close()
})

t.test('commands alone: the last one stops PostgreSQL, unless a server has come', async (t) => {
  const options = shared
  const [first, second] = await Promise.all([attachEmbedded(options), attachEmbedded(options)])
  const pid = await readPid(first.folder)
  await first.close()
  t.strictSame(await query(second, 'SELECT 1 AS one'), [{ one: 1 }])
  await second.close()
  t.notOk(isAlive(pid))

  const third = await attachEmbedded(options)
  const server = await serveEmbedded(options)
  await third.close()
  t.strictSame(await query(server, 'SELECT 1 AS one'), [{ one: 1 }])
  await server.close()

  const both = await Promise.all([attachEmbedded(options), attachEmbedded(options)])
  const last = await readPid(both[0].folder)
  await Promise.all(both.map((command) => command.close()))
  t.notOk(isAlive(last), 'also when both end at the same moment')
})

t.test('the PostgreSQL of a killed server is taken over', async (t) => {
  const options = shared
  const holder = startHolder(t, 'serve', options)
  const database = await holder.answer()
  const pid = await readPid(database.folder)
  await query(database, 'CREATE TABLE kept AS SELECT 1 AS one')
  await holder.kill()
  t.ok(isAlive(pid), 'neither the death of node nor a signal to its group reaches it')
  const server = await serveEmbedded(options)
  t.equal(await readPid(server.folder), pid)
  t.strictSame(await query(server, 'SELECT one FROM kept'), [{ one: 1 }])
  await server.close()
  t.notOk(isAlive(pid))
})

t.test('of servers that start at once, on a new and on a stopped folder, one wins', async (t) => {
  const options = await makeOptions(t)
  for (const when of ['new', 'stopped']) {
    const holders = [1, 2].map(() => startHolder(t, 'serve', options))
    const answers = await Promise.all(holders.map((holder) => holder.answer()))
    const refusals = answers.filter(({ refused }) => refused)
    t.equal(refusals.length, 1, when)
    const winner = holders[answers.findIndex(({ refused }) => !refused)]!
    for (const { refused } of refusals)
      t.match(refused, new RegExp(`Another Coffer \\(process ${winner.pid}`))
    t.strictSame(await Promise.all(holders.map((holder) => holder.close())), [0, 0])
  }
})

t.test('a server that loses the database to somebody else is told', async (t) => {
  const options = shared
  let lost: (error: RefusedToStart) => void
  const losing = new Promise<RefusedToStart>((resolve) => {
    lost = resolve
  })
  const server = await serveEmbedded({ ...options, onLost: (error) => lost(error) })
  const other = new pg.Client({ ...server.connection, ssl: false, application_name: 'coffer 4711' })
  other.on('error', () => {})
  await other.connect()
  const waiting = other.query('SELECT pg_advisory_lock($1, 1)', [0x636f6666])
  await until(async () => (await query(server, 'SELECT FROM pg_locks WHERE NOT granted')).length === 1)
  await query(
    server,
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = 1"
  )
  await waiting
  t.match(await losing, { name: 'DatabaseInUse', message: /process 4711/ })
  await server.close()
  t.strictSame((await other.query('SELECT 1 AS one')).rows, [{ one: 1 }], 'and stops nothing')
  await other.end()
  await (await holdEmbedded(options)).close()
})
