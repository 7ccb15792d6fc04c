import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import t from 'tap'
import { describeGitHubApi, describeOnaApi, listOnaServices } from '../scripts/describe.ts'
import { decode } from '../src/routes/rpc/decode.ts'
import { describeServices } from '../src/routes/rpc/description.ts'
import { method, pathOf } from '../src/routes/rpc/method.ts'
import { Bool, Empty, Message, Text, Uuid } from '../src/routes/rpc/schema.ts'
import { CHECKOUT } from './checkout.ts'
import { startTestServer } from './helper.ts'

type Json = Record<string, unknown>
interface Operation {
  operationId: string
  tags: string[]
  summary?: string
  description?: string
  parameters?: { name: string; in: string; schema: Json }[]
  security?: object[]
  requestBody?: { required?: boolean; content: Record<string, { schema: Json; example?: object }> }
  responses: Record<string, { content?: Record<string, { schema: Json }> }>
}
interface Description {
  paths: Record<string, Record<string, Operation>>
  tags: { name: string; description: string }[]
  components: { schemas: Record<string, Json> }
}

/** As it is read from a file. */
const plain = (description: object) => JSON.parse(JSON.stringify(description)) as Description

const services = listOnaServices()
const gitHub = plain(await describeGitHubApi())
const ona = plain(describeOnaApi())

const urlOf = (...method: Parameters<typeof pathOf>) => `/api${pathOf(...method)}`

function operationsOf({ paths }: Description) {
  return Object.entries(paths).flatMap(([url, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ url, method, operation }))
  )
}

for (const [file, description] of Object.entries({ 'github.json': gitHub, 'ona.json': ona })) {
  t.test(`openapi/${file} is what the code says; npm run openapi writes it`, async (t) => {
    t.same(JSON.parse(await readFile(path.join(CHECKOUT, 'openapi', file), 'utf8')), description)
  })

  t.test(`${file} is valid OpenAPI 3.1`, async (t) => {
    const validator = new Validator()
    const result = await validator.validate(structuredClone(description) as unknown as Json)
    t.same(result.errors ?? [], [])
    t.ok(result.valid)
    t.equal(validator.version, '3.1')
  })

  t.test(`every operation of ${file} is described, with its success and its errors`, async (t) => {
    const operations = operationsOf(description)
    t.ok(operations.length > 15)
    const tags = description.tags.map(({ name }) => name)
    for (const { url, method, operation } of operations) {
      const statuses = Object.keys(operation.responses)
      t.ok(operation.summary, `${method} ${url} has a summary`)
      t.ok(operation.tags.length > 0, `${method} ${url} has a tag`)
      for (const tag of operation.tags) t.ok(tags.includes(tag), `${tag} is described`)
      t.ok(statuses.includes('404') || statuses.includes('401'), `${method} ${url} describes errors`)
      t.ok(
        statuses.some((status) => status.startsWith('2')),
        `${method} ${url}`
      )
    }
    const ids = operations.map(({ operation }) => operation.operationId)
    t.equal(new Set(ids).size, ids.length, 'each operationId is used once')
  })
}

t.test("operationIds of GitHub's API are GitHub's", async (t) => {
  const operations = operationsOf(gitHub)
  const upstream = JSON.parse(
    await readFile(
      path.join(CHECKOUT, 'node_modules', '@octokit', 'openapi', 'generated', 'api.github.com.json'),
      'utf8'
    )
  ) as Description
  for (const { url, method, operation } of operations) {
    const known = upstream.paths[url]?.[method]
    if (known) t.equal(operation.operationId, known.operationId, `${method} ${url}`)
  }
  const served = new Set(operations.map(({ operation }) => operation.operationId))
  const expected = Object.entries(upstream.paths)
    .filter(([url]) => /^\/(user|repos\/\{owner\}\/\{repo\})\/codespaces\/secrets/.test(url))
    .flatMap(([, methods]) => Object.values(methods).map(({ operationId }) => operationId))
  t.equal(expected.length, 14)
  for (const id of expected) t.ok(served.has(id), id)
})

