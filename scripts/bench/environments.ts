import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type GitServer, startGitServer } from '../git-server.ts'
import { median } from './load.ts'
import { ADMIN_TOKEN, startCoffer } from './server.ts'
import { call, inParallel } from './world.ts'

// Environments made for real: how long until they run, and until a change of a secret is in use in all of them.

const FEW_SECRETS = 10
const MANY_SECRETS = 300
export const ENVIRONMENTS = 100
/** The most that making one may take of a `git clone` and the start of a process. */
export const CREATE_BAR = 1.3
/** The most that many secrets may take of what few do. */
export const MANY_BAR = 1.5
export const CHANGE_MS_BAR = 2_000

const ROUNDS = 15
const CHANGES = 10
const LOOK_MS = 2
const REMOVAL_MS = 60_000

export interface EnvironmentFigures {
  /** medians, from the request until the status says RUNNING */
  fewMs: number
  manyMs: number
  /** `git clone` of the same empty repository, and the start of a process, one after the other */
  floorMs: number
  /** until the last of many that were asked for at once runs */
  atOnceMs: number
  /** from the acknowledged change until an environment has the new file: of all environments and changes */
  changeP50Ms: number
  changeP99Ms: number
}

interface World {
  url: string
  git: GitServer
  secretsDir: string
}

async function ask<T>({ url }: World, method: string, message: object): Promise<T> {
  return (await (await call(url, 'POST', `/api/gitpod.v1.${method}`, message)).json()) as T
}

async function makeProject(world: World, name: string, secrets: number, filePath?: string): Promise<string> {
  const { project } = await ask<{ project: { id: string } }>(world, 'ProjectService/CreateProject', {
    name,
    initializer: { specs: [{ git: { remoteUri: `${world.git.url}/empty` } }] }
  })
  await inParallel(secrets, (index) =>
    ask(world, 'SecretService/CreateSecret', {
      name: `SECRET_${index}`,
      value: 'a'.repeat(64),
      ...(filePath ? { filePath } : { environmentVariable: true }),
      scope: { projectId: project.id }
    })
  )
  return project.id
}

interface Shown {
  environment: { id: string; status: { phase: string; failureMessage?: string[] } }
}

/** Gives its id. */
async function create(world: World, projectId: string): Promise<string> {
  const { environment } = await ask<Shown>(world, 'EnvironmentService/CreateEnvironmentFromProject', {
    projectId
  })
  return environment.id
}

async function isRunning(world: World, environmentId: string): Promise<boolean> {
  const { environment } = await ask<Shown>(world, 'EnvironmentService/GetEnvironment', { environmentId })
  const { phase, failureMessage } = environment.status
  if (failureMessage) throw new Error(failureMessage.join('; '))
  return phase === 'ENVIRONMENT_PHASE_RUNNING'
}

/** Looks whenever something was told of it, as SDKs do: looking all the time costs as much as what is looked at. */
async function untilRunning(world: World, environmentId: string): Promise<void> {
  const gone = new AbortController()
  try {
    const response = await fetch(`${world.url}/api/gitpod.v1.EventService/WatchEvents`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
      body: JSON.stringify({ environmentId }),
      signal: gone.signal
    })
    const told = response.body!.getReader()
    while (!(await isRunning(world, environmentId))) await told.read()
  } finally {
    gone.abort()
  }
}

