import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { type Program, testWith } from '../../installed.ts'
import { BIN, makeFolder } from '../helper.ts'
import { makeBoxes, startScripted } from './helper.ts'

const python: Program = { file: '/usr/bin/python3', probe: ['-c', 'import pty'], package: 'python3' }
const PROMPT = 'Value of TYPED (it is not shown): '

/** Runs a command in a terminal of its own, and presses keys when it has asked; all that the terminal showed. */
const TERMINAL = `
import json, os, pty, sys, termios
keys, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
shown, before = b'', termios.tcgetattr(terminal)
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if keys is not None and ${JSON.stringify(PROMPT)}.encode() in shown:
        os.write(terminal, keys.encode())
        keys = None
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
restored = termios.tcgetattr(terminal) == before
print(json.dumps({'code': code, 'shown': shown.decode(), 'restored': restored}))
`

async function typeAt(t: Test, keys: string, line: string) {
  const boxes = makeBoxes()
  const { url, asked } = await startScripted(t, ({ method }) =>
    method === 'GET' ? boxes.publicKey : { status: 201, body: {} }
  )
  const command = [process.execPath, BIN, 'secret', ...line.split(' ')]
  const folder = await makeFolder(t)
  await writeFile(path.join(folder, 'three.env'), 'A=1\nB=2\nC=3\n')
  const child = spawn(python.file, ['-c', TERMINAL, JSON.stringify(keys), ...command], {
    cwd: folder,
    env: { PATH: process.env.PATH, COFFER_URL: url, COFFER_TOKEN: 'token' },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  let output = ''
  child.stdout.on('data', (piece) => (output += piece))
  await once(child, 'close')
  const { code, shown, restored } = JSON.parse(output) as { code: number; shown: string; restored: boolean }
  t.ok(restored, 'the terminal is as it was')
  const put = asked.find(({ method }) => method === 'PUT')
  return { code, shown, value: put && boxes.open(put) }
}

await testWith(t, python, 'a value is asked for at a terminal, which never shows it', async (t) => {
  const typed = await typeAt(t, 'sés\x7f\x7fésameX\x08\r', 'set typed --user')
  t.equal(typed.value, 'sésame')
  t.equal(typed.code, 0)
  t.equal(
    typed.shown,
    `\x1b[?2004h${PROMPT}\x1b[?2004l\r\nCreated TYPED in the codespaces secrets of the user.\r\n` +
      'No repository receives it yet; --repos names some.\r\n'
  )
})

await testWith(t, python, 'a paste of several lines is one value, where the terminal marks it', async (t) => {
  const pasted = await typeAt(t, '\x1b[200~MARKER 1\rMARKER 2\x1b[201~\r', 'set TYPED --repo mona/web')
  t.equal(pasted.value, 'MARKER 1\nMARKER 2')
  t.notMatch(pasted.shown, /MARKER/)

  const unmarked = await typeAt(t, 'MARKER 1\rMARKER 2\r', 'set TYPED --repo mona/web')
  t.match(unmarked, { code: 2, value: undefined, shown: /several lines.*--value-file/ })
  t.notMatch(unmarked.shown, /MARKER/)
})

await testWith(t, python, 'Ctrl-C and an empty line set nothing', async (t) => {
  const cancelled = await typeAt(t, 'MARKER\x03', 'set TYPED --user')
  t.match(cancelled, { code: 1, value: undefined, shown: /coffer: Stopped: nothing was sent\.\r\n$/ })
  t.notMatch(cancelled.shown, /MARKER/)
  const empty = await typeAt(t, '\r', 'set TYPED --user')
  t.match(empty, { code: 2, value: undefined, shown: /The value is empty\. If that is meant/ })
})

await testWith(t, python, 'what would be refused is, before a value is typed', async (t) => {
  const { code, shown } = await typeAt(t, 'MARKER\r', 'set 1TYPED --user')
  t.equal(code, 2)
  t.notMatch(shown, PROMPT)
})

await testWith(t, python, 'a terminal is read with its echo off, or not at all', async (t) => {
  for (const line of ['set TYPED --user --value-file -', 'import - --user']) {
    const { code, shown } = await typeAt(t, '', line)
    t.equal(code, 2)
    t.equal(shown, 'coffer: Standard input is a terminal, which would show what is typed.\r\n')
  }
})

await testWith(t, python, 'how far an import is, is one line on a terminal', async (t) => {
  const { code, shown } = await typeAt(t, '', 'import three.env --user --parallel 1')
  t.equal(code, 0)
  t.equal(
    shown,
    '\r\x1b[K1 of 3 secrets\r\x1b[K2 of 3 secrets\r\x1b[K3 of 3 secrets\r\x1b[K' +
      '3 created and 0 updated in the codespaces secrets of the user; 0 failed, 0 not sent.\r\n'
  )
})
