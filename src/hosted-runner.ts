import { createHash } from 'node:crypto'
import { mkdir, realpath } from 'node:fs/promises'
import path from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import type { RunnerConfig } from './config.ts'
import { HostedServer, type ReadSecret } from './environments/hosted.ts'
import { RefusedToStart, Unavailable } from './errors.ts'
import { errorAnswer } from './routes/rpc/errors.ts'
import { Bubblewrap } from './runner/bubblewrap.ts'
import { canReach } from './runner/folders.ts'
import { LeaseLost, ValueRefused } from './runner/interface.ts'
import { Runner } from './runner/runner.ts'
import type { Sandbox } from './runner/sandbox.ts'
import { Unisolated } from './runner/unisolated.ts'
import { findUser } from './runner/users.ts'
import type { Database } from './store/tables.ts'

// The runner that every server is by itself, and how processes of environments are kept apart on this machine.

/**
 * @param hiddenPaths what environments never see, wherever it lies
 * @throws RefusedToStart when they cannot be kept apart here; the message has the remedy
 */
export async function openSandbox(
  { unisolated, user }: Pick<RunnerConfig, 'unisolated' | 'user'>,
  hiddenPaths: readonly string[]
): Promise<Sandbox> {
  if (unisolated) return await Unisolated.open()
  return await Bubblewrap.open({
    ...(user !== undefined && { user: await findUser(user) }),
    hiddenPaths
  })
}

/** For what the user of environments cannot reach in our own folders. */
const SYSTEM_FOLDER = '/var/lib/coffer'

/**
 * Where a runner keeps its environments: in its data folder, or, where that lies below a folder of root's that the user
 * of environments cannot pass, in a folder of the system that is named after it.
 */
export async function chooseFolder(dataDir: string, { user }: Pick<Sandbox, 'user'>): Promise<string> {
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  if (await canReach(dataDir, user)) return path.join(dataDir, 'runner')
  if (process.geteuid!() !== 0) return path.join(dataDir, 'runner')
  await mkdir(SYSTEM_FOLDER, { recursive: true, mode: 0o711 })
  const name = createHash('sha256')
    .update(await realpath(dataDir))
    .digest('hex')
    .slice(0, 16)
  return path.join(SYSTEM_FOLDER, `runner-${name}`)
}

/** GetSecretValue of the same process, and what a runner makes of its errors. */
export function readByApi(app: FastifyInstance): ReadSecret {
  return async (accessToken, secretId) => {
    try {
      return await app.readValue(accessToken, secretId)
    } catch (error) {
      const { status, body } = errorAnswer(error)
      if (status === 401) throw new LeaseLost()
      if (status === 503 || status === 429) throw new Unavailable()
      throw status >= 500 ? error : new ValueRefused(body.message)
    }
  }
}

export interface HostedRunnerOptions {
  config: RunnerConfig
  dataDir: string
  logger: Logger
}

/**
 * Starts the runner of this process.
 *
 * @returns undefined with the reason where environments cannot be kept apart here: the server is of use without
 */
export async function startHostedRunner(
  app: FastifyInstance,
  db: Kysely<Database>,
  { config, dataDir, logger }: HostedRunnerOptions
): Promise<{ runner: Runner } | { problem: string }> {
  try {
    const sandbox = await openSandbox(config, [dataDir])
    const server = new HostedServer(db, app.wakes, readByApi(app), () => app.baseUrl())
    const runner = new Runner(server, sandbox, {
      dataDir: await chooseFolder(dataDir, sandbox),
      secretsDir: config.secretsDir,
      ...(config.capacity !== undefined && { capacity: config.capacity }),
      logger
    })
    await runner.start()
    return { runner }
  } catch (error) {
    if (error instanceof RefusedToStart) return { problem: error.message }
    throw error
  }
}
