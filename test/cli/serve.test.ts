import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import path from 'node:path'
import t, { type Test } from 'tap'
import { createTestDatabase } from '../helper.ts'
import {
  BIN,
  coffer,
  endPostgres,
  makeFolder,
  makeMasterKey,
  postgresOf,
  readLog,
  run,
  startServer,
  statusOf,
  until
} from './helper.ts'

const TOKEN = /coffer_pat_[0-9A-Za-z]{49}/

function has(program: string): boolean {
  try {
    execFileSync('/bin/sh', ['-c', `command -v ${program}`])
    return true
  } catch {
    return false
  }
}

/** A configuration with a database of the test's server, which starts faster than an embedded one. */
async function onExternal(t: Test) {
  const { url, db } = await createTestDatabase(t)
  const folder = await makeFolder(t)
  return {
    folder,
    db,
    variables: {
      DATABASE_URL: url,
      COFFER_MASTER_KEY_FILE: await makeMasterKey(folder),
      COFFER_DATA_DIR: path.join(folder, 'data'),
      COFFER_PORT: '0'
    }
  }
}

t.test('a cold start in an awkward folder; what it prints works; a killed one is taken over', async (t) => {
  const folder = await makeFolder(t)
  const dataDir = path.join(folder, 'a folder with spaces', "and 'quotes'", 'long'.repeat(25))
  t.ok(Buffer.byteLength(dataDir) > 100)
  endPostgres(t, dataDir)
  const variables = { COFFER_DATA_DIR: dataDir }
  const server = await startServer(t, folder, variables)

  const file = path.join(dataDir, 'admin-token')
  const token = (await readFile(file, 'utf8')).trim()
  t.match(token, TOKEN)
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.notMatch(server.output(), TOKEN, 'without a terminal the token is in the file alone')
  t.match(server.output(), `the token is in ${file}`)
  t.match(server.output(), /A lost token is replaced with: npx coffer admin token create .* --offline/)
  t.equal((await stat(path.join(dataDir, 'keys', 'master.key'))).mode & 0o777, 0o600)
  t.ok(Buffer.byteLength(server.socket!) <= 100)
  t.equal((await stat(server.socket!)).mode & 0o777, 0o600)

  const lines = server
    .output()
    .split('\n')
    .map((line) => line.trim())
  if (has('curl')) {
    const curl = await run(['/bin/sh', '-c', lines.find((line) => line.startsWith('curl '))!], folder)
    t.equal(curl.code, 0)
    t.match(JSON.parse(curl.stdout), { login: 'admin' })
    const toOna = lines.find((line) => line.startsWith('curl -X POST '))!
    t.ok(toOna.endsWith(`${server.url}/api/gitpod.v1.IdentityService/GetAuthenticatedIdentity`))
    const ona = await run(['/bin/sh', '-c', toOna], folder)
    t.equal(ona.code, 0)
    t.type(JSON.parse(ona.stdout), 'object')
  }
  if (has('gh')) {
    const gh = await run(['/bin/sh', '-c', lines.find((line) => line.startsWith('GH_CONFIG_DIR='))!], folder)
    t.equal(gh.code, 0, gh.stderr)
    t.equal(await statusOf(server.url, token, '/user/codespaces/secrets/HELLO'), 200)
  }

  const second = await coffer(folder, ['serve'], { ...variables, COFFER_PORT: '0' })
  t.equal(second.code, 2)
  t.match(
    second.stderr,
    new RegExp(`^coffer: Another Coffer \\(process ${server.pid}\\) uses the database in `)
  )
  t.equal(await statusOf(server.url, token), 200, 'the first goes on')

  process.kill(server.pid, 'SIGUSR1')
  await until(() => server.log().find(({ msg }) => msg === 'SIGUSR1 is ignored'))
  t.notMatch(server.output(), /Debugger listening/)

  const postgres = postgresOf(dataDir)
  t.ok(postgres)
  await server.kill()
  t.equal(postgresOf(dataDir), postgres)
  const heir = await startServer(t, folder, variables)
  t.equal(postgresOf(dataDir), postgres, 'the same PostgreSQL')
  t.notOk(heir.log().some(({ msg }) => String(msg).startsWith('starting')))
  t.equal(await statusOf(heir.url, token), 200)
  t.notMatch(heir.output(), /oken/, 'no word of a token at a later start')
  t.equal(heir.socket, server.socket)

  const other = path.join(folder, 'other')
  endPostgres(t, other)
  const neighbour = await startServer(t, folder, { COFFER_DATA_DIR: other })
  t.not(neighbour.url, heir.url)
  t.equal(await statusOf(neighbour.url, token), 401, 'a second instance is one of its own')
  t.equal(await neighbour.stop(), 0)
  t.equal(await statusOf(heir.url, token), 200)

  t.equal(await heir.stop(), 0)
  t.equal(postgresOf(dataDir), undefined)
  t.equal(postgresOf(other), undefined)
  t.notOk(existsSync(heir.socket!))
})

