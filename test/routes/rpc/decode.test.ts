import t, { type Test } from 'tap'
import { InvalidInput, UnreadableBody } from '../../../src/errors.ts'
import { decode, parseBody, secondsOf } from '../../../src/routes/rpc/decode.ts'
import {
  Bool,
  Duration,
  Enum,
  Int32,
  List,
  MapOf,
  Message,
  required,
  Text,
  Timestamp,
  Uint64,
  Uuid
} from '../../../src/routes/rpc/schema.ts'

const UUID = '7c9e6679-7425-40de-944b-e07fc1f90ae7'
const MARKER = 'MARKER-of-a-message-3b7e'

const Part = Message('Part', { displayName: Text({ max: 5 }), partCount: Int32() })

const Whole = Message(
  'Whole',
  {
    someText: Text(),
    shortText: Text({ min: 2, max: 4 }),
    codeText: Text({ pattern: '^[a-z]+$', rule: 'must be small letters' }),
    rawText: Text({ nul: true }),
    someId: Uuid(),
    someFlag: Bool(),
    someNumber: Int32(),
    smallNumber: Int32({ min: 0, max: 100 }),
    someVersion: Uint64(),
    someTime: Timestamp(),
    someDuration: Duration(),
    boundDuration: Duration({ least: 300, most: 7200 }),
    zeroDuration: Duration({ least: 1800, orZero: true }),
    someKind: Enum('KIND', { KIND_ONE: 1, KIND_TWO: 20 }),
    somePart: Part,
    someParts: List(Part, { max: 3 }),
    someTexts: List(Text({ max: 5 }), { min: 1, max: 3 }),
    someKinds: List(Enum('KIND', { KIND_ONE: 1 }), { max: 2 }),
    someMap: MapOf(Part)
  },
  { description: 'One member of each type' }
)

/** What one member is read as, under the name that it has in Whole. */
function read(member: string, json: unknown): unknown {
  return (decode(Whole, { [member]: json }) as Record<string, unknown>)[member]
}

/** Field and rule of all that is wrong, which the message says, too, and nothing of what was sent. */
function violations(
  t: Test,
  schema: Parameters<typeof decode>[0],
  body: object,
  sent: string[] = [MARKER]
): string[] {
  try {
    decode(schema, body)
  } catch (error) {
    if (!(error instanceof InvalidInput)) throw error
    const told = error.violations.map(({ field, message }) => `${field}: ${message}`)
    t.equal(error.message, told.join('; '), 'the message says all of it')
    for (const text of sent) t.notOk(error.message.includes(text), 'nothing that was sent comes back')
    t.ok(error.violations.every(({ code }) => code === 'invalid'))
    return told
  }
  t.fail('it was taken')
  return []
}

function refuses(t: Test, member: string, values: readonly unknown[], rule: string): void {
  for (const value of values) {
    const sent = typeof value === 'string' && value.length > 3 && !rule.includes(value) ? [value] : []
    t.strictSame(
      violations(t, Whole, { [member]: value }, sent),
      [`${member}: ${rule}`],
      `${member} ${JSON.stringify(value)?.slice(0, 60)}`
    )
  }
}

function takes(t: Test, member: string, values: readonly (readonly [unknown, unknown])[]): void {
  for (const [json, expected] of values) {
    t.strictSame(read(member, json), expected, `${member} ${JSON.stringify(json)?.slice(0, 60)}`)
  }
}

