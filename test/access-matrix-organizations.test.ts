import t from 'tap'
import type { App } from '../src/apps.ts'
import { makeToken } from '../src/auth/token.ts'
import type { TokenRequest } from '../src/directory/tokens.ts'
import type { Account } from '../src/store/accounts.ts'
import type { RepositoryRole } from '../src/store/tables.ts'
import { startTestServer, type TestServer } from './helper.ts'

// Who may do what in an organization, and with the secrets of the apps beside Codespaces: operation × role ×
// token, cell by cell. What holds for Codespaces secrets of repositories and users is in access-matrix.test.ts.

/**
 * Letter → what a cell must answer.
 *
 * `+` done, with the operation's own status · `0` `1` `2` done, and so many repositories are shown
 * `u` no credentials · `b` credentials that are not valid · `-` may not know that it exists
 * `s` scope, or role on the repository, is too low · `p` the permission of a fine-grained token is
 * `o` a member, but no owner · `x` a repository id that is answered like one that does not exist
 */
type Letter = '+' | '0' | '1' | '2' | 'u' | 'b' | '-' | 's' | 'p' | 'o' | 'x'
const REFUSALS: Partial<Record<Letter, [status: number, message: string]>> = {
  u: [401, 'Requires authentication'],
  b: [401, 'Bad credentials'],
  '-': [404, 'Not Found'],
  s: [403, 'Must have admin rights to Repository.'],
  p: [403, 'Resource not accessible by personal access token'],
  o: [403, 'Must be an owner of the organization.']
}

/** Everybody; `collaborator` is a role on Acme's repositories, `member` one in Acme. */
const PEOPLE = {
  n: { login: 'nobody' },
  S: { login: 'siteadmin' },
  r: { login: 'reader', collaborator: 'read' },
  t: { login: 'triager', collaborator: 'triage' },
  w: { login: 'writer', collaborator: 'write' },
  m: { login: 'maintainer', collaborator: 'maintain' },
  a: { login: 'administrator', collaborator: 'admin' },
  M: { login: 'member', member: 'member' },
  W: { login: 'writingmember', member: 'member', collaborator: 'write' },
  E: { login: 'otherowner' },
  O: { login: 'owner', member: 'admin' }
} as const satisfies Record<
  string,
  { login: string; collaborator?: RepositoryRole; member?: 'member' | 'admin' }
>
type Person = keyof typeof PEOPLE
const LOGINS = Object.values(PEOPLE).map(({ login }) => login)
const IN_ORGANIZATION = 'nSaMWEO'
const ON_REPOSITORY = 'nSrtwmaMWO'

const VISIBILITIES = ['private', 'public'] as const
type Visibility = (typeof VISIBILITIES)[number]

const EVERY_SCOPE = ['repo', 'codespace', 'admin:org', 'site_admin']
type List = 'listed' | 'not listed' | 'all'
type Token =
  | 'nothing'
  | 'garbage'
  | { scopes: string[] }
  /** `own`: the permission that the table is about · `list`: whether its repositories have the one in question */
  | { permission: 'own' | 'sibling' | 'wider' | undefined; level?: 'read' | 'write'; list: List }

/** The rows of the tables. */
const TOKENS: Record<string, Token> = {
  'no token': 'nothing',
  garbage: 'garbage',
  'no scope': { scopes: [] },
  repo: { scopes: ['repo'] },
  public_repo: { scopes: ['public_repo'] },
  codespace: { scopes: ['codespace'] },
  'codespace:secrets': { scopes: ['codespace:secrets'] },
  'read:org': { scopes: ['read:org'] },
  'write:org': { scopes: ['write:org'] },
  'admin:org': { scopes: ['admin:org'] },
  site_admin: { scopes: ['site_admin'] },
  'every scope': { scopes: EVERY_SCOPE },
  'no permission, all': { permission: undefined, list: 'all' },
  'own:read, listed': { permission: 'own', level: 'read', list: 'listed' },
  'own:read, not listed': { permission: 'own', level: 'read', list: 'not listed' },
  'own:read, all': { permission: 'own', level: 'read', list: 'all' },
  'own:write, listed': { permission: 'own', level: 'write', list: 'listed' },
  'own:write, not listed': { permission: 'own', level: 'write', list: 'not listed' },
  'own:write, all': { permission: 'own', level: 'write', list: 'all' },
  "sibling's:write, all": { permission: 'sibling', level: 'write', list: 'all' },
  "wider's:write, all": { permission: 'wider', level: 'write', list: 'all' }
}

