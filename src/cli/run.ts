import { Command } from 'commander'
import type { ApiClient } from './api-client.ts'
import { openClient, say } from './env/client.ts'
import { runRemotely, workingDirectoryOf } from './env/command.ts'
import { addCreationOptions, type CreationOptions, createEnvironment, readCreation } from './env/creation.ts'
import { askToDelete } from './env/delete.ts'
import { describeFailedSecret, failedSecretsOf, fullNameOf } from './env/describe.ts'
import type { Environment } from './env/messages.ts'
import { throughOutage } from './env/outage.ts'
import { Progress } from './env/progress.ts'
import { openSession } from './env/session.ts'
import { Signals, statusOfSignal } from './env/signals.ts'
import { StoppedWaiting, waitFor } from './env/wait.ts'
import { CommandFailed, explain, outliveReaders, refuseMisuse } from './terminal.ts'

const HELP = `
It makes an environment from the project, runs the command in it with its secrets, and deletes the environment: also
when the command fails, a signal comes, or the connection is lost. Only when this process is killed outright, nobody
deletes it; it is stopped when nobody has been at work in it for its timeout (30m).

Standard input, output and error are the command's, and so are signals. It asks the server at COFFER_URL
(http://127.0.0.1:3000) with COFFER_TOKEN, or COFFER_TOKEN_FILE; a .env in the working folder is not read.

Exit code: the command's, 128 + n when signal n ended it; 1 when it could not be run, the connection was lost, or the
environment could not be deleted; 2 when what was asked cannot be.

Examples:
  $ npx coffer run --project web -- npm test
  $ npx coffer run --project web --branch fix-login --strict -- sh -c 'npm ci && npm test'
  $ npx coffer run --project web --tty -- bash
  $ npx coffer run --project web --keep --name review -- make seed`

interface RunOptions extends CreationOptions {
  cwd?: string
  tty?: true
  keep?: true
  strict?: true
  verbose?: true
}

export function runCommand(): Command {
  const command = refuseMisuse(new Command('run'))
    .description('Run a command in an environment that is made for it, and deleted afterwards.')
    .argument('<command...>', 'the command and its arguments, after --')
    .passThroughOptions()
  return addCreationOptions(command)
    .option('--cwd <folder>', 'where it is run; the workspace otherwise')
    .option('-t, --tty', 'give it a terminal, as large as this one')
    .option('--keep', 'leave the environment as it is')
    .option('--strict', 'do not run it when a secret is not delivered')
    .option('-v, --verbose', 'tell how the environment comes along, also where nobody looks')
    .addHelpText('after', HELP)
    .action(run)
}

async function run(command: string[], options: RunOptions): Promise<void> {
  outliveReaders()
  const client = openClient()
  const creation = await readCreation(client, options)
  const stop = new AbortController()
  const signals = new Signals((name) => {
    if (name !== 'SIGUSR1' && name !== 'SIGUSR2') stop.abort(name)
  })
  try {
    const environment = await createEnvironment(client, creation)
    const status = await runIn(environment, { client, command, options, signals, stop: stop.signal })
    const isClean = options.keep ? tellKept(environment) : await cleanUp(client, environment, signals)
    process.exitCode = status === 0 && !isClean ? 1 : status
  } finally {
    signals.close()
  }
}

interface Run {
  client: ApiClient
  command: string[]
  options: RunOptions
  signals: Signals
  stop: AbortSignal
}

/** The exit status; what went wrong is told. */
async function runIn(
  environment: Environment,
  { client, command, options, signals, stop }: Run
): Promise<number> {
  try {
    const { cwd, tty, verbose } = options
    const progress = new Progress(verbose || process.stderr.isTTY ? say : () => {})
    const onState = progress.report.bind(progress)
    const running = await waitFor(client, environment.id!, 'running', { signal: stop, onState })
    requireSecrets(running!, options)
    const session = await openSession(client, environment.id!)
    if (!stop.aborted) {
      const order = { command, ...workingDirectoryOf(running!, cwd), ...(tty && { tty }) }
      return await runRemotely(session, order, signals)
    }
    session.destroy()
  } catch (error) {
    if (!(error instanceof StoppedWaiting)) {
      say(explain(error))
      return 1
    }
  }
  say('coffer: stopped; the command was not run.')
  return statusOfSignal(stop.reason)
}

function requireSecrets(environment: Environment, { strict, verbose }: RunOptions): void {
  const failed = failedSecretsOf(environment).map(describeFailedSecret)
  if (strict && failed.length > 0) throw new CommandFailed(`The command is not run: ${failed.join('; ')}`)
  // Progress has told them otherwise.
  if (!verbose && !process.stderr.isTTY) for (const line of failed) say(`coffer: ${line}`)
}

function tellKept(environment: Environment): true {
  say(`coffer: ${fullNameOf(environment)} stays. To delete it: npx coffer env delete ${environment.id}`)
  return true
}

/** Whether the server will delete it; a signal that comes twice ends this. */
async function cleanUp(
  { patience: _, ...client }: ApiClient,
  { id }: Environment,
  signals: Signals
): Promise<boolean> {
  const given = new AbortController()
  let asked = false
  const take = (name: NodeJS.Signals) => {
    if (asked) given.abort(name)
    else say('coffer: deleting the environment; once more leaves it there.')
    asked = true
  }
  try {
    await signals.during(take, () => throughOutage(() => askToDelete(client, id!), given.signal))
    return true
  } catch (error) {
    say(explain(error))
    say(`coffer: the environment may be there still. To delete it: npx coffer env delete ${id}`)
    return false
  }
}