t.test('the body', (t) => {
  t.strictSame(parseBody(Buffer.alloc(0)), {}, 'no body is an empty message')
  t.strictSame(parseBody(Buffer.from(' {"a": 1}\r\n')), { a: 1 })
  const bodies: [string, Buffer | string, string][] = [
    ['blanks', '  ', 'The body is not JSON.'],
    ['half of it', `{"name": "${MARKER}`, 'The body is not JSON.'],
    ['a byte order mark', '\ufeff{}', 'The body is not JSON.'],
    ['a form', `name=${MARKER}`, 'The body is not JSON.'],
    ['two of them', '{}{}', 'The body is not JSON.'],
    ['Latin-1', Buffer.from('{"name": "é"}', 'latin1'), 'The body is not UTF-8.'],
    ['a surrogate in CESU-8', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), 'The body is not UTF-8.'],
    ['UTF-16', Buffer.from('{}', 'utf16le'), 'The body is not JSON.'],
    ['a list', `["${MARKER}"]`, 'The body is not a JSON object.'],
    ['null', 'null', 'The body is not a JSON object.'],
    ['a string', `"${MARKER}"`, 'The body is not a JSON object.'],
    ['a number', '1', 'The body is not a JSON object.'],
    ['lists, 100,000 deep', '['.repeat(1e5) + ']'.repeat(1e5), 'The body is not a JSON object.']
  ]
  for (const [name, body, message] of bodies) {
    t.throws(() => parseBody(Buffer.from(body as string)), new UnreadableBody(message), name)
  }
  t.end()
})

t.test('names in either spelling, null as unset, unknown members ignored', (t) => {
  t.strictSame(decode(Whole, { someText: 'a', some_number: 1, somePart: { part_count: 2 } }), {
    someText: 'a',
    someNumber: 1,
    somePart: { partCount: 2 }
  })
  const names = Object.keys(Whole.properties)
  t.strictSame(decode(Whole, Object.fromEntries(names.map((name) => [name, null]))), {}, 'null everywhere')
  t.strictSame(decode(Whole, { someText: 'a', some_text: null }), { someText: 'a' })
  for (const unknown of ['SomeText', 'sometext', 'some-text', 'some_Text', '', 'toString', 'x'.repeat(1e5)]) {
    t.strictSame(decode(Whole, { [unknown]: MARKER }), {}, `${unknown.slice(0, 20)} is unknown`)
  }
  t.strictSame(decode(Part, { deep: JSON.parse(`${'[{"a":'.repeat(20_000)}1${'}]'.repeat(20_000)}`) }), {})
  t.end()
})

t.test('members that objects have by nature are nothing special', (t) => {
  const sent = JSON.parse(
    '{"__proto__": {"someText": "x"}, "constructor": {"prototype": {"someText": "x"}}, "hasOwnProperty": 1}'
  )
  const message = decode(Whole, sent)
  t.strictSame(Object.keys(message), [])
  t.equal((message as { someText?: string }).someText, undefined)
  t.equal(({} as { someText?: string }).someText, undefined, 'and no prototype was changed')

  const { someMap } = decode(
    Whole,
    JSON.parse(
      `{"someMap": {"__proto__": {"displayName": "a"}, "constructor": {"displayName": "b"}, "toString": {}, "": {}}}`
    )
  ) as { someMap: Record<string, object> }
  t.equal(
    JSON.stringify(someMap),
    '{"__proto__":{"displayName":"a"},"constructor":{"displayName":"b"},"toString":{},"":{}}',
    'a map has keys of any name'
  )
  t.equal(Object.getPrototypeOf(someMap), null)
  t.equal(({} as { displayName?: string }).displayName, undefined)
  t.end()
})

t.test('strings', (t) => {
  takes(t, 'someText', [
    ['', ''],
    [' kept as it is\r\n\t', ' kept as it is\r\n\t'],
    ['\ufeffé𝒳', '\ufeffé𝒳'],
    ['\ue000\uffff', '\ue000\uffff']
  ])
  refuses(t, 'someText', [0, 1, true, false, ['a'], { a: 1 }, [], {}], 'must be a string')
  refuses(t, 'someText', ['\ud800', 'a\udfff', '\udc00\ud800'], 'must be Unicode without lone surrogates')
  refuses(t, 'rawText', ['\ud800'], 'must be Unicode without lone surrogates')
  refuses(t, 'someText', ['\0', `${MARKER}\0`], 'must not contain NUL')
  takes(t, 'rawText', [['a\0b', 'a\0b']])
  takes(t, 'codeText', [['abc', 'abc']])
  refuses(t, 'codeText', ['', 'A', 'abc\n', MARKER], 'must be small letters')
  t.end()
})

