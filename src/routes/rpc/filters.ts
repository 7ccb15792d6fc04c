import { Enum, List, Text, Uuid } from './schema.ts'

// What several lists are filtered by, and in which order they come.

export const Ids = List(Uuid({ required: true }), { max: 25 })

export const SortOrder = Enum('SORT_ORDER', { SORT_ORDER_ASC: 1, SORT_ORDER_DESC: 2 })

export function Search(where: string) {
  return Text({ max: 256, description: `In ${where}, whatever the case` })
}

/** Some of the list, or all. */
export function some<T>(list: readonly T[] | undefined): readonly T[] | undefined {
  return list && list.length > 0 ? list : undefined
}
