import t from 'tap'
import { BUBBLEWRAP, GIT, needPrograms } from '../../installed.ts'
import { makeRepository, serveGit } from '../../runner/git-server.ts'
import { until } from '../helper.ts'
import { shown, startWorld, VALUE } from './helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n$/

t.test('an environment from its creation to its end', async (t) => {
  const { coffer, createProject, createSecret, listEnvironments } = await startWorld(t)
  const projectId = await createProject('web')
  await createSecret(projectId, 'DB_URL')
  await createSecret(projectId, 'LOST', { filePath: '/proc/lost' })

  const created = await coffer(['env', 'create', '--project', 'web', '--name', 'mine', '--timeout', '1h30m'])
  t.match(created, { code: 0, stdout: UUID })
  const id = created.stdout.trim()
  const reason = 'The path lies in /proc, where an environment has nothing of its own.'
  const lines = created.stderr.trim().split('\n')
  t.equal(lines[0], 'mine: creating')
  t.ok(lines.includes('mine: running'))
  t.equal(lines.filter((line) => line === `mine: the secret LOST is not delivered: ${reason}`).length, 1)
  t.equal(new Set(lines).size, lines.length, 'each is said once')

  const got = await coffer(['env', 'get', 'mine'])
  t.match(got, { code: 0, stderr: '' })
  t.match(
    got.stdout,
    /^Name {6}mine\nId {8}[0-9a-f-]{36}\nPhase {5}running\nProject {3}web\nContent {3}ready/
  )
  t.match(got.stdout, /^Timeout {3}5400s$/m)
  t.match(got.stdout, /^SECRET {2}MOUNT {12}STATE {3}REASON$/m)
  t.match(got.stdout, /^DB_URL {2}variable DB_URL {2}ready$/m)
  t.ok(got.stdout.includes(`LOST    file /proc/lost  failed  ${reason}\n`))
  const asJson = JSON.parse((await coffer(['env', 'get', id, '--json'])).stdout)
  t.match(asJson, {
    id,
    metadata: { name: 'mine', projectId },
    status: { phase: 'ENVIRONMENT_PHASE_RUNNING' }
  })
  t.notOk(JSON.stringify([got, asJson]).includes(VALUE))

  t.match(await coffer(['env', 'stop', 'mine']), {
    code: 0,
    stdout: `mine (${id}) is stopped.\n`,
    stderr: /^(mine: stopping\n)?mine: stopped\n$/
  })
  t.match((await coffer(['env', 'get', 'mine'])).stdout, /^Phase {5}stopped$/m)
  t.match(await coffer(['env', 'start', id]), {
    code: 0,
    stdout: `mine (${id}) is running.\n`,
    stderr: /^(mine: starting\n)?mine: running\nmine: the secret LOST .*\n$/
  })
  t.equal((await listEnvironments())[0].status.phase, 'ENVIRONMENT_PHASE_RUNNING')
  t.match(await coffer(['env', 'delete', 'mine']), { code: 0, stdout: `mine (${id}) is deleted.\n` })
  t.same(await listEnvironments(), [])
  t.match(await coffer(['env', 'get', id]), { code: 2, stderr: /There is no such environment/ })
})

t.test('without waiting', async (t) => {
  const { coffer, createProject, listEnvironments } = await startWorld(t)
  await createProject('web')
  const created = await coffer(['env', 'create', '-p', 'web', '--no-wait', '--json'])
  const { id, metadata, status } = JSON.parse(created.stdout)
  t.match(created, { code: 0, stderr: `${metadata.name}: creating\n` })
  t.equal(status.phase, 'ENVIRONMENT_PHASE_CREATING')
  t.match(await coffer(['env', 'start', id]), { code: 0 }, 'one that starts is waited for')
  t.match(await coffer(['env', 'stop', id, '--no-wait']), { code: 0, stdout: /will be stopped/, stderr: '' })
  await until(async () => (await listEnvironments())[0].status.phase === 'ENVIRONMENT_PHASE_STOPPED')
  t.match(await coffer(['env', 'start', id, '--no-wait']), { code: 0, stdout: /will be running/ })
  await until(async () => (await listEnvironments())[0].status.phase === 'ENVIRONMENT_PHASE_RUNNING')
  const other = (await coffer(['env', 'create', '-p', 'web', '--no-wait'])).stdout.trim()
  t.match(await coffer(['env', 'delete', id, other, '--no-wait']), { code: 0, stdout: /being deleted/ })
  await until(async () => (await listEnvironments()).length === 0)
})

