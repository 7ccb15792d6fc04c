import { type Kysely, sql } from 'kysely'

// Environments: what they shall be (spec, desired phase), what they are (status, phase), who works on them (lease),
// and which secrets they receive (resolution). Enumerations have Ona's own names.
const statements = [
  `ALTER TABLE environments
     ADD COLUMN name text NOT NULL DEFAULT '',
     ADD COLUMN runner_id bigint REFERENCES runners,
     ADD COLUMN environment_class_id bigint REFERENCES environment_classes,
     ADD COLUMN repository_id bigint REFERENCES repositories ON DELETE SET NULL,
     ADD COLUMN role text NOT NULL DEFAULT 'ENVIRONMENT_ROLE_DEFAULT',
     ADD COLUMN session_id text NOT NULL DEFAULT '',
     ADD COLUMN annotations jsonb NOT NULL DEFAULT '{}',
     ADD COLUMN original_context_url text NOT NULL DEFAULT '',
     ADD COLUMN spec jsonb NOT NULL DEFAULT '{}',
     ADD COLUMN chosen_secrets jsonb,
     ADD COLUMN own_secrets boolean NOT NULL DEFAULT true,
     ADD COLUMN held_own_secrets boolean NOT NULL DEFAULT false,
     ADD COLUMN resolution jsonb NOT NULL DEFAULT '[]',
     ADD COLUMN desired_phase text NOT NULL DEFAULT 'ENVIRONMENT_PHASE_RUNNING',
     ADD COLUMN phase text NOT NULL DEFAULT 'ENVIRONMENT_PHASE_CREATING',
     ADD COLUMN spec_version bigint NOT NULL DEFAULT 1,
     ADD COLUMN status_version bigint NOT NULL DEFAULT 1,
     ADD COLUMN status jsonb NOT NULL DEFAULT '{}',
     ADD COLUMN activity jsonb,
     ADD COLUMN last_started_at timestamptz NOT NULL DEFAULT now(),
     ADD COLUMN last_active_at timestamptz NOT NULL DEFAULT now(),
     ADD COLUMN archived_at timestamptz,
     ADD COLUMN lockdown_at timestamptz,
     ADD COLUMN lease_holder uuid,
     ADD COLUMN lease_epoch integer NOT NULL DEFAULT 0,
     ADD COLUMN lease_until timestamptz,
     ADD COLUMN timeout_seconds double precision GENERATED ALWAYS AS (
       rtrim(spec -> 'timeout' ->> 'disconnected', 's')::double precision) STORED`,
  'CREATE INDEX environments_by_runner ON environments (runner_id)',
  'CREATE INDEX environments_by_class ON environments (environment_class_id)',
  'CREATE INDEX environments_by_holder ON environments (lease_holder) WHERE lease_holder IS NOT NULL',
  // What a runner has to work on: all but what is to be stopped, and is.
  `CREATE INDEX environments_to_work_on ON environments (runner_id, id)
     WHERE NOT (desired_phase = 'ENVIRONMENT_PHASE_STOPPED' AND phase = 'ENVIRONMENT_PHASE_STOPPED')`,
  'CREATE INDEX environments_by_creator ON environments (creator_uid)',
  'CREATE INDEX environments_by_repository ON environments (repository_id)',

  // What an environment receives is stored with it: to resolve it waits for nobody who removes a secret, nor the other
  // way round. What is left of a secret that is gone gives nothing, and goes when the environment is resolved again.
  'ALTER TABLE environment_secrets DROP CONSTRAINT environment_secrets_secret_id_fkey',
  'DROP INDEX environment_secrets_by_secret',

  // What a token of an environment is for. One that delivers is good for one lease.
  'ALTER TABLE tokens ADD COLUMN purpose text, ADD COLUMN lease_epoch integer',
  `UPDATE tokens SET purpose = 'deliver', lease_epoch = 0 WHERE kind = 'environment'`,
  `ALTER TABLE tokens ADD CONSTRAINT tokens_purpose_check CHECK (
     (kind = 'environment') = (purpose IS NOT NULL) AND (purpose = 'deliver') = (lease_epoch IS NOT NULL)
     AND purpose IN ('deliver', 'inside', 'access', 'logs'))`,

  // A git credential is a mount of its own: an extension, since Ona's API has it for environments alone.
  'ALTER TABLE secrets DROP CONSTRAINT secrets_mount_check',
  `ALTER TABLE secrets ADD CONSTRAINT secrets_mount_check
     CHECK (mount IN ('variable', 'file', 'registry', 'git', 'api-only'))`,

  // Whoever waits for work hears of it at once; those who watch hear of a new status when it can be read.
  `CREATE FUNCTION tell_runner() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       PERFORM pg_notify('coffer_environments', NEW.runner_id::text);
       RETURN NULL;
     END $$`,
  `CREATE TRIGGER environments_made AFTER INSERT ON environments FOR EACH ROW EXECUTE FUNCTION tell_runner()`,
  `CREATE TRIGGER environments_changed AFTER UPDATE OF spec_version ON environments FOR EACH ROW
     WHEN (OLD.spec_version <> NEW.spec_version) EXECUTE FUNCTION tell_runner()`,
  `CREATE FUNCTION tell_status() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       PERFORM pg_notify('coffer_events', json_build_object(
         'stream', (SELECT uid FROM accounts WHERE id = NEW.organization_id), 'action', 'development_environment.status',
         'collection', NULL, 'subject', NEW.uid)::text);
       RETURN NULL;
     END $$`,
  `CREATE TRIGGER environments_status_told AFTER UPDATE OF status_version ON environments FOR EACH ROW
     WHEN (OLD.status_version <> NEW.status_version) EXECUTE FUNCTION tell_status()`,

  // Whatever may change which secrets an environment receives: the collection of which it is resolved again, or that of
  // whoever was given or lost something. What was removed is no environment's any more: all of its owner's are.
  `CREATE FUNCTION tell_resolution() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       PERFORM pg_notify('coffer_resolution', CASE
         WHEN NEW.action ~ '^secret[.]' THEN NEW.collection
         WHEN NEW.action ~ '^(membership|user)[.]' THEN 'codespaces/user/' || NEW.subject_uid
         WHEN NEW.action ~ '^service_account[.]' THEN 'codespaces/service-account/' || NEW.subject_uid
         WHEN NEW.action ~ '^collaborator[.]' THEN 'codespaces/' || NEW.collection
         WHEN NEW.action = 'repository.remove' THEN ''
         WHEN NEW.action ~ '^repository[.]' THEN 'codespaces/repository/' || NEW.subject_uid
         WHEN NEW.action ~ '^project[.]' AND NEW.action <> 'project.remove' THEN 'codespaces/project/' || NEW.subject_uid
         ELSE 'codespaces/organization/' || NEW.stream_uid END);
       RETURN NULL;
     END $$`,
  `CREATE TRIGGER audit_events_resolved AFTER INSERT ON audit_events FOR EACH ROW
     WHEN (NEW.outcome = 'allowed' AND NEW.transaction_id = pg_current_xact_id() AND (
       NEW.action ~ '^(project|repository|collaborator|membership|group|service_account|user)[.]'
       OR NEW.action ~ '^secret[.](create|update|remove|visibility|repositor)' AND NEW.collection ~ '^codespaces/'))
     EXECUTE FUNCTION tell_resolution()`
]

export async function up(db: Kysely<never>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}
