import { createLogger } from '../../src/logger.ts'
import { Bubblewrap } from '../../src/runner/bubblewrap.ts'
import { RemoteServer } from '../../src/runner/remote.ts'
import { Runner } from '../../src/runner/runner.ts'
import { runInside } from './running.ts'

// A runner in a process of its own, for tests that kill it: started with the server's URL, a token and a data folder.

export interface RunRequest {
  number: number
  environmentId: string
  script: string
}

process.once('disconnect', () => process.exit())
const [url, token, dataDir] = process.argv.slice(2) as [string, string, string]
const server = new RemoteServer({ url, token, file: `${dataDir}/runner-token` })
const sandbox = await Bubblewrap.open({ hiddenPaths: [dataDir] })
const runner = new Runner(server, sandbox, {
  dataDir,
  renewMs: 100,
  logger: createLogger('trace')
})
process.on('message', async ({ number, environmentId, script }: RunRequest) => {
  const outcome = await runInside(runner, environmentId, script).catch(({ message }) => message)
  process.send!({ number, outcome })
})
await runner.start()
