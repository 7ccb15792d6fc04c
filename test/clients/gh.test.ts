import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { testWith } from '../installed.ts'
import { gh, MAX_SECRETS, prepare, terminal, WAYS } from './gh.ts'

// GitHub's own command line, release 2.23 in Debian 12: the user's secrets and a repository's, each command in plain
// HTTP over a unix socket and over TLS, with what it asks for.

const REPO = ['--app', 'codespaces', '-R', 'localhost/mona/web']
const OF_USER = '/api/v3/user/codespaces/secrets'
const OF_REPO = '/api/v3/repos/mona/web/codespaces/secrets'

/** The day as gh prints it; both, when midnight falls between. */
function today(before: Date): RegExp {
  const days = [before, new Date()].map((date) => date.toISOString().slice(0, 10))
  return new RegExp(days.join('|'))
}

for (const [way, programs] of WAYS) {
  const withTerminal = [...programs, terminal]

  await testWith(t, withTerminal, `${way}: gh sets, lists and deletes a user secret`, async (t) => {
    const { succeed, show, requests, userValue } = await prepare(t, way)
    const started = new Date()
    t.equal(await succeed(['secret', 'list', '--user']), '')
    t.same(requests(), [`GET ${OF_USER}?per_page=100`])
    t.equal(await succeed(['secret', 'set', 'hello', '--user', '--body', 'world']), '')
    t.same(requests(), [`GET ${OF_USER}/public-key`, `PUT ${OF_USER}/hello`])
    t.equal(await userValue('HELLO'), 'world')
    await succeed(['secret', 'set', 'HELLO', '--user', '--body', 'second'])
    t.equal(await userValue('HELLO'), 'second')
    await succeed(['secret', 'set', 'FROM_STDIN', '--user'], { input: 'line 1\nline 2\n' })
    t.match(await userValue('FROM_STDIN'), /^line 1\nline 2\n?$/)
    requests()
    t.equal(
      await show(['secret', 'set', 'HELLO', '--user', '-b', 'third', '--repos', 'mona/web']),
      '✓ Set Codespaces secret HELLO for your user\n'
    )
    t.same(requests(), [`GET ${OF_USER}/public-key`, 'POST /api/graphql', `PUT ${OF_USER}/HELLO`])

    const lines = (await succeed(['secret', 'list', '--user'])).trimEnd().split('\n')
    t.same(
      lines.map((line) => line.split('\t').toSpliced(1, 1)),
      [
        ['FROM_STDIN', 'SELECTED'],
        ['HELLO', 'SELECTED']
      ]
    )
    for (const line of lines) t.match(line.split('\t')[1], today(started))
    requests()
    const table = (await show(['secret', 'list', '--user'])).trimEnd().split('\n')
    t.match(table, [
      /^FROM_STDIN {2}Updated .* Visible to 0 selected repositories$/,
      /^HELLO {7}Updated .* Visible to 1 selected repository$/
    ])
    const [first, ...counted] = requests()
    t.equal(first, `GET ${OF_USER}?per_page=100`)
    t.same(counted.sort(), [`GET ${OF_USER}/FROM_STDIN/repositories`, `GET ${OF_USER}/HELLO/repositories`])

    t.equal(await succeed(['secret', 'delete', 'HELLO', '--user']), '')
    t.same(requests(), [`DELETE ${OF_USER}/HELLO`])
    t.equal(await userValue('HELLO'), undefined)
    t.match(await succeed(['secret', 'list', '--user']), /^FROM_STDIN\t[^\n]*\n$/)
  })

  await testWith(t, withTerminal, `${way}: gh sets, lists and deletes a repository secret`, async (t) => {
    const { ask, succeed, show, requests, repoValue, host } = await prepare(t, way)
    const repo = ['--app', 'codespaces', '-R', `${host}/mona/web`]
    t.equal(await succeed(['secret', 'set', 'DB_URL', ...repo, '-b', 'postgres://one']), '')
    t.same(requests(), [`GET ${OF_REPO}/public-key`, `PUT ${OF_REPO}/DB_URL`])
    t.equal(await repoValue('DB_URL'), 'postgres://one')
    t.match(await succeed(['secret', 'list', ...repo]), /^DB_URL\t\d{4}-\d\d-\d\d\n$/)
    t.same(requests(), [`GET ${OF_REPO}?per_page=100`])
    t.match(await show(['secret', 'list', ...repo]), /^DB_URL {2}Updated \d{4}-\d\d-\d\d\n$/)

    requests()
    const box = await succeed(['secret', 'set', 'DB_URL', ...repo, '-b', 'not kept', '--no-store'])
    t.same(requests(), [`GET ${OF_REPO}/public-key`])
    t.equal(Buffer.from(box.trim(), 'base64').length, 'not kept'.length + 48)
    t.equal(await repoValue('DB_URL'), 'postgres://one')

    t.equal(await succeed(['secret', 'delete', 'db_url', ...repo]), '')
    t.same(requests(), [`DELETE ${OF_REPO}/db_url`])
    t.equal(await succeed(['secret', 'list', ...repo]), '')
    t.same(await ask(['secret', 'delete', 'DB_URL', ...repo]), {
      code: 1,
      stdout: '',
      stderr: `failed to delete secret DB_URL: HTTP 404: Not Found (https://${host}${OF_REPO}/DB_URL)\n`
    })
  })

  await testWith(t, programs, `${way}: gh api reads and writes, and follows the pages`, async (t) => {
    const { server, ask, succeed, token, repositoryId, userValue } = await prepare(t, way)
    t.equal(await succeed(['api', 'user', '--jq', '.login']), 'mona\n')
    t.equal(await succeed(['api', 'repos/mona/web', '--jq', '.id']), `${repositoryId}\n`)

    const secrets = '/user/codespaces/secrets'
    const body = JSON.stringify(await server.seal(secrets, token, 'piped'))
    for (const name of ['A', 'B', 'C', 'D', 'E']) {
      const put = ['api', '-X', 'PUT', `${secrets}/${name}`, '--input', '-']
      t.equal(await succeed(put, { input: body }), '{}', 'chunked, with 201')
      t.equal(await succeed(put, { input: body }), '', '204')
    }
    t.equal(await userValue('C'), 'piped')
    t.equal(
      await succeed(['api', '--paginate', `${secrets}?per_page=2`, '--jq', '.secrets[].name']),
      'A\nB\nC\nD\nE\n'
    )
    const repositories = `${secrets}/A/repositories`
    t.equal(await succeed(['api', '-X', 'PUT', `${repositories}/${repositoryId}`]), '')
    t.equal(await succeed(['api', repositories, '--jq', '.repositories[].full_name']), 'mona/web\n')
    t.equal(await succeed(['api', '-X', 'DELETE', `${repositories}/${repositoryId}`]), '')
    t.equal(await succeed(['api', repositories, '--jq', '.total_count']), '0\n')

    const missing = await ask(['api', `${secrets}/NOTHING`])
    t.equal(missing.code, 1)
    t.equal(missing.stderr, 'gh: Not Found (HTTP 404)\n')
    t.equal(JSON.parse(missing.stdout).status, '404')
  })
}

