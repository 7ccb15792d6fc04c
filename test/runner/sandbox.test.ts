import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, symlink, unlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Bubblewrap } from '../../src/runner/bubblewrap.ts'
import { Unisolated } from '../../src/runner/unisolated.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { deliverFiles, makeFolder, makeRunner, run, sh } from './sandbox-helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const { sandbox, dataDir, makeFolders } = await makeRunner(t)
const folders = await makeFolders()
const childRunner = [path.join(import.meta.dirname, 'child-runner.js'), ...Object.values(folders)]
const plain = { variables: {}, links: new Map<string, string>() }

/** Everything that anybody on the machine could read of processes. */
function processList(): string {
  const read = (pid: string, file: string) => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'latin1')
    } catch {
      return ''
    }
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map((pid) => `${read(pid, 'cmdline')} ${read(pid, 'comm')}`).join('\n')
}

t.test('an environment has its workspace, its home and its secrets', async (t) => {
  await deliverFiles(sandbox, folders, new Map([['files/1', Buffer.from('value')]]))
  const { stdout, stderr, code } = await sh(
    sandbox,
    folders,
    'pwd; echo $HOME $USER; id -un; id -u; echo kept > ~/a; echo kept > b; cat /run/coffer/files/1'
  )
  t.same([stderr, code], ['', 0])
  t.equal(stdout, '/workspace\n/home/coffer coffer\ncoffer\n1000\nvalue')
  t.equal(await readFile(path.join(folders.home, 'a'), 'utf8'), 'kept\n')
  t.equal(await readFile(path.join(folders.workspace, 'b'), 'utf8'), 'kept\n')
  t.match(await sh(sandbox, folders, 'pwd', { workingDirectory: '/home/coffer' }), {
    stdout: '/home/coffer\n'
  })
})

t.test('secrets cannot be written, renewed ones are seen', async (t) => {
  for (const line of [
    'echo x > /run/coffer/files/1',
    'rm -f /run/coffer/files/1 || exit 1',
    'mv /run/coffer/files /run/coffer/other',
    'touch /run/coffer/new',
    'chmod 777 /run/coffer/files/1',
    'mount -o remount,rw /run/coffer',
    'umount /run/coffer'
  ]) {
    t.not((await sh(sandbox, folders, line)).code, 0, line)
  }
  const child = await sandbox.start(folders, {
    ...plain,
    command: ['sh', '-c', 'read go; cat /run/coffer/files/1']
  })
  await unlink(path.join(folders.secrets, 'files/1'))
  await deliverFiles(sandbox, folders, new Map([['files/1', Buffer.from('renewed')]]))
  child.stdin.end('go\n')
  t.equal(await text(child.stdout), 'renewed')
})

t.test('nothing else of the machine is there', async (t) => {
  const other = await makeFolders()
  await deliverFiles(sandbox, other, new Map([['files/1', Buffer.from('other-marker')]]))
  await writeFile(path.join(other.workspace, 'file'), 'other-marker')
  await chmod(path.join(other.workspace, 'file'), 0o644)
  const { stdout } = await sh(sandbox, folders, 'ls -A / /run /var /home /tmp /etc')
  const listed = stdout.split(/\s+/)
  for (const name of [
    'root',
    'boot',
    'srv',
    'mnt',
    'media',
    'sys',
    'docker.sock',
    'postgresql',
    'shadow',
    'sudoers'
  ]) {
    t.notOk(listed.includes(name), name)
  }
  for (const hidden of [
    dataDir,
    other.workspace,
    other.home,
    other.secrets,
    folders.workspace,
    folders.secrets,
    '/root',
    '/sys',
    '/var/lib',
    '/var/run/docker.sock',
    '/run/postgresql',
    '/etc/shadow',
    '/etc/ssl/private',
    '/etc/ssh',
    process.cwd(),
    '/proc/1/root/root',
    '/proc/self/root/root',
    `/proc/${process.pid}`
  ]) {
    t.not((await run(sandbox, folders, ['test', '-e', hidden])).code, 0, hidden)
  }
  const found = await sh(
    sandbox,
    folders,
    'grep -rls other-marker / --exclude-dir=proc --exclude-dir=usr --exclude-dir=dev'
  )
  t.equal(found.stdout, '')
  t.equal((await sh(sandbox, folders, 'ls /dev/shm')).stdout, '')
})

