import { type Kysely, sql } from 'kysely'
import type { Test } from 'tap'
import type { Database } from '../src/store/tables.ts'

/** What must hold whatever happened: as many records as versions, and nothing without an owner. */
export async function isConsistent(t: Test, db: Kysely<Database>): Promise<void> {
  const { rows: uneven } = await sql`
    select s.name, s.value_version, count(e.id) as records from secrets s
    left join audit_events e on e.subject_uid = s.uid and e.action in ('secret.create', 'secret.update')
    group by s.id having count(e.id) <> s.value_version or max(e.value_version) <> s.value_version`.execute(
    db
  )
  t.strictSame(uneven, [], 'each version of a value has its audit record, and none has two')
  const { rows: unlike } = await sql`
    select s.name from secrets s join audit_events e on e.subject_uid = s.uid
      and e.action in ('secret.create', 'secret.update') and e.value_version = s.value_version
    where e.envelope_sha256 <> sha256(s.envelope)`.execute(db)
  t.strictSame(unlike, [], 'and is the value that the record is about')
  const { rows: unrecorded } = await sql`
    select e.name from audit_events e
    where e.action = 'secret.create' and not exists (select 1 from secrets where uid = e.subject_uid)
      and not exists (select 1 from audit_events r where r.subject_uid = e.subject_uid and r.action = 'secret.remove')`.execute(
    db
  )
  t.strictSame(unrecorded, [], 'what is gone is recorded as removed')
  const { rows: orphans } = await sql`
    select s.kind, s.name from secrets s
    where not exists (select 1 from repositories where uid = s.owner_uid and s.kind = 'repository')
      and not exists (select 1 from accounts where uid = s.owner_uid and s.kind = accounts.kind)
      and not exists (select 1 from deployment_environments where uid = s.owner_uid
        and s.kind = 'deployment-environment')
      and not exists (select 1 from projects where uid = s.owner_uid and s.kind = 'project')
      and not exists (select 1 from service_accounts where uid = s.owner_uid and suspended_at is null
        and s.kind = 'service-account')`.execute(db)
  t.strictSame(orphans, [], 'no secret is left without its owner')
}