await testWith(
  t,
  gh,
  'gh sets a file of a hundred variables in parallel, and the next is one too many',
  async (t) => {
    const { server, ask, succeed, folder, repoValue } = await prepare(t)
    const variables = Array.from(
      { length: MAX_SECRETS },
      (_, index) => [`VAR_${index}`, `value ${index} ✓`] as const
    )
    const file = path.join(folder, 'env')
    await writeFile(file, variables.map(([name, value]) => `${name}="${value}"\n`).join(''))
    t.equal(await succeed(['secret', 'set', '-f', file, ...REPO]), '')

    const listed = (await succeed(['secret', 'list', ...REPO])).trimEnd().split('\n')
    t.same(listed.map((line) => line.split('\t')[0]).sort(), variables.map(([name]) => name).sort())
    for (const [name, value] of variables) t.equal(await repoValue(name), value, name)
    const { total } = await server.db
      .selectFrom('audit_events')
      .select((eb) => eb.fn.countAll<number>().as('total'))
      .where('action', '=', 'secret.create')
      .executeTakeFirstOrThrow()
    t.equal(Number(total), MAX_SECRETS, 'each is recorded once')

    t.equal(await succeed(['secret', 'set', '-f', file, ...REPO]), '', 'all again')
    const full = await ask(['secret', 'set', 'ONE_MORE', ...REPO, '-b', 'x'])
    t.equal(full.code, 1)
    t.match(
      full.stderr,
      /failed to set secret "ONE_MORE": HTTP 422: .*100 secrets, the limit .*COFFER_MAX_SECRETS/
    )
    t.equal(await repoValue('ONE_MORE'), undefined)
  }
)

