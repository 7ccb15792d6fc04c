import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { attach, call, ORGANIZATION, OWNER, superuserUrl } from './world.ts'

export const MANY_RECORDS = 1_000_000
export const FEW_RECORDS = 10_000

export const AUDIT_PAGE = `/orgs/${ORGANIZATION}/audit-log?per_page=100`
export const AUDIT_SEARCH = `${AUDIT_PAGE}&phrase=${encodeURIComponent(`actor:${OWNER} action:secret.*`)}`

/**
 * Fills the log of an organization with records of the form that a PUT writes, and waits until all are sealed.
 *
 * @returns how many the sealer has sealed a second
 */
export async function addAuditRecords(url: string, dataDir: string, count: number): Promise<number> {
  await call(url, 'POST', '/admin/organizations', { login: ORGANIZATION, admin: OWNER })
  const attached = await attach(dataDir)
  const client = new pg.Client({ connectionString: await superuserUrl(dataDir, attached.connection) })
  await client.connect()
  try {
    await client.query(
      `insert into audit_events (stream_uid, actor_kind, actor_uid, actor_login, action, outcome, collection,
         subject_uid, name, value_version, occurred_at, canonical)
       select o.uid, 'user', a.uid, a.login, 'secret.update', 'allowed', 'codespaces/organization/' || o.uid,
         gen_random_uuid(), 'SECRET_' || n % 100, n, now() - ($1 - n) * interval '1 second',
         convert_to(repeat('x', 400) || n, 'UTF8')
       from accounts o, accounts a, generate_series(1, $1::integer) n where o.login = $2 and a.login = $3`,
      [count, ORGANIZATION, OWNER]
    )
    const start = performance.now()
    for (let sealed = 0; sealed < count; ) {
      await sleep(500)
      const { rows } = await client.query('select count(*)::integer as sealed from audit_chain')
      sealed = rows[0].sealed
    }
    const speed = (count / (performance.now() - start)) * 1000
    await client.query('vacuum analyze')
    await client.query('checkpoint')
    return speed
  } finally {
    await client.end()
    await attached.close()
  }
}
