import { mkdir, open, rename, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { type Kysely, sql, type Transaction } from 'kysely'
import type { Config, Secrets } from './config.ts'
import { createOrganizationRow, createUserRow } from './directory/accounts.ts'
import { HOSTED_RUNNER } from './directory/furnishing.ts'
import { addOwner } from './directory/memberships.ts'
import { storeFirstToken } from './directory/tokens.ts'
import { RefusedToStart } from './errors.ts'
import { type Account, findAccount, siteAdminExists } from './store/accounts.ts'
import type { Principal } from './store/audit.ts'
import type { Database } from './store/tables.ts'

const FIRST_START_LOCK = 7_245_002
const SYSTEM: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

/** The most that Ona's API takes for a runner's name. */
const MAX_RUNNER_NAME = 80

/** The first administrator, made just now. */
export interface FirstAdmin {
  login: string
  organization: string
  /** undefined when the operator gave it */
  generated: { token: string; expiresAt: Date | null } | undefined
}

/**
 * Makes the first administrator with a token of every scope, and the organization that it owns, with this machine as
 * its runner: once, whichever node is first.
 *
 * @throws RefusedToStart when the logins are the same, or another account has one of them already
 */
export async function ensureAdmin(
  db: Kysely<Database>,
  config: Config,
  secrets: Secrets
): Promise<FirstAdmin | undefined> {
  return await db.transaction().execute(async (tx) => {
    await sql`select pg_advisory_xact_lock(${FIRST_START_LOCK})`.execute(tx)
    if (await siteAdminExists(tx)) return undefined
    requireTwoLogins(config)
    const account = await createAdmin(tx, config.adminLogin)
    const organization = await seedOrganization(tx, config.organization, account)
    const issued = await storeFirstToken(tx, SYSTEM, account, secrets.adminToken, config.tokenDefaultDays)
    return { login: account.login, organization: organization.login, generated: issued }
  })
}

/** Asked only when they are used: a server that has an administrator may be configured as it was. */
function requireTwoLogins({ adminLogin, organization }: Config): void {
  if (adminLogin.toLowerCase() !== organization.toLowerCase()) return
  throw new RefusedToStart(
    `COFFER_ADMIN_LOGIN and COFFER_ORGANIZATION are both ${organization}, ` +
      'and no two accounts can have the same login. Set one of them to another.'
  )
}

async function createAdmin(tx: Transaction<Database>, login: string): Promise<Account> {
  if (await findAccount(tx, login)) throw taken('COFFER_ADMIN_LOGIN', login)
  return await createUserRow(tx, SYSTEM, { login, siteAdmin: true })
}

/** The organization of an administrator before this one is taken over. */
async function seedOrganization(tx: Transaction<Database>, login: string, admin: Account): Promise<Account> {
  const present = await findAccount(tx, login)
  if (present?.kind === 'user') throw taken('COFFER_ORGANIZATION', login)
  if (present) {
    await addOwner(tx, SYSTEM, present, admin)
    return present
  }
  const runnerName = os.hostname().slice(0, MAX_RUNNER_NAME) || HOSTED_RUNNER
  return await createOrganizationRow(tx, SYSTEM, { login }, admin, runnerName)
}

function taken(variable: string, login: string): RefusedToStart {
  return new RefusedToStart(
    `There is no administrator, but an account ${login} already: set ${variable} to another login.`
  )
}

/** Writes a token to a file of mode 0600 in the data folder, whole or not at all. */
export async function writeTokenFile(dataDir: string, token: string): Promise<string> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  const file = path.join(dataDir, 'admin-token')
  const handle = await open(`${file}.new`, 'w', 0o600)
  try {
    await handle.chmod(0o600)
    await handle.writeFile(`${token}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(`${file}.new`, file)
  return file
}

/** A configuration for gh that leads it to the unix socket, since it speaks plain HTTP over nothing else. */
export async function writeGhConfig(dataDir: string, socket: string): Promise<string> {
  const folder = path.join(dataDir, 'gh')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await writeFile(path.join(folder, 'config.yml'), `http_unix_socket: ${JSON.stringify(socket)}\n`, {
    mode: 0o600
  })
  return folder
}

/** A word as a POSIX shell reads it back. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_/:.,@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

/** What to paste first: GitHub's API and Ona's with curl, and gh. */
export function firstCommands(token: string, url: string, ghFolder: string | undefined): string[] {
  const curl = (address: string, options = '') =>
    `curl ${options}-H "Authorization: Bearer ${token}" ${shellQuote(address)}`
  const commands = [
    curl(`${url}/user`),
    curl(`${url}/api/gitpod.v1.IdentityService/GetAuthenticatedIdentity`, '-X POST ')
  ]
  if (ghFolder) {
    commands.push(
      `GH_CONFIG_DIR=${shellQuote(ghFolder)} GH_HOST=localhost GH_ENTERPRISE_TOKEN="${token}" ` +
        'gh secret set HELLO --user --body world'
    )
  }
  return commands
}