t.test('what the machine has is read-only', async (t) => {
  for (const line of [
    'touch /usr/new',
    'touch /usr/bin/new',
    'echo x >> /etc/hosts',
    'echo x >> /etc/passwd',
    'echo x > /proc/sys/kernel/core_pattern',
    'echo x > /proc/sys/kernel/hostname',
    'mount -t tmpfs none /mnt 2>&1 || mount -o remount,rw /usr'
  ]) {
    t.not((await sh(sandbox, folders, line)).code, 0, line)
  }
})

t.test('no rights, and no way to get some', async (t) => {
  const { stdout } = await sh(sandbox, folders, 'cat /proc/self/status')
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    t.match(stdout, new RegExp(`${set}:\\s0{16}\n`), set)
  }
  t.match(stdout, /NoNewPrivs:\s1\n/)
  t.match(stdout, /Groups:\s*(65534 ?)*\n/)
  for (const line of [
    'unshare --user true',
    'unshare --mount true',
    'su -c true',
    'chroot / true',
    'mknod n b 8 0'
  ]) {
    t.not((await sh(sandbox, folders, line)).code, 0, line)
  }
  const child = await sandbox.start(folders, { ...plain, command: ['sleep', '1000'] })
  const status = readFileSync(`/proc/${await find(/^sleep 1000$/)}/status`, 'utf8')
  t.match(status, new RegExp(`Uid:\\s${sandbox.user.uid}\\s`))
  t.not(sandbox.user.uid, 0)
  child.kill()
  await child.exit
})

/** Ids, on the machine, of the processes whose words are these. */
function processesOf(command: RegExp): string[] {
  return readdirSync('/proc').filter((name) => {
    try {
      return (
        /^\d+$/.test(name) &&
        command.test(readFileSync(`/proc/${name}/cmdline`, 'latin1').replaceAll('\0', ' ').trimEnd())
      )
    } catch {
      return false
    }
  })
}

/** The only one of these words, when it is there. */
async function find(command: RegExp): Promise<string> {
  for (;;) {
    const [found] = processesOf(command)
    if (found) return found
    await sleep(10)
  }
}

t.test('processes of the machine and of other environments cannot be seen, signalled or read', async (t) => {
  const other = await makeFolders()
  const victim = await sandbox.start(other, {
    ...plain,
    command: ['sleep', '1000'],
    variables: { MARK: 'marker' }
  })
  const { stdout } = await sh(
    sandbox,
    folders,
    'for p in /proc/[0-9]*; do cat $p/cmdline; done | tr "\\0" " "'
  )
  t.notMatch(stdout, /sleep 1000|node/)
  const pid = await find(/^sleep 1000$/)
  for (const line of [`kill -0 ${pid}`, `kill -0 ${process.pid}`, `cat /proc/${pid}/environ`]) {
    t.not((await sh(sandbox, folders, line)).code, 0, line)
  }
  await sh(sandbox, folders, 'kill -9 -1')
  t.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /State:\s[SR]/, 'it lives')
  t.equal((await sh(sandbox, folders, 'ls /proc | grep -c "^[0-9]"')).stdout.trim().length, 1)
  victim.kill()
  await victim.exit
})

t.test('IPC, host name and terminals are its own', async (t) => {
  const namespaces = ['user', 'pid', 'mnt', 'ipc', 'uts', 'cgroup']
  const { stdout } = await sh(
    sandbox,
    folders,
    `for n in ${namespaces.join(' ')}; do readlink /proc/self/ns/$n; done; uname -n`
  )
  const inside = stdout.trim().split('\n')
  for (const [index, name] of namespaces.entries())
    t.not(inside[index], readlinkSync(`/proc/self/ns/${name}`), name)
  t.equal(inside.at(-1), 'coffer')
  t.equal((await sh(sandbox, folders, 'ls /dev/pts')).stdout, 'ptmx\n')
  t.not((await sh(sandbox, folders, 'exec 3<>/dev/tty')).code, 0, 'no terminal of the runner')
})

