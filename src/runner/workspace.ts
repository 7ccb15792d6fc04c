import path from 'node:path'
import type { Folders } from './folders.ts'
import { CloneFailed, cloneSources } from './git.ts'
import type { Content, ContentStatus } from './interface.ts'
import { type EnvironmentRecord, findRecord, writeRecord } from './record.ts'
import { RemoteRefused } from './remotes.ts'
import type { Sandbox } from './sandbox.ts'

export interface FillOptions {
  /** whether git finds credentials among what is delivered */
  hasCredentials: boolean
  timeoutMs: number
  signal: AbortSignal
}

/**
 * What lies in the folders of an environment's own. It is cloned once: from then on it is the work of whoever uses the
 * environment, and stays as it is until the environment is deleted.
 */
export class Workspace {
  readonly #environmentId: string
  readonly #folders: Folders
  readonly #sandbox: Sandbox
  #record: EnvironmentRecord | undefined
  #status: ContentStatus | undefined
  /** of the first repository, in the workspace */
  #folder: string | undefined

  constructor(environmentId: string, folders: Folders, sandbox: Sandbox) {
    this.#environmentId = environmentId
    this.#folders = folders
    this.#sandbox = sandbox
  }

  /** undefined: nothing is there, or known of it */
  get status(): ContentStatus | undefined {
    return this.#status
  }

  /** Why it could not be filled. */
  get failure(): string | undefined {
    return this.#status?.failureMessage
  }

  /** Links that may have been made in it: path → target. */
  get links(): Readonly<Record<string, string>> {
    return this.#record?.links ?? {}
  }

  /** Looks up what is there; gives whether it is whole. */
  async find(): Promise<boolean> {
    this.#record = await findRecord(this.#folders.ownOf(this.#environmentId))
    this.#status = this.#record && this.#describe(this.#record.content, 'CONTENT_PHASE_READY')
    return this.#record !== undefined
  }

  /** Makes the folders. What was begun to be put there goes: it cannot be told from what is whole. */
  async prepare({ session }: Content, signal: AbortSignal): Promise<void> {
    if (!this.#record) {
      this.#status = this.#describe({ session }, 'CONTENT_PHASE_INITIALIZING')
      await this.#folders.removeContent(this.#environmentId, signal)
    }
    await this.#folders.make(this.#environmentId)
  }

  /**
   * Clones what belongs there, unless it was. A failure is in the status.
   *
   * @throws what the signal was aborted with
   */
  async fill(content: Content, options: FillOptions): Promise<void> {
    if (this.#record) return
    const { session, sources, gitUsername, gitEmail } = content
    const folders = this.#folders.of(this.#environmentId)
    try {
      const cloned = await cloneSources(this.#sandbox, folders, sources, {
        gitUsername,
        gitEmail,
        ...options
      })
      this.#status = this.#describe({ session, ...cloned }, 'CONTENT_PHASE_READY')
    } catch (error) {
      options.signal.throwIfAborted()
      if (!(error instanceof CloneFailed || error instanceof RemoteRefused)) throw error
      const failed = this.#describe({ session }, 'CONTENT_PHASE_FAILED')
      this.#status = { ...failed, failureMessage: error.message }
    }
  }

  /** Writes down that all is there, and what links there may be. */
  async remember(links: Readonly<Record<string, string>>): Promise<void> {
    const { session, git } = this.#status!
    const content = { session, ...(git && { git }), ...(this.#folder && { folder: this.#folder }) }
    const record = { content, links }
    if (JSON.stringify(record) !== JSON.stringify(this.#record)) {
      await writeRecord(this.#folders.ownOf(this.#environmentId), record)
    }
    this.#record = record
  }

  /** Removes it with all else that there is of the environment. */
  async remove(signal: AbortSignal): Promise<void> {
    await this.#folders.remove(this.#environmentId, signal)
    this.#record = undefined
    this.#status = undefined
  }

  #describe(content: EnvironmentRecord['content'], phase: ContentStatus['phase']): ContentStatus {
    const { session, git, folder } = content
    this.#folder = folder
    const { workspace } = this.#sandbox.inside(this.#folders.of(this.#environmentId))
    const location = folder ? path.posix.join(workspace, folder) : workspace
    return { session, ...(git && { git }), phase, location }
  }
}
