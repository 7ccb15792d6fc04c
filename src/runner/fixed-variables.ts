import type { ProcessRequest } from './sandbox.ts'

/**
 * What every process has, whatever else it is given; what it is given wins.
 *
 * @param home inside
 */
export function withFixedVariables(
  { variables, terminal }: ProcessRequest,
  fixed: { home: string; user: string; shell: string; path: string }
): Record<string, string | Buffer> {
  return {
    PATH: fixed.path,
    HOME: fixed.home,
    USER: fixed.user,
    LOGNAME: fixed.user,
    SHELL: fixed.shell,
    LANG: 'C.UTF-8',
    ...(terminal && { TERM: terminal.type }),
    ...variables
  }
}
