import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import type { Pipes } from './pipes.ts'

export interface StandardStreams {
  stdin: Writable
  stdout: Readable
  stderr: Readable
  /** stdin, stdout and stderr of the child, as descriptors */
  childEnds: readonly [number, number, number]
  /** to be called when the child has them, or will never be */
  closeChildEnds(): void
}

/** Three pipes to a child that is about to be started. */
export async function openStandardStreams(pipes: Pipes): Promise<StandardStreams> {
  const [input, output, errors] = [await pipes.take(), await pipes.take(), await pipes.take()]
  const childEnds = [input.readEnd, output.writeEnd, errors.writeEnd] as const
  const stdin = new Socket({ fd: input.writeEnd, readable: false, writable: true })
  // A command may end, or close its stdin, before it has read all.
  stdin.on('error', () => {})
  return {
    stdin,
    stdout: new Socket({ fd: output.readEnd, readable: true, writable: false }),
    stderr: new Socket({ fd: errors.readEnd, readable: true, writable: false }),
    childEnds,
    closeChildEnds: () => childEnds.forEach((end) => void closeSync(end))
  }
}
