import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Ajv, type ValidateFunction } from 'ajv'
import addFormats from 'ajv-formats'

// GitHub's own description of its REST API, as validators of what Coffer answers.

type Schema = Record<string, unknown>
interface MediaType {
  schema?: Schema
  examples?: Record<string, { value?: unknown } | { $ref: string }>
}
interface Response {
  content?: Record<string, MediaType>
}
interface Operation {
  operationId: string
  requestBody?: { content: Record<string, MediaType> }
  responses: Record<string, Response | { $ref: string }>
  externalDocs?: { url: string }
}
interface Description {
  paths: Record<string, Record<string, Operation>>
  components: {
    schemas: Record<string, Schema>
    responses: Record<string, Response>
    examples: Record<string, { value: unknown }>
  }
}

/** Gives what is wrong with a parsed body, one line each: nothing when it is valid. */
export type BodyValidator = (body: unknown) => string[]

const SCHEMAS = '#/components/schemas/'
const RESPONSES = '#/components/responses/'
const EXAMPLES = '#/components/examples/'
const NESTED_LISTS = ['allOf', 'anyOf', 'oneOf']
const NESTED = ['items', 'additionalProperties', 'not']
const KEPT = [
  ...['type', 'enum', 'required', 'format', 'pattern', 'uniqueItems'],
  ...[
    'minLength',
    'maxLength',
    'minItems',
    'maxItems',
    'minimum',
    'maximum',
    'minProperties',
    'maxProperties'
  ]
]

let loaded: { description: Description; operations: Map<string, Operation> } | undefined
const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true, formats: { 'repo.nwo': true } })
addFormats.default(ajv)
const added = new Set<string>()

function load(): NonNullable<typeof loaded> {
  if (loaded) return loaded
  const file = createRequire(import.meta.url).resolve('@octokit/openapi/generated/api.github.com.json')
  const description = JSON.parse(readFileSync(file, 'utf8')) as Description
  const operations = new Map<string, Operation>()
  for (const methods of Object.values(description.paths)) {
    for (const operation of Object.values(methods)) operations.set(operation.operationId, operation)
  }
  loaded = { description, operations }
  return loaded
}

/** OpenAPI 3.0 → JSON Schema: `nullable` applies to whatever stands beside it, a reference or nothing too. */
function convert(schema: unknown): unknown {
  if (typeof schema !== 'object' || schema === null) return schema
  const source = schema as Schema
  if (typeof source.$ref === 'string') return { $ref: referTo(source.$ref) }
  const target: Schema = {}
  for (const key of KEPT) if (key in source) target[key] = source[key]
  for (const key of NESTED) if (key in source) target[key] = convert(source[key])
  for (const key of NESTED_LISTS) if (key in source) target[key] = (source[key] as unknown[]).map(convert)
  // several alternatives that each allow null would make null match more than one
  if (target.oneOf && (source.oneOf as Schema[]).filter(({ nullable }) => nullable === true).length > 1) {
    target.anyOf = target.oneOf
    delete target.oneOf
  }
  if (source.properties) {
    target.properties = Object.fromEntries(
      Object.entries(source.properties).map(([name, property]) => [name, convert(property)])
    )
  }
  return source.nullable === true ? { anyOf: [{ type: 'null' }, target] } : target
}

function referTo(ref: string): string {
  if (!ref.startsWith(SCHEMAS)) throw new Error(`a reference that is no schema: ${ref}`)
  const name = ref.slice(SCHEMAS.length)
  const id = `github:${name}`
  if (!added.has(name)) {
    const schema = load().description.components.schemas[name]
    if (!schema) throw new Error(`GitHub describes no schema ${name}`)
    added.add(name)
    ajv.addSchema(convert(schema) as Schema, id)
  }
  return id
}

function bodyValidator(validate: ValidateFunction): BodyValidator {
  return (body) => {
    if (validate(body)) return []
    return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath || '/'} ${message}`)
  }
}

/** Of a component: `schemaValidator('minimal-repository')(body)` is empty when the body is one. */
export function schemaValidator(componentName: string): BodyValidator {
  return bodyValidator(ajv.compile({ $ref: referTo(SCHEMAS + componentName) }))
}

function getOperation(operationId: string): Operation {
  const operation = load().operations.get(operationId)
  if (!operation) throw new Error(`GitHub describes no operation ${operationId}`)
  return operation
}

function getResponse(operationId: string, status: number): Response | undefined {
  const described = getOperation(operationId).responses[String(status)]
  if (!described) throw new Error(`GitHub describes no answer ${status} of ${operationId}`)
  return '$ref' in described
    ? load().description.components.responses[described.$ref.slice(RESPONSES.length)]
    : described
}

/** The first example of a body that GitHub publishes; undefined when there is none. */
function exampleOf(content: Record<string, MediaType> | undefined): unknown {
  const [example] = Object.values(content?.['application/json']?.examples ?? {})
  if (!example) return undefined
  return '$ref' in example
    ? load().description.components.examples[example.$ref.slice(EXAMPLES.length)]?.value
    : example.value
}

/** The body that GitHub's reference sends to an operation. */
export function requestExample(operationId: string): unknown {
  return exampleOf(getOperation(operationId).requestBody?.content)
}

/** The body that GitHub's reference shows for an answer. */
export function responseExample(operationId: string, status: number): unknown {
  return exampleOf(getResponse(operationId, status)?.content)
}

/** The members that a component of GitHub's description has, all that may be absent included. */
export function membersOf(componentName: string): string[] {
  return Object.keys((load().description.components.schemas[componentName]?.properties ?? {}) as object)
}

/** The members that GitHub's description says a body must have. */
export function requiredMembers(operationId: string): string[] {
  const schema = getOperation(operationId).requestBody?.content['application/json']?.schema
  return (schema?.required ?? []) as string[]
}

/**
 * Of an answer: `validator('codespaces/get-repo-secret', 200)(response.json())`. For an answer that is described
 * without a body, pass the raw payload: only an empty one is valid. Throws when GitHub does not describe
 * that status for the operation.
 */
export function validator(operationId: string, status: number): BodyValidator {
  const schema = getResponse(operationId, status)?.content?.['application/json']?.schema
  if (!schema) return (body) => (body === undefined || body === '' ? [] : ['/ must be empty'])
  return bodyValidator(ajv.compile(convert(schema) as Schema))
}

/** All of GitHub's operations, with their paths. */
export function describedOperations(): { url: string; method: string; operationId: string }[] {
  return Object.entries(load().description.paths).flatMap(([url, methods]) =>
    Object.entries(methods).map(([method, { operationId }]) => ({ url, method, operationId }))
  )
}

/** The statuses that GitHub describes for an operation. */
export function describedStatuses(operationId: string): number[] {
  return Object.keys(getOperation(operationId).responses).map(Number)
}

/** The page that errors of an operation point to. */
export function documentationUrl(operationId: string): string | undefined {
  return getOperation(operationId).externalDocs?.url
}
