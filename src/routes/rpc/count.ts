import type { Static } from '@sinclair/typebox'
import type { Page } from './pagination.ts'
import { compact } from './present.ts'
import { Bool, Enum, Int32, Message } from './schema.ts'

/** So many are counted; of more it is said that there are at least so many. */
const MAX_COUNT = 1000

export const CountRequest = Message('CountRequest', {
  include: Bool({ description: 'Count what the list has, with its first page' })
})

export const CountResponse = Message('CountResponse', {
  value: Int32(),
  relation: Enum('COUNT_RESPONSE_RELATION', { COUNT_RESPONSE_RELATION_EQ: 1, COUNT_RESPONSE_RELATION_GTE: 2 })
})

/**
 * How much a list has, where that is asked for with its first page.
 *
 * @param countUpTo counts, one more than that at most
 */
export async function count(
  input: { count?: Static<typeof CountRequest> },
  page: Pick<Page<unknown>, 'after'>,
  countUpTo: (atMost: number) => Promise<number>
): Promise<Static<typeof CountResponse> | undefined> {
  if (!input.count?.include || page.after !== undefined) return undefined
  const total = await countUpTo(MAX_COUNT)
  return compact({
    value: Math.min(total, MAX_COUNT),
    relation: total > MAX_COUNT ? 'COUNT_RESPONSE_RELATION_GTE' : 'COUNT_RESPONSE_RELATION_EQ'
  } as const)
}
