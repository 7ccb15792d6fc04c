import { describeFailedSecret, failedSecretsOf, failuresOf, nameOf, phaseOf, warningsOf } from './describe.ts'
import type { Environment } from './messages.ts'

/** Whose secrets are of no use any more. */
const GOING: ReadonlySet<string> = new Set(['stopping', 'stopped', 'deleting'])

/** Tells a person how an environment comes along: a line for each phase, and for each secret that is not delivered. */
export class Progress {
  readonly #say: (line: string) => void
  readonly #told: Set<string>
  #phase: string | undefined

  /** @param before what is known already; undefined: nothing */
  constructor(say: (line: string) => void, before?: Environment) {
    this.#say = say
    this.#phase = before && phaseOf(before)
    this.#told = new Set(before && remarksOn(before))
  }

  report(environment: Environment): void {
    const name = nameOf(environment)
    const phase = phaseOf(environment)
    if (phase !== this.#phase) this.#say(`${name}: ${phase}`)
    this.#phase = phase
    for (const remark of remarksOn(environment).filter((each) => !this.#told.has(each))) {
      this.#told.add(remark)
      this.#say(`${name}: ${remark}`)
    }
  }
}

function remarksOn(environment: Environment): string[] {
  if (GOING.has(phaseOf(environment))) return failuresOf(environment)
  return [...warningsOf(environment), ...failedSecretsOf(environment).map(describeFailedSecret)]
}