t.test('with a terminal the token is shown once', { skip: !has('script') && 'no script' }, async (t) => {
  const { folder, variables } = await onExternal(t)
  const pidFile = path.join(folder, 'pid')
  const command = `echo $$ > '${pidFile}'; exec '${process.execPath}' '${BIN}' serve`
  const terminal = spawn('script', ['-qec', command, '/dev/null'], {
    cwd: folder,
    env: { PATH: process.env.PATH, HOME: folder, SHELL: '/bin/sh', ...variables },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => terminal.kill('SIGKILL'))
  let output = ''
  terminal.stdout.on('data', (piece) => (output += piece))
  const closed = once(terminal, 'close')
  const shown = await until(() =>
    /Try it:[\s\S]*curl .*\r\n/.test(output) ? TOKEN.exec(output)?.[0] : undefined
  )
  t.match(output, /This token is shown once/)
  t.notOk(existsSync(path.join(folder, 'data', 'admin-token')))
  const { url } = readLog(output.replaceAll('\r', '')).find(({ msg }) => msg === 'serving')!
  t.equal(await statusOf(url as string, shown), 200)
  process.kill(Number(await readFile(pidFile, 'utf8')), 'SIGTERM')
  t.equal((await closed)[0], 0)

  const later = await startServer(t, folder, variables)
  t.notMatch(later.output(), TOKEN)
  t.notOk(existsSync(path.join(folder, 'data', 'admin-token')))
  t.equal(await statusOf(later.url, shown), 200)
  t.equal(await later.stop(), 0)
})

t.test('the operator decides the first administrator; a pooler needs no prepared statements', async (t) => {
  const { folder, db, variables } = await onExternal(t)
  const given = `operator_${randomBytes(20).toString('hex')}`
  const tokenFile = path.join(folder, 'token')
  await writeFile(tokenFile, `${given}\n`)
  const first = await startServer(t, folder, {
    ...variables,
    COFFER_ADMIN_LOGIN: 'boss',
    COFFER_ORGANIZATION: 'builders',
    COFFER_ADMIN_TOKEN_FILE: tokenFile,
    COFFER_DATABASE_PREPARE: 'off',
    COFFER_SOCKET: 'off'
  })
  t.equal(await statusOf(first.url, given, '/users/boss'), 200)
  const created = await fetch(`${first.url}/admin/users`, {
    method: 'POST',
    headers: { authorization: `Bearer ${given}` },
    body: JSON.stringify({ login: 'mona' })
  })
  t.equal(created.status, 201, 'with every scope')
  t.notMatch(first.output(), given)
  t.match(first.output(), 'The administrator is boss, with the token from COFFER_ADMIN_TOKEN')
  t.match(first.output(), 'It owns the organization builders.')
  t.equal(first.socket, undefined)
  t.notMatch(first.output(), /GH_CONFIG_DIR/, 'without a socket gh is not offered')
  t.equal(await first.stop(), 0)

  const another = `another_${randomBytes(20).toString('hex')}`
  const later = await startServer(t, folder, {
    ...variables,
    COFFER_ADMIN_LOGIN: 'other',
    COFFER_ORGANIZATION: 'other',
    COFFER_ADMIN_TOKEN: another
  })
  t.equal(
    later.log().find(({ level }) => level === 'warn')?.msg,
    'COFFER_ADMIN_TOKEN is ignored: there is an administrator already'
  )
  t.equal(await statusOf(later.url, another), 401)
  t.equal(await statusOf(later.url, given), 200)
  t.notMatch(later.output(), another)
  t.strictSame(await db.selectFrom('accounts').select('login').orderBy('id').execute(), [
    { login: 'boss' },
    { login: 'builders' },
    { login: 'mona' }
  ])
  t.equal(await later.stop(), 0)
})

t.test('a configuration that is wrong is refused with every variable that is', async (t) => {
  const folder = await makeFolder(t)
  const secret = 'too short a secret'
  const { code, stderr, stdout } = await coffer(folder, ['serve'], {
    COFFER_HOST: '0.0.0.0',
    COFFER_PORT: '99999',
    COFFER_PUBLIC_URL: 'coffer.example.com',
    COFFER_TLS_CERT_FILE: '/none',
    COFFER_TRUSTED_PROXIES: 'everybody',
    DATABASE_URL: `mysql://coffer:${secret}@localhost/coffer`,
    COFFER_DATABASE_POOL: 'many',
    COFFER_DATABASE_PREPARE: 'maybe',
    COFFER_LOG_LEVEL: 'loud',
    COFFER_ADMIN_TOKEN: secret,
    COFFER_MAX_SECRETS: '0',
    COFFER_TOKEN_DEFAULT_DAYS: '400'
  })
  t.equal(code, 2)
  t.equal(stdout, '')
  for (const name of [
    'COFFER_HOST',
    'COFFER_PORT',
    'COFFER_PUBLIC_URL',
    'COFFER_TLS_CERT_FILE',
    'COFFER_TLS_KEY_FILE',
    'COFFER_TRUSTED_PROXIES',
    'DATABASE_URL',
    'COFFER_DATABASE_POOL',
    'COFFER_DATABASE_PREPARE',
    'COFFER_LOG_LEVEL',
    'COFFER_ADMIN_TOKEN',
    'COFFER_MAX_SECRETS',
    'COFFER_TOKEN_DEFAULT_DAYS',
    'COFFER_MASTER_KEY_FILE'
  ]) {
    t.match(stderr, name)
  }
  t.notMatch(stderr, secret)
  t.notOk(existsSync(path.join(folder, 'data')), 'nothing was made')
})

t.test('others reach it with TLS, or plainly only when that is said', async (t) => {
  const { folder, variables } = await onExternal(t)
  // Loopback, but written so that it is not recognised as such.
  const open = { ...variables, COFFER_HOST: '127.1' }
  const refused = await coffer(folder, ['serve'], open)
  t.equal(refused.code, 2)
  t.match(refused.stderr, /COFFER_HOST is 127\.1.*no TLS[\s\S]*COFFER_ALLOW_PLAINTEXT=1/)
  const allowed = await startServer(t, folder, { ...open, COFFER_ALLOW_PLAINTEXT: '1' })
  t.equal(await allowed.stop(), 0)

  if (!has('openssl')) return
  const cert = path.join(folder, 'cert.pem')
  const key = path.join(folder, 'key.pem')
  execFileSync(
    'openssl',
    [
      ...[
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2'
      ],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert]
    ],
    { stdio: 'ignore' }
  )
  const secured = await startServer(t, folder, {
    ...open,
    COFFER_TLS_CERT_FILE: cert,
    COFFER_TLS_KEY_FILE: key
  })
  const { port, protocol } = new URL(secured.url)
  t.equal(protocol, 'https:')
  const answer = request({ host: '127.0.0.1', port, path: '/healthz', ca: await readFile(cert) }).end()
  const [response] = await once(answer, 'response')
  response.resume()
  t.equal(response.statusCode, 200)
  t.equal(response.socket.authorized, true)
  await t.rejects(fetch(`http://127.0.0.1:${port}/healthz`), 'plain HTTP is not answered')
  t.equal(await secured.stop(), 0)
})

