import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { APP_NAMES, type App, type CollectionKind } from '../../src/apps.ts'
import { Patience } from '../../src/cli/patience.ts'
import { addCollectionOptions, readCollection } from '../../src/cli/secret/collection.ts'
import { parseEnvFile } from '../../src/cli/secret/env-file.ts'
import { importAll } from '../../src/cli/secret/import-all.ts'
import { deleteSecret, fetchPublicKey, listSecrets } from '../../src/cli/secret/secrets-api.ts'
import { addSelectionOptions, readSelection } from '../../src/cli/secret/selection.ts'
import { setSecret } from '../../src/cli/secret/set.ts'
import { secretCommand } from '../../src/cli/secret.ts'
import { startTestServer } from '../helper.ts'
import { coffer, makeFolder } from './helper.ts'
import { clientOf } from './secret/helper.ts'

/** A Coffer that listens, mona with a repository and an organization, and the command in her name. */
async function prepare(t: Test) {
  const server = await startTestServer(t, { publicUrl: null, logLevel: 'silent' })
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  const acme = await server.createOrganization('acme', mona)
  for (const name of ['one', 'two']) await server.createRepository(acme, name)
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const url = await server.listen()
  const folder = await makeFolder(t)
  const variables = { COFFER_URL: url, COFFER_TOKEN: token }
  return {
    server,
    mona,
    acme,
    token,
    url,
    folder,
    variables,
    ask: (line: string, input?: string | Uint8Array) =>
      coffer(folder, ['secret', ...line.split(' ')], variables, input),
    uidOf: async (table: 'repositories' | 'deployment_environments', name: string) =>
      (await server.db.selectFrom(table).select('uid').where('name', '=', name).executeTakeFirstOrThrow())
        .uid,
    stored: async (kind: CollectionKind, uid: string, name: string, app?: App) =>
      (await server.reveal(kind, uid, name, app))?.toString()
  }
}

/** What a command line means, without a process of its own. */
function parse(line: string) {
  const command = addSelectionOptions(addCollectionOptions(new Command()))
  const options = command.parse(line.split(' '), { from: 'user' }).opts()
  const collection = readCollection(options)
  return { collection, selection: readSelection(options as never, collection) }
}

