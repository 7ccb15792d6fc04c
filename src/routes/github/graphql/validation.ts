import {
  type ArgumentNode,
  type ASTNode,
  type ASTVisitFn,
  type ASTVisitor,
  type DirectiveNode,
  type DocumentNode,
  ExecutableDefinitionsRule,
  type FieldNode,
  FieldsOnCorrectTypeRule,
  type FragmentDefinitionNode,
  type FragmentSpreadNode,
  FragmentsOnCompositeTypesRule,
  GraphQLError,
  type GraphQLSchema,
  getNamedType,
  type InlineFragmentNode,
  isRequiredArgument,
  Kind,
  KnownArgumentNamesRule,
  KnownDirectivesRule,
  KnownFragmentNamesRule,
  KnownTypeNamesRule,
  LoneAnonymousOperationRule,
  type NamedTypeNode,
  type NameNode,
  NoFragmentCyclesRule,
  NoUndefinedVariablesRule,
  NoUnusedFragmentsRule,
  NoUnusedVariablesRule,
  type OperationDefinitionNode,
  OperationTypeNode,
  OverlappingFieldsCanBeMergedRule,
  PossibleFragmentSpreadsRule,
  ProvidedRequiredArgumentsRule,
  print,
  ScalarLeafsRule,
  TypeInfo,
  UniqueArgumentNamesRule,
  UniqueDirectivesPerLocationRule,
  UniqueFragmentNamesRule,
  UniqueInputFieldNamesRule,
  UniqueOperationNamesRule,
  UniqueVariableNamesRule,
  type ValidationContext,
  type ValidationRule,
  ValuesOfCorrectTypeRule,
  type VariableDefinitionNode,
  type VariableNode,
  VariablesAreInputTypesRule,
  VariablesInAllowedPositionRule,
  validate,
  visit,
  visitWithTypeInfo
} from 'graphql'
import { type QueryError, RefusedQuery, shown, tooLarge } from './errors.ts'

// The rules are those of the specification, as graphql-js checks them; the words and codes are GitHub's, as its
// library has them (graphql-ruby, lib/graphql/static_validation), without the values that some of them quote.

/** What an error is about: the node of the rule, those around it from the inside out, and the types there. */
interface Finding<N extends ASTNode> {
  node: N
  nodes: readonly ASTNode[]
  around: readonly ASTNode[]
  types: TypeInfo
  schema: GraphQLSchema
}

type Words = [code: string, message: string, about?: Record<string, string>]
type Explain<N extends ASTNode> = (finding: Finding<N>) => Words

const explanations = new WeakMap<GraphQLError, { explain: Explain<ASTNode>; node: ASTNode }>()

/** The rule, which remembers for each of its errors how that is explained; `at` is which of its nodes it is about. */
function explained<N extends ASTNode>(rule: ValidationRule, explain: Explain<N>, at = 0): ValidationRule {
  return (context) => {
    const reportError = (error: GraphQLError) => {
      explanations.set(error, { explain: explain as Explain<ASTNode>, node: error.nodes![at]! })
      context.reportError(error)
    }
    return rule(Object.create(context, { reportError: { value: reportError } }) as ValidationContext)
  }
}

const UNCONFIGURED = {
  [OperationTypeNode.MUTATION]: ['missingMutationConfiguration', 'Schema is not configured for mutations'],
  [OperationTypeNode.SUBSCRIPTION]: [
    'missingSubscriptionConfiguration',
    'Schema is not configured for subscriptions'
  ],
  [OperationTypeNode.QUERY]: ['missingQueryConfiguration', 'Schema is not configured for queries']
} as const satisfies Record<OperationTypeNode, Words>

/** graphql-js leaves it to execution that a schema has no mutations. */
function KnownOperationTypesRule(context: ValidationContext): ASTVisitor {
  return {
    OperationDefinition(node) {
      if (!context.getSchema().getRootType(node.operation)) {
        context.reportError(new GraphQLError(`No ${node.operation}.`, { nodes: node }))
      }
    }
  }
}

function nameOf({ name }: { name?: NameNode | undefined }): string {
  return shown(name?.value ?? '')
}

function find<N extends ASTNode>(around: readonly ASTNode[], kind: N['kind']): N | undefined {
  return around.find((node): node is N => node.kind === kind)
}

