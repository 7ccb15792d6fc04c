import t from 'tap'
import { startTestServer } from '../../helper.ts'

// What is wrong with a query, in GitHub's words and codes; and that no value of it is repeated.

const server = await startTestServer(t)
const mona = await server.createUser('mona')
const token = await server.createToken(mona, { scopes: ['repo'] })
/** In values, which never come back. Names of fields and types do. */
const MARKER = 'MARKER-0f31'

async function ask(query: string, parameters: object = {}) {
  const response = await server.request('POST', '/graphql', { token, body: { query, ...parameters } })
  t.equal(response.statusCode, 200, query.slice(0, 80))
  t.notMatch(response.body, MARKER, query.slice(0, 80))
  return response.json()
}

t.test('an error of validation is told as by GitHub, to the member', async (t) => {
  const answer = await ask('query Q {\n  viewer { login nothing }\n}')
  t.equal(
    JSON.stringify(answer),
    '{"errors":[{"path":["query Q","viewer","nothing"],"extensions":{"code":"undefinedField","typeName":"User",' +
      '"fieldName":"nothing"},"locations":[{"line":2,"column":18}],' +
      "\"message\":\"Field 'nothing' doesn't exist on type 'User'\"}]}"
  )
})

const REPO = 'owner:"o",name:"n"'
/** query → path, code and message of each error */
const INVALID: [query: string, ...errors: [path: string, code: string, message: string][]][] = [
  [
    '{viewer}',
    [
      'query.viewer',
      'selectionMismatch',
      "Field must have selections (field 'viewer' returns User but has no selections. Did you mean 'viewer { ... }'?)"
    ]
  ],
  [
    '{viewer{login{x}}}',
    [
      'query.viewer.login',
      'selectionMismatch',
      "Selections can't be made on scalars (field 'login' returns String but has selections)"
    ]
  ],
  [
    '{nothing a:nothing}',
    ['query.nothing', 'undefinedField', "Field 'nothing' doesn't exist on type 'Query'"],
    ['query.a', 'undefinedField', "Field 'nothing' doesn't exist on type 'Query'"]
  ],
  [
    '{repository{id}}',
    [
      'query.repository',
      'missingRequiredArguments',
      "Field 'repository' is missing required arguments: owner, name"
    ]
  ],
  [
    `{repository(owner:{a:"${MARKER}"},name:"n",color:"${MARKER}"){id}}`,
    [
      'query.repository.owner',
      'argumentLiteralsIncompatible',
      "Argument 'owner' on Field 'repository' has an invalid value. Expected type 'String!'."
    ],
    ['query.repository.color', 'argumentNotAccepted', "Field 'repository' doesn't accept argument 'color'"]
  ],
  [
    `{repository(owner:null,name:${'9'.repeat(50)}){id}}`,
    [
      'query.repository.owner',
      'argumentLiteralsIncompatible',
      "Argument 'owner' on Field 'repository' has an invalid value. Expected type 'String!'."
    ],
    [
      'query.repository.name',
      'argumentLiteralsIncompatible',
      "Argument 'name' on Field 'repository' has an invalid value. Expected type 'String!'."
    ]
  ],
  [
    `{viewer{repositories(first:1,orderBy:{field:NAME,direction:ASC,x:"${MARKER}"}){totalCount}}}`,
    [
      'query.viewer.repositories.orderBy',
      'argumentLiteralsIncompatible',
      "Argument 'orderBy' on Field 'repositories' has an invalid value. Expected type 'RepositoryOrder'."
    ]
  ],
  [
    `{repository(owner:"a",owner:"${MARKER}",name:"n"){id}}`,
    ['query.repository.owner', 'argumentNotUnique', 'There can be only one argument named "owner"']
  ],
  [
    '{viewer{repositories(first:1,orderBy:{field:NAME,field:NAME,direction:ASC}){totalCount}}}',
    [
      'query.viewer.repositories.orderBy',
      'inputFieldNotUnique',
      'There can be only one input field named "field"'
    ]
  ],
  [
    `query Q($o:Int!){repository(owner:$o,name:"n"){id}}`,
    [
      'query Q.repository.owner',
      'variableMismatch',
      'Type mismatch on variable $o and argument owner (Int! / String!)'
    ]
  ],
  [
    `query Q($o:String="${MARKER}"){viewer{login}}`,
    ['query Q', 'variableNotUsed', 'Variable $o is declared by Q but not used']
  ],
  [
    `query($first:Int="${MARKER}"){viewer{repositories(first:$first){totalCount}}}`,
    ['query', 'defaultValueInvalidType', "Default value for $first doesn't match type Int"]
  ],
  [
    '{repository(owner:$o,name:"n"){id}}',
    [
      'query.repository.owner',
      'variableNotDefined',
      'Variable $o is used by anonymous query but not declared'
    ]
  ],
  [
    'query($o:String!,$o:String!){repository(owner:$o,name:$o){id}}',
    ['query', 'variableNotUnique', 'There can only be one variable named "o"']
  ],
  [
    'query($a:Missing){viewer{login @include(if:$a)}}',
    ['query', 'variableRequiresValidType', "Missing isn't a defined input type (on $a)"]
  ],
  [
    'query($a:[User!]!){viewer{login @include(if:$a)}}',
    ['query', 'variableRequiresValidType', "User isn't a valid input type (on $a)"]
  ],
  ['{...f}', ['query.... f', 'useAndDefineFragment', 'Fragment f was used, but not defined']],
  [
    '{viewer{login}} fragment f on User{login}',
    ['fragment f', 'useAndDefineFragment', 'Fragment f was defined, but not used']
  ],
  [
    '{...f} fragment f on Query{viewer{login} ...g} fragment g on Query{...f}',
    ['fragment f.... g', 'infiniteLoop', 'Fragment g contains an infinite loop']
  ],
  [
    '{...f} fragment f on Query{__typename} fragment f on Query{__typename}',
    ['fragment f', 'fragmentNotUnique', 'Fragment name "f" must be unique']
  ],
  [
    '{viewer{...f}} fragment f on Repository{id}',
    ['query.viewer.... f', 'cannotSpreadFragment', "Fragment f can't be spread inside User"]
  ],
  [
    '{viewer{... on Repository{id}}}',
    ['query.viewer.... on Repository', 'cannotSpreadFragment', "Fragment can't be spread inside User"]
  ],
  [
    '{viewer{... on Missing{id}}}',
    [
      'query.viewer.... on Missing',
      'undefinedType',
      "No such type Missing, so it can't be a fragment condition"
    ]
  ],
  [
    '{viewer{... on String{id}}}',
    [
      'query.viewer.... on String',
      'fragmentOnNonCompositeType',
      'Invalid fragment on type String (must be Union, Interface or Object)'
    ]
  ],
  [
    '{viewer{login @missing}}',
    ['query.viewer.login', 'undefinedDirective', 'Directive @missing is not defined']
  ],
  [
    'query @skip(if:true){viewer{login}}',
    ['query', 'directiveCannotBeApplied', "'@skip' can't be applied here"]
  ],
  [
    '{viewer{login @skip}}',
    ['query.viewer.login', 'missingRequiredArguments', "Directive 'skip' is missing required arguments: if"]
  ],
  [
    `{viewer{login @skip(if:"${MARKER}",x:1)}}`,
    [
      'query.viewer.login.if',
      'argumentLiteralsIncompatible',
      "Argument 'if' on Directive 'skip' has an invalid value. Expected type 'Boolean!'."
    ],
    ['query.viewer.login.x', 'argumentNotAccepted', "Directive 'skip' doesn't accept argument 'x'"]
  ],
  [
    '{viewer{login @skip(if:false) @skip(if:true)}}',
    [
      'query.viewer.login',
      'directiveNotUniqueForLocation',
      'The directive "skip" can only be used once at this location.'
    ]
  ],
  [
    `{x:viewer{id} x:repository(${REPO}){id}}`,
    ['query.x', 'fieldConflict', "Field 'x' has a field conflict: viewer or repository?"]
  ],
  [
    `{repository(owner:"${MARKER}",name:"a"){id} repository(${REPO}){id}}`,
    ['query.repository', 'fieldConflict', "Field 'repository' has an argument conflict: repository?"]
  ],
  [
    'query a{viewer{login}} query a{viewer{id}}',
    ['query a', 'uniquelyNamedOperations', 'Operation name "a" must be unique']
  ],
  [
    'query a{viewer{login}} {viewer{id}}',
    ['query', 'uniquelyNamedOperations', 'Operation name is required when multiple operations are present']
  ],
  [
    'mutation M{createRepository(input:{name:"x"}){id}}',
    ['mutation M', 'missingMutationConfiguration', 'Schema is not configured for mutations']
  ],
  [
    'subscription{viewer{login}}',
    ['subscription', 'missingSubscriptionConfiguration', 'Schema is not configured for subscriptions']
  ],
  [
    `type A{a:Int} query{viewer{login}} extend type B @a(x:"${MARKER}")`,
    ['', 'queryContainsSchemaDefinitions', 'Query cannot contain schema definitions'],
    ['', 'queryContainsSchemaDefinitions', 'Query cannot contain schema definitions']
  ],
  [
    '{__proto__ constructor{toString}}',
    ['query.__proto__', 'undefinedField', "Field '__proto__' doesn't exist on type 'Query'"],
    ['query.constructor', 'undefinedField', "Field 'constructor' doesn't exist on type 'Query'"]
  ],
  [
    '{viewer{...on User{hasOwnProperty}}}',
    [
      'query.viewer.... on User.hasOwnProperty',
      'undefinedField',
      "Field 'hasOwnProperty' doesn't exist on type 'User'"
    ]
  ]
]

