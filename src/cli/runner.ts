import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { loadRunnerConfig, readEnvironment } from '../config.ts'
import { Unavailable } from '../errors.ts'
import { createLogger } from '../logger.ts'

const HELP = `
It runs the environments of one runner on this machine, for the server at COFFER_URL (http://127.0.0.1:3000). Register
the runner first (RunnerService/CreateRunner); the exchange token that this gives goes into COFFER_RUNNER_TOKEN, or
into a file that COFFER_RUNNER_TOKEN_FILE names, and is used once: from then on the runner has a token of its own, in
COFFER_DATA_DIR (runner-data). It asks the server, and is never asked: nothing here listens.

Environments need bubblewrap and git: apt-get install bubblewrap git. As root, they run as COFFER_RUNNER_USER (nobody).

Example:
  $ export COFFER_URL=https://coffer.example.com COFFER_RUNNER_TOKEN_FILE=exchange-token
  $ npx coffer runner`

const FORCED_EXIT_CODE = 130
const ATTACH_MS = 5_000

export function runnerCommand(): Command {
  return new Command('runner')
    .description('Run environments on this machine for a server elsewhere.')
    .addHelpText('after', HELP)
    .action(run)
}

async function run(): Promise<void> {
  const { url, token, dataDir, logLevel, runner: config } = loadRunnerConfig(readEnvironment())
  const logger = createLogger(logLevel)
  process.on('exit', () => logger.flush())
  const { chooseFolder, openSandbox } = await import('../hosted-runner.ts')
  const { RemoteServer } = await import('../runner/remote.ts')
  const { Runner } = await import('../runner/runner.ts')
  const { Attachment } = await import('../runner/attachment.ts')
  const server = new RemoteServer({ url, token, file: path.join(dataDir, 'runner-token') })
  const sandbox = await openSandbox(config, [dataDir])
  const { secretsDir, capacity } = config
  const runner = new Runner(server, sandbox, {
    dataDir: await chooseFolder(dataDir, sandbox),
    secretsDir,
    ...(capacity !== undefined && { capacity }),
    logger
  })
  // A server that is away may come back; a token that is none will not become one.
  await server.token().catch((error) => {
    if (!(error instanceof Unavailable)) throw error
  })
  const attachment = new Attachment({
    url,
    token: () => server.token(),
    holder: runner.holder,
    exec: (environmentId, stream) => runner.exec(environmentId, stream),
    logger
  })
  // Who hears that an environment runs may enter it in the next moment. A server that is away holds nobody up.
  await Promise.race([attachment.attached, sleep(ATTACH_MS, undefined, { ref: false })])
  await runner.start().catch(async (error) => {
    await attachment.close()
    throw error
  })
  logger.info({ url, isolated: sandbox.isolated }, 'running environments')

  let stopping = false
  const stop = async (reason: string) => {
    if (stopping) process.exit(FORCED_EXIT_CODE)
    stopping = true
    logger.info({ reason }, 'stopping')
    await attachment.close()
    await runner.close()
    process.exit(0)
  }
  process.on('SIGTERM', () => void stop('SIGTERM'))
  process.on('SIGINT', () => void stop('SIGINT'))
  process.on('SIGUSR1', () => logger.warn('SIGUSR1 is ignored'))
}