/** Strings of requests whose length the description does not say: why they are bounded all the same. */
const EXEMPT: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'github.json': {
    name: 'the rule of such names has a message of its own',
    login: 'the rule of logins has a message of its own',
    owner: 'is only looked up',
    account: 'is only looked up',
    admin: 'is only looked up',
    repositories: 'are only looked up',
    key_id: 'is only compared with those of keys',
    default_branch: 'the rule of branches has a message of its own',
    description: 'the limit has a message of its own',
    selected_repository_ids: 'are read as numbers',
    repository_ids: 'are read as numbers',
    scopes: 'are known ones, or refused with a message of their own',
    permissions: 'are known ones, or refused with a message of their own',
    permission: 'is a role, or refused with a message of its own',
    phrase: 'the limit has a message of its own',
    after: 'is a cursor, or refused with a message of its own',
    before: 'is a cursor, or refused with a message of its own',
    include: 'what is not known is the default',
    order: 'what is not known is the default',
    type: 'what is not known is the default',
    role: 'what is not known is the default',
    query: 'limits of GraphQL are counted while it is parsed',
    operationName: 'is only compared with those of the query'
  },
  'ona.json': {}
}

const BOUNDS = ['maxLength', 'format', 'enum', 'const', 'pattern']

/** Where in a schema there are strings without a bound: the names of the members on the way. */
function unbounded(description: Description, schema: Json, path: readonly string[] = []): string[][] {
  const inside = (part: unknown, ...names: string[]) =>
    unbounded(description, part as Json, [...path, ...names])
  const { $ref, type, properties, items, additionalProperties, anyOf, oneOf, allOf } = schema
  if (typeof $ref === 'string') return inside(description.components.schemas[$ref.split('/').at(-1)!])
  if (type === 'string' && !BOUNDS.some((bound) => bound in schema)) return [[...path]]
  return [
    ...Object.entries((properties as object) ?? {}).flatMap(([name, part]) => inside(part, name)),
    ...(items ? inside(items) : []),
    ...(typeof additionalProperties === 'object' ? inside(additionalProperties) : []),
    ...[anyOf, oneOf, allOf].flatMap((parts) => ((parts as Json[]) ?? []).flatMap((part) => inside(part)))
  ]
}

for (const [file, description] of Object.entries({ 'github.json': gitHub, 'ona.json': ona })) {
  t.test(`strings of requests in ${file} have a bound, or are exempt with a reason`, async (t) => {
    const found = operationsOf(description).flatMap(({ operation }) => [
      ...Object.values(operation.requestBody?.content ?? {}).flatMap(({ schema }) =>
        unbounded(description, schema)
      ),
      // Those of paths are bounded by the router.
      ...(operation.parameters ?? [])
        .filter((parameter) => parameter.in === 'query')
        .flatMap(({ name, schema }) => unbounded(description, schema, [name]))
    ])
    const names = new Set(found.map((path) => path.at(-1)!))
    t.same([...names].sort(), Object.keys(EXEMPT[file]!).sort())
  })
}

t.test("every method of Ona's API is one operation", async (t) => {
  const methods = services.flatMap((service) => service.methods.map((method) => urlOf(service, method)))
  t.same(
    operationsOf(ona).map(({ url, method }) => `${method} ${url}`),
    methods.map((url) => `post ${url}`)
  )
  for (const { name, description } of services) t.ok(description.length > 10, name)
})

