import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Authenticator } from '../../auth/authenticate.ts'
import {
  addressSubject,
  type RateLimits,
  type RateResource,
  type Subject,
  tokenSubject
} from '../../auth/rate-limits.ts'
import { NotFound, type Standing, Unauthenticated } from '../../errors.ts'
import { describeError } from '../../logger.ts'
import { setRateLimitHeaders } from './headers.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** does not count against rate limits */
    uncounted?: boolean
  }
  interface FastifyRequest {
    /** under way while the guard asks for other things; settled before anything is answered */
    counting: Promise<void> | undefined
    counted: { subject: Subject; standing: Standing } | undefined
  }
}

type Hook = (request: FastifyRequest, reply: FastifyReply) => Promise<void>

/** Which routes are counted apart from the others, as GitHub counts them. */
const RESOURCES: readonly { resource: RateResource; routes: RegExp }[] = [
  { resource: 'codespaces', routes: /\/codespaces\// },
  { resource: 'graphql', routes: /\/graphql$/ }
]

function resourceOf(url: string): RateResource {
  return RESOURCES.find(({ routes }) => routes.test(url))?.resource ?? 'core'
}

/** What the guard of one route does about limits. */
export interface RouteLimiter {
  /** the guard knows who asks: counts, beside what the guard does next */
  begin(request: FastifyRequest, reply: FastifyReply, subject: Subject): void
  /** a guard that answers nothing before its request is counted, a refusal neither */
  around(settle: Hook): Hook
}

/** Counts requests where the operator has set limits: by token, or by address where there is no valid one. */
export class Limiter {
  readonly #limits: RateLimits
  readonly #authenticator: Authenticator

  constructor(limits: RateLimits, authenticator: Authenticator) {
    this.#limits = limits
    this.#authenticator = authenticator
  }

  /** To be called before the routes of a scope are added. */
  install(app: FastifyInstance): void {
    app.decorateRequest('counting')
    app.decorateRequest('counted')
    app.addHook('onSend', async (request, reply) => {
      if (reply.statusCode === 304) await this.#giveBack(request, reply)
    })
  }

  forRoute(url: string): RouteLimiter {
    const resource = resourceOf(url)
    return {
      begin: (request, reply, subject) => {
        request.counting = this.#count(request, reply, subject, resource)
        request.counting.catch(() => {})
      },
      around: (settle) => async (request, reply) => {
        try {
          await settle(request, reply)
        } catch (error) {
          if (error instanceof Unauthenticated) await this.#countAddress(request, reply)
          else if (error instanceof NotFound && !request.counting) await this.countAnybody(request, reply)
          throw error
        } finally {
          await request.counting
        }
      }
    }
  }

  /** Where no token is asked for: a valid one counts all the same, and guessing is a failed login here, too. */
  readonly countAnybody: Hook = async (request, reply) => {
    const { authorization } = request.headers
    try {
      const { token } =
        this.#authenticator.recall(authorization) ??
        (await this.#authenticator.authenticate(authorization, request.ip))
      await this.#count(request, reply, tokenSubject(token.id), 'core')
    } catch (error) {
      if (!(error instanceof Unauthenticated)) throw error
      await this.#countAddress(request, reply)
    }
  }

  async #countAddress(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    await this.#count(request, reply, addressSubject(request.ip), 'core')
  }

  /** Throws at once, before there is a promise, where it is known that the limit is reached. */
  #count(
    request: FastifyRequest,
    reply: FastifyReply,
    subject: Subject,
    resource: RateResource
  ): Promise<void> {
    return this.#limits.count(subject, resource).then((standing) => {
      request.counted = { subject, standing }
      setRateLimitHeaders(reply, standing)
    })
  }

  /** An answer that the client had already does not count, if it came with a token. */
  async #giveBack(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    if (!request.counted || request.counted.subject.kind === 'address') return
    const { subject, standing } = request.counted
    try {
      setRateLimitHeaders(reply, await this.#limits.giveBack(subject, standing))
    } catch (error) {
      request.log.warn({ reqId: request.id, err: describeError(error) }, 'a 304 was counted')
    }
  }
}
