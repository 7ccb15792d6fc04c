import type { Kysely, Transaction } from 'kysely'
import type { Logger } from 'pino'
import { describeError } from '../logger.ts'
import {
  type ChainRow,
  type Examined,
  getSealerPosition,
  hasUnsealed,
  listEnds,
  listForeign,
  listSettled,
  type SealerPosition,
  type StreamHead,
  storeLinks,
  trySealerLock
} from '../store/audit-chain.ts'
import type { Database } from '../store/tables.ts'
import { append, genesis, type Head } from './chain.ts'

const INTERVAL_MS = 500
const PAUSE_AFTER_FAILURE_MS = 5_000
const CLOSE_PATIENCE_MS = 2_000
/** Hashing this many takes a few milliseconds, in which no request is answered. */
const BATCH = 500

export interface Batch {
  sealed: number
  /** whether more may wait */
  more: boolean
  /** streams whose end was not where it was recorded */
  altered: string[]
}

const NOTHING: Batch = { sealed: 0, more: false, altered: [] }

/**
 * Seals the next records, in one transaction: those whose transaction, and every earlier one, has ended. They are
 * taken in the order of transaction and id, so that nothing can appear behind what was sealed; and no writer
 * waits, since nothing that it touches is locked.
 */
export async function sealBatch(
  db: Kysely<Database>,
  instanceUid: string,
  limit: number = BATCH
): Promise<Batch> {
  return await db.transaction().execute(async (tx) => {
    if (!(await trySealerLock(tx))) return NOTHING
    const position = await getSealerPosition(tx)
    const { examined, next } =
      position.adopted_id === null
        ? await settled(tx, position, limit)
        : await adopted(tx, position, position.adopted_id, limit)
    const adoption = next.adopted_id !== position.adopted_id
    const { links, heads, altered } = await chain(tx, instanceUid, examined)
    if (examined.length > 0 || adoption) await storeLinks(tx, links, heads, next)
    return { sealed: links.length, more: examined.length === limit || adoption, altered }
  })
}

interface Step {
  examined: Examined[]
  next: SealerPosition
}

async function settled(tx: Transaction<Database>, position: SealerPosition, limit: number): Promise<Step> {
  const examined = await listSettled(tx, { ...position, limit })
  const last = examined.at(-1)
  const next = last ? { ...position, transaction_id: last.transaction_id, event_id: last.id } : position
  return { examined, next }
}

/** What a dump brought, from another cluster: in the order of ids, since its transactions mean nothing here. */
async function adopted(
  tx: Transaction<Database>,
  position: SealerPosition,
  after: number,
  limit: number
): Promise<Step> {
  const examined = await listForeign(tx, { after, limit })
  const adopted_id = examined.length < limit ? null : examined.at(-1)!.id
  return { examined, next: { ...position, adopted_id } }
}

async function chain(
  tx: Transaction<Database>,
  instanceUid: string,
  examined: readonly Examined[]
): Promise<{ links: ChainRow[]; heads: StreamHead[]; altered: string[] }> {
  const unsealed = examined.filter(isUnsealed)
  if (unsealed.length === 0) return { links: [], heads: [], altered: [] }
  const { ends, altered } = await findEnds(tx, instanceUid, new Set(unsealed.map((row) => row.stream_uid)))
  const links = unsealed.map(({ id, stream_uid, canonical }): ChainRow => {
    const head = append(ends.get(stream_uid)!, canonical)
    ends.set(stream_uid, head)
    return { event_id: id, stream_uid, ...head }
  })
  return { links, heads: [...ends].map(([stream_uid, head]) => ({ stream_uid, ...head })), altered }
}

function isUnsealed(examined: Examined): examined is Examined & { canonical: Buffer } {
  return examined.canonical !== null
}

/** Where each stream goes on: behind what is recorded as its end, and behind its last link. */
async function findEnds(
  tx: Transaction<Database>,
  instanceUid: string,
  streamUids: ReadonlySet<string>
): Promise<{ ends: Map<string, Head>; altered: string[] }> {
  const ends = new Map<string, Head>()
  const altered: string[] = []
  for (const { stream_uid, recorded, last } of await listEnds(tx, streamUids)) {
    const start = recorded ?? last ?? { sequence: 0, hash: genesis(instanceUid, stream_uid) }
    // A stream of which everything was removed after its time has an end and no link.
    const differs = last && (last.sequence !== start.sequence || !last.hash.equals(start.hash))
    if (differs || (last && !recorded)) altered.push(stream_uid)
    ends.set(stream_uid, last && last.sequence > start.sequence ? last : start)
  }
  return { ends, altered }
}

export interface SealerEvents {
  onSealed: (records: number) => void
  onFailure: () => void
}

/** Seals what was recorded, again and again, on every node; whichever comes first does it. */
export class Sealer {
  readonly #db: Kysely<Database>
  readonly #instanceUid: string
  readonly #events: SealerEvents
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(db: Kysely<Database>, instanceUid: string, events: SealerEvents, logger: Logger) {
    this.#db = db
    this.#instanceUid = instanceUid
    this.#events = events
    this.#logger = logger
  }

  start(): void {
    this.#next(0)
  }

  /** Seals what is left, as far as it is little, and ends. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
    await this.sealAll(performance.now() + CLOSE_PATIENCE_MS).catch((error) => this.#failed(error))
  }

  /** Seals all that can be sealed now, or until a time of `performance.now()`. */
  async sealAll(until = Number.POSITIVE_INFINITY): Promise<void> {
    while (performance.now() < until && (await hasUnsealed(this.#db))) {
      const { sealed, more, altered } = await sealBatch(this.#db, this.#instanceUid)
      if (sealed > 0) this.#events.onSealed(sealed)
      if (altered.length > 0) {
        this.#logger.error(
          { streams: altered },
          'the end of an audit stream was altered: run coffer audit verify'
        )
      }
      if (!more) return
    }
  }

  #next(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => {
      this.#running = this.#seal()
    }, delayMs)
    this.#timer.unref()
  }

  async #seal(): Promise<void> {
    try {
      await this.sealAll(this.#stopped ? 0 : undefined)
      this.#next(INTERVAL_MS)
    } catch (error) {
      this.#failed(error)
      this.#next(PAUSE_AFTER_FAILURE_MS)
    }
  }

  #failed(error: unknown): void {
    this.#events.onFailure()
    this.#logger.warn({ err: describeError(error) }, 'audit records could not be sealed')
  }
}
