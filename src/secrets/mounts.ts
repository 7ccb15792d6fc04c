import { InvalidInput } from '../errors.ts'

/**
 * Names that a variable of an environment cannot have: what Ona reserves, and what would change how programs are
 * started, or what this server sets itself. Case does not matter.
 */
const RESERVED_NAMES = [
  'HOME',
  'LD_PRELOAD',
  'PATH',
  'PWD',
  'SHELL',
  'USER',
  'BASH_ENV',
  'ENV',
  'NODE_OPTIONS',
  'DOCKER_CONFIG'
]
const RESERVED_PREFIXES = ['LD_', 'GIT_', 'COFFER_']

export function isReservedVariable(name: string): boolean {
  const upper = name.toUpperCase()
  return RESERVED_NAMES.includes(upper) || RESERVED_PREFIXES.some((prefix) => upper.startsWith(prefix))
}

/** @throws InvalidInput when a variable cannot have that name */
export function requireVariableName(name: string): void {
  if (!isReservedVariable(name)) return
  const prefixes = RESERVED_PREFIXES.map((prefix) => `${prefix}*`)
  const message = `is reserved, as a variable's: ${[...RESERVED_NAMES, ...prefixes].join(', ')}`
  throw new InvalidInput(`name: ${message}`, [{ field: 'name', code: 'invalid', message }])
}
