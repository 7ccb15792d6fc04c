import { describeFailedSecret, failedSecretsOf, failuresOf, nameOf, phaseOf, warningsOf } from './describe.ts'
import type { Environment } from './messages.ts'

/** Whose secrets are of no use any more. */
const GOING: ReadonlySet<string> = new Set(['stopping', 'stopped', 'deleting'])

/** Tells a person how an environment comes along: a line for each phase, and for each secret that is not delivered. */
export class Progress {
  readonly #say: (line: string) => void
  readonly #told = new Set<string>()
  #phase = ''

  constructor(say: (line: string) => void) {
    this.#say = say
  }

  report(environment: Environment): void {
    const name = nameOf(environment)
    const phase = phaseOf(environment)
    if (phase !== this.#phase) this.#say(`${name}: ${phase}`)
    this.#phase = phase
    const remarks = GOING.has(phase)
      ? failuresOf(environment)
      : [...warningsOf(environment), ...failedSecretsOf(environment).map(describeFailedSecret)]
    for (const remark of remarks.filter((each) => !this.#told.has(each))) {
      this.#told.add(remark)
      this.#say(`${name}: ${remark}`)
    }
  }
}