t.test('every rule has words of its own', async (t) => {
  for (const [query, ...expected] of INVALID) {
    const answer = await ask(query)
    t.same(Object.keys(answer), ['errors'], `${query}: without data`)
    const told = answer.errors.map(
      ({ path, extensions, message }: { path: string[]; extensions: { code: string }; message: string }) => [
        path.join('.'),
        extensions.code,
        message
      ]
    )
    for (const error of expected)
      t.ok(
        told.some((one: string[]) => one.join() === error.join()),
        `${query}: ${error}, not ${JSON.stringify(told)}`
      )
    for (const { locations } of answer.errors) t.ok(locations.length >= 1 && locations.length < 20, query)
  }
})

t.test('a text that is no query is told where, and not repeated', async (t) => {
  for (const [query, message, line, column] of [
    ['{viewer{login}', 'Expected Name, found <EOF> at [1, 15]', 1, 15],
    ['{viewer{login}}\n}', 'Unexpected "}" at [2, 1]', 2, 1],
    [`{viewer(a:"${MARKER}" "${MARKER}"){login}}`, 'Expected Name, found String at [1, 25]', 1, 25],
    [`MARKER_0f31 {viewer{login}}`, 'Unexpected Name at [1, 1]', 1, 1],
    [`{a(b:"${MARKER}`, 'Parse error at [1, 18]', 1, 18],
    [`{a(b:"""${MARKER}`, 'Parse error at [1, 20]', 1, 20],
    ['{a(b:"\\uZZZZ")}', 'Parse error at [1, 7]', 1, 7],
    ["{a(b:'MARKER-0f31')}", 'Parse error at [1, 6]', 1, 6],
    ['{a(b:12MARKER)}', 'Parse error at [1, 8]', 1, 8],
    ['{a(b:99999 0x)}', 'Parse error at [1, 13]', 1, 13],
    ['query{a @}', 'Expected Name, found "}" at [1, 10]', 1, 10],
    ['fragment on on User{id}', 'Unexpected Name at [1, 10]', 1, 10],
    ['{a(b:$1)}', 'Expected Name, found Int at [1, 7]', 1, 7],
    ['{a:}', 'Expected Name, found "}" at [1, 4]', 1, 4],
    [' ', 'Unexpected <EOF> at [1, 2]', 1, 2],
    ['# only a comment', 'Unexpected <EOF> at [1, 17]', 1, 17],
    ['\u0000', 'Parse error at [1, 1]', 1, 1],
    ['{é}', 'Parse error at [1, 2]', 1, 2]
  ] as const) {
    t.same(await ask(query), { errors: [{ locations: [{ line, column }], message }] }, query)
  }
})

