import type { CloneTargetMode, GitSource } from '../runner/interface.ts'
import type { InitializerSpec } from './spec.ts'

/** What a page of a repository on the web says beside the repository: a branch or a commit. */
const PAGE =
  /^(?<repository>https?:\/\/[^/]+\/[^/]+\/[^/]+)\/(?:-\/)?(?<what>tree|commit|commits)\/(?<target>[^?#]+)$/

/** What is cloned for one spec of an initializer; undefined for one that names nothing. */
export function sourceOf({ git, contextUrl }: InitializerSpec): GitSource | undefined {
  if (contextUrl?.url) return sourceOfUrl(contextUrl.url)
  if (!git?.remoteUri) return undefined
  const cloneTarget = git.cloneTarget ?? ''
  return {
    remoteUri: git.remoteUri,
    upstreamRemoteUri: git.upstreamRemoteUri ?? '',
    targetMode: (git.targetMode as CloneTargetMode | undefined) ?? modeFor(cloneTarget),
    cloneTarget,
    checkoutLocation: git.checkoutLocation ?? ''
  }
}

/** Who names a target and no mode means a branch. */
function modeFor(cloneTarget: string): CloneTargetMode {
  return cloneTarget ? 'CLONE_TARGET_MODE_REMOTE_BRANCH' : 'CLONE_TARGET_MODE_REMOTE_HEAD'
}

function sourceOfUrl(url: string): GitSource {
  const { repository, what, target } = PAGE.exec(url)?.groups ?? {}
  const common = { upstreamRemoteUri: '', checkoutLocation: '' }
  if (!repository || !target) {
    return { ...common, remoteUri: url, targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD', cloneTarget: '' }
  }
  return {
    ...common,
    remoteUri: `${repository}.git`,
    targetMode: what === 'tree' ? 'CLONE_TARGET_MODE_REMOTE_BRANCH' : 'CLONE_TARGET_MODE_REMOTE_COMMIT',
    cloneTarget: decodeTarget(target.replace(/\/+$/, ''))
  }
}

function decodeTarget(target: string): string {
  try {
    return decodeURIComponent(target)
  } catch {
    return target
  }
}
