import type { Readable } from 'node:stream'
import { CLONE_SCRIPT } from './clone-script.ts'
import type { ExitStatus } from './exit-status.ts'
import { explainFailure } from './git-failure.ts'
import type { CloneTargetMode, GitSource } from './interface.ts'
import { curlResolve, parseRemote, type ResolvedRemote, resolveRemote } from './remotes.ts'
import type { EnvironmentFolders, Sandbox, SandboxedProcess } from './sandbox.ts'
import { sshCommand } from './ssh-command.ts'

/** A repository is not there as it was asked for; the message says why, and is fit to be shown. */
export class CloneFailed extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'CloneFailed'
  }
}

export interface CloneOptions {
  /** for the configuration of each clone; empty: none */
  gitUsername: string
  gitEmail: string
  /** for all sources together */
  timeoutMs: number
  signal: AbortSignal
  /** whether the files of the credential helper lie in the folder of secrets */
  hasCredentials: boolean
}

export interface ClonedRepository {
  cloneUrl: string
  /** empty: HEAD is detached */
  branch: string
  /** empty: there is none yet */
  latestCommit: string
}

const MAX_OUTPUT_BYTES = 64 * 1024
/** What the script gives when there is no checkout, and no remote to make one from. */
const NEEDS_REMOTE = 2

/** A name is checked further by git. */
const REFERENCE = /^(?!-)\S{1,255}$/
const TARGETS: Readonly<Record<CloneTargetMode, RegExp>> = {
  CLONE_TARGET_MODE_REMOTE_HEAD: /^/,
  CLONE_TARGET_MODE_REMOTE_BRANCH: REFERENCE,
  CLONE_TARGET_MODE_REMOTE_TAG: REFERENCE,
  CLONE_TARGET_MODE_LOCAL_BRANCH: REFERENCE,
  CLONE_TARGET_MODE_REMOTE_COMMIT: /^[0-9a-f]{7,64}$/i
}

/** Slower than this for so long, a transfer is given up. */
const LOW_SPEED = { bytesPerSecond: 1000, seconds: 60 }

/**
 * Clones sources into the workspace, one after the other, inside the sandbox. What is there already stays as it is, so
 * that this can be called again after an end at any time.
 *
 * @returns what became of the first source, and where it lies in the workspace
 * @throws CloneFailed, RemoteRefused; what `signal` was aborted with
 */
export async function cloneSources(
  sandbox: Sandbox,
  folders: EnvironmentFolders,
  sources: readonly GitSource[],
  options: CloneOptions
): Promise<{ git?: ClonedRepository; folder?: string }> {
  const deadline = AbortSignal.timeout(options.timeoutMs)
  const signal = AbortSignal.any([options.signal, deadline])
  const cloned: ClonedRepository[] = []
  try {
    for (const [index, source] of sources.entries()) {
      cloned.push(
        await cloneSource(sandbox, folders, source, `.coffer-clone-${index}`, { ...options, signal })
      )
    }
  } catch (error) {
    options.signal.throwIfAborted()
    if (!deadline.aborted) throw error
    throw new CloneFailed(`Cloning took longer than ${Math.round(options.timeoutMs / 1000)} seconds.`)
  }
  const [git] = cloned
  return git ? { git, folder: checkoutFolder(sources[0]!) } : {}
}

/** Relative to the workspace, with nothing behind it. */
function checkoutFolder({ checkoutLocation, remoteUri }: GitSource): string {
  return checkoutLocation === '' ? parseRemote(remoteUri).repository : checkoutLocation
}

