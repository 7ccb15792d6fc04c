import { type Kysely, sql } from 'kysely'

// What Ona's API knows besides: who acts (service accounts, runners, environments) has a number of the same sequence
// as accounts have, so that roles are asked for by it.
const statements = [
  `CREATE TABLE service_accounts (
     id bigint PRIMARY KEY DEFAULT nextval('accounts_id_seq'),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     organization_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     name text NOT NULL,
     description text NOT NULL DEFAULT '',
     creator_kind text NOT NULL,
     creator_uid uuid,
     valid_until timestamptz,
     suspended_at timestamptz,
     created_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX service_accounts_by_organization ON service_accounts (organization_id, id)',

  // One group of each organization is everyone in it: it has no rows of members.
  `CREATE TABLE groups (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     organization_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     name text COLLATE "C" NOT NULL,
     description text NOT NULL DEFAULT '',
     everyone boolean NOT NULL DEFAULT false,
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now(),
     UNIQUE (organization_id, name)
   )`,
  'CREATE UNIQUE INDEX groups_one_everyone ON groups (organization_id) WHERE everyone',
  `CREATE TABLE group_members (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     group_id bigint NOT NULL REFERENCES groups ON DELETE CASCADE,
     account_id bigint REFERENCES accounts ON DELETE CASCADE,
     service_account_id bigint REFERENCES service_accounts ON DELETE CASCADE,
     CHECK (num_nonnulls(account_id, service_account_id) = 1),
     UNIQUE (group_id, account_id),
     UNIQUE (group_id, service_account_id)
   )`,
  'CREATE INDEX group_members_by_account ON group_members (account_id)',
  'CREATE INDEX group_members_by_service_account ON group_members (service_account_id)',

  // A hosted runner is the servers themselves; enumerations that nothing here acts on have Ona's own names.
  `CREATE TABLE runners (
     id bigint PRIMARY KEY DEFAULT nextval('accounts_id_seq'),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     organization_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     name text NOT NULL,
     kind text NOT NULL,
     provider text NOT NULL,
     hosted boolean NOT NULL DEFAULT false,
     desired_phase text NOT NULL,
     configuration jsonb NOT NULL DEFAULT '{}',
     creator_kind text NOT NULL,
     creator_uid uuid,
     last_seen_at timestamptz,
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX runners_by_organization ON runners (organization_id, id)',
  'CREATE UNIQUE INDEX runners_one_hosted ON runners (organization_id) WHERE hosted',

  // Each opens once, within a day; only its hash is here.
  `CREATE TABLE runner_exchange_tokens (
     hash bytea PRIMARY KEY CHECK (length(hash) = 32),
     runner_id bigint NOT NULL REFERENCES runners ON DELETE CASCADE,
     issued_by_uid uuid,
     epoch integer NOT NULL,
     expires_at timestamptz NOT NULL
   )`,
  'CREATE INDEX runner_exchange_tokens_by_runner ON runner_exchange_tokens (runner_id)',

  `CREATE TABLE environment_classes (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     runner_id bigint NOT NULL REFERENCES runners ON DELETE CASCADE,
     display_name text NOT NULL,
     description text NOT NULL DEFAULT '',
     configuration jsonb NOT NULL DEFAULT '[]',
     enabled boolean NOT NULL DEFAULT true,
     created_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX environment_classes_by_runner ON environment_classes (runner_id, id)',

  `CREATE TABLE projects (
     id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     organization_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     name text NOT NULL,
     initializer jsonb NOT NULL,
     devcontainer_file_path text NOT NULL DEFAULT '',
     automations_file_path text NOT NULL DEFAULT '',
     technical_description text NOT NULL DEFAULT '',
     prebuild_configuration jsonb,
     recommended_editors jsonb,
     creator_kind text NOT NULL,
     creator_uid uuid,
     created_at timestamptz NOT NULL DEFAULT now(),
     updated_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX projects_by_organization ON projects (organization_id, id)',

  // In order of position; a class that is null stands for a runner on the user's own machine.
  `CREATE TABLE project_environment_classes (
     project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
     position integer NOT NULL,
     environment_class_id bigint REFERENCES environment_classes ON DELETE CASCADE,
     sort_order integer NOT NULL DEFAULT 0,
     PRIMARY KEY (project_id, position)
   )`,
  'CREATE INDEX project_environment_classes_by_class ON project_environment_classes (environment_class_id)',

  `CREATE TABLE project_policies (
     project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
     group_id bigint NOT NULL REFERENCES groups ON DELETE CASCADE,
     role text NOT NULL CHECK (role IN ('admin', 'editor', 'user')),
     PRIMARY KEY (project_id, group_id)
   )`,
  'CREATE INDEX project_policies_by_group ON project_policies (group_id)',

  `CREATE TABLE environments (
     id bigint PRIMARY KEY DEFAULT nextval('accounts_id_seq'),
     uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     organization_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
     project_id bigint REFERENCES projects ON DELETE SET NULL,
     creator_kind text NOT NULL,
     creator_uid uuid NOT NULL,
     created_at timestamptz NOT NULL DEFAULT now()
   )`,
  'CREATE INDEX environments_by_organization ON environments (organization_id, id)',
  'CREATE INDEX environments_by_project ON environments (project_id)',

  // Which secrets resolution gave to an environment: all that its token may read.
  `CREATE TABLE environment_secrets (
     environment_id bigint NOT NULL REFERENCES environments ON DELETE CASCADE,
     secret_id bigint NOT NULL REFERENCES secrets ON DELETE CASCADE,
     PRIMARY KEY (environment_id, secret_id)
   )`,
  'CREATE INDEX environment_secrets_by_secret ON environment_secrets (secret_id)',

  // A token has an id that shows on Ona's API, and acts in one organization there: in this one, or in its account's
  // first. Those who are no accounts act in their own.
  `ALTER TABLE tokens
     ADD COLUMN uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
     ADD COLUMN read_only boolean NOT NULL DEFAULT false,
     ADD COLUMN organization_id bigint REFERENCES accounts ON DELETE CASCADE,
     ADD COLUMN service_account_id bigint REFERENCES service_accounts ON DELETE CASCADE,
     ADD COLUMN environment_id bigint REFERENCES environments ON DELETE CASCADE,
     ADD COLUMN runner_id bigint REFERENCES runners ON DELETE CASCADE`,
  'ALTER TABLE tokens DROP CONSTRAINT tokens_kind_check',
  `ALTER TABLE tokens ADD CONSTRAINT tokens_kind_check CHECK (
     kind IN ('classic', 'fine-grained', 'installation', 'service-account', 'environment', 'runner')
     AND (kind = 'installation') = (installation_id IS NOT NULL)
     AND (kind = 'service-account') = (service_account_id IS NOT NULL)
     AND (kind = 'environment') = (environment_id IS NOT NULL)
     AND (kind = 'runner') = (runner_id IS NOT NULL)
     AND (organization_id IS NOT NULL OR kind NOT IN ('service-account', 'environment', 'runner')))`,
  'CREATE INDEX tokens_by_organization ON tokens (organization_id) WHERE organization_id IS NOT NULL',
  'CREATE INDEX tokens_by_service_account ON tokens (service_account_id) WHERE service_account_id IS NOT NULL',
  'CREATE INDEX tokens_by_environment ON tokens (environment_id) WHERE environment_id IS NOT NULL',
  'CREATE INDEX tokens_by_runner ON tokens (runner_id) WHERE runner_id IS NOT NULL',

  'ALTER TABLE secrets ADD COLUMN credential_proxy jsonb',

  // Whatever is recorded is an event when it commits, told to every server at once. What a restore loads is none: its
  // records are of other transactions. Nobody watches secrets that only GitHub's API knows.
  `CREATE FUNCTION tell_event() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       PERFORM pg_notify('coffer_events', json_build_object(
         'stream', NEW.stream_uid, 'action', NEW.action, 'collection', NEW.collection,
         'subject', NEW.subject_uid)::text);
       RETURN NULL;
     END $$`,
  `CREATE TRIGGER audit_events_told AFTER INSERT ON audit_events FOR EACH ROW
     WHEN (NEW.outcome = 'allowed' AND NEW.transaction_id = pg_current_xact_id() AND (
       NEW.action ~ '^(project|runner|environment_class|service_account|group|organization|membership|development_environment)[.]'
       OR NEW.action ~ '^secret[.](create|update|remove)$'
         AND NEW.collection ~ '^codespaces/(user|organization|project|service-account)/'))
     EXECUTE FUNCTION tell_event()`,

  // Organizations that are there already get what a new one has.
  `INSERT INTO groups (organization_id, name, description, everyone)
     SELECT id, 'everyone', 'All members and service accounts of the organization', true
     FROM accounts WHERE kind = 'organization'`,
  `INSERT INTO runners (organization_id, name, kind, provider, hosted, desired_phase, creator_kind)
     SELECT id, 'Coffer', 'RUNNER_KIND_REMOTE', 'RUNNER_PROVIDER_LINUX_HOST', true, 'RUNNER_PHASE_ACTIVE', 'system'
     FROM accounts WHERE kind = 'organization'`,
  `INSERT INTO environment_classes (runner_id, display_name, description)
     SELECT id, 'Regular', 'On the machine that Coffer runs on' FROM runners`
]

export async function up(db: Kysely<never>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}
