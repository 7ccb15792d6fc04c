import { type Static, Type } from '@sinclair/typebox'
import { tokenSubject } from '../../auth/rate-limits.ts'
import { NotFound, type Standing } from '../../errors.ts'
import type { GitHubRoutes } from './github.ts'
import { readApiVersion, remainingOf, setRateLimitHeaders } from './headers.ts'
import { responses } from './schemas.ts'

// https://docs.github.com/rest/rate-limit/rate-limit

const Rate = Type.Object({
  limit: Type.Integer({ description: 'Requests in a window' }),
  used: Type.Integer(),
  remaining: Type.Integer(),
  reset: Type.Integer({ description: 'When the window ends, in seconds since 1970' })
})

const RateLimitOverview = Type.Object({
  resources: Type.Object({ core: Rate, search: Rate, graphql: Rate, codespaces: Rate }),
  rate: Type.Optional(Rate)
})

export const rateLimitRoutes: GitHubRoutes = (app, { rateLimits }) => {
  app.get(
    '/rate_limit',
    {
      config: {
        access: 'authenticated',
        uncounted: true,
        docs: 'https://docs.github.com/rest/rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user'
      },
      schema: {
        tags: ['meta'],
        operationId: 'rate-limit/get',
        summary: 'Where this token stands; 404 where no limits are set, as on GitHub Enterprise Server',
        response: responses({ 200: RateLimitOverview })
      }
    },
    async (request, reply): Promise<Static<typeof RateLimitOverview>> => {
      if (!rateLimits) throw new NotFound('Rate limiting is not enabled.')
      const { core, graphql, codespaces } = await rateLimits.overview(tokenSubject(request.actor.token.id))
      setRateLimitHeaders(reply, core)
      // There is nothing to search here, but GitHub's form has it, and clients may insist.
      const search = { ...core, limit: 0, used: 0 }
      return {
        resources: {
          core: presentRate(core),
          search: presentRate(search),
          graphql: presentRate(graphql),
          codespaces: presentRate(codespaces)
        },
        ...(readApiVersion(request) === '2022-11-28' && { rate: presentRate(core) })
      }
    }
  )
}

function presentRate(standing: Standing): Static<typeof Rate> {
  const { limit, used, reset } = standing
  return { limit, used, remaining: remainingOf(standing), reset }
}