/** Until nothing of them is left that takes time from what is measured next. */
async function remove(world: World, environmentIds: readonly string[]): Promise<void> {
  for (const environmentId of environmentIds) {
    await ask(world, 'EnvironmentService/DeleteEnvironment', { environmentId })
  }
  const left = async () => {
    const { environments } = await ask<{ environments?: object[] }>(
      world,
      'EnvironmentService/ListEnvironments',
      {}
    )
    return environments?.length ?? 0
  }
  const end = performance.now() + REMOVAL_MS
  while ((await left()) > 0) {
    if (performance.now() > end) throw new Error('environments are not removed')
    await sleep(25)
  }
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, { stdio: 'ignore', env: { PATH: process.env.PATH } })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${program} ended with ${code}`)
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** Takes turns, so that a machine whose speed drifts does not decide. */
async function measureCreation(world: World, home: string) {
  const few = await makeProject(world, 'few', FEW_SECRETS)
  const many = await makeProject(world, 'many', MANY_SECRETS)
  const times: Record<'few' | 'many' | 'floor', number[]> = { few: [], many: [], floor: [] }
  const made: string[] = []
  const makeOne = async (projectId: string) => {
    const id = await create(world, projectId)
    await untilRunning(world, id)
    made.push(id)
  }
  const clone = path.join(home, 'clone')
  for (let round = 0; round <= ROUNDS; round++) {
    const floor = await timed(async () => {
      await run('git', ['clone', '--quiet', `${world.git.url}/empty`, clone])
      await run('true', [])
    })
    await rm(clone, { recursive: true })
    const taken = { floor, few: await timed(() => makeOne(few)), many: await timed(() => makeOne(many)) }
    // The first of each finds nothing compiled and no file in memory.
    if (round > 0) for (const name of ['few', 'many', 'floor'] as const) times[name].push(taken[name])
    await remove(world, made.splice(0))
  }
  return { fewMs: median(times.few), manyMs: median(times.many), floorMs: median(times.floor) }
}

/** The files that a secret is in, in the memory of this machine, one for each environment. */
async function contents({ secretsDir }: World, environmentIds: readonly string[], secretId: string) {
  const files = environmentIds.map((id) => path.join(secretsDir, id, 'files', secretId))
  return await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')))
}

async function measureAtOnce(world: World) {
  const projectId = await makeProject(world, 'at once', 1, '/etc/bench/secret')
  const { secrets } = await ask<{ secrets: { id: string }[] }>(world, 'SecretService/ListSecrets', {
    filter: { scope: { projectId } }
  })
  const secretId = secrets[0]!.id
  const ids: string[] = []
  const atOnceMs = await timed(async () => {
    ids.push(...(await Promise.all(Array.from({ length: ENVIRONMENTS }, () => create(world, projectId)))))
    for (const id of ids) while (!(await isRunning(world, id))) await sleep(25)
  })
  const times: number[] = []
  for (let change = 0; change < CHANGES; change++) {
    const value = `value ${change}`
    await ask(world, 'SecretService/UpdateSecretValue', { secretId, value })
    const acknowledged = performance.now()
    for (const waiting = new Set(ids); waiting.size > 0; ) {
      const left = [...waiting]
      const found = await contents(world, left, secretId)
      const now = performance.now()
      for (const [index, id] of left.entries()) {
        if (found[index] !== value) continue
        waiting.delete(id)
        times.push(now - acknowledged)
      }
      await sleep(LOOK_MS)
    }
    await sleep(500)
  }
  await remove(world, ids)
  times.sort((a, b) => a - b)
  const at = (part: number) => times[Math.ceil(times.length * part) - 1]!
  return { atOnceMs, changeP50Ms: at(0.5), changeP99Ms: at(0.99) }
}

export async function benchEnvironments(home: string): Promise<EnvironmentFigures> {
  const dataDir = path.join(home, 'environments')
  const git = await startGitServer()
  await git.git('', 'init', '--quiet', '--bare', '--initial-branch=main', 'empty')
  const coffer = await startCoffer(dataDir)
  const name = createHash('sha256').update(path.join(dataDir, 'runner')).digest('hex').slice(0, 16)
  const world = { url: coffer.url, git, secretsDir: `/dev/shm/coffer-${name}` }
  try {
    await readdir(world.secretsDir)
    // In this order, so that one is made by a server that has been at work, as the program beside it has always been.
    const atOnce = await measureAtOnce(world)
    return { ...(await measureCreation(world, home)), ...atOnce }
  } finally {
    await coffer.stop()
    await git.close()
  }
}