/**
 * The permissions, by GitHub's names: `own` for what the tables are about, `sibling` the same of another app, and
 * `wider` for what is above or below it.
 */
interface Names {
  own: string
  sibling: string
  wider: string
}

const ORGANIZATION_PERMISSIONS: Record<App, Names> = {
  codespaces: {
    own: 'organization_codespaces_secrets',
    sibling: 'organization_secrets',
    wider: 'codespaces_secrets'
  },
  actions: { own: 'organization_secrets', sibling: 'organization_dependabot_secrets', wider: 'secrets' },
  dependabot: {
    own: 'organization_dependabot_secrets',
    sibling: 'organization_agent_secrets',
    wider: 'organization_administration'
  },
  agents: {
    own: 'organization_agent_secrets',
    sibling: 'organization_codespaces_secrets',
    wider: 'agent_secrets'
  }
}

// Secrets of an organization are for its owners; who does not belong to it is told nothing.
const READ_ORGANIZATION_SECRETS = `
                          nSaMWEO
  no token                uuuuuuu
  garbage                 bbbbbbb
  no scope                ---ss-s
  repo                    ---ss-s
  public_repo             ---ss-s
  codespace               ---ss-s
  codespace:secrets       ---ss-s
  read:org                ---ss-s
  write:org               ---ss-s
  admin:org               ---oo-+
  site_admin              ---ss-s
  every scope             ---oo-+
  no permission, all      ---pp-p
  own:read, listed        ---oo-+
  own:read, not listed    ---oo-+
  own:read, all           ---oo-+
  own:write, listed       ---oo-+
  own:write, not listed   ---oo-+
  own:write, all          ---oo-+
  sibling's:write, all    ---pp-p
  wider's:write, all      ---pp-p
`

const WRITE_ORGANIZATION_SECRETS = `
                          nSaMWEO
  no token                uuuuuuu
  garbage                 bbbbbbb
  no scope                ---ss-s
  repo                    ---ss-s
  public_repo             ---ss-s
  codespace               ---ss-s
  codespace:secrets       ---ss-s
  read:org                ---ss-s
  write:org               ---ss-s
  admin:org               ---oo-+
  site_admin              ---ss-s
  every scope             ---oo-+
  no permission, all      ---pp-p
  own:read, listed        ---pp-p
  own:read, not listed    ---pp-p
  own:read, all           ---pp-p
  own:write, listed       ---oo-+
  own:write, not listed   ---oo-+
  own:write, all          ---oo-+
  sibling's:write, all    ---pp-p
  wider's:write, all      ---pp-p
`

// Of the two selected repositories, a private and a public one, those are shown that the token sees.
const SHOWN_REPOSITORIES = `
                          nSaMWEO
  no token                uuuuuuu
  garbage                 bbbbbbb
  no scope                ---ss-s
  repo                    ---ss-s
  public_repo             ---ss-s
  codespace               ---ss-s
  codespace:secrets       ---ss-s
  read:org                ---ss-s
  write:org               ---ss-s
  admin:org               ---oo-1
  site_admin              ---ss-s
  every scope             ---oo-2
  no permission, all      ---pp-p
  own:read, listed        ---oo-2
  own:read, not listed    ---oo-1
  own:read, all           ---oo-2
  own:write, listed       ---oo-2
  own:write, not listed   ---oo-1
  own:write, all          ---oo-2
  sibling's:write, all    ---pp-p
  wider's:write, all      ---pp-p
`

// Selecting a repository needs a token that sees it; a fine-grained one must reach it, public or not.
const SELECTED_REPOSITORIES = `
                          private    public
                          nSaMWEO    nSaMWEO
  no token                uuuuuuu    uuuuuuu
  garbage                 bbbbbbb    bbbbbbb
  no scope                ---ss-s    ---ss-s
  repo                    ---ss-s    ---ss-s
  public_repo             ---ss-s    ---ss-s
  codespace               ---ss-s    ---ss-s
  codespace:secrets       ---ss-s    ---ss-s
  read:org                ---ss-s    ---ss-s
  write:org               ---ss-s    ---ss-s
  admin:org               ---oo-x    ---oo-+
  site_admin              ---ss-s    ---ss-s
  every scope             ---oo-+    ---oo-+
  no permission, all      ---pp-p    ---pp-p
  own:read, listed        ---pp-p    ---pp-p
  own:read, not listed    ---pp-p    ---pp-p
  own:read, all           ---pp-p    ---pp-p
  own:write, listed       ---oo-+    ---oo-+
  own:write, not listed   ---oo-x    ---oo-x
  own:write, all          ---oo-+    ---oo-+
  sibling's:write, all    ---pp-p    ---pp-p
  wider's:write, all      ---pp-p    ---pp-p
`

