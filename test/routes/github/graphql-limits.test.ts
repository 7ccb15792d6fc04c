import { getIntrospectionQuery } from 'graphql'
import t, { type Test } from 'tap'
import { startTestServer } from '../../helper.ts'
import { isRefusal } from './refusal.ts'

// What a query may cost is settled before it runs; a query at the limit is answered.

const server = await startTestServer(t, { logLevel: 'warn' })
const mona = await server.createUser('mona')
for (const name of ['a', 'b']) await server.createRepository(mona, name)
const token = await server.createToken(mona, { scopes: ['repo'] })

const post = (query: string) => server.request('POST', '/graphql', { token, body: { query } })
const many = (count: number, make: (index: number) => string) =>
  Array.from({ length: count }, (_, n) => make(n)).join(' ')

async function answers(t: Test, query: string, name: string) {
  const response = await post(query)
  t.equal(response.statusCode, 200, name)
  const { data, errors } = response.json()
  t.equal(errors, undefined, `${name}: ${JSON.stringify(errors)?.slice(0, 200)}`)
  return data
}

async function refuses(t: Test, query: string, rule: string, name = query.slice(0, 60)) {
  const response = await post(query)
  t.equal(response.statusCode, 200, name)
  t.same(
    response.json(),
    {
      errors: [
        { type: 'RESOURCE_LIMITS_EXCEEDED', message: `Resource limits for this query exceeded: ${rule}.` }
      ]
    },
    name
  )
}

const TOKENS = 'it may have 8000 lexical tokens'
const NESTING = 'brackets may be nested 50 times'
const DEPTH = 'fields and fragments may be nested 25 times'
const DEFINITIONS = 'it may have 50 operations and fragments'
const FIELDS = 'it may ask for 20000 fields'
const LISTS = 'it may ask for 10 lists'
const SCHEMA = 'it may ask for 500 fields of the schema'
const TYPE_LISTS = 'lists of a type may not be nested in each other'
const CONFUSED = 'it has too many errors, or too many fields of the same name'

t.test('the text: tokens, brackets and bytes', async (t) => {
  // three tokens for each alias, five for the rest
  const aliases = (count: number) => `{viewer{${many(count, (n) => `a${n}:login`)}}}`
  await answers(t, aliases(2665), 'as many tokens as there may be')
  await refuses(t, aliases(2666), TOKENS)
  await refuses(t, `{${many(10_000, (n) => `r${n}:viewer{id}`)}}`.slice(0, 120_000), TOKENS, '10,000 aliases')
  await refuses(t, `{viewer{login ${'@a '.repeat(5000)}}}`, TOKENS, 'directives')
  await refuses(t, `query(${many(3000, (n) => `$v${n}:Int`)}){viewer{login}}`, TOKENS, 'variables')
  await refuses(t, `{user(login:[${'1 '.repeat(8000)}]){id}}`, TOKENS, 'a list')

  for (const bracket of ['{a', '[', '(', '{', '{a(b:[']) {
    await refuses(t, `{viewer${bracket.repeat(5000)}`.slice(0, 60_000), NESTING, `${bracket} in itself`)
  }
  await refuses(t, `query($a:${'['.repeat(60)}Int${']'.repeat(60)}){viewer{login}}`, NESTING, 'types')
  await answers(t, `{viewer{login}}#${'{'.repeat(1000)}`, 'brackets of a comment are none')
  t.equal(
    (await post(`{user(login:"${'{'.repeat(100)}"){id}}`)).json().errors[0].type,
    'NOT_FOUND',
    'nor of a string'
  )

  const tooLarge = { status: 413, message: 'The request body is too large.' }
  isRefusal(t, await post(`{viewer{login}}#${'x'.repeat(131_100)}`), tooLarge, 'a body')
  await answers(t, `{viewer{login}}#${'x'.repeat(125_000)}`, 'a long comment')
  const long = await post(`{user(login:"${'x'.repeat(120_000)}"){id}}`)
  t.equal(long.json().errors[0].message, 'Could not resolve to a User with that login.')
  t.ok(long.body.length < 300)
  const name = await post(`{${'x'.repeat(120_000)}}`)
  t.ok(name.body.length < 300, 'nor is a long name repeated')
})

