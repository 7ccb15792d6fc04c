import { existsSync } from 'node:fs'
import { chmod, lstat, mkdtemp, readdir, rm, rmdir, symlink, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { StatusReport } from '../../src/runner/interface.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeRepository, serveGit } from './git-server.ts'
import { MemoryServer } from './memory-server.ts'
import { commandLines, Gate, listFiles, runInside, sourceOf, startRunner } from './running.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// What becomes of one environment: phases, content, and what stays where.

function phases(reports: readonly StatusReport[]): string[] {
  const all = reports.map(({ phase }) => phase.replace('ENVIRONMENT_PHASE_', ''))
  return all.filter((phase, index) => phase !== all[index - 1])
}

t.test('an environment runs, stops, runs again with what it had, and goes', async (t) => {
  const server = new MemoryServer()
  const { runner, dataDir, secretsDir } = await startRunner(t, server)
  const remote = await serveGit(t)
  await makeRepository(remote, 'app')
  const token = server.secret('TOKEN', { kind: 'variable', name: 'TOKEN' })
  const key = server.secret('KEY', { kind: 'file', path: '/workspace/key' })
  const id = server.add({ secrets: [token, key], content: { sources: [sourceOf(`${remote.url}/app`)] } })

  const running = await server.untilPhase(id, 'RUNNING')
  t.match(running, {
    specVersion: '1',
    failureMessage: undefined,
    content: { phase: 'CONTENT_PHASE_READY', location: '/workspace', git: { branch: 'main' } },
    secrets: [
      { id: token.id, secretName: 'TOKEN', phase: 'CONTENT_PHASE_READY', session: token.session },
      { id: key.id, secretName: 'KEY', phase: 'CONTENT_PHASE_READY', session: key.session }
    ],
    secretsInSync: true
  })
  const seen = await runInside(
    runner,
    id,
    'cat app/file key; echo " $TOKEN $COFFER_ENVIRONMENT_ID"; echo mine > own'
  )
  t.match(seen, { code: 0, stdout: `secondvalue of KEY value of TOKEN ${id}\n` })

  const left = await runner.getEnvironment(id).start({ command: ['sleep', '1000'] })
  server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_STOPPED' })
  const stopped = await server.untilPhase(id, 'STOPPED')
  t.match(stopped.secrets, [{ phase: 'CONTENT_PHASE_UNAVAILABLE' }, { phase: 'CONTENT_PHASE_UNAVAILABLE' }])
  t.match(await left.exit, { signal: 'SIGKILL' })
  t.same(await listFiles(secretsDir), ['lock'])
  await t.rejects(runInside(runner, id, 'true'), { code: 'conflict' })

  server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_RUNNING' })
  await server.untilPhase(id, 'RUNNING')
  t.match(await runInside(runner, id, 'cat app/file own key'), { stdout: 'secondmine\nvalue of KEY' })
  t.same(server.reads.length, 4, 'values are read anew')

  server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  await server.untilPhase(id, 'DELETED')
  t.same(await readdir(path.join(dataDir, 'environments')), [])
  t.same(await listFiles(secretsDir), ['lock'])
  t.throws(() => runner.getEnvironment(id), { code: 'not_found' })
  t.same(phases(server.reportsOf(id)), [
    'STARTING',
    'RUNNING',
    'STOPPING',
    'STOPPED',
    'STARTING',
    'RUNNING',
    'DELETING',
    'DELETED'
  ])
})

t.test('a clone that fails is the end, until there is other content or another start', async (t) => {
  const server = new MemoryServer()
  const { runner, secretsDir } = await startRunner(t, server)
  const remote = await serveGit(t)
  await makeRepository(remote, 'half')
  const secrets = [server.secret('TOKEN', { kind: 'variable', name: 'TOKEN' })]
  const id = server.add({
    secrets,
    content: { sources: [sourceOf(`${remote.url}/half`), sourceOf(`${remote.url}/fail`)] }
  })
  const failed = await server.until(id, ({ failureMessage }) => failureMessage !== undefined)
  t.match(failed, {
    phase: 'ENVIRONMENT_PHASE_STARTING',
    failureMessage: /127\.0\.0\.1.*fail/,
    content: { phase: 'CONTENT_PHASE_FAILED', failureMessage: /127\.0\.0\.1.*fail/ },
    secrets: [{ phase: 'CONTENT_PHASE_UNAVAILABLE' }]
  })
  t.same(await listFiles(secretsDir), ['lock'], 'nobody uses what was delivered')
  await t.rejects(runInside(runner, id, 'true'), { code: 'conflict' })

  const version = server.change(id, { secrets: [] })
  const same = await server.until(id, ({ specVersion }) => specVersion === version)
  t.match(same, { failureMessage: /127\.0\.0\.1.*fail/ })

  await makeRepository(remote, 'whole')
  const content = server.assignmentOf(id).content
  server.change(id, {
    content: { ...content, session: 'another', sources: [sourceOf(`${remote.url}/whole`)] }
  })
  t.match(await server.untilPhase(id, 'RUNNING'), { failureMessage: undefined })
  t.match(await runInside(runner, id, 'ls'), { stdout: 'whole\n' }, 'nothing is left of the first try')
})

t.test('a clone that failed does not keep an environment from being stopped or deleted', async (t) => {
  const server = new MemoryServer()
  const { dataDir } = await startRunner(t, server)
  const remote = await serveGit(t)
  const id = server.add({ content: { sources: [sourceOf(`${remote.url}/fail`)] } })
  await server.until(id, ({ failureMessage }) => failureMessage !== undefined)
  server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_STOPPED' })
  t.match(await server.untilPhase(id, 'STOPPED'), { failureMessage: undefined })
  server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  await server.untilPhase(id, 'DELETED')
  t.same(await readdir(path.join(dataDir, 'environments')), [])
})

for (const desired of ['STOPPED', 'DELETED'] as const) {
  t.test(`a clone that hangs is aborted when the environment shall be ${desired}`, async (t) => {
    const server = new MemoryServer()
    const { dataDir } = await startRunner(t, server)
    const remote = await serveGit(t, { answer: ({ url }) => url!.startsWith('/hang') })
    await makeRepository(remote, 'first')
    const id = server.add({
      content: { sources: [sourceOf(`${remote.url}/first`), sourceOf(`${remote.url}/hang`)] }
    })
    while (!remote.requests.some(({ path }) => path.startsWith('/hang'))) await sleep(10)
    t.ok(existsSync(path.join(dataDir, 'environments', id, 'workspace', 'first')))
    server.change(id, { desiredPhase: `ENVIRONMENT_PHASE_${desired}` })
    t.match(await server.untilPhase(id, desired), { failureMessage: undefined })
    t.notOk(
      (await commandLines()).some((line) => line.includes(remote.host)),
      'no git is left'
    )
  })
}

t.test('a clone that takes too long fails', async (t) => {
  const server = new MemoryServer()
  await startRunner(t, server, { cloneTimeoutMs: 200 })
  const remote = await serveGit(t, { answer: () => true })
  const id = server.add({ content: { sources: [sourceOf(`${remote.url}/hang`)] } })
  t.match(await server.until(id, ({ failureMessage }) => failureMessage !== undefined), {
    failureMessage: /longer than/
  })
  t.notOk(
    (await commandLines()).some((line) => line.includes(remote.host)),
    'no git is left'
  )
})

t.test('a clone that failed for a credential is tried again when that is there', async (t) => {
  const server = new MemoryServer()
  await startRunner(t, server)
  const remote = await serveGit(t, { credentials: 'user:password' })
  await makeRepository(remote, 'app')
  const id = server.add({ content: { sources: [sourceOf(`${remote.url}/app`)] } })
  await server.until(id, ({ failureMessage }) => failureMessage !== undefined)
  server.change(id, { secrets: [server.secret('GIT', { kind: 'git', host: remote.host }, 'user:password')] })
  t.match(await server.untilPhase(id, 'RUNNING'), { failureMessage: undefined })
})

t.test('changes that come while an environment is brought up follow', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server)
  const secret = server.secret('TOKEN', { kind: 'variable', name: 'TOKEN' }, 'first')
  const [reading, released] = [new Gate(), new Gate()]
  server.before = (step) => {
    if (step !== 'read 0') return
    reading.open()
    return released.passed
  }
  const id = server.add({ secrets: [secret] })
  await reading.passed
  server.setValue(id, secret.id, 'second')
  released.open()
  await server.untilPhase(id, 'RUNNING')
  t.match(await runInside(runner, id, 'echo $TOKEN'), { stdout: 'second\n' })
})

