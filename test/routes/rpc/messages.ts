import type { TSchema } from '@sinclair/typebox'
import fc from 'fast-check'
import type { Annotations } from '../../../src/routes/rpc/schema.ts'

// Messages for a schema, made by walking it: whatever method there will be, it is asked with these.

export type Schema = TSchema & Annotations
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

/** In every text that says nothing else, so that it is noticed where it comes back. */
export const MARKER = 'MARKER'

const marked = fc
  .string({ unit: 'grapheme', maxLength: 20 })
  .map((text) => `${MARKER}${text.replaceAll('\0', '')}`)

function anyText({
  pattern,
  minLength = 0,
  maxLength = 200,
  'x-required': required
}: Schema): fc.Arbitrary<string> {
  const least = Math.max(minLength, required ? 1 : 0)
  const fits = (text: string) => {
    const { length } = [...text]
    return length >= least && length <= maxLength && text.isWellFormed() && !text.includes('\0')
  }
  const texts = [
    marked,
    fc.string({ minLength: least, maxLength: Math.min(maxLength, least + 30) }),
    fc.constantFrom('abc', 'main', '/a/b', 'https://git.example/a.git', 'X'.repeat(Math.min(maxLength, 500)))
  ]
  return (pattern ? fc.stringMatching(new RegExp(pattern, 'u'), { size: '-1' }) : fc.oneof(...texts)).filter(
    fits
  )
}

/** What is right for a schema, as far as it says; ids are of these. */
export function anyMessage(schema: Schema, ids: fc.Arbitrary<string>): fc.Arbitrary<Json> {
  const of = (inner: TSchema) => anyMessage(inner as Schema, ids)
  switch (schema['x-type']) {
    case 'string':
      return anyText(schema)
    case 'uuid':
      return ids
    case 'bool':
      return fc.boolean()
    case 'int32':
      return fc
        .integer({ min: schema.minimum ?? -(2 ** 31), max: schema.maximum ?? 2 ** 31 - 1 })
        .chain((number) => fc.constantFrom<Json>(number, String(number)))
    case 'uint64':
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String)
    case 'enum': {
      const named = Object.entries(schema['x-numbers']!).filter(
        ([, number]) => number !== 0 || !schema['x-required']
      )
      return fc.constantFrom<Json>(...named.flat())
    }
    case 'timestamp':
      return fc
        .date({
          min: new Date('0001-01-01T00:00:00Z'),
          max: new Date('9999-12-31T23:59:59Z'),
          noInvalidDate: true
        })
        .map((date) => date.toISOString())
    case 'duration': {
      const { 'x-least': least = 0, 'x-most': most = 1e6 } = schema
      return fc.integer({ min: least, max: Math.max(least, most) }).map((seconds) => `${seconds}s`)
    }
    case 'list': {
      const { minItems = 0, maxItems = 3 } = schema
      return fc.array(of(setAlways(schema.items)), {
        minLength: minItems,
        maxLength: Math.min(maxItems, minItems + 3)
      })
    }
    case 'map':
      return fc.dictionary(marked, of(setAlways(schema.additionalProperties as TSchema)), { maxKeys: 3 })
    case 'message':
      return anyMembers(schema, of)
  }
}

/** An entry of a list or a map is never unset; a text may be empty all the same. */
function setAlways(entry: TSchema): TSchema {
  return entry['x-type'] === 'enum' ? { ...entry, 'x-required': true } : entry
}

