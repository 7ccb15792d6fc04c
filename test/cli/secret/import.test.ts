import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { BIN, coffer, makeFolder, until } from '../helper.ts'
import { makeBoxes, startScripted } from './helper.ts'

const created = { status: 201, body: {} }

t.test('a server with limits is imported into, politely', async (t) => {
  const boxes = makeBoxes()
  let limited = 0
  const { url, asked } = await startScripted(t, ({ method, path }) => {
    if (method === 'GET') return boxes.publicKey
    if (!path.endsWith('/B') || limited++ > 0) return created
    return { status: 429, headers: { 'retry-after': '1' }, body: { message: 'Slow down' } }
  })
  const done = await coffer(
    await makeFolder(t),
    ['secret', 'import', '-', '--repo', 'mona/web', '--app', 'actions', '--parallel', '1'],
    { COFFER_URL: `${url}/api/v3`, COFFER_TOKEN: 'token' },
    'A=1\nB=2\nC=3\n'
  )
  t.same(done, {
    code: 0,
    stdout: '3 created and 0 updated in the actions secrets of mona/web; 0 failed, 0 not sent.\n',
    stderr: 'created A\nThe server limits the rate (429); trying again in 1 s.\ncreated B\ncreated C\n'
  })
  t.same(
    asked.map(
      ({ method, path }) => `${method} ${path.replace('/api/v3/repos/mona/web/actions/secrets/', '')}`
    ),
    ['GET public-key', 'PUT A', 'PUT B', 'PUT B', 'PUT C']
  )
  t.equal(boxes.open(asked[3]!), '2')
})

t.test('a limit for longer than --max-wait is told, with what was not sent', async (t) => {
  const boxes = makeBoxes()
  const { url } = await startScripted(t, ({ method }) =>
    method === 'GET'
      ? boxes.publicKey
      : {
          status: 403,
          headers: {
            'x-ratelimit-remaining': '0',
            'x-ratelimit-reset': '4102444800',
            date: 'Thu, 31 Dec 2099 23:59:30 GMT'
          },
          body: { message: 'API rate limit exceeded' }
        }
  )
  const { code, stdout, stderr } = await coffer(
    await makeFolder(t),
    ['secret', 'import', '-', '--user', '--max-wait', '5', '--parallel', '1', '--json'],
    { COFFER_URL: url, COFFER_TOKEN: 'token' },
    'A=1\nB=2\nC=3\n'
  )
  t.equal(code, 1)
  const message =
    'API rate limit exceeded (403, PUT /user/codespaces/secrets/A) The server asks to wait 31 s. Run it again ' +
    'then, or with a longer --max-wait.'
  t.same(JSON.parse(stdout), {
    created: [],
    updated: [],
    failed: [{ name: 'A', message }],
    not_sent: ['B', 'C']
  })
  t.equal(
    stderr,
    `failed A\nFAILED A: ${message}\nNot sent: B, C\n` +
      'coffer: Given up, since what failed would go on to fail. Run it again to go on.\n'
  )
})

t.test('Ctrl-C tells what was done', async (t) => {
  const boxes = makeBoxes()
  let stopped = async () => {}
  const { url, asked } = await startScripted(t, async ({ method, path }) => {
    if (method === 'GET') return boxes.publicKey
    if (path.endsWith('/B')) await stopped()
    return created
  })
  const folder = await makeFolder(t)
  await writeFile(path.join(folder, 'x.env'), 'A=1\nB=2\nC=3\nD=4\n')
  const child = spawn(process.execPath, [BIN, 'secret', 'import', 'x.env', '--user', '--parallel', '1'], {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, COFFER_URL: url, COFFER_TOKEN: 'token' }
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (piece) => (stdout += piece))
  child.stderr.on('data', (piece) => (stderr += piece))
  stopped = async () => {
    child.kill('SIGINT')
    await until(() => stderr.includes('Stopping'))
  }
  const [code] = await once(child, 'close')
  t.equal(code, 1)
  t.equal(stdout, '2 created and 0 updated in the codespaces secrets of the user; 0 failed, 2 not sent.\n')
  t.equal(
    stderr,
    'created A\nStopping when the requests under way are answered; Ctrl-C again ends at once.\ncreated B\n' +
      'Not sent: C, D\ncoffer: Stopped. Run it again to go on.\n'
  )
  t.equal(asked.length, 3)
})