t.test('deleted by force, whatever the runner does', async (t) => {
  const { coffer, createProject, listEnvironments } = await startWorld(t)
  await createProject('web')
  const silent = await serveGit(t, { answer: () => true })
  await createProject('stuck', `${silent.url}/demo`)
  const id = (await coffer(['env', 'create', '-p', 'stuck', '--no-wait'])).stdout.trim()
  await until(() => silent.requests.length > 0)
  t.match(await coffer(['env', 'delete', id, '--force', '--no-wait']), { code: 0, stdout: /is deleted/ })
  t.same(await listEnvironments(), [])
})

t.test('one that fails', async (t) => {
  const { coffer, createProject, listEnvironments } = await startWorld(t)
  const git = await serveGit(t)
  await createProject('web', `${git.url}/nothing`)
  const failed = await coffer(['env', 'create', '--project', 'web', '--name', 'bad'])
  t.match(failed, { code: 1, stdout: '' })
  const [{ id, status }] = await listEnvironments()
  const [reason] = status.failureMessage
  t.ok(reason)
  t.ok(failed.stderr.includes(`coffer: The environment bad (${id}) failed: ${reason}\n`))
  t.ok(failed.stderr.endsWith(`  npx coffer env delete ${id}\n`))
  t.match((await coffer(['env', 'get', 'bad'])).stdout, /^Failure {3}\S/m)
  t.match(await coffer(['env', 'start', 'bad']), { code: 1, stderr: /failed:/ })
})

