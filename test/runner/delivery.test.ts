import { readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import type { SecretReference, StatusReport } from '../../src/runner/interface.ts'
import type { Runner } from '../../src/runner/runner.ts'
import { Unisolated } from '../../src/runner/unisolated.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeRepository, serveGit } from './git-server.ts'
import { MemoryServer } from './memory-server.ts'
import { Gate, listFiles, runInside, sourceOf, startRunner } from './running.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// What processes of an environment find of its secrets, and what becomes of that when secrets change.

const REGISTRY = 'https://index.docker.io/v1/'

function statusOf(report: StatusReport, { id }: SecretReference) {
  return report.secrets.find((status) => status.id === id)
}

async function readDockerConfig(runner: Runner, id: string) {
  const { stdout } = await runInside(runner, id, 'cat $DOCKER_CONFIG/config.json')
  return JSON.parse(stdout || '{}') as unknown
}

function base64(value: string): string {
  return Buffer.from(value).toString('base64')
}

t.test('each mount is found where its programs look', async (t) => {
  const server = new MemoryServer()
  const { runner, sandbox, secretsDir } = await startRunner(t, server)
  const bytes = Buffer.from([0, 255, 10, 13, 10])
  const secrets = [
    server.secret('VARIABLE', { kind: 'variable', name: 'VARIABLE' }, ' spaces \n and lines\n'),
    server.secret('EMPTY', { kind: 'variable', name: 'EMPTY' }, ''),
    server.secret('BYTES', { kind: 'file', path: '/home/coffer/.config/deep/bytes' }, bytes),
    server.secret('SYSTEM', { kind: 'file', path: '/opt/app/license' }),
    server.secret('DOCKER', { kind: 'registry', host: REGISTRY }, 'user:pass:word'),
    server.secret('GHCR', { kind: 'registry', host: 'ghcr.io' }, `${base64('robot:token')}\n`),
    server.secret('GIT', { kind: 'git', host: 'git.example.com' }, 'user:password'),
    server.secret('API_ONLY', { kind: 'api-only' })
  ]
  const id = server.add({ secrets })
  const report = await server.untilPhase(id, 'RUNNING')
  t.same(
    report.secrets.map(({ phase, failureMessage }) => failureMessage ?? phase),
    secrets.map(() => 'CONTENT_PHASE_READY')
  )
  t.equal(report.warningMessage, undefined)
  const variables = await runInside(runner, id, 'printf "%s|" "$VARIABLE"; printenv EMPTY')
  t.equal(variables.stdout, ' spaces \n and lines\n|\n')
  const files = await runInside(
    runner,
    id,
    'od -An -tx1 ~/.config/deep/bytes; cat /opt/app/license; stat -L -c " %a" ~/.config/deep/bytes'
  )
  t.equal(files.stdout, ' 00 ff 0a 0d 0a\nvalue of SYSTEM 400\n')
  t.same(await readDockerConfig(runner, id), {
    auths: { [REGISTRY]: { auth: base64('user:pass:word') }, 'ghcr.io': { auth: base64('robot:token') } }
  })
  const filled = 'printf "protocol=https\\nhost=git.example.com\\n\\n" | git credential fill'
  t.match(await runInside(runner, id, filled), { stdout: /^username=user\npassword=password$/m })
  t.match(await runInside(runner, id, 'echo > /run/coffer/files/new || echo > ~/.config/deep/bytes'), {
    code: /[^0]/,
    stderr: /Read-only file system/
  })
  t.notOk(server.reads.includes(secrets.at(-1)!.id), 'api-only is not read')
  const { uid, mode } = await stat(path.join(secretsDir, id, 'files', secrets[2]!.id))
  t.same({ uid, mode: mode & 0o777 }, { uid: sandbox.user.uid, mode: 0o400 })
})

t.test('a change arrives: files in place, variables for the next process', async (t) => {
  const server = new MemoryServer()
  const { runner, secretsDir, sandbox } = await startRunner(t, server)
  let starts = 0
  const start = sandbox.start.bind(sandbox)
  sandbox.start = (...parameters) => {
    starts += 1
    return start(...parameters)
  }
  const variable = server.secret('VARIABLE', { kind: 'variable', name: 'VARIABLE' }, 'old')
  const file = server.secret('FILE', { kind: 'file', path: '/workspace/file' }, 'old')
  const registry = server.secret('REGISTRY', { kind: 'registry', host: 'ghcr.io' }, 'user:old')
  const id = server.add({ secrets: [variable, file, registry] })
  await server.untilPhase(id, 'RUNNING')
  const early = await runner.getEnvironment(id).start({
    command: ['/bin/sh', '-c', 'read line; echo "$VARIABLE"; cat file']
  })

  const readsBefore = server.reads.length
  starts = 0
  server.setValue(id, file.id, 'new')
  t.match(await server.untilPhase(id, 'RUNNING'), { secretsInSync: true }, 'files are never out of date')
  server.setValue(id, registry.id, 'user:new')
  await server.untilPhase(id, 'RUNNING')
  server.setValue(id, variable.id, 'new')
  const changed = await server.untilPhase(id, 'RUNNING')
  t.equal(starts, 0, 'no process was started for that')
  t.same(server.reads.slice(readsBefore), [file.id, registry.id, variable.id], 'and nothing else was read')
  t.equal(changed.secretsInSync, false)
  t.equal(statusOf(changed, variable)!.session, server.assignmentOf(id).secrets[0]!.session)

  t.match(await runInside(runner, id, 'cat file; echo " $VARIABLE"'), { stdout: 'new new\n' })
  t.same(await readDockerConfig(runner, id), { auths: { 'ghcr.io': { auth: base64('user:new') } } })
  early.stdin.end('\n')
  t.equal(
    await text(early.stdout),
    'old\nnew',
    'an earlier process has its variable still, and the file anew'
  )
  await early.exit
  await server.until(id, ({ secretsInSync }) => secretsInSync)

  server.change(id, { secrets: [] })
  await server.untilPhase(id, 'RUNNING')
  t.same(await listFiles(path.join(secretsDir, id)), [])
  t.match(await runInside(runner, id, 'ls; printenv VARIABLE || echo unset'), { stdout: 'unset\n' })
  t.same(await readDockerConfig(runner, id), {})
})

t.test('whoever reads a file while it changes gets the one value or the other, whole', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server)
  const fill = (letter: string) => letter.repeat(48 * 1024)
  const file = server.secret('FILE', { kind: 'file', path: '/workspace/file' }, fill('a'))
  const id = server.add({ secrets: [file] })
  await server.untilPhase(id, 'RUNNING')
  const reader = await runner.getEnvironment(id).start({
    command: ['/bin/sh', '-c', 'while [ ! -e end ]; do tr -s a-z < file; wc -c < file; done']
  })
  const output = text(reader.stdout)
  for (const letter of 'bcdefghijklmnopqrstuvwxyz') {
    server.setValue(id, file.id, fill(letter))
    await server.untilPhase(id, 'RUNNING')
  }
  await runInside(runner, id, 'touch end')
  const lines = (await output).trim().split('\n')
  t.same(
    lines.filter((line) => !/^[a-z]49152$/.test(line)),
    [],
    'one letter each, and the size of a whole value'
  )
  t.ok(new Set(lines).size > 1)
})

