import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { RefusedToStart } from '../../../src/errors.ts'
import { serveEmbedded } from '../../../src/store/embedded/embedded-postgres.ts'
import { isAlive, isRoot, makeOptions, query, readPid, startHolder } from './helper.ts'

t.test('a database is made, keeps its rows, and is stopped', async (t) => {
  const options = await makeOptions(t, 'a data folder, with "quotes" and \'those\'')
  const coldSince = performance.now()
  const first = await serveEmbedded(options)
  t.comment(`cold start ${Math.round(performance.now() - coldSince)} ms`)
  const pid = await readPid(first.folder)
  await query(first, 'CREATE TABLE kept (value text)')
  await query(first, "INSERT INTO kept VALUES ('ü')")
  await first.close()
  await first.close()
  t.notOk(isAlive(pid), 'PostgreSQL is gone after close')

  const warmSince = performance.now()
  const second = await serveEmbedded(options)
  t.comment(`warm start ${Math.round(performance.now() - warmSince)} ms`)
  t.strictSame(await query(second, 'SELECT value, length(value) FROM kept'), [{ value: 'ü', length: 1 }])
  t.strictSame(second.connection, first.connection)
  t.equal(second.folder, join(options.dataDir, 'pg'))
  await second.close()
})

t.test('settings, roles, log, modes and owners', async (t) => {
  const options = await makeOptions(t)
  const database = await serveEmbedded(options)
  t.teardown(() => database.close())

  const [encoding] = await query(
    database,
    `SELECT pg_encoding_to_char(encoding) AS encoding, datlocprovider, datlocale, pg_get_userbyid(datdba) AS owner
     FROM pg_database WHERE datname = 'coffer'`
  )
  t.strictSame(encoding, { encoding: 'UTF8', datlocprovider: 'b', datlocale: 'C.UTF-8', owner: 'coffer' })
  const roles = await query(
    database,
    'SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user'
  )
  t.strictSame(Object.values(roles[0]!), [false, false, false, false, false])
  for (const [name, value] of Object.entries({
    fsync: 'on',
    synchronous_commit: 'on',
    data_checksums: 'on',
    listen_addresses: '',
    max_connections: '60',
    shared_buffers: '128MB',
    TimeZone: 'UTC',
    lc_messages: 'C',
    unix_socket_permissions: '0700',
    log_min_error_statement: 'panic'
  })) {
    t.equal((await query(database, 'SELECT current_setting($1)', [name]))[0]?.current_setting, value, name)
  }
  await t.rejects(query(database, "COPY (SELECT 1) TO PROGRAM 'true'"), { code: '42501' })
  await t.rejects(query({ connection: { ...database.connection, password: 'x' } }, 'SELECT 1'), {
    code: '28P01'
  })

  // Nothing of a statement reaches its log.
  await t.rejects(query(database, 'SELECT $1::uuid', ['a-secret-value']))
  await t.rejects(query(database, "SELECT 'a-secret-value'::int"))
  await t.rejects(query(database, 'a-secret-value'))
  const log = join(database.folder, 'log')
  const [file] = await readdir(log)
  const text = await readFile(join(log, file!), 'utf8')
  t.match(text, 'ready to accept connections')
  t.notMatch(text, 'a-secret-value')

  const ours = process.geteuid!()
  const mode = async (...path: string[]) => {
    const found = await stat(join(options.dataDir, ...path))
    return [(found.mode & 0o777).toString(8), found.uid === ours]
  }
  t.strictSame(await mode(), [isRoot ? '711' : '700', true])
  t.strictSame(await mode('keys'), ['700', true])
  t.strictSame(await mode('keys', 'postgres.json'), ['600', true])
  t.strictSame(await mode('pg'), ['700', !isRoot])
  t.strictSame(await mode('run'), ['700', !isRoot])
  t.equal(database.connection.host, join(options.dataDir, 'run'))
  t.strictSame(await readdir(join(options.dataDir, 'keys')), ['postgres.json'])
  t.notOk((await readdir(options.dataDir)).some((name) => name.startsWith('pg.new')))
})

t.test('a path that is too long for a socket', async (t) => {
  const options = await makeOptions(t, `${'long folder '.repeat(9)}end`)
  const database = await serveEmbedded(options)
  t.notOk(database.connection.host.startsWith(options.dataDir))
  t.equal((await stat(database.connection.host)).mode & 0o777, 0o700)
  t.strictSame(await query(database, 'SELECT 1 AS one'), [{ one: 1 }])
  await database.close()
  const again = await serveEmbedded(options)
  t.equal(again.connection.host, database.connection.host, 'the same place at every start')
  await again.close()
  await rm(again.connection.host, { recursive: true })
})

t.test('an environment without a locale, and with PG variables', async (t) => {
  const env = { PATH: process.env.PATH, PGSSLMODE: 'require', PGOPTIONS: '-c nonsense=1', PGUSER: 'nobody' }
  const holder = startHolder(t, 'serve', await makeOptions(t), { env })
  const database = await holder.answer()
  t.strictSame(await query(database, 'SHOW server_encoding'), [{ server_encoding: 'UTF8' }])
  t.equal(await holder.close(), 0, 'the process ends by itself after close()')
})

t.test('a folder that everybody can change, or a file in the way, is refused', async (t) => {
  const options = await makeOptions(t)
  await mkdir(join(options.dataDir, 'pg'), { recursive: true })
  await writeFile(join(options.dataDir, 'pg', 'thesis.txt'), 'mine')
  await chmod(options.dataDir, 0o777)
  await t.rejects(serveEmbedded(options), { message: /Every user can change/ })
  await chmod(options.dataDir, 0o755)
  await t.rejects(serveEmbedded(options), RefusedToStart)
  t.equal(await readFile(join(options.dataDir, 'pg', 'thesis.txt'), 'utf8'), 'mine')
})