// Members see each other; owners say who is one.
const READ_MEMBERS = `
                          nSaMWEO
  no token                uuuuuuu
  garbage                 bbbbbbb
  no scope                ---ss-s
  repo                    ---ss-s
  public_repo             ---ss-s
  codespace               ---ss-s
  codespace:secrets       ---ss-s
  read:org                ---++-+
  write:org               ---++-+
  admin:org               ---++-+
  site_admin              ---ss-s
  every scope             ---++-+
  no permission, all      ---pp-p
  own:read, listed        ---++-+
  own:read, not listed    ---++-+
  own:read, all           ---++-+
  own:write, listed       ---++-+
  own:write, not listed   ---++-+
  own:write, all          ---++-+
  sibling's:write, all    ---pp-p
  wider's:write, all      ---pp-p
`

// Secrets of a repository or of a deployment environment: a role from write up; the scope repo, on public
// repositories too; of fine-grained tokens the app's own permission, on a repository that they reach.
const READ_SECRETS = `
                          private       public
                          nSrtwmaMWO    nSrtwmaMWO
  no token                uuuuuuuuuu    uuuuuuuuuu
  garbage                 bbbbbbbbbb    bbbbbbbbbb
  no scope                ----------    ssssssssss
  repo                    --ss+++s++    ssss+++s++
  public_repo             ----------    ssssssssss
  codespace               ----------    ssssssssss
  codespace:secrets       ----------    ssssssssss
  read:org                ----------    ssssssssss
  write:org               ----------    ssssssssss
  admin:org               ----------    ssssssssss
  site_admin              ----------    ssssssssss
  every scope             --ss+++s++    ssss+++s++
  no permission, all      --pppppppp    pppppppppp
  own:read, listed        --ss+++s++    ssss+++s++
  own:read, not listed    ----------    pppppppppp
  own:read, all           --ss+++s++    ssss+++s++
  own:write, listed       --ss+++s++    ssss+++s++
  own:write, not listed   ----------    pppppppppp
  own:write, all          --ss+++s++    ssss+++s++
  sibling's:write, all    --pppppppp    pppppppppp
  wider's:write, all      --pppppppp    pppppppppp
`

const WRITE_SECRETS = `
                          private       public
                          nSrtwmaMWO    nSrtwmaMWO
  no token                uuuuuuuuuu    uuuuuuuuuu
  garbage                 bbbbbbbbbb    bbbbbbbbbb
  no scope                ----------    ssssssssss
  repo                    --ss+++s++    ssss+++s++
  public_repo             ----------    ssssssssss
  codespace               ----------    ssssssssss
  codespace:secrets       ----------    ssssssssss
  read:org                ----------    ssssssssss
  write:org               ----------    ssssssssss
  admin:org               ----------    ssssssssss
  site_admin              ----------    ssssssssss
  every scope             --ss+++s++    ssss+++s++
  no permission, all      --pppppppp    pppppppppp
  own:read, listed        --pppppppp    pppppppppp
  own:read, not listed    ----------    pppppppppp
  own:read, all           --pppppppp    pppppppppp
  own:write, listed       --ss+++s++    ssss+++s++
  own:write, not listed   ----------    pppppppppp
  own:write, all          --ss+++s++    ssss+++s++
  sibling's:write, all    --pppppppp    pppppppppp
  wider's:write, all      --pppppppp    pppppppppp
`

// The public key is for everybody who reads the repository; no scope where it is public.
const PUBLIC_KEY = `
                          private       public
                          nSrtwmaMWO    nSrtwmaMWO
  no token                uuuuuuuuuu    uuuuuuuuuu
  garbage                 bbbbbbbbbb    bbbbbbbbbb
  no scope                ----------    ++++++++++
  repo                    --++++++++    ++++++++++
  public_repo             ----------    ++++++++++
  codespace               ----------    ++++++++++
  codespace:secrets       ----------    ++++++++++
  read:org                ----------    ++++++++++
  write:org               ----------    ++++++++++
  admin:org               ----------    ++++++++++
  site_admin              ----------    ++++++++++
  every scope             --++++++++    ++++++++++
  no permission, all      --pppppppp    pppppppppp
  own:read, listed        --++++++++    ++++++++++
  own:read, not listed    ----------    pppppppppp
  own:read, all           --++++++++    ++++++++++
  own:write, listed       --++++++++    ++++++++++
  own:write, not listed   ----------    pppppppppp
  own:write, all          --++++++++    ++++++++++
  sibling's:write, all    --pppppppp    pppppppppp
  wider's:write, all      --pppppppp    pppppppppp
`

