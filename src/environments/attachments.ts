import type { Duplex } from 'node:stream'

/** A process of a runner that this server reaches: it serves a client that runs a command. */
export interface AttachedRunner {
  exec(environmentId: string, stream: Duplex): void
}

/** The processes of runners that this server reaches, by who they say they are when they take leases. */
export class Attachments {
  readonly #byHolder = new Map<string, AttachedRunner>()

  /** Gives what takes it away again. */
  add(holder: string, runner: AttachedRunner): () => void {
    this.#byHolder.set(holder, runner)
    return () => {
      if (this.#byHolder.get(holder) === runner) this.#byHolder.delete(holder)
    }
  }

  find(holder: string): AttachedRunner | undefined {
    return this.#byHolder.get(holder)
  }
}