t.test('fields and fragments in each other', async (t) => {
  const nest = (depth: number) =>
    `{repository(owner:"mona",name:"a"){${'parent{'.repeat(depth - 2)}id${'}'.repeat(depth - 2)}}}`
  await answers(t, nest(25), '25 deep')
  await refuses(t, nest(26), DEPTH)
  await refuses(t, nest(40), DEPTH)
  const chain = (length: number) =>
    `{repository(owner:"mona",name:"a"){...f0}} ${many(
      length,
      (n) => `fragment f${n} on Repository{parent{...f${n + 1}}}`
    )} fragment f${length} on Repository{id}`
  await answers(t, chain(11), 'by fragments')
  await refuses(t, chain(12), DEPTH)
  const inline = (depth: number) => `{viewer{${'...{'.repeat(depth - 2)}login${'}'.repeat(depth - 2)}}}`
  t.same(await answers(t, inline(25), 'inline fragments'), { viewer: { login: 'mona' } })
  await refuses(t, inline(26), DEPTH)

  const backwards = many(
    11,
    (n) => `fragment f${n} on Repository{parent{${n === 0 ? 'id' : `...f${n - 1}`}}}`
  )
  await answers(t, `${backwards} {repository(owner:"mona",name:"a"){...f10}}`, 'defined from the inside out')
  const late = `{repository(owner:"mona",name:"a"){...f10 parent{parent{...f10}}}}`
  await refuses(t, `${backwards} ${late}`, DEPTH, 'measured once, used deeper')
  const deep = many(49, (n) => `fragment f${n} on Query{${'...{'.repeat(48)}...f${n + 1} ${'}'.repeat(48)}}`)
  await refuses(
    t,
    `{...f0} ${deep.slice(0, deep.indexOf('fragment f45'))} fragment f45 on Query{a:__typename}`,
    DEPTH
  )
})

t.test('fragments: how many, in each other, and in circles', async (t) => {
  const fragments = (count: number) =>
    `{viewer{${many(count, (n) => `...f${n}`)}}} ${many(count, (n) => `fragment f${n} on User{login}`)}`
  await answers(t, fragments(49), '49')
  await refuses(t, fragments(50), DEFINITIONS)
  await refuses(
    t,
    many(51, (n) => `query q${n}{viewer{login}}`),
    DEFINITIONS
  )

  const doubling = (length: number) =>
    `{...f0} ${many(length, (n) => `fragment f${n} on Query{a${n}:__typename ...f${n + 1} ...f${n + 1}}`)}
     fragment f${length} on Query{viewer{login}}`
  const small = await answers(t, doubling(12), 'doubled twelve times')
  t.same(small.viewer, { login: 'mona' })
  await refuses(t, doubling(20), FIELDS)
  const wide = many(20, (n) => `fragment f${n} on Query{${`...f${n + 1} `.repeat(99)}}`)
  await refuses(t, `{...f0} ${wide} fragment f20 on Query{viewer{login}}`, FIELDS, '99 to the 20th')

  for (const circle of [
    '{...a} fragment a on Query{...a}',
    '{...a} fragment a on Query{...b ...b} fragment b on Query{...a ...a}',
    `{...f0} ${many(20, (n) => `fragment f${n} on Query{${many(20, (m) => `...f${m}`)}}`)}`
  ]) {
    const { data, errors } = (await post(circle)).json()
    t.equal(data, undefined)
    t.equal(errors[0].extensions.code, 'infiniteLoop', circle.slice(0, 40))
  }
})

