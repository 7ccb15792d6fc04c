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

/** A test that needs a program: skipped, saying so, where it is not installed; in CI it fails instead. */
export async function testWith(
  t: Test,
  program: Program,
  name: string,
  body: (t: Test) => Promise<void>
): Promise<void> {
  const missing = spawnSync(program.file, program.probe, { stdio: 'ignore' }).status !== 0
  const reason = `${program.file} ${program.probe.join(' ')} does not run; Debian's package is ${program.package}`
  if (missing && process.env.CI) {
    t.fail(`${name}: ${reason}`)
    return
  }
  await t.test(name, missing ? { skip: reason } : {}, body)
}
