import type { Static } from '@sinclair/typebox'
import { invalid } from './decode.ts'
import { SortOrder } from './filters.ts'
import { Message, Text } from './schema.ts'

export const Sort = Message('Sort', {
  field: Text({ max: 255, description: 'What a list says that it can be sorted by' }),
  order: SortOrder
})

/**
 * The order that is asked for; undefined: that of the list.
 *
 * @throws InvalidInput for a field that the list cannot be sorted by
 */
export function readOrder(
  sort: Static<typeof Sort> | undefined,
  ...fields: readonly string[]
): 'asc' | 'desc' | undefined {
  if (sort?.field && !fields.includes(sort.field)) {
    throw invalid('sort.field', `must be ${fields.join(' or ')}`)
  }
  if (sort?.order === undefined) return undefined
  return sort.order === 'SORT_ORDER_DESC' ? 'desc' : 'asc'
}
