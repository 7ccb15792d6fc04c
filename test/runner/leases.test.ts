import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Unavailable } from '../../src/errors.ts'
import { Bubblewrap } from '../../src/runner/bubblewrap.ts'
import type { StatusReport } from '../../src/runner/interface.ts'
import type { SandboxedProcess } from '../../src/runner/sandbox.ts'
import { Unisolated } from '../../src/runner/unisolated.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { MemoryServer } from './memory-server.ts'
import { Gate, listFiles, makeDataDir, runInside, startRunner } from './running.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// Who may work on an environment, and what becomes of it when that changes, or the server is away.

const RENEW_MS = 50

/** A command that would run for long; it has started when this returns. */
async function startLong(runner: Awaited<ReturnType<typeof startRunner>>['runner'], id: string) {
  const process: SandboxedProcess = await runner.getEnvironment(id).start({
    command: ['/bin/sh', '-c', 'echo started; sleep 1000']
  })
  await new Promise((resolve) => process.stdout.once('data', resolve))
  return process
}

function phases(reports: readonly StatusReport[]): string[] {
  return reports.map(({ phase }) => phase.replace('ENVIRONMENT_PHASE_', ''))
}

t.test('an environment that somebody else has is left: no process, no secret, no word', async (t) => {
  const server = new MemoryServer()
  const { runner, dataDir, secretsDir } = await startRunner(t, server, { renewMs: RENEW_MS })
  const secret = server.secret('FILE', { kind: 'file', path: '/workspace/file' })
  const [lost, kept] = [server.add({ secrets: [secret] }), server.add({ secrets: [secret] })]
  for (const id of [lost, kept]) await server.untilPhase(id, 'RUNNING')
  const processes = await Promise.all([startLong(runner, lost), startLong(runner, kept)])
  const reported = server.reportsOf(lost).length

  server.giveAway(lost)
  t.match(await processes[0].exit, { signal: 'SIGKILL' })
  while (existsSync(path.join(secretsDir, lost))) await sleep(10)
  t.throws(() => runner.getEnvironment(lost), { code: 'not_found' })
  t.ok(existsSync(path.join(dataDir, 'environments', lost, 'workspace')))
  t.match(await runInside(runner, kept, 'cat file'), { stdout: 'value of FILE' })
  t.equal(server.reportsOf(lost).length, reported)
})

for (const [how, step] of [
  ['a report', 'report STARTING'],
  ['a value', 'read 0']
] as const) {
  t.test(`a lease that is lost by the time of ${how}`, async (t) => {
    const server = new MemoryServer()
    const { secretsDir } = await startRunner(t, server)
    let id = ''
    const given = new Gate()
    server.before = (now) => {
      if (now !== step) return
      server.giveAway(id)
      given.open()
    }
    id = server.add({ secrets: [server.secret('FILE', { kind: 'file', path: '/workspace/file' })] })
    await given.passed
    while (existsSync(path.join(secretsDir, id))) await sleep(10)
    t.notOk(phases(server.reportsOf(id)).includes('RUNNING'))
    server.before = () => {}
    server.expire(id)
    await server.untilPhase(id, 'RUNNING')
    t.pass('and when it is given again, it is worked on again')
  })
}

t.test('the answer to a renewal does not count for a lease that was given meanwhile', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server, { renewMs: RENEW_MS })
  const id = server.add()
  await server.untilPhase(id, 'RUNNING')
  const process = await startLong(runner, id)
  const [asked, answered] = [new Gate(), new Gate()]
  const renew = server.renew.bind(server)
  server.renew = async () => {
    server.renew = renew
    asked.open()
    await answered.passed
    return [id]
  }
  await asked.passed
  server.expire(id)
  const version = server.change(id, {})
  await server.untilPhase(id, 'RUNNING', version)
  answered.open()
  await server.untilPhase(id, 'RUNNING', server.change(id, {}))
  t.match(await runInside(runner, id, 'true'), { code: 0 })
  process.kill()
  await process.exit
})

