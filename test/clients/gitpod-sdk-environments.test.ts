import { EnvironmentState, waitForEnvironmentRunning } from '@gitpod/sdk/lib/environment'
import t, { type Test } from 'tap'
import { startRunnerOf } from '../environments/with-runner.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { sdk, startOnaServer } from '../routes/rpc/helper.ts'
import { makeRepository, serveGit } from '../runner/git-server.ts'
import { runInside } from '../runner/running.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// Environments by @gitpod/sdk as it is installed from npm, made for real: a server that listens, with its runner.

t.setTimeout(180_000)

async function start(t: Test) {
  const server = await startOnaServer(t, { events: true, publicUrl: null })
  const url = await server.listen()
  const { runner } = await startRunnerOf(t, server)
  const client = sdk(url, server.owner.token)
  const { environmentClasses } = await client.environments.classes.list({
    filter: { canCreateEnvironments: true }
  })
  return { server, url, runner, client, environmentClassId: environmentClasses[0]!.id }
}

async function until(check: () => Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 25))
}

t.test('from a project to what a process inside sees, a new value, stop, start and delete', async (t) => {
  const { server, url, client, runner, environmentClassId } = await start(t)
  const git = await serveGit(t, { credentials: 'robot:hunter2' })
  await makeRepository(git, 'web')
  const { project } = await client.projects.create({
    name: 'web',
    initializer: { specs: [{ git: { remoteUri: `${git.url}/web` } }] },
    environmentClass: { environmentClassId }
  })
  const projectId = project!.id!
  const scope = { projectId }
  const make = async (secret: { name: string; value: string; [mount: string]: unknown }) =>
    (await client.secrets.create({ ...secret, scope } as Parameters<typeof client.secrets.create>[0])).secret!
      .id!
  const variable = await make({ name: 'DB_URL', value: 'postgres://one', environmentVariable: true })
  const file = await make({ name: 'KEY', value: 'line 1\nline 2\n', filePath: '/etc/coffer-test/key' })
  await make({ name: 'REGISTRY', value: 'user:pass', containerRegistryBasicAuthHost: 'registry.example.com' })
  const later = await make({ name: 'LATER', value: 'asked for', apiOnly: true })
  await make({ name: 'GIT', value: 'robot:hunter2', gitCredentialHost: `http://${git.host}` })

  const { environment } = await client.environments.createFromProject({ projectId, spec: {} })
  const environmentId = environment.id
  const state = new EnvironmentState(client, environmentId)
  await state.waitUntilRunning()
  const running = await state.getEnvironment()
  t.equal(running.status!.phase, 'ENVIRONMENT_PHASE_RUNNING')
  t.equal(running.status!.content!.contentLocationInMachine, '/workspace/web')
  t.same(
    running.status!.secrets!.map(({ secretName, phase, failureMessage }) => [
      secretName,
      phase,
      failureMessage
    ]),
    ['DB_URL', 'GIT', 'KEY', 'LATER', 'REGISTRY'].map((name) => [name, 'CONTENT_PHASE_READY', undefined])
  )
  const { stdout: seen } = await runInside(
    runner,
    environmentId,
    'echo "$DB_URL"; cat /etc/coffer-test/key "$DOCKER_CONFIG/config.json"; cat web/file; env | grep -c "asked for"'
  )
  t.match(seen, 'postgres://one\nline 1\nline 2\n')
  t.match(seen, Buffer.from('user:pass').toString('base64'))
  t.match(seen, 'second')
  t.match(seen, /second0\n$/, 'what is for the API alone is no variable')

  // What is for the API alone is read from inside, with a token that reads nothing else.
  const { stdout: inside } = await runInside(
    runner,
    environmentId,
    'echo "$COFFER_URL"; cat "$COFFER_TOKEN_FILE"'
  )
  const [serverUrl, token] = inside.split('\n')
  t.equal(serverUrl, url)
  const program = sdk(url, token!)
  t.same(await program.secrets.getValue({ secretId: later }), { value: 'asked for' })
  await t.rejects(program.secrets.getValue({ secretId: variable }), {
    status: 403,
    code: 'permission_denied'
  })
  await t.rejects(program.secrets.list({ filter: { scope } }), { status: 404, code: 'not_found' })

  await client.secrets.updateValue({ secretId: variable, value: 'postgres://two' })
  await client.secrets.updateValue({ secretId: file, value: 'another' })
  await state.waitUntil((now) =>
    now.status?.secrets?.filter(({ session }) => session === '2').length === 2 ? true : undefined
  )
  const renewed = await runInside(runner, environmentId, 'echo "$DB_URL"; cat /etc/coffer-test/key')
  t.equal(renewed.stdout, 'postgres://two\nanother')

  // It would go on asking for what is gone.
  await state.close()

  await client.environments.update({ environmentId, metadata: { name: 'renamed' } as never })
  t.equal((await client.environments.retrieve({ environmentId })).environment.metadata!.name, 'renamed')
  await client.environments.markActive({ environmentId, activitySignal: { source: 'VS Code' } })

  const phase = async () => (await client.environments.retrieve({ environmentId })).environment.status!.phase
  await client.environments.stop({ environmentId })
  await until(async () => (await phase()) === 'ENVIRONMENT_PHASE_STOPPED')
  await client.environments.start({ environmentId })
  await waitForEnvironmentRunning(client, environmentId)
  const again = await runInside(runner, environmentId, 'echo "$DB_URL"; cat web/file')
  t.equal(again.stdout, 'postgres://two\nsecond')

  const listed = await client.environments.list({ filter: { projectIds: [projectId] } })
  t.same(
    listed.environments.map(({ id }) => id),
    [environmentId]
  )
  await client.environments.delete({ environmentId })
  await until(async () => {
    const { status } = await server.call('EnvironmentService/GetEnvironment', server.owner.token, {
      environmentId
    })
    return status === 404
  })
})

t.test('an environment whose repository cannot be cloned fails, and the helper says why', async (t) => {
  const { client, environmentClassId } = await start(t)
  const git = await serveGit(t, { credentials: 'robot:hunter2' })
  await makeRepository(git, 'web')
  const { project } = await client.projects.create({
    name: 'web',
    initializer: { specs: [{ git: { remoteUri: `${git.url}/web` } }] },
    environmentClass: { environmentClassId }
  })
  const { environment } = await client.environments.createFromProject({ projectId: project!.id!, spec: {} })
  // The helper looks for a failure only when it begins.
  await until(async () => {
    const now = await client.environments.retrieve({ environmentId: environment.id })
    return now.environment.status!.failureMessage !== undefined
  })
  await t.rejects(waitForEnvironmentRunning(client, environment.id), { message: /credentials/ })
  await client.environments.delete({ environmentId: environment.id })
  await until(async () =>
    (await client.environments.list({})).environments.every(({ id }) => id !== environment.id)
  )
})