function operationLabel(operation: OperationDefinitionNode): string {
  return operation.name ? nameOf(operation) : `anonymous ${operation.operation}`
}

/** `Field 'name'` or `Directive 'name'`, whichever has the arguments. */
function withArguments(around: readonly ASTNode[]): { typeName: string; name: string } {
  const owner = around.find(
    (node): node is FieldNode | DirectiveNode => node.kind === Kind.FIELD || node.kind === Kind.DIRECTIVE
  )!
  return { typeName: owner.kind, name: nameOf(owner) }
}

const RULES: readonly ValidationRule[] = [
  explained<OperationDefinitionNode>(KnownOperationTypesRule, ({ node }) => UNCONFIGURED[node.operation]),
  explained(ExecutableDefinitionsRule, () => [
    'queryContainsSchemaDefinitions',
    'Query cannot contain schema definitions'
  ]),
  explained<NameNode>(UniqueOperationNamesRule, ({ node }) => [
    'uniquelyNamedOperations',
    `Operation name "${shown(node.value)}" must be unique`,
    { operationName: shown(node.value) }
  ]),
  explained(LoneAnonymousOperationRule, () => [
    'uniquelyNamedOperations',
    'Operation name is required when multiple operations are present'
  ]),
  explained<NamedTypeNode>(KnownTypeNamesRule, ({ node, around }) => {
    const typeName = nameOf(node)
    const variable = find<VariableDefinitionNode>(around, Kind.VARIABLE_DEFINITION)
    if (!variable) {
      return ['undefinedType', `No such type ${typeName}, so it can't be a fragment condition`, { typeName }]
    }
    const variableName = nameOf(variable.variable)
    return [
      'variableRequiresValidType',
      `${typeName} isn't a defined input type (on $${variableName})`,
      { typeName, variableName }
    ]
  }),
  explained<NamedTypeNode>(FragmentsOnCompositeTypesRule, ({ node }) => [
    'fragmentOnNonCompositeType',
    `Invalid fragment on type ${nameOf(node)} (must be Union, Interface or Object)`,
    { typeName: nameOf(node) }
  ]),
  explained(VariablesAreInputTypesRule, ({ node, around }) => {
    const typeName = shown(print(node).replace(/[[\]!]/g, ''))
    const variableName = nameOf(find<VariableDefinitionNode>(around, Kind.VARIABLE_DEFINITION)!.variable)
    return [
      'variableRequiresValidType',
      `${typeName} isn't a valid input type (on $${variableName})`,
      { typeName, variableName }
    ]
  }),
  explained(ScalarLeafsRule, ({ node, around, types }) => {
    const field = node.kind === Kind.FIELD ? node : find<FieldNode>(around, Kind.FIELD)!
    const name = nameOf(field)
    const typeName = getNamedType(types.getType())?.name ?? ''
    const about = { nodeName: `field '${name}'`, typeName }
    if (node.kind !== Kind.FIELD) {
      return [
        'selectionMismatch',
        `Selections can't be made on scalars (field '${name}' returns ${typeName} but has selections)`,
        about
      ]
    }
    const hint = `field '${name}' returns ${typeName} but has no selections. Did you mean '${name} { ... }'?`
    return ['selectionMismatch', `Field must have selections (${hint})`, about]
  }),
  explained<FieldNode>(FieldsOnCorrectTypeRule, ({ node, types }) => {
    const about = { typeName: types.getParentType()?.name ?? '', fieldName: nameOf(node) }
    return ['undefinedField', `Field '${about.fieldName}' doesn't exist on type '${about.typeName}'`, about]
  }),
  explained<NameNode>(UniqueFragmentNamesRule, ({ node }) => [
    'fragmentNotUnique',
    `Fragment name "${shown(node.value)}" must be unique`,
    { fragmentName: shown(node.value) }
  ]),
  explained<NameNode>(KnownFragmentNamesRule, ({ node }) => [
    'useAndDefineFragment',
    `Fragment ${shown(node.value)} was used, but not defined`,
    { fragmentName: shown(node.value) }
  ]),
  explained<FragmentDefinitionNode>(NoUnusedFragmentsRule, ({ node }) => [
    'useAndDefineFragment',
    `Fragment ${nameOf(node)} was defined, but not used`,
    { fragmentName: nameOf(node) }
  ]),
  explained<InlineFragmentNode | FragmentSpreadNode>(PossibleFragmentSpreadsRule, ({ node, types }) => {
    const fragmentName = node.kind === Kind.FRAGMENT_SPREAD ? nameOf(node) : 'unknown'
    const parentName = types.getParentType()?.name ?? ''
    const label = node.kind === Kind.FRAGMENT_SPREAD ? `Fragment ${fragmentName}` : 'Fragment'
    const message = `${label} can't be spread inside ${parentName}`
    return ['cannotSpreadFragment', message, { fragmentName, parentName }]
  }),
  explained<FragmentSpreadNode>(NoFragmentCyclesRule, ({ node }) => [
    'infiniteLoop',
    `Fragment ${nameOf(node)} contains an infinite loop`,
    { fragmentName: nameOf(node) }
  ]),
  explained<NameNode>(UniqueVariableNamesRule, ({ node }) => [
    'variableNotUnique',
    `There can only be one variable named "${shown(node.value)}"`,
    { variableName: shown(node.value) }
  ]),
  explained<VariableNode>(NoUndefinedVariablesRule, ({ node, nodes }) => [
    'variableNotDefined',
    `Variable $${nameOf(node)} is used by ${operationLabel(nodes[1] as OperationDefinitionNode)} but not declared`,
    { variableName: nameOf(node) }
  ]),
  explained<VariableDefinitionNode>(NoUnusedVariablesRule, ({ node, around }) => {
    const operation = find<OperationDefinitionNode>(around, Kind.OPERATION_DEFINITION)!
    const variableName = nameOf(node.variable)
    return [
      'variableNotUsed',
      `Variable $${variableName} is declared by ${operationLabel(operation)} but not used`,
      { variableName }
    ]
  }),
  explained<DirectiveNode>(KnownDirectivesRule, ({ node, schema }) => {
    const directiveName = nameOf(node)
    return schema.getDirective(node.name.value)
      ? ['directiveCannotBeApplied', `'@${directiveName}' can't be applied here`, { name: directiveName }]
      : ['undefinedDirective', `Directive @${directiveName} is not defined`, { directiveName }]
  }),
  explained<DirectiveNode>(UniqueDirectivesPerLocationRule, ({ node }) => [
    'directiveNotUniqueForLocation',
    `The directive "${nameOf(node)}" can only be used once at this location.`,
    { directiveName: nameOf(node) }
  ]),
  explained<ArgumentNode>(KnownArgumentNamesRule, ({ node, around }) => {
    const { typeName, name } = withArguments(around)
    const argumentName = nameOf(node)
    return [
      'argumentNotAccepted',
      `${typeName} '${name}' doesn't accept argument '${argumentName}'`,
      { name, typeName, argumentName }
    ]
  }),
  explained<NameNode>(UniqueArgumentNamesRule, ({ node }) => [
    'argumentNotUnique',
    `There can be only one argument named "${shown(node.value)}"`,
    { name: shown(node.value) }
  ]),
  explained(ValuesOfCorrectTypeRule, ({ around, types }) => {
    const variable = find<VariableDefinitionNode>(around, Kind.VARIABLE_DEFINITION)
    if (variable) {
      const about = { variableName: nameOf(variable.variable), typeName: shown(print(variable.type)) }
      const message = `Default value for $${about.variableName} doesn't match type ${about.typeName}`
      return ['defaultValueInvalidType', message, about]
    }
    const { typeName, name } = withArguments(around)
    const { name: argumentName, type } = types.getArgument()!
    const message = `Argument '${argumentName}' on ${typeName} '${name}' has an invalid value.`
    return ['argumentLiteralsIncompatible', `${message} Expected type '${type}'.`, { typeName, argumentName }]
  }),
  explained<FieldNode | DirectiveNode>(ProvidedRequiredArgumentsRule, ({ node, types, schema }) => {
    const definition = node.kind === Kind.FIELD ? types.getFieldDef() : schema.getDirective(node.name.value)
    const given = new Set(node.arguments?.map((argument) => argument.name.value))
    const absent = (definition?.args ?? []).filter((arg) => isRequiredArgument(arg) && !given.has(arg.name))
    const names = absent.map((arg) => arg.name).join(', ')
    const name = nameOf(node)
    return [
      'missingRequiredArguments',
      `${node.kind} '${name}' is missing required arguments: ${names}`,
      { className: node.kind, name, arguments: names }
    ]
  }),
  explained<VariableNode>(
    VariablesInAllowedPositionRule,
    ({ node, nodes, around, types }) => {
      const typeName = shown(print((nodes[0] as VariableDefinitionNode).type))
      const variableName = nameOf(node)
      const argumentName = nameOf(find<ArgumentNode>(around, Kind.ARGUMENT)!)
      return [
        'variableMismatch',
        `Type mismatch on variable $${variableName} and argument ${argumentName} (${typeName} / ${types.getInputType()})`,
        { variableName, typeName, argumentName, errorMessage: 'Type mismatch' }
      ]
    },
    1
  ),
  explained<FieldNode>(OverlappingFieldsCanBeMergedRule, ({ node, nodes }) => {
    const fieldName = shown(node.alias?.value ?? node.name.value)
    const named = (nodes as readonly FieldNode[]).filter(
      (field) => (field.alias ?? field.name).value === (node.alias ?? node.name).value
    )
    const conflicts = [...new Set(named.map(nameOf))].join(' or ')
    const kind = conflicts.includes(' or ') ? 'a field conflict' : 'an argument conflict'
    return ['fieldConflict', `Field '${fieldName}' has ${kind}: ${conflicts}?`, { fieldName, conflicts }]
  }),
  explained<NameNode>(UniqueInputFieldNamesRule, ({ node }) => [
    'inputFieldNotUnique',
    `There can be only one input field named "${shown(node.value)}"`,
    { name: shown(node.value) }
  ])
]

