import { setFlagsFromString } from 'node:v8'
import { Command } from 'commander'
import { loadConfig, readEnvironment } from '../config.ts'
import { createLogger, describeError } from '../logger.ts'
import type { RunningServer } from '../main.ts'

/**
 * How far the heap may grow, in percent of what is in use, before V8 collects it. By itself V8 allows several times as
 * much, and a server that is under load for a while holds that memory as garbage.
 */
const HEAP_GROWING_PERCENT = 75

/**
 * V8 allocates what has outlived a few collections where long-lived objects are. For rows of the database, which it
 * learns under load, that is wrong: dead ones there keep their texts alive through each small collection, and answering
 * with a list costs a third more until the process ends.
 */
const NO_PRETENURING = '--no-allocation-site-pretenuring'

/** A second signal does not wait for requests under way. */
const FORCED_EXIT_CODE = 130

export function serveCommand(): Command {
  return new Command('serve')
    .description('Run the server; configured by the environment, see .env.example.')
    .action(run)
}

async function run(): Promise<void> {
  setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`)
  setFlagsFromString(NO_PRETENURING)
  const { config, secrets } = loadConfig(readEnvironment())
  // The web server is no burden to the other commands.
  const { reloadTls, serve } = await import('../main.ts')
  const logger = createLogger(config.logLevel)
  process.on('exit', () => logger.flush())
  let server: RunningServer | undefined
  let stopping = false

  const stop = async (reason: string, exitCode: number) => {
    if (stopping) process.exit(FORCED_EXIT_CODE)
    stopping = true
    logger.info({ reason }, 'stopping')
    await server?.close()
    process.exit(exitCode)
  }
  process.on('SIGTERM', () => void stop('SIGTERM', 0))
  process.on('SIGINT', () => void stop('SIGINT', 0))
  process.on('SIGHUP', () => void (server && reloadTls(config, server.app, logger)))
  // Without a handler this signal opens Node's debugger, and with it all keys.
  process.on('SIGUSR1', () => logger.warn('SIGUSR1 is ignored'))
  process.on('unhandledRejection', (error) => {
    logger.fatal({ err: describeError(error) }, 'unhandled rejection')
    void stop('defect', 1)
  })

  server = await serve(config, secrets, {
    logger,
    terminal: process.stdout.isTTY === true,
    print: (line) => process.stdout.write(`${line}\n`),
    onLost: (error) => {
      logger.fatal(error.message)
      void stop('database taken over', 1)
    }
  })
}
