import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { CHECKOUT } from './checkout.ts'
import { BUBBLEWRAP, GIT, needPrograms } from './installed.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// npm run demo, as the README shows it.

t.setTimeout(180_000)

/** What differs from run to run. */
function withoutNumbers(text: string): string {
  return text.replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1:PORT').replaceAll(/\bweb-[0-9a-f]{6}\b/g, 'web-NAME')
}

t.test('the demo runs to its end and prints what the README says, without any value', async (t) => {
  const { PATH, HOME } = process.env
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', 'scripts/demo.ts'],
    { cwd: CHECKOUT, env: { PATH, HOME } }
  )
  const readme = await readFile(path.join(CHECKOUT, 'README.md'), 'utf8')
  const shown = /```\n(Coffer serves [^`]*)```/.exec(readme)![1]!
  t.equal(withoutNumbers(stdout), withoutNumbers(shown))
  t.equal(stderr, '')
  for (const value of ['sealed for', 'postgres://', 'line one', 'correct horse', 'asked for by']) {
    t.notMatch(stdout, value)
  }
})
