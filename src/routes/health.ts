import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type Kysely, sql } from 'kysely'
import type { Keyring } from '../keyring/index.ts'
import type { Metrics } from '../metrics.ts'
import type { Database } from '../store/tables.ts'

const LOOPBACK = /^(127\.|::1$|::ffff:127\.)/

/** For those who run the server: is it alive, can it serve, what does it do. Not part of any API. */
export function healthRoutes(
  app: FastifyInstance,
  {
    db,
    keyring,
    metrics,
    isMetricsToken
  }: {
    db: Kysely<Database>
    keyring: Keyring
    metrics: Metrics
    isMetricsToken: (token: string) => boolean
  }
): void {
  const hide = { schema: { hide: true } }

  app.get('/healthz', hide, async () => ({ status: 'ok' }))

  app.get('/readyz', hide, async (_request, reply) => {
    const checks = { database: await canQuery(db), keyring: keyring.isReady }
    const ready = checks.database && checks.keyring
    return reply.code(ready ? 200 : 503).send({ status: ready ? 'ready' : 'not ready', checks })
  })

  app.get('/metrics', hide, async (request, reply) => {
    if (!isLocal(request) && !isMetricsToken(bearer(request))) {
      return reply.code(404).send({ message: 'Not Found' })
    }
    return reply.type(metrics.registry.contentType).send(await metrics.registry.metrics())
  })
}

/** Over the unix socket there is no address; through a proxy `ip` is the client's. */
function isLocal(request: FastifyRequest): boolean {
  return request.ip === undefined || request.ip === '' || LOOPBACK.test(request.ip)
}

function bearer(request: FastifyRequest): string {
  return /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
}

async function canQuery(db: Kysely<Database>): Promise<boolean> {
  try {
    await sql`select 1`.execute(db)
    return true
  } catch {
    return false
  }
}
