export type App = 'codespaces'
export type CollectionKind = 'repository' | 'user'

/** The owner of a set of secrets. */
export interface Collection {
  app: App
  kind: CollectionKind
  /** uid of the repository or account */
  ownerUid: string
  /** uid of the account in whose audit stream changes are recorded */
  streamUid: string
}

export const APPS: readonly App[] = ['codespaces']

/** The canonical string; part of key derivation and of every envelope, so it never changes. */
export function collectionName({
  app,
  kind,
  ownerUid
}: Pick<Collection, 'app' | 'kind' | 'ownerUid'>): string {
  return `${app}/${kind}/${ownerUid}`
}
