import { type Command, InvalidArgumentError, Option } from 'commander'
import { APP_NAMES, type App, appsOf, type GitHubCollectionKind } from '../../apps.ts'
import { RefusedToStart } from '../../errors.ts'
import { segment } from '../api-client.ts'
import { fullName, parseLogin, parseRepository, type RepositoryName } from '../names.ts'

export interface CollectionOptions {
  repo?: RepositoryName
  org?: string
  user?: true
  env?: string
  app?: App
}

/** A set of secrets on a server. */
export interface Collection {
  kind: GitHubCollectionKind
  app: App
  /** the organization's login */
  org?: string
  /** of the list of its secrets */
  path: string
  /** for people: "codespaces secrets of admin/web" */
  name: string
  /** what it means when the server finds nothing at the path */
  notFound: string
}

export function addCollectionOptions(command: Command): Command {
  return command
    .option('-R, --repo <owner/name>', 'secrets of a repository', parseRepository)
    .option('-o, --org <org>', 'secrets of an organization', parseLogin)
    .option('-u, --user', 'secrets of the account that the token belongs to')
    .option('-e, --env <environment>', 'with --repo: secrets of a deployment environment', parseEnvironment)
    .addOption(
      new Option('-a, --app <app>', 'who receives them (codespaces; with --env: actions)').choices(APP_NAMES)
    )
}

/** Which secrets are meant; the apps and owners that GitHub's API has, and no others. */
export function readCollection({ repo, org, user, env, app }: CollectionOptions): Collection {
  if ([repo, org, user].filter((owner) => owner !== undefined).length !== 1) {
    throw new RefusedToStart('Say whose secrets: --repo OWNER/NAME, --org ORG, or --user.')
  }
  if (env !== undefined) {
    if (!repo) throw new RefusedToStart('--env goes with --repo.')
    return environmentCollection(repo, env, requireApp('deployment-environment', app ?? 'actions'))
  }
  if (repo) return repositoryCollection(repo, requireApp('repository', app))
  if (org !== undefined) return organizationCollection(org, requireApp('organization', app))
  return userCollection(requireApp('user', app))
}

const OWNERS: Readonly<Record<GitHubCollectionKind, string>> = {
  repository: 'A repository',
  organization: 'An organization',
  user: 'A user',
  'deployment-environment': 'A deployment environment'
}

function requireApp(kind: GitHubCollectionKind, app: App = 'codespaces'): App {
  const apps = appsOf(kind)
  if (apps.includes(app)) return app
  throw new RefusedToStart(`${OWNERS[kind]} has secrets for ${apps.join(', ')} alone, not for ${app}.`)
}

export function repositoryPath({ owner, name }: RepositoryName): string {
  return `/repos/${segment(owner)}/${segment(name)}`
}

export function noRepository(repository: RepositoryName): string {
  return `There is no repository ${fullName(repository)} that this token can see, or it is not allowed this.`
}

function repositoryCollection(repo: RepositoryName, app: App): Collection {
  return {
    kind: 'repository',
    app,
    path: `${repositoryPath(repo)}/${app}/secrets`,
    name: `${app} secrets of ${fullName(repo)}`,
    notFound: noRepository(repo)
  }
}

function environmentCollection(repo: RepositoryName, environment: string, app: App): Collection {
  return {
    kind: 'deployment-environment',
    app,
    // The app is not in the path: there is one that has them.
    path: `${repositoryPath(repo)}/environments/${segment(environment)}/secrets`,
    name: `secrets of ${environment} in ${fullName(repo)}`,
    notFound: `${noRepository(repo)} Or: it has no deployment environment ${environment}.`
  }
}

function userCollection(app: App): Collection {
  return {
    kind: 'user',
    app,
    path: `/user/${app}/secrets`,
    name: `${app} secrets of the user`,
    notFound: 'The server has no secrets of users.'
  }
}

function organizationCollection(org: string, app: App): Collection {
  return {
    kind: 'organization',
    app,
    org,
    path: `/orgs/${segment(org)}/${app}/secrets`,
    name: `${app} secrets of ${org}`,
    notFound: `There is no organization ${org}, or this token's account is no owner of it.`
  }
}

/** Any name, slashes included, that does not turn into another path. */
function parseEnvironment(text: string): string {
  if (text !== '' && text.length <= 255 && !/^\.\.?$/.test(text)) return text
  throw new InvalidArgumentError('That is no name of a deployment environment.')
}
