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

/** The request carries no credentials, or none that are valid now. */
export class Unauthenticated extends CofferError {
  readonly code = 'unauthenticated'
  readonly status = 401
  readonly presented: boolean

  constructor(presented: boolean, message = presented ? 'Bad credentials' : 'Requires authentication') {
    super(message)
    this.presented = presented
  }
}

/** Too many failed logins from one address; a valid token from there still works. */
export class TooManyFailedLogins extends CofferError {
  readonly code = 'too_many_failed_logins'
  readonly status = 403
  readonly retryAfterSeconds: number

  constructor(retryAfterSeconds: number) {
    super('Maximum number of login attempts exceeded. Please try again later.')
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** Where somebody stands in the present window of a rate limit, in GitHub's terms. */
export interface Standing {
  resource: string
  limit: number
  used: number
  /** when the window ends, in whole seconds since 1970 */
  reset: number
}

/** By what requests are counted: by a token, by a GitHub App itself, or by where they come from. */
export type Counted = 'token' | 'app' | 'address'

/** A rate limit that the operator has set is reached; `counted` tells by what the request was counted. */
export class RateLimited extends CofferError {
  readonly code = 'rate_limited'
  readonly status = 403
  readonly counted: Counted
  readonly standing: Standing
  readonly retryAfterSeconds: number

  /** The message begins as GitHub's: clients look for these words, and for `x-ratelimit-remaining: 0`. */
  constructor(
    { kind, name }: { kind: Counted; name: string },
    standing: Standing,
    retryAfterSeconds: number
  ) {
    const { limit, resource, reset } = standing
    const whom = kind === 'address' ? 'your address, without a valid token' : `${kind} ID ${name}`
    const until = new Date(reset * 1000).toISOString().replace('.000', '')
    super(
      `API rate limit exceeded for ${whom}: ${limit} requests an hour (${resource}). It resets at ${until}.`
    )
    this.counted = kind
    this.standing = standing
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** Absent, or not for this actor to know of: the two are never told apart. */
export class NotFound extends CofferError {
  readonly code = 'not_found'
  readonly status = 404

  constructor(message = 'Not Found') {
    super(message)
  }
}

/** The actor may know that the thing exists, but may not do this. */
export class Forbidden extends CofferError {
  readonly code = 'forbidden'
  readonly status = 403
  /** what is missing, for an API that has words of its own for it */
  readonly reason: string

  constructor(message: string, reason = message) {
    super(message)
    this.reason = reason
  }
}

/** An organization keeps its last owner. */
export class LastOwner extends Forbidden {
  constructor() {
    super('This is the last owner of the organization. Make somebody else an owner first.')
  }
}

/** One thing that is wrong with the input: `field` is its name, `message` the rule that it breaks. */
export interface Violation {
  field: string
  message: string
  /** GitHub's codes: missing_field, invalid, already_exists, unprocessable, custom. */
  code: 'missing_field' | 'invalid' | 'already_exists' | 'unprocessable' | 'custom'
}

/** The input is well-formed, but breaks a rule. */
export class InvalidInput extends CofferError {
  readonly code = 'invalid_input'
  readonly status = 422
  readonly violations: readonly Violation[]

  constructor(message: string, violations: readonly Violation[] = []) {
    super(message)
    this.violations = violations
  }
}

/** The body cannot be read at all: not JSON, not an object, aborted. */
export class UnreadableBody extends CofferError {
  readonly code = 'unreadable_body'
  readonly status = 400
}

export class BodyTooLarge extends CofferError {
  readonly code = 'body_too_large'
  readonly status = 413

  constructor(limitBytes: number) {
    super(`The request body is larger than ${limitBytes} bytes.`)
  }
}

/** Base64, length, or the box itself: `reason` says which, without echoing anything. */
export class ImproperlyEncrypted extends CofferError {
  readonly code = 'improperly_encrypted'
  readonly status = 422
  readonly reason: string

  constructor(reason: string) {
    super('Bad request - validation failed due to an improperly encrypted secret')
    this.reason = reason
  }
}

/** The `key_id` names no key that opens boxes now. */
export class UnknownKey extends CofferError {
  readonly code = 'unknown_key'
  readonly status = 422

  constructor() {
    super('Bad request - validation failed due to an improperly encrypted secret')
  }
}

/** A limit of the configuration is reached; the message names it and the variable that sets it. */
export class LimitExceeded extends CofferError {
  readonly code = 'limit_exceeded'
  readonly status = 422
}

/** The present state does not allow the change; the message names the state and the remedy. */
export class Conflict extends CofferError {
  readonly code = 'conflict'
  readonly status = 409
}

/** The project does not allow the class of environments that is asked for; `allowed` are those that it does. */
export class ClassNotAllowed extends Conflict {
  readonly allowed: readonly string[]

  constructor(allowed: readonly string[]) {
    const ids = allowed.join(', ') || 'none, since it allows no class; set its environment classes first'
    super(`The project does not allow this environment class: spec.machine.class must be one of ${ids}.`)
    this.allowed = allowed
  }
}

/** There is one of that name already, and a second is not made. */
export class AlreadyExists extends CofferError {
  readonly code = 'already_exists'
  readonly status = 409
}

/** What is asked for does not exist on this server, whoever asks. */
export class Unimplemented extends CofferError {
  readonly code = 'unimplemented'
  readonly status = 501
}

/** Somebody else works on the environment by now, or it is gone: what an earlier lease allowed is over. */
export class LeaseTaken extends CofferError {
  readonly code = 'lease_taken'
  readonly status = 409

  constructor() {
    super('The lease of this environment was lost.')
  }
}

/** If-Match did not match: somebody changed the thing in between. */
export class PreconditionFailed extends CofferError {
  readonly code = 'precondition_failed'
  readonly status = 412

  constructor() {
    super('The resource was changed since the ETag in If-Match was issued.')
  }
}

/** The database is away, or too busy; the same request may succeed a moment later. */
export class Unavailable extends CofferError {
  readonly code = 'unavailable'
  readonly status = 503
  readonly retryAfterSeconds = 1

  constructor() {
    super('Service temporarily unavailable. Try again shortly.')
  }
}

/** A stored value did not open: a row was altered, moved, or belongs to another keyring. */
export class CorruptEnvelope extends CofferError {
  readonly code = 'corrupt_envelope'
  readonly status = 500

  constructor() {
    super('A stored value does not open with this keyring.')
  }
}

/** The Accept header rules out JSON. */
export class NotAcceptable extends CofferError {
  readonly code = 'not_acceptable'
  readonly status = 415

  constructor() {
    super("Unsupported 'Accept' header. Must accept 'application/json'.")
  }
}

export class UnsupportedApiVersion extends CofferError {
  readonly code = 'unsupported_api_version'
  readonly status = 400

  constructor(supported: readonly string[]) {
    super(
      'The version you specified in the "X-GitHub-Api-Version" request header is not a supported version. ' +
        `The following versions are currently supported: ${supported.map((version) => `"${version}"`).join(', ')}.`
    )
  }
}

/** The repository has another name now; its number stays. */
export class Renamed extends CofferError {
  readonly code = 'renamed'
  readonly status = 301
  readonly repositoryId: number

  constructor(repositoryId: number) {
    super('Moved Permanently')
    this.repositoryId = repositoryId
  }
}
