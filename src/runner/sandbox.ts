import type { Readable, Writable } from 'node:stream'

/** Where an environment's processes see its things. */
export const INSIDE = {
  workspace: '/workspace',
  home: '/home/coffer',
  /** what is delivered: read-only, the runner's own folder on a tmpfs */
  secrets: '/run/coffer'
} as const

/** What of an environment lies where, for a sandbox to show. */
export interface EnvironmentFolders {
  /** on disk, the environment's own: it may write there, so nobody else does with more rights */
  workspace: string
  home: string
  /** on a tmpfs, the runner's own, as a folder: renames in it are seen inside */
  secrets: string
}

export interface TerminalSize {
  rows: number
  columns: number
}

export interface ProcessRequest {
  /** program and arguments */
  command: readonly string[]
  /** inside; undefined: the workspace */
  workingDirectory?: string
  /** passed by a descriptor; never in a process list */
  variables: Readonly<Record<string, string | Buffer>>
  /** path inside → path inside that it leads to: made anew at each start, where nothing persists */
  links: ReadonlyMap<string, string>
  /** a terminal of this size; undefined: none, with stdout and stderr apart */
  terminal?: TerminalSize & { type: string }
}

export interface SandboxedProcess {
  stdin: Writable
  stdout: Readable
  /** with a terminal: ends at once */
  stderr: Readable
  /** to the command itself, by name: SIGINT, … */
  signal(name: NodeJS.Signals): void
  /** of its terminal; without one it changes nothing */
  resize(size: TerminalSize): void
  /** ends it and all that it started */
  kill(): void
  /** resolves when nothing of it is left */
  exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/** How processes of environments are kept apart from the machine and from each other. */
export interface Sandbox {
  /** false: paths are the machine's own, and absolute ones cannot be linked */
  readonly isolated: boolean
  /** who the processes are on the machine */
  readonly user: { uid: number; gid: number }
  /** where processes of this environment see things; without isolation, the folders themselves */
  inside(folders: EnvironmentFolders): { workspace: string; home: string; secrets: string }
  /** why a file cannot be linked at this absolute path; undefined: it can */
  refuseLink(path: string): string | undefined
  /** whether a link at this path stays, since its folder is the environment's own; else it is made at each start */
  keepsLink(path: string): boolean
  start(folders: EnvironmentFolders, request: ProcessRequest): Promise<SandboxedProcess>
}