t.test('no descriptor but the three of its own is passed on', async (t) => {
  // As a shell or systemd may start a runner with: a way around all that hides a folder.
  const line = `exec 9</ 77</; exec "$@"`
  const look = 'cd /proc/self/fd && for fd in *; do readlink $fd; done'
  const child = spawn('/bin/bash', ['-c', line, 'bash', process.execPath, ...childRunner, 'sh', '-c', look])
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)])
  t.equal(errors, '')
  const targets = output.trim().split('\n')
  t.ok(targets.length > 3)
  t.ok(
    targets.every((target) => /coffer-pipes|^socket:|^\/dev\/null$|^\/proc/.test(target)),
    output
  )
})

t.test('variables are in no process list', async (t) => {
  const variables = {
    SECRET: 'marker-in-variable',
    BYTES: Buffer.from([0xff, 0xfe, 0x3d, 0x0a, 0x80]),
    EMPTY: ''
  }
  const child = await sandbox.start(folders, {
    ...plain,
    command: ['sh', '-c', 'echo ready; read go; env -0'],
    variables
  })
  await once(child.stdout, 'readable')
  t.match(processList(), /bwrap/, 'the list has what it has')
  t.notMatch(processList(), /marker-in-variable/)
  child.stdin.end('\n')
  const chunks: Buffer[] = []
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) chunks.push(chunk)
  const output = Buffer.concat(chunks).toString('latin1')
  t.match(output, 'SECRET=marker-in-variable\0')
  t.match(output, 'BYTES=\xff\xfe=\n\x80\0')
  t.match(output, 'EMPTY=\0')
})

function parentOf(pid: number): number | undefined {
  try {
    return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  } catch {
    return undefined
  }
}

t.test('no variable of the runner is passed on, not even to bubblewrap', async (t) => {
  process.env.COFFER_TEST_MARKER = 'marker-of-the-runner'
  t.teardown(() => {
    delete process.env.COFFER_TEST_MARKER
  })
  const child = await sandbox.start(folders, { ...plain, command: ['sh', '-c', 'echo ready; read go; env'] })
  await once(child.stdout, 'readable')
  // Those of other tests come and go meanwhile.
  const ours = processesOf(/^(\/\S*\/)?bwrap /).filter((pid) => parentOf(Number(pid)) === process.pid)
  t.ok(ours.length > 0)
  for (const pid of ours) {
    t.notMatch(readFileSync(`/proc/${pid}/environ`, 'latin1'), /marker-of-the-runner/)
  }
  child.stdin.end('\n')
  const names = (await text(child.stdout)).split('\n').filter((line) => line.includes('='))
  t.same(names.map((line) => line.split('=')[0]).sort(), [
    'HOME',
    'LANG',
    'LOGNAME',
    'PATH',
    'PWD',
    'SHELL',
    'USER'
  ])
})

t.test('a value cannot become an option of bubblewrap', async (t) => {
  const evil = 'x\0--bind\0/\0/mnt'
  for (const request of [
    { variables: { A: evil } },
    { variables: { A: Buffer.from(evil) } },
    { variables: { [evil]: 'a' } },
    { links: new Map([['/a', evil]]) },
    { workingDirectory: `/${evil}` },
    { command: ['true', evil] },
    { command: [] },
    { command: ['true', 'x'.repeat(131_072)] }
  ]) {
    await t.rejects(sandbox.start(folders, { ...plain, command: ['true'], ...request }), {
      name: 'RefusedToStart'
    })
  }
  t.match(await run(sandbox, folders, ['--bind', '/', '/mnt', 'true']), { code: 127 })
  t.match(await run(sandbox, folders, ['A=b']), { stderr: /A=b/ }, 'a command with "=" is one')
})

