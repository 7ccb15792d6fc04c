import t from 'tap'
import { HiddenLine } from '../../../src/cli/secret/hidden-line.ts'

const PASTE = '\x1b[200~'
const PASTED = '\x1b[201~'

function type(...pieces: (string | Buffer)[]): HiddenLine {
  const line = new HiddenLine()
  for (const piece of pieces) line.feed(Buffer.from(piece as string))
  return line
}

t.test('what is typed until Enter is the value', async (t) => {
  const typed: [string, string[]][] = [
    ['secret', ['secret\r']],
    ['secret', ['se', 'cr', 'et', '\n']],
    ['ends of lines of two bytes', ['ends of lines of two bytes\r\n']],
    ['héllo ✓', ['héllo ✓\r']],
    ['a\tb', ['a\tb\r']],
    ['', ['\r']],
    ['by Ctrl-D', ['by Ctrl-D\x04']]
  ]
  for (const [value, pieces] of typed) {
    const line = type(...pieces)
    t.equal(line.state, 'entered')
    t.equal(line.take().toString(), value)
  }
})

t.test('a character that comes in pieces stays whole, and any byte is kept', async (t) => {
  const bytes = Buffer.from('✓é')
  t.equal(type(bytes.subarray(0, 1), bytes.subarray(1, 4), bytes.subarray(4), '\r').take().toString(), '✓é')
  const odd = Buffer.from([0xff, 0xfe, 0x80])
  t.same(type(odd, '\r').take(), odd)
})

t.test('keys edit', async (t) => {
  const edited: [string, string][] = [
    ['ab', 'abc\x7f\r'],
    ['ab', 'abc\x08\r'],
    ['a', 'a✓\x7f\r'],
    ['', '\x7f\x7f\r'],
    ['new', 'old\x15new\r'],
    ['ab', 'a\x1b[D\x1b[1;5Cb\r'],
    ['ab', 'a\x1bOPb\r'],
    ['ab', 'a\x1b[3~b\r'],
    ['ab', 'a\x1bxb\r'],
    ['ab', 'ab\x1b\r'],
    ['ab', 'a\x01\x00\x1ab\r']
  ]
  for (const [value, keys] of edited) {
    t.equal(type(keys).take().toString(), value, JSON.stringify(keys))
    t.equal(
      type(...keys)
        .take()
        .toString(),
      value,
      `${JSON.stringify(keys)}, key by key`
    )
  }
})

t.test('Ctrl-C cancels, and so does Ctrl-D on nothing', async (t) => {
  t.equal(type('abc\x03').state, 'cancelled')
  t.equal(type('abc\x1b\x03').state, 'cancelled')
  t.equal(type('\x04').state, 'cancelled')
  t.equal(type('abc\x15\x04').state, 'cancelled')
})

t.test('a marked paste is taken as it is, with its lines', async (t) => {
  const pasted: [string, string][] = [
    ['line 1\nline 2\n', `${PASTE}line 1\rline 2\r${PASTED}\r`],
    ['line 1\nline 2', `${PASTE}line 1\r\nline 2${PASTED}\r`],
    ['line 1\nline 2', `${PASTE}line 1\nline 2${PASTED}\r`],
    ['a\n\nb', `${PASTE}a\r\rb${PASTED}\r`],
    ['<\x03\x04\x7f\x15>', `${PASTE}<\x03\x04\x7f\x15>${PASTED}\r`],
    ['\x1b[31mred\x1b[20', `${PASTE}\x1b[31mred\x1b[20${PASTED}\r`],
    ['\x1b\x1b', `${PASTE}\x1b\x1b${PASTED}\r`],
    ['typed, pasted, typed', `typed, ${PASTE}pasted${PASTED}, typed\r`],
    ['twice', `${PASTE}twi${PASTED}${PASTE}ce${PASTED}\r`]
  ]
  for (const [value, keys] of pasted) {
    t.equal(type(keys).take().toString(), value, JSON.stringify(keys))
    t.equal(
      type(...keys)
        .take()
        .toString(),
      value,
      `${JSON.stringify(keys)}, byte by byte`
    )
  }
  t.equal(type(`${PASTE}no end\r`).state, 'open')
})

t.test('lines of an unmarked paste do not become half a value', async (t) => {
  t.equal(type('line 1\rline 2\r').state, 'several')
  t.equal(type('line 1\r', 'line 2').state, 'several', 'in pieces')
  t.equal(type('only\r', '\n').state, 'entered')
})

t.test('what is too long is not cut', async (t) => {
  t.equal(type(Buffer.alloc(1024 * 1024, 'x'), '\r').take().length, 1024 * 1024)
  t.equal(type(Buffer.alloc(1024 * 1024, 'x'), 'x\r').state, 'too-long')
})

t.test('what was taken is the only copy', async (t) => {
  const line = type('secret\r')
  t.equal(line.take().toString(), 'secret')
  t.equal(line.take().length, 0)
})