async function cloneSource(
  sandbox: Sandbox,
  folders: EnvironmentFolders,
  source: GitSource,
  unfinished: string,
  options: CloneOptions
): Promise<ClonedRepository> {
  options.signal.throwIfAborted()
  const remote = parseRemote(source.remoteUri)
  const { uri: upstream } =
    source.upstreamRemoteUri === '' ? { uri: '' } : parseRemote(source.upstreamRemoteUri)
  const location = checkoutFolder(source)
  requireLocation(location)
  requireTarget(source)
  // Without a network, a checkout that is there is still good.
  const resolved = await resolveRemote(remote).catch((error: Error) => error)
  const uri = resolved instanceof Error ? '' : remote.uri
  const mode = source.targetMode.replace('CLONE_TARGET_MODE_', '')
  const target = mode === 'REMOTE_HEAD' ? '' : source.cloneTarget
  const texts = [mode, target, uri, upstream, unfinished, options.gitUsername, options.gitEmail]
  if (texts.some((text) => text.includes('\0')))
    throw new CloneFailed('A text of the source has a NUL character.')
  const inside = sandbox.inside(folders)
  const process = await sandbox.start(folders, {
    command: ['/bin/sh', '-c', CLONE_SCRIPT, 'sh', location, ...texts],
    workingDirectory: inside.workspace,
    variables: gitVariables(
      resolved instanceof Error ? remote : resolved,
      options.hasCredentials ? `${inside.secrets}/gitconfig` : '/dev/null'
    ),
    links: new Map()
  })
  const { status, stdout, stderr } = await finish(process, options.signal)
  if (status.code === NEEDS_REMOTE && resolved instanceof Error) throw resolved
  if (status.code !== 0) throw new CloneFailed(explainFailure(remote, status, stderr))
  const [branch = '', latestCommit = ''] = stdout.split('\n')
  return { cloneUrl: remote.uri, branch, latestCommit }
}

/** Nothing of the machine's or the environment's own configuration, no questions, and no way but to the remote. */
function gitVariables(remote: ResolvedRemote, globalConfiguration: string): Record<string, string> {
  const resolve = curlResolve(remote)
  const configuration: [string, string][] = [
    ['core.hooksPath', '/dev/null'],
    ['http.followRedirects', 'false'],
    ['http.lowSpeedLimit', String(LOW_SPEED.bytesPerSecond)],
    ['http.lowSpeedTime', String(LOW_SPEED.seconds)],
    ['submodule.recurse', 'false'],
    ['advice.detachedHead', 'false'],
    ...(resolve === undefined ? [] : [['http.curloptResolve', resolve] satisfies [string, string]])
  ]
  return {
    LC_ALL: 'C.UTF-8',
    LANGUAGE: 'C',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: globalConfiguration,
    GIT_CONFIG_COUNT: String(configuration.length),
    ...Object.fromEntries(
      configuration.flatMap(([key, value], index) => [
        [`GIT_CONFIG_KEY_${index}`, key],
        [`GIT_CONFIG_VALUE_${index}`, value]
      ])
    ),
    GIT_ALLOW_PROTOCOL: 'https:http:ssh',
    GIT_TERMINAL_PROMPT: '0',
    GIT_ASKPASS: '',
    GIT_SSH_COMMAND: sshCommand(remote),
    GIT_SSH_VARIANT: 'ssh'
  }
}

async function finish(
  process: SandboxedProcess,
  signal: AbortSignal
): Promise<{ status: ExitStatus; stdout: string; stderr: string }> {
  const stop = () => process.kill()
  signal.addEventListener('abort', stop)
  try {
    if (signal.aborted) stop()
    process.stdin.end()
    const [status, stdout, stderr] = await Promise.all([
      process.exit,
      collect(process.stdout),
      collect(process.stderr)
    ])
    signal.throwIfAborted()
    return { status, stdout, stderr }
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** The end of what is written; a remote has a say in how much that is. */
async function collect(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream.setEncoding('utf8')) text = (text + chunk).slice(-MAX_OUTPUT_BYTES)
  return text
}

/** @throws CloneFailed when the checkout would lie outside of the workspace, or in a repository's own data */
function requireLocation(location: string): void {
  const segments = location.replace(/\/$/, '').split('/')
  const isFit = segments.every(
    (segment) => segment !== '' && segment !== '.' && segment !== '..' && segment.toLowerCase() !== '.git'
  )
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (isFit && !location.startsWith('-') && !/[\x00-\x1f\x7f]/.test(location)) return
  throw new CloneFailed(
    'The checkout location has to be a folder below the workspace, as "backend" or "services/backend".'
  )
}

/** @throws CloneFailed when the target is not what its mode needs */
function requireTarget({ targetMode, cloneTarget }: GitSource): void {
  const isFit = TARGETS[targetMode].test(cloneTarget)
  if (!isFit) throw new CloneFailed(`The clone target is not what ${targetMode} needs.`)
}