t.test('links', async (t) => {
  await deliverFiles(sandbox, folders, new Map([['files/2', Buffer.from('linked')]]))
  const links = new Map([
    ['/etc/app/key', '/run/coffer/files/2'],
    ['/var/lib/x/y', '/run/coffer/files/2'],
    ['/opt/z', '/run/coffer/files/2'],
    ['/tmp/a', '/run/coffer/files/2']
  ])
  const all = await run(sandbox, folders, ['cat', ...links.keys()], { links })
  t.equal(all.stdout, 'linked'.repeat(4))
  t.not((await run(sandbox, folders, ['test', '-e', '/opt/z'])).code, 0, 'they go with the process')
  for (const [place, reason] of [
    ['a', /not absolute/],
    ['/usr/lib/key', /\/usr/],
    ['/bin/key', /\/bin/],
    ['/lib', /\/lib/],
    ['/proc/x', /\/proc/],
    ['/dev/shm/x', /\/dev/],
    ['/run/coffer/x', /\/run\/coffer/],
    ['/etc/hosts', /\/etc\/hosts/],
    ['/etc/passwd', /\/etc\/passwd/],
    ['/etc/ssl/certs/x', /\/etc\/ssl\/certs/],
    ['/', /./],
    ['/etc', /needs/],
    ['/run', /needs/],
    ['/home', /needs/],
    ['/workspace', /needs/],
    ['/home/coffer', /needs/],
    ['/tmp', /needs/],
    ['/a/../b', /segments/],
    ['/a/./b', /segments/],
    ['//a', /segments/],
    ['/a/', /segments/],
    ['/a\nb', /control/],
    ['/a\0b', /control/],
    [`/${'a'.repeat(256)}`, /longer/],
    [`/${'a/'.repeat(2100)}a`, /longer/]
  ] as const) {
    t.match(sandbox.refuseLink(place), reason, place)
    await t.rejects(
      sandbox.start(folders, { ...plain, command: ['true'], links: new Map([[place, '/run/coffer/x']]) }),
      { name: 'RefusedToStart' }
    )
  }
  for (const place of [
    '/etc/app/key',
    '/root/.npmrc',
    '/var/run/x',
    '/usrx',
    '/home/other/x',
    '/run/secrets/a'
  ]) {
    t.equal(sandbox.refuseLink(place), undefined, place)
    t.notOk(sandbox.keepsLink(place))
  }
  for (const place of ['/workspace/.env', '/home/coffer/.ssh/id']) {
    t.equal(sandbox.refuseLink(place), undefined, place)
    t.ok(sandbox.keepsLink(place))
    const start = sandbox.start(folders, {
      ...plain,
      command: ['true'],
      links: new Map([[place, '/run/coffer/x']])
    })
    await t.rejects(start, { name: 'RefusedToStart' })
  }
})

t.test('hundreds of links and variables', async (t) => {
  const names = Array.from({ length: 600 }, (_, index) => index)
  const links = new Map(names.map((index) => [`/opt/links/${index % 20}/${index}`, '/run/coffer/files/2']))
  const variables = Object.fromEntries(names.map((index) => [`V_${index}`, 'x'.repeat(1500)]))
  const { stdout, stderr } = await sh(sandbox, folders, 'env | grep -c ^V_; cat /opt/links/*/* | wc -c', {
    links,
    variables
  })
  t.equal(stderr, '')
  t.equal(stdout, `600\n${600 * 'linked'.length}\n`)
})

t.test('what a workspace leads to stays inside', async (t) => {
  await symlink('/', path.join(folders.workspace, 'machine'))
  t.not((await run(sandbox, folders, ['test', '-e', `machine${dataDir}`])).code, 0)
  await unlink(path.join(folders.workspace, 'machine'))
})

t.test('sockets of the machine are not there', async (t) => {
  const folder = await makeFolder(t, '/tmp')
  const file = path.join(folder, 'socket')
  const server = createServer().listen(file)
  await once(server, 'listening')
  await chmod(file, 0o777)
  t.not((await run(sandbox, folders, ['test', '-e', file])).code, 0)
  server.close()
})