t.test('lengths are counted in code points', (t) => {
  takes(t, 'shortText', [
    ['ab', 'ab'],
    ['abcd', 'abcd'],
    ['𝒳𝒳', '𝒳𝒳'],
    ['𝒳𝒳𝒳𝒳', '𝒳𝒳𝒳𝒳'],
    ['é́', 'é́']
  ])
  refuses(t, 'shortText', ['', 'a', '𝒳'], 'must have at least 2 characters')
  refuses(
    t,
    'shortText',
    ['abcde', '𝒳𝒳𝒳𝒳𝒳', 'x'.repeat(5e5), '𝒳'.repeat(2e5)],
    'must have at most 4 characters'
  )
  t.end()
})

t.test('UUIDs', (t) => {
  takes(t, 'someId', [
    [UUID, UUID],
    [UUID.toUpperCase(), UUID],
    ['', undefined],
    ['00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000']
  ])
  const malformed = [
    MARKER,
    ` ${UUID}`,
    `${UUID}\n`,
    `{${UUID}}`,
    `urn:uuid:${UUID}`,
    UUID.replaceAll('-', ''),
    UUID.replace('7', 'g'),
    `${UUID}0`,
    1,
    true,
    [UUID],
    {}
  ]
  refuses(t, 'someId', malformed, 'must be a UUID')
  t.end()
})

t.test('flags', (t) => {
  takes(t, 'someFlag', [
    [true, true],
    [false, false]
  ])
  refuses(t, 'someFlag', ['true', 'false', '', 0, 1, [], {}], 'must be true or false')
  t.end()
})

t.test('int32, as a number or as a string', (t) => {
  takes(t, 'someNumber', [
    [0, 0],
    [-1, -1],
    ['42', 42],
    ['-42', -42],
    [1.0, 1],
    [2_147_483_647, 2_147_483_647],
    ['2147483647', 2_147_483_647],
    [-2_147_483_648, -2_147_483_648],
    ['-2147483648', -2_147_483_648]
  ])
  const not = [
    2_147_483_648,
    '2147483648',
    -2_147_483_649,
    '-2147483649',
    1.5,
    '1.5',
    1e300,
    Infinity,
    '',
    ' 1',
    '1 ',
    '+1',
    '0x10',
    '1_000',
    '١',
    '9'.repeat(1000),
    true,
    [1],
    {}
  ]
  refuses(t, 'someNumber', not, 'must be a whole number of 32 bits')
  takes(t, 'smallNumber', [
    [0, 0],
    ['100', 100]
  ])
  refuses(t, 'smallNumber', [-1, '-1'], 'must be at least 0')
  refuses(t, 'smallNumber', [101, '2147483647'], 'must be at most 100')
  t.end()
})

t.test('uint64, a string whatever it came as', (t) => {
  takes(t, 'someVersion', [
    [0, '0'],
    ['0', '0'],
    ['007', '7'],
    [Number.MAX_SAFE_INTEGER, '9007199254740991'],
    ['9007199254740993', '9007199254740993'],
    ['18446744073709551615', '18446744073709551615']
  ])
  const not = [
    '18446744073709551616',
    // A number of JSON this large is another one when it was read.
    JSON.parse('18446744073709551615'),
    Number.MAX_SAFE_INTEGER + 1,
    -1,
    '-1',
    1.5,
    '1.5',
    '1e3',
    '',
    ' 1',
    '0x1',
    '9'.repeat(1e5),
    true,
    [],
    {}
  ]
  refuses(t, 'someVersion', not, 'must be a whole number of 64 bits')
  t.end()
})

