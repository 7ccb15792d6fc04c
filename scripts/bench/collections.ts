import pg from 'pg'
import { attach, superuserUrl } from './world.ts'

export const MANY_COLLECTIONS = 100_000

/** Fills a database with collections of ten secrets' worth of rows that nobody asks for, and lets it settle. */
export async function addCollections(dataDir: string, count: number): Promise<void> {
  const attached = await attach(dataDir)
  const client = new pg.Client({ connectionString: await superuserUrl(dataDir, attached.connection) })
  await client.connect()
  try {
    await client.query(
      `insert into secrets (uid, app, kind, owner_uid, name, envelope, generation_id, value_version, row_version,
         creator_kind, creator_uid, created_at, updated_at)
       select gen_random_uuid(), 'codespaces', 'repository', owner, 'SECRET_' || n, decode(repeat('61', 1061), 'hex'),
         (select id from key_generations where state = 'active'), 1, 1, 'user', owner, now(), now()
       from (select gen_random_uuid() as owner from generate_series(1, $1)) owners, generate_series(1, 10) n`,
      [count]
    )
    await client.query('vacuum analyze')
    await client.query('checkpoint')
  } finally {
    await client.end()
    await attached.close()
  }
}