t.test('a data folder below something that is shown is covered', async (t) => {
  const shown = await makeFolder(t, '/tmp')
  await chmod(shown, 0o755)
  for (const name of ['data', 'tools']) {
    await mkdir(path.join(shown, name))
    await writeFile(path.join(shown, name, 'file'), name)
  }
  const options = {
    readOnlyPaths: [shown],
    hiddenPaths: [path.join(shown, 'data'), path.join(shown, 'missing')]
  }
  const covered = await Bubblewrap.open(options)
  t.match(await sh(covered, folders, `cat ${shown}/tools/file; ls -A ${shown}/data; touch ${shown}/data/x`), {
    stdout: 'tools',
    code: 1
  })
  await symlink(shown, `${shown}-link`)
  t.teardown(() => unlink(`${shown}-link`))
  const linked = await Bubblewrap.open({ ...options, readOnlyPaths: [`${shown}-link`] })
  t.match(await sh(linked, folders, `cat ${shown}-link/tools/file; ls -A ${shown}-link/data`), {
    stdout: 'tools'
  })
  for (const wrong of [
    { readOnlyPaths: [path.join(shown, 'data')], hiddenPaths: [shown] },
    ...['/', '/home', '/proc', '/run', '/tmp', 'relative', '/a/../b'].map((place) => ({
      readOnlyPaths: [place]
    }))
  ]) {
    await t.rejects(Bubblewrap.open(wrong), { name: 'RefusedToStart' }, JSON.stringify(wrong))
  }
})

t.test('who environments can be', async (t) => {
  await t.rejects(Bubblewrap.open({ user: { uid: 0, gid: 0 } }), { name: 'RefusedToStart', message: /root/ })
  if (process.getuid!() !== 0) {
    await t.rejects(Bubblewrap.open({ user: { uid: 4242, gid: 4242 } }), {
      message: /Only a runner that is root/
    })
    return
  }
  const somebody = await Bubblewrap.open({ user: { uid: 4242, gid: 4242 } })
  t.same(somebody.user, { uid: 4242, gid: 4242 })
})

t.test('a status is that of the command', async (t) => {
  t.match(await sh(sandbox, folders, 'exit 0'), { code: 0, signal: null })
  t.match(await sh(sandbox, folders, 'exit 1'), { code: 1, signal: null })
  t.match(await sh(sandbox, folders, 'exit 77'), { code: 77, signal: null })
  t.match(await sh(sandbox, folders, 'kill -TERM $$'), { code: null, signal: 'SIGTERM' })
  t.match(await sh(sandbox, folders, 'kill -KILL $$'), { code: null, signal: 'SIGKILL' })
  t.match(await run(sandbox, folders, ['no-such-program']), { code: 127 })
  t.match(await run(sandbox, folders, ['/etc/hosts/x']), { code: 126 })
  t.match(await sh(sandbox, folders, 'true', { workingDirectory: '/nowhere' }), {
    code: 126,
    stderr: /nowhere/
  })
})

t.test('outputs can be opened by their names', async (t) => {
  const { stdout, stderr } = await sh(sandbox, folders, 'echo a > /dev/stdout; echo b > /dev/stderr')
  t.same([stdout, stderr], ['a\n', 'b\n'])
})

t.test('signals, at once and to the command alone', async (t) => {
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2', 'SIGKILL'] as const) {
    const child = await sandbox.start(folders, { ...plain, command: ['sleep', '1000'] })
    child.signal(name)
    t.same(await child.exit, { code: null, signal: name })
    child.signal(name)
    child.kill()
  }
})

