import { spawnSync } from 'node:child_process'
import type { Test } from 'tap'

/** A program of the system that a test drives, which npm does not bring. */
export interface Program {
  file: string
  /** succeeds when the program is there with all that it needs */
  probe: readonly string[]
  /** what Debian calls it */
  package: string
}

const probed = new Map<Program, boolean>()

function isInstalled(program: Program): boolean {
  let installed = probed.get(program)
  if (installed === undefined) {
    installed = spawnSync(program.file, program.probe, { stdio: 'ignore' }).status === 0
    probed.set(program, installed)
  }
  return installed
}

/** What keeps environments apart from the machine. */
export const BUBBLEWRAP: Program = {
  file: 'bwrap',
  probe: ['--ro-bind', '/', '/', 'true'],
  package: 'bubblewrap'
}
export const GIT: Program = { file: 'git', probe: ['--version'], package: 'git' }

function reasonToSkip(programs: readonly Program[]): string | undefined {
  const missing = programs.find((program) => !isInstalled(program))
  return (
    missing &&
    `${missing.file} ${missing.probe.join(' ')} does not run; Debian's package is ${missing.package}`
  )
}

/** For a file all of whose tests need programs: ends it, saying so, where one is not installed; in CI it fails instead. */
export function needPrograms(t: Test, ...programs: readonly Program[]): void {
  const reason = reasonToSkip(programs)
  if (reason === undefined) return
  if (process.env.CI) throw new Error(reason)
  t.plan(0, reason)
  process.exit(0)
}

/** A test that needs programs: skipped, saying so, where one is not installed; in CI it fails instead. */
export async function testWith(
  t: Test,
  programs: Program | readonly Program[],
  name: string,
  body: (t: Test) => Promise<void>
): Promise<void> {
  const all = 'file' in programs ? [programs] : programs
  const reason = reasonToSkip(all)
  if (reason && process.env.CI) {
    t.fail(`${name}: ${reason}`)
    return
  }
  await t.test(name, reason ? { skip: reason } : {}, body)
}
