import { parse } from 'dotenv'
import { canonicalName, requireGitHubName } from '../../secrets/names.ts'

/** A variable of a file, as a secret. */
export interface Variable {
  line: number
  /** in upper case, as the server has it */
  name: string
  value: Buffer
  /** what a person may not expect of the value */
  note?: string
}

/** What cannot be a secret; a line that is no assignment has no name. */
export interface Refusal {
  line: number
  name?: string
  reason: string
}

/** What GitHub takes at most; Coffer's limit is configuration. */
const GITHUB_VALUE_BYTES = 49_152

const NOTHING = /^\s*(#|$)/
const ASSIGNMENT = /^\s*(?:export\s+)?([\w.-]+)(?:\s*=|:(?=\s))/
const REST_IS_NOTHING = /[^\S\n]*(?:#.*)?$/my

/**
 * The variables of a `.env` file. What a value is, the dotenv package says: quotes of three kinds, `export`,
 * comments, several lines in quotes, \n in double quotes, `$` left alone. Where it would silently skip a line, cut
 * a value or let the last of two win, the line is refused instead. No reason quotes a value.
 */
export function parseEnvFile(bytes: Uint8Array): { variables: Variable[]; refusals: Refusal[] } {
  const refusals: Refusal[] = []
  const variables: Variable[] = []
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes).replace(/\r\n?/g, '\n')
  } catch {
    const reason = 'the file is not UTF-8; set such values one by one, with coffer secret set --value-file'
    return { variables, refusals: [{ line: 1, reason }] }
  }
  for (let start = 0, line = 1; start < text.length; ) {
    const statement = readStatement(text, start)
    if (statement.kind === 'refused') refusals.push({ line, ...nameOf(statement), reason: statement.reason })
    if (statement.kind === 'assignment') {
      const reason = refusalOfName(statement.name)
      const parsed = parse(statement.text)
      const value = Object.hasOwn(parsed, statement.name) ? parsed[statement.name] : undefined
      if (reason !== undefined) refusals.push({ line, name: statement.name, reason })
      else if (value === undefined) refusals.push({ line, name: statement.name, reason: 'it cannot be read' })
      else
        variables.push({ line, name: canonicalName(statement.name), ...describeValue(value, statement.text) })
    }
    line += text.slice(start, statement.end).split('\n').length - 1
    start = statement.end
  }
  const repeated = findRepeated(variables)
  return {
    variables: variables.filter(({ name }) => !repeated.has(name)),
    refusals: [...refusals, ...repeated.values()].sort((a, b) => a.line - b.line)
  }
}

/** With the line break after it. */
type Statement =
  | { kind: 'nothing'; end: number }
  | { kind: 'assignment'; end: number; name: string; text: string }
  | { kind: 'refused'; end: number; name?: string; reason: string }

function readStatement(text: string, start: number): Statement {
  const lineEnd = endOfLine(text, start)
  const line = text.slice(start, lineEnd)
  if (NOTHING.test(line)) return { kind: 'nothing', end: lineEnd + 1 }
  const [assigned, name] = ASSIGNMENT.exec(line) ?? []
  if (assigned === undefined || name === undefined) {
    return { kind: 'refused', end: lineEnd + 1, reason: 'it is no assignment of the form NAME=VALUE' }
  }
  const rest = line.slice(assigned.length)
  const opening = start + assigned.length + rest.search(/\S|$/)
  if (/["'`]/.test(text[opening] ?? '')) {
    const closing = findClosingQuote(text, opening)
    if (closing === undefined) {
      const reason = 'its quote is not closed, or something follows the closing one'
      return { kind: 'refused', end: lineEnd + 1, name, reason }
    }
    return {
      kind: 'assignment',
      end: endOfLine(text, closing) + 1,
      name,
      text: text.slice(start, closing + 1)
    }
  }
  if (/^#|\S#/.test(rest.replace(/\s#.*$/, ''))) {
    const reason = 'a # in it would begin a comment: put the value in quotes, or a space before the comment'
    return { kind: 'refused', end: lineEnd + 1, name, reason }
  }
  return { kind: 'assignment', end: lineEnd + 1, name, text: line }
}

/** The first quote of its kind without a backslash before it, or else one with, at the end of the first line. */
function findClosingQuote(text: string, opening: number): number | undefined {
  const quote = text[opening]!
  for (let at = text.indexOf(quote, opening + 1); at !== -1; at = text.indexOf(quote, at + 1)) {
    if (text[at - 1] === '\\') continue
    if (nothingFollows(text, at)) return at
    break
  }
  const last = text.lastIndexOf(quote, endOfLine(text, opening))
  return last > opening && nothingFollows(text, last) ? last : undefined
}

function nothingFollows(text: string, quote: number): boolean {
  REST_IS_NOTHING.lastIndex = quote + 1
  return REST_IS_NOTHING.test(text)
}

function endOfLine(text: string, from: number): number {
  const end = text.indexOf('\n', from)
  return end === -1 ? text.length : end
}

function nameOf({ name }: { name?: string }): { name?: string } {
  return name === undefined ? {} : { name }
}

function refusalOfName(name: string): string | undefined {
  try {
    requireGitHubName(name)
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

function describeValue(text: string, statement: string): { value: Buffer; note?: string } {
  const value = Buffer.from(text, 'utf8')
  const notes = [
    ...(value.length === 0 ? ['empty'] : []),
    ...(value.length > GITHUB_VALUE_BYTES ? ["more than GitHub's 48 KB"] : []),
    ...(/\\["'`\\]/.test(statement) && /[=:]\s*["'`]/.test(statement) ? ['backslashes are kept'] : []),
    ...(/\$[\w{]/.test(text) ? ['$ is not expanded'] : [])
  ]
  return { value, ...(notes.length > 0 && { note: notes.join('; ') }) }
}

/** By name: one refusal for each name that comes twice. */
function findRepeated(variables: readonly Variable[]): Map<string, Refusal> {
  const lines = new Map<string, number[]>()
  for (const { name, line } of variables) lines.set(name, [...(lines.get(name) ?? []), line])
  return new Map(
    [...lines]
      .filter(([, each]) => each.length > 1)
      .map(([name, each]) => {
        const reason = `it comes ${each.length} times, in lines ${each.join(', ')}; names have no case`
        return [name, { line: each[0]!, name, reason }]
      })
  )
}
