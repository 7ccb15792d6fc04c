// biome-ignore-all lint/suspicious/noExplicitAny: JSON of several methods
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeDataDir } from '../runner/running.ts'
import { startCommand } from './env/helper.ts'
import { BIN, coffer, endPostgres, makeFolder, startServer, until } from './helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

// A server that is killed and stays away for a minute, as its runner on another machine lives through it: longer than
// a lease, a token of a cache, and any pause between tries.

const OUTAGE_MS = 60_000
const TOKEN = 'token-of-the-first-administrator-of-this-test'

t.setTimeout(220_000)

async function findFreePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}

t.test('a server that is gone for a minute', async (t) => {
  const folder = await makeFolder(t)
  const { dataDir: serverData } = await makeDataDir(t)
  endPostgres(t, serverData)
  const port = await findFreePort()
  const start = () =>
    startServer(t, folder, {
      COFFER_DATA_DIR: serverData,
      COFFER_PORT: port,
      COFFER_ADMIN_TOKEN: TOKEN
    })
  const server = await start()
  const ask = async (method: string, message: object): Promise<any> => {
    const response = await fetch(`${server.url}/api/gitpod.v1.${method}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKEN}` },
      body: JSON.stringify(message)
    })
    const body = await response.json()
    if (response.status !== 200)
      throw new Error(`${method} answered ${response.status}: ${JSON.stringify(body)}`)
    return body
  }
  const { exchangeToken, runner } = await ask('RunnerService/CreateRunner', {
    name: 'elsewhere',
    provider: 'RUNNER_PROVIDER_LINUX_HOST'
  })
  const { id: environmentClassId } = await ask('RunnerConfigurationService/CreateEnvironmentClass', {
    runnerId: runner.runnerId,
    displayName: 'elsewhere',
    description: 'on another machine'
  })
  const { project } = await ask('ProjectService/CreateProject', {
    name: 'web',
    initializer: { specs: [] },
    environmentClass: { environmentClassId }
  })
  const { secret } = await ask('SecretService/CreateSecret', {
    scope: { projectId: project.id },
    name: 'DB_PASSWORD',
    value: 'before',
    filePath: '/etc/db/password'
  })
  const { dataDir } = await makeDataDir(t)
  const running = startCommand(t, [process.execPath, BIN, 'runner'], folder, {
    COFFER_URL: server.url,
    COFFER_DATA_DIR: dataDir,
    COFFER_RUNNER_TOKEN: exchangeToken
  })
  await until(() => running.stdout().includes('running environments'))
  const client = { COFFER_URL: server.url, COFFER_TOKEN: TOKEN }
  const made = await coffer(folder, ['env', 'create', '--project', 'web', '--name', 'far'], client)
  t.equal(made.code, 0, made.stderr)
  const enter = (script: string) => coffer(folder, ['env', 'exec', 'far', '--', 'sh', '-c', script], client)
  t.match(await enter('echo mine >own; cat /etc/db/password'), { code: 0, stdout: 'before' })

  const name = createHash('sha256').update(path.join(dataDir, 'runner')).digest('hex').slice(0, 16)
  const file = `/dev/shm/coffer-${name}/${made.stdout.trim()}/files/${secret.id}`
  const phases = () => running.stdout().match(/another phase/g)?.length
  const before = phases()
  await server.kill()
  t.match(await enter('true'), { code: 1, stderr: /./ }, 'who would enter now is told')
  for (const end = Date.now() + OUTAGE_MS; Date.now() < end; await sleep(1000)) {
    if ((await readFile(file, 'utf8')) !== 'before') t.fail('the secret stays where it was')
  }
  t.notOk(phases() !== before, 'the environment went on as it was')

  await start()
  await until(async () => (await enter('cat own /etc/db/password')).stdout === 'mine\nbefore')
  await ask('SecretService/UpdateSecretValue', { secretId: secret.id, value: 'after' })
  await until(async () => (await readFile(file, 'utf8')) === 'after')
  t.match(await enter('cat /etc/db/password'), { code: 0, stdout: 'after' })
  const another = await coffer(folder, ['env', 'create', '--project', 'web', '--name', 'new'], client)
  t.equal(another.code, 0, another.stderr)
  t.notMatch(running.stdout(), /was lost/, 'nobody took it over meanwhile')
  running.signal('SIGTERM')
  t.match(await running.finished, { code: 0 })
})
