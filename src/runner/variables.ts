import { isUtf8 } from 'node:buffer'
import type { Sandbox } from './sandbox.ts'

/** What every shell takes for the name of a variable. */
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/
/** What the runner sets itself, or what would lead its programs elsewhere. */
const RESERVED: ReadonlySet<string> = new Set([
  'DOCKER_CONFIG',
  'HOME',
  'LANG',
  'LOGNAME',
  'PATH',
  'PWD',
  'SHELL',
  'TERM',
  'USER'
])
const RESERVED_PREFIXES = ['COFFER_', 'GIT_CONFIG_']
/** Linux's MAX_ARG_STRLEN is 128 KiB, with the NUL at the end. */
const MAX_STRING_BYTES = 131_071
/** Half of what Linux leaves for arguments and variables with the usual stack, so that arguments have room, too. */
const MAX_TOTAL_BYTES = 1024 * 1024

export interface Variable {
  secretId: string
  /** of the value */
  session: string
  name: string
  /** belongs to who holds the values */
  value: Buffer
}

/**
 * Which of these variables the next process gets. Each that cannot be given fails alone; where two have one name, or
 * where there are too many bytes, the later one.
 */
export function chooseVariables(
  variables: readonly Variable[],
  { isolated }: Pick<Sandbox, 'isolated'>
): {
  chosen: Map<string, Variable>
  /** secret id → reason */
  problems: Map<string, string>
} {
  const chosen = new Map<string, Variable>()
  const problems = new Map<string, string>()
  let total = 0
  for (const variable of variables) {
    const bytes = Buffer.byteLength(variable.name) + 1 + variable.value.length
    const problem = chosen.has(variable.name)
      ? `Another secret gives the variable ${variable.name}.`
      : (findProblem(variable, bytes, isolated) ??
        (total + bytes + 1 > MAX_TOTAL_BYTES
          ? `With this one, the variables would be larger than ${MAX_TOTAL_BYTES} bytes together, which the operating system does not pass to a process. Mount it as a file.`
          : undefined))
    if (problem) problems.set(variable.secretId, problem)
    else {
      chosen.set(variable.name, variable)
      total += bytes + 1
    }
  }
  return { chosen, problems }
}

function findProblem({ name, value }: Variable, bytes: number, isolated: boolean): string | undefined {
  if (!NAME.test(name)) return 'This is not the name of a variable: letters, digits and _, no digit first.'
  if (RESERVED.has(name) || RESERVED_PREFIXES.some((prefix) => name.startsWith(prefix))) {
    return `The variable ${name} is set by the runner.`
  }
  if (value.includes(0)) return 'The value has a NUL byte, which no variable can hold. Mount it as a file.'
  if (!isolated && !isUtf8(value)) {
    return 'The value is not UTF-8, which without isolation no variable can hold. Mount it as a file.'
  }
  if (bytes > MAX_STRING_BYTES) {
    return `The value is too large for a variable: the operating system takes ${MAX_STRING_BYTES} bytes with the name. Mount it as a file.`
  }
  return undefined
}

/** By what processes find what is delivered, and whose they are; the rest every process has from its sandbox. */
export function variablesOf(environmentId: string, inside: { secrets: string }): Record<string, string> {
  return {
    COFFER_ENVIRONMENT_ID: environmentId,
    DOCKER_CONFIG: `${inside.secrets}/docker`,
    GIT_CONFIG_COUNT: '1',
    GIT_CONFIG_KEY_0: 'include.path',
    GIT_CONFIG_VALUE_0: `${inside.secrets}/gitconfig`
  }
}