// Deployment environments are seen with their repository, and made and deleted by its admins.
const READ_ENVIRONMENTS = `
                          private       public
                          nSrtwmaMWO    nSrtwmaMWO
  no token                uuuuuuuuuu    uuuuuuuuuu
  garbage                 bbbbbbbbbb    bbbbbbbbbb
  no scope                ----------    ++++++++++
  repo                    --++++++++    ++++++++++
  public_repo             ----------    ++++++++++
  codespace               ----------    ++++++++++
  codespace:secrets       ----------    ++++++++++
  read:org                ----------    ++++++++++
  write:org               ----------    ++++++++++
  admin:org               ----------    ++++++++++
  site_admin              ----------    ++++++++++
  every scope             --++++++++    ++++++++++
  no permission, all      --++++++++    ++++++++++
  own:read, listed        --++++++++    ++++++++++
  own:read, not listed    ----------    ++++++++++
  own:read, all           --++++++++    ++++++++++
  own:write, listed       --++++++++    ++++++++++
  own:write, not listed   ----------    ++++++++++
  own:write, all          --++++++++    ++++++++++
  sibling's:write, all    --++++++++    ++++++++++
  wider's:write, all      --++++++++    ++++++++++
`

const WRITE_ENVIRONMENTS = `
                          private       public
                          nSrtwmaMWO    nSrtwmaMWO
  no token                uuuuuuuuuu    uuuuuuuuuu
  garbage                 bbbbbbbbbb    bbbbbbbbbb
  no scope                ----------    ssssssssss
  repo                    --ssss+ss+    ssssss+ss+
  public_repo             ----------    ssssss+ss+
  codespace               ----------    ssssssssss
  codespace:secrets       ----------    ssssssssss
  read:org                ----------    ssssssssss
  write:org               ----------    ssssssssss
  admin:org               ----------    ssssssssss
  site_admin              ----------    ssssssssss
  every scope             --ssss+ss+    ssssss+ss+
  no permission, all      --pppppppp    pppppppppp
  own:read, listed        --pppppppp    pppppppppp
  own:read, not listed    ----------    pppppppppp
  own:read, all           --pppppppp    pppppppppp
  own:write, listed       --ssss+ss+    ssssss+ss+
  own:write, not listed   ----------    pppppppppp
  own:write, all          --ssss+ss+    ssssss+ss+
  sibling's:write, all    --pppppppp    pppppppppp
  wider's:write, all      --pppppppp    pppppppppp
`

interface Cell {
  login: string
  visibility: Visibility
}

interface Operation {
  name: string
  method: 'GET' | 'PUT' | 'DELETE'
  status: 200 | 204
  /** what `x` is */
  unknown?: 422 | 404
  url: (cell: Cell) => string
  body?: (cell: Cell) => unknown
  /** the secret that a `+` changes, as its key in `versionsOf` */
  changes?: (cell: Cell) => string
  /** makes things as they were before the row */
  prepare?: () => Promise<unknown>
  /** after a `+` that took something away */
  restore?: (cell: Cell) => Promise<unknown>
}

interface World {
  server: TestServer
  accounts: Map<string, Account>
  acme: Account
  repositories: Record<Visibility | 'other', { id: number; uid: string }>
  owner: string
}

/** Token → the columns of a row; every token has exactly one, of as many letters as there are people. */
function readTable(text: string, people: string, columns: number): Map<string, string[]> {
  if (!text.includes(`${Array(columns).fill(people).join('    ')}\n`)) throw new Error(`not for ${people}`)
  const rows = new Map<string, string[]>()
  for (const line of text.split('\n').filter((line) => /^ {2}\S/.test(line))) {
    const name = line.slice(2, 26).trim()
    const cells = line.slice(26).trim().split(/ +/)
    const fits = cells.length === columns && cells.every(({ length }) => length === people.length)
    if (!TOKENS[name] || rows.has(name) || !fits) throw new Error(`row ${line}`)
    rows.set(name, cells)
  }
  if (rows.size !== Object.keys(TOKENS).length) throw new Error('a token without a row')
  return rows
}

