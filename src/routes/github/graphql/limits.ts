import {
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  Kind,
  Lexer,
  type SelectionSetNode,
  Source,
  TokenKind
} from 'graphql'
import { tooLarge } from './errors.ts'

/** A query for the ids of five hundred repositories has 14 tokens for each. */
const MAX_TOKENS = 8_000
/** Brackets in brackets: the parser calls itself for each, and the stack is finite. */
const MAX_NESTING = 50
/** Operations and fragments: whether fields can be merged is asked of each pair of fragments. */
const MAX_DEFINITIONS = 50
/** Fields and fragments in each other. The usual introspection query has 18, clients have 6. */
const MAX_DEPTH = 25
/** Fields to resolve, those of fragments in each place and those of a list for each entry that it may have. */
const MAX_FIELDS = 20_000
/** Lists to read, each with queries of its own; repositories by name, however many, take one. */
const MAX_LISTS = 10
/** Fields below `__schema` and `__type`, each resolved for every type or field. The usual query has 230. */
const MAX_INTROSPECTED = 500
/** How often a path may go through the lists of a type: each multiplies, and the usual query needs one. */
const MAX_TYPE_LISTS = 1
export const MAX_PAGE = 100

const OPENS: readonly string[] = [TokenKind.BRACE_L, TokenKind.BRACKET_L, TokenKind.PAREN_L]
const CLOSES: readonly string[] = [TokenKind.BRACE_R, TokenKind.BRACKET_R, TokenKind.PAREN_R]
const TYPE_LISTS = new Set(['fields', 'inputFields', 'interfaces', 'possibleTypes'])

/** Before parsing. Throws `RefusedQuery`, or the error of the lexer. */
export function requireReadable(query: string): void {
  const lexer = new Lexer(new Source(query))
  let nesting = 0
  for (let tokens = 0; lexer.advance().kind !== TokenKind.EOF; tokens += 1) {
    if (tokens === MAX_TOKENS) throw tooLarge(`it may have ${MAX_TOKENS} lexical tokens`)
    const { kind } = lexer.token
    if (OPENS.includes(kind)) nesting += 1
    else if (CLOSES.includes(kind)) nesting -= 1
    if (nesting > MAX_NESTING) throw tooLarge(`brackets may be nested ${MAX_NESTING} times`)
  }
}

/** What resolving a selection takes; what a path goes through is a maximum, the rest sums. */
interface Size {
  depth: number
  fields: number
  lists: number
  introspected: number
  typeLists: number
}

const NOTHING: Size = { depth: 0, fields: 0, lists: 0, introspected: 0, typeLists: 0 }

/** How many entries a field has at most; undefined when it is no list. */
function pageSize({ arguments: given = [] }: FieldNode): number | undefined {
  const size = given.find(({ name }) => name.value === 'first')?.value
  if (!size) return undefined
  return size.kind === Kind.INT ? Math.min(Math.max(Number(size.value), 1), MAX_PAGE) : MAX_PAGE
}

function sizeOfField(field: FieldNode, inner: Size): Size {
  const name = field.name.value
  const page = pageSize(field)
  const introspects = name === '__schema' || name === '__type'
  return {
    depth: inner.depth + 1,
    fields: 1 + inner.fields * (page ?? 1),
    lists: page === undefined ? inner.lists : 1 + inner.lists * page,
    introspected: introspects ? inner.fields : inner.introspected,
    typeLists: inner.typeLists + (TYPE_LISTS.has(name) ? 1 : 0)
  }
}

function together(a: Size, b: Size): Size {
  return {
    depth: Math.max(a.depth, b.depth),
    fields: a.fields + b.fields,
    lists: a.lists + b.lists,
    introspected: a.introspected + b.introspected,
    typeLists: Math.max(a.typeLists, b.typeLists)
  }
}

const TOO_DEEP = tooLarge(`fields and fragments may be nested ${MAX_DEPTH} times`)

/** Sizes of selections. Each fragment is measured once, so that fragments of fragments cost no more than text. */
class Measure {
  readonly #fragments = new Map<string, FragmentDefinitionNode>()
  readonly #known = new Map<string, Size>()

  constructor({ definitions }: DocumentNode) {
    for (const definition of definitions) {
      if (definition.kind === Kind.FRAGMENT_DEFINITION) this.#fragments.set(definition.name.value, definition)
    }
  }

  /**
   * @param level how deep the selection is: beyond the limit nothing is measured, since the stack is finite
   * @throws RefusedQuery
   */
  sizeOf(set: SelectionSetNode | undefined, level = 0): Size {
    if (level > MAX_DEPTH) throw TOO_DEEP
    return (set?.selections ?? []).reduce((size, selection) => {
      if (selection.kind === Kind.FIELD) {
        return together(size, sizeOfField(selection, this.sizeOf(selection.selectionSet, level + 1)))
      }
      const inner =
        selection.kind === Kind.INLINE_FRAGMENT
          ? this.sizeOf(selection.selectionSet, level + 1)
          : this.#sizeOfFragment(selection.name.value, level + 1)
      return together(size, { ...inner, depth: inner.depth + 1 })
    }, NOTHING)
  }

  /** A fragment within itself, or one that is not there, is nothing here: validation refuses it. */
  #sizeOfFragment(name: string, level: number): Size {
    const known = this.#known.get(name)
    if (known) return known
    this.#known.set(name, NOTHING)
    const size = this.sizeOf(this.#fragments.get(name)?.selectionSet, level)
    this.#known.set(name, size)
    return size
  }
}

/** Before validation, some of which compares fields with each other, and before execution. Throws `RefusedQuery`. */
export function requireWithinLimits(document: DocumentNode): void {
  const { definitions } = document
  if (definitions.length > MAX_DEFINITIONS) {
    throw tooLarge(`it may have ${MAX_DEFINITIONS} operations and fragments`)
  }
  const measure = new Measure(document)
  for (const definition of definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION) continue
    const { depth, fields, lists, introspected, typeLists } = measure.sizeOf(definition.selectionSet)
    if (depth > MAX_DEPTH) throw TOO_DEEP
    if (fields > MAX_FIELDS) throw tooLarge(`it may ask for ${MAX_FIELDS} fields`)
    if (lists > MAX_LISTS) throw tooLarge(`it may ask for ${MAX_LISTS} lists`)
    if (introspected > MAX_INTROSPECTED) {
      throw tooLarge(`it may ask for ${MAX_INTROSPECTED} fields of the schema`)
    }
    if (typeLists > MAX_TYPE_LISTS) throw tooLarge('lists of a type may not be nested in each other')
  }
}
