/**
 * All that a runner asks of a server, in process or over HTTP (`coffer.v1.RunnerInterfaceService`). A runner never has
 * the database, the keyring or the store. Members are as on the wire: JSON, names of Ona's enumerations, ids are UUIDs.
 */
export interface RunnerInterface {
  /**
   * What there is to do: environments that became this holder's, and those of `held` whose spec has another version
   * than the one that is held. Waits until there is something, and gives nothing when `waitSeconds` have passed. What
   * the holder has the lease of but does not name in `held` is given at once.
   */
  claim(request: ClaimRequest, signal?: AbortSignal): Promise<Assignment[]>
  /** Prolongs leases; gives the environments whose lease somebody else has, or nobody may have any more. */
  renew(holder: string, leases: readonly Lease[]): Promise<string[]>
  /** Gives leases up that are the holder's, so that nobody waits until they have run out. */
  release(holder: string, leases: readonly Lease[]): Promise<void>
  /** @throws LeaseLost when the lease has another epoch by now */
  report(lease: Lease, report: StatusReport): Promise<void>
  /**
   * The value of one of the environment's secrets, by SecretService/GetSecretValue with the environment's token.
   *
   * @returns the exact bytes; the caller zeroes them when done
   * @throws LeaseLost, ValueRefused
   */
  readSecret(accessToken: string, secretId: string): Promise<Buffer>
  /** so many values are asked for at once, of one environment */
  readonly parallelReads: number
  /** Those of these environments that are there and not deleted, so that what is left of the others can go. */
  findEnvironments(environmentIds: readonly string[]): Promise<string[]>
}

export interface ClaimRequest {
  /** this process of the runner: a UUID, made at its start */
  holder: string
  held: readonly HeldEnvironment[]
  /** so many more environments at most */
  capacity: number
  /** 0 to 30 */
  waitSeconds: number
}

export interface Lease {
  environmentId: string
  /** moves with each holder; what an older one writes or reads is refused */
  epoch: number
}

export interface HeldEnvironment extends Lease {
  specVersion: string
}

export type EnvironmentPhase =
  | 'ENVIRONMENT_PHASE_CREATING'
  | 'ENVIRONMENT_PHASE_STARTING'
  | 'ENVIRONMENT_PHASE_RUNNING'
  | 'ENVIRONMENT_PHASE_UPDATING'
  | 'ENVIRONMENT_PHASE_STOPPING'
  | 'ENVIRONMENT_PHASE_STOPPED'
  | 'ENVIRONMENT_PHASE_DELETING'
  | 'ENVIRONMENT_PHASE_DELETED'

export type DesiredPhase = Extract<
  EnvironmentPhase,
  'ENVIRONMENT_PHASE_RUNNING' | 'ENVIRONMENT_PHASE_STOPPED' | 'ENVIRONMENT_PHASE_DELETED'
>

/** An environment that this holder has the lease of, and what it shall be. */
export interface Assignment extends Lease {
  /** moves with any change of what is below */
  specVersion: string
  desiredPhase: DesiredPhase
  /** as it was last reported, by whomever */
  phase: EnvironmentPhase
  /** reads the values of `secrets`, for as long as the lease has this epoch */
  accessToken: string
  /** for its processes: reads what is not delivered, secrets for the API alone; empty: there is none of those */
  insideToken: string
  /** where its processes reach the server */
  serverUrl: string
  content: Content
  secrets: readonly SecretReference[]
}

export interface Content {
  /** one after the other; none: an empty workspace */
  sources: readonly GitSource[]
  gitUsername: string
  gitEmail: string
  session: string
}

export type CloneTargetMode =
  | 'CLONE_TARGET_MODE_REMOTE_HEAD'
  | 'CLONE_TARGET_MODE_REMOTE_COMMIT'
  | 'CLONE_TARGET_MODE_REMOTE_BRANCH'
  | 'CLONE_TARGET_MODE_LOCAL_BRANCH'
  | 'CLONE_TARGET_MODE_REMOTE_TAG'

export interface GitSource {
  remoteUri: string
  /** empty: none */
  upstreamRemoteUri: string
  targetMode: CloneTargetMode
  /** the branch, commit or tag; empty with the remote's HEAD */
  cloneTarget: string
  /** relative to the workspace; empty: the name of the repository */
  checkoutLocation: string
}

export type SecretMount =
  | { kind: 'variable'; name: string }
  /** an absolute path */
  | { kind: 'file'; path: string }
  /** as it was stored: `ghcr.io`, `https://index.docker.io/v1/` */
  | { kind: 'registry'; host: string }
  /** a host, with a port where it is not the scheme's own */
  | { kind: 'git'; host: string }
  | { kind: 'api-only' }

export interface SecretReference {
  id: string
  name: string
  /** opaque; moves with each value */
  session: string
  mount: SecretMount
  /** why it is not delivered, whatever its value: withheld, a reserved name, …; undefined: it is */
  problem?: string
}

export type ContentPhase =
  | 'CONTENT_PHASE_CREATING'
  | 'CONTENT_PHASE_INITIALIZING'
  | 'CONTENT_PHASE_READY'
  | 'CONTENT_PHASE_UPDATING'
  | 'CONTENT_PHASE_FAILED'
  | 'CONTENT_PHASE_UNAVAILABLE'

/** The state of an environment, whole: what is unset is not there. */
export interface StatusReport {
  phase: EnvironmentPhase
  /** the version of the spec that was acted on */
  specVersion: string
  /** set: the environment failed */
  failureMessage?: string
  /** things that work less than they should, as without isolation */
  warningMessage?: string
  content?: ContentStatus
  secrets: readonly SecretStatus[]
  /** whether processes that were started before a change could hold something older */
  secretsInSync: boolean
}

export interface ContentStatus {
  phase: ContentPhase
  session: string
  /** inside the environment */
  location: string
  failureMessage?: string
  /** of the first source */
  git?: { cloneUrl: string; branch: string; latestCommit: string }
}

export interface SecretStatus {
  id: string
  secretName: string
  phase: ContentPhase
  /** the value that is held */
  session: string
  failureMessage?: string
  warningMessage?: string
}

/** Somebody else works on the environment by now, or it is gone. */
export class LeaseLost extends Error {
  constructor() {
    super('The lease of this environment was lost.')
    this.name = 'LeaseLost'
  }
}

/** The server does not give a value; the message is fit to be shown. */
export class ValueRefused extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ValueRefused'
  }
}
