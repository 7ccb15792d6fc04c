import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chmod, chown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { attachEmbedded, serveEmbedded } from '../../../src/store/embedded/embedded-postgres.ts'
import { isAlive, isRoot, makeOptions, query, readPid, startHolder, until } from './helper.ts'

// One folder for all that do not need a new one: making a database takes most of the time here.
const shared = await makeOptions(t)

t.test('PostgreSQL comes back after it was killed, our own and one taken over', async (t) => {
  const options = shared
  const holder = startHolder(t, 'serve', options)
  await query(await holder.answer(), 'CREATE TABLE kept (value int)')
  await holder.kill()
  const server = await serveEmbedded(options)
  for (const value of [1, 2]) {
    await query(server, 'INSERT INTO kept VALUES ($1)', [value])
    const pid = await readPid(server.folder)
    const since = performance.now()
    process.kill(pid, 'SIGKILL')
    await until(() => query(server, 'SELECT 1'))
    t.comment(`back after ${Math.round(performance.now() - since)} ms`)
    t.not(await readPid(server.folder), pid)
    await until(async () => (await holders(server)).includes(`coffer ${process.pid}`))
    await t.rejects(serveEmbedded(options), { name: 'DatabaseInUse' })
  }
  t.strictSame(await query(server, 'SELECT value FROM kept ORDER BY 1'), [{ value: 1 }, { value: 2 }])

  const backend = await query(server, "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^coffer '")
  process.kill(backend[0]!.pid as number, 'SIGKILL')
  await until(async () => (await holders(server)).includes(`coffer ${process.pid}`))
  await server.close()
})

t.test('close in the middle of a recovery leaves no PostgreSQL behind', async (t) => {
  const options = shared
  for (const pause of [0, 5, 30, 60]) {
    const server = await serveEmbedded(options)
    process.kill(await readPid(server.folder), 'SIGKILL')
    await new Promise((resolve) => setTimeout(resolve, pause))
    await server.close()
    const pid = await readPid(server.folder).catch(() => undefined)
    t.notOk(pid && isAlive(pid), `closed after ${pause} ms`)
  }
})

t.test('an initialisation that was killed', async (t) => {
  const options = await makeOptions(t)
  const holder = startHolder(t, 'serve', options)
  const staging = (await until(async () =>
    (await readdir(options.dataDir)).find((name) => name.startsWith('pg.new-'))
  ))!
  await until(() => access(join(options.dataDir, staging, 'data', 'global')).then(() => true))
  await holder.kill()
  t.ok((await readdir(options.dataDir)).includes(staging))
  const server = await serveEmbedded(options)
  t.strictSame(await query(server, 'SELECT 1 AS one'), [{ one: 1 }])
  t.notOk((await readdir(options.dataDir)).includes(staging), 'what it left is removed')
  await server.close()
})

t.test('a stale postmaster.pid whose pid is another process now', async (t) => {
  const options = shared
  const first = await serveEmbedded(options)
  await first.close()
  const { uid, gid } = await stat(first.folder)
  const stranger = spawn('sleep', ['60'], isRoot ? { uid, gid } : {})
  t.teardown(() => stranger.kill())
  const file = join(first.folder, 'postmaster.pid')
  const lines = [stranger.pid, first.folder, 1, 5432, first.connection.host, '', '1 1', 'ready   ', '']
  const socketLock = join(first.connection.host, '.s.PGSQL.5432.lock')
  for (const path of [file, socketLock]) {
    await writeFile(path, lines.join('\n'), { mode: 0o600 })
    if (isRoot) await chown(path, uid, gid)
  }
  const server = await serveEmbedded(options)
  t.not(await readPid(server.folder), stranger.pid)
  await server.close()
  t.ok(isAlive(stranger.pid!), 'and that process is left alone')
  stranger.kill()
  await once(stranger, 'exit')
})

t.test('a PostgreSQL that does not know our password is left alone', async (t) => {
  const options = shared
  const server = await serveEmbedded(options)
  await query(server, "ALTER ROLE coffer PASSWORD 'another'")
  const pid = await readPid(server.folder)
  await t.rejects(serveEmbedded(options), { name: 'RefusedToStart', message: /does not accept the password/ })
  await t.rejects(attachEmbedded(options), { name: 'RefusedToStart' })
  t.ok(isAlive(pid))
  const { service } = JSON.parse(await readFile(join(options.dataDir, 'keys', 'postgres.json'), 'utf8'))
  const right = { connection: { ...server.connection, password: 'another' } }
  await query(right, `ALTER ROLE coffer PASSWORD '${service}'`)
  await server.close()
  t.notOk(isAlive(pid))
})

t.test('what cannot start says why', async (t) => {
  const options = shared
  const first = await serveEmbedded(options)
  await first.close()
  const refused = (message: RegExp) =>
    t.rejects(serveEmbedded(options), { name: 'RefusedToStart', code: 'refused_to_start', message })

  const configuration = join(first.folder, 'postgresql.conf')
  const text = await readFile(configuration, 'utf8')
  await writeFile(configuration, `${text}\nmax_connections = many\n`)
  await refused(/max_connections/)
  await writeFile(configuration, text)

  const control = join(first.folder, 'global', 'pg_control')
  await rename(control, `${control}.away`)
  await refused(/control/)
  await rename(`${control}.away`, control)

  const version = join(first.folder, 'PG_VERSION')
  await writeFile(version, '17\n')
  await refused(/was made by PostgreSQL 17/)
  await writeFile(version, '18\n')

  const passwords = join(options.dataDir, 'keys', 'postgres.json')
  const kept = await readFile(passwords, 'utf8')
  await chmod(passwords, 0o644)
  await refused(/can be read by other users/)
  await chmod(passwords, 0o600)
  await writeFile(passwords, kept.slice(0, 50))
  await refused(/is damaged/)
  await rm(passwords)
  await refused(/is missing/)
  await writeFile(passwords, kept, { mode: 0o600 })
  await (await serveEmbedded(options)).close()

  const packageDir = join(options.systemDir, 'package')
  await mkdir(join(packageDir, 'native', 'bin'), { recursive: true })
  await writeFile(join(packageDir, 'package.json'), '{"version":"18.0.0"}')
  for (const name of ['initdb', 'postgres']) {
    await writeFile(join(packageDir, 'native', 'bin', name), '#!/nowhere\n', { mode: 0o755 })
  }
  await t.rejects(serveEmbedded({ ...options, packageDir }), { message: /does not run on this system/ })
})

function holders(server: Parameters<typeof query>[0]): Promise<unknown[]> {
  const sql = `SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
               WHERE locktype = 'advisory' AND granted AND objid = 1`
  return query(server, sql).then((rows) => rows.map((row) => row.application_name))
}