/** One step of the path that GitHub shows; undefined for nodes that are none. */
function stepOf(node: ASTNode): string | undefined {
  switch (node.kind) {
    case Kind.OPERATION_DEFINITION:
      return node.name ? `${node.operation} ${nameOf(node)}` : node.operation
    case Kind.FRAGMENT_DEFINITION:
      return `fragment ${nameOf(node)}`
    case Kind.INLINE_FRAGMENT:
      return node.typeCondition ? `... on ${nameOf(node.typeCondition)}` : '...'
    case Kind.FRAGMENT_SPREAD:
      return `... ${nameOf(node)}`
    case Kind.FIELD:
      return shown((node.alias ?? node.name).value)
    case Kind.ARGUMENT:
      return nameOf(node)
    default:
      return undefined
  }
}

/** Goes through the document once, for what is around the nodes that errors are about. */
function explain(
  errors: readonly GraphQLError[],
  document: DocumentNode,
  schema: GraphQLSchema
): QueryError[] {
  const wanted = new Map<ASTNode, GraphQLError[]>()
  for (const error of errors) {
    const node = explanations.get(error)?.node
    if (node) wanted.set(node, [...(wanted.get(node) ?? []), error])
  }
  const told = new Map<GraphQLError, QueryError>()
  const types = new TypeInfo(schema)
  const enter: ASTVisitFn<ASTNode> = (node, _key, parent, _path, ancestors) => {
    const outer = [...ancestors, parent].filter((one): one is ASTNode => one !== undefined && 'kind' in one)
    for (const error of wanted.get(node) ?? []) {
      const finding = { node, nodes: error.nodes!, around: outer.toReversed(), types, schema }
      const [code, message, about] = explanations.get(error)!.explain(finding)
      const path = [...outer, node].map(stepOf).filter((step) => step !== undefined)
      told.set(error, { path, extensions: { code, ...about }, locations: error.locations ?? [], message })
    }
  }
  visit(document, visitWithTypeInfo(types, { enter }))
  return withoutRepeats(errors.map((error) => told.get(error) ?? UNTOLD))
}

/** graphql-js gave up: there are too many errors, or too many fields to compare. */
const UNTOLD = tooLarge('it has too many errors, or too many fields of the same name').errors[0]!

/** A rule that finds two things absent from one field is explained as one. */
function withoutRepeats(errors: readonly QueryError[]): QueryError[] {
  return [...new Map(errors.map((error) => [JSON.stringify(error), error])).values()]
}

/** Throws `RefusedQuery` with all that is wrong with a query, in GitHub's form. */
export function requireValid(schema: GraphQLSchema, document: DocumentNode): void {
  const errors = validate(schema, document, RULES)
  if (errors.length > 0) throw new RefusedQuery(explain(errors, document, schema))
}
