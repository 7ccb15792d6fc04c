import { LRUCache } from 'lru-cache'
import type { RateLimitConfig } from '../config.ts'
import { type Counted, RateLimited, type Standing } from '../errors.ts'
import { addressKey } from './address.ts'
import type { Windows } from './windows.ts'

/** What is counted apart, as GitHub does it; `search`, which its clients expect, does not exist here. */
export const RATE_RESOURCES = ['core', 'codespaces', 'graphql'] as const
export type RateResource = (typeof RATE_RESOURCES)[number]

/** Who is counted: a token, an App that signed a JWT, or where a request without either came from. */
export interface Subject {
  readonly kind: Counted
  readonly name: string
}

export function tokenSubject(tokenId: number): Subject {
  return { kind: 'token', name: String(tokenId) }
}

export function appSubject(integrationId: number): Subject {
  return { kind: 'app', name: String(integrationId) }
}

export function addressSubject(ip: string | undefined): Subject {
  return { kind: 'address', name: addressKey(ip) }
}

const HOUR_SECONDS = 3600
/** How long a refusal is repeated from memory: a flood beyond the limit costs one statement in that time. */
const REPEAT_REFUSAL_MS = 1000
const REMEMBERED_REFUSALS = 10_000

export interface RateLimitSettings extends RateLimitConfig {
  /** an hour, but in tests */
  windowSeconds?: number
}

/** The limits that an operator has set. Without any there is no object of this class, and nothing is counted. */
export class RateLimits {
  readonly #settings: RateLimitSettings
  readonly #seconds: number
  readonly #windows: Windows
  readonly #now: () => number
  #refusals = new LRUCache<string, { error: RateLimited; until: number }>({ max: REMEMBERED_REFUSALS })

  /** @param now milliseconds of a clock that never goes back */
  constructor(settings: RateLimitSettings, windows: Windows, now = () => performance.now()) {
    this.#settings = settings
    this.#seconds = settings.windowSeconds ?? HOUR_SECONDS
    this.#windows = windows
    this.#now = now
  }

  /**
   * Counts one request.
   *
   * @throws RateLimited when the limit is reached: at once, before there is a promise, if that is known already
   */
  count(subject: Subject, resource: RateResource): Promise<Standing> {
    const key = `${subject.kind} ${subject.name}`
    const refusal = this.#refusals.get(`${key} ${resource}`)
    if (refusal && refusal.until > this.#now()) throw refusal.error
    return this.#count(subject, key, resource)
  }

  async #count(subject: Subject, key: string, resource: RateResource): Promise<Standing> {
    const limit = this.#limitOf(subject, resource)
    const { used, reset, refused, remainingMs } = await this.#windows.count(
      key,
      resource,
      limit,
      this.#seconds
    )
    const standing = { resource, limit, used, reset }
    if (!refused) return standing
    const error = new RateLimited(subject, standing, Math.max(1, Math.ceil(remainingMs / 1000)))
    const until = this.#now() + Math.min(REPEAT_REFUSAL_MS, remainingMs)
    this.#refusals.set(`${key} ${resource}`, { error, until })
    throw error
  }

  /** Takes back a request that was counted and shall not be; gives where the subject stands then. */
  async giveBack(subject: Subject, standing: Standing): Promise<Standing> {
    const { resource, reset, used } = standing
    const now = await this.#windows.giveBack(`${subject.kind} ${subject.name}`, resource, reset)
    return { ...standing, used: now ?? used - 1 }
  }

  /** Where a subject stands, resource by resource; counts nothing. */
  async overview(subject: Subject): Promise<Record<RateResource, Standing>> {
    const windows = await this.#windows.read(`${subject.kind} ${subject.name}`, RATE_RESOURCES, this.#seconds)
    const standings = RATE_RESOURCES.map((resource) => [
      resource,
      { resource, limit: this.#limitOf(subject, resource), ...windows.get(resource)! }
    ])
    return Object.fromEntries(standings) as Record<RateResource, Standing>
  }

  #limitOf({ kind }: Subject, resource: RateResource): number {
    return kind === 'address' ? this.#settings.address : this.#settings[resource]
  }
}
