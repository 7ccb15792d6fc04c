import type { Test } from 'tap'
import { HostedServer } from '../../src/environments/hosted.ts'
import { openSandbox, readByApi } from '../../src/hosted-runner.ts'
import type { TestServer } from '../helper.ts'
import { makeDataDir, type StartOptions, startRunner } from '../runner/running.ts'

// Environments of this server run for real: its organizations have a class for them from their beginning.

/**
 * A runner in the process of a server, as `coffer serve` has it: with bubblewrap, and reached by commands. Its folders
 * are gone at the end, when it has left its environments, which is before the server closes.
 *
 * @param server started with `events: true`, or the runner hears of work late; who runs commands needs `listen()`
 */
export async function startRunnerOf(
  t: Test,
  { app, db }: Pick<TestServer, 'app' | 'db'>,
  { folders, ...options }: StartOptions = {}
) {
  const own = folders ?? (await makeDataDir(t))
  const sandbox =
    options.sandbox ?? (await openSandbox({ unisolated: false, user: undefined }, [own.dataDir]))
  const server = new HostedServer(db, app.wakes, readByApi(app), () => app.baseUrl())
  const started = await startRunner(t, server, { ...options, sandbox, folders: own })
  t.teardown(app.attachments.add({ runner: 'hosted', holder: started.runner.holder }, started.runner))
  return started
}
