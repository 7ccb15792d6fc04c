import type { Duplex } from 'node:stream'

/** A process of a runner that this server reaches: it serves a client that runs a command. */
export interface AttachedRunner {
  exec(environmentId: string, stream: Duplex): void
}

/** Whose process it is: that of the runner of this number, or of the servers themselves. */
export type Attached = { runner: number | 'hosted'; holder: string }

/** The processes of runners that this server reaches. Who they are is told by their tokens, and not by them. */
export class Attachments {
  readonly #byProcess = new Map<string, AttachedRunner>()

  /** Gives what takes it away again. */
  add(process: Attached, runner: AttachedRunner): () => void {
    const key = keyOf(process)
    this.#byProcess.set(key, runner)
    return () => {
      if (this.#byProcess.get(key) === runner) this.#byProcess.delete(key)
    }
  }

  find(process: Attached): AttachedRunner | undefined {
    return this.#byProcess.get(keyOf(process))
  }
}

function keyOf({ runner, holder }: Attached): string {
  return `${runner}/${holder}`
}
