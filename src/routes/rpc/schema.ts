import { type Static, type TArray, type TObject, type TOptional, type TSchema, Type } from '@sinclair/typebox'

/**
 * Messages of Ona's API as JSON Schema, which OpenAPI shows and `decode.ts` reads: protobuf's types, constraints that
 * protovalidate would state, and oneofs. Every member of a message is optional on the wire; what must be there says
 * so by a constraint that an absent member breaks.
 */

/** How a member is read: the types of proto3 JSON, https://protobuf.dev/programming-guides/json/ */
export type WireType =
  | 'string'
  | 'uuid'
  | 'bool'
  | 'int32'
  | 'uint64'
  | 'enum'
  | 'timestamp'
  | 'duration'
  | 'message'
  | 'list'
  | 'map'

/** What a decoder needs to know besides JSON Schema. */
export interface Annotations {
  'x-type': WireType
  /** must be there, and not be empty */
  'x-required'?: boolean
  /** in words, for a pattern */
  'x-rule'?: string
  /** may contain NUL, which PostgreSQL's text may not */
  'x-nul'?: boolean
  /** enumerations: name → number */
  'x-numbers'?: Readonly<Record<string, number>>
  /** messages: members of which at most one may be set, or exactly one */
  'x-oneofs'?: Readonly<Record<string, Oneof>>
  /** durations, in seconds */
  'x-least'?: number
  'x-most'?: number
  /** durations: zero is allowed beside what is at least `x-least` */
  'x-or-zero'?: boolean
}

export interface Oneof {
  members: readonly string[]
  required?: boolean
}

interface Common {
  required?: boolean
  description?: string
}

interface TextOptions extends Common {
  /** in characters: code points */
  min?: number
  max?: number
  pattern?: string
  /** the pattern in words */
  rule?: string
  /** may contain NUL: what is not stored as text */
  nul?: boolean
}

function common({ required, description }: Common) {
  return { ...(required && { 'x-required': true }), ...(description && { description }) }
}

export function Text({ min, max, pattern, rule, nul, ...options }: TextOptions = {}) {
  return Type.String({
    'x-type': 'string',
    ...(min !== undefined && { minLength: min }),
    ...(max !== undefined && { maxLength: max }),
    ...(pattern !== undefined && { pattern }),
    ...(rule !== undefined && { 'x-rule': rule }),
    ...(nul && { 'x-nul': true }),
    ...common(options)
  })
}

/** To the serializer its format says that there is nothing to escape: every one is the store's, or was decoded as one. */
export function Uuid(options: Common = {}) {
  return Type.String({ 'x-type': 'uuid', format: 'unsafe', ...common(options) })
}

export function Bool(options: Common = {}) {
  return Type.Boolean({ 'x-type': 'bool', ...common(options) })
}

export function Int32({ min, max, ...options }: Common & { min?: number; max?: number } = {}) {
  return Type.Integer({
    'x-type': 'int32',
    ...(min !== undefined && { minimum: min }),
    ...(max !== undefined && { maximum: max }),
    ...common(options)
  })
}

/** A string on the wire: JSON's numbers are too small for it. */
export function Uint64(options: Common = {}) {
  return Type.String({ 'x-type': 'uint64', pattern: '^[0-9]+$', ...common(options) })
}

/** RFC 3339, shown in UTC. */
export function Timestamp(options: Common = {}) {
  return Type.String({ 'x-type': 'timestamp', format: 'date-time', ...common(options) })
}

/** Seconds with an `s` behind them. */
export function Duration({
  least,
  most,
  orZero,
  ...options
}: Common & { least?: number; most?: number; orZero?: boolean } = {}) {
  return Type.String({
    'x-type': 'duration',
    pattern: '^-?[0-9]+(\\.[0-9]{1,9})?s$',
    ...(least !== undefined && { 'x-least': least }),
    ...(most !== undefined && { 'x-most': most }),
    ...(orZero && { 'x-or-zero': true }),
    ...common(options)
  })
}

/** `numbers` without the zero, whose name is PREFIX_UNSPECIFIED and means that nothing is set. */
export function Enum<const N extends Readonly<Record<string, number>>>(
  prefix: string,
  numbers: N,
  options: Common = {}
) {
  return Type.Unsafe<keyof N & string>({
    type: 'string',
    enum: [`${prefix}_UNSPECIFIED`, ...Object.keys(numbers)],
    'x-type': 'enum',
    'x-numbers': { [`${prefix}_UNSPECIFIED`]: 0, ...numbers },
    ...common(options)
  })
}

export function List<T extends TSchema>(
  item: T,
  { min, max, ...options }: Common & { min?: number; max?: number } = {}
): TArray<T> {
  return Type.Array(item, {
    'x-type': 'list',
    ...(min !== undefined && { minItems: min }),
    ...(max !== undefined && { maxItems: max }),
    ...common(options)
  })
}

/** A map from strings. */
export function MapOf<T extends TSchema>(value: T, options: Common = {}) {
  return Type.Unsafe<Record<string, Static<T>>>({
    type: 'object',
    additionalProperties: value,
    'x-type': 'map',
    ...common(options)
  })
}

type Members = Record<string, TSchema>
type Message<F extends Members> = TObject<{ [K in keyof F]: TOptional<F[K]> }>

/** A message; `title` is its protobuf name, in Ona's package or, with that before it, in another. */
export function Message<F extends Members>(
  title: string,
  members: F,
  { oneofs, ...options }: Common & { oneofs?: Readonly<Record<string, Oneof>> } = {}
): Message<F> {
  const optional = Object.fromEntries(
    Object.entries(members).map(([name, schema]) => [name, Type.Optional(schema)])
  )
  return Type.Object(optional, {
    title: title.includes('.v1.') ? title : `gitpod.v1.${title}`,
    'x-type': 'message',
    ...(oneofs && { 'x-oneofs': oneofs }),
    ...common(options)
  }) as unknown as Message<F>
}

/** Of nothing that there is. */
export const EXAMPLE_UUID = '6f1c2d3e-4b5a-4c6d-8e7f-901a2b3c4d5e'

/** The same with an example, which is part of the example of what it is a member of. */
export function withExample<T extends TSchema>(schema: T, example: Static<T>): T {
  return { ...schema, examples: [example] }
}

/** The same message where it must be set. */
export function required<T extends TSchema>(schema: T): T {
  return { ...schema, 'x-required': true }
}

export const Empty = Message('Empty', {})