await testWith(t, gh, 'gh auth status reads the login and the scopes of the token', async (t) => {
  const { server, mona, ask } = await prepare(t)
  const { code, stderr } = await ask(['auth', 'status'])
  t.equal(code, 0)
  t.match(stderr, /Logged in to localhost as mona \(GH_ENTERPRISE_TOKEN\)/)
  t.match(stderr, /Token scopes: codespace, read:org, repo\n/)
  const narrow = await server.createToken(mona, { scopes: ['repo'] })
  t.same(await ask(['auth', 'status'], { as: narrow }), {
    code: 1,
    stdout: '',
    stderr:
      "localhost\n  X localhost: the token in GH_ENTERPRISE_TOKEN is missing required scope 'read:org'\n"
  })
  const wrong = await ask(['auth', 'status'], { as: 'wrong' })
  t.equal(wrong.code, 1)
  t.match(wrong.stderr, /authentication failed/)
})

await testWith(t, gh, 'gh shows what was wrong with a token, a scope or a name', async (t) => {
  const { server, mona, ask } = await prepare(t)
  const url = 'https://localhost/api/v3/user/codespaces/secrets?per_page=100'
  t.same(await ask(['secret', 'list', '--user'], { as: 'wrong' }), {
    code: 1,
    stdout: '',
    stderr: `failed to get secrets: HTTP 401: Bad credentials (${url})\nTry authenticating with:  gh auth login\n`
  })
  const narrow = await server.createToken(mona, { scopes: ['repo'] })
  t.same(await ask(['secret', 'list', '--user'], { as: narrow }), {
    code: 1,
    stdout: '',
    stderr:
      `failed to get secrets: HTTP 403: Must have admin rights to Repository. (${url})\n` +
      'This API operation needs the "codespace" scope. To request it, run:  gh auth refresh -h localhost -s codespace\n'
  })
  const unknown = 'HTTP 404: Not Found (https://localhost/api/v3/repos/mona/nothing/codespaces/secrets'
  const nothing = ['--app', 'codespaces', '-R', 'localhost/mona/nothing']
  t.match(await ask(['secret', 'list', ...nothing]), {
    code: 1,
    stderr: `failed to get secrets: ${unknown}?per_page=100)\n`
  })
  t.match(await ask(['secret', 'set', 'A', ...nothing, '-b', 'MARKER']), {
    code: 1,
    stderr: `failed to fetch public key: ${unknown}/public-key)\n`
  })
  const blind = await server.createToken(mona, { scopes: ['codespace'] })
  const hidden = await ask(['secret', 'list', ...REPO], { as: blind })
  t.equal(hidden.code, 1)
  t.match(hidden.stderr, /^failed to get secrets: HTTP 404: Not Found /)
  t.match(hidden.stderr, /This API operation needs the "repo" scope/)

  for (const [name, message] of [
    ['1A', /HTTP 422: Secret names can only contain alphanumeric characters/],
    ['GITHUB_X', /HTTP 422: Secret names must not start with GITHUB_\./]
  ] as const) {
    const refused = await ask(['secret', 'set', name, '--user', '-b', 'MARKER'])
    t.equal(refused.code, 1)
    t.match(refused.stderr, message)
    t.notMatch(refused.stderr, /MARKER/)
  }
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
})
