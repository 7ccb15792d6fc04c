import { type Command, InvalidArgumentError } from 'commander'
import { PERMISSIONS, SCOPES } from '../../auth/scopes.ts'
import { RefusedToStart } from '../../errors.ts'
import { parseRepository, type RepositoryName } from '../names.ts'
import { printJson } from '../terminal.ts'
import type { TokenOrder, TokenSummary } from './administration.ts'
import {
  administer,
  type CommonOptions,
  describePermissions,
  group,
  leaf,
  login,
  parsePermission,
  parsePermissions,
  report,
  withJson
} from './common.ts'

interface TokenOptions extends CommonOptions {
  scopes?: string[]
  permission?: Record<string, string>
  permissions?: Record<string, string>
  repo?: RepositoryName[]
  allRepos?: true
  expires?: number
  note?: string
}

const EXAMPLES = `admin token create mona --scopes repo,codespace
  $ npx coffer admin token create mona --permission codespaces_secrets=write --repo mona/web --expires 30
  $ npx coffer admin token create mona --permissions codespaces_user_secrets=write,secrets=read --all-repos
  $ TOKEN=$(npx coffer admin token create mona --scopes all)

A lost token of the administrator is replaced while the server is stopped:
  $ npx coffer admin token create admin --scopes all --offline

Permissions, by GitHub's names; each is read or write, metadata read alone:
${listPermissions()}

A token for somebody else lives an hour, unless the account never had one or --expires says otherwise.`

function listPermissions(): string {
  return Object.keys(PERMISSIONS)
    .sort()
    .map((name) => `  ${name}`)
    .join('\n')
}

export function addTokenCommands(admin: Command): void {
  const token = group(admin, 'token', 'Make and revoke tokens.')

  withJson(
    leaf(token, 'create', 'Make a token, and print it once: the token alone on standard output.', EXAMPLES)
  )
    .addArgument(login())
    .option('--scopes <list>', `classic: all, or among ${SCOPES.join(',')}`, parseScopes)
    .option(
      '--permission <name=level>',
      'fine-grained: a permission, read or write; repeatable',
      addPermission
    )
    .option('--permissions <name=level,…>', 'the same, several at once', parsePermissions)
    .option('--repo <owner/name>', 'fine-grained: a repository that it reaches; repeatable', addRepository)
    .option('--all-repos', 'fine-grained: it reaches all that the user reaches')
    .option('--expires <days>', 'how long it lives', parseDays)
    .option('--note <text>', 'what it is for')
    .action(async (login: string, options: TokenOptions) => {
      const order = readOrder(options)
      const issued = await administer(options, (administration) => administration.createToken(login, order))
      if (options.json) return printJson(issued)
      process.stdout.write(`${issued.token}\n`)
      process.stderr.write(`${describe(login, issued)}\n`)
    })

  leaf(token, 'revoke', 'Revoke every token of a user, at once.', 'admin token revoke mona')
    .addArgument(login())
    .action(async (login: string, options: CommonOptions) => {
      await administer(options, (administration) => administration.revokeTokens(login))
      report(undefined, {}, `Every token of ${login} is revoked.`)
    })
}

function readOrder({ scopes, repo, allRepos, expires, note, ...options }: TokenOptions): TokenOrder {
  const permissions =
    options.permission || options.permissions ? { ...options.permissions, ...options.permission } : undefined
  if ((scopes === undefined) === (permissions === undefined)) {
    throw new RefusedToStart(
      'Say what the token may: with --scopes (a classic one) or with --permission (a fine-grained one), not both.'
    )
  }
  if (scopes && (repo || allRepos)) {
    throw new RefusedToStart(
      '--repo and --all-repos go with --permission: a classic token has no list of repositories.'
    )
  }
  if (repo && allRepos) throw new RefusedToStart('Give --repo or --all-repos, not both.')
  return {
    ...(scopes && { scopes }),
    ...(permissions && { permissions }),
    ...(repo && { repositories: repo }),
    ...(allRepos && { allRepositories: true }),
    ...(expires !== undefined && { expiresInDays: expires }),
    ...(note !== undefined && { note })
  }
}

function describe(login: string, { kind, scopes, permissions, expires_at }: TokenSummary): string {
  const allowed = kind === 'classic' ? scopes.join(', ') : describePermissions(permissions)
  const until = expires_at ? `valid until ${expires_at}` : 'without an end'
  return `A ${kind} token of ${login} (${allowed || 'no scopes'}), ${until}; it is shown this once.`
}

function parseScopes(text: string): string[] {
  if (text === 'all') return [...SCOPES]
  return text
    .split(',')
    .map((scope) => scope.trim())
    .filter((scope) => scope !== '')
}

function addPermission(text: string, given: Record<string, string> = {}): Record<string, string> {
  const [name, level] = parsePermission(text)
  return { ...given, [name]: level }
}

function addRepository(text: string, given: RepositoryName[] = []): RepositoryName[] {
  return [...given, parseRepository(text)]
}

function parseDays(text: string): number {
  if (/^[1-9][0-9]{0,5}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Give a whole number of days.')
}