t.test('what cannot be delivered fails alone, and says why without the value', async (t) => {
  const server = new MemoryServer()
  const { runner, log } = await startRunner(t, server)
  const marker = 'MARKER-7f3a'
  const bad: [string, SecretReference, RegExp][] = [
    ['NUL', server.secret('NUL', { kind: 'variable', name: 'NUL' }, `${marker}\0`), /NUL/],
    ['reserved', server.secret('PATH', { kind: 'variable', name: 'PATH' }, marker), /set by the runner/],
    ['ours', server.secret('OURS', { kind: 'variable', name: 'COFFER_X' }, marker), /set by the runner/],
    ['no name', server.secret('NAME', { kind: 'variable', name: '1ST' }, marker), /not the name/],
    ['twice', server.secret('TWICE', { kind: 'variable', name: 'GOOD' }, marker), /Another secret/],
    [
      'large',
      server.secret('LARGE', { kind: 'variable', name: 'LARGE' }, marker.repeat(20_000)),
      /too large/
    ],
    ['read-only', server.secret('USR', { kind: 'file', path: '/usr/x' }, marker), /\/usr/],
    ['same path', server.secret('SAME', { kind: 'file', path: '/opt/dir/file' }, marker), /Another secret/],
    ['below', server.secret('BELOW', { kind: 'file', path: '/opt/dir/file/x' }, marker), /folder above/],
    ['above', server.secret('ABOVE', { kind: 'file', path: '/opt/dir' }, marker), /below this place/],
    ['registry', server.secret('REG', { kind: 'registry', host: 'a.io' }, `${marker}`), /neither user/],
    ['line', server.secret('LINE', { kind: 'registry', host: 'b.io' }, `a:${marker}\n`), /neither user/],
    ['host', server.secret('HOST', { kind: 'registry', host: 'ghcr.io' }, `a:${marker}`), /this registry/],
    ['git', server.secret('GIT', { kind: 'git', host: 'git.io' }, `a:${marker}\n`), /line break/],
    [
      'git host',
      server.secret('AT', { kind: 'git', host: 'git.io/path' }, `a:${marker}`),
      /The host of a git/
    ],
    [
      'git twice',
      server.secret('AGAIN', { kind: 'git', host: 'https://git.dev' }, `a:${marker}`),
      /this host/
    ],
    ['problem', { ...server.secret('HELD', { kind: 'api-only' }), problem: 'It is withheld.' }, /withheld/]
  ]
  const refused = server.secret('REFUSED', { kind: 'variable', name: 'REFUSED' })
  server.values.set(refused.id, 'It is not for you.')
  bad.push(['refused', refused, /not for you/])
  const good = [
    server.secret('GOOD', { kind: 'variable', name: 'GOOD' }, 'good'),
    server.secret('FILE', { kind: 'file', path: '/opt/dir/file' }, 'file'),
    server.secret('GHCR', { kind: 'registry', host: 'ghcr.io' }, 'user:pass'),
    server.secret('DEV', { kind: 'git', host: 'git.dev' }, 'user:pass')
  ]
  const id = server.add({ secrets: [...good, ...bad.map(([, secret]) => secret)] })
  const report = await server.untilPhase(id, 'RUNNING')
  t.equal(report.failureMessage, undefined)
  for (const secret of good) t.match(statusOf(report, secret), { phase: 'CONTENT_PHASE_READY' })
  for (const [name, secret, reason] of bad) {
    const { phase, failureMessage } = statusOf(report, secret)!
    t.match({ phase, failureMessage }, { phase: 'CONTENT_PHASE_FAILED', failureMessage: reason }, name)
  }
  t.notOk(JSON.stringify(server.reportsOf(id)).includes(marker))
  t.notOk(log.join('').includes(marker))
  const seen = await runInside(runner, id, 'env; cat /opt/dir/file; cat /run/coffer/docker/config.json')
  t.match(seen.stdout, /^GOOD=good$/m)
  t.notOk(seen.stdout.includes(marker))
})

