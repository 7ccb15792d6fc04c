import type { FastifyInstance, FastifyPluginCallback, FastifyReply, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import type { Denials } from '../../audit/denials.ts'
import { ACCESS } from '../../auth/access.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import type { RateLimits } from '../../auth/rate-limits.ts'
import type { TokenLifetimes } from '../../directory/tokens.ts'
import type { LiveUpdates } from '../../environments/live.ts'
import type { Wakes } from '../../environments/wakes.ts'
import type { EventHub } from '../../events/hub.ts'
import type { Keyring } from '../../keyring/index.ts'
import type { Metrics } from '../../metrics.ts'
import type { Deliveries, Vault } from '../../secrets/vault.ts'
import type { Database } from '../../store/tables.ts'
import { VERSION } from '../../version.ts'
import { decode, parseBody } from './decode.ts'
import { denialOf } from './denials.ts'
import { describeServices } from './description.ts'
import { environmentService } from './environments.ts'
import { answerUnknownEncoding, answerUnknownMethod, handleError } from './errors.ts'
import { eventService } from './events.ts'
import { groupService } from './groups.ts'
import { asRevoked, countAnybody, decorate, settleAccess, settleMessage } from './guard.ts'
import { identityService } from './identity.ts'
import { Lines } from './lines.ts'
import { type Method, pathOf, type Service, type StreamMethod } from './method.ts'
import { organizationService } from './organizations.ts'
import { Pages } from './pagination.ts'
import { projectService } from './projects.ts'
import { resolutionService } from './resolution.ts'
import { runnerConfigurationService } from './runner-configurations.ts'
import { runnerInterfaceService } from './runner-interface.ts'
import { runnerService } from './runners.ts'
import { secretService } from './secrets.ts'
import { serviceAccountService } from './service-accounts.ts'
import { userService } from './users.ts'

export interface OnaDependencies {
  db: Kysely<Database>
  keyring: Keyring
  vault: Vault
  deliveries: Deliveries
  authenticator: Authenticator
  /** undefined: none are set, and nothing is counted */
  rateLimits: RateLimits | undefined
  metrics: Metrics
  denials: Denials
  tokenLifetimes: TokenLifetimes
  events: EventHub
  /** runners that wait for work */
  wakes: Wakes
  liveUpdates: Pick<LiveUpdates, 'lookAgain'>
  /** the server is about to close */
  closing: AbortSignal
  /** hosts of git whose repositories are those that are known here */
  gitHosts: () => ReadonlySet<string>
  /** why this server runs no environments itself; undefined: it does */
  hostedRefusal: () => string | undefined
  pages: Pages
}

/** All that is served, in the order in which it is documented. */
export function onaServices(dependencies: OnaDependencies): Service[] {
  return [
    secretService(dependencies),
    projectService(dependencies),
    identityService(dependencies),
    userService(dependencies),
    organizationService(dependencies),
    serviceAccountService(dependencies),
    groupService(dependencies),
    environmentService(dependencies),
    runnerService(dependencies),
    runnerConfigurationService(dependencies),
    eventService(dependencies),
    resolutionService(dependencies),
    runnerInterfaceService(dependencies)
  ]
}

/** How paths of methods begin, Ona's and ours; their usual base is `/api`. */
const PREFIXES = ['/gitpod.v1.', '/coffer.v1.']

export function isMethodPath(url: string): boolean {
  return PREFIXES.some((prefix) => url.startsWith(prefix))
}

/** Protobuf by any of its names, gRPC, and Connect's streams, whose JSON has five bytes before it. */
const OTHER_ENCODINGS = /^\s*application\/(?:connect\+|grpc|(?:x-|vnd\.google\.)?proto)/i

/** Where Swagger UI finds the description of this API. */
export const ONA_DESCRIPTION = '/docs/ona.json'

/**
 * Ona's API in a scope of its own: each method a route, `POST /gitpod.v1.SERVICE/METHOD`, in the dialect of JSON that
 * its SDKs of version 0 speak. Protobuf on the same paths is told apart by its content type.
 */
export function onaApi(dependencies: Omit<OnaDependencies, 'pages'>): FastifyPluginCallback {
  return (app, _options, done) => {
    const all = { ...dependencies, pages: new Pages(dependencies.keyring) }
    decorate(app)
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, parsed) => parsed(null, body))
    app.setErrorHandler<Error>(async (thrown, request, reply) => {
      const { operationId } = request.routeOptions.schema as { operationId?: string }
      const { id: requestId, ip: address, call } = request
      const error = await asRevoked(dependencies.db, thrown, call)
      const denial = denialOf(error, { requestId, address, operationId, call })
      if (denial) dependencies.denials.record(denial)
      handleError(error, request, reply)
      return reply
    })
    app.addHook('onRequest', (request, reply, next) => {
      setCommonHeaders(request, reply)
      if (OTHER_ENCODINGS.test(request.headers['content-type'] ?? '')) {
        answerUnknownEncoding(reply)
        return
      }
      // There is only one way to read a body, whatever it is called, or none.
      request.raw.headers['content-type'] = 'application/json'
      next()
    })
    const services = onaServices(all)
    for (const service of services) {
      for (const method of service.methods) serve(app, all, service, method)
    }
    const description = JSON.stringify(describeServices(services, VERSION))
    app.get(ONA_DESCRIPTION, { schema: { hide: true } }, (_request, reply) => {
      reply.type('application/json').send(description)
    })
    const answerUnknown = async (request: FastifyRequest, reply: FastifyReply) => {
      if (dependencies.rateLimits) await countAnybody(dependencies, request)
      answerUnknownMethod(request, reply)
      return reply
    }
    // Before a body is read, which nobody would look at.
    for (const prefix of PREFIXES) {
      app.all(`${prefix}*`, { onRequest: answerUnknown, schema: { hide: true } }, () => {})
    }
    done()
  }
}

/**
 * A long answer in bytes at once: as a string it is flattened, measured and copied to threefold room on its way to the
 * socket. A short one, which may have a value in it, does not go into memory that node's buffers share.
 */
function bytesOf(answer: string): string | Buffer {
  return answer.length > Buffer.poolSize ? Buffer.from(answer) : answer
}

function setCommonHeaders(request: FastifyRequest, reply: FastifyReply): void {
  reply.header('cache-control', 'no-store').header('x-request-id', request.id)
}

/** A path that the router cannot even decode: malformed percent-encoding. */
export function handleOnaRouterError(_error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  setCommonHeaders(request, reply)
  answerUnknownMethod(request, reply)
}

function serve(
  app: FastifyInstance,
  dependencies: OnaDependencies,
  service: Service,
  method: Method | StreamMethod
): void {
  if (!ACCESS[method.access]) throw new Error(`${service.name}/${method.name} declares no access`)
  app.post<{ Body: Buffer | undefined }>(
    pathOf(service, method),
    {
      onRequest: settleAccess(dependencies, method),
      config: { stream: method.stream === true },
      schema: {
        hide: true,
        operationId: `${service.name}/${method.name}`,
        response: { 200: method.response }
      }
    },
    async (request, reply) => {
      const call = request.call!
      const input = decode(method.request, parseBody(request.body ?? Buffer.alloc(0)))
      await settleMessage(dependencies, method, input, call)
      if (method.stream) {
        const begin = await method.open(input, call)
        begin(new Lines(reply))
        return reply
      }
      // With a serializer that is named, the framework adds no charset to the type, which Connect's has not.
      const serialize = reply.getSerializationFunction('200') as (message: unknown) => string
      reply.type('application/json').serializer((message) => bytesOf(serialize(message)) as string)
      return await method.handle(input, call)
    }
  )
}
