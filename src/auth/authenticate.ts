import type { Kysely } from 'kysely'
import { LRUCache } from 'lru-cache'
import { type CofferError, Forbidden, NotFound, TooManyFailedLogins, Unauthenticated } from '../errors.ts'
import { findIssuer, type Integration } from '../store/integrations.ts'
import type { Database } from '../store/tables.ts'
import { findValidToken, touchToken } from '../store/tokens.ts'
import { type Actor, actorOf } from './actor.ts'
import { isSignedByOneOf, NOT_DECODED, readAppJwt } from './app-jwt.ts'
import type { FailedLogins } from './failed-logins.ts'
import { hashToken, isWellFormedToken, readAuthorization, readBearer, tokenCacheKey } from './token.ts'

/** How long a revoked token may still be taken for valid, counted from when its query was sent. */
const CACHE_MS = 1000
const CACHED_TOKENS = 10_000

interface CacheEntry {
  actor: Actor
  sentAt: number
}

interface Lookup {
  actor: Promise<Actor | undefined>
  sentAt: number
}

export interface AuthenticatorEvents {
  /** credentials that are not valid */
  onFailure: () => void
  /** the time of last use was not recorded */
  onTouchError: (error: unknown) => void
}

/** Turns Authorization headers into actors, with a small cache that never outlives a revocation by a second. */
export class Authenticator {
  readonly #db: Kysely<Database>
  readonly #failedLogins: FailedLogins
  readonly #events: AuthenticatorEvents
  #cache = new LRUCache<string, CacheEntry>({ max: CACHED_TOKENS })
  /** lookups under way: whoever asks for the same token meanwhile gets the same answer */
  readonly #lookups = new Map<string, Lookup>()

  constructor(db: Kysely<Database>, failedLogins: FailedLogins, events: AuthenticatorEvents) {
    this.#db = db
    this.#failedLogins = failedLogins
    this.#events = events
  }

  /** Drops tokens before their time, when they were revoked: hashes as base64. */
  forget(hashes: Iterable<string>): void {
    for (const hash of hashes) {
      this.#cache.delete(hash)
      this.#lookups.delete(hash)
    }
  }

  /** Whether a token is still valid, for who was let in with it: its hash as base64. No failed login is counted. */
  async isValid(key: string): Promise<boolean> {
    return (await this.#find(Buffer.from(key, 'base64'))) !== undefined
  }

  /** The actor of a valid token, for who was let in with it; undefined for any other. No failed login is counted. */
  async find(token: string): Promise<Actor | undefined> {
    return await this.#find(hashToken(token))
  }

  /** The actor of a token that was looked up within the last second; undefined when it has to be asked for. */
  recall(authorization: string | undefined): Actor | undefined {
    const token = readAuthorization(authorization)
    return token ? this.#recall(tokenCacheKey(token)) : undefined
  }

  #recall(key: string): Actor | undefined {
    const cached = this.#cache.get(key)
    if (!cached || performance.now() - cached.sentAt >= CACHE_MS || isExpired(cached.actor)) return undefined
    return cached.actor
  }

  /**
   * @param authorization the header as it came
   * @param address where the request came from; undefined for the unix socket
   * @throws Unauthenticated without credentials, or with invalid ones
   * @throws TooManyFailedLogins instead, when too many from this address were invalid
   * @throws Forbidden for a token of an installation that is suspended
   */
  async authenticate(authorization: string | undefined, address: string | undefined): Promise<Actor> {
    const token = readAuthorization(authorization)
    if (token === undefined) throw new Unauthenticated(false)
    const actor = isWellFormedToken(token) ? await this.#find(hashToken(token)) : undefined
    if (actor) return actor
    throw await this.refusal(address, new Unauthenticated(true))
  }

  /**
   * The GitHub App that signed a JWT. Nothing of it is cached, so a key that is removed ends at once.
   *
   * @throws Unauthenticated, NotFound when no App is as the JWT says, TooManyFailedLogins
   */
  async authenticateApp(
    authorization: string | undefined,
    address: string | undefined
  ): Promise<Integration> {
    const jwt = readBearer(authorization)
    if (jwt === undefined) throw new Unauthenticated(false, NOT_DECODED)
    try {
      return await this.#findIntegration(jwt)
    } catch (error) {
      const invalid = error instanceof Unauthenticated || error instanceof NotFound
      throw invalid ? await this.refusal(address, error) : error
    }
  }

  async #findIntegration(jwt: string): Promise<Integration> {
    const issuer = await findIssuer(this.#db, readAppJwt(jwt))
    if (!issuer) throw new NotFound('Integration not found')
    const { public_keys, ...integration } = issuer
    if (await isSignedByOneOf(jwt, public_keys)) return integration
    throw new Unauthenticated(true, NOT_DECODED)
  }

  /** Counts a failed login, with whatever kind of credentials, and gives the error that it is answered with. */
  async refusal(address: string | undefined, error: CofferError): Promise<CofferError> {
    this.#events.onFailure()
    const retryAfterSeconds = await this.#failedLogins.record(address)
    return retryAfterSeconds ? new TooManyFailedLogins(retryAfterSeconds) : error
  }

  async #find(hash: Buffer): Promise<Actor | undefined> {
    const key = hash.toString('base64')
    const recalled = this.#recall(key)
    if (recalled) return recalled
    const known = this.#lookups.get(key)
    if (known) {
      const actor = await known.actor.catch(() => undefined)
      // One that took long may know of less than is known by now.
      if (actor && performance.now() - known.sentAt < CACHE_MS) return actor
    }
    const lookup = { actor: this.#lookUp(hash), sentAt: performance.now() }
    this.#lookups.set(key, lookup)
    try {
      const actor = await lookup.actor
      // What was revoked while it was looked up has been forgotten, and stays so.
      if (actor && this.#lookups.get(key) === lookup) this.#cache.set(key, { actor, sentAt: lookup.sentAt })
      else this.#cache.delete(key)
      return actor
    } finally {
      if (this.#lookups.get(key) === lookup) this.#lookups.delete(key)
    }
  }

  async #lookUp(hash: Buffer): Promise<Actor | undefined> {
    const [row] = await findValidToken(this.#db, { hash })
    if (!row) return undefined
    if (row.installation?.suspended) throw new Forbidden('This installation has been suspended')
    if (!row.used_lately) touchToken(this.#db, row.token_id).catch(this.#events.onTouchError)
    return actorOf(row)
  }
}

function isExpired(actor: Actor): boolean {
  const { expiresAt } = actor.token
  return expiresAt !== null && expiresAt.getTime() <= Date.now()
}
