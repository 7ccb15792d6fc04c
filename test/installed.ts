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

/** A test that needs programs: skipped, saying so, where one is not installed; in CI it fails instead. */
export async function testWith(
  t: Test,
  programs: Program | readonly Program[],
  name: string,
  body: (t: Test) => Promise<void>
): Promise<void> {
  const all = 'file' in programs ? [programs] : programs
  const missing = all.find((program) => !isInstalled(program))
  const reason =
    missing &&
    `${missing.file} ${missing.probe.join(' ')} does not run; Debian's package is ${missing.package}`
  if (reason && process.env.CI) {
    t.fail(`${name}: ${reason}`)
    return
  }
  await t.test(name, reason ? { skip: reason } : {}, body)
}
