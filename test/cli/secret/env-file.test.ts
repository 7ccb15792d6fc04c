import { parse } from 'dotenv'
import fc from 'fast-check'
import t from 'tap'
import { parseEnvFile } from '../../../src/cli/secret/env-file.ts'

const DOLLARS = '$HOME and $' + '{PATH} and pa$$word'

function read(text: string) {
  const { variables, refusals } = parseEnvFile(Buffer.from(text))
  return {
    values: Object.fromEntries(variables.map(({ name, value }) => [name, value.toString()])),
    variables,
    refusals
  }
}

t.test('values are what the dotenv package says', async (t) => {
  const file = [
    '\uFEFF# a comment',
    '',
    'PLAIN=one two  ',
    'export EXPORTED=yes',
    '  INDENTED = spaced',
    'YAML: like this',
    'EMPTY=',
    'COMMENTED=value # and why',
    'EMPTY_COMMENTED= # why',
    'YAML_COMMENTED: # why',
    `DOLLAR=${DOLLARS}`,
    "SINGLE='it is $5 # not a comment \\n'",
    'DOUBLE="a\\nb\\rc # d"  # comment',
    'BACKTICK=`both " and \' in it`',
    'APOSTROPHE=it\'s "fine"',
    'JSON={"a": "b"}',
    'URL=postgres://u:p@host/db?x=1&y=2',
    'PEM="-----BEGIN KEY-----',
    'abc=',
    '# no comment',
    '-----END KEY-----"',
    "WINDOWS='C:\\dir\\'",
    'LAST="no newline at the end"'
  ].join('\n')
  const { values, refusals } = read(file)
  t.same(refusals, [])
  t.same(values, parse(file))
  t.equal(values.PEM, '-----BEGIN KEY-----\nabc=\n# no comment\n-----END KEY-----')
  t.equal(values.DOUBLE, 'a\nb\rc # d')
  t.equal(values.DOLLAR, DOLLARS)
  t.equal(values.WINDOWS, 'C:\\dir\\')
  t.equal(Object.keys(values).length, 18)
})

t.test('line ends of Windows are those of a line, in quotes too', async (t) => {
  t.same(read('A=1\r\nB="x\r\ny"\r\n').values, { A: '1', B: 'x\ny' })
})

t.test('names are in upper case, as the server has them, and lines are counted through values', async (t) => {
  const { variables } = read('lower=1\nB="x\ny\n"\n\nC=2')
  t.same(
    variables.map(({ name, line }) => [name, line]),
    [
      ['LOWER', 1],
      ['B', 2],
      ['C', 6]
    ]
  )
})

t.test('what would be skipped, cut or overwritten in silence is refused, without a value', async (t) => {
  const { variables, refusals } = read(
    [
      'GOOD=1',
      'no assignment of MARKER',
      'export MARKER',
      'CUT=pa#MARKER',
      'CUT_AT_ONCE=#MARKER',
      'UNCLOSED="MARKER',
      'FOLLOWED="MARKER" MARKER',
      'twice=MARKER',
      'GITHUB_TOKEN=MARKER',
      'WITH-HYPHEN=MARKER',
      '1DIGIT=MARKER',
      'TWICE=MARKER2',
      `${'L'.repeat(256)}=MARKER`,
      'ÄÖ=MARKER',
      '__proto__=MARKER'
    ].join('\n')
  )
  t.same(
    variables.map(({ name }) => name),
    ['GOOD']
  )
  t.same(
    refusals.map(({ line, name = '', reason }) => [line, name.slice(0, 20), reason]),
    [
      [2, '', 'it is no assignment of the form NAME=VALUE'],
      [3, '', 'it is no assignment of the form NAME=VALUE'],
      [4, 'CUT', 'a # in it would begin a comment: put the value in quotes, or a space before the comment'],
      [
        5,
        'CUT_AT_ONCE',
        'a # in it would begin a comment: put the value in quotes, or a space before the comment'
      ],
      [6, 'UNCLOSED', 'its quote is not closed, or something follows the closing one'],
      [7, 'FOLLOWED', 'its quote is not closed, or something follows the closing one'],
      [8, 'TWICE', 'it comes 2 times, in lines 8, 12; names have no case'],
      [9, 'GITHUB_TOKEN', 'Secret names must not start with GITHUB_.'],
      [10, 'WITH-HYPHEN', refusals.find(({ line }) => line === 10)!.reason],
      [11, '1DIGIT', refusals.find(({ line }) => line === 11)!.reason],
      [13, 'L'.repeat(20), 'Secret names must not be longer than 255 characters.'],
      [14, '', 'it is no assignment of the form NAME=VALUE'],
      [15, '__proto__', 'it cannot be read']
    ]
  )
  t.match(refusals.find(({ line }) => line === 10)!.reason, /^Secret names can only contain/)
  t.match(refusals.find(({ line }) => line === 11)!.reason, /^Secret names can only contain/)
  t.notMatch(JSON.stringify(refusals), /MARKER/)
})

t.test('bytes that are not UTF-8 would be altered: the file is refused', async (t) => {
  const { variables, refusals } = parseEnvFile(Buffer.from([0x41, 0x3d, 0xff, 0x0a]))
  t.same(variables, [])
  t.match(refusals, [{ line: 1, reason: /not UTF-8.*--value-file/ }])
})

t.test('what a person may not expect of a value is noted', async (t) => {
  const notes = (text: string) => read(text).variables[0]?.note
  t.equal(notes('A=plain'), undefined)
  t.equal(notes('A='), 'empty')
  t.equal(notes('A=$B'), '$ is not expanded')
  t.equal(notes('A="say \\"hi\\""'), 'backslashes are kept')
  t.equal(read('A="say \\"hi\\""').values.A, 'say \\"hi\\"')
  t.equal(notes('A="a\\nb"'), undefined)
  t.equal(notes(`A=${'x'.repeat(49_152)}`), undefined)
  t.match(notes(`A=${'x'.repeat(49_153)}`), /48 KB/)
})

t.test('any file: what is taken has the value that the dotenv package gives the line', async (t) => {
  const pieces = fc.constantFrom(
    ...[
      'A=',
      'B =',
      'c: ',
      'export ',
      '"',
      "'",
      '`',
      '\\',
      '\\n',
      '#',
      ' #',
      ' ',
      '\n',
      '\r\n',
      '$X',
      'é',
      'word',
      '='
    ]
  )
  let compared = 0
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 16 }), (parts) => {
      const text = parts.join('')
      const { variables, refusals } = read(text)
      if (refusals.length > 0) return
      const whole = parse(text)
      // A value on the line after its name is the one thing in which lines and dotenv's spaces differ.
      if (/[=:][^\S\n]*\r?\n/.test(text)) return
      compared += variables.length
      const expected = Object.entries(whole).map(([name, value]) => [name.toUpperCase(), value])
      const found = variables.map(({ name, value }) => [name, value.toString()])
      if (JSON.stringify(found.sort()) !== JSON.stringify(expected.sort())) {
        throw new Error(
          `${JSON.stringify(text)}: ${JSON.stringify(found)} and not ${JSON.stringify(expected)}`
        )
      }
    }),
    { numRuns: 10_000 }
  )
  t.ok(compared > 500, `${compared} values were compared`)
})
