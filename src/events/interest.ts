import type { ResourceEvent } from './resources.ts'

/** What a stream is about. */
export interface Interest {
  /** this environment alone; undefined: all of the organization that may be seen */
  environmentUid?: string | undefined
  /** what fits one of these; empty: everything */
  filters: readonly EventFilter[]
}

export interface EventFilter {
  type: string
  /** empty: whichever */
  uids: ReadonlySet<string>
  /** empty: whoever */
  creatorUids: ReadonlySet<string>
}

function fits({ type, uids }: EventFilter, event: ResourceEvent): boolean {
  return type === event.type && (uids.size === 0 || uids.has(event.uid))
}

/** Whether a stream is about an event, as far as that tells itself. */
export function isOfInterest({ environmentUid, filters }: Interest, event: ResourceEvent): boolean {
  if (environmentUid !== undefined) {
    return event.type === 'RESOURCE_TYPE_ENVIRONMENT' && event.uid === environmentUid
  }
  return filters.length === 0 || filters.some((filter) => fits(filter, event))
}

/** Whether it depends on who created the thing. */
export function wantsCreator({ filters }: Interest, event: ResourceEvent): boolean {
  return filters.some((filter) => filter.creatorUids.size > 0 && fits(filter, event))
}

/** The same with its creator. Of what is gone nobody knows it, and any will do; of what is there, it must be known. */
export function isOfCreator(
  { filters }: Interest,
  event: ResourceEvent,
  creator: string | undefined
): boolean {
  if (filters.length === 0 || event.operation === 'RESOURCE_OPERATION_DELETE') return true
  return filters.some(
    (filter) =>
      fits(filter, event) &&
      (filter.creatorUids.size === 0 || (creator !== undefined && filter.creatorUids.has(creator)))
  )
}
