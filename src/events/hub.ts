import type { Kysely } from 'kysely'
import type { Authenticator } from '../auth/authenticate.ts'
import { Unavailable } from '../errors.ts'
import type { Acting } from '../store/acting.ts'
import type { Database } from '../store/tables.ts'
import { type ActingNow, findActingNow, findCreator, listSeen } from '../store/watchers.ts'
import { type Interest, isOfCreator, isOfInterest, wantsCreator } from './interest.ts'
import { type ResourceEvent, readEvent } from './resources.ts'
import { MAX_SIGHTINGS, Sightings } from './sightings.ts'
import { maySee, projectOf, type Standing, type Watcher } from './visibility.ts'

/** Where the database tells what was recorded, when it commits. */
export const EVENTS_CHANNEL = 'coffer_events'

const KEEPALIVE_MS = 20_000
/** Events that wait for a query; past them streams end, and who watches reads again. */
const MAX_WAITING = 10_000
/** So many events about one project share a query. */
const MAX_BATCH = 500
/** So many viewers are looked up at once. */
const MAX_CHECKED = 1_000
/** What a timer can wait for; tokens that live longer are found out at a keepalive. */
const MAX_TIMER_MS = 2 ** 31 - 1

export interface StreamRequest extends Watcher, Interest {
  acting: Acting
  /** the token's hash as base64 */
  tokenKey: string
}

/** Where a stream leads. */
export interface Sink {
  send(event: ResourceEvent): void
  keepAlive(): void
  end(): void
}

interface Stream extends Interest {
  viewer: Viewer
  sink: Sink
}

/** A token with its streams: who may see what is asked for once for all of them. */
interface Viewer extends Watcher {
  acting: Acting
  tokenKey: string
  streams: Set<Stream>
  expiry: NodeJS.Timeout | undefined
}

export interface HubOptions {
  keepaliveMs?: number
  /** who may know of an event could not be found out */
  onError?: (error: unknown) => void
  /** so many streams are open now */
  onStreams?: (streams: number) => void
}

/**
 * Leads what the database tells to the streams of this server. Who may know of an event is asked for when it is told;
 * a stream ends when its token does, when that acts elsewhere, and when events may have been missed.
 */
export class EventHub {
  readonly #db: Kysely<Database>
  readonly #authenticator: Pick<Authenticator, 'isValid'>
  readonly #options: HubOptions
  readonly #timer: NodeJS.Timeout
  /** by id of the token */
  readonly #viewers = new Map<number, Viewer>()
  /** by uid of the account whose log they watch: the organization's, and their own */
  readonly #watching = new Map<string, Set<Viewer>>()
  readonly #sightings = new Sightings<Viewer>()
  #waiting: ResourceEvent[] = []
  #telling = false
  #checking = false
  #closed = false
  #streams = 0

  constructor(db: Kysely<Database>, authenticator: Pick<Authenticator, 'isValid'>, options: HubOptions = {}) {
    this.#db = db
    this.#authenticator = authenticator
    this.#options = options
    this.#timer = setInterval(() => this.#keepAlive(), options.keepaliveMs ?? KEEPALIVE_MS)
    this.#timer.unref()
  }

