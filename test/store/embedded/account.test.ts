import {
  chmod,
  chown,
  copyFile,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate
} from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import t from 'tap'
import { serveEmbedded } from '../../../src/store/embedded/embedded-postgres.ts'
import { isRoot, makeOptions, packageDir, query, startHolder, until } from './helper.ts'

const nobody = 65534
const asRoot = isRoot ? {} : { skip: 'needs root' }

/** The package as npm unpacks it when it runs no scripts: without its symlinks. Linked, where that works. */
async function unpackWithoutLinks(target: string): Promise<string> {
  for (const entry of await readdir(packageDir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    const copy = join(target, relative(packageDir, path))
    await mkdir(dirname(copy), { recursive: true })
    await link(path, copy).catch(() => copyFile(path, copy))
  }
  return target
}

t.test('missing symlinks are made, also by several starts at once', async (t) => {
  const options = await makeOptions(t)
  const unpacked = await unpackWithoutLinks(join(dirname(options.dataDir), 'package'))
  const others = await Promise.all([makeOptions(t), makeOptions(t)])
  const servers = await Promise.all(others.map((other) => serveEmbedded({ ...other, packageDir: unpacked })))
  for (const server of servers) t.strictSame(await query(server, 'SELECT 1 AS one'), [{ one: 1 }])
  t.ok((await lstat(join(unpacked, 'native/lib/libpq.so.5'))).isSymbolicLink())
  await Promise.all(servers.map((server) => server.close()))
})

t.test("binaries and data where PostgreSQL's user cannot go", { ...asRoot }, async (t) => {
  const options = await makeOptions(t, 'private/data')
  const base = dirname(dirname(options.dataDir))
  const hidden = dirname(options.dataDir)
  await mkdir(hidden, { mode: 0o700 })
  const hiddenPackage = await unpackWithoutLinks(join(hidden, 'package'))
  const before = { ...options, packageDir: hiddenPackage, user: 'nobody' }

  const first = await serveEmbedded(before)
  t.ok(first.folder.startsWith(join(options.systemDir, 'databases')))
  t.equal((await stat(first.folder)).uid, nobody)
  t.equal((await stat(join(options.dataDir, 'keys'))).uid, 0)
  const pointer = join(options.dataDir, 'pg.location')
  t.equal(await readFile(pointer, 'utf8'), `${dirname(first.folder)}\n`)
  const binaries = join(options.systemDir, 'binaries')
  const [copy] = await readdir(binaries)
  t.match(copy, /^[a-z0-9-]+-18\.[0-9.a-z-]+-[0-9a-f]{16}$/)
  const { uid, mode } = await stat(join(binaries, copy!, 'native/bin/postgres'))
  t.strictSame([uid, mode & 0o777], [0, 0o755])
  await query(first, 'CREATE TABLE kept AS SELECT 1 AS one')
  await first.close()

  await rename(hidden, join(base, 'moved'))
  const after = { ...before, dataDir: join(base, 'moved/data'), packageDir: join(base, 'moved/package') }
  const copied = await stat(join(binaries, copy!))
  const second = await serveEmbedded(after)
  t.strictSame(await query(second, 'SELECT one FROM kept'), [{ one: 1 }], 'a moved data folder finds it')
  t.equal((await stat(join(binaries, copy!))).ino, copied.ino, 'the copy is used again')
  await second.close()

  // Its log writer ends a moment after PostgreSQL.
  await until(() => truncate(join(binaries, copy!, 'native/bin/postgres')).then(() => true))
  await (await serveEmbedded(after)).close()
  t.strictSame(await readdir(binaries), [copy], 'a damaged copy is replaced')

  await rm(join(after.dataDir, 'keys'), { recursive: true })
  await t.rejects(serveEmbedded(after), { message: /is missing. Restore/ })
  await rm(pointer.replace('private', 'moved'))
  const fresh = await serveEmbedded(after)
  t.not(fresh.folder, first.folder, 'a new data folder at an old path gets a new database')
  await fresh.close()
  await rm(fresh.folder, { recursive: true })
  await t.rejects(serveEmbedded(after), { message: /it is not there/ })

  await chmod(options.systemDir, 0o777)
  await t.rejects(serveEmbedded({ ...after, dataDir: join(base, 'moved/more') }), {
    message: /can be changed by other users/
  })
})

t.test('who runs PostgreSQL', { ...asRoot }, async (t) => {
  const options = await makeOptions(t)
  for (const user of ['root', 'no-such-user', '--help']) {
    await t.rejects(serveEmbedded({ ...options, user }), { message: /names no unprivileged user/ })
  }
  const first = await serveEmbedded({ ...options, user: 'nobody' })
  await first.close()
  const second = await serveEmbedded(options)
  t.equal((await stat(second.folder)).uid, nobody, 'the owner of the database, when none is named')
  await second.close()
})

t.test('a socket folder that somebody else has made is refused', { ...asRoot }, async (t) => {
  const options = await makeOptions(t, 'long '.repeat(20))
  const first = await serveEmbedded(options)
  await first.close()
  const socketFolder = first.connection.host
  await rm(socketFolder, { recursive: true })
  await mkdir(socketFolder, { mode: 0o700 })
  await chown(socketFolder, 12345, 12345)
  await t.rejects(serveEmbedded(options), { message: /Somebody else may have made it/ })
  await rm(socketFolder, { recursive: true })
  await (await serveEmbedded(options)).close()
  await rm(socketFolder, { recursive: true })
})

t.test('an ordinary user, with a package that root installed', { ...asRoot }, async (t) => {
  const options = await makeOptions(t)
  const base = dirname(options.dataDir)
  const unpacked = await unpackWithoutLinks(join(base, 'package'))
  await mkdir(join(base, 'home'))
  await chown(join(base, 'home'), nobody, nobody)
  const theirs = { ...options, dataDir: join(base, 'home/data'), packageDir: unpacked }
  const identity = { uid: nobody, gid: nobody, env: { PATH: process.env.PATH } }

  const server = startHolder(t, 'serve', theirs, identity)
  const database = await server.answer()
  t.match(database, { refused: undefined, folder: join(theirs.dataDir, 'pg') })
  t.strictSame(await query(database, 'SELECT 1 AS one'), [{ one: 1 }])
  for (const name of ['', 'pg', 'keys', 'run']) {
    const { uid, mode } = await stat(join(theirs.dataDir, name))
    t.strictSame([uid, mode & 0o777], [nobody, 0o700], name)
  }
  t.equal((await readdir(join(theirs.dataDir, 'binaries'))).length, 1, 'works on a copy')
  const second = startHolder(t, 'hold', theirs, identity)
  t.match((await second.answer()).refused, new RegExp(`process ${server.pid}`))
  const command = startHolder(t, 'attach', theirs)
  t.match(await command.answer(), { folder: database.folder }, 'root may attach')
  t.strictSame(await Promise.all([command.close(), second.close()]), [0, 0])

  await server.kill()
  const next = startHolder(t, 'serve', theirs, identity)
  t.match(await next.answer(), { folder: database.folder }, 'takes over after a kill')
  t.equal(await next.close(), 0)

  const roots = startHolder(t, 'attach', theirs)
  t.match(await roots.answer(), { folder: database.folder }, 'root starts it as that user')
  await roots.close()
  const again = startHolder(t, 'serve', theirs, identity)
  t.match(await again.answer(), { folder: database.folder }, 'and leaves nothing in the way')
  await again.close()

  const other = startHolder(t, 'serve', theirs, { ...identity, uid: 65533 })
  t.match((await other.answer()).refused, /Start Coffer as the user who owns this folder/)
})
