import type { FastifyInstance, FastifyPluginCallback, FastifyReply, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import type { Denials } from '../../audit/denials.ts'
import { ACCESS } from '../../auth/access.ts'
import type { Authenticator } from '../../auth/authenticate.ts'
import type { RateLimits } from '../../auth/rate-limits.ts'
import type { TokenLifetimes } from '../../directory/tokens.ts'
import type { Keyring } from '../../keyring/index.ts'
import type { Metrics } from '../../metrics.ts'
import type { Vault } from '../../secrets/vault.ts'
import type { Database } from '../../store/tables.ts'
import { decode, parseBody } from './decode.ts'
import { denialOf } from './denials.ts'
import { answerUnknownEncoding, answerUnknownMethod, handleError } from './errors.ts'
import { countAnybody, decorate, settleAccess, settleMessage } from './guard.ts'
import { type Method, pathOf, type Service } from './method.ts'
import { Pages } from './pagination.ts'
import { projectService } from './projects.ts'
import { secretService } from './secrets.ts'

export interface OnaDependencies {
  db: Kysely<Database>
  keyring: Keyring
  vault: Vault
  authenticator: Authenticator
  /** undefined: none are set, and nothing is counted */
  rateLimits: RateLimits | undefined
  metrics: Metrics
  denials: Denials
  tokenLifetimes: TokenLifetimes
  pages: Pages
}

/** All that is served, in the order in which it is documented. */
export function onaServices(dependencies: OnaDependencies): Service[] {
  return [secretService(dependencies), projectService(dependencies)]
}

/** How the path of every method begins; its usual base is `/api`. */
export const ONA_PREFIX = '/gitpod.v1.'

/** Protobuf by any of its names, gRPC, and Connect's streams, whose JSON has five bytes before it. */
const OTHER_ENCODINGS = /^\s*application\/(?:connect\+|grpc|(?:x-|vnd\.google\.)?proto)/i

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
    app.setErrorHandler<Error>((error, request, reply) => {
      const denial = denialOf(error, request)
      if (denial) dependencies.denials.record(denial)
      handleError(error, request, reply)
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
    for (const service of onaServices(all)) {
      for (const method of service.methods) serve(app, all, service, method)
    }
    const answerUnknown = async (request: FastifyRequest, reply: FastifyReply) => {
      if (dependencies.rateLimits) await countAnybody(dependencies, request)
      answerUnknownMethod(request, reply)
      return reply
    }
    // Before a body is read, which nobody would look at.
    app.all(`${ONA_PREFIX}*`, { onRequest: answerUnknown, schema: { hide: true } }, () => {})
    done()
  }
}

function setCommonHeaders(request: FastifyRequest, reply: FastifyReply): void {
  reply.header('cache-control', 'no-store').header('x-request-id', request.id)
}

/** A path that the router cannot even decode: malformed percent-encoding. */
export function handleOnaRouterError(_error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  setCommonHeaders(request, reply)
  answerUnknownMethod(request, reply)
}

function serve(app: FastifyInstance, dependencies: OnaDependencies, service: Service, method: Method): void {
  if (!ACCESS[method.access]) throw new Error(`${service.name}/${method.name} declares no access`)
  app.post<{ Body: Buffer | undefined }>(
    pathOf(service, method),
    {
      onRequest: settleAccess(dependencies, method),
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
      // With a serializer that is named, the framework adds no charset to the type, which Connect's has not.
      reply.type('application/json').serializer(reply.getSerializationFunction('200')!)
      return await method.handle(input, call)
    }
  )
}
