import { InvalidInput } from '../errors.ts'

/** Values that must be there, any of them, and values that must not. */
export interface Terms {
  any: string[]
  none: string[]
}

/** What a search phrase asks for. All qualifiers must hold. */
export interface AuditFilter {
  /** names of actions, or `secret.*` for all that begin so */
  action: Terms
  /** logins, in lower case */
  actor: Terms
  /** OWNER/NAME, in lower case */
  repo: Terms
  /** logins of the accounts whose log it is, in lower case */
  org: Terms
  outcome: Terms
  /** from, inclusive */
  since?: Date
  /** to, exclusive */
  until?: Date
}

export const QUALIFIERS = ['action', 'actor', 'created', 'org', 'outcome', 'repo'] as const
type Qualifier = (typeof QUALIFIERS)[number]
const ALIASES: Readonly<Record<string, Qualifier>> = { repository: 'repo', user: 'org' }

const MAX_LENGTH = 2_000
const MAX_TERMS = 30
const TERM = /\s*(-?)(?:([A-Za-z_]+):)?(?:"([^"]*)"|([^\s"]+))(?=\s|$)/y

const OUTCOMES = ['allowed', 'denied']
const VALUE: Record<Exclude<Qualifier, 'created'>, RegExp> = {
  action: /^[a-z_]+(?:\.[a-z_-]+)*(?:\.\*)?$/,
  actor: /^[a-z0-9_[\]-]{1,100}$/,
  repo: /^[a-z0-9_-]{1,100}\/[a-z0-9._-]{1,100}$/,
  org: /^[a-z0-9_-]{1,100}$/,
  outcome: new RegExp(`^(?:${OUTCOMES.join('|')})$`)
}
const FORM: Record<Exclude<Qualifier, 'created'>, string> = {
  action: 'action is the name of an action such as secret.create, or secret.* for all that begin so',
  actor: 'actor is a login',
  repo: 'repo is OWNER/NAME',
  org: 'org is the login of an organization or a user',
  outcome: `outcome is ${OUTCOMES.join(' or ')}`
}

function refuse(message: string): InvalidInput {
  return new InvalidInput('Validation Failed', [
    { field: 'phrase', code: 'custom', message: `phrase: ${message}` }
  ])
}

const HOW = `write QUALIFIER:VALUE, with one of the qualifiers ${QUALIFIERS.join(', ')}`

function none(): Terms {
  return { any: [], none: [] }
}

/**
 * Reads a search phrase in GitHub's form: `action:secret.create -actor:mona created:>=2026-11-01 repo:mona/web`.
 * The same qualifier twice means either; a minus before it means none of these.
 *
 * @throws InvalidInput naming the rule; there are no free words, since nobody could say what they are looked for in
 */
export function parsePhrase(phrase: string): AuditFilter {
  if (phrase.length > MAX_LENGTH) throw refuse(`it is longer than ${MAX_LENGTH} characters`)
  const filter: AuditFilter = { action: none(), actor: none(), repo: none(), org: none(), outcome: none() }
  const text = phrase.trim()
  let terms = 0
  for (TERM.lastIndex = 0; TERM.lastIndex < text.length; ) {
    const [found, minus, name, quoted, plain] = TERM.exec(text) ?? []
    if (found === undefined) throw refuse(`a quotation mark is out of place; ${HOW}`)
    if (name === undefined) throw refuse(`a word has no qualifier; ${HOW}`)
    if (++terms > MAX_TERMS) throw refuse(`it has more than ${MAX_TERMS} terms`)
    addTerm(filter, name.toLowerCase(), quoted ?? plain!, minus === '-')
  }
  return filter
}

function addTerm(filter: AuditFilter, name: string, value: string, negated: boolean): void {
  const qualifier = QUALIFIERS.find((known) => known === (ALIASES[name] ?? name))
  if (!qualifier) throw refuse(`a qualifier is unknown; ${HOW}`)
  if (qualifier === 'created') {
    if (negated) throw refuse('created cannot be negated; give the other side of the range')
    narrow(filter, parseRange(value))
    return
  }
  const term = value.toLowerCase()
  if (!VALUE[qualifier].test(term)) throw refuse(FORM[qualifier])
  // As GitHub has it, a category stands for all its actions.
  const category = qualifier === 'action' && !term.includes('.')
  filter[qualifier][negated ? 'none' : 'any'].push(category ? `${term}.*` : term)
}

// ---- time ----

interface Range {
  since?: Date
  until?: Date
}

function narrow(filter: AuditFilter, { since, until }: Range): void {
  if (since && (!filter.since || since > filter.since)) filter.since = since
  if (until && (!filter.until || until < filter.until)) filter.until = until
}

/** `>=T`, `>T`, `<=T`, `<T`, `A..B` (both inclusive, `*` for no end), or `T`: all of that day, minute or second. */
function parseRange(value: string): Range {
  const between = /^(.+?)\.\.(.+)$/.exec(value)
  if (between) {
    const [, from, to] = between
    return {
      ...(from !== '*' && { since: parseTime(from!).start }),
      ...(to !== '*' && { until: parseTime(to!).end })
    }
  }
  const [, comparison, time] = /^(>=|<=|>|<)?(.*)$/.exec(value)!
  const { start, end } = parseTime(time!)
  switch (comparison) {
    case '>=':
      return { since: start }
    case '>':
      return { since: end }
    case '<':
      return { until: start }
    case '<=':
      return { until: end }
    default:
      return { since: start, until: end }
  }
}

const DAY = /^\d{4}-\d{2}-\d{2}$/
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::(\d{2})(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?$/
const DAY_MS = 86_400_000

/** A time is as long as it is exact: a day, a minute, a second or a millisecond. */
function parseTime(text: string): { start: Date; end: Date } {
  const time = TIME.exec(text)
  const day = DAY.test(text)
  // Without a zone it is UTC.
  const start = new Date(day ? `${text}T00:00:00Z` : time?.[3] ? text : `${text}Z`)
  const valid = (day || time) && !Number.isNaN(start.getTime()) && isOnCalendar(text)
  if (!valid) {
    throw refuse(
      'created is a time such as 2026-11-21 or 2026-11-21T08:30:00Z, after >=, >, <= or <, or two of them around ..'
    )
  }
  const length = day ? DAY_MS : time![2] ? 1 : time![1] ? 1_000 : 60_000
  return { start, end: new Date(start.getTime() + length) }
}

/** JavaScript takes 2026-02-30 for the 2nd of March. */
function isOnCalendar(text: string): boolean {
  const day = text.slice(0, 10)
  return new Date(`${day}T00:00:00Z`).toISOString().startsWith(day)
}
