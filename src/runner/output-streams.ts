import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Pipes } from './pipes.ts'

export interface OutputStreams {
  stdout: Readable
  stderr: Readable
  /** for the child's stdio */
  childEnds: readonly [stdout: number, stderr: number]
  /** to be called when the child has them, or will never be */
  closeChildEnds(): void
}

/**
 * What a child that is about to be started writes to. Its stdin is node's own: a named pipe whose writer has gone
 * would not open again, and whoever opens `/dev/stdin` would wait for ever; of a socket it is refused at once.
 */
export async function openOutputStreams(pipes: Pipes): Promise<OutputStreams> {
  const [output, errors] = [await pipes.take(), await pipes.take()]
  const childEnds = [output.writeEnd, errors.writeEnd] as const
  return {
    stdout: new Socket({ fd: output.readEnd, readable: true, writable: false }),
    stderr: new Socket({ fd: errors.readEnd, readable: true, writable: false }),
    childEnds,
    closeChildEnds: () => childEnds.forEach((end) => void closeSync(end))
  }
}
