import { randomBytes } from 'node:crypto'
import { chmod, link, lstat, mkdir, open, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { RefusedToStart } from '../../errors.ts'
import { flush, hasCode } from './files.ts'

export interface Passwords {
  /** Tells this data folder from another one that was at the same path; no secret. */
  id: string
  superuser: string
  service: string
}

/**
 * Reads the passwords from `keys/postgres.json` in the data folder. Makes them up when there is neither a file
 * nor a database; of two processes that do so at once, both get the same ones.
 *
 * @throws RefusedToStart when they are missing beside a database, or readable by others.
 */
export async function keepPasswords(dataDir: string, databaseExists: boolean): Promise<Passwords> {
  const keys = join(dataDir, 'keys')
  const path = join(keys, 'postgres.json')
  await mkdir(keys, { mode: 0o700 }).catch((error) => {
    if (!hasCode(error, 'EEXIST')) throw error
  })
  const { uid, mode } = await lstat(keys)
  if (uid === process.geteuid!() && (mode & 0o777) !== 0o700) await chmod(keys, 0o700)

  const found = await readPasswords(path)
  if (found) return found
  if (databaseExists) {
    throw new RefusedToStart(
      `${path}, which holds the passwords of the database in ${dataDir}, is missing. Restore it from a backup.`
    )
  }
  await createPasswords(keys, path)
  return (await readPasswords(path))!
}

async function readPasswords(path: string): Promise<Passwords | undefined> {
  const found = await stat(path).catch((error) => {
    if (!hasCode(error, 'ENOENT')) throw error
  })
  if (!found) return undefined
  if ((found.mode & 0o077) !== 0) {
    throw new RefusedToStart(`${path} can be read by other users. Make it private: chmod 600.`)
  }
  try {
    const { id, superuser, service } = JSON.parse(await readFile(path, 'utf8'))
    if ([id, superuser, service].every((value) => /^[0-9a-f]{16,}$/.test(value))) {
      return { id, superuser, service }
    }
  } catch (error) {
    // The parser's message would quote the file.
    if (!(error instanceof SyntaxError)) throw error
  }
  throw new RefusedToStart(`${path} is damaged. Restore it from a backup.`)
}

/** Written whole under another name, then linked: the name never shows a part, and never replaces a file. */
async function createPasswords(keys: string, path: string): Promise<void> {
  const temporary = `${path}.new-${randomBytes(8).toString('hex')}`
  const passwords: Passwords = {
    id: randomBytes(8).toString('hex'),
    superuser: randomBytes(32).toString('hex'),
    service: randomBytes(32).toString('hex')
  }
  const file = await open(temporary, 'wx', 0o600)
  try {
    await file.writeFile(`${JSON.stringify(passwords)}\n`)
    await file.sync()
    await link(temporary, path)
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error
  } finally {
    await file.close()
    await rm(temporary)
  }
  await flush(keys)
}
