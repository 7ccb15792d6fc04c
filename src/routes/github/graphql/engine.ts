import {
  type DocumentNode,
  GraphQLError,
  type GraphQLSchema,
  getVariableValues,
  introspectionFromSchema,
  Kind,
  type OperationDefinitionNode,
  print
} from 'graphql'
import { createSchema, createYoga } from 'graphql-yoga'
import { presentFieldErrors, presentSyntaxError, type QueryError, RefusedQuery, shown } from './errors.ts'
import { requireReadable, requireWithinLimits } from './limits.ts'
import { type QueryContext, RESOLVERS } from './resolvers.ts'
import { TYPES } from './types.ts'
import { requireValid } from './validation.ts'

export interface QueryParameters {
  query: string
  variables: Record<string, unknown>
  operationName: string | undefined
}

export interface QueryResult {
  data?: unknown
  errors?: readonly QueryError[]
}

/**
 * Yoga without its HTTP: Fastify reads and answers, in GitHub's forms, here as everywhere. And without its
 * validation, whose errors quote values. Nothing is cached: a parsed query takes many times its text.
 */
const { getEnveloped } = createYoga<object, QueryContext>({
  schema: createSchema<QueryContext>({
    typeDefs: TYPES,
    resolvers: RESOLVERS,
    inheritResolversFromInterfaces: true
  }),
  logging: false,
  graphiql: false,
  landingPage: false,
  cors: false,
  maskedErrors: false,
  parserAndValidationCache: false
})

function readDocument(parse: (query: string) => DocumentNode, query: string): DocumentNode {
  try {
    requireReadable(query)
    return parse(query)
  } catch (error) {
    if (error instanceof GraphQLError) throw new RefusedQuery([presentSyntaxError(error)])
    throw error
  }
}

function chooseOperation(document: DocumentNode, name: string | undefined): OperationDefinitionNode {
  const operations = document.definitions.filter(
    (definition) => definition.kind === Kind.OPERATION_DEFINITION
  )
  const named = operations.filter((operation) => name === undefined || operation.name?.value === name)
  const [operation] = named
  if (operation && named.length === 1) return operation
  const message =
    name === undefined ? 'An operation name is required' : 'No operation has the name in operationName'
  throw new RefusedQuery([{ message }])
}

/** Throws `RefusedQuery` with what is wrong with the variables; graphql-js would quote their values. */
function requireVariables(
  schema: GraphQLSchema,
  { variableDefinitions = [] }: OperationDefinitionNode,
  variables: QueryParameters['variables']
): void {
  const errors = variableDefinitions.flatMap((definition): QueryError[] => {
    const coerced = getVariableValues(schema, [definition], variables, { maxErrors: 1 })
    const [error] = coerced.errors ?? []
    if (!error) return []
    const name = definition.variable.name.value
    const type = shown(print(definition.type))
    const given = Object.hasOwn(variables, name) ? variables[name] : null
    const explanation =
      given === null ? 'Expected value to not be null' : `Could not coerce the value to ${type}`
    return [
      {
        extensions: { problems: [{ path: [], explanation }] },
        locations: error.locations ?? [],
        message: `Variable $${shown(name)} of type ${type} was provided invalid value`
      }
    ]
  })
  if (errors.length > 0) throw new RefusedQuery(errors)
}

/**
 * Answers a query.
 *
 * @param onUnexpected told what failed, other than on purpose; may throw, to answer otherwise
 */
export async function runQuery(
  { query, variables, operationName }: QueryParameters,
  context: QueryContext,
  requestId: string,
  onUnexpected: (cause: Error) => void
): Promise<QueryResult> {
  try {
    const { schema, parse, execute } = getEnveloped(context)
    const document = readDocument(parse, query)
    requireWithinLimits(document)
    requireValid(schema, document)
    const operation = chooseOperation(document, operationName)
    requireVariables(schema, operation, variables)
    const { data, errors } = await execute({
      schema,
      document,
      contextValue: context,
      variableValues: variables,
      operationName: operation.name?.value
    })
    return errors ? { data, errors: presentFieldErrors(errors, requestId, onUnexpected) } : { data }
  } catch (error) {
    if (error instanceof RefusedQuery) return { errors: error.errors }
    throw error
  }
}

let whole: QueryResult | undefined

/** The whole schema, as the usual introspection query gives it. */
export function introspect(): QueryResult {
  whole ??= { data: introspectionFromSchema(getEnveloped().schema) }
  return whole
}
