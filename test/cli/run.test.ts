import t from 'tap'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeRepository, serveGit } from '../runner/git-server.ts'
import { shown, startCommand, startWorld, VALUE, type World } from './env/helper.ts'
import { startProxy } from './env/proxy.ts'
import { BIN, until } from './helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const world = await startWorld(t)
const { coffer, start, listEnvironments } = world
const projectId = await world.createProject('web')
await world.createSecret(projectId, 'DB_URL')
const broken = await world.createProject('broken')
await world.createSecret(broken, 'LOST', { filePath: '/proc/lost' })
const REASON =
  'the secret LOST is not delivered: The path lies in /proc, where an environment has nothing of its own.'

const run = (args: readonly string[], input?: string) => coffer(['run', '--project', 'web', ...args], input)

/** What is not deleted and not on its way to be. */
async function left({ listEnvironments }: Pick<World, 'listEnvironments'> = world) {
  const environments = await listEnvironments()
  return environments.filter(({ spec }) => spec.desiredPhase !== 'ENVIRONMENT_PHASE_DELETED')
}

async function gone(): Promise<void> {
  await until(async () => (await listEnvironments()).length === 0)
}

t.test('a command has its secrets, its streams and its status, and the environment goes', async (t) => {
  const line = `echo "$DB_URL" | grep -c ${VALUE}; cat; echo errors >&2; exit 7`
  t.same(await run(['--', 'sh', '-c', line], 'input\n'), {
    code: 7,
    stdout: '1\ninput\n',
    stderr: 'errors\n'
  })
  t.same(await left(), [])
  await gone()
  t.same(await run(['--', 'true']), { code: 0, stdout: '', stderr: '' })
  t.match(await run(['--cwd', '/home', '--', 'pwd']), { code: 0, stdout: '/home\n' })
  t.match(await run(['--cwd', '../home', '--', 'pwd']), { code: 0, stdout: '/home\n' }, 'from the workspace')
  t.match(await run(['printf', '%s\n', '--keep', '--']), { code: 0, stdout: '--keep\n--\n' }, 'without --')
  t.match(await run(['-t', '--', 'sh', '-c', 'test -t 1 && stty size']), { code: 0, stdout: '24 80\r\n' })
  t.same(await left(), [])
})

t.test('progress is told to those who want it, on stderr', async (t) => {
  const { code, stdout, stderr } = await run(['--verbose', '--name', 'seen', '--', 'echo', 'out'])
  t.same({ code, stdout }, { code: 0, stdout: 'out\n' })
  t.match(stderr, /^(seen: creating\n)?(seen: starting\n)?seen: running\n$/)
  const args = ['script', '--quiet', '--return', '--command']
  const line = `'${process.execPath}' '${BIN}' run -p web -n seen -- true`
  const inTerminal = startCommand(t, [...args, line, '/dev/null'], world.folder, {
    ...world.variables,
    SHELL: '/bin/sh'
  })
  t.match(await inTerminal.finished, { code: 0, stdout: /seen: running\r\n/ })
})

t.test('a secret that is not delivered', async (t) => {
  const broken = ['run', '--project', 'broken']
  const warned = await coffer([...broken, '--', 'echo', 'ran'])
  t.same(warned, { code: 0, stdout: 'ran\n', stderr: `coffer: ${REASON}\n` })
  const verbose = await coffer([...broken, '--verbose', '--', 'echo', 'ran'])
  t.equal(verbose.stderr.split(REASON).length, 2, 'it is said once')
  t.same(await coffer([...broken, '--strict', '--', 'echo', 'ran']), {
    code: 1,
    stdout: '',
    stderr: `coffer: The command is not run: ${REASON}\n`
  })
  t.match(await run(['--strict', '--', 'echo', 'ran']), { code: 0, stdout: 'ran\n' })
  t.same(await left(), [])
})

t.test('an environment that is kept', async (t) => {
  const kept = await run(['--keep', '--name', 'kept', '--', 'sh', '-c', 'echo here > file; exit 5'])
  const [{ id }] = await left()
  t.same(kept, {
    code: 5,
    stdout: '',
    stderr: `coffer: kept (${id}) stays. To delete it: npx coffer env delete ${id}\n`
  })
  t.match(await coffer(['env', 'exec', 'kept', '--', 'cat', 'file']), { code: 0, stdout: 'here\n' })
  t.match(await coffer(['env', 'delete', 'kept']), { code: 0 })
})

t.test('each signal reaches the command, and the environment goes', async (t) => {
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const) {
    const trap = `trap "echo caught; exit 5" ${name.slice(3)}; echo ready; sleep 1000 & wait`
    const running = start(['run', '-p', 'web', '--', 'sh', '-c', trap])
    await shown(running, 'ready')
    running.signal(name)
    t.match(await running.finished, { code: 5, stdout: 'ready\ncaught\n' }, name)
  }
  const running = start(['run', '-p', 'web', '--', 'sh', '-c', 'echo ready; exec sleep 1000'])
  await shown(running, 'ready')
  running.signal('SIGINT')
  t.match(await running.finished, { code: 130, stderr: '' })
  t.same(await left(), [])
})

t.test('a signal before there is a command', async (t) => {
  const silent = await serveGit(t, { answer: () => true })
  await world.createProject('slow', `${silent.url}/demo`)
  const running = start(['run', '-p', 'slow', '--', 'echo', 'ran'])
  await until(() => silent.requests.length > 0)
  t.equal((await left()).length, 1)
  running.signal('SIGTERM')
  t.same(await running.finished, {
    code: 143,
    stdout: '',
    stderr: 'coffer: stopped; the command was not run.\n'
  })
  t.same(await left(), [])
})