t.test('Ctrl-C ends waiting, and the environment stays', async (t) => {
  const { start, createProject, listEnvironments } = await startWorld(t)
  const silent = await serveGit(t, { answer: () => true })
  await createProject('web', `${silent.url}/demo`)
  const creating = start(['env', 'create', '--project', 'web'])
  await until(() => silent.requests.length > 0)
  creating.signal('SIGINT')
  const { code, stdout, stderr } = await creating.finished
  const [{ id, spec }] = await listEnvironments()
  t.same({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, /coffer: Stopped waiting\.\n.* stays\./)
  t.ok(stderr.endsWith(`  npx coffer env delete ${id}\n`))
  t.equal(spec.desiredPhase, 'ENVIRONMENT_PHASE_RUNNING')
})

t.test('somebody else wants something else of it', async (t) => {
  const { ask, start, createProject, listEnvironments } = await startWorld(t)
  const silent = await serveGit(t, { answer: () => true })
  await createProject('web', `${silent.url}/demo`)
  const [first, second] = [start(['env', 'create', '-p', 'web']), start(['env', 'create', '-p', 'web'])]
  const [one, other] = await until(async () => {
    const made = await listEnvironments()
    return made.length === 2 && silent.requests.length > 1 ? made : undefined
  })
  await shown(first, ': creating')
  await shown(second, ': creating')
  await ask('EnvironmentService/StopEnvironment', { environmentId: one.id })
  await ask('EnvironmentService/DeleteEnvironment', { environmentId: other.id, force: true })
  const ends = [await first.finished, await second.finished]
  t.same(
    ends.map(({ code }) => code),
    [1, 1]
  )
  const said = ends.map(({ stderr }) => stderr).join('')
  t.match(said, /is to be stopped: somebody asked for that/)
  t.match(said, /is gone: somebody has deleted it/)
})

t.test('a branch, one secret alone, and a credential of git', async (t) => {
  const { coffer, createProject, createSecret } = await startWorld(t)
  const git = await serveGit(t, { credentials: `ada:${VALUE}` })
  const commits = await makeRepository(git, 'demo')
  const projectId = await createProject('web', `${git.url}/demo`)
  await createSecret(projectId, 'WANTED')
  await createSecret(projectId, 'OTHER')
  await createSecret(projectId, 'CLONE', { value: `ada:${VALUE}`, apiOnly: true })
  const args = ['--branch', 'other', '--git-secret', `CLONE=http://${git.host}`, '--secret', 'WANTED']
  const { code, stdout, stderr } = await coffer(['env', 'create', '-p', 'web', '--json', ...args])
  t.equal(code, 0, stderr)
  const { id, spec, status } = JSON.parse(stdout)
  t.match(status.content.git, { branch: 'other', latestCommit: commits.other })
  t.same(spec.secrets.map(({ name }: { name: string }) => name).sort(), ['CLONE', 'WANTED'])
  t.match((await coffer(['env', 'get', id])).stdout, /^CLONE {3}git .*ready$/m)

  await createProject('empty')
  t.match(await coffer(['env', 'create', '-p', 'empty', '--branch', 'other']), {
    code: 2,
    stderr: /^coffer: --branch needs a project with the address of a repository; empty has none/
  })
  t.match(await coffer(['env', 'create', '-p', 'web', '--secret', 'NONE']), {
    code: 2,
    stderr: /^coffer: There is no secret called NONE that an environment of web would receive/
  })
})

t.test('names: of one, of none, and of several', async (t) => {
  const { coffer, ask, createProject, listEnvironments, member } = await startWorld(t)
  const projectId = await createProject('web')
  const [class_] = (await ask('EnvironmentService/ListEnvironmentClasses', {})).environmentClasses
  const create = (name: string) =>
    ask('EnvironmentService/CreateEnvironmentFromProject', { projectId, name }).then(
      ({ environment }) => environment.id as string
    )
  const twins = [await create('twin'), await create('twin')]
  await create('twin too')
  const ambiguous = await coffer(['env', 'stop', 'twin'])
  t.equal(ambiguous.code, 2)
  t.match(ambiguous.stderr, /^coffer: There are 2 of this name\. Give the id:\n/)
  for (const id of twins) t.match(ambiguous.stderr, new RegExp(`^  ${id}  [a-z]+  made 20`, 'm'))
  t.equal(ambiguous.stderr.trim().split('\n').length, 3, 'and no other')
  t.match(await coffer(['env', 'delete', twins[0]!, 'nothing']), { code: 2, stderr: /called nothing/ })
  t.equal((await listEnvironments()).length, 3, 'nothing is deleted before all are known')
  t.match(await coffer(['env', 'get', 'twin too']), { code: 0 })

  await ask('ProjectService/CreateProject', { name: 'web', initializer: {}, environmentClass: {} })
  t.match(await coffer(['env', 'create', '-p', 'web']), { code: 2, stderr: new RegExp(`  ${projectId}`) })
  t.match(await coffer(['env', 'create', '-p', 'we']), { code: 2, stderr: /There is no project called we / })
  t.match(await coffer(['env', 'create', '-p', projectId, '--class', class_.id, '--no-wait']), { code: 0 })

  const asMember = { COFFER_TOKEN: member.token }
  t.match(await coffer(['env', 'list'], undefined, asMember), {
    code: 0,
    stdout: '',
    stderr: 'There are no environments.\n'
  })
  t.match(await coffer(['env', 'get', twins[0]!], undefined, asMember), { code: 2 })
  t.match(await coffer(['env', 'create', '-p', projectId], undefined, asMember), {
    code: 2,
    stderr: /^coffer: /
  })
})

t.test('lists have all pages: one’s own, everybody’s, of a project, archived', async (t) => {
  const { coffer, ask, createProject, member, owner } = await startWorld(t)
  const [web, api] = [await createProject('web'), await createProject('api')]
  const { groups } = await ask('GroupService/ListGroups', { filter: { systemManaged: true } })
  await ask('ProjectService/CreateProjectPolicy', {
    projectId: web,
    groupId: groups[0].id,
    role: 'PROJECT_ROLE_USER'
  })
  const create = async (projectId: string, token: string, name: string) => {
    const message = { projectId, name, spec: {} }
    const { environment } = await ask('EnvironmentService/CreateEnvironmentFromProject', message, token)
    await ask('EnvironmentService/ArchiveEnvironment', { environmentId: environment.id }, token)
    if (!name.startsWith('old')) {
      await ask('EnvironmentService/UnarchiveEnvironment', { environmentId: environment.id }, token)
    }
  }
  for (let n = 0; n < 103; n++) await create(web, owner.token, `web-${n}`)
  await create(api, owner.token, 'api-1')
  await create(web, member.token, 'of-mia')
  await create(web, owner.token, 'old-1')
  const names = async (...args: string[]) => {
    const { stdout } = await coffer(['env', 'list', ...args, '--json'])
    return JSON.parse(stdout).map(({ metadata }: { metadata: { name: string } }) => metadata.name)
  }
  const own = await names()
  t.equal(own.length, 104)
  t.equal(new Set(own).size, 104)
  t.notOk(own.includes('of-mia'))
  t.same(await names('--project', 'api'), ['api-1'])
  t.ok((await names('--all')).includes('of-mia'))
  t.same(await names('--archived'), ['old-1'])
  const table = (await coffer(['env', 'list', '--project', 'api'])).stdout
  t.match(table, /^ID {36}NAME {3}PHASE +PROJECT {2}CREATED\n[0-9a-f-]{36} {2}api-1 {2}\w+ +api {6}20\S+Z\n$/)
  t.match(await coffer(['env', 'get', 'web-0']), { code: 0 }, 'a name on the last page')
})

t.test('what cannot be asked', async (t) => {
  const { coffer, createProject, owner, url } = await startWorld(t)
  await createProject('web')
  const misuses: [string[], RegExp][] = [
    [['env'], /Usage: coffer env/],
    [['env', 'nothing'], /unknown command/],
    [['env', 'create'], /--project/],
    [['env', 'create', '-p', 'web', '--timeout', 'soon'], /Write it as 90s/],
    [['env', 'create', '-p', 'web', '--timeout', '5m'], /spec\.timeout\.disconnected: must be/],
    [['env', 'create', '-p', 'web', '--git-secret', 'X'], /Write it as SECRET=HOST/],
    [['env', 'create', '-p', 'web', '--class', 'small'], /spec\.machine\.class: must be/],
    [['env', 'get'], /missing required argument/],
    [['env', 'delete'], /missing required argument/]
  ]
  for (const [args, message] of misuses) {
    const { code, stdout, stderr } = await coffer(args)
    t.match({ code, stdout, stderr }, { code: 2, stdout: '', stderr: message }, args.join(' '))
  }
  const refused = await coffer(['env', 'list'], undefined, { COFFER_TOKEN: `${owner.token}x` })
  t.match(refused, { code: 2, stderr: /Set COFFER_TOKEN, or COFFER_TOKEN_FILE/ })
  t.notOk(refused.stderr.includes(owner.token))
  t.match(await coffer(['env', 'list'], undefined, { COFFER_TOKEN: '' }), { code: 2, stderr: /COFFER_TOKEN/ })
  t.match(await coffer(['env', 'list'], undefined, { COFFER_URL: 'http://127.0.0.1:3' }), {
    code: 1,
    stderr: /No Coffer server answers at http:\/\/127\.0\.0\.1:3 \(ECONNREFUSED\)/
  })
  for (const prefix of ['/api', '/api/v3']) {
    t.match(await coffer(['env', 'list'], undefined, { COFFER_URL: url + prefix }), { code: 0 }, prefix)
  }
})
