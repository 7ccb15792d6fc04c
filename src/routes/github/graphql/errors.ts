import { GraphQLError, type SourceLocation } from 'graphql'

/** GitHub's form of one error in the answer to a query, in its order. */
export interface QueryError {
  type?: string
  path?: readonly (string | number)[]
  extensions?: Record<string, unknown>
  locations?: readonly SourceLocation[]
  message: string
}

/** The query is answered with these errors and without data. */
export class RefusedQuery extends Error {
  readonly errors: readonly QueryError[]

  constructor(errors: readonly QueryError[]) {
    super('The query is refused.')
    this.name = 'RefusedQuery'
    this.errors = errors
  }
}

/** An error of one field, thrown on purpose while a query is resolved; `message` is GitHub's. */
export function fieldError(type: string, message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { type } })
}

export function tooLarge(rule: string): RefusedQuery {
  return new RefusedQuery([
    { type: 'RESOURCE_LIMITS_EXCEEDED', message: `Resource limits for this query exceeded: ${rule}.` }
  ])
}

const LONGEST_SHOWN = 40

/**
 * A name as errors may show it. Names of fields, types and variables are code and GitHub tells them; but what is
 * longer than any name of a schema may be a token in the wrong place.
 */
export function shown(name: string): string {
  return name.length <= LONGEST_SHOWN ? name : `${name.slice(0, 4)}…`
}

const TOLD_BY_PARSER =
  /^Syntax Error: (?:(Expected (?:[A-Za-z]+|"[^"\w]+"|"on"), found)|Unexpected) (?:(<EOF>|"[^"\w]+")|(Name|Int|Float|String|BlockString) )/

/** What the parser says of a text that is no query, without the words and values that it quotes. */
export function presentSyntaxError(error: GraphQLError): QueryError {
  const { locations = [] } = error
  const at = locations[0] ? ` at [${locations[0].line}, ${locations[0].column}]` : ''
  const [, expected = 'Unexpected', mark, kind] = TOLD_BY_PARSER.exec(error.message) ?? []
  const found = mark ?? kind
  return { locations, message: found ? `${expected} ${found}${at}` : `Parse error${at}` }
}

/** What an error of execution was before the executor wrapped it. */
function originOf(error: GraphQLError): Error {
  let origin: Error = error
  while (origin instanceof GraphQLError && origin.originalError) origin = origin.originalError
  return origin
}

/** Where in the text an error is, as one number. */
function positionOf({ locations = [] }: QueryError): number {
  const [{ line, column } = { line: 0, column: 0 }] = locations
  return line * 1e6 + column
}

const BAD_ARGUMENT = /^Argument "/

/**
 * Errors of execution: those that were thrown on purpose as they are, arguments that turn out to be wrong without
 * their values, all others as one, which says nothing of the cause.
 *
 * @param onUnexpected told each cause once; may throw, when the whole answer has to be another
 */
export function presentFieldErrors(
  errors: readonly GraphQLError[],
  requestId: string,
  onUnexpected: (cause: Error) => void
): QueryError[] {
  const presented: QueryError[] = []
  const unexpected = new Set<Error>()
  for (const error of errors) {
    const { path = [], locations = [] } = error
    const cause = originOf(error)
    if (cause instanceof GraphQLError && typeof cause.extensions.type === 'string') {
      presented.push({ type: cause.extensions.type, path, locations, message: cause.message })
    } else if (cause instanceof GraphQLError && BAD_ARGUMENT.test(cause.message)) {
      presented.push({ path, locations, message: 'An argument has a value that its type does not allow.' })
    } else {
      unexpected.add(cause)
    }
  }
  // The executor has them as they came in, which depends on the database.
  presented.sort((a, b) => positionOf(a) - positionOf(b))
  for (const cause of unexpected) onUnexpected(cause)
  if (unexpected.size > 0) {
    presented.push({
      message:
        'Something went wrong while executing your query. ' +
        `Please include \`${requestId}\` when reporting this issue.`
    })
  }
  return presented
}
