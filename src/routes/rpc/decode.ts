import { isUtf8 } from 'node:buffer'
import type { Static, TObject, TSchema } from '@sinclair/typebox'
import { InvalidInput, UnreadableBody, type Violation } from '../../errors.ts'
import type { Annotations } from './schema.ts'

/**
 * Reads proto3 JSON: names in lowerCamelCase or snake_case, enumerations by name or number, null as unset, unknown
 * members ignored; and checks what the schema asks for. All that is wrong is told at once, by field and rule, and
 * never by what was sent.
 */

type Schema = TSchema & Annotations

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const DURATION = /^(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s$/
const TIMESTAMP =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})$/
const MAX_UINT64 = 18_446_744_073_709_551_615n
const MIN_INT32 = -2_147_483_648
const MAX_INT32 = 2_147_483_647
/** Ten thousand years: what protobuf's Duration holds. */
const MAX_DURATION_SECONDS = 315_576_000_000

/** So many are told at most. */
const MAX_VIOLATIONS = 20

/** @throws UnreadableBody unless the bytes are a JSON object, or none at all */
export function parseBody(bytes: Buffer): object {
  if (bytes.length === 0) return {}
  // What is no UTF-8 would be replaced silently.
  if (!isUtf8(bytes)) throw new UnreadableBody('The body is not UTF-8.')
  let body: unknown
  try {
    body = JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new UnreadableBody('The body is not JSON.')
  }
  if (isObject(body)) return body
  throw new UnreadableBody('The body is not a JSON object.')
}

/** @throws InvalidInput with a violation for each rule that is broken */
export function decode<T extends TObject>(schema: T, body: object): Static<T> {
  const findings = new Findings()
  const message = readMessage(schema as unknown as Schema, body as Record<string, unknown>, '', findings)
  if (findings.violations.length > 0) throw violated(findings.violations)
  return message as Static<T>
}

/** One thing that is wrong with a field, found where it is used. */
export function invalid(field: string, message: string): InvalidInput {
  return violated([{ field, message, code: 'invalid' }])
}

