import { execFileSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import path from 'node:path'
import t, { type Test } from 'tap'
import { testWith } from '../installed.ts'
import { type GhOptions, git, overTls, startForGh, WAYS, type Way } from './gh.ts'

// How gh finds the server and the token: a login that it keeps, variables, and the remote of a git checkout.

const SECRETS = '/api/v3/user/codespaces/secrets?per_page=100'

/** Leads every tunnel to one port, whatever the name, as the name service of a network would. */
async function startProxy(t: Test, port: number): Promise<string> {
  const proxy = createServer()
  proxy.on('connect', (_request, socket, head) => {
    const upstream = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.write(head)
      upstream.pipe(socket).pipe(upstream)
    })
    upstream.on('error', () => socket.destroy())
    socket.on('error', () => upstream.destroy())
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    proxy.closeAllConnections()
    proxy.close()
  })
  return `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
}

/** gh where it has no token in a variable; over TLS it knows the server as coffer.test, at the port of HTTPS. */
async function prepare(t: Test, way: Way) {
  const name = way === 'tls' ? 'coffer.test' : 'localhost'
  const client = await startForGh(t, way, { publicUrl: `https://${name}` })
  const { server } = client
  const env = {
    GH_HOST: undefined,
    ...(way === 'tls' && { HTTPS_PROXY: await startProxy(t, Number(client.host.split(':')[1])) })
  }
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  return {
    ...client,
    name,
    env,
    token: await server.createToken(mona, { scopes: ['repo', 'read:org', 'codespace'] }),
    narrow: await server.createToken(mona, { scopes: ['repo', 'codespace'] }),
    ask: (args: readonly string[], options: GhOptions = {}) => client.run(args, { env, ...options }),
    succeed: (args: readonly string[], options: GhOptions = {}) => client.succeed(args, { env, ...options })
  }
}

for (const [way, programs] of WAYS) {
  await testWith(t, programs, `${way}: gh logs in, keeps the token, and logs out`, async (t) => {
    const { ask, succeed, requests, folder, name, token, narrow } = await prepare(t, way)
    const login = ['auth', 'login', '--hostname', name, '--with-token']
    t.same(await ask(login, { input: 'wrong\n' }), {
      code: 1,
      stdout: '',
      stderr:
        `error validating token: HTTP 401: Bad credentials (https://${name}/api/v3/)\n` +
        'Try authenticating with:  gh auth login\n'
    })
    t.same(await ask(login, { input: `${narrow}\n` }), {
      code: 1,
      stdout: '',
      stderr: "error validating token: missing required scope 'read:org'\n"
    })
    t.match(await ask(['secret', 'list', '--user', '-R', `${name}/mona/web`]), { code: 4 }, 'none is kept')
    requests()

    t.equal(await succeed(login, { input: `${token}\n` }), '')
    t.same(requests(), ['GET /api/v3/'])
    t.same(await ask(['auth', 'status']), {
      code: 0,
      stdout: '',
      stderr:
        `${name}\n` +
        `  ✓ Logged in to ${name} as mona (${path.join(folder, 'hosts.yml')})\n` +
        `  ✓ Git operations for ${name} configured to use https protocol.\n` +
        `  ✓ Token: coffer_pat_${'*'.repeat(token.length - 'coffer_pat_'.length)}\n` +
        '  ✓ Token scopes: codespace, read:org, repo\n'
    })
    t.same(requests(), ['GET /api/v3/', 'POST /api/graphql'])
    t.equal(await succeed(['auth', 'token', '--hostname', name]), `${token}\n`)
    const own = ['--app', 'codespaces', '-R', `${name}/mona/web`]
    t.equal(await succeed(['secret', 'set', 'TOKEN', ...own, '-b', 'x']), '')
    t.match(await succeed(['secret', 'list', ...own]), /^TOKEN\t/)
    t.match(await succeed(['api', '--hostname', name, 'user', '--jq', '.login']), /^mona\n$/)

    t.match(await ask(['auth', 'logout', '--hostname', name]), { code: 0 })
    requests()
    t.match(await ask(['secret', 'list', ...own]), { code: 4, stderr: /please run: {2}gh auth login/ })
    t.same(requests(), [], 'nothing is asked without a token')
  })

  await testWith(t, [...programs, git], `${way}: gh takes the repository from a checkout`, async (t) => {
    const { server, ask, succeed, requests, folder, name, env, token } = await prepare(t, way)
    const checkout = path.join(folder, 'checkout')
    await mkdir(checkout)
    const run = (...args: string[]) =>
      execFileSync(git.file, args, { cwd: checkout, env: { HOME: folder, PATH: process.env.PATH ?? '' } })
    run('init', '--quiet')
    run('remote', 'add', 'origin', `https://${name}/mona/web.git`)
    const here = { cwd: checkout, as: token, env: { ...env, GH_HOST: name } }
    const secrets = '/api/v3/repos/mona/web/codespaces/secrets'

    t.equal(await succeed(['secret', 'set', 'DB_URL', '-a', 'codespaces', '-b', 'x'], here), '')
    t.same(requests(), [`GET ${secrets}/public-key`, `PUT ${secrets}/DB_URL`])
    t.match(await succeed(['secret', 'list', '-a', 'codespaces'], here), /^DB_URL\t/)
    t.equal(await succeed(['secret', 'delete', 'DB_URL', '-a', 'codespaces'], here), '')
    t.same(await server.db.selectFrom('secrets').select('name').execute(), [])

    run('remote', 'set-url', 'origin', 'https://elsewhere.test/mona/web.git')
    requests()
    t.match(await ask(['secret', 'list'], here), {
      code: 1,
      stderr: /^none of the git remotes configured for this repository correspond to the GH_HOST/
    })
    t.match(await ask(['secret', 'list'], { ...here, cwd: folder }), {
      code: 1,
      stderr: /not a git repository/
    })
    t.same(requests(), [])
  })
}

