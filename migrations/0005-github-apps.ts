import { type Kysely, sql } from 'kysely'

// A GitHub App is an integration here, as in GitHub's own names for its parts: an app is what receives secrets.
const statements = [
  `CREATE TABLE integrations (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START WITH 1000),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     owner_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     slug text COLLATE "C" NOT NULL UNIQUE,
     client_id text COLLATE "C" NOT NULL UNIQUE,
     name text NOT NULL,
     description text,
     permissions jsonb NOT NULL,
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX integrations_by_owner ON integrations (owner_id)',

  // Public keys alone. Those of an older epoch are void, as tokens are: a restored backup revives what was removed.
  `CREATE TABLE integration_keys (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START WITH 1000),
     integration_id bigint NOT NULL REFERENCES integrations ON DELETE CASCADE,
     public_key bytea NOT NULL,
     epoch integer NOT NULL,
     created_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX integration_keys_by_integration ON integration_keys (integration_id)',

  // An installation acts for itself, so its numbers are of the same sequence as those of accounts: who acts has one
  // number that no other has, and roles are asked for by it.
  `CREATE TABLE installations (
     id bigint PRIMARY KEY DEFAULT nextval('accounts_id_seq'),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     integration_id bigint NOT NULL REFERENCES integrations ON DELETE CASCADE,
     account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     all_repositories boolean NOT NULL,
     permissions jsonb NOT NULL,
     suspended_at timestamptz,
     suspended_by text CHECK (suspended_by IN ('app', 'administrator')),
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now(),
     UNIQUE (integration_id, account_id),
     CHECK ((suspended_at IS NULL) = (suspended_by IS NULL))
   )`,
  'CREATE INDEX installations_by_account ON installations (account_id)',

  `CREATE TABLE installation_repositories (
     installation_id bigint NOT NULL REFERENCES installations ON DELETE CASCADE,
     repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
     PRIMARY KEY (installation_id, repository_id)
   )`,
  'CREATE INDEX installation_repositories_by_repository ON installation_repositories (repository_id)',

  // A token of an installation names both: the account on which it is installed, and itself.
  'ALTER TABLE tokens ADD COLUMN installation_id bigint REFERENCES installations ON DELETE CASCADE',
  'ALTER TABLE tokens DROP CONSTRAINT tokens_kind_check',
  `ALTER TABLE tokens ADD CONSTRAINT tokens_kind_check
     CHECK (kind IN ('classic', 'fine-grained', 'installation')
       AND (kind = 'installation') = (installation_id IS NOT NULL))`,
  `CREATE INDEX tokens_by_installation ON tokens (installation_id, expires_at) WHERE installation_id IS NOT NULL`
]

export async function up(db: Kysely<never>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}
