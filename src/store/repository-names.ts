import { type Kysely, sql } from 'kysely'
import { type RepositoryFacts, repositoriesSeenBy, repositoryFacts } from './repositories.ts'
import { statement } from './statement.ts'
import type { Database } from './tables.ts'

export interface RepositoryName {
  owner: string
  repo: string
}

/** Two lists of the same length. */
interface Names {
  actorId: number
  owners: readonly string[]
  repos: readonly string[]
}

/** `position` is that of the name, from 1; a name that leads nowhere has no row. */
type Located = RepositoryFacts & { position: number }

function asked({ owners, repos }: Names) {
  return sql<RepositoryName & { position: number }>`
    unnest(${owners}::text[], ${repos}::text[]) with ordinality`.as<'asked'>(
    sql`asked(owner, repo, position)`
  )
}

function keyOf(column: 'asked.owner' | 'asked.repo') {
  return sql<string>`lower(${sql.ref(column)} collate "C")`
}

const byName = statement<Names, Located>((db, names) =>
  repositoriesSeenBy(db, names.actorId)
    .innerJoin(asked(names), (join) =>
      join.on('o.login_key', '=', keyOf('asked.owner')).on('r.name_key', '=', keyOf('asked.repo'))
    )
    .select([...repositoryFacts(names.actorId), 'asked.position'])
)

const byOldName = statement<Names, Located>((db, names) =>
  repositoriesSeenBy(db, names.actorId)
    .innerJoin('repository_redirects as old', 'old.repository_id', 'r.id')
    .innerJoin('accounts as old_owner', 'old_owner.id', 'old.owner_id')
    .innerJoin(asked(names), (join) =>
      join.on('old_owner.login_key', '=', keyOf('asked.owner')).on('old.name_key', '=', keyOf('asked.repo'))
    )
    .select([...repositoryFacts(names.actorId), 'asked.position'])
)

async function locate(
  find: typeof byName,
  db: Kysely<Database>,
  actorId: number,
  names: readonly RepositoryName[]
): Promise<(RepositoryFacts | undefined)[]> {
  const owners = names.map(({ owner }) => owner)
  const repos = names.map(({ repo }) => repo)
  const located = names.map((): RepositoryFacts | undefined => undefined)
  for (const { position, ...facts } of await find(db, { actorId, owners, repos }))
    located[position - 1] = facts
  return located
}

/** As `findRepository`, for many names in one query: one answer for each, in their order. */
export async function findRepositories(
  db: Kysely<Database>,
  actorId: number,
  names: readonly RepositoryName[]
): Promise<(RepositoryFacts | undefined)[]> {
  return await locate(byName, db, actorId, names)
}

/** As `findRenamedRepository`, for many names in one query. */
export async function findRenamedRepositories(
  db: Kysely<Database>,
  actorId: number,
  names: readonly RepositoryName[]
): Promise<(RepositoryFacts | undefined)[]> {
  return await locate(byOldName, db, actorId, names)
}
