import { existsSync, readdirSync, readFileSync } from 'node:fs'

export interface ProcessState {
  /** R, S, …; Z: it has ended, and nobody has asked how */
  state: string
  parent: number
  group: number
  /** whether it runs a program of its own since it was forked */
  hasExecuted: boolean
}

/** In field 9 of /proc/PID/stat, from fork to exec: PF_FORKNOEXEC of linux/sched.h. */
const FORKED_ONLY = 0x40

/** What /proc knows of a process; undefined: there is none of that id. */
export function findProcess(pid: number): ProcessState | undefined {
  const stat = readOrUndefined(`/proc/${pid}/stat`)
  // The name, in parentheses, may have any character; what follows has none of them (proc(5)).
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (
    fields && {
      state: fields[0]!,
      parent: Number(fields[1]),
      group: Number(fields[2]),
      hasExecuted: (Number(fields[6]) & FORKED_ONLY) === 0
    }
  )
}

/** Whether this kernel tells of children (CONFIG_PROC_CHILDREN). */
export const FINDS_PROGRAMS = existsSync(`/proc/self/task/${process.pid}/children`)

/**
 * The program that a process has started first; undefined: none yet. Between fork and exec a child is still its parent,
 * with its handlers: a signal that it gets there may come to nothing, as SIGINT does in shells.
 */
export function programStartedBy(pid: number): number | undefined {
  const [child] = childrenOf(pid)
  return child !== undefined && findProcess(child)?.hasExecuted ? child : undefined
}

/** Oldest first. */
function childrenOf(pid: number): number[] {
  const children = readOrUndefined(`/proc/${pid}/task/${pid}/children`)
  return (children ?? '').split(' ').filter(Boolean).map(Number)
}

/** Whether a group has more than processes that have ended and that nobody has asked how; true where there is no /proc. */
export function hasLiving(group: number): boolean {
  if (!existsSync('/proc/self')) return true
  return readdirSync('/proc').some((name) => {
    const found = findProcess(Number(name))
    return found?.group === group && found.state !== 'Z'
  })
}

/** Whether the signal could be sent; false: it is gone, or somebody else's. */
export function sendSignal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name)
  } catch {
    return false
  }
}

function readOrUndefined(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