  /**
   * Prepares a stream; what it gives begins it, and gives what is to be called when its reader has left.
   *
   * @throws Unavailable when the server closes
   */
  async admit(request: StreamRequest): Promise<(sink: Sink) => () => void> {
    if (this.#closed) throw new Unavailable()
    const seen = await this.#listSeen(request)
    return (sink) => {
      const stream = this.#begin(request, sink)
      for (const uid of seen) this.#sightings.add(stream.viewer, uid)
      return () => this.#remove(stream)
    }
  }

  /** One notification. */
  receive(payload: string): void {
    const event = readEvent(payload)
    if (!event || !this.#watching.has(event.streamUid)) return
    if (this.#waiting.length >= MAX_WAITING) this.reset()
    else this.#waiting.push(event)
    if (!this.#telling) void this.#tellWaiting()
  }

  /** Ends the streams of tokens that were revoked: hashes as base64. */
  forget(hashes: Iterable<string>): void {
    const revoked = new Set(hashes)
    for (const viewer of [...this.#viewers.values()]) {
      if (revoked.has(viewer.tokenKey)) this.#end(viewer)
    }
  }

  /** Ends all streams, because events may have been missed: who watches comes back and reads again. */
  reset(): void {
    this.#waiting = []
    for (const viewer of [...this.#viewers.values()]) this.#end(viewer)
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
    this.reset()
  }

  /** Owners see everything, whatever it was; others what they saw last. */
  async #listSeen({ acting, actor, organization }: StreamRequest): Promise<string[]> {
    if (organization.role === 'admin' || this.#viewers.has(acting.tokenId)) return []
    const seen = { ...acting, actorUid: actor.accountUid, limit: MAX_SIGHTINGS }
    const rows = await listSeen(this.#db, seen)
    return rows.map(({ uid }) => uid).reverse()
  }

  #begin({ environmentUid, filters, ...watcher }: StreamRequest, sink: Sink): Stream {
    const stream = { viewer: this.#viewerOf(watcher), environmentUid, filters, sink }
    stream.viewer.streams.add(stream)
    this.#count(1)
    if (this.#closed) this.#end(stream.viewer)
    return stream
  }

  #viewerOf(watcher: Omit<Viewer, 'streams' | 'expiry'>): Viewer {
    const { acting, actor, organization } = watcher
    const known = this.#viewers.get(acting.tokenId)
    if (known?.organization.organization_uid === organization.organization_uid) return known
    // The token acts elsewhere now.
    if (known) this.#end(known)
    const viewer: Viewer = { ...watcher, streams: new Set(), expiry: undefined }
    this.#viewers.set(acting.tokenId, viewer)
    for (const uid of this.#accountsOf(viewer)) {
      this.#watching.set(uid, (this.#watching.get(uid) ?? new Set()).add(viewer))
    }
    const { expiresAt } = actor.token
    const lifetimeMs = expiresAt === null ? Number.POSITIVE_INFINITY : expiresAt.getTime() - Date.now()
    if (lifetimeMs <= MAX_TIMER_MS) {
      viewer.expiry = setTimeout(() => this.#end(viewer), lifetimeMs)
      viewer.expiry.unref()
    }
    return viewer
  }

  #accountsOf({ organization, actor }: Watcher): string[] {
    return [organization.organization_uid, actor.accountUid]
  }

  #end(viewer: Viewer): void {
    for (const stream of [...viewer.streams]) {
      this.#remove(stream)
      stream.sink.end()
    }
  }

  #remove(stream: Stream): void {
    const { viewer } = stream
    if (!viewer.streams.delete(stream)) return
    this.#count(-1)
    if (viewer.streams.size > 0) return
    clearTimeout(viewer.expiry)
    this.#viewers.delete(viewer.acting.tokenId)
    this.#sightings.forget(viewer)
    for (const uid of this.#accountsOf(viewer)) {
      const viewers = this.#watching.get(uid)
      viewers?.delete(viewer)
      if (viewers?.size === 0) this.#watching.delete(uid)
    }
  }

  #count(difference: 1 | -1): void {
    this.#streams += difference
    this.#options.onStreams?.(this.#streams)
  }

  /** One batch after the other, so that each stream has its events in the order in which they were committed. */
  async #tellWaiting(): Promise<void> {
    this.#telling = true
    for (let batch = this.#takeBatch(); batch[0]; batch = this.#takeBatch()) {
      try {
        await this.#tell(batch)
      } catch (error) {
        this.#options.onError?.(error)
        for (const viewer of [...(this.#watching.get(batch[0].streamUid) ?? [])]) this.#end(viewer)
      }
    }
    this.#telling = false
  }

  /** What waits and is about the same project. */
  #takeBatch(): ResourceEvent[] {
    const [first] = this.#waiting
    if (!first) return []
    const project = projectOf(first)
    const other = this.#waiting.findIndex(
      (event) => event.streamUid !== first.streamUid || projectOf(event) !== project
    )
    return this.#waiting.splice(0, Math.min(other < 0 ? this.#waiting.length : other, MAX_BATCH))
  }

  async #tell(batch: readonly ResourceEvent[]): Promise<void> {
    const first = batch[0]!
    const viewers = [...(this.#watching.get(first.streamUid) ?? [])].filter(({ streams }) =>
      batch.some((event) => [...streams].some((stream) => isOfInterest(stream, event)))
    )
    const now = await this.#findActing(viewers, projectOf(first))
    for (const event of batch) {
      const creator =
        this.#needsCreator(event, now) && (await findCreator(this.#db, event.createdIn!, event.uid))
      for (const [viewer, acting] of now) this.#show(viewer, acting, event, creator || undefined)
    }
  }

  /** Where viewers act now; the streams of those who do no longer in the same organization end. */
  async #findActing(viewers: readonly Viewer[], projectUid: string | null): Promise<Map<Viewer, ActingNow>> {
    const now = new Map<Viewer, ActingNow>()
    for (let start = 0; start < viewers.length; start += MAX_CHECKED) {
      const some = viewers.slice(start, start + MAX_CHECKED)
      const acting = some.map((viewer) => viewer.acting)
      const found = await findActingNow(this.#db, acting, projectUid)
      for (const viewer of some) {
        const row = found.get(viewer.acting.tokenId)
        if (row?.organization_uid === viewer.organization.organization_uid) now.set(viewer, row)
        else this.#end(viewer)
      }
    }
    return now
  }

  #needsCreator(event: ResourceEvent, now: ReadonlyMap<Viewer, ActingNow>): boolean {
    if (!event.createdIn || event.operation === 'RESOURCE_OPERATION_DELETE') return false
    if (event.type === 'RESOURCE_TYPE_ENVIRONMENT') return true
    return [...now.keys()].some(({ streams }) => [...streams].some((stream) => wantsCreator(stream, event)))
  }

  /** Sends an event to a viewer's streams, as far as it may be seen and they are about it. */
  #show(viewer: Viewer, acting: ActingNow, event: ResourceEvent, creator: string | undefined): void {
    const standing = this.#standingOf(viewer, acting, event, creator)
    this.#remember(viewer, acting, event, standing)
    if (!maySee(viewer, event, standing)) return
    for (const stream of [...viewer.streams]) {
      if (isOfInterest(stream, event) && isOfCreator(stream, event, creator)) stream.sink.send(event)
    }
  }

  #standingOf(
    viewer: Viewer,
    { role, project_role, project_here }: ActingNow,
    event: ResourceEvent,
    creator: string | undefined
  ): Standing {
    const { accountUid } = viewer.actor
    const project = projectOf(event)
    const gone = project !== null && !project_here
    const lastRole = role === 'admin' ? 'admin' : this.#sightings.has(viewer, project ?? '') ? 'user' : null
    const ownEnvironment =
      event.uid === accountUid ||
      (creator === undefined ? this.#sightings.has(viewer, event.uid) : creator === accountUid)
    return { role, projectRole: gone ? lastRole : project_role, ownEnvironment }
  }

  #remember(
    viewer: Viewer,
    { role, project_here }: ActingNow,
    event: ResourceEvent,
    { projectRole, ownEnvironment }: Standing
  ): void {
    const project = projectOf(event)
    const isEnvironment = event.type === 'RESOURCE_TYPE_ENVIRONMENT'
    if (role === 'admin' || (project === null && !isEnvironment)) return
    const uid = project ?? event.uid
    const sees = isEnvironment ? ownEnvironment : projectRole !== null
    const removed = event.uid === uid && event.operation === 'RESOURCE_OPERATION_DELETE'
    if (removed || !sees) this.#sightings.remove(viewer, uid)
    else if (isEnvironment || project_here) this.#sightings.add(viewer, uid)
  }

  #keepAlive(): void {
    for (const { streams } of this.#viewers.values()) {
      for (const { sink } of [...streams]) sink.keepAlive()
    }
    if (!this.#checking) void this.#check()
  }

  /** Ends the streams of tokens that are not valid any more, whatever was heard of it. */
  async #check(): Promise<void> {
    this.#checking = true
    try {
      for (const viewer of [...this.#viewers.values()]) {
        if (!(await this.#authenticator.isValid(viewer.tokenKey))) this.#end(viewer)
      }
      await this.#findActing([...this.#viewers.values()], null)
    } catch (error) {
      this.#options.onError?.(error)
    }
    this.#checking = false
  }
}
