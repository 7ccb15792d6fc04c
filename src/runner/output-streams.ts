import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Pipes } from './pipes.ts'

export interface OutputStreams {
  stdout: Readable
  stderr: Readable
  /** To be called once: starts the child with the other ends as its stdout and stderr, and closes them here. */
  giveTo<T>(start: (outputs: readonly [stdout: number, stderr: number]) => T): T
}

/**
 * What a child that is about to be started writes to. Its stdin is node's own: a named pipe whose writer has gone
 * would not open again, and whoever opens `/dev/stdin` would wait for ever; of a socket it is refused at once.
 */
export async function openOutputStreams(pipes: Pipes): Promise<OutputStreams> {
  const [output, errors] = [await pipes.take(), await pipes.take()]
  const outputs = [output.writeEnd, errors.writeEnd] as const
  const stdout = new Socket({ fd: output.readEnd, readable: true, writable: false })
  const stderr = new Socket({ fd: errors.readEnd, readable: true, writable: false })
  return {
    stdout,
    stderr,
    giveTo(start) {
      try {
        return start(outputs)
      } catch (error) {
        stdout.destroy()
        stderr.destroy()
        throw error
      } finally {
        for (const end of outputs) closeSync(end)
      }
    }
  }
}