t.test('lists: how many, and what is in them', async (t) => {
  const lists = (count: number, first: string) =>
    `{viewer{${many(count, (n) => `l${n}:repositories(${first}){totalCount}`)}}}`
  await answers(t, lists(10, 'first:1'), '10')
  await refuses(t, lists(11, 'first:1'), LISTS)
  const within = (outer: string, inner: string) =>
    `query($n:Int=2){viewer{repositories(first:${outer}){nodes{owner{repositories(first:${inner}){nodes{name}}}}}}}`
  await refuses(t, within('20', '1').replace('($n:Int=2)', ''), LISTS)
  const nested = await answers(t, within('9', '2').replace('($n:Int=2)', ''), 'of a list of nine')
  t.equal(nested.viewer.repositories.nodes[1].owner.repositories.nodes.length, 2)
  await refuses(t, within('$n', '$n'), FIELDS, 'a variable may be the largest page')

  const entries = (fields: number, first: string) =>
    `query($n:Int=2){viewer{repositories(first:${first}){nodes{${many(fields, (n) => `a${n}:name`)}}}}}`
  await answers(t, entries(190, '$n'), '190 fields of a hundred')
  await refuses(t, entries(200, '$n'), FIELDS)
  await answers(t, entries(1000, '3').replace('($n:Int=2)', ''), '1,000 fields of three')
  for (const first of ['-1', '-100000', '99999999999', '1000000']) {
    const { errors } = (await post(`{viewer{repositories(first:${first}){totalCount}}}`)).json()
    t.match(errors[0].message, /first/, first)
  }
})

t.test('introspection is whole, but no more', async (t) => {
  t.ok((await answers(t, getIntrospectionQuery(), 'the usual query')).__schema.types.length > 20)
  const fields = (count: number) => `{__schema{types{fields{${many(count, (n) => `a${n}:name`)}}}}}`
  await answers(t, fields(498), 'its fields')
  await refuses(t, fields(499), SCHEMA)
  await refuses(t, `{${many(4, (n) => `s${n}:__schema{types{${many(150, (m) => `a${m}:name`)}}}`)}}`, SCHEMA)
  await refuses(
    t,
    `{${many(4, (n) => `s${n}:__type(name:"User"){${many(150, (m) => `a${m}:name`)}}`)}}`,
    SCHEMA
  )
  for (const query of [
    '{__schema{types{fields{type{fields{name}}}}}}',
    '{__type(name:"User"){interfaces{possibleTypes{name}}}}',
    '{__type(name:"User"){...f}} fragment f on __Type{fields{type{...g}}} fragment g on __Type{inputFields{name}}'
  ]) {
    await refuses(t, query, TYPE_LISTS)
  }
})

t.test('validation ends, whatever there is to compare', async (t) => {
  await refuses(t, `{${'viewer{login} '.repeat(1500)}}`, CONFUSED)
  const repeated = await post(`{viewer{${'login '.repeat(500)}}}`)
  t.same(repeated.json(), { data: { viewer: { login: 'mona' } } })
  const wrong = (await post(`{viewer{${many(1000, (n) => `nothing${n}`)}}}`)).json()
  t.equal(wrong.errors.length, 101, 'a hundred errors, and that there are more')
  t.match(wrong.errors.at(-1), { type: 'RESOURCE_LIMITS_EXCEEDED', message: /too many errors/ })
  const directives = (await post(`{viewer{login ${'@include(if:true) '.repeat(1000)}}}`)).json()
  t.equal(directives.errors.length, 101)
})

t.test('five hundred repositories by name are one query', async (t) => {
  const query = `query MapRepositoryNames {${many(
    500,
    (n) => `repo_${n}: repository(owner: "mona", name: "${n % 2 ? 'a' : 'b'}") { databaseId }\n`
  )}}`
  const data = await answers(t, query, '500')
  t.equal(Object.keys(data).length, 500)
  t.equal(data.repo_1.databaseId, data.repo_499.databaseId)
  t.not(data.repo_0.databaseId, data.repo_1.databaseId)
})

t.test('none of that was a defect', async (t) => {
  t.same(server.log, [])
})
