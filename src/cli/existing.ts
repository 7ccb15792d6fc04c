import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Config, Secrets } from '../config.ts'
import { RefusedToStart } from '../errors.ts'
import { type OpenStore, openStore, type Purpose } from '../open.ts'
import { listMigrations } from '../store/migrations.ts'

/** Opens a database that is there: a command in the wrong folder must not make one. */
export async function openExistingStore(
  config: Config,
  secrets: Secrets,
  purpose: Purpose
): Promise<OpenStore> {
  if (config.embedded && !['pg', 'pg.location'].some((name) => existsSync(path.join(config.dataDir, name)))) {
    throw new RefusedToStart(
      `There is no database in ${config.dataDir}. Set COFFER_DATA_DIR to the server's data folder, or ` +
        'DATABASE_URL to its database.'
    )
  }
  return await openStore(config, secrets, purpose, { log: () => {} })
}

/** The same, and of the schema that this version works with. */
export async function openMigratedStore(
  config: Config,
  secrets: Secrets,
  purpose: Purpose
): Promise<OpenStore> {
  const store = await openExistingStore(config, secrets, purpose)
  try {
    const pending = (await listMigrations(store.db)).filter(({ appliedAt }) => appliedAt === undefined)
    if (pending.length === 0) return store
    throw new RefusedToStart('The database is not up to date with this version. Run: npx coffer migrate')
  } catch (error) {
    await store.close()
    throw error
  }
}