function violated(violations: readonly Violation[]): InvalidInput {
  return new InvalidInput(
    violations.map(({ field, message }) => `${field}: ${message}`).join('; '),
    violations
  )
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A value that may be read, or what is wrong with it: the rule in words. */
type Read = { value: unknown } | { rule: string }

/** What is wrong, as far as it is told. */
class Findings {
  readonly violations: Violation[] = []
  /** how much is wrong, told or not */
  count = 0

  tell(field: string, message: string): void {
    this.count += 1
    if (this.violations.length < MAX_VIOLATIONS) this.violations.push({ field, message, code: 'invalid' })
  }
}

function readMessage(
  schema: Schema,
  body: Record<string, unknown>,
  path: string,
  findings: Findings
): Record<string, unknown> {
  const names = namesOf(schema)
  const given = new Map<string, unknown>()
  for (const [name, value] of Object.entries(body)) {
    const member = names.get(name)
    if (member !== undefined && value !== null) given.set(member, value)
  }
  const message: Record<string, unknown> = {}
  const wrong = new Set<string>()
  for (const [name, property] of Object.entries(schema.properties as Record<string, Schema>)) {
    const field = path === '' ? name : `${path}.${name}`
    const before = findings.count
    const value = given.has(name) ? readMember(property, given.get(name), field, findings) : undefined
    if (value !== undefined) message[name] = value
    else if (!given.has(name) && property['x-required']) findings.tell(field, 'is required')
    if (findings.count > before) wrong.add(name)
  }
  for (const [name, { members, required }] of Object.entries(schema['x-oneofs'] ?? {})) {
    // A flag that is false says that this member is not meant; one that is wrong is meant all the same.
    const isSet = (member: string) =>
      wrong.has(member) || (message[member] !== undefined && message[member] !== false)
    const rule = oneofRule(members, members.filter(isSet), required)
    if (rule) findings.tell(path === '' ? name : `${path}.${name}`, rule)
  }
  return message
}

/** Names of members in either spelling. */
const NAMES = new WeakMap<object, Map<string, string>>()

function namesOf(schema: Schema): Map<string, string> {
  const known = NAMES.get(schema.properties)
  if (known) return known
  const names = new Map<string, string>()
  for (const name of Object.keys(schema.properties)) {
    names.set(
      name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      name
    )
    names.set(name, name)
  }
  NAMES.set(schema.properties, names)
  return names
}

/** What is wrong with a oneof of which these are set; undefined: nothing. */
function oneofRule(
  members: readonly string[],
  set: readonly string[],
  required: boolean | undefined
): string | undefined {
  if (set.length > 1) return `only one may be set of ${members.join(', ')}; ${set.join(' and ')} are`
  return required && set.length === 0 ? `one must be set of ${members.join(', ')}` : undefined
}

function readMember(schema: Schema, json: unknown, field: string, findings: Findings): unknown {
  switch (schema['x-type']) {
    case 'message':
      if (isObject(json)) return readMessage(schema, json, field, findings)
      break
    case 'list':
      if (Array.isArray(json)) return readList(schema, json, field, findings)
      break
    case 'map':
      if (isObject(json)) return readMap(schema, json, field, findings)
      break
    default: {
      const read = READERS[schema['x-type']](json, schema)
      if ('value' in read) return read.value
      findings.tell(field, read.rule)
      return undefined
    }
  }
  findings.tell(field, `must be ${SHAPES[schema['x-type']]}`)
  return undefined
}

const SHAPES: Record<'message' | 'list' | 'map', string> = {
  message: 'an object',
  list: 'a list',
  map: 'an object'
}

function readList(schema: Schema, json: unknown[], field: string, findings: Findings): unknown[] {
  const { minItems, maxItems, items } = schema
  if (minItems !== undefined && json.length < minItems)
    findings.tell(field, `must have at least ${count(minItems, 'entry')}`)
  if (maxItems !== undefined && json.length > maxItems) {
    findings.tell(field, `must have at most ${count(maxItems, 'entry')}`)
    return []
  }
  return json.map((item, index) => {
    const place = `${field}[${index}]`
    if (item !== null) return readEntry(items as Schema, item, place, findings)
    findings.tell(place, 'must not be null')
    return undefined
  })
}

/** An entry of a list or a map, where nothing can be unset. */
function readEntry(schema: Schema, json: unknown, place: string, findings: Findings): unknown {
  const before = findings.count
  const value = readMember(schema, json, place, findings)
  if (value === undefined && findings.count === before) findings.tell(place, 'must be set')
  return value
}

function readMap(
  schema: Schema,
  json: Record<string, unknown>,
  field: string,
  findings: Findings
): Record<string, unknown> {
  const values = schema.additionalProperties as Schema
  const entries = Object.entries(json).map(([key, value], index) => {
    const place = `${field}[${index}]`
    const read = READERS.string(key, { 'x-type': 'string' } as Schema)
    if ('rule' in read) findings.tell(place, `the key ${read.rule}`)
    return [key, readEntry(values, value, place, findings)] as const
  })
  // Without a prototype, so that a key may have any name.
  return Object.assign(Object.create(null), Object.fromEntries(entries))
}

function count(number: number, thing: string): string {
  if (number === 1) return `1 ${thing}`
  return `${number} ${thing.endsWith('y') ? `${thing.slice(0, -1)}ies` : `${thing}s`}`
}

type ScalarType = Exclude<Annotations['x-type'], 'message' | 'list' | 'map'>

const READERS: Record<ScalarType, (json: unknown, schema: Schema) => Read> = {
  string(json, schema) {
    if (typeof json !== 'string') return { rule: 'must be a string' }
    if (!json.isWellFormed()) return { rule: 'must be Unicode without lone surrogates' }
    if (json.includes('\0') && !schema['x-nul']) return { rule: 'must not contain NUL' }
    if (json === '' && schema['x-required']) return { rule: 'is required' }
    const { minLength, maxLength, pattern } = schema
    if (minLength !== undefined && !hasAtLeast(json, minLength)) {
      return { rule: `must have at least ${count(minLength, 'character')}` }
    }
    if (maxLength !== undefined && hasAtLeast(json, maxLength + 1)) {
      return { rule: `must have at most ${count(maxLength, 'character')}` }
    }
    if (pattern !== undefined && !regexOf(pattern).test(json)) {
      return { rule: schema['x-rule'] ?? `must match ${pattern}` }
    }
    return { value: json }
  },
  uuid(json, schema) {
    if (json === '' && !schema['x-required']) return { value: undefined }
    return typeof json === 'string' && UUID.test(json)
      ? { value: json.toLowerCase() }
      : { rule: 'must be a UUID' }
  },
  bool: (json) => (typeof json === 'boolean' ? { value: json } : { rule: 'must be true or false' }),
  int32(json, { minimum, maximum }) {
    const number = typeof json === 'string' && /^-?[0-9]{1,10}$/.test(json) ? Number(json) : json
    if (!isInteger(number) || number < MIN_INT32 || number > MAX_INT32) {
      return { rule: 'must be a whole number of 32 bits' }
    }
    if (minimum !== undefined && number < minimum) return { rule: `must be at least ${minimum}` }
    if (maximum !== undefined && number > maximum) return { rule: `must be at most ${maximum}` }
    return { value: number }
  },
  uint64(json) {
    const text = typeof json === 'number' && Number.isSafeInteger(json) ? String(json) : json
    const fits = typeof text === 'string' && /^[0-9]{1,20}$/.test(text) && BigInt(text) <= MAX_UINT64
    return fits ? { value: BigInt(text).toString() } : { rule: 'must be a whole number of 64 bits' }
  },
  enum(json, schema) {
    const numbers = schema['x-numbers']!
    const name =
      typeof json === 'number' ? Object.keys(numbers).find((known) => numbers[known] === json) : json
    if (typeof name !== 'string' || !Object.hasOwn(numbers, name)) {
      return { rule: `must be one of ${Object.keys(numbers).join(', ')}` }
    }
    if (numbers[name] !== 0) return { value: name }
    return schema['x-required'] ? { rule: 'is required' } : { value: undefined }
  },
  timestamp(json) {
    const time = typeof json === 'string' && TIMESTAMP.test(json) ? timeOf(json) : undefined
    return time
      ? { value: time.toISOString() }
      : { rule: 'must be a time in RFC 3339, as 2026-01-31T12:00:00Z' }
  },
  duration(json, schema) {
    const parts = typeof json === 'string' ? DURATION.exec(json) : null
    if (!parts) return { rule: 'must be seconds with an s behind them, as 1800s' }
    const seconds = secondsOf(parts[0])
    const { 'x-least': least, 'x-most': most = MAX_DURATION_SECONDS, 'x-or-zero': orZero } = schema
    const outside = least !== undefined && seconds < least && !(orZero && seconds === 0)
    if (outside) return { rule: `must be ${orZero ? '0s or ' : ''}at least ${least}s` }
    if (seconds > most) return { rule: `must be at most ${most}s` }
    if (seconds < -MAX_DURATION_SECONDS) return { rule: `must be at least -${MAX_DURATION_SECONDS}s` }
    return { value: canonicalDuration(seconds < 0, parts[2]!, parts[3]) }
  }
}

function isInteger(value: unknown): value is number {
  return Number.isInteger(value)
}

/** Undefined for what the calendar or protobuf's Timestamp does not have: February 30th, the year 0 or 10,000. */
function timeOf(rfc3339: string): Date | undefined {
  const time = new Date(rfc3339)
  const year = time.getUTCFullYear()
  if (!(year >= 1 && year <= 9999)) return undefined
  // The parser takes the last days of every month for the first ones of the next.
  const day = rfc3339.slice(0, 10)
  return new Date(`${day}T00:00:00Z`).toISOString().startsWith(day) ? time : undefined
}

/** With no, three, six or nine digits behind the point, as proto3 JSON writes it. */
function canonicalDuration(negative: boolean, seconds: string, fraction = ''): string {
  const digits = fraction.replace(/0+$/, '')
  const padded = digits.padEnd(Math.ceil(digits.length / 3) * 3, '0')
  return `${negative ? '-' : ''}${Number(seconds)}${padded && `.${padded}`}s`
}

/** The seconds of a duration that was read. */
export function secondsOf(duration: string): number {
  return Number(duration.slice(0, -1))
}

/** Whether a text has so many code points; does not count on when it has. */
function hasAtLeast(text: string, codePoints: number): boolean {
  if (text.length < codePoints) return false
  if (text.length >= codePoints * 2) return true
  let counted = 0
  for (const _ of text) if (++counted >= codePoints) return true
  return counted >= codePoints
}

const REGEXES = new Map<string, RegExp>()

function regexOf(pattern: string): RegExp {
  let regex = REGEXES.get(pattern)
  if (!regex) {
    regex = new RegExp(pattern, 'u')
    REGEXES.set(pattern, regex)
  }
  return regex
}
