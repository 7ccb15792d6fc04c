import type { Kysely } from 'kysely'
import { canSee } from '../../../auth/access.ts'
import { type Actor, sightOf } from '../../../auth/actor.ts'
import { type Account, findAccounts } from '../../../store/accounts.ts'
import { listRepositories, type RepositoryFacts, type RepositoryFilter } from '../../../store/repositories.ts'
import {
  findRenamedRepositories,
  findRepositories,
  type RepositoryName
} from '../../../store/repository-names.ts'
import type { Database } from '../../../store/tables.ts'

/**
 * Makes one call of many: what is asked for before the process comes to rest is asked for together.
 *
 * @param find gives as many answers as there are keys, in their order
 */
function batched<K, V>(find: (keys: readonly K[]) => Promise<readonly V[]>): (key: K) => Promise<V> {
  let keys: K[] = []
  let answers: Promise<readonly V[]> | undefined
  return async (key) => {
    const index = keys.push(key) - 1
    answers ??= new Promise((resolve, reject) => {
      process.nextTick(() => {
        const asked = keys
        keys = []
        answers = undefined
        find(asked).then(resolve, reject)
      })
    })
    return (await answers)[index]!
  }
}

/** What one query reads of the directory, as its actor sees it: however many names it has, a few statements. */
export class Lookups {
  readonly #db: Kysely<Database>
  readonly #actor: Actor
  readonly #byName: (name: RepositoryName) => Promise<RepositoryFacts | undefined>
  readonly #byOldName: (name: RepositoryName) => Promise<RepositoryFacts | undefined>
  readonly account: (login: string) => Promise<Account | undefined>

  constructor(db: Kysely<Database>, actor: Actor) {
    this.#db = db
    this.#actor = actor
    this.#byName = batched((names) => findRepositories(db, actor.accountId, names))
    this.#byOldName = batched((names) => findRenamedRepositories(db, actor.accountId, names))
    this.account = batched((logins) => findAccounts(db, logins))
  }

  /** Undefined alike for what does not exist and for what the actor cannot see, after the same statements. */
  async repository(name: RepositoryName, followRenames: boolean): Promise<RepositoryFacts | undefined> {
    const facts = await this.#byName(name)
    if (facts && canSee(this.#actor, facts)) return facts
    const renamed = followRenames ? await this.#byOldName(name) : undefined
    return renamed && canSee(this.#actor, renamed) ? renamed : undefined
  }

  async repositories(filter: RepositoryFilter): Promise<{ total: number; repositories: RepositoryFacts[] }> {
    return await listRepositories(this.#db, sightOf(this.#actor), filter)
  }
}
