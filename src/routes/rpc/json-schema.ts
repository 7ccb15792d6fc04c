import { isDeepStrictEqual } from 'node:util'
import type { TSchema } from '@sinclair/typebox'
import { type Annotations, EXAMPLE_UUID, type Oneof, type WireType } from './schema.ts'

/** Messages as JSON Schema for OpenAPI 3.1: what `decode.ts` reads from annotations is said in the standard's words. */

export type Json = Record<string, unknown>
type Schema = TSchema & Annotations

const PACKAGE = 'gitpod.v1.'

/** Messages, each said once: by its name, and where it is another one elsewhere, by where that is, too. */
export class Messages {
  readonly #schemas = new Map<string, Json>()

  /** A reference to a message, which is `root` or a part of it. */
  refer(message: TSchema, root = message): Json {
    const schema = this.#describe(message as Schema, root)
    const name = this.#nameOf(message.title!, schema, root.title!.slice(PACKAGE.length))
    this.#schemas.set(name, schema)
    return { $ref: `#/components/schemas/${name}`, ...describedAs(message.description) }
  }

  #nameOf(title: string, schema: Json, root: string): string {
    const names = [title, `${title}.in.${root}`]
    const same = [...this.#schemas].find(
      ([name, known]) =>
        (name === title || name.startsWith(`${title}.in.`)) && isDeepStrictEqual(known, schema)
    )
    const name = same ? same[0] : names.find((free) => !this.#schemas.has(free))
    if (name) return name
    throw new Error(`two messages in ${root} are called ${title}`)
  }

  /** What a member may be. */
  schemaOf(schema: TSchema, root: TSchema): Json {
    const member = schema as Schema
    switch (member['x-type']) {
      case 'message':
        return this.refer(member, root)
      case 'list':
        return {
          type: 'array',
          items: this.schemaOf(member.items, root),
          ...given(member, 'minItems', 'maxItems'),
          ...describedAs(member.description)
        }
      case 'map':
        return {
          type: 'object',
          additionalProperties: this.schemaOf(member.additionalProperties, root),
          ...describedAs(member.description)
        }
      default:
        return { ...SCALARS[member['x-type']](member), ...describedAs(member.description, ruleOf(member)) }
    }
  }

