import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'

export interface ExitStatus {
  code: number | null
  signal: NodeJS.Signals | null
}

const SIGNALLED = 128

const NAMES = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals])
)

/** Rejects when the child could not be started. */
export function exitOf(child: ChildProcess): Promise<ExitStatus> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })
}

/** A status that went through a shell, bubblewrap or `script`: they give 128 + n for a command that signal n ended. */
export function relayedStatus({ code, signal }: ExitStatus): ExitStatus {
  const name = code === null ? undefined : NAMES.get(code - SIGNALLED)
  return name ? { code: null, signal: name } : { code, signal }
}
