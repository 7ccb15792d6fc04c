import { stat } from 'node:fs/promises'
import { RefusedToStart } from '../../errors.ts'
import { run } from './child.ts'

/** Whose process and files PostgreSQL's are. `switched`: not ours, because PostgreSQL refuses to run as root. */
export interface Account {
  uid: number
  gid: number
  switched: boolean
}

/**
 * Decides as whom PostgreSQL runs: as ourselves, or, when we are root, as `user`, as the owner of the database
 * that is already there, as `postgres`, or as `nobody`.
 *
 * @throws RefusedToStart when the named user does not exist or is root.
 */
export async function findAccount(user: string | undefined, pgFolder: string): Promise<Account> {
  const uid = process.geteuid!()
  if (uid !== 0) return { uid, gid: process.getegid!(), switched: false }
  if (user !== undefined) {
    const account = await lookUp(user)
    if (!account || account.uid === 0) {
      throw new RefusedToStart(
        'COFFER_POSTGRES_USER names no unprivileged user of this system: PostgreSQL does not run as root. ' +
          'Name an existing account, or start Coffer as an ordinary user.'
      )
    }
    return account
  }
  const owner = await stat(pgFolder).catch(() => undefined)
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid, switched: true }
  const account = (await lookUp('postgres')) ?? (await lookUp('nobody'))
  if (account) return account
  throw new RefusedToStart(
    'PostgreSQL does not run as root, and this system has neither a user postgres nor nobody. ' +
      'Set COFFER_POSTGRES_USER to an unprivileged account, or start Coffer as an ordinary user.'
  )
}

/** Whether `account` can really enter the folder, which depends on every folder above it and on ACLs. */
export async function canEnter(account: Account, folder: string): Promise<boolean> {
  const { code } = await run('/bin/sh', ['-c', 'test -x "$1"', 'sh', folder], { account })
  return code === 0
}

async function lookUp(user: string): Promise<Account | undefined> {
  const [uid, gid] = await Promise.all([run('id', ['-u', '--', user]), run('id', ['-g', '--', user])])
  if (uid.code !== 0 || gid.code !== 0) return undefined
  return { uid: Number(uid.output), gid: Number(gid.output), switched: true }
}