function anyMembers(schema: Schema, of: (inner: TSchema) => fc.Arbitrary<Json>): fc.Arbitrary<Json> {
  const members = Object.entries(schema.properties as Record<string, Schema>)
  const requiredKeys = members.flatMap(([name, member]) => (member['x-required'] ? [name] : []))
  const record = fc.record(Object.fromEntries(members.map(([name, member]) => [name, of(member)])), {
    requiredKeys
  })
  const chosen = Object.values(schema['x-oneofs'] ?? {}).map(({ members, required }) =>
    // A required one is set to something that counts as set.
    fc.tuple(fc.constantFrom(...(required ? members : [undefined, ...members])), fc.constant(members))
  )
  return fc.tuple(record, fc.boolean(), ...chosen).chain(([message, snake, ...oneofs]) => {
    const all: Record<string, fc.Arbitrary<Json>> = {}
    for (const [name, value] of Object.entries(message as Record<string, Json>))
      all[name] = fc.constant(value)
    for (const [one, others] of oneofs as [string | undefined, readonly string[]][]) {
      for (const name of others) if (name !== one) delete all[name]
      if (one === undefined) continue
      const member = (schema.properties as Record<string, Schema>)[one]!
      all[one] = member['x-type'] === 'bool' ? fc.constant(true) : of(member)
    }
    return fc.record(all).map((made) => (snake ? inSnakeCase(made) : made))
  }) as fc.Arbitrary<Json>
}

function inSnakeCase(message: Record<string, Json>): Record<string, Json> {
  const spelled = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return Object.fromEntries(Object.entries(message).map(([name, value]) => [spelled(name), value]))
}

/** What may stand where something else should. */
export const anything: fc.Arbitrary<Json> = fc.oneof(
  marked,
  fc.string({ unit: 'binary', maxLength: 30 }).map((text) => MARKER + text),
  fc.constantFrom<Json>(
    null,
    true,
    false,
    0,
    -1,
    1.5,
    2 ** 31,
    1e300,
    '',
    '0',
    [],
    {},
    [null],
    [[]],
    [{}],
    `${MARKER}\0`,
    `${MARKER}\ud800`,
    `${MARKER}' or 1=1 --`,
    MARKER.repeat(5000),
    '-1s',
    '1800s',
    '2026-02-30T00:00:00Z',
    '18446744073709551616',
    'ffffffff-ffff-ffff-ffff-ffffffffffff'
  ),
  fc.array(marked, { minLength: 30, maxLength: 120 }),
  fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<Json>,
  fc
    .constantFrom('__proto__', 'constructor', 'toString')
    .map((name) => JSON.parse(`{"${name}": {"${MARKER}": 1}}`))
)

/** Every place in a message. */
function placesIn(json: Json, path: (string | number)[] = []): (string | number)[][] {
  const inside = Array.isArray(json)
    ? json.flatMap((item, index) => placesIn(item, [...path, index]))
    : typeof json === 'object' && json !== null
      ? Object.entries(json).flatMap(([name, value]) => placesIn(value, [...path, name]))
      : []
  return path.length === 0 ? inside : [path, ...inside]
}

function changedAt(
  json: Json,
  [first, ...rest]: (string | number)[],
  change: (json: Json) => Json | undefined
): Json {
  const copy = (Array.isArray(json) ? [...json] : { ...(json as object) }) as Record<string | number, Json>
  const next = rest.length === 0 ? change(copy[first!]!) : changedAt(copy[first!]!, rest, change)
  if (next === undefined) delete copy[first!]
  else copy[first!] = next
  return copy as Json
}

/** The same message with something else in one to three places, or something less, or more. */
export function mutated(message: fc.Arbitrary<Json>, members: readonly string[]): fc.Arbitrary<Json> {
  const change = fc.tuple(
    fc.nat(),
    anything,
    fc.constantFrom('replace', 'replace', 'remove', 'add', 'twice', 'wrap'),
    fc.constantFrom('unknown', '__proto__', 'constructor', ...members)
  )
  return fc.tuple(message, fc.array(change, { minLength: 1, maxLength: 3 })).map(([json, changes]) => {
    let result = json
    for (const [at, value, what, name] of changes) {
      const places = placesIn(result)
      const place = places[at % Math.max(1, places.length)]
      if (what === 'add' || !place) {
        result = JSON.parse(JSON.stringify({ ...(result as object), [name]: value }))
        continue
      }
      result = changedAt(result, place, (present) => {
        if (what === 'remove') return undefined
        if (what === 'twice') return [present, present]
        if (what === 'wrap') return { value: present }
        return value
      })
    }
    return result
  })
}
