import {
  credentialBindings,
  type GitCredential,
  gitCredentialFiles,
  parseGitCredential
} from './credential-helper.ts'
import type { User } from './folders.ts'
import type { SecretReference, SecretStatus } from './interface.ts'
import { changeLinks, type FileSecret, type LinkChange, type LinkPlan, planLinks } from './links.ts'
import { dockerConfig, parseRegistryCredential, type RegistryCredential } from './registry.ts'
import type { EnvironmentFolders, Sandbox } from './sandbox.ts'
import { SecretFiles } from './secret-files.ts'
import type { Values } from './values.ts'
import { chooseVariables, type Variable } from './variables.ts'

const DOCKER_CONFIG = 'docker/config.json'

/** A secret that is to be delivered, with its value. */
interface Valued<Mount = SecretReference['mount']> {
  id: string
  session: string
  mount: Mount
  value: Buffer
}

type ValuedAs<Kind> = Valued<Extract<SecretReference['mount'], { kind: Kind }>>

/** In the folder of what is delivered: the token for what is not. */
export const TOKEN_FILE = 'token'

/** Puts the values of one environment where its processes find them, and takes them away. */
export class Delivery {
  readonly #sandbox: Sandbox
  readonly #folders: EnvironmentFolders
  readonly #files: SecretFiles
  #variables: ReadonlyMap<string, Variable> = new Map()
  #links: LinkPlan = { kept: new Map(), fresh: new Map(), problems: new Map() }
  /** links that were made or tried, path → target, and why some are not there */
  #linked = new Map<string, string>()
  readonly #linkProblems = new Map<string, string>()
  /** secret id → session of what is delivered */
  #sessions = new Map<string, string>()
  #hasGitCredentials = false
  #problems = new Map<string, string>()

  constructor(sandbox: Sandbox, folders: EnvironmentFolders, user: User) {
    this.#sandbox = sandbox
    this.#folders = folders
    this.#files = new SecretFiles(folders.secrets, user)
  }

  /** What the next process gets. */
  get variables(): ReadonlyMap<string, Variable> {
    return this.#variables
  }

  /** Whether git finds credentials among what is delivered. */
  get hasGitCredentials(): boolean {
    return this.#hasGitCredentials
  }

  /** Those that are made anew at each start of a process. */
  get freshLinks(): ReadonlyMap<string, string> {
    return this.#links.fresh
  }

  /**
   * Delivers the values that are held of these secrets, and takes away whatever else was delivered. Afterwards nothing
   * refers to values that were replaced.
   *
   * @param insideToken for processes that ask the server themselves; empty: none
   */
  update(references: readonly SecretReference[], values: Values, insideToken: string): void {
    this.#problems = new Map()
    const secrets = this.#withValue(references, values)
    this.#sessions = new Map(secrets.map(({ id, session }) => [id, session]))
    this.#chooseVariables(secrets.filter(isMountedAs('variable')))
    this.#planLinks(references.filter(({ id, problem }) => !(problem ?? values.findRefusal(id))))
    const files = this.#findFiles(secrets.filter(isMountedAs('file')))
    const composed: [string, Buffer][] = [
      ...(insideToken ? [[TOKEN_FILE, Buffer.from(insideToken)] as [string, Buffer]] : []),
      ...this.#planRegistries(secrets.filter(isMountedAs('registry'))),
      ...this.#planGit(secrets.filter(isMountedAs('git')))
    ]
    this.#write(new Map([...files, ...composed]), secrets)
    for (const [, content] of composed) content.fill(0)
    values.release()
  }