async function makeWorld(t: Parameters<typeof startTestServer>[0]): Promise<World> {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const accounts = new Map<string, Account>()
  for (const login of LOGINS) {
    accounts.set(login, await server.createUser(login, { siteAdmin: login === 'siteadmin' }))
  }
  const acme = await server.createOrganization('acme', accounts.get('owner')!)
  await server.createOrganization('others', accounts.get('otherowner')!)
  const uids = async (name: Visibility | 'other') => {
    const id = await server.createRepository(acme, name, { private: name !== 'public' })
    const { uid } = await server.db
      .selectFrom('repositories')
      .select('uid')
      .where('id', '=', id)
      .executeTakeFirstOrThrow()
    return { id, uid }
  }
  const repositories = {
    private: await uids('private'),
    public: await uids('public'),
    other: await uids('other')
  }
  for (const { login, ...role } of Object.values(PEOPLE)) {
    const account = accounts.get(login)!
    if ('member' in role && role.member === 'member') await server.addMember(acme, account)
    if (!('collaborator' in role)) continue
    for (const name of VISIBILITIES) await server.setRole(acme, name, account, role.collaborator)
  }
  const owner = await server.createToken(accounts.get('owner')!, { scopes: EVERY_SCOPE })
  return { server, accounts, acme, repositories, owner }
}

async function done({ server, owner }: World, method: 'PUT', url: string, body?: unknown): Promise<void> {
  const { statusCode } = await server.request(method, url, { token: owner, body })
  if (statusCode >= 300) throw new Error(`${method} ${url}: ${statusCode}`)
}

const issued = new Map<string, Promise<string>>()

/** The token of a row for one person; made when it is first needed. */
function tokenFor(
  { server, accounts, repositories }: World,
  login: string,
  token: Exclude<Token, string>,
  names: Names
): Promise<string> {
  let request: TokenRequest
  if ('scopes' in token) request = token
  else {
    const { permission, level, list } = token
    const listed = VISIBILITIES.map((name) => repositories[name].id)
    request = {
      permissions: permission ? { [names[permission]]: level! } : {},
      ...(list === 'all'
        ? { allRepositories: true }
        : { repositoryIds: list === 'listed' ? listed : [repositories.other.id] })
    }
  }
  const key = `${login} ${JSON.stringify(request)}`
  const known = issued.get(key) ?? server.createToken(accounts.get(login)!, request)
  issued.set(key, known)
  return known
}

/** App, owner and name → version: what must be the same after a refusal. */
async function versionsOf({ server }: World): Promise<Map<string, string>> {
  const rows = await server.db
    .selectFrom('secrets')
    .select(['app', 'owner_uid', 'name', 'row_version', 'value_version'])
    .execute()
  return new Map(
    rows.map(({ app, owner_uid, name, row_version, value_version }) => [
      `${app}/${owner_uid}/${name}`,
      `${row_version} ${value_version}`
    ])
  )
}

async function countAudit({ server }: World): Promise<number> {
  const { total } = await server.db
    .selectFrom('audit_events')
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .where('outcome', '=', 'allowed')
    .where('action', '!=', 'token.create')
    .executeTakeFirstOrThrow()
  return total
}

let guesses = 0

/** One request of the matrix; each wrong guess from another address, or their number would decide. */
async function ask(world: World, operation: Operation, tokenName: string, cell: Cell, names: Names) {
  const row = TOKENS[tokenName]!
  if (row === 'garbage') guesses += 1
  const token =
    row === 'nothing'
      ? undefined
      : row === 'garbage'
        ? makeToken('classic')
        : await tokenFor(world, cell.login, row, names)
  const body = operation.body?.(cell)
  return await world.server.app.inject({
    method: operation.method,
    url: operation.url(cell),
    ...(row === 'garbage' && {
      remoteAddress: `10.${guesses >> 16}.${(guesses >> 8) & 255}.${guesses & 255}`
    }),
    ...(token && { headers: { authorization: `Bearer ${token}` } }),
    ...(body !== undefined && { payload: JSON.stringify(body) })
  })
}

const isDone = (letter: Letter) => /[+0-9]/.test(letter)

/** What is wrong with an answer; undefined when it is as the table says. */
function compare(operation: Operation, letter: Letter, response: Awaited<ReturnType<typeof ask>>) {
  const { statusCode, body } = response
  if (isDone(letter)) {
    if (statusCode !== operation.status) return `${statusCode} ${body}, not ${operation.status}`
    if (letter === '+') return undefined
    const { total_count, repositories } = response.json()
    const shown = Number(letter)
    if (total_count === shown && repositories.length === shown) return undefined
    return `${total_count} repositories, not ${shown}`
  }
  const [status, message] = letter === 'x' ? [operation.unknown!, undefined] : REFUSALS[letter]!
  if (statusCode !== status) return `${statusCode} ${body}, not ${status}`
  const json = response.json()
  if (message !== undefined && json.message !== message) return `${json.message}, not ${message}`
  return json.status === String(status) ? undefined : `status ${json.status} in the body`
}