  /** All that were referred to, by name. */
  sorted(): Record<string, Json> {
    return Object.fromEntries([...this.#schemas].sort(([a], [b]) => (a < b ? -1 : 1)))
  }

  #describe(message: Schema, root: TSchema): Json {
    const members = Object.entries(message.properties as Record<string, Schema>)
    const needed = members.filter(([, member]) => member['x-required']).map(([name]) => name)
    const oneofs = Object.values(message['x-oneofs'] ?? {})
    const words = oneofs.map((oneof) => oneofInWords(oneof, message.properties))
    const constraints = oneofs.map(constraintOf)
    return {
      type: 'object',
      title: message.title,
      ...describedAs(...words),
      properties: Object.fromEntries(members.map(([name, member]) => [name, this.schemaOf(member, root)])),
      ...(needed.length > 0 && { required: needed }),
      ...(constraints.length > 1 ? { allOf: constraints } : constraints[0])
    }
  }
}

/** Whether an empty message of this kind is refused. */
export function mustBeSet(message: TSchema): boolean {
  const { properties, 'x-oneofs': oneofs = {} } = message as Schema
  return (
    Object.values(properties as Record<string, Schema>).some((member) => member['x-required']) ||
    Object.values(oneofs).some(({ required }) => required)
  )
}

type Scalar = Exclude<WireType, 'message' | 'list' | 'map'>

const UINT64_DIGITS = 20

const SCALARS: Record<Scalar, (schema: Schema) => Json> = {
  string: (schema) => ({
    type: 'string',
    ...(schema['x-required'] && schema.minLength === undefined && { minLength: 1 }),
    ...given(schema, 'minLength', 'maxLength', 'pattern')
  }),
  uuid: () => ({ type: 'string', format: 'uuid' }),
  bool: () => ({ type: 'boolean' }),
  int32: (schema) => ({ type: 'integer', format: 'int32', ...given(schema, 'minimum', 'maximum') }),
  uint64: (schema) => ({ type: 'string', ...given(schema, 'pattern'), maxLength: UINT64_DIGITS }),
  enum: (schema) => ({ type: 'string', enum: namesOf(schema) }),
  timestamp: () => ({ type: 'string', format: 'date-time' }),
  duration: (schema) => ({ type: 'string', ...given(schema, 'pattern') })
}

/** Without the one that means that nothing is set, where something must be. */
function namesOf(schema: Schema): string[] {
  const numbers = Object.entries(schema['x-numbers']!)
  return numbers.filter(([, number]) => number !== 0 || !schema['x-required']).map(([name]) => name)
}

function given(schema: Schema, ...keywords: readonly string[]): Json {
  return Object.fromEntries(
    keywords.filter((name) => schema[name] !== undefined).map((name) => [name, schema[name]])
  )
}

/** In words, what JSON Schema cannot say or says in a pattern. */
function ruleOf(schema: Schema): string | undefined {
  if (schema['x-type'] !== 'duration') return schema['x-rule']
  const { 'x-least': least, 'x-most': most, 'x-or-zero': orZero } = schema
  const bounds = [
    ...(least !== undefined ? [`${orZero ? '`0s`, or ' : ''}at least \`${least}s\``] : []),
    ...(most !== undefined ? [`at most \`${most}s\``] : [])
  ]
  return ['seconds with an `s` behind them', ...bounds].join(', ')
}

function describedAs(...parts: readonly (string | undefined)[]): { description?: string } {
  const text = parts.filter((part) => part !== undefined).join('; ')
  return text === '' ? {} : { description: `${text[0]!.toUpperCase()}${text.slice(1)}` }
}

function oneofInWords({ members, required }: Oneof, properties: Record<string, Schema>): string {
  const names = members.map((member) => `\`${member}\``).join(', ')
  const flags = members.some((member) => properties[member]!['x-type'] === 'bool')
  const set = `${required ? 'exactly' : 'at most'} one of ${names} is set`
  return flags ? `${set}; what is \`false\` is not` : set
}

function constraintOf({ members, required }: Oneof): Json {
  const one = (...names: readonly string[]) => ({ required: names })
  if (required) return { oneOf: members.map((member) => one(member)) }
  const pairs = members.flatMap((first, index) =>
    members.slice(index + 1).map((second) => one(first, second))
  )
  // With a type, since Swagger UI takes what is not anything for nothing.
  return { not: { type: 'object', ...(pairs.length === 1 ? pairs[0] : { anyOf: pairs }) } }
}

/** What a client could send: what must be set, and what has an example. */
export function exampleOf(schema: TSchema): unknown {
  return schema.examples ? schema.examples[0] : EXAMPLES[(schema as Schema)['x-type']](schema as Schema)
}

const EXAMPLES: Record<WireType, (schema: Schema) => unknown> = {
  message(schema) {
    const members = schema.properties as Record<string, Schema>
    const example: Json = {}
    const oneofs = Object.values(schema['x-oneofs'] ?? {}).filter(({ required }) => required)
    const chosen = oneofs.map(({ members: [first] }) => first)
    for (const [name, member] of Object.entries(members)) {
      if (member['x-required'] || member.examples || chosen.includes(name)) example[name] = exampleOf(member)
    }
    return example
  },
  list: ({ items, minItems = 0 }) => (minItems > 0 ? [exampleOf(items)] : []),
  map: () => ({}),
  string: ({ minLength = 1 }) => 'text'.padEnd(minLength, '.'),
  uuid: () => EXAMPLE_UUID,
  bool: () => true,
  int32: ({ minimum = 1 }) => minimum,
  uint64: () => '1',
  enum: (schema) => namesOf({ ...schema, 'x-required': true })[0],
  timestamp: () => '2026-01-31T12:00:00Z',
  duration: ({ 'x-least': least = 1800 }) => `${least}s`
}
