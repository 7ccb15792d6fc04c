import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { CofferError, UnreadableBody } from '../../errors.ts'
import { describeError } from '../../logger.ts'
import { isTemporaryDatabaseError } from '../../store/database.ts'
import type { GitHubRoutes } from './github.ts'
import type { QueryParameters, QueryResult } from './graphql/engine.ts'
import { Lookups } from './graphql/lookups.ts'
import { Nullable, responses } from './schemas.ts'

// As much of GitHub's GraphQL API as clients of secrets ask for. https://docs.github.com/graphql

const DOCS = 'https://docs.github.com/graphql/guides/forming-calls-with-graphql'
const TAGS = ['graphql']

/** More than a query for the ids of five hundred repositories with the longest names. */
const MAX_BODY_BYTES = 128 * 1024

const Query = Type.Object({
  query: Type.String({ description: 'The document: operations and fragments' }),
  variables: Type.Optional(Nullable(Type.Object({}, { additionalProperties: true }))),
  operationName: Type.Optional(
    Nullable(Type.String({ description: 'Which operation, when the query has several' }))
  )
})
const Result = Type.Object({
  data: Type.Optional(Nullable(Type.Object({}, { additionalProperties: true }))),
  errors: Type.Optional(
    Type.Array(
      Type.Object({
        type: Type.Optional(Type.String()),
        path: Type.Optional(Type.Array(Type.Union([Type.String(), Type.Integer()]))),
        extensions: Type.Optional(Type.Object({}, { additionalProperties: true })),
        locations: Type.Optional(Type.Array(Type.Object({ line: Type.Integer(), column: Type.Integer() }))),
        message: Type.String()
      })
    )
  )
})

type Engine = typeof import('./graphql/engine.ts')
let engine: Promise<Engine> | undefined

/** With the first query: the library takes a third of a second and 7 MB, which most servers do without. */
function loadEngine(): Promise<Engine> {
  engine ??= import('./graphql/engine.ts')
  return engine
}

/** What a body asks for, or what is wrong with it. */
function readQuery(body: unknown): QueryParameters | QueryResult {
  const object = body ?? {}
  if (typeof object !== 'object' || Array.isArray(object)) {
    throw new UnreadableBody('Body should be a JSON object')
  }
  const { query, variables, operationName } = object as Record<string, unknown>
  if (typeof query !== 'string' || query === '') {
    return refuse('A query attribute must be specified and must be a string.')
  }
  if (typeof (variables ?? {}) !== 'object' || Array.isArray(variables)) {
    return refuse('The variables attribute must be a JSON object.')
  }
  if (typeof (operationName ?? '') !== 'string') {
    return refuse('The operationName attribute must be a string.')
  }
  return {
    query,
    variables: (variables ?? {}) as Record<string, unknown>,
    operationName: (operationName as string | null | undefined) || undefined
  }
}

function refuse(message: string): QueryResult {
  return { errors: [{ message }] }
}

/** Ends the request as the REST API would, or is logged; the answer says nothing of the cause. */
function onUnexpected({ log, id }: FastifyRequest, cause: Error): void {
  if (cause instanceof CofferError || isTemporaryDatabaseError(cause)) throw cause
  log.error({ reqId: id, err: describeError(cause) }, 'query failed')
}

export const graphqlRoutes: GitHubRoutes = (app, { db }) => {
  app.post(
    '/graphql',
    {
      bodyLimit: MAX_BODY_BYTES,
      // described by the schema, and read as GitHub reads it, whose errors are another API's
      validatorCompiler: () => () => true,
      config: { access: 'authenticated', docs: DOCS, reads: true },
      schema: {
        tags: TAGS,
        operationId: 'graphql/query',
        summary: 'Ask for several things of the directory at once',
        description: 'Errors of a query are answered with 200 and `errors`. Also at `/api/graphql`.',
        body: Query,
        response: responses({ 200: Result })
      }
    },
    async (request, reply) => {
      const parameters = readQuery(request.body)
      reply.type('application/json; charset=utf-8').serializer(JSON.stringify)
      if (!('query' in parameters)) return parameters
      const { actor } = request
      const { runQuery } = await loadEngine()
      const context = { actor, lookups: new Lookups(db, actor), pages: app.baseUrl() }
      return await runQuery(parameters, context, request.id, (cause) => onUnexpected(request, cause))
    }
  )

  app.get(
    '/graphql',
    {
      config: { access: 'authenticated', docs: `${DOCS}#the-graphql-endpoint` },
      schema: {
        tags: TAGS,
        operationId: 'graphql/schema',
        summary: 'The GraphQL schema, as introspection gives it',
        response: responses({ 200: Result })
      }
    },
    async (_request, reply) => {
      const { introspect } = await loadEngine()
      reply.type('application/json; charset=utf-8').serializer(JSON.stringify)
      return introspect()
    }
  )
}