t.test('times', (t) => {
  takes(t, 'someTime', [
    ['2026-01-31T12:00:00Z', '2026-01-31T12:00:00.000Z'],
    ['2026-01-31t12:00:00z', '2026-01-31T12:00:00.000Z'],
    ['2026-01-31T12:00:00.1Z', '2026-01-31T12:00:00.100Z'],
    ['2026-01-31T12:00:00.123456789Z', '2026-01-31T12:00:00.123Z'],
    ['2026-01-31T12:00:00+05:30', '2026-01-31T06:30:00.000Z'],
    ['2026-01-31T23:59:59.999-23:59', '2026-02-01T23:58:59.999Z'],
    ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00.000Z'],
    ['2000-02-29T00:00:00+01:00', '2000-02-28T23:00:00.000Z'],
    ['0001-01-01T00:00:00Z', '0001-01-01T00:00:00.000Z'],
    ['9999-12-31T23:59:59.999999999Z', '9999-12-31T23:59:59.999Z']
  ])
  for (let digits = 1; digits <= 9; digits++) {
    const fraction = '123456789'.slice(0, digits)
    const expected = `2026-01-31T12:00:00.${fraction.padEnd(3, '0').slice(0, 3)}Z`
    t.equal(read('someTime', `2026-01-31T12:00:00.${fraction}Z`), expected, `${digits} digits of a second`)
  }
  const not = [
    '2026-02-30T00:00:00Z',
    '2026-02-29T00:00:00Z',
    '2100-02-29T00:00:00Z',
    '2026-04-31T00:00:00Z',
    '2026-04-31T00:00:00+14:00',
    '2026-00-01T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-01-00T00:00:00Z',
    '2026-01-32T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T23:60:00Z',
    '2026-01-01T23:59:60Z',
    '2026-01-01T00:00:00+24:00',
    '2026-01-01T00:00:00-00:60',
    '0000-12-31T23:59:59Z',
    '0001-01-01T00:00:00+00:01',
    '9999-12-31T23:59:59-00:01',
    '10000-01-01T00:00:00Z',
    '+010000-01-01T00:00:00Z',
    '2026-01-31',
    '2026-01-31T12:00:00',
    '2026-01-31 12:00:00Z',
    '2026-01-31T12:00Z',
    '2026-01-31T12:00:00.Z',
    '2026-01-31T12:00:00.1234567890Z',
    '2026-01-31T12:00:00+0530',
    '2026-1-31T12:00:00Z',
    ' 2026-01-31T12:00:00Z',
    '2026-01-31T12:00:00Z\n',
    'now',
    '',
    1_769_860_800,
    true,
    [],
    { seconds: 1 }
  ]
  refuses(t, 'someTime', not, 'must be a time in RFC 3339, as 2026-01-31T12:00:00Z')
  t.end()
})

t.test('durations', (t) => {
  takes(t, 'someDuration', [
    ['0s', '0s'],
    ['14400s', '14400s'],
    ['1.5s', '1.500s'],
    ['1.500s', '1.500s'],
    ['1.0s', '1s'],
    ['0.000001s', '0.000001s'],
    ['0.0000001s', '0.000000100s'],
    ['0.123456789s', '0.123456789s'],
    ['-1.5s', '-1.500s'],
    ['-0.5s', '-0.500s'],
    ['-0s', '0s'],
    ['-0.000s', '0s'],
    ['007s', '7s'],
    ['315576000000s', '315576000000s'],
    ['-315576000000s', '-315576000000s']
  ])
  const not = ['', 's', '1', '1 s', '1m', '1h30m', '1.s', '.5s', '1.1234567890s', '1e3s', '+1s', '--1s']
  refuses(
    t,
    'someDuration',
    [...not, `${'9'.repeat(13)}s`, '1s\n', 1, 1.5, true, [], { seconds: 1 }],
    'must be seconds with an s behind them, as 1800s'
  )
  refuses(t, 'someDuration', ['315576000001s', '999999999999s'], 'must be at most 315576000000s')
  refuses(t, 'someDuration', ['-315576000001s'], 'must be at least -315576000000s')

  takes(t, 'boundDuration', [
    ['300s', '300s'],
    ['7200.0s', '7200s']
  ])
  refuses(t, 'boundDuration', ['0s', '299.999999999s', '-300s'], 'must be at least 300s')
  refuses(t, 'boundDuration', ['7200.000000001s', '7201s'], 'must be at most 7200s')

  takes(t, 'zeroDuration', [
    ['0s', '0s'],
    ['0.000s', '0s'],
    ['1800s', '1800s']
  ])
  refuses(t, 'zeroDuration', ['0.000000001s', '1799s', '-1s', '-1800s'], 'must be 0s or at least 1800s')
  t.equal(secondsOf('1.500s'), 1.5)
  t.equal(secondsOf('-14400s'), -14_400)
  t.end()
})