/** Walks a table: a row at once, then looks what has changed in the database. */
async function walk(
  world: World,
  operations: readonly Operation[],
  names: Names,
  table: string,
  people: string,
  columns: readonly Visibility[]
): Promise<string[]> {
  const wrong: string[] = []
  let versions = await versionsOf(world)
  let audit = await countAudit(world)
  for (const [tokenName, row] of readTable(table, people, columns.length)) {
    const cells = columns.flatMap((visibility, column) =>
      [...people].map((person, at): [Cell, Letter] => [
        { login: PEOPLE[person as Person].login, visibility },
        row[column]![at] as Letter
      ])
    )
    for (const operation of operations) {
      if (operation.prepare) {
        await operation.prepare()
        versions = await versionsOf(world)
        audit = await countAudit(world)
      }
      const where = `${operation.name}, ${names.own}, ${tokenName}`
      await Promise.all(
        cells.map(async ([cell, letter]) => {
          const problem = compare(operation, letter, await ask(world, operation, tokenName, cell, names))
          if (problem) wrong.push(`${where}, ${cell.login}, ${cell.visibility}: ${problem}`)
        })
      )
      if (operation.method === 'GET') continue
      const allowed = cells.filter(([, letter]) => isDone(letter)).map(([cell]) => cell)
      const expected = operation.changes ? allowed.map(operation.changes) : []
      const after = await versionsOf(world)
      const known = new Set([...versions.keys(), ...after.keys()])
      const changed = [...known].filter((key) => versions.get(key) !== after.get(key))
      if (changed.sort().join() !== expected.sort().join()) {
        wrong.push(`${where}: the database changed at ${changed}, not at ${expected}`)
      }
      const recorded = (await countAudit(world)) - audit
      if (recorded !== allowed.length) wrong.push(`${where}: ${recorded} records, not ${allowed.length}`)
      for (const cell of operation.restore ? allowed : []) await operation.restore!(cell)
      if (allowed.length === 0) continue
      versions = await versionsOf(world)
      audit = await countAudit(world)
    }
  }
  return wrong
}

const secretOf = ({ login }: Cell) => `OF_${login.toUpperCase()}`

/** Operations on one secret that every person has under its name; `path` is the collection of a cell. */
function onSecret(
  world: World,
  path: (cell: Cell) => string,
  body: (cell: Cell) => object,
  key: (cell: Cell) => string
): Record<'put' | 'remove' | 'get', Operation> {
  const url = (cell: Cell) => `${path(cell)}/${secretOf(cell)}`
  const changes = (cell: Cell) => `${key(cell)}/${secretOf(cell)}`
  return {
    get: { name: 'get', method: 'GET', status: 200, url },
    put: { name: 'put', method: 'PUT', status: 204, url, body, changes },
    remove: {
      name: 'delete',
      method: 'DELETE',
      status: 204,
      url,
      changes,
      restore: (cell) => done(world, 'PUT', url(cell), body(cell))
    }
  }
}

const get = (name: string, url: (cell: Cell) => string): Operation => ({
  name,
  method: 'GET',
  status: 200,
  url
})

t.setTimeout(240_000)

