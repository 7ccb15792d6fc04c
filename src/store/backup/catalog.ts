import type pg from 'pg'
import { RefusedToStart } from '../../errors.ts'

/**
 * Which migrations ran is in the manifest; nodes and rate limits are of the servers that run right now; how far the
 * sealer is, is told in transaction ids, which mean nothing in another cluster.
 */
const LEFT_OUT = ['migrations', 'migrations_lock', 'nodes', 'rate_limits', 'audit_sealer']

export interface TableDescription {
  name: string
  /** those that are stored as they are: without what the database computes */
  columns: string[]
  /** columns with a sequence of their own */
  counted: string[]
  /** tables that it refers to */
  refersTo: string[]
}

/** The tables that a backup holds, each after those that it refers to. */
export async function listTables(client: pg.ClientBase): Promise<TableDescription[]> {
  const { rows } = await client.query<TableDescription>(
    `select c.relname::text as name,
       array(select a.attname::text from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
             order by a.attnum) as columns,
       array(select a.attname::text from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and pg_get_serial_sequence(quote_ident(c.relname), a.attname) is not null
             order by a.attnum) as counted,
       array(select r.relname::text from pg_constraint f join pg_class r on r.oid = f.confrelid
             where f.conrelid = c.oid and f.contype = 'f' and r.oid <> c.oid) as "refersTo"
     from pg_class c
     where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' and c.relname <> all($1)
     order by c.relname`,
    [LEFT_OUT]
  )
  return inOrder(rows)
}

function inOrder(tables: readonly TableDescription[]): TableDescription[] {
  const ordered = new Map<string, TableDescription>()
  while (ordered.size < tables.length) {
    const next = tables.filter(
      ({ name, refersTo }) => !ordered.has(name) && refersTo.every((target) => ordered.has(target))
    )
    if (next.length === 0) throw new Error('tables refer to each other in a circle')
    for (const table of next) ordered.set(table.name, table)
  }
  return [...ordered.values()]
}

/** The migrations that ran, in order; none in a database that is not Coffer's. */
export async function listAppliedMigrations(client: pg.ClientBase): Promise<string[]> {
  const { rows: found } = await client.query("select to_regclass('migrations') is not null as migrated")
  if (!found[0].migrated) return []
  const { rows } = await client.query<{ name: string }>('select name from migrations order by name')
  return rows.map(({ name }) => name)
}

/** @throws RefusedToStart when a table has a row, other than the one that a migration puts in */
export async function requireEmpty(
  client: pg.ClientBase,
  tables: readonly TableDescription[]
): Promise<void> {
  for (const { name } of tables) {
    if (name === 'instance') continue
    const { rows } = await client.query(`select exists(select 1 from "${name}") as used`)
    if (!rows[0].used) continue
    throw new RefusedToStart(
      `The database holds data already (in ${name}); a backup is restored into an empty one only, and nothing was ` +
        'changed. Set COFFER_DATA_DIR to a folder that does not exist yet, or DATABASE_URL to a new database.'
    )
  }
}