t.test('a secret of a repository is set, listed, changed and deleted', async (t) => {
  const { ask, stored, uidOf, folder, server } = await prepare(t)
  const web = await uidOf('repositories', 'web')
  t.same(await ask('list --repo mona/web'), {
    code: 0,
    stdout: '',
    stderr: 'There are no codespaces secrets of mona/web.\n'
  })
  t.same(await ask('set db_url --repo mona/web', 'postgres://one'), {
    code: 0,
    stdout: 'Created DB_URL in the codespaces secrets of mona/web.\n',
    stderr: ''
  })
  t.equal(await stored('repository', web, 'DB_URL'), 'postgres://one')
  const piped = await ask('set DB_URL -R mona/web', 'postgres://two\n')
  t.equal(piped.stdout, 'Updated DB_URL in the codespaces secrets of mona/web.\n')
  t.match(piped.stderr, /^The value ends in a line break, which belongs to it; --strip-newline/)
  t.equal(await stored('repository', web, 'DB_URL'), 'postgres://two\n')
  t.match(await ask('set DB_URL --repo mona/web --strip-newline', 'three\n'), { code: 0, stderr: '' })
  t.equal(await stored('repository', web, 'DB_URL'), 'three')

  const bytes = Uint8Array.from({ length: 40_000 }, (_, index) => index % 256)
  await writeFile(path.join(folder, 'value'), bytes)
  t.match(await ask('set BYTES --repo mona/web --value-file value'), { code: 0, stderr: '' })
  t.same(await server.reveal('repository', web, 'BYTES'), Buffer.from(bytes))

  const table = await ask('list --repo mona/web')
  t.match(table.stdout, /^NAME {4}UPDATED\nBYTES {3}\d{4}-\d\d-\d\dT[\d:]+Z\nDB_URL {2}\d{4}.*\n$/)
  const [first] = JSON.parse((await ask('list --repo mona/web --json')).stdout)
  t.same(Object.keys(first), ['name', 'created_at', 'updated_at'])

  t.same(await ask('delete bytes --repo mona/web'), {
    code: 0,
    stdout: 'Deleted BYTES from the codespaces secrets of mona/web.\n',
    stderr: ''
  })
  t.equal(await stored('repository', web, 'BYTES'), undefined)
  t.match(await ask('delete BYTES --repo mona/web'), {
    code: 2,
    stdout: '',
    stderr: /^coffer: Not Found \(404, .*\n {2}There is no secret BYTES/
  })
})

t.test('every collection of the server, and who receives a secret', async (t) => {
  const { stored, uidOf, server, token, url, mona, acme } = await prepare(t)
  const client = { ...clientOf(url), token }
  const set = async (line: string, value = 'value', name = 'S', to = client) => {
    const { collection, selection } = parse(line)
    return await setSecret(to, collection, { name, selection, read: async () => Buffer.from(value) })
  }

  await t.test('each has its own', async (t) => {
    await server.request('PUT', '/repos/mona/web/environments/eu%2Fwest', { token, body: {} })
    const web = await uidOf('repositories', 'web')
    const environment = await uidOf('deployment_environments', 'eu/west')
    const collections: [string, CollectionKind, string, App][] = [
      ['--user', 'user', mona.uid, 'codespaces'],
      ['--repo mona/web --env eu/west', 'deployment-environment', environment, 'actions']
    ]
    for (const app of APP_NAMES) {
      collections.push([`--repo mona/web --app ${app}`, 'repository', web, app])
      collections.push([`--org acme --app ${app}`, 'organization', acme.uid, app])
    }
    const prefixed = { ...client, url: `${url}/api/v3` }
    for (const [line, kind, uid, app] of collections) {
      t.equal(await set(line, line, 'WHERE'), 'created')
      t.equal(await set(line, line, 'WHERE', prefixed), 'updated', 'with the prefix')
      t.equal(await stored(kind, uid, 'WHERE', app), line)
      const listed = await listSecrets(client, parse(line).collection)
      t.same(
        listed.map(({ name }) => name),
        ['WHERE']
      )
    }
    await deleteSecret(client, parse('--user').collection, 'WHERE')
    const left = await server.db.selectFrom('secrets').select('id').execute()
    t.equal(left.length, collections.length - 1, 'no other was deleted')
  })

  const receivers = async (place: string) => {
    const base = `/${place}/codespaces/secrets/S`
    const { visibility } = (await server.request('GET', base, { token })).json()
    const { repositories = [] } = (await server.request('GET', `${base}/repositories`, { token })).json()
    return [visibility, ...repositories.map((repository: { full_name: string }) => repository.full_name)]
  }

  await t.test('of an organization', async (t) => {
    const steps: [string, string[]][] = [
      ['--org acme', ['private']],
      ['--org acme --visibility all', ['all']],
      ['--org acme', ['all']],
      ['--org acme --repos one,acme/two', ['selected', 'acme/one', 'acme/two']],
      ['--org ACME', ['selected', 'acme/one', 'acme/two']],
      ['--org acme --no-repos-selected', ['selected']],
      ['--org acme --visibility private', ['private']]
    ]
    for (const [line, expected] of steps) {
      await set(line)
      t.same(await receivers('orgs/acme'), expected, line)
    }
  })

  await t.test('of a user', async (t) => {
    const steps: [string, string[]][] = [
      ['--user', ['selected']],
      ['--user --repos mona/web,acme/one', ['selected', 'mona/web', 'acme/one']],
      ['--user', ['selected', 'mona/web', 'acme/one']],
      ['--user --visibility all', ['all']]
    ]
    for (const [line, expected] of steps) {
      await set(line)
      t.same(await receivers('user'), expected, line)
    }
    await t.rejects(
      set('--user --repos mona/none'),
      /There is no repository mona\/none that this token can see/
    )
    t.same(await receivers('user'), ['all'])
  })

  await t.test('more than a page is listed', async (t) => {
    const { collection, selection } = parse('--org acme --app actions')
    const names = Array.from({ length: 104 }, (_, index) => `N${String(index).padStart(3, '0')}`)
    for (const name of names) {
      await setSecret(client, collection, { name, selection, read: async () => Buffer.from('x') })
    }
    const listed = await listSecrets(client, collection)
    t.same(
      listed.map(({ name }) => name),
      [...names, 'WHERE']
    )
  })
})

t.test('a file becomes secrets, after a look at what it would do', async (t) => {
  const { ask, stored, uidOf, folder, server, mona } = await prepare(t)
  const web = await uidOf('repositories', 'web')
  const pem = '-----BEGIN-----\nMARKER\n-----END-----'
  const names = Array.from({ length: 60 }, (_, index) => `VAR_${index}`)
  const lines = names.map((name) => `${name}=MARKER ${name}\n`)
  await writeFile(path.join(folder, '.env'), `export PEM="${pem}"\n${lines.join('')}`)
  await ask('set VAR_7 --repo mona/web', 'old')

  const preview = await ask('import .env --repo mona/web --dry-run')
  t.equal(preview.code, 0)
  t.match(preview.stdout, /^LINE {2}NAME +BYTES +ACTION\n1 +PEM +36 +create\n4 +VAR_0 +12 +create\n/)
  t.match(preview.stdout, /\n11 +VAR_7 +12 +update\n/)
  t.equal(
    preview.stderr,
    '60 to create and 1 to update in the codespaces secrets of mona/web; nothing was sent.\n'
  )
  t.notMatch(preview.stdout + preview.stderr, /MARKER/)
  t.equal(await stored('repository', web, 'VAR_7'), 'old')
  t.equal(await stored('repository', web, 'PEM'), undefined)

  const done = await ask('import .env --repo mona/web')
  t.equal(done.code, 0)
  t.equal(
    done.stdout,
    '60 created and 1 updated in the codespaces secrets of mona/web; 0 failed, 0 not sent.\n'
  )
  t.same(
    done.stderr.trimEnd().split('\n').sort(),
    ['PEM', ...names].map((name) => `${name === 'VAR_7' ? 'updated' : 'created'} ${name}`).sort()
  )
  t.equal(await stored('repository', web, 'PEM'), pem)
  for (const name of names) t.equal(await stored('repository', web, name), `MARKER ${name}`)

  const piped = await ask('import - --user --json --skip TWO', 'ONE=1\nTWO=2\n')
  t.equal(piped.code, 0)
  t.same(JSON.parse(piped.stdout), { created: ['ONE'], updated: [], failed: [], not_sent: [] })
  t.equal(await stored('user', mona.uid, 'ONE'), '1')

  const large = await ask('import - --user', `BIG=${'MARKER'.repeat(9000)}\nSMALL=1\n`)
  t.equal(large.code, 1)
  t.match(large.stdout, /^1 created and 0 updated .*; 1 failed, 0 not sent\.\n$/)
  t.match(large.stderr, /\nFAILED BIG: .*COFFER_MAX_VALUE_BYTES.* \(422, PUT /)
  t.match(large.stderr, /\ncoffer: 1 of the secrets failed/)
  t.notMatch(large.stderr, /MARKER/)
  const users = await server.db.selectFrom('secrets').select('name').where('kind', '=', 'user').execute()
  t.same(users.map(({ name }) => name).sort(), ['ONE', 'SMALL'])
})

t.test("a rate limit of the server's is waited for, and then all is there", async (t) => {
  const rateLimits = { core: 50, codespaces: 3, graphql: 50, address: 50, store: 'database' as const }
  const server = await startTestServer(t, { logLevel: 'silent', rateLimits })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  let now = Date.now()
  const waits: number[] = []
  const patience = new Patience({
    maxWaitSeconds: 100_000,
    say: () => {},
    now: () => now,
    wait: async (ms) => {
      waits.push(ms)
      now += ms
      // The server repeats a refusal from memory for a second.
      await sleep(1100)
      await server.db
        .updateTable('rate_limits')
        .set({ resets_at: sql`now() - interval '1 second'` })
        .execute()
    }
  })
  const client = { ...clientOf(await server.listen()), token, patience }
  const { collection } = parse('--user')
  const outcome = await importAll(client, collection, await fetchPublicKey(client, collection), {
    ...parseEnvFile(Buffer.from('A=1\nB=2\nC=3\nD=4\n')),
    selectionOf: async () => ({}),
    parallel: 1,
    progress: { step() {}, say() {}, clear() {} },
    signal: new AbortController().signal
  })
  t.same(outcome, { created: ['A', 'B', 'C', 'D'], updated: [], failed: [], notSent: [], stopped: false })
  t.equal(waits.length, 1)
  t.ok(waits[0]! > 60_000, 'until the reset that the server names')
})

t.test('a file with something wrong in it is refused before anything is sent', async (t) => {
  const { ask, folder, server } = await prepare(t)
  await writeFile(path.join(folder, 'bad.env'), 'GOOD=1\nGITHUB_TOKEN=MARKER\nA=1\nnothing MARKER\na=2\n')
  const refused = await ask('import bad.env --user')
  t.match(refused, { code: 2, stdout: '' })
  t.equal(
    refused.stderr,
    'line 2, GITHUB_TOKEN: Secret names must not start with GITHUB_.\n' +
      'line 3, A: it comes 2 times, in lines 3, 5; names have no case\n' +
      'line 4: it is no assignment of the form NAME=VALUE\n' +
      'coffer: bad.env is refused, and nothing was sent. --skip leaves a name out.\n'
  )
  const preview = await ask('import bad.env --user --dry-run --json')
  t.equal(preview.code, 2)
  t.same(
    JSON.parse(preview.stdout).map(({ line, name, action }: Record<string, unknown>) => [line, name, action]),
    [
      [1, 'GOOD', 'create'],
      [2, 'GITHUB_TOKEN', 'refuse'],
      [3, 'A', 'refuse'],
      [4, null, 'refuse']
    ]
  )
  t.notMatch(preview.stdout, /MARKER/)
  t.match(await ask('import - --user', '# nothing\n'), { code: 2, stderr: /holds no variables/ })
  t.match(await ask('import - --user --skip B', 'A=1'), {
    code: 2,
    stderr: /--skip names what - does not have: B/
  })
  t.match(
    await ask('set X --user'),
    { code: 2, stderr: /The value is empty.*--allow-empty/ },
    'from /dev/null'
  )
  t.same(await server.db.selectFrom('secrets').select('id').execute(), [])
})

t.test('what a token may not is told with what it lacks; a .env decides nothing', async (t) => {
  const { ask, server, mona, variables, folder } = await prepare(t)
  const as = (token: string, line: string, input?: string) =>
    coffer(folder, ['secret', ...line.split(' ')], { ...variables, COFFER_TOKEN: token }, input)
  const weak = await server.createToken(mona, { scopes: ['repo'] })
  const denied = await as(weak, 'set X --user', 'MARKER')
  t.match(denied, { code: 2, stdout: '' })
  t.match(denied.stderr, /\(403, GET .*\n {2}The token has the scopes repo; this needs codespace/)
  t.notMatch(denied.stderr, /MARKER/)

  const fine = await server.createToken(mona, { permissions: { metadata: 'read' }, allRepositories: true })
  const lacking = await as(fine, 'list --user')
  t.match(lacking.stderr, /The token needs the permission codespaces_user_secrets=read\./)
  const wrong = await as('wrong', 'list --user')
  t.match(wrong, { code: 2, stderr: /^coffer: Bad credentials \(401, .*\n {2}Set COFFER_TOKEN/ })
  const hidden = await ask('set X --repo root/secret', 'MARKER')
  t.match(hidden, { code: 2, stderr: /There is no repository root\/secret that this token can see/ })

  await writeFile(
    path.join(folder, '.env'),
    `COFFER_TOKEN=${variables.COFFER_TOKEN}\nCOFFER_URL=http://evil.invalid\n`
  )
  t.match(await ask('list --user'), { code: 0 })
  const without = await coffer(folder, ['secret', 'list', '--user'], { COFFER_URL: variables.COFFER_URL })
  t.match(without, {
    code: 2,
    stderr: /must hold a token for the server at COFFER_URL; a \.env is not read here/
  })
})

t.test(
  'what is typed wrong is refused before anything is asked, and a value is never an argument',
  async (t) => {
    const attempts: [string, RegExp][] = [
      ['set X --user --body MARKER', /not taken as an argument/],
      ['set X --user -b MARKER', /not taken as an argument/],
      ['set X MARKER --user', /too many arguments/],
      ['set MARKER! --user', /Secret names can only contain/],
      ['set GITHUB_X --user', /must not start with GITHUB_/],
      ['delete MARKER! --user', /Secret names can only contain/],
      ['set X', /Say whose secrets/],
      ['list --user --org acme', /Say whose secrets/],
      ['set X --repo mona', /OWNER\/NAME/],
      ['set X --repo mona/web --env ..', /no name of a deployment environment/],
      ['set X --repo mona/web --visibility all', /go with --org or --user/],
      ['list --user --app issues', /Allowed choices are codespaces, actions, dependabot, agents/],
      ['list --user --max-wait soon', /whole number of seconds/],
      ['import x.env --user --parallel 0', /whole number from 1 to 32/],
      ['import /none.env --user', /\/none\.env cannot be read \(ENOENT\)/]
    ]
    for (const [line, message] of attempts) {
      let written = ''
      const command = secretCommand()
      for (const each of command.commands) {
        each.exitOverride((error) => {
          throw error
        })
        each.configureOutput({ writeErr: (text) => (written += text) })
      }
      const error: Error = await command.parseAsync(line.split(' '), { from: 'user' }).then(
        () => new Error('it was not refused'),
        (error) => error
      )
      t.match(`${error.message}\n${written}`, message, line)
      t.notMatch(`${error.message}\n${written}`, /MARKER/, line)
    }
  }
)

t.test('every command shows with --help what it takes, and an example', (t) => {
  const secret = secretCommand()
  t.same(
    secret.commands.map((command) => command.name()),
    ['set', 'list', 'delete', 'import']
  )
  const helpOf = (command: Command) => {
    let help = ''
    command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp()
    return help
  }
  for (const command of secret.commands) {
    t.match(
      helpOf(command),
      /--repo <owner\/name>[\s\S]*--org[\s\S]*--user[\s\S]*Examples?:\n {2}\$ npx coffer secret /
    )
    t.ok(command.description().endsWith('.'), command.name())
    t.notMatch(helpOf(command), /--body/)
  }
  t.match(helpOf(secret), /Exit codes: 0 done, 1 failed, 2 refused/)
  t.end()
})
