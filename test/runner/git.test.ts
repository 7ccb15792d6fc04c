import { rm } from 'node:fs/promises'
import t from 'tap'
import { gitCredentialFiles } from '../../src/runner/credential-helper.ts'
import { type CloneOptions, cloneSources } from '../../src/runner/git.ts'
import type { GitSource } from '../../src/runner/interface.ts'
import { curlResolve, parseRemote } from '../../src/runner/remotes.ts'
import type {
  EnvironmentFolders,
  ProcessRequest,
  Sandbox,
  SandboxedProcess
} from '../../src/runner/sandbox.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeRepository, serveGit } from './git-server.ts'
import { deliverFiles, makeRunner, sh } from './sandbox-helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const { sandbox, makeFolders } = await makeRunner(t)
const server = await serveGit(t)
const commits = await makeRepository(server, 'demo')

function source(remoteUri: string, more: Partial<GitSource> = {}): GitSource {
  return {
    remoteUri,
    upstreamRemoteUri: '',
    targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD',
    cloneTarget: '',
    checkoutLocation: '',
    ...more
  }
}

function options(more: Partial<CloneOptions> = {}): CloneOptions {
  return {
    gitUsername: '',
    gitEmail: '',
    timeoutMs: 60_000,
    signal: new AbortController().signal,
    hasCredentials: false,
    ...more
  }
}

const demo = (more: Partial<GitSource> = {}) => source(`${server.url}/demo`, more)

async function clone(
  sources: readonly GitSource[],
  more: Partial<CloneOptions> = {},
  given?: EnvironmentFolders
) {
  const folders = given ?? (await makeFolders())
  const { git } = await cloneSources(sandbox, folders, sources, options(more))
  return { folders, git, look: async (line: string) => (await sh(sandbox, folders, line)).stdout.trim() }
}

t.test('the head of a remote', async (t) => {
  const { git, look } = await clone([demo()], { gitUsername: '-n Ada "A"', gitEmail: 'ada@example.com' })
  t.same(git, { cloneUrl: `${server.url}/demo`, branch: 'main', latestCommit: commits.main })
  t.equal(await look('cat demo/file'), 'second')
  t.equal(await look('git -C demo config user.name'), '-n Ada "A"')
  t.equal(await look('git -C demo config user.email'), 'ada@example.com')
  t.equal(await look('git -C demo status --porcelain --branch'), '## main...origin/main')
  t.equal(await look('ls -A'), 'demo', 'nothing else is left')
  t.equal(
    await look('git -C demo config --get-regexp "^(core.hooksPath|http|credential)"'),
    '',
    'nothing of ours'
  )
})

