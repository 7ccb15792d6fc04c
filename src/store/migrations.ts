import { promises as fs } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { FileMigrationProvider, type Kysely, Migrator } from 'kysely'
import { RefusedToStart } from '../errors.ts'
import type { Database } from './tables.ts'

const FOLDER = fileURLToPath(new URL('../../migrations', import.meta.url))

const provider = new FileMigrationProvider({ fs, path, migrationFolder: FOLDER })

function migrator(db: Kysely<Database>): Migrator {
  return new Migrator({
    db,
    provider,
    migrationTableName: 'migrations',
    migrationLockTableName: 'migrations_lock'
  })
}

/**
 * Brings the schema up to date, or to where `last` is the newest migration, one node at a time; gives the names
 * of what was applied.
 */
export async function migrate(db: Kysely<Database>, last?: string): Promise<string[]> {
  const all = migrator(db)
  const { error, results = [] } = await (last === undefined ? all.migrateToLatest() : all.migrateTo(last))
  if (error) {
    const failed = results.find(({ status }) => status === 'Error')
    // Before any migration ran it was the connection that failed.
    if (!failed && typeof (error as { code?: unknown }).code === 'string') throw error
    throw new RefusedToStart(
      `Migration ${failed?.migrationName ?? ''} failed, and was rolled back: ${(error as Error).message}. ` +
        'A database that a newer version of Coffer has migrated cannot be used with an older one.'
    )
  }
  return results.map(({ migrationName }) => migrationName)
}

/** The names of the migrations that this version of Coffer knows, in order. */
export async function listKnownMigrations(): Promise<string[]> {
  return Object.keys(await provider.getMigrations()).sort()
}

export async function listMigrations(
  db: Kysely<Database>
): Promise<{ name: string; appliedAt: Date | undefined }[]> {
  const migrations = await migrator(db).getMigrations()
  return migrations.map(({ name, executedAt }) => ({ name, appliedAt: executedAt }))
}