t.test('variables are as large as the operating system takes, and no larger', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server)
  const named = (name: string, bytes: number) =>
    server.secret(name, { kind: 'variable', name }, 'x'.repeat(bytes - name.length - 1))
  const secrets = [
    named('USUAL', 48 * 1024),
    named('LARGEST', 131_071),
    named('LARGER', 131_072),
    named('HUGE', 200 * 1024),
    ...Array.from({ length: 8 }, (_, index) => named(`MORE_${index}`, 120_000))
  ]
  const id = server.add({ secrets })
  const report = await server.untilPhase(id, 'RUNNING')
  const failed = report.secrets.filter(({ phase }) => phase === 'CONTENT_PHASE_FAILED')
  t.same(
    failed.map(({ secretName }) => secretName),
    ['LARGER', 'HUGE', 'MORE_7']
  )
  t.match(failed.at(-1), { failureMessage: /together/ })
  const seen = await runInside(
    runner,
    id,
    'for name in USUAL LARGEST MORE_6 LARGER; do printenv $name | wc -c; done'
  )
  t.match(seen, { stdout: `${48 * 1024 - 5}\n${131_071 - 7}\n${120_000 - 6}\n0\n` })
})

t.test("a file of the environment's own stays where it is", async (t) => {
  const server = new MemoryServer()
  const { runner, folders } = await startRunner(t, server)
  const id = server.add()
  await server.untilPhase(id, 'RUNNING')
  await runInside(runner, id, 'echo mine > own; mkdir closed; chmod 555 closed; ln -s /nowhere dangling')
  const secrets = ['own', 'closed/file', 'dangling', 'own/below', 'free', 'odd "name"; $(exit)'].map((name) =>
    server.secret(name, { kind: 'file', path: `/workspace/${name}` })
  )
  server.change(id, { secrets })
  const report = await server.untilPhase(id, 'RUNNING')
  t.same(
    report.secrets.filter(({ phase }) => phase === 'CONTENT_PHASE_READY').map(({ secretName }) => secretName),
    ['free', 'odd "name"; $(exit)']
  )
  t.match(report.secrets, [{ failureMessage: /own/ }, {}, { failureMessage: /own/ }, {}])
  const seen = await runInside(runner, id, 'cat own free "odd \\"name\\"; \\$(exit)"; readlink dangling')
  t.equal(seen.stdout, 'mine\nvalue of freevalue of odd "name"; $(exit)/nowhere\n')

  await t.test(
    'a link that became something else is not removed; the others are, after a restart, too',
    async (t) => {
      await runInside(runner, id, 'rm free; echo mine > free')
      await runner.close()
      server.expire(id)
      server.change(id, { secrets: [] })
      const again = await startRunner(t, server, { folders })
      await server.untilPhase(id, 'RUNNING')
      const left = await runInside(again.runner, id, 'ls; cat free')
      t.equal(left.stdout, 'closed\ndangling\nfree\nown\nmine\n')
    }
  )
})

