import { type Compilable, type Kysely, type SelectQueryBuilder, sql } from 'kysely'
import { ENVIRONMENT, type MaybeEnvironment } from './deployment-environments.ts'
import {
  type OrganizationFacts,
  type OrganizationLocator,
  organizationById,
  organizationByLogin
} from './organizations.ts'
import {
  locatedByName,
  type RepositoryFacts,
  type RepositoryLocator,
  repositoriesSeenBy,
  repositoryFacts
} from './repositories.ts'
import {
  HEAD,
  headOf,
  type MaybeHead,
  type Page,
  pageColumns,
  type SecretHead,
  type SecretPage
} from './secrets.ts'
import { type Statement, statement } from './statement.ts'
import type { Database } from './tables.ts'

// What access to an owner depends on, together with its secrets, in one query: absent and invisible take the same.

/** Who asks, and for which app. */
interface Asked {
  actorId: number
  app: string
}

// biome-ignore lint/suspicious/noExplicitAny: the rows are stated by the caller, beside the query
type AnyQuery = SelectQueryBuilder<any, any, any>

/** A kind of owner: its row with what access depends on, for each way in which a path names it. */
interface OwnerQuery<Locator, Facts> {
  kind: string
  /** the column that secrets name the owner by */
  uid: string
  /** which of the ways a locator goes */
  wayOf(locator: Locator): string
  ways: Record<string, (db: Kysely<Database>, parameter: never) => unknown>
  /** only for its type */
  facts?: Facts
}

/** The queries for one kind of owner, compiled once for each way of naming it. */
function secretsOf<Locator extends object, Facts>({ kind, uid, wayOf, ways }: OwnerQuery<Locator, Facts>) {
  const perWay = <P, R>(build: (owner: AnyQuery, parameter: P & Asked) => AnyQuery) => {
    const statements = new Map<string, Statement<P & Asked & Locator, R>>()
    for (const [way, locate] of Object.entries(ways)) {
      const run = statement<P & Asked & Locator, R>(
        (db, parameter) => build(locate(db, parameter as never) as AnyQuery, parameter) as Compilable<R>
      )
      statements.set(way, run)
    }
    return async (db: Kysely<Database>, locator: Locator, parameters: P & Asked): Promise<R | undefined> => {
      const [row] = await statements.get(wayOf(locator))!(db, { ...parameters, ...locator })
      return row
    }
  }

  const withSecret = perWay<{ secretName: string }, Facts & MaybeHead>((owner, { app, secretName }) =>
    owner
      .leftJoin('secrets as s', (join) =>
        join
          .on('s.app', '=', app)
          .on('s.kind', '=', kind)
          .onRef('s.owner_uid', '=', uid)
          .on('s.name', '=', secretName)
      )
      .select(HEAD)
  )
  const withPage = perWay<Page, Facts & SecretPage>((owner, { app, limit, offset }) =>
    owner.select(pageColumns(app, kind, sql.ref(uid), { limit, offset }))
  )
  return {
    /** The owner as the actor sees it, and the secret of that name in its collection. */
    async find(
      db: Kysely<Database>,
      locator: Locator,
      parameters: Asked & { secretName: string }
    ): Promise<{ facts: Facts; secret: SecretHead | undefined } | undefined> {
      const row = await withSecret(db, locator, parameters)
      return row && { facts: row, secret: headOf(row) }
    },
    /** The owner as the actor sees it, and a page of its collection. */
    list: withPage
  }
}

type Named<L> = Asked & L

export const repositorySecrets = secretsOf<RepositoryLocator, RepositoryFacts>({
  kind: 'repository',
  uid: 'r.uid',
  wayOf: (locator) => ('repo' in locator ? 'name' : 'id'),
  ways: {
    name: (db, { actorId, owner, repo }: Named<{ owner: string; repo: string }>) =>
      locatedByName(repositoriesSeenBy(db, actorId), owner, repo).select(repositoryFacts(actorId)),
    id: (db, { actorId, repositoryId }: Named<{ repositoryId: number }>) =>
      repositoriesSeenBy(db, actorId).where('r.id', '=', repositoryId).select(repositoryFacts(actorId))
  }
})

export const organizationSecrets = secretsOf<OrganizationLocator, OrganizationFacts>({
  kind: 'organization',
  uid: 'o.uid',
  wayOf: (locator) => ('org' in locator ? 'login' : 'id'),
  ways: {
    login: (db, { actorId, org }: Named<{ org: string }>) => organizationByLogin(db, actorId, org),
    id: (db, { actorId, organizationId }: Named<{ organizationId: number }>) =>
      organizationById(db, actorId, organizationId)
  }
})

export type EnvironmentLocator = RepositoryLocator & { environmentName: string }

function withEnvironment(base: ReturnType<typeof repositoriesSeenBy>, actorId: number, name: string) {
  return base
    .leftJoin('deployment_environments as e', (join) =>
      join
        .onRef('e.repository_id', '=', 'r.id')
        .on('e.name_key', '=', sql<string>`lower(${name}::text collate "C")`)
    )
    .select(repositoryFacts(actorId))
    .select(ENVIRONMENT)
}

export const environmentSecrets = secretsOf<EnvironmentLocator, RepositoryFacts & MaybeEnvironment>({
  kind: 'deployment-environment',
  uid: 'e.uid',
  wayOf: (locator) => ('repo' in locator ? 'name' : 'id'),
  ways: {
    name: (db, p: Named<{ owner: string; repo: string; environmentName: string }>) =>
      withEnvironment(
        locatedByName(repositoriesSeenBy(db, p.actorId), p.owner, p.repo),
        p.actorId,
        p.environmentName
      ),
    id: (db, p: Named<{ repositoryId: number; environmentName: string }>) =>
      withEnvironment(
        repositoriesSeenBy(db, p.actorId).where('r.id', '=', p.repositoryId),
        p.actorId,
        p.environmentName
      )
  }
})

/** The secrets of an organization that one of its repositories receives. */
export const listReceivedSecrets = statement<
  { app: string; ownerUid: string; repositoryId: number; repositoryPrivate: boolean } & Page,
  SecretPage
>((db, { app, ownerUid, repositoryId, repositoryPrivate, limit, offset }) =>
  db.selectNoFrom(
    pageColumns(
      app,
      'organization',
      sql<string>`${ownerUid}::uuid`,
      { limit, offset },
      sql<boolean>`(visibility = 'all' or (visibility = 'private' and ${repositoryPrivate}::boolean)
        or (visibility = 'selected' and exists (select 1 from secret_repositories sr
          where sr.secret_id = secrets.id and sr.repository_id = ${repositoryId}::bigint)))`
    )
  )
)