t.test('at the end of a command, and when it is killed, nothing is left', async (t) => {
  const left = () => processesOf(/^sleep (3001|3002|3003)$/)
  const line = 'setsid sleep 3001 & setsid nohup sleep 3002 >/dev/null 2>&1 & echo ready'
  t.match(await sh(sandbox, folders, line), { code: 0, stdout: 'ready\n' })
  t.same(left(), [])
  const child = await sandbox.start(folders, {
    ...plain,
    command: ['sh', '-c', `${line}; trap "" TERM; sleep 3003`]
  })
  await once(child.stdout, 'readable')
  child.kill()
  t.same(await child.exit, { code: null, signal: 'SIGKILL' })
  t.same(left(), [])
})

t.test('when the runner is killed, nothing is left', async (t) => {
  const command = ['sleep', '4001']
  const runner = spawn(process.execPath, [...childRunner, ...command])
  await find(/^sleep 4001$/)
  runner.kill('SIGKILL')
  await once(runner, 'exit')
  while (processesOf(/^sleep 4001$/).length > 0) await sleep(10)
  t.pass('it goes with it')
})

t.test('no core dump, wherever the kernel sends them', async (t) => {
  const { stdout } = await sh(sandbox, folders, 'grep "core file" /proc/self/limits; kill -ABRT $$')
  t.match(stdout, /Max core file size\s+[01]\s+[01]\s/)
  t.same(
    (await readdir(folders.workspace)).filter((name) => name.startsWith('core')),
    []
  )
})

t.test('without isolation: the runner itself, in folders, with the same manners', async (t) => {
  const unisolated = await Unisolated.open()
  const own = await makeFolders()
  if (process.getuid!() === 0) for (const folder of Object.values(own)) await chmod(folder, 0o777)
  t.same(unisolated.inside(own), own)
  t.match(unisolated.refuseLink(), /Without isolation/)
  const variables = { SECRET: 'marker', UMLAUT: Buffer.from('ä') }
  const { stdout } = await sh(unisolated, own, 'pwd; echo $HOME $SECRET $UMLAUT; echo e > /dev/stderr', {
    variables
  })
  t.equal(stdout, `${own.workspace}\n${own.home} marker ä\n`)
  t.notOk(unisolated.isolated)
  t.match(await sh(unisolated, own, 'exit 3'), { code: 3, signal: null })
  t.match(await sh(unisolated, own, 'kill -9 $$'), { code: null, signal: 'SIGKILL' })
  t.match(await run(unisolated, own, ['no-such-program']), { code: 127 })
  t.match(await run(unisolated, own, ['A=b']), { code: 127, stderr: /A=b/ })
  t.match(await sh(unisolated, own, 'grep "core file" /proc/self/limits'), { stdout: /size\s+[01]\s+[01]\s/ })
  t.match(await sh(unisolated, own, 'sleep 3001 & sleep 3002 >/dev/null 2>&1 & echo ready'), {
    stdout: 'ready\n'
  })
  t.same(processesOf(/^sleep (3001|3002)$/), [])
  const child = await unisolated.start(own, {
    ...plain,
    command: ['sh', '-c', 'sleep 3003 & echo ready; wait']
  })
  await once(child.stdout, 'readable')
  child.kill()
  t.same(await child.exit, { code: null, signal: 'SIGKILL' })
  t.same(processesOf(/^sleep 3003$/), [])
  const latin1 = { ...plain, command: ['true'], variables: { A: Buffer.from([0xff]) } }
  await t.rejects(unisolated.start(own, latin1), { message: /variable A/ })
  const linked = { ...plain, command: ['true'], links: new Map([['/a', '/b']]) }
  await t.rejects(unisolated.start(own, linked), { message: /Without isolation/ })
  const terminal = { rows: 30, columns: 90, type: 'xterm' }
  t.match(await sh(unisolated, own, 'stty size; exit 4', { terminal }), { code: 4, stdout: /30 90/ })
  const line = 'trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done'
  const resized = await unisolated.start(own, { ...plain, command: ['sh', '-c', line], terminal })
  await once(resized.stdout, 'readable')
  resized.resize({ rows: 44, columns: 111 })
  const output = text(resized.stdout)
  t.same(await resized.exit, { code: 5, signal: null })
  t.match(await output, /44 111/)
})