t.test('a value that the server refuses from now on is gone', async (t) => {
  const server = new MemoryServer()
  const { runner, secretsDir } = await startRunner(t, server)
  const file = server.secret('FILE', { kind: 'file', path: '/opt/file' })
  const id = server.add({ secrets: [file] })
  await server.untilPhase(id, 'RUNNING')
  server.setValue(id, file.id, '')
  await server.untilPhase(id, 'RUNNING')
  t.match(await runInside(runner, id, 'wc -c < /opt/file'), { stdout: '0\n' }, 'an empty value is one')
  server.values.set(file.id, 'It was withdrawn.')
  server.change(id, { secrets: [{ ...file, session: 'another' }] })
  const report = await server.untilPhase(id, 'RUNNING')
  t.match(report.secrets, [{ phase: 'CONTENT_PHASE_FAILED', failureMessage: 'It was withdrawn.' }])
  t.same(await listFiles(path.join(secretsDir, id)), [])
})

t.test('what was removed goes, though the server does not give what is new', async (t) => {
  const server = new MemoryServer()
  const { secretsDir } = await startRunner(t, server)
  const [removed, added] = ['removed', 'added'].map((name) =>
    server.secret(name, { kind: 'file', path: `/opt/${name}` })
  ) as [SecretReference, SecretReference]
  const id = server.add({ secrets: [removed] })
  await server.untilPhase(id, 'RUNNING')
  const released = new Gate()
  server.before = (step) => (step.startsWith('read') ? released.passed : undefined)
  server.change(id, { secrets: [added] })
  await server.untilPhase(id, 'UPDATING')
  t.same(await listFiles(path.join(secretsDir, id)), [])
  released.open()
  await server.untilPhase(id, 'RUNNING')
  t.same(await listFiles(path.join(secretsDir, id)), [`files/${added.id}`])
})

