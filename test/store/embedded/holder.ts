import { once } from 'node:events'
import { attachEmbedded, holdEmbedded, serveEmbedded } from '../../../src/store/embedded/embedded-postgres.ts'

// A process that opens a database, says so in one line of JSON, and closes it when its input ends.
const open = { serve: serveEmbedded, attach: attachEmbedded, hold: holdEmbedded }
const [mode, options] = process.argv.slice(2) as [keyof typeof open, string]
try {
  const database = await open[mode]({ ...JSON.parse(options), log: () => {} })
  console.log(JSON.stringify(database))
  await once(process.stdin.resume(), 'end')
  await database.close()
} catch (error) {
  console.log(JSON.stringify({ refused: (error as Error).message, name: (error as Error).name }))
}
