import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import {
  credentialBindings,
  type GitCredential,
  gitCredentialFiles,
  parseGitCredential
} from '../../src/runner/credential-helper.ts'
import { GIT, needPrograms } from '../installed.ts'

needPrograms(t, GIT)

type Credential = { host: string } & GitCredential

function credential(host: string, username: string | Buffer, password: string | Buffer): Credential {
  return { host, username: Buffer.from(username), password: Buffer.from(password) }
}

async function deliver(t: Test, credentials: readonly Credential[]): Promise<string> {
  // A folder with a name that a shell and git's configuration would read wrongly if it were not quoted.
  const folder = await mkdtemp(path.join(os.tmpdir(), `coffer's "test" $x-`))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  for (const [file, content] of gitCredentialFiles(credentials, folder)) {
    await mkdir(path.dirname(path.join(folder, file)), { recursive: true })
    await writeFile(path.join(folder, file), content, { mode: 0o400 })
  }
  return folder
}

/** What git itself gets to know, from our configuration alone. */
async function fill(
  folder: string,
  request: string,
  more: NodeJS.ProcessEnv = {}
): Promise<Record<string, string>> {
  const { output, code } = await git(['credential', 'fill'], folder, request, more)
  if (code !== 0) return {}
  return Object.fromEntries(
    output
      .toString('latin1')
      .split('\n')
      .filter(Boolean)
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
  )
}

async function git(args: string[], folder: string, stdin: string, more: NodeJS.ProcessEnv = {}) {
  const child = spawn('git', args, {
    env: {
      PATH: '/usr/bin:/bin',
      HOME: folder,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_COUNT: '1',
      GIT_CONFIG_KEY_0: 'include.path',
      GIT_CONFIG_VALUE_0: path.join(folder, 'gitconfig'),
      GIT_TERMINAL_PROMPT: '0',
      GIT_ASKPASS: '',
      ...more
    }
  })
  // A helper that is not asked ends before it has read it.
  child.stdin.on('error', () => {})
  child.stdin.end(stdin)
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  const [errors, code] = await Promise.all([
    text(child.stderr),
    new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  ])
  return { output: Buffer.concat(chunks), errors, code }
}

t.test('git gets the credential of the host that it asks for', async (t) => {
  const folder = await deliver(t, [
    credential('git.example.com', 'ada', 'first'),
    credential('git.example.com:8443', 'bob', 'second'),
    credential('other.example.com', 'x-access-token', 'third')
  ])
  t.match(await fill(folder, 'protocol=https\nhost=git.example.com\n\n'), {
    username: 'ada',
    password: 'first'
  })
  t.match(await fill(folder, 'protocol=https\nhost=git.example.com:8443\n\n'), { password: 'second' })
  t.match(await fill(folder, 'protocol=https\nhost=other.example.com\npath=a/b.git\n\n'), {
    password: 'third'
  })
  t.match(
    await fill(folder, 'url=https://Git.Example.com/a\n\n'),
    { password: 'first' },
    'case does not matter'
  )
  t.match(
    await fill(folder, 'url=https://git.example.com:443/a\n\n'),
    { password: 'first' },
    'nor a usual port'
  )
  t.match(await fill(folder, 'protocol=https\nhost=git.example.com\nwwwauth[]=Basic realm="x"\n\n'), {
    password: 'first'
  })
})

t.test('no other host, port or protocol gets it', async (t) => {
  const folder = await deliver(t, [credential('git.example.com', 'ada', 'secret')])
  for (const url of [
    'http://git.example.com/a',
    'https://git.example.com:8443/a',
    'https://example.com/a',
    'https://a.git.example.com/a',
    'https://git.example.com.evil.example/a',
    'https://evil.example/git.example.com',
    'https://git.example.com@evil.example/a'
  ]) {
    t.same(await fill(folder, `url=${url}\n\n`), {}, url)
  }
})

t.test('the helper itself compares, whatever configuration names it', async (t) => {
  const folder = await deliver(t, [credential('git.example.com', 'ada', 'secret')])
  const ask = async (number: string, action: string, request: string) => {
    const child = spawn('/bin/sh', [path.join(folder, 'bin/git-credential'), number, action])
    // It need not read what it does not answer.
    child.stdin.on('error', () => {})
    child.stdin.end(request)
    const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)])
    return output + errors
  }
  const mine = 'protocol=https\nhost=git.example.com\n'
  t.equal(await ask('0', 'get', mine), 'username=ada\npassword=secret\n', 'with or without an empty line')
  t.equal(await ask('0', 'get', 'protocol=https\nhost=evil.example\n\n'), '')
  t.equal(await ask('0', 'get', 'protocol=http\nhost=git.example.com\n\n'), '')
  t.equal(await ask('0', 'get', 'host=git.example.com\n\n'), '')
  t.equal(await ask('0', 'get', ''), '')
  t.equal(await ask('0', 'get', 'protocol=https\nhost=*\n\n'), '')
  for (const action of ['store', 'erase', '', 'anything']) t.equal(await ask('0', action, mine), '', action)
  for (const number of ['1', '', 'x', '../git/0', '0/../0', '-1'])
    t.equal(await ask(number, 'get', mine), '', number)
})