t.test('enumerations, by name or by number', (t) => {
  takes(t, 'someKind', [
    ['KIND_ONE', 'KIND_ONE'],
    ['KIND_TWO', 'KIND_TWO'],
    [1, 'KIND_ONE'],
    [20, 'KIND_TWO'],
    ['KIND_UNSPECIFIED', undefined],
    [0, undefined]
  ])
  const not = ['kind_one', 'ONE', '1', '', 2, -1, 1.5, 'toString', '__proto__', 'constructor', true, [], {}]
  refuses(t, 'someKind', not, 'must be one of KIND_UNSPECIFIED, KIND_ONE, KIND_TWO')
  const Required = Message('Required', { kind: required(Enum('KIND', { KIND_ONE: 1 })) })
  for (const kind of ['KIND_UNSPECIFIED', 0, null]) {
    t.strictSame(violations(t, Required, { kind }), ['kind: is required'], `${kind} is unset`)
  }
  t.end()
})

t.test('messages, lists and maps', (t) => {
  takes(t, 'somePart', [
    [{}, {}],
    [{ displayName: 'a', x: 1 }, { displayName: 'a' }]
  ])
  refuses(t, 'somePart', [MARKER, 1, true, [], [{}]], 'must be an object')
  takes(t, 'someParts', [
    [[], []],
    [
      [{ displayName: 'a' }, {}],
      [{ displayName: 'a' }, {}]
    ]
  ])
  refuses(t, 'someParts', [MARKER, 1, true, {}, { length: 1 }], 'must be a list')
  refuses(t, 'someParts', [[{}, {}, {}, {}], Array(1e5).fill(MARKER)], 'must have at most 3 entries')
  refuses(t, 'someTexts', [[]], 'must have at least 1 entry')
  refuses(t, 'someMap', [MARKER, 1, true, []], 'must be an object')

  t.strictSame(violations(t, Whole, { someParts: [{}, null, { displayName: MARKER }] }), [
    'someParts[1]: must not be null',
    'someParts[2].displayName: must have at most 5 characters'
  ])
  t.strictSame(violations(t, Whole, { some_texts: [null, 1, MARKER] }), [
    'someTexts[0]: must not be null',
    'someTexts[1]: must be a string',
    'someTexts[2]: must have at most 5 characters'
  ])
  t.strictSame(violations(t, Whole, { someKinds: ['KIND_ONE', 7] }), [
    'someKinds[1]: must be one of KIND_UNSPECIFIED, KIND_ONE'
  ])
  const Unset = Message('Unset', {
    kinds: List(Enum('KIND', { KIND_ONE: 1 })),
    ids: List(Uuid()),
    kindMap: MapOf(Enum('KIND', { KIND_ONE: 1 })),
    texts: List(Text())
  })
  const unset = {
    kinds: ['KIND_ONE', 0, 'KIND_UNSPECIFIED'],
    ids: ['', UUID],
    kindMap: { a: 0 },
    texts: ['']
  }
  t.strictSame(violations(t, Unset, unset, [UUID]), [
    'kinds[1]: must be set',
    'kinds[2]: must be set',
    'ids[0]: must be set',
    'kindMap[0]: must be set'
  ])
  t.strictSame(decode(Unset, { texts: ['', 'a'], ids: [UUID] }), { ids: [UUID], texts: ['', 'a'] })
  const map = { a: { displayName: MARKER }, [`${MARKER}\0`]: {}, [`${MARKER}\ud800`]: null, d: 1 }
  t.strictSame(violations(t, Whole, { someMap: map }), [
    'someMap[0].displayName: must have at most 5 characters',
    'someMap[1]: the key must not contain NUL',
    'someMap[2]: the key must be Unicode without lone surrogates',
    'someMap[2]: must be an object',
    'someMap[3]: must be an object'
  ])
  t.end()
})