t.test('a runner that closes says nothing; the next one goes on with the same content', async (t) => {
  const server = new MemoryServer()
  const { runner, folders, secretsDir } = await startRunner(t, server)
  const secret = server.secret('FILE', { kind: 'file', path: '/workspace/file' })
  const id = server.add({ secrets: [secret] })
  await server.untilPhase(id, 'RUNNING')
  await runInside(runner, id, 'echo mine > own')
  const process = await startLong(runner, id)
  const reported = server.reportsOf(id).length
  await runner.close()
  t.match(await process.exit, { signal: 'SIGKILL' })
  t.same(await listFiles(secretsDir), [])
  t.equal(server.reportsOf(id).length, reported)

  server.expire(id)
  server.setValue(id, secret.id, 'new')
  const next = await startRunner(t, server, { folders })
  await server.untilPhase(id, 'RUNNING')
  t.match(await runInside(next.runner, id, 'cat own file'), { stdout: 'mine\nnew' })
  t.same(phases(server.reportsOf(id).slice(reported)), ['UPDATING', 'RUNNING'])
})

t.test('an environment whose workspace is on another machine is made again', async (t) => {
  const server = new MemoryServer()
  const first = await startRunner(t, server)
  const id = server.add()
  await server.untilPhase(id, 'RUNNING')
  await first.runner.close()
  const reported = server.reportsOf(id).length
  server.expire(id)
  await startRunner(t, server)
  await server.until(id, ({ phase }) => phase === 'ENVIRONMENT_PHASE_STARTING')
  await server.untilPhase(id, 'RUNNING')
  t.same(phases(server.reportsOf(id).slice(reported)), ['STARTING', 'RUNNING'])
})

t.test('what an earlier process left is removed', async (t) => {
  const server = new MemoryServer()
  const first = await startRunner(t, server)
  const { folders, dataDir, secretsDir } = first
  const [known, unknown] = [server.add(), server.add()]
  for (const id of [known, unknown]) await server.untilPhase(id, 'RUNNING')
  await first.runner.close()
  // As if it had been killed.
  for (const id of [known, unknown]) {
    await mkdir(path.join(secretsDir, id, 'files'), { recursive: true, mode: 0o711 })
    await writeFile(path.join(secretsDir, id, 'files', 'left'), 'secret')
  }
  server.change(unknown, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  server.expire(unknown)
  const elsewhere = await startRunner(t, server)
  await server.untilPhase(unknown, 'DELETED')
  await elsewhere.runner.close()

  let away = true
  server.before = () => {
    if (away) throw new Unavailable()
  }
  await startRunner(t, server, { folders })
  t.same(await listFiles(secretsDir), ['lock'], 'secrets go at once, with or without the server')
  t.ok(
    existsSync(path.join(dataDir, 'environments', unknown)),
    'whether this one is gone nobody can tell now'
  )
  away = false
  while (existsSync(path.join(dataDir, 'environments', unknown))) await sleep(10)
  t.ok(existsSync(path.join(dataDir, 'environments', known)))
})

for (const sandboxed of [Bubblewrap, Unisolated]) {
  t.test(`what an earlier process left running by ${sandboxed.name} is ended`, async (t) => {
    const sandbox = await sandboxed.open()
    const folders = await makeDataDir(t)
    const [workspace, home, secrets] = ['workspace', 'home', 'secrets'].map((name) =>
      path.join(name === 'secrets' ? folders.secretsDir : folders.dataDir, name)
    ) as [string, string, string]
    for (const folder of [workspace, home, secrets]) await mkdir(folder, { recursive: true, mode: 0o755 })
    await chmod(folders.secretsDir, 0o711)
    const left = await sandbox.start(
      { workspace, home, secrets },
      { command: ['sleep', '1000'], variables: {}, links: new Map() }
    )
    await startRunner(t, new MemoryServer(), { folders, sandbox })
    t.match(await left.exit, { signal: 'SIGKILL' })
  })
}

t.test('while the server is away, environments go on; then it hears the newest of each', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server, { renewMs: RENEW_MS })
  const secret = server.secret('VARIABLE', { kind: 'variable', name: 'VARIABLE' }, 'old')
  const id = server.add({ secrets: [secret] })
  await server.untilPhase(id, 'RUNNING')
  const first = await startLong(runner, id)
  server.setValue(id, secret.id, 'new')
  await server.until(
    id,
    ({ secretsInSync, phase }) => !secretsInSync && phase === 'ENVIRONMENT_PHASE_RUNNING'
  )
  const reported = server.reportsOf(id).length

  let refusals = 0
  let away = true
  server.before = () => {
    if (!away) return
    refusals += 1
    throw new Unavailable()
  }
  t.match(await runInside(runner, id, 'echo $VARIABLE'), { stdout: 'new\n' })
  first.kill()
  await first.exit
  while (refusals < 5) await sleep(10)
  t.match(await runInside(runner, id, 'echo $VARIABLE'), { stdout: 'new\n' })
  away = false
  await server.until(id, ({ secretsInSync }) => secretsInSync)
  t.equal(server.reportsOf(id).length, reported + 1)
})

