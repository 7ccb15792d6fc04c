import { type Kysely, sql } from 'kysely'

const statements = [
  // One row. Tokens of an older epoch are void: a restored backup starts a new one.
  `CREATE TABLE instance (
     only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
     uid uuid NOT NULL DEFAULT gen_random_uuid(),
     epoch integer NOT NULL DEFAULT 1,
     created_at timestamptz NOT NULL DEFAULT now()
   )`,
  'INSERT INTO instance DEFAULT VALUES',

  `CREATE TABLE accounts (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START WITH 1000),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     kind text NOT NULL CHECK (kind IN ('user', 'organization')),
     login text COLLATE "C" NOT NULL,
     login_key text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(login COLLATE "C")) STORED UNIQUE,
     name text,
     email text,
     site_admin boolean NOT NULL DEFAULT false,
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now()
   )`,

  `CREATE TABLE memberships (
     organization_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     role text NOT NULL CHECK (role IN ('member', 'admin')),
     created_at timestamptz NOT NULL DEFAULT now(),
     PRIMARY KEY (organization_id, account_id)
   )`,
  'CREATE INDEX memberships_by_account ON memberships (account_id)',

  `CREATE TABLE repositories (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START WITH 1000),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     owner_id bigint NOT NULL REFERENCES accounts,
     name text COLLATE "C" NOT NULL,
     name_key text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(name COLLATE "C")) STORED,
     private boolean NOT NULL,
     description text,
     default_branch text NOT NULL DEFAULT 'main',
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now(),
     UNIQUE (owner_id, name_key)
   )`,

  // Names that a repository had before; a repository that takes one of them ends the redirect.
  `CREATE TABLE repository_redirects (
     owner_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     name_key text COLLATE "C" NOT NULL,
     repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
     PRIMARY KEY (owner_id, name_key)
   )`,
  'CREATE INDEX repository_redirects_by_repository ON repository_redirects (repository_id)',

  `CREATE TABLE collaborators (
     repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
     account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     role text NOT NULL CHECK (role IN ('read', 'triage', 'write', 'maintain', 'admin')),
     created_at timestamptz NOT NULL DEFAULT now(),
     PRIMARY KEY (repository_id, account_id)
   )`,
  'CREATE INDEX collaborators_by_account ON collaborators (account_id)',

  `CREATE TABLE tokens (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START WITH 1000),
     hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
     kind text NOT NULL CHECK (kind IN ('classic', 'fine-grained')),
     account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     scopes text[] NOT NULL DEFAULT '{}',
     permissions jsonb NOT NULL DEFAULT '{}',
     all_repositories boolean NOT NULL DEFAULT false,
     note text,
     last_eight text NOT NULL,
     issued_by_uid uuid,
     epoch integer NOT NULL,
     created_at timestamptz NOT NULL DEFAULT now(),
     expires_at timestamptz,
     last_used_at timestamptz
   )`,
  'CREATE INDEX tokens_by_account ON tokens (account_id)',

  `CREATE TABLE token_repositories (
     token_id bigint NOT NULL REFERENCES tokens ON DELETE CASCADE,
     repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
     PRIMARY KEY (token_id, repository_id)
   )`,
  'CREATE INDEX token_repositories_by_repository ON token_repositories (repository_id)',

  `CREATE TABLE key_generations (
     id bigint PRIMARY KEY,
     state text NOT NULL CHECK (state IN ('pending', 'active', 'retired', 'destroyed')),
     replaces bigint REFERENCES key_generations,
     accepts_boxes_until timestamptz,
     created_at timestamptz NOT NULL DEFAULT now(),
     activated_at timestamptz,
     retired_at timestamptz,
     destroyed_at timestamptz
   )`,
  `CREATE UNIQUE INDEX key_generations_one_active ON key_generations (state) WHERE state = 'active'`,
  `CREATE UNIQUE INDEX key_generations_one_pending ON key_generations (state) WHERE state = 'pending'`,

  // Destroying a generation is deleting its row here, which the reference from secrets forbids while in use.
  `CREATE TABLE key_material (
     generation_id bigint PRIMARY KEY REFERENCES key_generations,
     wrapped bytea NOT NULL,
     fingerprint text NOT NULL
   )`,

  // The servers that run now, and the generations that each of them can open with.
  `CREATE TABLE nodes (
     uid uuid PRIMARY KEY,
     generation_ids bigint[] NOT NULL,
     reported_at timestamptz NOT NULL
   )`,

  `CREATE TABLE secrets (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
     uid uuid NOT NULL UNIQUE,
     app text NOT NULL,
     kind text NOT NULL,
     owner_uid uuid NOT NULL,
     name text COLLATE "C" NOT NULL,
     github_name boolean NOT NULL
       GENERATED ALWAYS AS (name ~ '^[A-Z_][A-Z0-9_]*$' AND name !~ '^GITHUB_') STORED,
     mount text NOT NULL DEFAULT 'variable' CHECK (mount IN ('variable', 'file', 'registry', 'api-only')),
     mount_target text,
     visibility text CHECK (visibility IN ('all', 'private', 'selected')),
     envelope bytea NOT NULL,
     generation_id bigint NOT NULL REFERENCES key_material ON DELETE RESTRICT,
     value_version integer NOT NULL,
     row_version integer NOT NULL,
     creator_kind text NOT NULL,
     creator_uid uuid NOT NULL,
     created_at timestamptz NOT NULL,
     updated_at timestamptz NOT NULL,
     UNIQUE (app, kind, owner_uid, name)
   )`,
  'ALTER TABLE secrets ALTER COLUMN envelope SET STORAGE EXTERNAL',
  'CREATE INDEX secrets_by_generation ON secrets (generation_id, id)',

  `CREATE TABLE secret_repositories (
     secret_id bigint NOT NULL REFERENCES secrets ON DELETE CASCADE,
     repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
     PRIMARY KEY (secret_id, repository_id)
   )`,
  'CREATE INDEX secret_repositories_by_repository ON secret_repositories (repository_id)',

  // No foreign keys: a record outlives what it is about. `canonical` is what a chain over the records hashes.
  `CREATE TABLE audit_events (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
     transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
     stream_uid uuid NOT NULL,
     actor_kind text NOT NULL,
     actor_uid uuid,
     token_id bigint,
     issued_by_uid uuid,
     action text NOT NULL,
     outcome text NOT NULL,
     collection text,
     subject_uid uuid,
     name text,
     value_version integer,
     envelope_sha256 bytea,
     request_id text,
     occurred_at timestamptz NOT NULL,
     canonical bytea NOT NULL
   )`,
  'CREATE INDEX audit_events_by_stream ON audit_events (stream_uid, id)',
  `CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN RAISE EXCEPTION 'audit records are append-only'; END $$`,
  `CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
     FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()`,
  `CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
     FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()`
]

export async function up(db: Kysely<never>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}