t.test('who may do what in an organization', async (t) => {
  const world = await makeWorld(t)
  const { server, acme, repositories, owner } = world
  for (const [app, names] of Object.entries(ORGANIZATION_PERMISSIONS)) {
    const path = `/orgs/acme/${app}/secrets`
    const sealed = await server.seal(path, owner, 'value')
    const body = { ...sealed, visibility: 'all' }
    const selection = { ...sealed, visibility: 'selected' }
    for (const login of LOGINS) {
      await done(world, 'PUT', `${path}/${secretOf({ login, visibility: 'private' })}`, body)
      await done(world, 'PUT', `${path}/FOR_${login.toUpperCase()}`, selection)
    }
    const key = () => `${app}/${acme.uid}`
    const {
      get: getOne,
      put,
      remove
    } = onSecret(
      world,
      () => path,
      () => body,
      key
    )
    const selectionOf = ({ login }: Cell) => `FOR_${login.toUpperCase()}`
    const select =
      (...ids: number[]) =>
      async () => {
        const secrets = await server.db
          .selectFrom('secrets')
          .select('id')
          .where('app', '=', app)
          .where('name', 'like', 'FOR_%')
          .execute()
        await server.db.deleteFrom('secret_repositories').execute()
        const rows = secrets.flatMap(({ id }) =>
          ids.map((repository_id) => ({ secret_id: id, repository_id }))
        )
        if (rows.length > 0) await server.db.insertInto('secret_repositories').values(rows).execute()
      }
    const both = select(repositories.private.id, repositories.public.id)
    const idOf = ({ visibility }: Cell) => repositories[visibility].id
    const members = (cell: Cell) => ({ selected_repository_ids: [idOf(cell)] })
    const repositoriesOf = (cell: Cell) => `${path}/${selectionOf(cell)}/repositories`
    const selecting = {
      status: 204,
      prepare: select(),
      changes: (cell: Cell) => `${key()}/${selectionOf(cell)}`
    } as const

    await t.test(`reads secrets for ${app}`, async (t) => {
      const operations = [
        get('list', () => path),
        get('list by number', () => `/organizations/${acme.id}/${app}/secrets`),
        get('public key', () => `${path}/public-key`),
        getOne
      ]
      const table = READ_ORGANIZATION_SECRETS
      t.same(await walk(world, operations, names, table, IN_ORGANIZATION, ['private']), [])
    })
    await t.test(`writes secrets for ${app}`, async (t) => {
      const removeOne: Operation = {
        ...selecting,
        name: 'remove one repository',
        method: 'DELETE',
        prepare: both,
        url: (cell) => `${repositoriesOf(cell)}/${idOf(cell)}`
      }
      const table = WRITE_ORGANIZATION_SECRETS
      t.same(await walk(world, [put, remove, removeOne], names, table, IN_ORGANIZATION, ['private']), [])
    })
    await t.test(`lists the selected repositories for ${app}`, async (t) => {
      const operation = { ...get('list repositories', repositoriesOf), prepare: both }
      t.same(await walk(world, [operation], names, SHOWN_REPOSITORIES, IN_ORGANIZATION, ['private']), [])
    })
    await t.test(`selects repositories for ${app}`, async (t) => {
      // One visibility after the other: both are about the same secret of a person.
      for (const [column, visibility] of VISIBILITIES.entries()) {
        const operations: Operation[] = [
          {
            ...selecting,
            name: 'set repositories',
            method: 'PUT',
            unknown: 422,
            url: repositoriesOf,
            body: members
          },
          {
            ...selecting,
            name: 'put with ids',
            method: 'PUT',
            unknown: 422,
            url: (cell) => `${path}/${selectionOf(cell)}`,
            body: (cell) => ({ ...selection, ...members(cell) })
          },
          {
            ...selecting,
            name: 'add one repository',
            method: 'PUT',
            unknown: 404,
            url: (cell) => `${repositoriesOf(cell)}/${idOf(cell)}`
          }
        ]
        const table = columnOf(SELECTED_REPOSITORIES, column)
        t.same(await walk(world, operations, names, table, IN_ORGANIZATION, [visibility]), [])
      }
    })
  }

  const membership = { own: 'members', sibling: 'organization_secrets', wider: 'organization_administration' }
  await t.test('sees who belongs to it', async (t) => {
    const operations = [
      get('members', () => '/orgs/acme/members'),
      get('membership', () => '/orgs/acme/memberships/member'),
      get('by number', () => `/organizations/${acme.id}/memberships/owner`)
    ]
    t.same(await walk(world, operations, membership, READ_MEMBERS, IN_ORGANIZATION, ['private']), [])
  })
  await t.test('says who belongs to it', async (t) => {
    for (const login of LOGINS) {
      const user = await server.createUser(`of-${login}`)
      await server.addMember(acme, user)
    }
    const url = ({ login }: Cell) => `/orgs/acme/memberships/of-${login}`
    const operations: Operation[] = [
      { name: 'set', method: 'PUT', status: 200, url, body: () => ({ role: 'member' }) },
      {
        name: 'remove',
        method: 'DELETE',
        status: 204,
        url,
        restore: (cell) => done(world, 'PUT', url(cell), {})
      }
    ]
    t.same(
      await walk(world, operations, membership, WRITE_ORGANIZATION_SECRETS, IN_ORGANIZATION, ['private']),
      []
    )
  })
})

/** A table with one of its two columns alone. */
function columnOf(text: string, column: number): string {
  return text
    .split('\n')
    .map((line) => {
      const cells = line.slice(26).trim().split(/ {2,}/)
      return line.length > 26 ? line.slice(0, 26) + cells[column] : line
    })
    .join('\n')
}

