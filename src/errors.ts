/**
 * The closed list of errors that Coffer throws on purpose. Each API surface has one handler that turns them
 * into its own shape; anything else that is thrown is a defect and answered with a fixed 500.
 *
 * A message never quotes what a client sent.
 */
export abstract class CofferError extends Error {
  abstract readonly code: string
  abstract readonly status: number

  constructor(message: string) {
    super(message)
    this.name = new.target.name
  }
}

/** A command, or the start of the server, cannot go on; the message names the cause and the remedy. */
export class RefusedToStart extends CofferError {
  readonly code = 'refused_to_start'
  readonly status = 500
}
