import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { readValue, type ValueOptions } from '../../../src/cli/secret/value.ts'
import { makeFolder } from '../helper.ts'

t.test('the bytes of a file are the value; a line break goes when that is asked for', async (t) => {
  const folder = await makeFolder(t)
  const file = path.join(folder, 'value')
  const read = async (content: string | Uint8Array, options: ValueOptions = {}) => {
    await writeFile(file, content)
    return (await readValue('X', { valueFile: file, ...options })).toString('latin1')
  }
  for (const content of ['plain', ' spaced ', 'line\n', 'line\r\n', '\n', '\n\n', '\r', '\u0000']) {
    t.equal(await read(content), content, JSON.stringify(content))
  }
  const all = Uint8Array.from({ length: 300_000 }, (_, index) => index % 256)
  t.equal(await read(all), Buffer.from(all).toString('latin1'))

  const stripped: [string, string][] = [
    ['line\n', 'line'],
    ['line\r\n', 'line'],
    ['line\n\n', 'line\n'],
    ['line\r', 'line\r'],
    ['line', 'line'],
    [' \n', ' ']
  ]
  for (const [content, value] of stripped) {
    t.equal(await read(content, { stripNewline: true }), value, JSON.stringify(content))
  }
  t.equal(await read('', { allowEmpty: true }), '')
  t.equal(await read('\n', { allowEmpty: true, stripNewline: true }), '')
  await t.rejects(read(''), /empty.*--allow-empty/)
  await t.rejects(read('\n', { stripNewline: true }), /empty/)
})

t.test('what cannot be read is told', async (t) => {
  const folder = await makeFolder(t)
  await mkdir(path.join(folder, 'folder'))
  const read = (name: string) => readValue('X', { valueFile: path.join(folder, name) })
  await t.rejects(read('none'), /none cannot be read \(ENOENT\)/)
  await t.rejects(read('folder'), /folder cannot be read \(EISDIR\)/)
  await writeFile(path.join(folder, 'large'), Buffer.alloc(16 * 1024 * 1024 + 1))
  await t.rejects(read('large'), /large holds more than 16777216 bytes/)
})