t.test('git has its credential before it clones, and for its host alone', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server)
  let credential = 'user:password'
  const remote = await serveGit(t, {
    answer({ headers }, response) {
      if (headers.authorization === `Basic ${base64(credential)}`) return false
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end()
      return true
    }
  })
  await makeRepository(remote, 'app')
  const elsewhere = server.secret('ELSEWHERE', { kind: 'git', host: '127.0.0.1:1' }, credential)
  const here = server.secret('HERE', { kind: 'git', host: remote.host }, credential)
  const content = { sources: [sourceOf(`${remote.url}/app`)] }
  const refused = server.add({ content, secrets: [elsewhere] })
  await server.until(refused, ({ failureMessage }) => failureMessage !== undefined)
  const id = server.add({ content, secrets: [elsewhere, here] })
  t.match(await server.untilPhase(id, 'RUNNING'), { content: { git: { branch: 'main' } } })
  t.match(await runInside(runner, id, 'cat app/file'), { stdout: 'second' })

  credential = 'user:changed'
  t.match(await runInside(runner, id, 'cd app && git fetch 2>&1'), { code: 128 })
  server.setValue(id, here.id, credential)
  await server.untilPhase(id, 'RUNNING')
  t.match(await runInside(runner, id, 'cd app && git fetch'), { code: 0 })
})

t.test('300 secrets of all mounts', async (t) => {
  const server = new MemoryServer()
  const { runner } = await startRunner(t, server)
  const secrets = Array.from({ length: 300 }, (_, index) => {
    const name = `SECRET_${index}`
    if (index % 3 === 0) return server.secret(name, { kind: 'variable', name })
    if (index % 3 === 1) return server.secret(name, { kind: 'file', path: `/workspace/files/${name}` })
    return server.secret(name, { kind: 'registry', host: `${index}.example.com` }, `user:${index}`)
  })
  const id = server.add({ secrets })
  const report = await server.untilPhase(id, 'RUNNING')
  t.equal(report.secrets.filter(({ phase }) => phase === 'CONTENT_PHASE_READY').length, 300)
  const seen = await runInside(runner, id, 'env | grep -c ^SECRET_; cat files/* | grep -o value | wc -l')
  t.equal(seen.stdout, '100\n100\n')
  t.equal(Object.keys(((await readDockerConfig(runner, id)) as { auths: object }).auths).length, 100)
})

t.test('without isolation absolute paths fail alone, and every status says it', async (t) => {
  const server = new MemoryServer()
  const { runner, secretsDir } = await startRunner(t, server, { sandbox: await Unisolated.open() })
  const file = server.secret('FILE', { kind: 'file', path: '/workspace/file' })
  const binary = server.secret('BINARY', { kind: 'variable', name: 'BINARY' }, Buffer.from([0xff, 0xfe]))
  const variable = server.secret('VARIABLE', { kind: 'variable', name: 'VARIABLE' })
  const registry = server.secret('REGISTRY', { kind: 'registry', host: 'ghcr.io' }, 'user:pass')
  const id = server.add({ secrets: [file, binary, variable, registry] })
  const report = await server.untilPhase(id, 'RUNNING')
  t.match(report.secrets, [
    { phase: 'CONTENT_PHASE_FAILED', failureMessage: /isolation/ },
    { phase: 'CONTENT_PHASE_FAILED', failureMessage: /UTF-8/ },
    { phase: 'CONTENT_PHASE_READY' },
    { phase: 'CONTENT_PHASE_READY' }
  ])
  t.ok(server.reportsOf(id).every(({ warningMessage }) => /not isolated/.test(warningMessage!)))
  t.match(await runInside(runner, id, 'echo "$VARIABLE"'), { stdout: 'value of VARIABLE\n' })
  const config = await readFile(path.join(secretsDir, id, 'docker', 'config.json'), 'utf8')
  t.same(JSON.parse(config), await readDockerConfig(runner, id))
})
