import { type Kysely, sql } from 'kysely'

const statements = [
  // What the second form of a record has besides the first; null in all records of the first.
  `ALTER TABLE audit_events
     ADD COLUMN actor_login text COLLATE "C",
     ADD COLUMN repository_uid uuid,
     ADD COLUMN address text,
     ADD COLUMN occurrences integer CHECK (occurrences > 0)`,

  // Pages are in the order of time. Each index but the first costs a write in the transaction of every change, so
  // that the two most frequent actions, which a page meets soon without an index, are left out of the last one.
  'DROP INDEX audit_events_by_stream',
  'CREATE INDEX audit_events_by_stream ON audit_events (stream_uid, occurred_at, id)',
  'CREATE INDEX audit_events_by_time ON audit_events (occurred_at, id)',
  'CREATE INDEX audit_events_by_transaction ON audit_events (transaction_id, id)',
  'CREATE INDEX audit_events_by_actor ON audit_events (actor_uid, occurred_at, id) WHERE actor_uid IS NOT NULL',
  `CREATE INDEX audit_events_by_repository ON audit_events (repository_uid, occurred_at, id)
     WHERE repository_uid IS NOT NULL`,
  `CREATE INDEX audit_events_by_action ON audit_events (stream_uid, action, occurred_at, id)
     WHERE action NOT IN ('secret.create', 'secret.update')`,
  // Which accounts and repositories ever had a name: for searches by the names of what is gone.
  `CREATE INDEX audit_events_by_name ON audit_events (lower(name COLLATE "C"), stream_uid)
     WHERE action IN ('user.create', 'organization.create', 'repository.create', 'repository.update')`,

  // Only the job that removes records after their time says so, and only within its transaction.
  `CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       IF TG_OP = 'DELETE' AND current_setting('coffer.prunes_audit', true) = 'on' THEN
         RETURN OLD;
       END IF;
       RAISE EXCEPTION 'audit records are append-only';
     END $$`,

  // The place of each sealed record in the chain of its stream. No foreign key: a record that is missing shows.
  `CREATE TABLE audit_chain (
     event_id bigint PRIMARY KEY,
     stream_uid uuid NOT NULL,
     sequence bigint NOT NULL CHECK (sequence > 0),
     hash bytea NOT NULL CHECK (length(hash) = 32),
     UNIQUE (stream_uid, sequence)
   )`,
  `CREATE TRIGGER audit_chain_append_only BEFORE UPDATE OR DELETE ON audit_chain
     FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()`,
  `CREATE TRIGGER audit_chain_no_truncate BEFORE TRUNCATE ON audit_chain
     FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()`,

  // The last place of each stream. It is updated all the time: room for that on the page.
  `CREATE TABLE audit_streams (
     stream_uid uuid PRIMARY KEY,
     sequence bigint NOT NULL,
     hash bytea NOT NULL CHECK (length(hash) = 32)
   ) WITH (fillfactor = 70)`,

  // How far the sealer is. Transaction ids mean something in the cluster that gave them only; so this table is in
  // no backup, and a database that it says nothing about, or that was moved, is gone through by id once.
  `CREATE TABLE audit_sealer (
     only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
     cluster text NOT NULL,
     adopted_id bigint,
     transaction_id xid8 NOT NULL,
     event_id bigint NOT NULL
   )`,

  // What transaction ids mean something in; where it may not be asked for, a move to another cluster is not seen.
  `CREATE FUNCTION audit_cluster() RETURNS text LANGUAGE plpgsql STABLE AS $$
     DECLARE
       database oid := (SELECT oid FROM pg_database WHERE datname = current_database());
     BEGIN
       RETURN (SELECT system_identifier FROM pg_control_system()) || '/' || database;
     EXCEPTION WHEN insufficient_privilege THEN
       RETURN 'unknown/' || database;
     END $$`,

  // The last checkpoint, and the server that writes them.
  `CREATE TABLE audit_checkpoint (
     only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
     counter bigint NOT NULL,
     hash bytea CHECK (length(hash) = 32),
     key text,
     node_uid uuid,
     taken_at timestamptz NOT NULL
   )`,

  // Up to where each stream was removed after its time: signed, so that nobody else removes anything unnoticed.
  `CREATE TABLE audit_prunings (
     stream_uid uuid PRIMARY KEY,
     through bigint NOT NULL,
     hash bytea NOT NULL CHECK (length(hash) = 32),
     before timestamptz NOT NULL,
     pruned_at timestamptz NOT NULL,
     key text NOT NULL,
     signature bytea NOT NULL
   )`
]

export async function up(db: Kysely<never>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}
