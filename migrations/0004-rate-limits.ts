import { type Kysely, sql } from 'kysely'

// What is counted in windows of time, one row for each subject and resource. Unlogged: no write-ahead log for
// what nobody misses after a crash, which empties it. There is room in each page, so that updates stay in it.
const RATE_LIMITS = `CREATE UNLOGGED TABLE rate_limits (
  subject text COLLATE "C" NOT NULL,
  resource text COLLATE "C" NOT NULL,
  used integer NOT NULL,
  refused boolean NOT NULL,
  resets_at timestamptz NOT NULL,
  PRIMARY KEY (subject, resource)
) WITH (fillfactor = 50)`

export async function up(db: Kysely<never>): Promise<void> {
  await sql.raw(RATE_LIMITS).execute(db)
}
