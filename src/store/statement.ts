import {
  type Compilable,
  CompiledQuery,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type RawBuilder
} from 'kysely'
import type pg from 'pg'
import type { Database } from './tables.ts'

/** Compiles, and never connects. */
const compiler = new Kysely<Database>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler()
  }
})

class Parameter {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }
}

export type Statement<P, R> = ((db: Kysely<Database>, parameters: P) => Promise<R[]>) & {
  /** the SQL and its parameters, for those who run it by other means (the benchmark's floor) */
  compile(parameters: P): { text: string; values: unknown[] }
}

/**
 * The pools of databases: what is compiled already goes straight to a pool, past the layers that would compile
 * it. A transaction has no pool and goes through them, since it has a connection of its own.
 */
const pools = new WeakMap<Kysely<Database>, pg.Pool>()

export function setPool(db: Kysely<Database>, pool: pg.Pool): void {
  pools.set(db, pool)
}

/**
 * A query that is built and compiled once, and run with other parameters each time: building a query and
 * compiling it costs several times what sending it does.
 *
 * `build` gets a stand-in for each parameter; it must not look at their values.
 */
export function statement<P extends object, R>(
  build: (db: Kysely<Database>, parameter: P) => Compilable<R> | RawBuilder<R>
): Statement<P, R> {
  let text: string | undefined
  let template: readonly unknown[] = []

  const compile = (parameters: P) => {
    if (text === undefined) {
      const stand = new Proxy({} as P, {
        get: (_, name) => new Parameter(String(name)),
        ownKeys: () => {
          throw new Error('a statement names each of its parameters: no rest, no spread')
        }
      })
      const compiled = build(compiler, stand).compile(compiler)
      text = compiled.sql
      template = compiled.parameters
    }
    const values = template.map((value) =>
      value instanceof Parameter ? parameters[value.name as keyof P] : value
    )
    return { text, values }
  }

  const run = async (db: Kysely<Database>, parameters: P) => {
    const { text, values } = compile(parameters)
    const pool = pools.get(db)
    const result = await (pool ? pool.query(text, values) : db.executeQuery(CompiledQuery.raw(text, values)))
    return result.rows as R[]
  }
  return Object.assign(run, { compile })
}