/** The collections of a repository, by what their permission is called. */
const REPOSITORY_PERMISSIONS: Record<string, Names & { app: App; path: string }> = {
  actions: {
    app: 'actions',
    path: '/actions/secrets',
    own: 'secrets',
    sibling: 'dependabot_secrets',
    wider: 'organization_secrets'
  },
  dependabot: {
    app: 'dependabot',
    path: '/dependabot/secrets',
    own: 'dependabot_secrets',
    sibling: 'agent_secrets',
    wider: 'administration'
  },
  agents: {
    app: 'agents',
    path: '/agents/secrets',
    own: 'agent_secrets',
    sibling: 'codespaces_secrets',
    wider: 'organization_agent_secrets'
  },
  'a deployment environment': {
    app: 'actions',
    path: '/environments/production/secrets',
    own: 'environments',
    sibling: 'secrets',
    wider: 'administration'
  }
}

t.test('who may do what with the secrets of a repository for the other apps', async (t) => {
  issued.clear()
  const world = await makeWorld(t)
  const { server, repositories, owner } = world
  const base = ({ visibility }: Cell) => `/repos/acme/${visibility}`
  const byNumber = ({ visibility }: Cell) => `/repositories/${repositories[visibility].id}`
  const uids = new Map<string, string>()
  for (const visibility of VISIBILITIES) {
    uids.set(`/${visibility}`, repositories[visibility].uid)
    await done(world, 'PUT', `/repos/acme/${visibility}/environments/production`)
    const { uid } = await server.db
      .selectFrom('deployment_environments')
      .select('uid')
      .where('repository_id', '=', repositories[visibility].id)
      .executeTakeFirstOrThrow()
    uids.set(`/environments/${visibility}`, uid)
  }

  for (const [title, names] of Object.entries(REPOSITORY_PERMISSIONS)) {
    const { app } = names
    const path = (cell: Cell) => base(cell) + names.path
    const prefix = names.path.startsWith('/environments') ? '/environments/' : '/'
    const sealed = new Map<Visibility, object>()
    for (const visibility of VISIBILITIES) {
      sealed.set(visibility, await server.seal(path({ login: '', visibility }), owner, 'value'))
      for (const login of LOGINS) {
        const cell = { login, visibility }
        await done(world, 'PUT', `${path(cell)}/${secretOf(cell)}`, sealed.get(visibility))
      }
    }
    const key = ({ visibility }: Cell) => `${app}/${uids.get(prefix + visibility)}`
    const {
      get: getOne,
      put,
      remove
    } = onSecret(world, path, ({ visibility }) => sealed.get(visibility)!, key)
    const check = (operations: Operation[], table: string) =>
      walk(world, operations, names, table, ON_REPOSITORY, VISIBILITIES)

    await t.test(`reads secrets of ${title}`, async (t) => {
      const operations = [
        get('list', path),
        get('list by number', (cell) => byNumber(cell) + names.path),
        getOne
      ]
      if (names.path === '/actions/secrets' || names.path === '/agents/secrets') {
        operations.push(get('received', (cell) => `${base(cell)}/${app}/organization-secrets`))
      }
      t.same(await check(operations, READ_SECRETS), [])
    })
    await t.test(`writes secrets of ${title}`, async (t) => {
      t.same(await check([put, remove], WRITE_SECRETS), [])
    })
    await t.test(`gets the public key of ${title}`, async (t) => {
      t.same(await check([get('public key', (cell) => `${path(cell)}/public-key`)], PUBLIC_KEY), [])
    })
  }

  const names = { own: 'administration', sibling: 'environments', wider: 'organization_administration' }
  await t.test('sees deployment environments', async (t) => {
    const operations = [
      get('list', (cell) => `${base(cell)}/environments`),
      get('get', (cell) => `${byNumber(cell)}/environments/production`)
    ]
    t.same(await walk(world, operations, names, READ_ENVIRONMENTS, ON_REPOSITORY, VISIBILITIES), [])
  })
  await t.test('makes and deletes deployment environments', async (t) => {
    const url = (cell: Cell) => `${base(cell)}/environments/of-${cell.login}`
    for (const visibility of VISIBILITIES) {
      for (const login of LOGINS) await done(world, 'PUT', url({ login, visibility }))
    }
    const operations: Operation[] = [
      { name: 'put', method: 'PUT', status: 200, url },
      { name: 'delete', method: 'DELETE', status: 204, url, restore: (cell) => done(world, 'PUT', url(cell)) }
    ]
    t.same(await walk(world, operations, names, WRITE_ENVIRONMENTS, ON_REPOSITORY, VISIBILITIES), [])
  })
})