t.test('what it cannot start with is told, with the remedy', async (t) => {
  const { folder, variables } = await onExternal(t)
  const keyless = { ...variables, COFFER_MASTER_KEY_FILE: undefined }
  const noKey = await coffer(folder, ['serve'], keyless)
  t.match(noKey, { code: 2, stderr: /COFFER_MASTER_KEY_FILE must be set when DATABASE_URL is/ })

  const server = await startServer(t, folder, variables)
  const { port } = new URL(server.url)
  const taken = await coffer(folder, ['serve'], { ...variables, COFFER_PORT: port, COFFER_SOCKET: 'off' })
  t.match(taken, { code: 2, stderr: `Port ${port} on 127.0.0.1 is in use. Set COFFER_PORT` })
  const socket = await coffer(folder, ['serve'], variables)
  t.match(socket, { code: 2, stderr: /Another server answers on the socket .* Set COFFER_SOCKET/ })
  t.equal(await server.stop(), 0)

  // Another key, written over the one that the generation in the database needs.
  await makeMasterKey(folder)
  const wrong = await coffer(folder, ['serve'], variables)
  t.match(wrong, { code: 2, stderr: /master key.*[0-9a-f]{16}/i })

  const absent = new URL(variables.DATABASE_URL)
  absent.pathname = '/coffer_absent'
  const nowhere = await coffer(folder, ['serve'], { ...variables, DATABASE_URL: absent.href })
  t.match(nowhere, { code: 1, stderr: /^coffer: the database cannot be reached .*Check DATABASE_URL\.\n$/ })
})