t.test('names that are too long to be of a schema are cut', async (t) => {
  const name = `coffer_pat_${'x'.repeat(49)}`
  for (const query of [
    `{${name}}`,
    `{${name}:nothing}`,
    `{viewer{${name}}}`,
    `{viewer(${name}:1){login}}`,
    `query ${name}{nothing}`,
    `query($${name}:Int){viewer{login}}`,
    `query($a:${name}){viewer{login}}`,
    `{...${name}}`,
    `{viewer{login}} fragment ${name} on User{id}`,
    `{viewer{...on ${name}{id}}}`,
    `{viewer{login @${name}}}`,
    `query ${name}{viewer{login}} query ${name}{viewer{login}}`,
    `{${name}:viewer{login} ${name}:repository(${REPO}){id}}`
  ]) {
    const answer = JSON.stringify(await ask(query))
    t.match(answer, /coff…/, query)
    t.notMatch(answer, name.slice(0, 12), query)
  }
})

t.test('variables are checked, and their values not repeated', async (t) => {
  const byName = 'query($owner:String!,$name:String!){repository(owner:$owner,name:$name){id}}'
  const paged =
    'query($first:Int,$order:RepositoryOrder){viewer{repositories(first:$first,orderBy:$order){totalCount}}}'
  const isNull = 'Expected value to not be null'
  const coerce = (type: string) => `Could not coerce the value to ${type}`
  for (const [query, variables, ...expected] of [
    [byName, null, ['owner', 'String!', isNull], ['name', 'String!', isNull]],
    [byName, {}, ['owner', 'String!', isNull], ['name', 'String!', isNull]],
    [byName, { owner: null, name: 'n' }, ['owner', 'String!', isNull]],
    [byName, { owner: 5, name: MARKER }, ['owner', 'String!', coerce('String!')]],
    [
      byName,
      { owner: [MARKER], name: { MARKER } },
      ['owner', 'String!', coerce('String!')],
      ['name', 'String!', coerce('String!')]
    ],
    [
      byName,
      { __proto__: { owner: 'o', name: 'n' } },
      ['owner', 'String!', isNull],
      ['name', 'String!', isNull]
    ],
    [paged, { first: MARKER }, ['first', 'Int', coerce('Int')]],
    [paged, { first: 1.5 }, ['first', 'Int', coerce('Int')]],
    [paged, { first: 2 ** 40 }, ['first', 'Int', coerce('Int')]],
    [paged, { first: true }, ['first', 'Int', coerce('Int')]],
    [
      paged,
      { first: 1, order: { field: MARKER, direction: 'ASC' } },
      ['order', 'RepositoryOrder', coerce('RepositoryOrder')]
    ],
    [paged, { first: 1, order: { field: 'NAME' } }, ['order', 'RepositoryOrder', coerce('RepositoryOrder')]],
    [
      paged,
      { first: 1, order: { field: 'NAME', direction: 'ASC', [MARKER]: 1 } },
      ['order', 'RepositoryOrder', coerce('RepositoryOrder')]
    ]
  ] as [string, object | null, ...[string, string, string][]][]) {
    const name = JSON.stringify(variables)
    const { data, errors } = await ask(query, { variables })
    t.equal(data, undefined, name)
    t.same(
      errors.map(({ message, extensions }: { message: string; extensions: object }) => [message, extensions]),
      expected.map(([variable, type, explanation]) => [
        `Variable $${variable} of type ${type} was provided invalid value`,
        { problems: [{ path: [], explanation }] }
      ]),
      name
    )
  }
  const extra = await ask('{viewer{login}}', {
    variables: { [MARKER]: MARKER, __proto__: 1, constructor: {} }
  })
  t.same(extra, { data: { viewer: { login: 'mona' } } }, 'variables that nobody declared')
  const proto = `{"query":"query($__proto__:String!){repository(owner:$__proto__,name:\\"n\\"){id}}","variables":{"__proto__":"o"}}`
  const named = await server.request('POST', '/graphql', { token, body: proto })
  t.same(named.json().data, { repository: null }, 'a variable of that name has no value')
  t.equal(named.json().errors.length, 1)

  const given =
    'query($owner:String="mona",$yes:Boolean=true){viewer{login @include(if:$yes)} repository(owner:$owner,name:"n"){id}}'
  t.match(await ask(given, { variables: { owner: null } }), {
    data: { viewer: { login: 'mona' }, repository: null },
    errors: [{ path: ['repository'], message: 'An argument has a value that its type does not allow.' }]
  })
  t.match(await ask(given, { variables: { yes: null } }), {
    data: null,
    errors: [{ path: ['viewer'], message: 'An argument has a value that its type does not allow.' }]
  })

  for (const variables of ['{}', '', MARKER, 5, true, false, [], [1]]) {
    t.same(
      await ask('{viewer{login}}', { variables }),
      { errors: [{ message: 'The variables attribute must be a JSON object.' }] },
      JSON.stringify(variables)
    )
  }
})

