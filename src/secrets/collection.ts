import { type App, type CollectionKind, defaultMaxSecrets, type GitHubCollectionKind } from '../apps.ts'

/** The owner of a set of secrets. */
export interface Collection {
  app: App
  kind: CollectionKind
  /** uid of the repository, account, deployment environment, project or service account */
  ownerUid: string
  /** uid of the account in whose audit stream changes are recorded */
  streamUid: string
  /** of the repository that a deployment environment belongs to */
  repositoryUid?: string
}

/** One that GitHub's API knows. */
export type GitHubCollection = Collection & { kind: GitHubCollectionKind }

/** The canonical string; part of key derivation and of every envelope, so it never changes. */
export function collectionName({
  app,
  kind,
  ownerUid
}: Pick<Collection, 'app' | 'kind' | 'ownerUid'>): string {
  return `${app}/${kind}/${ownerUid}`
}

export interface Limits {
  maxValueBytes: number
  /** of every collection; undefined: what GitHub allows for the app and kind of each */
  maxSecrets?: number | undefined
}

/** How many secrets a collection holds at most. */
export function maxSecretsOf(limits: Limits, { app, kind }: Pick<Collection, 'app' | 'kind'>): number {
  return limits.maxSecrets ?? defaultMaxSecrets(app, kind)
}
