import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { makeCertificates } from '../../clients/certificates.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../../installed.ts'
import { BIN, until } from '../helper.ts'
import { shown, startCommand, startWorld, VALUE, type World } from './helper.ts'
import { startProxy } from './proxy.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const world = await startWorld(t)
const { coffer, start, folder, variables } = world
await makeEnvironment(world)

async function makeEnvironment({ createProject, createSecret, coffer }: World): Promise<void> {
  const projectId = await createProject('web')
  await createSecret(projectId, 'DB_URL')
  const { code, stderr } = await coffer(['env', 'create', '--project', 'web', '--name', 'box'])
  if (code !== 0) throw new Error(stderr)
}

const exec = (args: readonly string[], input?: string | Uint8Array) =>
  coffer(['env', 'exec', 'box', ...args], input)
const sh = (line: string, input?: string) => exec(['--', 'sh', '-c', line], input)

/** A word of a POSIX shell. */
const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`

/** Runs lines of a shell in a terminal of this machine. */
const inTerminal = (lines: string) =>
  startCommand(t, ['script', '--quiet', '--return', '--command', lines, '/dev/null'], folder, {
    ...variables,
    SHELL: '/bin/sh',
    TERM: 'xterm-256color'
  })
const line = (...args: string[]) => [process.execPath, BIN, 'env', ...args].map(quote).join(' ')

t.test('a command has its secrets, its folder, both outputs and its status', async (t) => {
  t.same(await sh(`echo "$DB_URL" | grep -c ${VALUE}; pwd; echo errors >&2; exit 3`), {
    code: 3,
    stdout: '1\n/workspace\n',
    stderr: 'errors\n'
  })
  t.same(await exec(['--cwd', '/home', '--', 'pwd'], ''), { code: 0, stdout: '/home\n', stderr: '' })
  t.match(await exec(['--', 'no-such-program']), { code: 127, stdout: '', stderr: /no-such-program/ })
  t.match(await exec(['--', 'bash', '-c', 'kill -SEGV $BASHPID']), { code: 139, stdout: '' })
})

t.test('what follows -- is the command’s, also where it looks like an option', async (t) => {
  const { stdout } = await exec(['--', 'printf', '%s\n', '--cwd', '-t', '--help', '--', 'a b', ''])
  t.equal(stdout, '--cwd\n-t\n--help\n--\na b\n\n')
  t.match(await exec(['ls', '-l']), { code: 2, stdout: '', stderr: /unknown option '-l'/ })
  t.match(await exec([]), { code: 2, stderr: /missing required argument/ })
})

t.test('stdin goes in as it is, to its end, and nobody waits for one that stays open', async (t) => {
  const bytes = randomBytes(3_000_000)
  const { stdout, code } = await exec(['--', 'sha256sum'], bytes)
  t.equal(code, 0)
  t.equal(stdout, `${createHash('sha256').update(bytes).digest('hex')}  -\n`)
  t.same(await exec(['--', 'cat']), { code: 0, stdout: '', stderr: '' }, 'none is an empty one')
  const open = start(['env', 'exec', 'box', '--', 'head', '-n', '1'])
  await open.type('first\n')
  t.match(await open.finished, { code: 0, stdout: 'first\n' })
})

t.test('each signal reaches the command', async (t) => {
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const) {
    const trap = `trap "echo caught; exit 5" ${name.slice(3)}; echo ready; sleep 1000 & wait`
    const running = start(['env', 'exec', 'box', '--', 'sh', '-c', trap])
    await shown(running, 'ready')
    running.signal(name)
    t.match(await running.finished, { code: 5, stdout: 'ready\ncaught\n' }, name)
  }
  const running = start(['env', 'exec', 'box', '--', 'sh', '-c', 'echo ready; exec sleep 1000'])
  await shown(running, 'ready')
  running.signal('SIGTERM')
  t.match(await running.finished, { code: 143 }, '128 + 15')
})

t.test('a reader that has enough ends the command', async (t) => {
  const { finished } = startCommand(
    t,
    ['bash', '-c', `${line('exec', 'box', '--', 'yes')} | head -n 2; echo "\${PIPESTATUS[0]}"`],
    folder,
    variables
  )
  t.same(await finished, { code: 0, stdout: 'y\ny\n141\n', stderr: '' })
})

t.test('a terminal inside, of the size and type of the one here', async (t) => {
  const command = line('exec', 'box', '--tty', '--', 'sh', '-c', 'tty; stty size; echo $TERM')
  const { stdout } = await inTerminal(`stty rows 33 columns 101; exec ${command}`).finished
  t.equal(stdout, '/dev/pts/0\r\n33 101\r\nxterm-256color\r\n')
  const without = await exec(['-t', '--', 'sh', '-c', 'test -t 0 && stty size'])
  t.match(without, { code: 0, stdout: '24 80\r\n' }, 'where there is none here')
})

t.test('the terminal inside follows the one here', async (t) => {
  const trap = 'trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done'
  const command = line('exec', 'box', '--tty', '--', 'sh', '-c', trap)
  const go = path.join(folder, 'go')
  const resize = `while [ ! -e ${quote(go)} ]; do sleep 0.05; done; stty rows 21 columns 66 </dev/tty`
  const terminal = inTerminal(`(${resize}) & exec ${command}`)
  await shown(terminal, 'ready')
  await writeFile(go, '')
  t.match(await terminal.finished, { code: 5, stdout: /21 66/ })
})

t.test('with a terminal each key goes in as it is, and the one here is as before afterwards', async (t) => {
  const keys = 'stty raw -echo; printf ready; dd bs=1 count=3 2>/dev/null | od -An -tx1'
  const terminal = inTerminal(`${line('exec', 'box', '-t', '--', 'sh', '-c', keys)}; stty -a; exit 4`)
  await shown(terminal, 'ready')
  terminal.type('x\x03\x1a')
  const { code, stdout } = await terminal.finished
  t.equal(code, 4)
  t.match(stdout, / 78 03 1a/, 'without Enter, and Ctrl-C and Ctrl-Z too')
  t.match(stdout, / icanon /)
  t.match(stdout, / echo /)
})

t.test('a shell', async (t) => {
  const terminal = inTerminal(line('shell', 'box'))
  await shown(terminal, '$ ')
  terminal.type('shopt login_shell; test -t 0 && echo a-"terminal"; exit 6\n')
  const { code, stdout } = await terminal.finished
  t.equal(code, 6)
  t.match(stdout, /login_shell +\ton\r\na-terminal\r\n/)
  const piped = await coffer(['env', 'shell', 'box', '--cwd', '/tmp'], 'pwd; test -t 0 || exit 7')
  t.match(piped, { code: 7, stdout: '/tmp\n' }, 'of a script, without a terminal')
})

t.test('a server that refuses', async (t) => {
  t.match(await coffer(['env', 'stop', 'box']), { code: 0 })
  t.match(await exec(['--', 'true']), {
    code: 1,
    stdout: '',
    stderr:
      /^coffer: The environment is not running \(ENVIRONMENT_PHASE_STOPPED\)\. Start it, .* \(400, GET \/api\//
  })
  t.match(await coffer(['env', 'start', 'box']), { code: 0 })
  t.match(await exec(['--cwd', '/nowhere', '--', 'true']), { stdout: '', stderr: /\S/ })

  const id = JSON.parse((await coffer(['env', 'get', 'box', '--json'])).stdout).id
  const stranger = { COFFER_TOKEN: world.stranger.token }
  t.match(await coffer(['env', 'exec', id, '--', 'true'], undefined, stranger), { code: 2, stdout: '' })
  const proxy = await startProxy(t, world.url)
  const through = { COFFER_URL: proxy.url }
  t.match(await coffer(['env', 'exec', id, '--', 'echo', 'in'], undefined, through), {
    code: 0,
    stdout: 'in\n'
  })
  t.notOk(proxy.requests.join().includes(world.owner.token))
  proxy.stripsUpgrades = true
  t.match(await coffer(['env', 'exec', id, '--', 'true'], undefined, through), {
    code: 1,
    stderr: /A proxy on the way does not pass WebSockets on\.\n$/
  })
})

t.test('a connection that is lost', async (t) => {
  const proxy = await startProxy(t, world.url)
  const running = start(['env', 'exec', 'box', '--', 'sh', '-c', 'echo $$; exec sleep 98765'], {
    COFFER_URL: proxy.url
  })
  await shown(running, '\n')
  proxy.cut()
  t.match(await running.finished, {
    code: 1,
    stderr: 'coffer: The connection was lost before the command had ended.\n'
  })
  await until(async () => (await sh('pgrep -f "sleep 9876[5]" || echo none')).stdout === 'none\n')
})

t.test('over TLS', async (t) => {
  const folder = t.testdir()
  const { authority, cert, key } = makeCertificates(folder)
  const secure = await startWorld(t, { tls: { cert: readFileSync(cert), key: readFileSync(key) } })
  t.match(secure.url, /^https:/)
  const trusting = { NODE_EXTRA_CA_CERTS: path.resolve(authority) }
  await secure.createProject('web')
  const made = await secure.coffer(['env', 'create', '-p', 'web', '--name', 'box'], undefined, trusting)
  t.equal(made.code, 0, made.stderr)
  const command = ['env', 'exec', 'box', '--', 'cat']
  t.same(await secure.coffer(command, 'in and out', trusting), { code: 0, stdout: 'in and out', stderr: '' })
  t.match(await secure.coffer(command, ''), { code: 1, stderr: /certificate is not trusted/ })
})