t.test('of several operations the named one runs', async (t) => {
  const two = 'query a{viewer{login}} query b{viewer{databaseId}}'
  t.same(await ask(two, { operationName: 'a' }), { data: { viewer: { login: 'mona' } } })
  t.same(await ask(two, { operationName: 'b' }), { data: { viewer: { databaseId: mona.id } } })
  const required = { errors: [{ message: 'An operation name is required' }] }
  for (const operationName of [undefined, null, '']) t.same(await ask(two, { operationName }), required)
  const absent = { errors: [{ message: 'No operation has the name in operationName' }] }
  for (const operationName of ['c', 'A', MARKER, '__proto__', 'constructor']) {
    t.same(await ask(two, { operationName }), absent, operationName)
    t.same(await ask('{viewer{login}}', { operationName }), absent, operationName)
  }
  for (const operationName of [5, true, [], {}, ['a']]) {
    t.same(await ask(two, { operationName }), {
      errors: [{ message: 'The operationName attribute must be a string.' }]
    })
  }
  const other = 'query a($x:String!){repository(owner:$x,name:"n"){id}} query b{viewer{login}}'
  t.same(
    await ask(other, { operationName: 'b' }),
    { data: { viewer: { login: 'mona' } } },
    'of which the variables count'
  )
})

t.test('aliases of any name are members of the answer', async (t) => {
  const response = await server.request('POST', '/graphql', {
    token,
    body: {
      query: '{__proto__:viewer{__proto__:login constructor:login toString:login} hasOwnProperty:__typename}'
    }
  })
  t.equal(
    response.body,
    '{"data":{"__proto__":{"__proto__":"mona","constructor":"mona","toString":"mona"},"hasOwnProperty":"Query"}}'
  )
  t.equal(({} as { login?: string }).login, undefined)
})