t.test("nothing of the decoder's own words is in the description", async (t) => {
  t.notMatch(JSON.stringify(ona), /"x-(?!should-retry)/)
})

t.test('the example of every method is a message that its method reads', async (t) => {
  for (const service of services) {
    for (const method of service.methods) {
      const body = ona.paths[urlOf(service, method)]!.post!.requestBody!
      const { example } = body.content['application/json']!
      t.doesNotThrow(() => decode(method.request, example!), `${service.name}/${method.name}`)
      const refused = (() => {
        try {
          decode(method.request, {})
          return false
        } catch {
          return true
        }
      })()
      t.equal(body.required, refused, `${service.name}/${method.name}: whether there must be a body`)
    }
  }
})

const Choice = Message(
  'Choice',
  { name: Text({ required: true, max: 9 }), id: Uuid(), flag: Bool(), other: Bool() },
  { oneofs: { it: { members: ['id', 'flag'], required: true }, one: { members: ['flag', 'other'] } } }
)
const asMethod = (name: string, request: typeof Empty) =>
  method({ name, summary: name, access: 'user', request, response: Empty, handle: async () => ({}) })

t.test('what must be set, oneofs and streams in the words of OpenAPI', async (t) => {
  const plainMethod = asMethod('Watch', Choice as unknown as typeof Empty)
  const watch = { ...plainMethod, stream: true } as unknown as typeof plainMethod
  const open = { ...asMethod('Open', Empty), access: 'open' } as const
  const service = { name: 'TestService', description: 'A test', methods: [watch, open] }
  const described = plain(describeServices([service], '1.2.3'))
  const operation = described.paths['/api/gitpod.v1.TestService/Watch']!.post!
  t.match(operation, {
    operationId: 'TestService_Watch',
    tags: ['TestService'],
    requestBody: { required: true }
  })
  t.same(Object.keys(operation.responses[200]!.content!), ['application/jsonl'])
  t.notOk('security' in operation)
  t.match(described.paths['/api/gitpod.v1.TestService/Open']!.post, {
    security: [],
    description: 'Needs no token.',
    requestBody: { required: false }
  })
  t.match(operation.description, /Needs the token of a user\.\n\nEach line/)
  t.same(operation.requestBody!.content['application/json']!.example, {
    name: 'text',
    id: '6f1c2d3e-4b5a-4c6d-8e7f-901a2b3c4d5e'
  })
  t.match(described.components.schemas['gitpod.v1.Choice'], {
    required: ['name'],
    description: /^Exactly one of `id`, `flag` is set; .*; at most one of `flag`, `other` is set/,
    allOf: [
      { oneOf: [{ required: ['id'] }, { required: ['flag'] }] },
      { not: { type: 'object', required: ['flag', 'other'] } }
    ]
  })
  const result = await new Validator().validate(described as unknown as Json)
  t.same(result.errors ?? [], [])
})

t.test('messages that differ have names that do, too', async (t) => {
  const same = (max: number) => Message('Same', { name: Text({ max }) }) as unknown as typeof Empty
  const request = (name: string, max: number) => Message(name, { same: same(max) }) as unknown as typeof Empty
  const methods = [
    asMethod('One', request('OneRequest', 1)),
    asMethod('Two', request('TwoRequest', 2)),
    asMethod('Three', request('ThreeRequest', 3)),
    asMethod('Four', request('FourRequest', 2)),
    { ...asMethod('Five', Empty), response: request('FiveResponse', 3) }
  ]
  const { schemas } = plain(
    describeServices([{ name: 'TestService', description: 'A test', methods }], '1')
  ).components
  const used = (name: string) =>
    (schemas[`gitpod.v1.${name}`] as { properties: { same: { $ref: string } } }).properties.same.$ref
  const prefix = '#/components/schemas/gitpod.v1.Same'
  t.equal(used('FiveResponse'), prefix, 'what is answered has the plain name')
  t.equal(used('ThreeRequest'), prefix)
  t.equal(used('OneRequest'), `${prefix}.in.OneRequest`)
  t.equal(used('TwoRequest'), `${prefix}.in.TwoRequest`)
  t.equal(used('FourRequest'), `${prefix}.in.TwoRequest`)
  t.match(schemas['gitpod.v1.Same'], { properties: { name: { maxLength: 3 } } })

  const both = Message('BothRequest', { a: same(1), b: same(2), c: same(3) }) as unknown as typeof Empty
  t.throws(
    () =>
      describeServices(
        [{ name: 'TestService', description: 'A test', methods: [asMethod('Both', both)] }],
        '1'
      ),
    { message: 'two messages in BothRequest are called gitpod.v1.Same' }
  )
})

t.test('a server gives both descriptions to everybody, and has every method', async (t) => {
  const server = await startTestServer(t)
  t.same((await server.request('GET', '/docs/json')).json(), gitHub)
  const response = await server.request('GET', '/docs/ona.json')
  t.match(response.headers['content-type'], /^application\/json/)
  t.same(response.json(), ona)
  for (const { url, operation } of operationsOf(ona)) {
    const open = operation.security?.length === 0
    for (const path of [url, url.replace('/api', '')]) {
      const answer = await server.request('POST', path)
      t.equal(answer.json().code === 'unauthenticated', !open, `${path} ${answer.body}`)
    }
  }
})
