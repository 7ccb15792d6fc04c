import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeDataDir } from '../runner/running.ts'
import { startCommand, startWorld, VALUE } from './env/helper.ts'
import { BIN, until } from './helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// A runner in a process of its own, which asks the server as it would from another machine: with an exchange token.

t.setTimeout(120_000)

async function startWithRunner(t: Parameters<typeof startWorld>[0]) {
  const world = await startWorld(t)
  const { ask } = world
  const made = await ask('RunnerService/CreateRunner', {
    name: 'elsewhere',
    provider: 'RUNNER_PROVIDER_LINUX_HOST'
  })
  const { id: classId } = await ask('RunnerConfigurationService/CreateEnvironmentClass', {
    runnerId: made.runner.runnerId,
    displayName: 'elsewhere',
    description: 'on another machine'
  })
  const projectId = await world.createProject('web')
  await ask('ProjectService/UpdateProjectEnvironmentClasses', {
    projectId,
    projectEnvironmentClasses: [{ environmentClassId: classId }]
  })
  const secretId = await world.createSecret(projectId, 'DB_URL')
  const { dataDir } = await makeDataDir(t)
  const variables = {
    COFFER_URL: world.url,
    COFFER_DATA_DIR: dataDir,
    COFFER_RUNNER_TOKEN: made.exchangeToken
  }
  const start = () => startCommand(t, [process.execPath, BIN, 'runner'], world.folder, variables)
  const running = start()
  await until(() => running.stdout().includes('running environments'))
  const environments = path.join(dataDir, 'runner', 'environments')
  const name = createHash('sha256').update(path.join(dataDir, 'runner')).digest('hex').slice(0, 16)
  const secretsDir = `/dev/shm/coffer-${name}`
  return { ...world, projectId, secretId, dataDir, environments, secretsDir, running, start }
}

t.test('environments run elsewhere, are entered from here, and follow their secrets', async (t) => {
  const world = await startWithRunner(t)
  const { ask, coffer, secretId, dataDir, environments, secretsDir, running, start } = world
  const made = await coffer(['env', 'create', '--project', 'web', '--name', 'far'])
  t.equal(made.code, 0, made.stderr)
  const environmentId = made.stdout.trim()
  t.ok(existsSync(path.join(environments, environmentId)), 'on the other machine')
  const enter = (...command: string[]) => coffer(['env', 'exec', 'far', '--', ...command])
  t.match(await enter('sh', '-c', 'echo "$DB_URL"; exit 3'), { code: 3, stdout: `${VALUE}\n` })

  await ask('SecretService/UpdateSecretValue', { secretId, value: 'another' })
  await until(async () => (await enter('sh', '-c', 'echo "$DB_URL"')).stdout === 'another\n')

  t.test('a runner that is started again takes them over, with the token that it keeps', async (t) => {
    running.signal('SIGTERM')
    t.match(await running.finished, { code: 0 })
    const again = start()
    await until(() => again.stdout().includes('running environments'))
    await until(async () => (await enter('true')).code === 0)
    const log = `${running.stdout()}${again.stdout()}${await readFile(path.join(dataDir, 'runner-token'), 'utf8')}`
    t.notMatch(log, VALUE)
  })

  t.test('one that is deleted by force leaves nothing there', async () => {
    await ask('EnvironmentService/DeleteEnvironment', { environmentId, force: true })
    const places = [path.join(environments, environmentId), path.join(secretsDir, environmentId)]
    await until(() => places.every((place) => !existsSync(place)))
  })
})

t.test('what is wrong with its configuration is told', async (t) => {
  const world = await startWorld(t)
  const { dataDir } = await makeDataDir(t)
  const run = (variables: Record<string, string>) =>
    startCommand(t, [process.execPath, BIN, 'runner'], world.folder, {
      COFFER_URL: world.url,
      COFFER_DATA_DIR: dataDir,
      ...variables
    }).finished
  t.match(await run({}), { code: 2, stderr: /COFFER_RUNNER_TOKEN/ })
  const wrong = { COFFER_RUNNER_TOKEN: `coffer_rex_${'a'.repeat(49)}` }
  t.match(await run(wrong), { code: 2, stderr: /exchange token/ })
  t.match(await run({ ...wrong, COFFER_RUNNER_USER: 'no such user' }), {
    code: 2,
    stderr: /COFFER_RUNNER_USER/
  })
})