t.test('a user name that is asked for has to be the one, unless ours stands for a token', async (t) => {
  const folder = await deliver(t, [
    credential('git.example.com', 'ada', 'first'),
    credential('dev.azure.com', 'x-access-token', 'second')
  ])
  t.match(await fill(folder, 'url=https://ada@git.example.com/a\n\n'), { password: 'first' })
  t.same(await fill(folder, 'url=https://eve@git.example.com/a\n\n'), {})
  t.match(await fill(folder, 'url=https://org@dev.azure.com/a\n\n'), { password: 'second' })
})

t.test('of several for a host, the one that fits answers', async (t) => {
  const folder = await deliver(t, [
    credential('git.example.com', 'ada', 'first'),
    credential('git.example.com', 'bob', 'second')
  ])
  t.match(await fill(folder, 'url=https://git.example.com/a\n\n'), { username: 'ada', password: 'first' })
  t.match(await fill(folder, 'url=https://bob@git.example.com/a\n\n'), {
    username: 'bob',
    password: 'second'
  })
})

t.test('a new value is used at the next question', async (t) => {
  const folder = await deliver(t, [credential('git.example.com', 'ada', 'old')])
  const renewed = gitCredentialFiles([credential('git.example.com', 'ada', 'new')], folder)
  await rm(path.join(folder, 'git/0'))
  await writeFile(path.join(folder, 'git/0'), renewed.get('git/0')!)
  t.match(await fill(folder, 'url=https://git.example.com/a\n\n'), { password: 'new' })
  await rm(path.join(folder, 'git/0'))
  t.same(await fill(folder, 'url=https://git.example.com/a\n\n'), {}, 'and one that is gone, no more')
})

t.test('no other helper is given the value to keep', async (t) => {
  const folder = await deliver(t, [credential('git.example.com', 'ada', 'secret')])
  const stored = path.join(folder, 'stored')
  await writeFile(path.join(folder, '.gitconfig'), '[credential]\n\thelper = store --file=stored\n')
  const request = 'protocol=https\nhost=git.example.com\nusername=ada\npassword=secret\n\n'
  t.equal((await git(['credential', 'approve'], folder, request)).code, 0)
  t.equal((await git(['config', '--get', 'credential.helper'], folder, '')).code, 0, 'there is one')
  await t.rejects(readFile(stored), { code: 'ENOENT' })
})

t.test('every byte that a credential can have comes through', async (t) => {
  const bytes = Buffer.from(
    Array.from({ length: 255 }, (_, index) => index + 1).filter((b) => b !== 10 && b !== 13)
  )
  const folder = await deliver(t, [credential('git.example.com', 'a d=a\\', bytes)])
  const { username, password } = await fill(folder, 'url=https://git.example.com/a\n\n')
  t.equal(username, 'a d=a\\')
  t.ok(Buffer.from(password!, 'latin1').equals(bytes))
})

t.test('the value of a git secret', async (t) => {
  const parse = (value: string) => {
    const { username, password } = parseGitCredential(Buffer.from(value))
    return [String(username), String(password)]
  }
  t.same(parse('ada:secret'), ['ada', 'secret'])
  t.same(parse('ada:a:b:'), ['ada', 'a:b:'])
  t.same(parse('ghp_token'), ['x-access-token', 'ghp_token'])
  for (const value of ['', ':secret', 'ada:', ':', 'a\nb', 'ada:secret\n', 'a\rb', 'a\0b']) {
    t.throws(() => parse(value), Error, JSON.stringify(value))
  }
  try {
    parse('hunter2\n')
  } catch (error) {
    t.notMatch(String(error), /hunter2/)
  }
})

t.test('what a host binds a credential to', async (t) => {
  const https = (host: string) => ({ protocol: 'https', host })
  const http = (host: string) => ({ protocol: 'http', host })
  t.same(credentialBindings('GitHub.com'), [https('github.com')])
  t.same(credentialBindings('https://github.com/'), [https('github.com')])
  t.same(credentialBindings('github.com:443'), [https('github.com')])
  t.same(credentialBindings('10.0.0.1:3000'), [https('10.0.0.1:3000')], 'a network may be listened to')
  t.same(credentialBindings('http://10.0.0.1:3000'), [http('10.0.0.1:3000')])
  t.same(credentialBindings('http://git.internal:80'), [http('git.internal')])
  t.same(credentialBindings('127.0.0.1:3000'), [https('127.0.0.1:3000'), http('127.0.0.1:3000')])
  t.same(credentialBindings('localhost'), [https('localhost'), http('localhost')])
  t.same(credentialBindings('[::1]:80'), [https('[::1]:80'), http('[::1]')])
  for (const host of [
    '',
    'a b',
    'a"]\n[core]',
    'host"',
    "host'",
    'host;id',
    '$(id)',
    'host/path',
    'user@host',
    'ssh://host',
    'host:x',
    'host:99999',
    '*.example.com',
    '-host',
    'hö.st',
    'host\0'
  ]) {
    t.throws(() => credentialBindings(host), { message: /has to be one/ }, JSON.stringify(host))
  }
})
