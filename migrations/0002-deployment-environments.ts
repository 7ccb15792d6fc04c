import { type Kysely, sql } from 'kysely'

const statements = [
  // Their names have no case, and are unique in a repository.
  `CREATE TABLE deployment_environments (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START WITH 1000),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
     name text COLLATE "C" NOT NULL,
     name_key text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(name COLLATE "C")) STORED,
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now(),
     UNIQUE (repository_id, name_key)
   )`
]

export async function up(db: Kysely<never>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}
