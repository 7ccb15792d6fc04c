import { access } from 'node:fs/promises'
import path from 'node:path'
import type { Kysely } from 'kysely'
import { type Config, DEFAULT_MASTER_KEY, type Secrets } from './config.ts'
import { RefusedToStart } from './errors.ts'
import { createMasterKey, Keyring, type MasterKey, readMasterKey } from './keyring/index.ts'
import { generationsExist } from './secrets/generations.ts'
import { type DatabaseOptions, openDatabase } from './store/database.ts'
import {
  attachEmbedded,
  type EmbeddedDatabase,
  type EmbeddedOptions,
  holdEmbedded,
  serveEmbedded
} from './store/embedded/embedded-postgres.ts'
import { excludeServers } from './store/listener.ts'
import type { Database } from './store/tables.ts'

/** Who opens the database: a server, a command beside one, or a command that wants no server beside it. */
export type Purpose = 'serve' | 'attach' | 'hold'

export interface OpenStore {
  db: Kysely<Database>
  /** for LISTEN, COPY and locks: never through a pooler */
  direct: DatabaseOptions['connection']
  /** where the embedded database's files are */
  folder: string | undefined
  close(): Promise<void>
}

export interface OpenOptions {
  log: EmbeddedOptions['log']
  /** another server has taken the embedded database over */
  onLost?: (error: RefusedToStart) => void
}

/** Opens the database that the configuration names; starts the embedded one when it names none. */
export async function openStore(
  config: Config,
  secrets: Secrets,
  purpose: Purpose,
  options: OpenOptions
): Promise<OpenStore> {
  return secrets.databaseUrl === undefined
    ? await openEmbedded(config, purpose, options)
    : await openExternal(config, secrets, purpose, options)
}

async function openEmbedded(
  config: Config,
  purpose: Purpose,
  { log, onLost }: OpenOptions
): Promise<OpenStore> {
  const embeddedOptions: EmbeddedOptions = {
    dataDir: config.dataDir,
    ...(config.runtimeDir && { runtimeDir: config.runtimeDir }),
    ...(config.postgresUser && { user: config.postgresUser }),
    log
  }
  const open: Record<Purpose, () => Promise<EmbeddedDatabase>> = {
    serve: () => serveEmbedded({ ...embeddedOptions, ...(onLost && { onLost }) }),
    attach: () => attachEmbedded(embeddedOptions),
    hold: () => holdEmbedded(embeddedOptions)
  }
  const embedded = await open[purpose]()
  const db = openDatabase({
    connection: embedded.connection,
    poolSize: config.poolSize,
    prepare: config.prepare,
    onIdleError: () => log('a database connection broke')
  })
  return {
    db,
    direct: embedded.connection,
    folder: embedded.folder,
    async close() {
      await db.destroy()
      await embedded.close()
    }
  }
}

async function openExternal(
  config: Config,
  secrets: Secrets,
  purpose: Purpose,
  { log }: OpenOptions
): Promise<OpenStore> {
  const connection = secrets.databaseUrl!
  const direct = secrets.databaseDirectUrl ?? connection
  const exclusion = purpose === 'hold' ? await excludeServers(direct) : undefined
  const db = openDatabase({
    connection,
    poolSize: config.poolSize,
    prepare: config.prepare,
    onIdleError: () => log('a database connection broke')
  })
  return {
    db,
    direct,
    folder: undefined,
    async close() {
      await db.destroy()
      await exclusion?.end()
    }
  }
}

/** The files that hold, or shall hold, the master keys; the first wraps. */
export function masterKeyFilesOf({ masterKeyFiles, dataDir }: Config): readonly string[] {
  return masterKeyFiles.length > 0 ? masterKeyFiles : [path.join(dataDir, DEFAULT_MASTER_KEY)]
}

/** Reads the master keys; makes one only for an embedded database that holds nothing encrypted yet. */
export async function openKeyring(config: Config, db: Kysely<Database>): Promise<Keyring> {
  const files = masterKeyFilesOf(config)
  const [first] = files
  const missing = config.embedded && files.length === 1 && !(await exists(first!))
  if (missing && !(await generationsExist(db))) return new Keyring([await createMasterKey(first!)])
  if (missing) throw new RefusedToStart(await lostKey(db, first!))
  const masterKeys: MasterKey[] = []
  for (const file of files) masterKeys.push(await readMasterKey(file))
  return new Keyring(masterKeys)
}

async function exists(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false
  )
}

async function lostKey(db: Kysely<Database>, file: string): Promise<string> {
  const rows = await db.selectFrom('key_material').select('fingerprint').distinct().execute()
  const fingerprints = rows.map(({ fingerprint }) => fingerprint).join(', ')
  return (
    `The master key file ${file} is missing, and the database holds values that only it opens ` +
    `(fingerprint ${fingerprints}). Put the file back, or set COFFER_MASTER_KEY_FILE to where it is.`
  )
}