await testWith(t, overTls, 'gh with its token in variables, right and wrong', async (t) => {
  const { host, run, requests, server } = await startForGh(t, 'tls')
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace', 'repo', 'read:org'] })
  const list = ['secret', 'list', '--user']
  const url = `https://${host}${SECRETS}`

  for (const variable of ['GH_ENTERPRISE_TOKEN', 'GITHUB_ENTERPRISE_TOKEN']) {
    t.same(await run(list, { env: { [variable]: token } }), { code: 0, stdout: '', stderr: '' }, variable)
  }
  for (const variable of ['GH_TOKEN', 'GITHUB_TOKEN', 'NO_TOKEN']) {
    requests()
    t.same(
      await run(list, { env: { [variable]: token } }),
      {
        code: 1,
        stdout: '',
        stderr:
          `failed to get secrets: HTTP 401: Requires authentication (${url})\n` +
          'Try authenticating with:  gh auth login\n'
      },
      `${variable} is not for a server of one's own`
    )
    t.same(requests(), [`GET ${SECRETS}`], 'gh asks all the same, without credentials')
  }
  t.same(await run(list, { as: 'wrong' }), {
    code: 1,
    stdout: '',
    stderr:
      `failed to get secrets: HTTP 401: Bad credentials (${url})\n` +
      'Try authenticating with:  gh auth login\n'
  })

  requests()
  t.same(await run(list, { as: token, env: { SSL_CERT_FILE: undefined } }), {
    code: 1,
    stdout: '',
    stderr: `failed to get secrets: Get "${url}": x509: certificate signed by unknown authority\n`
  })
  t.same(requests(), [], 'without trust, nothing is sent')

  t.match(await run(['auth', 'login', '--hostname', host, '--with-token'], { input: token }), {
    code: 1,
    stderr: /^error parsing hostname: invalid hostname\n/
  })
  t.same(await run(['auth', 'status'], { as: token }), {
    code: 0,
    stdout: '',
    stderr:
      `${host}\n` +
      `  ✓ Logged in to ${host} as mona (GH_ENTERPRISE_TOKEN)\n` +
      `  ✓ Git operations for ${host} configured to use https protocol.\n` +
      `  ✓ Token: coffer_pat_${'*'.repeat(token.length - 'coffer_pat_'.length)}\n` +
      '  ✓ Token scopes: codespace, read:org, repo\n'
  })
})
