import t, { type Test } from 'tap'
import { BUBBLEWRAP, GIT, needPrograms } from '../../installed.ts'
import { until } from '../helper.ts'
import { shown, startWorld, VALUE } from './helper.ts'
import { startProxy } from './proxy.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const TIME = /^\d{4}-\d\d-\d\dT[\d:.]+Z {2}/

t.test('the status, and each change of it', async (t) => {
  const { coffer, start, ask, createProject, createSecret } = await startWorld(t)
  const projectId = await createProject('web')
  const secretId = await createSecret(projectId, 'DB_URL')
  await createSecret(projectId, 'LOST', { filePath: '/proc/lost' })
  await coffer(['env', 'create', '-p', 'web', '--name', 'box'])

  const { code, stdout } = await coffer(['env', 'logs', 'box'])
  const lines = stdout.trim().split('\n')
  t.equal(code, 0)
  for (const line of lines) t.match(line, TIME)
  t.strictSame(
    lines.map((line) => line.replace(TIME, '')),
    [
      'phase  running',
      'content  ready, /workspace',
      'secret  DB_URL  variable DB_URL  ready, session 1',
      'secret  LOST  file /proc/lost  failed: The path lies in /proc, where an environment has nothing of its own.'
    ]
  )

  const following = start(['env', 'logs', 'box', '--follow'])
  await shown(following, 'LOST')
  await ask('SecretService/UpdateSecretValue', { secretId, value: VALUE })
  await shown(following, 'DB_URL  variable DB_URL  ready, session 2')
  await createSecret(projectId, 'MORE')
  await shown(following, 'secret  MORE  variable MORE  ready, session 1')
  await ask('SecretService/DeleteSecret', { secretId })
  await shown(following, 'secret  DB_URL  variable DB_URL  gone')
  await coffer(['env', 'stop', 'box'])
  await shown(following, 'phase  stopped')
  await coffer(['env', 'delete', 'box'])
  const ended = await following.finished
  t.match(ended, { code: 0, stderr: '', stdout: /Z {2}phase {2}deleted\n$/ })
  t.notOk(ended.stdout.includes(VALUE))
})

const EVENTS = '/api/gitpod.v1.EventService/WatchEvents'
const GET = '/api/gitpod.v1.EnvironmentService/GetEnvironment'

/** An environment that is followed through a proxy. */
async function followThroughProxy(t: Test, refusal?: number) {
  const { coffer, start, url, createProject } = await startWorld(t)
  await createProject('web')
  await coffer(['env', 'create', '-p', 'web', '--name', 'box'])
  const proxy = await startProxy(t, url)
  if (refusal !== undefined) proxy.refuse.set(EVENTS, refusal)
  const following = start(['env', 'logs', 'box', '--follow'], { COFFER_URL: proxy.url })
  return {
    coffer,
    proxy,
    following,
    asked: (path: string) => proxy.requests.filter((each) => each === path).length,
    async end() {
      await coffer(['env', 'delete', 'box'])
      t.match(await following.finished, { code: 0, stdout: /phase {2}deleted\n$/ })
    }
  }
}

t.test('a stream of events that breaks is opened again', async (t) => {
  const { coffer, proxy, following, asked, end } = await followThroughProxy(t)
  for (const times of [1, 2]) {
    // The state is asked for when the stream is open.
    await until(() => asked(EVENTS) === times && asked(GET) >= times)
    proxy.cut()
    await until(() => asked(EVENTS) === times + 1)
  }
  await coffer(['env', 'stop', 'box'])
  await shown(following, 'phase  stopped')
  t.equal(asked(EVENTS), 3, 'events came by the third one')
  await end()
})

t.test('without events the server is asked again and again', async (t) => {
  for (const status of [403, 502]) {
    const { coffer, following, asked, end } = await followThroughProxy(t, status)
    await until(() => asked(GET) > 2)
    if (status === 403) t.equal(asked(EVENTS), 1, 'a refusal is final')
    else t.ok(asked(EVENTS) > 1, 'a failure is not')
    await coffer(['env', 'stop', 'box'])
    await shown(following, 'phase  stopped')
    await end()
  }
})

t.test('a server that is away for a while', async (t) => {
  const { coffer, proxy, following, asked, end } = await followThroughProxy(t)
  await until(() => asked(GET) > 0)
  for (const path of [EVENTS, GET]) proxy.refuse.set(path, 503)
  proxy.cut()
  await coffer(['env', 'stop', 'box'])
  const before = asked(GET)
  await until(() => asked(GET) > before + 1)
  t.notMatch(following.stdout(), /stopped/)
  proxy.refuse.clear()
  await shown(following, 'phase  stopped')
  await end()
})