t.test('an environment that fails', async (t) => {
  const git = await serveGit(t)
  await makeRepository(git, 'demo')
  await world.createProject('cloned', `${git.url}/demo`)
  const ran = await coffer(['run', '-p', 'cloned', '--branch', 'other', '--', 'cat', '/workspace/demo/file'])
  t.match(ran, { code: 0, stdout: 'other', stderr: '' })
  const failed = await coffer(['run', '-p', 'cloned', '--branch', 'none', '--', 'echo', 'ran'])
  t.match(failed, {
    code: 1,
    stdout: '',
    stderr: /^coffer: The environment cloned-\S+ \(\S+\) failed: .*none/
  })
  t.same(await left(), [])
})

t.test('a terminal that is closed', async (t) => {
  const line = `${process.execPath} "${BIN}" run -p web -- sh -c 'echo ready; exec sleep 1000'`
  const terminal = startCommand(t, ['script', '--quiet', '--command', line, '/dev/null'], world.folder, {
    ...world.variables,
    SHELL: '/bin/sh'
  })
  await shown(terminal, 'ready')
  t.equal((await left()).length, 1)
  terminal.signal('SIGKILL')
  await gone()
})

t.test('a reader that has enough', async (t) => {
  const line = `${process.execPath} "${BIN}" run -p web -- yes | head -n 1; echo "\${PIPESTATUS[0]}"`
  const { finished } = startCommand(t, ['bash', '-c', line], world.folder, world.variables)
  t.same(await finished, { code: 0, stdout: 'y\n141\n', stderr: '' })
  t.same(await left(), [])
})

t.test('a connection that is lost', async (t) => {
  const proxy = await startProxy(t, world.url)
  const running = start(['run', '-p', 'web', '--', 'sh', '-c', 'echo ready; exec sleep 1000'], {
    COFFER_URL: proxy.url
  })
  await shown(running, 'ready')
  proxy.cut()
  t.same(await running.finished, {
    code: 1,
    stdout: 'ready\n',
    stderr: 'coffer: The connection was lost before the command had ended.\n'
  })
  t.same(await left(), [])
})

t.test('an answer that is lost makes no second environment', async (t) => {
  const proxy = await startProxy(t, world.url)
  const create = '/api/gitpod.v1.EnvironmentService/CreateEnvironmentFromProject'
  proxy.lose.add(create)
  const through = { COFFER_URL: proxy.url }
  t.match(await coffer(['run', '-p', 'web', '--', 'echo', 'ran'], undefined, through), {
    code: 0,
    stdout: 'ran\n'
  })
  t.equal(proxy.requests.filter((path) => path === create).length, 1)
  t.same(await left(), [])
})

t.test('an environment that cannot be deleted', async (t) => {
  const proxy = await startProxy(t, world.url)
  proxy.refuse.set('/api/gitpod.v1.EnvironmentService/DeleteEnvironment', 403)
  const { code, stderr } = await coffer(['run', '-p', 'web', '--', 'true'], undefined, {
    COFFER_URL: proxy.url
  })
  const [{ id }] = await left()
  t.equal(code, 1, 'though the command succeeded')
  t.ok(
    stderr.endsWith(`coffer: the environment may be there still. To delete it: npx coffer env delete ${id}\n`)
  )
  t.match(
    await coffer(['run', '-p', 'web', '--', 'sh', '-c', 'exit 9'], undefined, { COFFER_URL: proxy.url }),
    {
      code: 9
    }
  )
  for (const { id } of await left()) await coffer(['env', 'delete', id])
})

t.test('a server that is away when the environment is to be deleted', async (t) => {
  const proxy = await startProxy(t, world.url)
  const remove = '/api/gitpod.v1.EnvironmentService/DeleteEnvironment'
  proxy.refuse.set(remove, 503)
  const running = start(['run', '-p', 'web', '--', 'true'], { COFFER_URL: proxy.url })
  await until(() => proxy.requests.filter((path) => path === remove).length > 1)
  t.equal((await left()).length, 1)
  proxy.refuse.clear()
  t.match(await running.finished, { code: 0 })
  t.same(await left(), [])

  proxy.refuse.set(remove, 503)
  const impatient = start(['run', '-p', 'web', '--', 'true'], { COFFER_URL: proxy.url })
  await until(() => proxy.requests.filter((path) => path === remove).length > 3)
  impatient.signal('SIGINT')
  await shown(impatient, 'once more leaves it there')
  impatient.signal('SIGINT')
  t.match(await impatient.finished, { code: 1, stderr: /may be there still/ })
  for (const { id } of await left()) await coffer(['env', 'delete', id])
})

t.test('what cannot be asked', async (t) => {
  const misuses: [string[], RegExp][] = [
    [['run', '--', 'true'], /required option '-p, --project/],
    [['run', '-p', 'web'], /missing required argument 'command'/],
    [['run', '-p', 'nothing', '--', 'true'], /no project called nothing/],
    [['run', '-p', 'web', '--nothing', '--', 'true'], /unknown option '--nothing'/],
    [['run', '-p', 'web', '--timeout', '1m', '--', 'true'], /at least 1800s/]
  ]
  for (const [args, message] of misuses) {
    t.match(await coffer(args), { code: 2, stdout: '', stderr: message }, args.join(' '))
  }
  t.match(await coffer(['run', '--help']), {
    code: 0,
    stdout: /Examples:\n {2}\$ npx coffer run --project web/
  })
  t.same(await left(), [])
})