t.test('whatever lies in a workspace, it goes, and nothing else with it', async (t) => {
  const server = new MemoryServer()
  const { runner, dataDir } = await startRunner(t, server)
  const outside = await mkdtemp(path.join(os.tmpdir(), 'coffer-outside-'))
  await chmod(outside, 0o777)
  await writeFile(path.join(outside, 'precious'), '')
  await chmod(path.join(outside, 'precious'), 0o600)
  t.teardown(() => rm(outside, { recursive: true }))
  const id = server.add()
  await server.untilPhase(id, 'RUNNING')
  const script = `
    mkdir -p locked/deep "$HOME/locked" "odd name" -- -rf
    touch locked/deep/file locked/file -- -rf/file
    ln -s ${outside} out; ln -s ${outside}/precious locked/deep/out; ln -s ../../.. up
    mkfifo pipe
    chmod 0555 locked/deep; chmod 0000 locked "$HOME/locked"`
  t.match(await runInside(runner, id, script), { code: 0, stderr: '' })
  server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  t.match(await server.untilPhase(id, 'DELETED'), { failureMessage: undefined })
  t.same(await readdir(path.join(dataDir, 'environments')), [])
  t.same(await readdir(outside), ['precious'])
  t.equal((await lstat(path.join(outside, 'precious'))).mode & 0o777, 0o600)
  t.ok(existsSync(dataDir))
})

t.test(
  'where an environment has put a link in place of its workspace, what that leads to stays',
  async (t) => {
    const server = new MemoryServer()
    const { dataDir, runner, folders } = await startRunner(t, server)
    const outside = await mkdtemp(path.join(os.tmpdir(), 'coffer-outside-'))
    await writeFile(path.join(outside, 'precious'), '')
    t.teardown(() => rm(outside, { recursive: true }))
    const id = server.add()
    await server.untilPhase(id, 'RUNNING')
    await runner.close()
    const workspace = path.join(dataDir, 'environments', id, 'workspace')
    await rmdir(workspace)
    await symlink(outside, workspace)
    server.expire(id)
    server.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
    await startRunner(t, server, { folders })
    await server.untilPhase(id, 'DELETED')
    t.same(await readdir(outside), ['precious'])
  }
)
