import { buildApp } from '../src/app.ts'
import { Keyring } from '../src/keyring/index.ts'
import { createLogger } from '../src/logger.ts'
import { openDatabase } from '../src/store/database.ts'

/** The OpenAPI description of GitHub's API as this server speaks it, made from the routes; connects to nothing. */
export async function describeGitHubApi(): Promise<object> {
  const db = openDatabase({ connection: 'postgres://localhost/none', poolSize: 1, prepare: false })
  const app = await buildApp({
    db,
    keyring: new Keyring([]),
    reloadGenerations: async () => {},
    limits: { maxValueBytes: 49_152, maxSecrets: undefined },
    tokenLifetimes: { defaultDays: 90, maxDays: 366 },
    logger: createLogger('silent')
  })
  try {
    return app.swagger()
  } finally {
    await app.close()
    await db.destroy()
  }
}