t.test('an environment whose values cannot be read yet becomes what it should when they can', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server)
  let refusals = 0
  server.before = (step) => {
    if (!step.startsWith('read') || refusals === 5) return
    refusals += 1
    throw new Unavailable()
  }
  const secrets = [server.secret('VARIABLE', { kind: 'variable', name: 'VARIABLE' })]
  const id = server.add({ secrets })
  await server.untilPhase(id, 'RUNNING')
  t.match(await runInside(runner, id, 'echo $VARIABLE'), { stdout: 'value of VARIABLE\n' })
})

t.test(
  'a value that the server fails to give fails alone, and is asked for again at the next change',
  async (t) => {
    const server = new MemoryServer()
    await startRunner(t, server)
    const secrets = ['BAD', 'GOOD'].map((name) => server.secret(name, { kind: 'variable', name }))
    const read = server.readSecret.bind(server)
    server.readSecret = async (token, id) => {
      if (id === secrets[0]!.id) throw new Error('defect')
      return await read(token, id)
    }
    const id = server.add({ secrets })
    t.match((await server.untilPhase(id, 'RUNNING')).secrets, [
      { phase: 'CONTENT_PHASE_FAILED', failureMessage: 'The server failed to give the value.' },
      { phase: 'CONTENT_PHASE_READY' }
    ])
    server.readSecret = read
    server.change(id, {})
    t.match((await server.untilPhase(id, 'RUNNING')).secrets, [
      { phase: 'CONTENT_PHASE_READY' },
      { phase: 'CONTENT_PHASE_READY' }
    ])
  }
)

t.test('no more environments than there is room for', async (t) => {
  const server = new MemoryServer()
  await startRunner(t, server, { capacity: 1 })
  const first = server.add()
  await server.untilPhase(first, 'RUNNING')
  const second = server.add()
  await server.untilPhase(first, 'RUNNING', server.change(first, {}))
  t.same(server.reportsOf(second), [])
  server.change(first, { desiredPhase: 'ENVIRONMENT_PHASE_STOPPED' })
  await server.untilPhase(second, 'RUNNING')
  server.change(second, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  const third = server.add()
  await server.untilPhase(third, 'RUNNING')
})

t.test('where it cannot work, a runner says why', async (t) => {
  const server = new MemoryServer()
  const { folders, dataDir } = await startRunner(t, server)
  await t.rejects(startRunner(t, server, { folders }), {
    message: /Another runner works with this data folder/
  })
  await t.rejects(startRunner(t, server, { secretsDir: dataDir }), { message: /no tmpfs/ })

  const trap = await makeDataDir(t)
  await mkdir(trap.secretsDir)
  await chmod(trap.secretsDir, 0o777)
  await t.rejects(startRunner(t, server, { folders: trap }), { message: /others may write to it/ })
  t.same(await listFiles(trap.secretsDir), [])

  if (process.getuid!() !== 0) return
  const closed = await makeDataDir(t)
  await chmod(closed.dataDir, 0o700)
  await t.rejects(startRunner(t, server, { folders: closed }), { message: /cannot enter/ })
})

t.test('a runner takes the folders of one that was killed', async (t) => {
  const server = new MemoryServer()
  const folders = await makeDataDir(t)
  await mkdir(folders.secretsDir, { mode: 0o711 })
  // A socket whose process has ended, as kill -9 leaves it.
  const socket = path.join(folders.secretsDir, 'lock')
  const script = `require('node:net').createServer().listen('${socket}', () => process.kill(process.pid, 'SIGKILL'))`
  t.match(spawnSync(process.execPath, ['-e', script]), { signal: 'SIGKILL' })
  t.ok(existsSync(socket))
  await startRunner(t, server, { folders })
  const id = server.add()
  t.match(await server.untilPhase(id, 'RUNNING'), { failureMessage: undefined })
})
