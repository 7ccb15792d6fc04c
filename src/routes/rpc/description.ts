import { ACCESS, type AccessRule, BEARER_NAMES } from '../../auth/access.ts'
import { STATUSES } from './errors.ts'
import { exampleOf, type Json, Messages, mustBeSet } from './json-schema.ts'
import { pathOf, type Service } from './method.ts'
import { PaginationRequest } from './pagination.ts'

/** What `openapi/ona.json` holds and `/docs` shows of Ona's API: OpenAPI 3.1, made from services and their messages. */

/** Below which SDKs ask. */
const BASE = '/api'

const ABOUT =
  "Ona's API (formerly Gitpod's), in the JSON that its SDKs of version 0 speak, over the same secrets as GitHub's API. " +
  'Every method is a POST of one message; the same paths are served without `/api`. Members may be spelled in lowerCamelCase or snake_case, enumerations be given ' +
  'by name or number; `null` is unset, unknown members are ignored, and no body is an empty message. Answers leave out ' +
  'what is unset or has its default: `false`, 0, empty texts and empty lists. Errors are those of Connect: `code`, ' +
  '`message`, `details`; the header `x-should-retry` tells SDKs whether it is of use to ask again.'

type AnyMethod = Service['methods'][number]

export function describeServices(services: readonly Service[], version: string): object {
  const messages = new Messages()
  // What is answered has the plain names, where a message is another one when it is sent.
  for (const { response } of services.flatMap(({ methods }) => methods)) messages.refer(response)
  const paths = services.flatMap((service) =>
    service.methods.map((method) => [
      `${BASE}${pathOf(service, method)}`,
      { post: describeMethod(service, method, messages) }
    ])
  )
  return {
    openapi: '3.1.0',
    info: {
      title: 'Coffer: Ona API',
      version,
      description: ABOUT,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' }
    },
    servers: [{ url: '/' }],
    tags: services.map(({ name, description }) => ({ name, description })),
    security: [{ token: [] }],
    paths: Object.fromEntries(paths),
    components: {
      schemas: { Error: ERROR, ...messages.sorted() },
      parameters: describePages(),
      headers: HEADERS,
      responses: Object.fromEntries(Object.entries(REFUSALS).map(describeRefusal)),
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description: 'A token of Coffer: of a user, a service account, an environment or a runner'
        }
      }
    }
  }
}

function describeMethod(service: Service, method: AnyMethod, messages: Messages): Json {
  const { request } = method
  const streams = 'stream' in method && method.stream === true
  const refused = Object.keys(REFUSALS).filter((status) => status !== '409' || !method.reads)
  return {
    operationId: `${service.name}_${method.name}`,
    summary: method.summary,
    tags: [service.name],
    ...(method.access === 'open' && { security: [] }),
    description: streams ? `${needsOf(method)}\n\n${STREAM}` : needsOf(method),
    ...('pagination' in request.properties && {
      parameters: PAGE_PARAMETERS.map((name) => ({ $ref: `#/components/parameters/${name}` }))
    }),
    requestBody: {
      required: mustBeSet(request),
      content: { 'application/json': { schema: messages.refer(request), example: exampleOf(request) } }
    },
    responses: {
      200: {
        description: streams ? 'A message on each line' : 'Done',
        content: {
          [streams ? 'application/jsonl' : 'application/json']: {
            schema: messages.refer(method.response)
          }
        }
      },
      ...Object.fromEntries(refused.map((status) => [status, { $ref: `#/components/responses/${status}` }]))
    }
  }
}

const STREAM =
  'Each line of the answer is a message, and there is no last one. A line `{}` says that the connection still holds.'

/** What a method asks of a token, and of whoever has it. */
function needsOf({ access, reads }: AnyMethod): string {
  if (access === 'open') return 'Needs no token.'
  if (access !== 'secret') return `Needs ${inWords(ACCESS[access])}.`
  const wish = reads ? 'read' : 'write'
  const needs = SECRET_OWNERS.map(
    ([kind, secrets]) => `- ${secrets}: ${inWords(ACCESS[`codespaces/${kind}:${wish}`])}`
  )
  return ['What it needs depends on whose secret it is:', ...needs].join('\n')
}

