import type { TSchema } from '@sinclair/typebox'
import { Ajv, type ErrorObject } from 'ajv'
import type { FastifyInstance, FastifyRequest, FastifySchemaCompiler } from 'fastify'
import { ImproperlyEncrypted, InvalidInput, UnreadableBody, type Violation } from '../../errors.ts'

/**
 * Reading a body as GitHub does: whatever its content type says, it is JSON; no body is no body; and a member
 * that breaks a rule is named, never quoted.
 */
export function readBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
    try {
      done(null, parseJson(body as Buffer))
    } catch (error) {
      done(error as Error)
    }
  })
  app.setValidatorCompiler(compileBody)
}

/** Clients send any content type, or none, malformed ones included; there is only one way to read a body. */
export function ignoreContentType(request: FastifyRequest): void {
  if (request.headers['content-type'] !== 'application/json') {
    request.raw.headers['content-type'] = 'application/json'
  }
}

function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined
  try {
    // Fastify hands null to a validator for no body at all; a null that was sent is no object, as a list is none
    return JSON.parse(bytes.toString('utf8')) ?? []
  } catch {
    throw new UnreadableBody('Problems parsing JSON')
  }
}

const ajv = new Ajv({ coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: false })
for (const format of ['date-time', 'uri']) ajv.addFormat(format, true)

/** Bodies are checked; parameters and queries are only described by their schemas, their readers are lenient. */
const compileBody: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  if (httpPart !== 'body') return () => true
  const validate = ajv.compile(schema)
  return (body: unknown) => {
    const object = body ?? {}
    if (typeof object !== 'object' || Array.isArray(object)) {
      return { error: new UnreadableBody('Body should be a JSON object') }
    }
    if (validate(object)) return { value: object }
    return { error: describe(validate.errors![0]!, object, schema) }
  }
}

function describe(error: ErrorObject, body: object, schema: TSchema): Error {
  if (error.keyword === 'required') return missing(absentMembers(body, schema))
  const field = error.instancePath.split('/')[1] ?? ''
  if (error.keyword === 'pattern' && field === 'encrypted_value') {
    return new ImproperlyEncrypted('encrypted_value is not standard, padded base64')
  }
  const rule = `${error.instancePath} is not valid: ${ruleOf(error)}`
  return new InvalidInput(`Invalid request.\n\nInvalid property ${rule}.`, [
    { field, code: 'custom', message: rule.slice(1) }
  ])
}

/** The rule that was broken, from the schema and never from the input. */
function ruleOf({ keyword, params }: ErrorObject): string {
  switch (keyword) {
    case 'type':
      return `it is not of type ${params.type}`
    case 'const':
      return `it is none of the values that are allowed`
    case 'maxLength':
      return `it is longer than ${params.limit} characters`
    case 'maxItems':
      return `it has more than ${params.limit} entries`
    case 'minLength':
      return `it is shorter than ${params.limit} characters`
    case 'minimum':
    case 'maximum':
      return `it must be ${params.comparison} ${params.limit}`
    default:
      return 'it does not have the form that the documentation describes'
  }
}

function absentMembers(body: object, schema: TSchema): string[] {
  return ((schema.required ?? []) as string[]).filter((name) => !Object.hasOwn(body, name))
}

/** GitHub's error for members that a body must have. */
export function missing(names: readonly string[]): InvalidInput {
  const quoted = names.map((name) => `"${name}"`).join(', ')
  const verb = names.length === 1 ? "wasn't" : "weren't"
  const violations = names.map<Violation>((name) => ({
    field: name,
    code: 'missing_field',
    message: `${name} wasn't supplied`
  }))
  return new InvalidInput(`Invalid request.\n\n${quoted} ${verb} supplied.`, violations)
}
