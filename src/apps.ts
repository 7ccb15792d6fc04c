/**
 * GitHub keeps secrets apart by the app that receives them. All of them are one implementation; what differs is
 * this table, and a further app is one more entry.
 */

/** The owners of secrets that GitHub knows. */
export type GitHubCollectionKind = 'repository' | 'user' | 'organization' | 'deployment-environment'
/** Those that Ona's API knows besides: their secrets are of Codespaces, as all that environments receive. */
export type CollectionKind = GitHubCollectionKind | 'project' | 'service-account'

/** How one kind of collection differs from app to app. */
export interface CollectionRules {
  /** GitHub's name of the permission that a fine-grained token or an installation needs */
  permission: string
  /** the level of it that reading needs */
  readLevel: 'read' | 'write'
  /** how many secrets one collection holds, unless COFFER_MAX_SECRETS says otherwise */
  maxSecrets: number
  /** page of GitHub's REST reference */
  docs: string
  /** whether a PUT may leave out the value of a secret that exists, to change who receives it */
  valueOptional?: true
}

export interface AppRules {
  /** as people write it */
  title: string
  collections: Partial<Record<GitHubCollectionKind, CollectionRules>>
  /** whether a repository lists the organization's secrets that it receives */
  listsOrganizationSecrets?: true
}

export const APPS = {
  codespaces: {
    title: 'Codespaces',
    collections: {
      repository: {
        permission: 'codespaces_secrets',
        readLevel: 'write',
        maxSecrets: 100,
        docs: 'codespaces/repository-secrets'
      },
      user: {
        permission: 'codespaces_user_secrets',
        readLevel: 'read',
        maxSecrets: 100,
        docs: 'codespaces/secrets',
        valueOptional: true
      },
      organization: {
        permission: 'organization_codespaces_secrets',
        readLevel: 'read',
        maxSecrets: 100,
        docs: 'codespaces/organization-secrets',
        valueOptional: true
      }
    }
  },
  actions: {
    title: 'Actions',
    collections: {
      repository: { permission: 'secrets', readLevel: 'read', maxSecrets: 100, docs: 'actions/secrets' },
      organization: {
        permission: 'organization_secrets',
        readLevel: 'read',
        maxSecrets: 1000,
        docs: 'actions/secrets',
        valueOptional: true
      },
      'deployment-environment': {
        permission: 'environments',
        readLevel: 'read',
        maxSecrets: 100,
        docs: 'actions/secrets'
      }
    },
    listsOrganizationSecrets: true
  },
  dependabot: {
    title: 'Dependabot',
    collections: {
      repository: {
        permission: 'dependabot_secrets',
        readLevel: 'read',
        maxSecrets: 100,
        docs: 'dependabot/secrets'
      },
      organization: {
        permission: 'organization_dependabot_secrets',
        readLevel: 'read',
        maxSecrets: 100,
        docs: 'dependabot/secrets',
        valueOptional: true
      }
    }
  },
  agents: {
    title: 'Agents',
    collections: {
      repository: { permission: 'agent_secrets', readLevel: 'read', maxSecrets: 100, docs: 'agents/secrets' },
      organization: {
        permission: 'organization_agent_secrets',
        readLevel: 'read',
        maxSecrets: 100,
        docs: 'agents/secrets'
      }
    },
    listsOrganizationSecrets: true
  }
} as const satisfies Record<string, AppRules>

export type App = keyof typeof APPS
export const APP_NAMES = Object.keys(APPS) as App[]

type CollectionsOf<A extends App> = (typeof APPS)[A]['collections']
/** The permissions that the table names. */
export type SecretPermission = {
  [A in App]: CollectionsOf<A>[keyof CollectionsOf<A>] extends { permission: infer P } ? P : never
}[App]

/** The differences of one kind of collection; throws for a kind that the app does not have. */
export function collectionRules(
  app: App,
  kind: GitHubCollectionKind
): CollectionRules & { permission: SecretPermission } {
  const rules = (APPS[app] as AppRules).collections[kind]
  if (!rules) throw new Error(`${app} has no secrets of kind ${kind}`)
  return rules as CollectionRules & { permission: SecretPermission }
}

const MAX_SECRETS_OF_PROJECT = 1000

/** How many secrets one collection holds, unless COFFER_MAX_SECRETS says otherwise. */
export function defaultMaxSecrets(app: App, kind: CollectionKind): number {
  return kind === 'project' || kind === 'service-account'
    ? MAX_SECRETS_OF_PROJECT
    : collectionRules(app, kind).maxSecrets
}

/** The apps that keep secrets for this kind of owner. */
export function appsOf(kind: CollectionKind): App[] {
  if (kind === 'project' || kind === 'service-account') return ['codespaces']
  return APP_NAMES.filter((app) => kind in APPS[app].collections)
}