t.test('what is required', (t) => {
  const Required = Message('Required', {
    text: Text({ required: true, min: 3 }),
    id: Uuid({ required: true }),
    part: required(Part),
    list: List(Uuid({ required: true }), { required: true, min: 1 })
  })
  const all = ['text: is required', 'id: is required', 'part: is required', 'list: is required']
  t.strictSame(violations(t, Required, {}), all)
  t.strictSame(violations(t, Required, { text: null, id: null, part: null, list: null }), all)
  t.strictSame(violations(t, Required, { text: '', id: '', part: {}, list: [''] }), [
    'text: is required',
    'id: must be a UUID',
    'list[0]: must be a UUID'
  ])
  t.end()
})

t.test('oneofs', (t) => {
  const Mount = Message(
    'Mount',
    { variable: Bool(), apiOnly: Bool(), path: Text({ pattern: '^/' }), ownerId: Uuid(), part: Part },
    { oneofs: { mount: { members: ['variable', 'apiOnly', 'path', 'ownerId', 'part'], required: true } } }
  )
  const none = ['mount: one must be set of variable, apiOnly, path, ownerId, part']
  for (const body of [
    {},
    { variable: false },
    { variable: false, apiOnly: false },
    { path: null },
    { ownerId: '' }
  ]) {
    t.strictSame(violations(t, Mount, body), none, `nothing is set by ${JSON.stringify(body)}`)
  }
  t.strictSame(decode(Mount, { variable: true, apiOnly: false, ownerId: '' }), {
    variable: true,
    apiOnly: false
  })
  t.strictSame(decode(Mount, { part: {} }), { part: {} })
  const two = (names: string) =>
    `mount: only one may be set of variable, apiOnly, path, ownerId, part; ${names} are`
  t.strictSame(violations(t, Mount, { variable: true, api_only: true }), [two('variable and apiOnly')])
  t.strictSame(violations(t, Mount, { path: '/a', owner_id: UUID, part: {} }), [
    two('path and ownerId and part')
  ])
  t.strictSame(
    violations(t, Mount, { path: MARKER }),
    ['path: must match ^/'],
    'what is wrong is set all the same'
  )
  t.strictSame(violations(t, Mount, { path: MARKER, variable: true }), [
    'path: must match ^/',
    two('variable and path')
  ])
  t.strictSame(decode(Mount, { variable: true, path: null }), { variable: true })

  const Optional = Message(
    'Optional',
    { scope: Message('Scope', { a: Uuid(), b: Uuid() }, { oneofs: { scope: { members: ['a', 'b'] } } }) },
    {}
  )
  t.strictSame(decode(Optional, { scope: {} }), { scope: {} })
  t.strictSame(violations(t, Optional, { scope: { a: UUID, b: UUID } }, [UUID]), [
    'scope.scope: only one may be set of a, b; a and b are'
  ])
  t.end()
})

t.test('all that is wrong is told at once, up to a number', (t) => {
  t.strictSame(violations(t, Whole, { someText: 1, someFlag: MARKER, somePart: { partCount: MARKER } }), [
    'someText: must be a string',
    'someFlag: must be true or false',
    'somePart.partCount: must be a whole number of 32 bits'
  ])
  const Many = Message('Many', { texts: List(Text()), map: MapOf(Text()) })
  const texts = Array(100_000).fill(1)
  const told = violations(t, Many, { texts })
  t.equal(told.length, 20)
  t.equal(told[19], 'texts[19]: must be a string')
  const map = Object.fromEntries(texts.map((_, n) => [`${MARKER}${n}`, 1]))
  t.equal(violations(t, Many, { map }).length, 20)
  const names = Object.keys(Whole.properties)
  const symbols = Object.fromEntries(names.map((name) => [name, [[MARKER]]]))
  t.equal(violations(t, Whole, symbols).length, names.length, 'a list in place of anything')
  t.end()
})