t.test('a branch, a tag, a commit, a new branch', async (t) => {
  const cases: [Partial<GitSource>, branch: string, commit: string][] = [
    [{ targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH', cloneTarget: 'other' }, 'other', commits.other],
    [{ targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH', cloneTarget: 'main' }, 'main', commits.main],
    [{ targetMode: 'CLONE_TARGET_MODE_REMOTE_TAG', cloneTarget: 'v1' }, '', commits.first],
    [{ targetMode: 'CLONE_TARGET_MODE_REMOTE_COMMIT', cloneTarget: commits.first }, '', commits.first],
    [
      { targetMode: 'CLONE_TARGET_MODE_REMOTE_COMMIT', cloneTarget: commits.other.slice(0, 12) },
      '',
      commits.other
    ],
    [{ targetMode: 'CLONE_TARGET_MODE_REMOTE_COMMIT', cloneTarget: commits.hidden }, '', commits.hidden],
    [{ targetMode: 'CLONE_TARGET_MODE_LOCAL_BRANCH', cloneTarget: 'mine/new' }, 'mine/new', commits.main],
    [{ targetMode: 'CLONE_TARGET_MODE_LOCAL_BRANCH', cloneTarget: 'main' }, 'main', commits.main],
    [{ targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD', cloneTarget: 'ignored' }, 'main', commits.main]
  ]
  for (const [more, branch, latestCommit] of cases) {
    const { git, look } = await clone([demo(more)])
    t.match(git, { branch, latestCommit }, JSON.stringify(more))
    t.equal(await look('git -C demo status --porcelain'), '')
    const tracked = more.targetMode === 'CLONE_TARGET_MODE_REMOTE_BRANCH' ? `origin/${branch}` : ''
    if (branch !== 'main')
      t.equal(await look('cd demo; git rev-parse --abbrev-ref @{upstream} 2>&-'), tracked)
  }
})

t.test('an empty repository', async (t) => {
  await server.git('', 'init', '--quiet', '--bare', '--initial-branch=trunk', 'empty')
  const { git } = await clone([source(`${server.url}/empty`)])
  t.match(git, { branch: 'trunk', latestCommit: '' })
  const branch = { targetMode: 'CLONE_TARGET_MODE_LOCAL_BRANCH', cloneTarget: 'new' } as const
  t.match((await clone([source(`${server.url}/empty`, branch)])).git, { branch: 'new', latestCommit: '' })
})

t.test('a remote by name: git goes where the name was found to lead', async (t) => {
  const { port } = new URL(server.url)
  const { git } = await clone([source(`http://localhost:${port}/demo`)])
  t.match(git, { branch: 'main', cloneUrl: `http://localhost:${port}/demo` })

  const name = parseRemote(`http://pinned.invalid:${port}/demo`)
  const pin = curlResolve({ ...name, addresses: ['127.0.0.1'] })
  const listed = await sh(
    sandbox,
    await makeFolders(),
    `git -c http.curloptResolve=${pin} ls-remote ${name.uri} HEAD`
  )
  t.match(listed, { code: 0, stdout: commits.main })
})

t.test('several sources, their places and an upstream', async (t) => {
  const { git, look } = await clone([
    demo({ checkoutLocation: 'services/first', upstreamRemoteUri: 'https://upstream.example/demo.git' }),
    demo({
      checkoutLocation: 'services/second/',
      targetMode: 'CLONE_TARGET_MODE_REMOTE_TAG',
      cloneTarget: 'v1'
    }),
    demo({ checkoutLocation: 'services/first/vendor' })
  ])
  t.match(git, { branch: 'main' }, 'of the first')
  t.equal(
    await look('cat services/first/file services/second/file services/first/vendor/file'),
    'secondfirstsecond'
  )
  t.equal(await look('git -C services/first remote get-url upstream'), 'https://upstream.example/demo.git')
  t.same((await clone([])).git, undefined)
})

t.test('the branch and the commit, however git keeps them', async (t) => {
  const { look, folders } = await clone([demo()])
  for (const [line, branch, latestCommit] of [
    ['git pack-refs --all', 'main', commits.main],
    ['git checkout -q -b größe', 'größe', commits.main],
    ['git checkout -q --detach', '', commits.main],
    ['git checkout -q --orphan new', 'new', ''],
    ['git checkout -q -f -B "$(printf %0200d 7)" main', '7'.padStart(200, '0'), commits.main],
    ['git checkout -q main; echo "ref: refs/heads/main" > .git/refs/heads/alias', 'main', commits.main],
    ['git symbolic-ref HEAD refs/heads/alias', 'main', commits.main],
    ['echo "ref: refs/heads/none" > .git/HEAD', 'none', ''],
    ['echo 0123 > .git/refs/heads/none', '', '']
  ] as const) {
    t.equal((await sh(sandbox, folders, `cd demo && ${line}`)).stderr, '', line)
    const { git } = await clone([demo()], {}, folders)
    t.same({ branch: git!.branch, latestCommit: git!.latestCommit }, { branch, latestCommit }, line)
  }
  t.equal(await look('cat demo/file'), 'second')
})

t.test('what is there stays, whoever made it', async (t) => {
  const first = await clone([demo()])
  await first.look('cd demo; git checkout -q -b mine; echo changed > file')
  const again = await clone([demo()], {}, first.folders)
  t.match(again.git, { branch: 'mine', latestCommit: commits.main })
  t.equal(await again.look('cat demo/file'), 'changed')
  const away = source('http://no-such-host.invalid/demo')
  t.match((await clone([away], {}, first.folders)).git, { branch: 'mine' }, 'also when the remote is away')

  const other = await makeFolders()
  await sh(sandbox, other, 'mkdir demo; echo precious > demo/file')
  await t.rejects(clone([demo()], {}, other), { name: 'CloneFailed', message: /something else in the place/ })
  t.match(await sh(sandbox, other, 'ls -A; cat demo/file'), { stdout: 'demo\nprecious\n' })
  await sh(sandbox, other, 'rm demo/file')
  t.match((await clone([demo()], {}, other)).git, { branch: 'main' }, 'an empty folder is no obstacle')
  const linked = await makeFolders()
  await sh(sandbox, linked, 'ln -s /home/coffer demo')
  await t.rejects(clone([demo()], {}, linked), { message: /something else in the place/ })
})

/** Shows each process to a test as it is started. */
function watching(victim: Sandbox, when: (process: SandboxedProcess) => void): Sandbox {
  return {
    isolated: victim.isolated,
    user: victim.user,
    inside: (folders) => victim.inside(folders),
    refuseLink: (path) => victim.refuseLink(path),
    keepsLink: (path) => victim.keepsLink(path),
    async start(folders: EnvironmentFolders, request: ProcessRequest) {
      const process = await victim.start(folders, request)
      when(process)
      return process
    }
  }
}

t.test('an end in the middle leaves nothing that is half, and the next time it is whole', async (t) => {
  const folders = await makeFolders()
  for (let delay = 0; delay <= 60; delay += 6) {
    const sources = [demo({ checkoutLocation: `at-${delay}` })]
    const victim = watching(sandbox, (process) => setTimeout(() => process.kill(), delay))
    await cloneSources(victim, folders, sources, options()).catch(() => {})
    const { stdout } = await sh(
      sandbox,
      folders,
      `test -e at-${delay} && git -C at-${delay} status --porcelain`
    )
    t.equal(stdout, '', 'whole or not there')
    await cloneSources(sandbox, folders, sources, options())
    const after = await sh(sandbox, folders, `cat at-${delay}/file; ls -A | grep coffer-clone`)
    t.equal(after.stdout, 'second')
  }
})

t.test('a remote that does not answer', async (t) => {
  const silent = await serveGit(t, { answer: () => true })
  const folders = await makeFolders()
  const sources = [source(`${silent.url}/demo`)]
  await t.rejects(cloneSources(sandbox, folders, sources, options({ timeoutMs: 1000 })), {
    name: 'CloneFailed',
    message: 'Cloning took longer than 1 seconds.'
  })
  const controller = new AbortController()
  const aborted = cloneSources(sandbox, folders, sources, options({ signal: controller.signal }))
  setTimeout(() => controller.abort(new Error('enough')), 50)
  await t.rejects(aborted, { message: 'enough' })
  await t.rejects(
    cloneSources(sandbox, folders, sources, options({ signal: AbortSignal.abort(new Error('no')) })),
    {
      message: 'no'
    }
  )
})

t.test('a private remote', async (t) => {
  const guarded = await serveGit(t, { credentials: 'ada:s3cret-marker' })
  await makeRepository(guarded, 'private')
  const sources = [source(`${guarded.url}/private`)]
  await t.rejects(clone(sources), {
    name: 'CloneFailed',
    message: `${guarded.host} asks for credentials. Store a git secret for ${guarded.host}: username:password, or a token.`
  })

  const folders = await makeFolders()
  const credential = (password: string) =>
    gitCredentialFiles([
      { host: guarded.host, username: Buffer.from('ada'), password: Buffer.from(password) }
    ])
  await deliverFiles(sandbox, folders, credential('wrong-marker'))
  await t.rejects(clone(sources, { hasCredentials: true }, folders), {
    message: `${guarded.host} did not accept the credentials. Check the git secret for ${guarded.host}.`
  })
  await rm(folders.secrets, { recursive: true })
  await deliverFiles(sandbox, folders, credential('s3cret-marker'))
  const { git, look } = await clone(sources, { hasCredentials: true }, folders)
  t.match(git, { branch: 'main' })
  t.equal(await look('grep -r marker /workspace /home/coffer'), '', 'the credential is nowhere')
  t.equal(await look('git -C private config --get-regexp credential'), '')
})

t.test('credentials are for their host alone, and redirections are not followed', async (t) => {
  const thief = await serveGit(t)
  const guarded = await serveGit(t, {
    credentials: 'ada:secret',
    answer: (request, response) => {
      if (!request.url!.startsWith('/moved')) return false
      response.writeHead(302, { location: `${thief.url}${request.url}` }).end()
      return true
    }
  })
  const folders = await makeFolders()
  const [username, password] = [Buffer.from('ada'), Buffer.from('secret')]
  await deliverFiles(sandbox, folders, gitCredentialFiles([{ host: guarded.host, username, password }]))
  await t.rejects(clone([source(`${guarded.url}/moved`)], { hasCredentials: true }, folders), {
    message: /sends git to another address/
  })
  t.same(thief.requests, [])
  const asking = await serveGit(t, { credentials: 'ada:secret' })
  await t.rejects(clone([source(`${asking.url}/a`)], { hasCredentials: true }, folders), {
    message: /asks for/
  })
  t.ok(asking.requests.every(({ user }) => user === undefined))
})

t.test('a remote that is refused starts nothing', async (t) => {
  const folders = await makeFolders()
  const nothing = watching(sandbox, () => t.fail('a process was started'))
  const refused: [GitSource, RegExp][] = [
    [source('file:///etc'), /cannot use file/],
    [source('ext::id'), /helper of git/],
    [source('http://169.254.169.254/a'), /link-local/],
    [demo({ upstreamRemoteUri: 'ext::id' }), /helper of git/],
    [source('https://user:hunter2@host/a'), /password/],
    ...['..', '../a', 'a/../../b', '/etc', '.', './a', 'a//b', '-a', 'a/.git/hooks', '.GIT', 'a\nb'].map(
      (checkoutLocation): [GitSource, RegExp] => [demo({ checkoutLocation }), /checkout location/]
    ),
    [demo({ targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH' }), /clone target/],
    [demo({ targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH', cloneTarget: '--orphan' }), /clone target/],
    [demo({ targetMode: 'CLONE_TARGET_MODE_REMOTE_COMMIT', cloneTarget: 'main' }), /clone target/]
  ]
  for (const [wrong, message] of refused) {
    await t.rejects(cloneSources(nothing, folders, [wrong], options()), { message }, JSON.stringify(wrong))
  }
})

t.test('what git says is told, in short', async (t) => {
  const branch = (cloneTarget: string) => demo({ targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH', cloneTarget })
  await t.rejects(clone([source(`${server.url}/missing`)]), { message: /could not clone from .* not found/ })
  await t.rejects(clone([branch('missing')]), { message: /the remote has no branch missing/ })
  await t.rejects(clone([branch('a..b')]), { message: /not valid/ })
  await t.rejects(clone([demo({ targetMode: 'CLONE_TARGET_MODE_REMOTE_TAG', cloneTarget: 'v2' })]), {
    message: /the remote has no tag v2/
  })
  const commit = '0123456789012345678901234567890123456789'
  await t.rejects(clone([demo({ targetMode: 'CLONE_TARGET_MODE_REMOTE_COMMIT', cloneTarget: commit })]), {
    message: /the remote has no commit 0123/
  })
  await t.rejects(clone([source('http://127.0.0.1:1/a')]), { message: /127\.0\.0\.1:1/ })
})

t.test('a hostile repository runs nothing while it is cloned', async (t) => {
  await makeRepository(server, 'hostile')
  const line = 'touch /workspace/ran'
  await server.git('hostile', 'config', 'uploadpack.packObjectsHook', line)
  await server.git('hostile', 'submodule', 'add', '--quiet', `${server.url}/demo`, 'sub')
  await server.git('hostile', 'commit', '--quiet', '--allow-empty', '--message', 'submodule')
  const folders = await makeFolders()
  await sh(
    sandbox,
    folders,
    `printf '[core]\\n\\tfsmonitor = ${line}\\n\\thooksPath = /workspace/hooks\\n' > ~/.gitconfig
    mkdir hooks; printf '#!/bin/sh\\n${line}\\n' > hooks/post-checkout; chmod +x hooks/post-checkout`
  )
  await clone([source(`${server.url}/hostile`)], {}, folders)
  t.match(await sh(sandbox, folders, 'ls -A; cat hostile/file'), { stdout: 'hooks\nhostile\nsecond' })
})