t.test('a defect is logged, and tells nothing but the id of the request', async (t) => {
  const broken = await startTestServer(t)
  const owner = await broken.createUser('mona')
  const owned = await broken.createToken(owner, { scopes: ['repo'] })
  await broken.db.schema.alterTable('collaborators').renameTo('elsewhere').execute()
  const query = `{viewer{login} a:repository(owner:"mona",name:"${MARKER}"){id} b:repository(owner:"mona",name:"b"){id}}`
  const response = await broken.request('POST', '/graphql', { token: owned, body: { query } })
  t.equal(response.statusCode, 200)
  const requestId = response.headers['x-github-request-id']
  t.same(response.json(), {
    data: { viewer: { login: 'mona' }, a: null, b: null },
    errors: [
      {
        message:
          'Something went wrong while executing your query. ' +
          `Please include \`${requestId}\` when reporting this issue.`
      }
    ]
  })
  const failures = broken.log.map((line) => JSON.parse(line)).filter(({ level }) => level === 'error')
  t.match(failures, [{ msg: 'query failed', reqId: requestId, err: { name: 'error', code: '42P01' } }])
  t.equal(failures.length, 1, 'once, though two fields failed')
  t.notMatch(broken.log.join(''), new RegExp(`${MARKER}|collaborators`))
})

t.test('nothing else went wrong, and no query is in the log', async (t) => {
  const lines = server.log.map((line) => JSON.parse(line))
  t.same(
    lines.filter(({ level }) => level === 'error' || level === 'warn'),
    []
  )
  t.notMatch(server.log.join(''), /MARKER|coffer_pat|viewer/)
})
