import { canonicalName } from '../../secrets/names.ts'
import { printTable } from '../terminal.ts'
import type { Refusal, Variable } from './env-file.ts'

/** What an import would do with a line of the file; never a value. */
export interface PreviewRow {
  line: number
  name: string | null
  bytes: number | null
  action: 'create' | 'update' | 'refuse'
  /** of a refusal */
  reason: string | null
  note: string | null
}

export function previewOf(
  variables: readonly Variable[],
  refusals: readonly Refusal[],
  present: ReadonlySet<string>
): PreviewRow[] {
  const rows: PreviewRow[] = [
    ...variables.map(({ line, name, value, note = null }) => ({
      line,
      name,
      bytes: value.length,
      action: present.has(name) ? ('update' as const) : ('create' as const),
      reason: null,
      note
    })),
    ...refusals.map(({ line, name, reason }) => ({
      line,
      name: name === undefined ? null : canonicalName(name),
      bytes: null,
      action: 'refuse' as const,
      reason,
      note: null
    }))
  ]
  return rows.sort((a, b) => a.line - b.line)
}

export function printPreview(rows: readonly PreviewRow[]): void {
  printTable(
    ['LINE', 'NAME', 'BYTES', 'ACTION', ''],
    rows.map(({ line, name, bytes, action, reason, note }) => [
      String(line),
      name ?? '',
      bytes === null ? '' : String(bytes),
      action,
      reason ?? note ?? ''
    ])
  )
}
