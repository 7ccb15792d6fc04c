import { buildApp } from '../src/app.ts'
import { Keyring } from '../src/keyring/index.ts'
import { createLogger } from '../src/logger.ts'
import { describeServices } from '../src/routes/rpc/description.ts'
import type { Service } from '../src/routes/rpc/method.ts'
import { type OnaDependencies, onaServices } from '../src/routes/rpc/ona.ts'
import { Pages } from '../src/routes/rpc/pagination.ts'
import { openDatabase } from '../src/store/database.ts'
import { VERSION } from '../src/version.ts'

/** Connects to nothing until it is asked something. */
function openNoDatabase() {
  return openDatabase({ connection: 'postgres://localhost/none', poolSize: 1, prepare: false })
}

/** The OpenAPI description of GitHub's API as this server speaks it, made from the routes; connects to nothing. */
export async function describeGitHubApi(): Promise<object> {
  const db = openNoDatabase()
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

/** The services of Ona's API, to be looked at and not to be called. */
export function listOnaServices(): Service[] {
  const keyring = new Keyring([])
  return onaServices({ db: openNoDatabase(), keyring, pages: new Pages(keyring) } as OnaDependencies)
}

/** The OpenAPI description of Ona's API as this server speaks it, made from the services; connects to nothing. */
export function describeOnaApi(): object {
  return describeServices(listOnaServices(), VERSION)
}
