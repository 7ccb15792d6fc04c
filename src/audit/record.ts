import { CANONICAL_FORMS, type CanonicalColumn } from '../store/audit.ts'

/** The columns of a record, as its canonical form writes them: bytes in hexadecimal, times in ISO 8601. */
export type Columns = Record<CanonicalColumn, string | number | null>

const COLUMNS = CANONICAL_FORMS['coffer/audit/v2']

/** The columns that canonical bytes stand for; undefined when they are of no form that is known. */
export function parseCanonical(canonical: Uint8Array): Columns | undefined {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(canonical))
  } catch {
    return undefined
  }
  if (!Array.isArray(value)) return undefined
  const [label, ...members] = value
  if (!Object.hasOwn(CANONICAL_FORMS, label)) return undefined
  const form: readonly CanonicalColumn[] = CANONICAL_FORMS[label as keyof typeof CANONICAL_FORMS]
  if (members.length !== form.length) return undefined
  return Object.fromEntries(
    COLUMNS.map((column) => [column, form.includes(column) ? members[form.indexOf(column)] : null])
  ) as Columns
}

/** The first column that is not what the canonical bytes say; undefined when all are. */
export function differingColumn(
  columns: Readonly<Record<string, unknown>>,
  canonical: Columns
): string | undefined {
  return COLUMNS.find((column) => columns[column] !== canonical[column])
}
