import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'

/** What bubblewrap tells of itself, on the descriptor of `--json-status-fd`: a JSON document on each line. */
export interface BubblewrapStatus {
  /** the id, on the machine, of the first process of the new PID namespace; undefined: there will be none */
  first: Promise<number | undefined>
  /** whether it came as far as to start the command; known when it has ended */
  started: Promise<boolean>
}

export function readStatus(stream: Readable): BubblewrapStatus {
  const lines = createInterface({ input: stream })
  /** Resolves with a number in the first document that has it, or with undefined at the end. */
  const find = (member: RegExp) =>
    new Promise<number | undefined>((resolve) => {
      lines.on('line', (line) => {
        const found = member.exec(line)
        if (found) resolve(Number(found[1]))
      })
      lines.once('close', () => resolve(undefined))
    })
  return {
    first: find(/"child-pid"\s*:\s*(\d+)/),
    started: find(/"exit-code"\s*:\s*(\d+)/).then((code) => code !== undefined)
  }
}
