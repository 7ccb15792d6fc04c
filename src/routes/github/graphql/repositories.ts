import type { RepositoryFacts, RepositoryFilter } from '../../../store/repositories.ts'
import { fieldError } from './errors.ts'
import { MAX_PAGE } from './limits.ts'
import type { Lookups } from './lookups.ts'

type Affiliation = 'OWNER' | 'COLLABORATOR' | 'ORGANIZATION_MEMBER'

export interface ConnectionArguments {
  first?: number | null
  after?: string | null
  privacy?: 'PRIVATE' | 'PUBLIC' | null
  isFork?: boolean | null
  affiliations?: readonly (Affiliation | null)[] | null
  ownerAffiliations?: readonly (Affiliation | null)[] | null
  orderBy?: { field: OrderField; direction: 'ASC' | 'DESC' } | null
}

/** Nobody pushes here, and nothing has stars. */
const ORDER = {
  NAME: 'name_key',
  CREATED_AT: 'created_at',
  UPDATED_AT: 'updated_at',
  PUSHED_AT: 'updated_at',
  STARGAZERS: undefined
} as const
type OrderField = keyof typeof ORDER

/** Cursors are opaque to clients; ours say how many entries there are up to and with this one. */
function cursorAt(position: number): string {
  return Buffer.from(`cursor:v2:${position}`).toString('base64')
}

function readCursor(cursor: string | null | undefined): number {
  if (cursor === null || cursor === undefined) return 0
  const [, position] = /^cursor:v2:([0-9]{1,9})$/.exec(Buffer.from(cursor, 'base64').toString('latin1')) ?? []
  if (position === undefined) {
    throw fieldError('INVALID_CURSOR_ARGUMENTS', '`after` does not appear to be a valid cursor.')
  }
  return Number(position)
}

function readFirst(first: number | null | undefined): number {
  if (first === null || first === undefined) {
    throw fieldError(
      'MISSING_PAGINATION_BOUNDARIES',
      'You must provide a `first` value to properly paginate the `repositories` connection.'
    )
  }
  if (first < 0 || first > MAX_PAGE) {
    throw fieldError(
      'EXCESSIVE_PAGINATION',
      `The \`first\` value of the \`repositories\` connection must be from 0 to ${MAX_PAGE}.`
    )
  }
  return first
}

function includesOwner(affiliations: ConnectionArguments['affiliations']): boolean {
  return !affiliations || affiliations.includes('OWNER')
}

function readOrder({ orderBy }: ConnectionArguments): RepositoryFilter['order'] {
  const by = orderBy ? ORDER[orderBy.field] : undefined
  return by && { by, descending: orderBy?.direction === 'DESC' }
}

/** The repositories that an account owns and the actor sees, in GitHub's form of a page. */
export async function connectRepositories(lookups: Lookups, ownerId: number, args: ConnectionArguments) {
  const limit = readFirst(args.first)
  const offset = readCursor(args.after)
  // None is a fork, and of those of others this account is not the owner.
  const empty = args.isFork || !includesOwner(args.affiliations) || !includesOwner(args.ownerAffiliations)
  const { total, repositories } = empty
    ? { total: 0, repositories: [] as RepositoryFacts[] }
    : await lookups.repositories({
        ownerId,
        ...(args.privacy && { visibility: args.privacy === 'PRIVATE' ? 'private' : 'public' }),
        order: readOrder(args),
        limit,
        offset
      })
  const edges = repositories.map((node, index) => ({ cursor: cursorAt(offset + index + 1), node }))
  return {
    totalCount: total,
    nodes: repositories,
    edges,
    pageInfo: {
      hasPreviousPage: offset > 0,
      hasNextPage: offset + repositories.length < total,
      startCursor: edges[0]?.cursor,
      endCursor: edges.at(-1)?.cursor
    }
  }
}
