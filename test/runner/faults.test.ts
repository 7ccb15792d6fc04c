import { type ChildProcess, execFile, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { lstat, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { Unavailable } from '../../src/errors.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeRepository, serveGit } from './git-server.ts'
import { EXCHANGE_TOKEN, serveHttp } from './http-server.ts'
import { MemoryServer } from './memory-server.ts'
import type { RunRequest } from './runner-process.ts'
import { commandLines, listFiles, makeDataDir, type Outcome, sourceOf } from './running.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// A runner in a process of its own that is killed, is alone, or has no room; and what is found of values anywhere.

const CHILD = path.join(import.meta.dirname, `runner-process${path.extname(import.meta.filename)}`)
/** Of this test alone: another one, which was killed itself, may have left some. */
const NAP = `sleep 86402.${process.pid}`
const MARKER = 'MARKER-b1946ac92492d234'

interface Folders {
  dataDir: string
  secretsDir: string
}

class ChildRunner {
  readonly #child: ChildProcess
  readonly #exited: Promise<unknown>
  output = ''
  #requests = 0

  constructor(t: Test, url: string, dataDir: string, prefix: readonly string[] = []) {
    const [execPath = process.execPath, ...before] = prefix
    this.#child = fork(CHILD, [url, EXCHANGE_TOKEN, dataDir], {
      execPath,
      execArgv: prefix.length > 0 ? [...before, process.execPath, ...process.execArgv] : process.execArgv,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc']
    })
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text
      })
    }
    this.#exited = once(this.#child, 'exit')
    t.teardown(() => this.kill())
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** Runs a script in an environment; why it cannot be started is thrown. */
  async run(environmentId: string, script: string): Promise<Outcome> {
    const number = ++this.#requests
    this.#child.send({ number, environmentId, script } satisfies RunRequest)
    for (;;) {
      const [answer] = (await once(this.#child, 'message')) as [{ number: number; outcome: Outcome | string }]
      if (answer.number !== number) continue
      if (typeof answer.outcome === 'string') throw new Error(answer.outcome)
      return answer.outcome
    }
  }
}

async function prepare(t: Test) {
  const memory = new MemoryServer()
  const http = await serveHttp(t, memory)
  const folders = await makeDataDir(t)
  return { memory, http, folders, start: () => new ChildRunner(t, http.url, folders.dataDir) }
}

/** A secret of each mount, each with the marker in its value. */
function secretsOf(memory: MemoryServer) {
  return [
    memory.secret('VARIABLE', { kind: 'variable', name: 'VARIABLE' }, `${MARKER}-variable`),
    memory.secret('FILE', { kind: 'file', path: '/workspace/file' }, `${MARKER}-file`),
    memory.secret('SYSTEM', { kind: 'file', path: '/opt/file' }, `${MARKER}-system`),
    memory.secret('REGISTRY', { kind: 'registry', host: 'ghcr.io' }, `user:${MARKER}`),
    memory.secret('GIT', { kind: 'git', host: 'git.example.com' }, `user:${MARKER}`)
  ]
}

/** Files below folders that have the marker in their content or name, whatever it is encoded in. */
async function findMarker(...folders: string[]): Promise<string[]> {
  const wanted = [MARKER, Buffer.from(`user:${MARKER}`).toString('base64')]
  const found: string[] = []
  for (const folder of folders) {
    for (const name of await listFiles(folder)) {
      const file = path.join(folder, name)
      const isFile = (await lstat(file).catch(() => undefined))?.isFile()
      const content = isFile ? await readFile(file, 'latin1').catch(() => '') : ''
      if (wanted.some((text) => content.includes(text) || name.includes(text))) found.push(file)
    }
  }
  return found
}

async function isRunning(command: string): Promise<boolean> {
  const words = command.replaceAll(' ', '\0')
  return (await commandLines()).some((line) => line.includes(words))
}

async function untilGone(command: string): Promise<void> {
  while (await isRunning(command)) await sleep(20)
}

/** Kills a runner when it asks the server for this, which it does in vain. */
function killAt(memory: MemoryServer, runner: ChildRunner, step: string): Promise<void> {
  return new Promise((resolve) => {
    memory.before = async (now) => {
      if (now !== step) return
      memory.before = () => {}
      await runner.kill()
      resolve()
      throw new Unavailable()
    }
  })
}

const BRINGING_UP = ['report STARTING', 'read 0', 'read 2', 'read 4', 'clone', 'report RUNNING'] as const

for (const step of BRINGING_UP) {
  t.test(`killed at "${step}" while it brings an environment up`, async (t) => {
    const { memory, folders, start } = await prepare(t)
    const first = start()
    const killed = killAt(memory, first, step)
    const secrets = secretsOf(memory)
    const remote = await serveGit(t, { answer: ({ url }) => url!.startsWith('/hang') })
    for (const name of ['first', 'second']) await makeRepository(remote, name)
    const sources = step === 'clone' ? ['first', 'hang'] : ['first']
    const id = memory.add({
      secrets,
      content: { sources: sources.map((name) => sourceOf(`${remote.url}/${name}`)) }
    })
    if (step === 'clone') {
      while (!remote.requests.some(({ path }) => path.startsWith('/hang'))) await sleep(5)
      await first.kill()
    } else await killed
    memory.bury(id)
    const { content } = memory.assignmentOf(id)
    memory.change(id, { content: { ...content, sources: [sourceOf(`${remote.url}/second`)] } })

    const next = start()
    await memory.untilPhase(id, 'RUNNING')
    const isWhole = step === 'report RUNNING'
    const running = await commandLines()
    t.notOk(
      running.some((line) => line.includes(`${remote.host}/first`)),
      'nothing is left of the first one'
    )
    const seen = await next.run(id, 'ls; cat file /opt/file; printenv VARIABLE')
    t.same(seen, {
      code: 0,
      stdout: `file\n${isWhole ? 'first' : 'second'}\n${MARKER}-file${MARKER}-system${MARKER}-variable\n`,
      stderr: ''
    })
    await expectFiles(t, folders, id, secrets)
  })
}

/** What is delivered is there, and nothing else: no part of a file, no environment that is gone. */
async function expectFiles(t: Test, folders: Folders, id: string, secrets: ReturnType<typeof secretsOf>) {
  const files = secrets.filter(({ mount }) => mount.kind === 'file').map((secret) => `files/${secret.id}`)
  const expected = [...files, 'bin/git-credential', 'docker/config.json', 'git/0', 'gitconfig'].map(
    (name) => `${id}/${name}`
  )
  t.same(await listFiles(folders.secretsDir), [...expected, 'lock'].sort())
}

t.test('killed while a value changes', async (t) => {
  for (const step of ['report UPDATING', 'read 0', 'report RUNNING']) {
    const { memory, folders, start } = await prepare(t)
    const first = start()
    const secrets = secretsOf(memory)
    const id = memory.add({ secrets })
    await memory.untilPhase(id, 'RUNNING')
    memory.reads.length = 0
    const killed = killAt(memory, first, step)
    memory.setValue(id, secrets[1]!.id, 'new')
    await killed
    memory.bury(id)
    const next = start()
    await memory.untilPhase(id, 'RUNNING')
    t.match(await next.run(id, 'cat file /opt/file'), { stdout: `new${MARKER}-system` }, step)
    await expectFiles(t, folders, id, secrets)
    await next.kill()
  }
})

/** What is known of the environment's phase may be the word of the runner that was killed. */
async function runWhenTaken(runner: ChildRunner, id: string, script: string) {
  for (;;) {
    try {
      return await runner.run(id, script)
    } catch (error) {
      if (!/^Not Found$|is not running/.test((error as Error).message)) throw error
      await sleep(20)
    }
  }
}

t.test('killed at any time while values change again and again', async (t) => {
  const { memory, folders, start } = await prepare(t)
  const secrets = secretsOf(memory)
  const id = memory.add({ secrets })
  let runner = start()
  await memory.untilPhase(id, 'RUNNING')
  for (let round = 0; round < 6; round++) {
    for (let change = 0; change < 10; change++) {
      memory.setValue(id, secrets[1]!.id, `${round} ${change} `.repeat(4000))
      await sleep(Math.random() * 10)
    }
    await runner.kill()
    memory.bury(id)
    runner = start()
    await memory.untilPhase(id, 'RUNNING')
    const { stdout } = await runWhenTaken(runner, id, 'cat file')
    t.equal(stdout, `${round} 9 `.repeat(4000))
    await expectFiles(t, folders, id, secrets)
  }
})

t.test('killed in the first moments of a command, its next one ends it', async (t) => {
  const { memory, start } = await prepare(t)
  const id = memory.add({ secrets: secretsOf(memory) })
  let runner = start()
  for (let round = 0; round < 16; round++) {
    await runWhenTaken(runner, id, 'true')
    void runner.run(id, NAP).catch(() => {})
    await sleep(round)
    await runner.kill()
    memory.bury(id)
    runner = start()
    await untilGone(NAP)
  }
  t.notOk(runner.hasEnded)
})

for (const [desired, step] of [
  ['STOPPED', 'report STOPPING'],
  ['STOPPED', 'report STOPPED'],
  ['DELETED', 'report DELETING'],
  ['DELETED', 'report DELETED']
] as const) {
  t.test(`killed at "${step}"`, async (t) => {
    const { memory, folders, start } = await prepare(t)
    const first = start()
    const id = memory.add({ secrets: secretsOf(memory) })
    await memory.untilPhase(id, 'RUNNING')
    await first.run(id, 'mkdir deep; touch deep/own; chmod 500 deep; sleep 86401 >/dev/null 2>&1 &')
    void first.run(id, NAP).catch(() => {})
    const killed = killAt(memory, first, step)
    memory.change(id, { desiredPhase: `ENVIRONMENT_PHASE_${desired}` })
    await killed
    memory.bury(id)
    const next = start()
    // One that was about to start when its runner was killed is ended by the next runner.
    await untilGone(NAP)
    await memory.untilPhase(id, desired)
    t.same(await findMarker(folders.dataDir, folders.secretsDir), [])
    t.same(await listFiles(folders.secretsDir), ['lock'])
    t.equal(existsSync(path.join(folders.dataDir, 'environments', id)), desired === 'STOPPED')
    t.notOk(next.hasEnded)
  })
}

t.test('deleted by another runner while this one was dead: nothing stays of it here', async (t) => {
  const { memory, folders, start } = await prepare(t)
  const first = start()
  const id = memory.add({ secrets: secretsOf(memory) })
  await memory.untilPhase(id, 'RUNNING')
  await first.kill()
  t.not((await findMarker(folders.secretsDir)).length, 0, 'as long as nobody comes, it is in memory')
  memory.bury(id)
  memory.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  const [assignment] = await memory.claim({ holder: 'another', held: [], capacity: 1, waitSeconds: 0 })
  const { epoch, specVersion } = assignment!
  await memory.report(
    { environmentId: id, epoch },
    { phase: 'ENVIRONMENT_PHASE_DELETED', specVersion, secrets: [], secretsInSync: true }
  )
  start()
  while (existsSync(path.join(folders.dataDir, 'environments', id))) await sleep(20)
  t.same(await findMarker(folders.dataDir, folders.secretsDir), [])
})

t.test('a server that is gone for a while', async (t) => {
  const { memory, http, start } = await prepare(t)
  const runner = start()
  const secrets = secretsOf(memory)
  const id = memory.add({ secrets })
  await memory.untilPhase(id, 'RUNNING')
  await http.stop()
  t.match(await runner.run(id, 'cat file'), { stdout: `${MARKER}-file` })
  memory.setValue(id, secrets[1]!.id, 'new')
  while ((runner.output.match(/could not be/g) ?? []).length < 6) await sleep(20)
  t.match(await runner.run(id, 'cat file'), { stdout: `${MARKER}-file` })
  await http.listen()
  await memory.untilPhase(id, 'RUNNING')
  t.match(await runner.run(id, 'cat file'), { stdout: 'new' })
  t.notOk(runner.hasEnded)
})

t.test('values are nowhere but where they belong', async (t) => {
  const { memory, folders, start } = await prepare(t)
  const runner = start()
  const bad = [
    memory.secret('NUL', { kind: 'variable', name: 'NUL' }, `${MARKER}\0`),
    memory.secret('LARGE', { kind: 'variable', name: 'LARGE' }, MARKER.repeat(10_000)),
    memory.secret('NONSENSE', { kind: 'registry', host: 'a.io' }, MARKER),
    memory.secret('LINES', { kind: 'git', host: 'a.io' }, `user:${MARKER}\n`)
  ]
  const secrets = secretsOf(memory)
  const id = memory.add({ secrets: [...secrets, ...bad] })
  await memory.untilPhase(id, 'RUNNING')
  void runner.run(id, NAP).catch(() => {})
  while (!(await isRunning(NAP))) await sleep(20)
  t.match(await runner.run(id, 'printenv VARIABLE'), { stdout: `${MARKER}-variable\n` })
  t.equal((await findMarker(folders.secretsDir)).length, 4, 'in memory')
  t.same(await findMarker(folders.dataDir), [], 'not on disk')
  t.notOk(
    (await commandLines()).some((line) => line.includes(MARKER)),
    'not in a process list'
  )
  memory.change(id, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  await memory.untilPhase(id, 'DELETED')
  await untilGone(NAP)
  t.same(await findMarker(folders.secretsDir, folders.dataDir), [])
  while (!runner.output.includes('PHASE_DELETED')) await sleep(20)
  t.notOk(runner.output.includes(MARKER), 'not in the log')
  t.notOk(JSON.stringify(memory.reportsOf(id)).includes(MARKER), 'not in a report')
})

t.test('a workspace without room fails its environment, and nothing else', async (t) => {
  const { memory, http, folders } = await prepare(t)
  const runner = new ChildRunner(t, http.url, folders.dataDir, ['/usr/bin/prlimit', '--fsize=100000'])
  const remote = await serveGit(t)
  await makeRepository(remote, 'large')
  await writeFile(path.join(remote.folder, 'large', 'random'), randomBytes(300_000))
  await remote.git('large', 'add', '.')
  await remote.git('large', 'commit', '--quiet', '--message', 'large')
  const failing = memory.add({ content: { sources: [sourceOf(`${remote.url}/large`)] } })
  t.match(await memory.until(failing, ({ failureMessage }) => failureMessage !== undefined), {
    phase: 'ENVIRONMENT_PHASE_STARTING',
    content: { phase: 'CONTENT_PHASE_FAILED' }
  })
  const id = memory.add()
  await memory.untilPhase(id, 'RUNNING')
  t.match(await runner.run(id, 'true'), { code: 0 })
  memory.change(failing, { desiredPhase: 'ENVIRONMENT_PHASE_DELETED' })
  await memory.untilPhase(failing, 'DELETED')
  t.notOk(existsSync(path.join(folders.dataDir, 'environments', failing)))
})

t.test(
  'a disk that is full',
  { skip: process.getuid!() !== 0 && 'only root mounts a small one' },
  async (t) => {
    const { memory, folders, start } = await prepare(t)
    await mountDisk(t, folders.dataDir, '3m')
    const runner = start()
    const remote = await serveGit(t)
    await makeRepository(remote, 'large')
    await writeFile(path.join(remote.folder, 'large', 'random'), randomBytes(4_000_000))
    await remote.git('large', 'add', '.')
    await remote.git('large', 'commit', '--quiet', '--message', 'large')
    const large = memory.add({ content: { sources: [sourceOf(`${remote.url}/large`)] } })
    t.match(await memory.until(large, ({ failureMessage }) => failureMessage !== undefined), {
      phase: 'ENVIRONMENT_PHASE_STARTING',
      content: { phase: 'CONTENT_PHASE_FAILED', failureMessage: /disk of the runner is full/ }
    })

    const file = memory.secret('FILE', { kind: 'file', path: '/opt/file' }, 'before')
    const id = memory.add({ secrets: [file] })
    await memory.untilPhase(id, 'RUNNING')
    const filled = await runner.run(id, 'head -c 4000000 /dev/zero >rest')
    t.match(filled, { code: 1, stderr: /No space left on device/ }, 'the clone that failed had left room')
    const version = memory.setValue(id, file.id, 'after')
    await memory.until(id, ({ phase, specVersion }) => /RUNNING/.test(phase) && specVersion === version)
    t.match(await runner.run(id, 'cat /opt/file'), { code: 0, stdout: 'after' }, 'values need no disk')

    const waiting = memory.add({ secrets: [file] })
    t.match(await memory.until(waiting, ({ failureMessage }) => failureMessage !== undefined), {
      phase: /CREATING|STARTING/,
      failureMessage: /ENOSPC.*tries again/
    })
    t.match(await runner.run(id, 'rm rest'), { code: 0 })
    await memory.untilPhase(waiting, 'RUNNING')
    t.match(await runner.run(waiting, 'cat /opt/file'), { code: 0, stdout: 'after' })
  }
)

/** A file system of its own with so much room. */
async function mountDisk(t: Test, folder: string, size: string): Promise<void> {
  const run = promisify(execFile)
  await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0711`, 'tmpfs', folder])
  t.teardown(() => run('umount', ['--lazy', folder]))
}

t.test('without room, what does not fit fails alone', async (t) => {
  const { memory, http, folders } = await prepare(t)
  // A limit on the size of a file meets root, too, and needs no file system of its own.
  const runner = new ChildRunner(t, http.url, folders.dataDir, ['/usr/bin/prlimit', '--fsize=100000'])
  const [large, small] = [200_000, 50_000].map((size) =>
    memory.secret(`${size}`, { kind: 'file', path: `/workspace/${size}` }, 'x'.repeat(size))
  )
  const id = memory.add({ secrets: [large!, small!] })
  t.match((await memory.untilPhase(id, 'RUNNING')).secrets, [
    { phase: 'CONTENT_PHASE_FAILED', failureMessage: /could not write it.*EFBIG/ },
    { phase: 'CONTENT_PHASE_READY' }
  ])
  t.match(await runner.run(id, 'wc -c < 50000'), { stdout: '50000\n' })
  t.same(await listFiles(path.join(folders.secretsDir, id)), [`files/${small!.id}`])
})