const SECRET_OWNERS = [
  ['user', 'one’s own'],
  ['project', 'of a project'],
  ['organization', 'of an organization'],
  ['service-account', 'of a service account, unless it asks itself']
] as const

const ORGANIZATION_ROLES = {
  admin: 'being an owner of the organization',
  member: 'being in the organization'
}

function inWords(rule: AccessRule): string {
  const { by, scopes, everyScope, permission, organizationRole, projectRole } = rule
  const quoted = (names: readonly string[], word: string) =>
    names.map((name) => `\`${name}\``).join(` ${word} `)
  const allowed = [
    ...(everyScope ? [`the scopes ${quoted(everyScope, 'and')}`] : []),
    ...(scopes.length > 0 ? [`the scope ${quoted(scopes, 'or')}`] : []),
    ...(permission ? [`the permission \`${permission.name}\` (${permission.level})`] : [])
  ].join(' or ')
  const token = by ? `the token of ${BEARER_NAMES[by]}` : 'a token'
  return [
    ...(projectRole ? [`the role ${projectRole} on the project`] : []),
    ...(organizationRole ? [ORGANIZATION_ROLES[organizationRole]] : []),
    allowed ? `${token} with ${allowed}` : token
  ].join(', and ')
}

const PAGE_PARAMETERS = ['token', 'pageSize'] as const

function describePages(): Json {
  const described = PAGE_PARAMETERS.map((name) => {
    const member = PaginationRequest.properties[name]
    const { description: _, ...schema } = new Messages().schemaOf(member, PaginationRequest)
    const description = `Counts instead of \`pagination.${name}\`, as SDKs have it`
    return [name, { name, in: 'query', description, schema }]
  })
  return Object.fromEntries(described)
}

const ERROR: Json = {
  type: 'object',
  title: 'Error',
  properties: {
    code: { type: 'string', enum: Object.keys(STATUSES) },
    message: { type: 'string', description: 'For people; never has what was sent' },
    details: {
      type: 'array',
      items: {
        type: 'object',
        properties: {
          type: {
            type: 'string',
            description:
              'The name of a protobuf message: `google.rpc.BadRequest` names each field and its rule'
          },
          value: { type: 'string', description: 'The message in base64, without padding' },
          debug: { type: 'object', description: 'The same message as JSON' }
        },
        required: ['type', 'value']
      }
    }
  },
  required: ['code', 'message']
}

const HEADERS: Json = {
  'x-should-retry': {
    description: '`false`: the same request would fail again',
    schema: { type: 'string', enum: ['true', 'false'] }
  },
  'retry-after': { description: 'Seconds until asking again is of use', schema: { type: 'integer' } }
}

/** By status, which codes it has and when. */
const REFUSALS: Readonly<Record<number, string>> = {
  400: '`invalid_argument`: a rule is broken, and details name field and rule; `failed_precondition`: a limit is reached, or the present state does not allow it',
  401: '`unauthenticated`: no token, or none that is valid now',
  403: '`permission_denied`: the token or the role does not allow it',
  404: '`not_found`: there is nothing of that id that the token may know of',
  409: '`already_exists`: there is one of that name',
  415: '`unimplemented`: the body is protobuf, which is not read',
  429: '`resource_exhausted`: too many requests or failed logins, and `retry-after` says when they are counted anew; or the body is too large',
  500: '`internal`: the server failed, and its log has the request id',
  503: '`unavailable`: the database is away or too busy'
}

function describeRefusal([status, description]: [string, string]): [string, Json] {
  const names = ['429', '503'].includes(status) ? Object.keys(HEADERS) : ['x-should-retry']
  return [
    status,
    {
      description,
      headers: Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }])),
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } }
    }
  ]
}
