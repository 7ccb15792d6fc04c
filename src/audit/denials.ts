import type { Kysely } from 'kysely'
import { LRUCache } from 'lru-cache'
import { type AuditEvent, insertAuditEvents, type Principal } from '../store/audit.ts'
import { getInstance } from '../store/instance.ts'
import type { Database } from '../store/tables.ts'

const WINDOW_MS = 60_000
const SWEEP_MS = 5_000
/** Kinds of denials that are told apart at a time: who, what, in which stream. */
const REMEMBERED = 10_000
/**
 * Records of one server in a minute, apart for those who have a token, so that guessing does not hide them. At 700
 * bytes with all indexes this is 95 MB a day at the very most.
 */
const PER_WINDOW = { 'access.denied': 60, 'login.failed': 30 }
const BATCH = 100

/** A request that was refused. */
export interface Denial {
  /** undefined: that of the instance */
  streamUid?: string
  principal: Principal
  action: keyof typeof PER_WINDOW
  /** the operation that was asked for */
  name?: string
  repositoryUid?: string
  address?: string
}

interface Entry {
  denial: Denial
  /** since the last record */
  repeated: number
  since: number
}

export interface DenialsOptions {
  /** so many requests were recorded as one number only, or not at all */
  onUnlisted?: (requests: number) => void
  now?: () => number
  remembered?: number
  perWindow?: typeof PER_WINDOW
}

/**
 * Records refused requests without waiting for it and without letting whoever guesses fill the disk: the first of a
 * kind at once, then one record a minute with their number; and so many records a minute, beyond which only the
 * number of all others is recorded. What cannot be written, because the database is away, is counted among those.
 */
export class Denials {
  readonly #db: Kysely<Database>
  readonly #onUnlisted: (requests: number) => void
  readonly #now: () => number
  readonly #perWindow: typeof PER_WINDOW
  readonly #entries: LRUCache<string, Entry>
  readonly #timer: NodeJS.Timeout
  #queue: (Denial & { occurrences: number })[] = []
  #writing: Promise<void> | undefined
  #instanceUid: string | undefined
  #windowEnd: number
  #recorded = { 'access.denied': 0, 'login.failed': 0 }
  #unlisted = 0

  constructor(db: Kysely<Database>, options: DenialsOptions = {}) {
    this.#db = db
    this.#onUnlisted = options.onUnlisted ?? (() => {})
    this.#now = options.now ?? (() => performance.now())
    this.#perWindow = options.perWindow ?? PER_WINDOW
    this.#entries = new LRUCache({
      max: options.remembered ?? REMEMBERED,
      dispose: ({ repeated }, _key, reason) => {
        if (reason === 'evict') this.#leaveOut(repeated)
      }
    })
    this.#windowEnd = this.#now() + WINDOW_MS
    this.#timer = setInterval(() => this.sweep(), SWEEP_MS)
    this.#timer.unref()
  }

  /** Returns at once, and never throws. */
  record(denial: Denial): void {
    const { principal, action, name, streamUid, address } = denial
    const key = [principal.uid ?? address, action, name, streamUid].join('\n')
    const entry = this.#entries.get(key)
    if (entry) {
      entry.repeated += 1
      entry.denial = denial
      return
    }
    this.#entries.set(key, { denial, repeated: 0, since: this.#now() })
    this.#enqueue(denial, 1)
  }

  /** Records what was repeated for a minute; called now and then. */
  sweep(all = false): void {
    const now = this.#now()
    if (now >= this.#windowEnd || all) this.#beginWindow(now)
    for (const [key, entry] of this.#entries.entries()) {
      if (!all && now - entry.since < WINDOW_MS) continue
      if (entry.repeated === 0) {
        this.#entries.delete(key)
        continue
      }
      this.#enqueue(entry.denial, entry.repeated)
      entry.repeated = 0
      entry.since = now
    }
  }

  /** Returns when all that was counted so far is written, as far as the database takes it. */
  async flush(): Promise<void> {
    this.sweep(true)
    this.#beginWindow(this.#now())
    await this.#writing
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.flush()
  }

  #beginWindow(now: number): void {
    this.#windowEnd = now + WINDOW_MS
    this.#recorded = { 'access.denied': 0, 'login.failed': 0 }
    if (this.#unlisted === 0) return
    const requests = this.#unlisted
    this.#unlisted = 0
    this.#push({ principal: NOBODY, action: 'access.denied', name: UNLISTED, occurrences: requests })
  }

  #enqueue(denial: Denial, occurrences: number): void {
    if (this.#recorded[denial.action] >= this.#perWindow[denial.action]) {
      this.#leaveOut(occurrences)
      return
    }
    this.#recorded[denial.action] += 1
    this.#push({ ...denial, occurrences })
  }

  #leaveOut(requests: number): void {
    if (requests === 0) return
    this.#unlisted += requests
    this.#onUnlisted(requests)
  }

  #push(denial: Denial & { occurrences: number }): void {
    this.#queue.push(denial)
    this.#writing ??= this.#write()
  }

  /** One statement at a time, so that refused requests never take more than one connection. */
  async #write(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, BATCH)
      try {
        this.#instanceUid ??= (await getInstance(this.#db)).uid
        await insertAuditEvents(this.#db, batch.map(eventOf(this.#instanceUid)))
      } catch {
        this.#leaveOut(batch.reduce((sum, { occurrences }) => sum + occurrences, 0))
      }
    }
    this.#writing = undefined
  }
}

/** Stands for all that was denied and has no record of its own. */
const UNLISTED = 'others'
const NOBODY: Principal = { kind: 'anonymous', uid: null, tokenId: null, issuedByUid: null, requestId: null }

function eventOf(instanceUid: string) {
  return ({ streamUid, occurrences, ...denial }: Denial & { occurrences: number }): AuditEvent => ({
    ...denial,
    streamUid: streamUid ?? instanceUid,
    outcome: 'denied',
    ...(occurrences > 1 && { occurrences })
  })
}
