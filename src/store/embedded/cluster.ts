import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile
} from 'node:fs/promises'
import { join } from 'node:path'
import { RefusedToStart } from '../../errors.ts'
import type { Account } from './account.ts'
import type { Binaries } from './binaries.ts'
import { lastLines, run } from './child.ts'
import { flush, hasCode, removeTree } from './files.ts'
import type { Passwords } from './passwords.ts'

const stagingPrefix = 'pg.new-'

/** Whether `<home>/pg` holds a database. It gets its name when it is complete, so that the name is the proof. */
export async function hasCluster(home: string): Promise<boolean> {
  try {
    return (await readdir(join(home, 'pg'))).length > 0
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}

/**
 * Makes `<home>/pg`, with the service role and its database in it, and changes nothing when another process was
 * quicker. What an interrupted run leaves is a folder under another name, which nobody uses.
 *
 * @throws RefusedToStart when initdb fails; quotes its last lines.
 */
export async function createCluster(
  home: string,
  { account, binaries, passwords }: { account: Account; binaries: Binaries; passwords: Passwords }
): Promise<void> {
  const staging = await mkdtemp(join(home, stagingPrefix))
  const data = join(staging, 'data')
  const passwordFile = join(staging, 'password')
  try {
    await writeFile(passwordFile, `${passwords.superuser}\n`, { flag: 'wx', mode: 0o600 })
    await mkdir(data, { mode: 0o700 })
    if (account.switched) {
      await chown(passwordFile, account.uid, account.gid)
      await chown(data, account.uid, account.gid)
      await chmod(staging, 0o711)
    }
    const made = await run(binaries.initdb, initdbArguments(data, passwordFile), { account })
    await rm(passwordFile, { force: true })
    if (made.code !== 0) throw refused(made.output)
    const roles = await run(binaries.postgres, singleUserArguments(data), {
      account,
      input: `CREATE ROLE coffer LOGIN NOSUPERUSER PASSWORD '${passwords.service}'\nCREATE DATABASE coffer OWNER coffer\n`
    })
    if (roles.code !== 0) throw refused(roles.output)
    await rename(data, join(home, 'pg'))
    await flush(home)
  } catch (error) {
    if (await hasCluster(home)) return
    if (hasCode(error, 'EBUSY', 'EXDEV')) {
      throw new RefusedToStart(`${join(home, 'pg')} is a mount point. Mount the volume at ${home} instead.`)
    }
    throw error
  } finally {
    await removeTree(staging)
  }
}

/**
 * Checks that the database can be run by these binaries as this user.
 *
 * @throws RefusedToStart when it is another version's or another user's, or no database at all.
 */
export async function checkCluster(pgdata: string, account: Account, binaries: Binaries): Promise<void> {
  const { uid } = await stat(pgdata)
  if (uid !== account.uid) {
    throw new RefusedToStart(
      `${pgdata} belongs to the user with the id ${uid}, but PostgreSQL would run as ${account.uid}. ` +
        'Start Coffer as the user who created it, or give it away with chown -R while no Coffer runs.'
    )
  }
  const version = await readFile(join(pgdata, 'PG_VERSION'), 'utf8').catch(() => '')
  if (version.trim() === '') {
    throw new RefusedToStart(`${pgdata} is in the way: it is not empty and holds no database. Move it away.`)
  }
  if (version.trim() !== binaries.major) {
    throw new RefusedToStart(
      `${pgdata} was made by PostgreSQL ${version.trim()}, and the embedded one is ${binaries.major}. ` +
        `Use a Coffer whose embedded PostgreSQL is ${version.trim()}, and move the data with a dump.`
    )
  }
}

/** Removes what interrupted runs left. Only for who holds the database: then no other run can matter any more. */
export async function removeLeftovers(home: string): Promise<void> {
  for (const name of await readdir(home).catch(() => [])) {
    if (name.startsWith(stagingPrefix)) await removeTree(join(home, name))
  }
}

/** The builtin locale needs none of the system's: the same order and case rules wherever the folder is moved. */
function initdbArguments(data: string, passwordFile: string): string[] {
  return [
    `--pgdata=${data}`,
    '--username=postgres',
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    '--locale=C',
    '--lc-messages=C',
    '--data-checksums',
    // These two are for the operator to change, in postgresql.conf; see postmaster.ts for the ones that are not.
    '--set=max_connections=60',
    '--set=shared_buffers=128MB'
  ]
}

function singleUserArguments(data: string): string[] {
  const settings = ['exit_on_error=on', 'log_min_error_statement=panic', 'log_error_verbosity=terse']
  return ['--single', '-D', data, ...settings.flatMap((setting) => ['-c', setting]), 'postgres']
}

function refused(output: string): RefusedToStart {
  return new RefusedToStart(
    `The embedded PostgreSQL could not create its database (${lastLines(output)}). ` +
      'Look for a full disk or missing permissions, or set DATABASE_URL to a PostgreSQL server.'
  )
}
