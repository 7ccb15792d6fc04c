import { mkdir, open, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type Kysely, sql } from 'kysely'
import type { Config, Secrets } from './config.ts'
import { createUserRow } from './directory/accounts.ts'
import { storeFirstToken } from './directory/tokens.ts'
import { siteAdminExists } from './store/accounts.ts'
import type { Principal } from './store/audit.ts'
import type { Database } from './store/tables.ts'

const FIRST_START_LOCK = 7_245_002
const SYSTEM: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }

/** The first administrator, made just now. */
export interface FirstAdmin {
  login: string
  /** undefined when the operator gave it */
  generated: { token: string; expiresAt: Date | null } | undefined
}

/** Makes the first administrator with a token of every scope, once, whichever node is first. */
export async function ensureAdmin(
  db: Kysely<Database>,
  config: Config,
  secrets: Secrets
): Promise<FirstAdmin | undefined> {
  return await db.transaction().execute(async (tx) => {
    await sql`select pg_advisory_xact_lock(${FIRST_START_LOCK})`.execute(tx)
    if (await siteAdminExists(tx)) return undefined
    const account = await createUserRow(tx, SYSTEM, { login: config.adminLogin, siteAdmin: true })
    const issued = await storeFirstToken(tx, SYSTEM, account, secrets.adminToken, config.tokenDefaultDays)
    return { login: account.login, generated: issued }
  })
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

/** What to paste first, with curl and with gh. */
export function firstCommands(token: string, url: string, ghFolder: string | undefined): string[] {
  const commands = [`curl -H "Authorization: Bearer ${token}" ${shellQuote(`${url}/user`)}`]
  if (ghFolder) {
    commands.push(
      `GH_CONFIG_DIR=${shellQuote(ghFolder)} GH_HOST=localhost GH_ENTERPRISE_TOKEN="${token}" ` +
        'gh secret set HELLO --user --body world'
    )
  }
  return commands
}