  /** Links that stay in the environment's own folders: path → target. */
  get keptLinks(): Record<string, string> {
    return Object.fromEntries(this.#links.kept)
  }

  /**
   * Makes the links of files in the environment's own folders, and removes those of files that are gone. A process is
   * started only where there is something to do.
   *
   * @param known links that may be there from earlier: path → target
   */
  async link(known: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    const wanted = this.#links.kept
    const removed = Object.entries(known).filter(([path, target]) => wanted.get(path) !== target)
    const made = [...wanted].filter(([path, target]) => this.#linked.get(path) !== target)
    const changes: LinkChange[] = [
      ...removed.map(([path, target]) => ({ action: 'remove' as const, path, target })),
      ...made.map(([path, target]) => ({ action: 'make' as const, path, target }))
    ]
    const problems = await changeLinks(this.#sandbox, this.#folders, changes, signal)
    for (const { path } of changes) this.#linkProblems.delete(path)
    for (const [path, problem] of problems) if (wanted.has(path)) this.#linkProblems.set(path, problem)
    this.#linked = new Map(wanted)
  }

  /** Nothing is delivered any more; the files were removed with their folder. */
  withdraw(): void {
    this.#variables = new Map()
    this.#links = { kept: new Map(), fresh: new Map(), problems: new Map() }
    this.#linked = new Map()
    this.#linkProblems.clear()
    this.#sessions = new Map()
    this.#problems = new Map()
    this.#hasGitCredentials = false
    this.#files.forget()
  }

  /** How it stands with the delivery of a secret. */
  describe(reference: SecretReference, values: Values): SecretStatus {
    const { id, name, session, mount } = reference
    const delivered = this.#sessions.get(id)
    const problem = this.#findProblem(reference, values)
    const base = { id, secretName: name }
    if (problem) return { ...base, session, phase: 'CONTENT_PHASE_FAILED', failureMessage: problem }
    if (mount.kind === 'api-only' || delivered === session) {
      return { ...base, session, phase: 'CONTENT_PHASE_READY' }
    }
    if (delivered === undefined) return { ...base, session: '', phase: 'CONTENT_PHASE_INITIALIZING' }
    return { ...base, session: delivered, phase: 'CONTENT_PHASE_UPDATING' }
  }

  #findProblem({ id, mount, problem }: SecretReference, values: Values): string | undefined {
    return (
      problem ??
      values.findRefusal(id) ??
      this.#problems.get(id) ??
      (mount.kind === 'file' ? this.#linkProblems.get(mount.path) : undefined)
    )
  }

  #withValue(references: readonly SecretReference[], values: Values): Valued[] {
    return references.flatMap(({ id, mount, problem }) => {
      const value = values.find(id)
      const session = values.findSession(id)
      return problem === undefined && value && session !== undefined ? [{ id, session, mount, value }] : []
    })
  }

  #chooseVariables(secrets: readonly ValuedAs<'variable'>[]): void {
    const { chosen, problems } = chooseVariables(
      secrets.map(({ id, session, mount, value }) => ({ secretId: id, session, name: mount.name, value })),
      this.#sandbox
    )
    this.#variables = chosen
    for (const [id, problem] of problems) this.#problems.set(id, problem)
  }

  /** For values that are still to come, too: links can be made meanwhile. */
  #planLinks(references: readonly SecretReference[]): void {
    const folder = this.#sandbox.inside(this.#folders).secrets
    const files = references.flatMap(({ id, mount }): FileSecret[] =>
      mount.kind === 'file' ? [{ secretId: id, path: mount.path, target: `${folder}/${fileName(id)}` }] : []
    )
    this.#links = planLinks(files, this.#sandbox)
    for (const [id, problem] of this.#links.problems) this.#problems.set(id, problem)
  }

  #findFiles(secrets: readonly ValuedAs<'file'>[]): [string, Buffer][] {
    return secrets.filter(({ id }) => !this.#problems.has(id)).map(({ id, value }) => [fileName(id), value])
  }

  #planRegistries(secrets: readonly ValuedAs<'registry'>[]): [string, Buffer][] {
    const credentials = new Map<string, RegistryCredential>()
    for (const { id, mount, value } of secrets) {
      const auth = parseRegistryCredential(value)
      if (!auth) this.#problems.set(id, 'The value is neither user:password nor base64 of it.')
      else if (credentials.has(mount.host)) this.#problems.set(id, 'Another secret is for this registry.')
      else credentials.set(mount.host, { host: mount.host, auth })
    }
    return credentials.size > 0 ? [[DOCKER_CONFIG, dockerConfig([...credentials.values()])]] : []
  }

  #planGit(secrets: readonly ValuedAs<'git'>[]): Map<string, Buffer> {
    const credentials: (GitCredential & { host: string })[] = []
    const taken = new Set<string>()
    for (const { id, mount, value } of secrets) {
      try {
        const credential = { host: mount.host, ...parseGitCredential(value) }
        const bindings = credentialBindings(mount.host).map(({ protocol, host }) => `${protocol}://${host}`)
        if (bindings.some((binding) => taken.has(binding)))
          throw new Error('Another secret is for this host.')
        for (const binding of bindings) taken.add(binding)
        credentials.push(credential)
      } catch (error) {
        this.#problems.set(id, (error as Error).message)
      }
    }
    this.#hasGitCredentials = credentials.length > 0
    if (credentials.length === 0) return new Map()
    return gitCredentialFiles(credentials, this.#sandbox.inside(this.#folders).secrets)
  }

  #write(files: ReadonlyMap<string, Buffer>, secrets: readonly Valued[]): void {
    for (const [name, problem] of this.#files.replace(files)) {
      for (const { id } of secrets.filter((secret) => isIn(secret, name))) this.#problems.set(id, problem)
    }
  }
}

function fileName(secretId: string): string {
  return `files/${secretId}`
}

/** Whether a secret is delivered by the file of this name, alone or with others. */
function isIn({ id, mount }: Valued, name: string): boolean {
  if (mount.kind === 'file') return name === fileName(id)
  if (mount.kind === 'registry') return name === DOCKER_CONFIG
  return mount.kind === 'git' && !name.startsWith('files/') && name !== DOCKER_CONFIG
}

function isMountedAs<Kind extends SecretReference['mount']['kind']>(kind: Kind) {
  return (secret: Valued): secret is ValuedAs<Kind> => secret.mount.kind === kind
}
