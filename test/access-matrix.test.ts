import t from 'tap'
import { makeToken } from '../src/auth/token.ts'
import type { TokenRequest } from '../src/directory/tokens.ts'
import type { Account } from '../src/store/accounts.ts'
import type { RepositoryRole } from '../src/store/tables.ts'
import { sealFor, startTestServer, type TestServer } from './helper.ts'

// Who may do what: every operation on secrets × role × visibility of the repository × token, cell by cell.

/**
 * Letter → what a cell must answer.
 *
 * `+` done, with the operation's own status · `0` `1` done, and so many repositories are shown
 * `u` no credentials · `b` credentials that are not valid · `-` may not know that it exists
 * `s` scope or role is too low · `p` the permission of a fine-grained token is
 * `x` a repository id that is answered like one that does not exist
 */
type Letter = '+' | '0' | '1' | 'u' | 'b' | '-' | 's' | 'p' | 'x'
const REFUSALS: Partial<Record<Letter, [status: number, message: string]>> = {
  u: [401, 'Requires authentication'],
  b: [401, 'Bad credentials'],
  '-': [404, 'Not Found'],
  s: [403, 'Must have admin rights to Repository.'],
  p: [403, 'Resource not accessible by personal access token']
}

/** The columns of the tables, in this order. Those of `mona` are on her repositories, the rest on `acme`'s. */
const ROLES = [
  { letter: 'n', login: 'nobody', owner: 'mona' },
  { letter: 'S', login: 'siteadmin', owner: 'mona' },
  { letter: 'r', login: 'reader', owner: 'mona', collaborator: 'read' },
  { letter: 't', login: 'triager', owner: 'mona', collaborator: 'triage' },
  { letter: 'w', login: 'writer', owner: 'mona', collaborator: 'write' },
  { letter: 'm', login: 'maintainer', owner: 'mona', collaborator: 'maintain' },
  { letter: 'a', login: 'administrator', owner: 'mona', collaborator: 'admin' },
  { letter: 'o', login: 'mona', owner: 'mona' },
  { letter: 'O', login: 'outsider', owner: 'acme' },
  { letter: 'M', login: 'member', owner: 'acme', member: 'member' },
  { letter: 'W', login: 'writingmember', owner: 'acme', member: 'member', collaborator: 'write' },
  { letter: 'A', login: 'orgadmin', owner: 'acme', member: 'admin' }
] as const satisfies readonly {
  letter: string
  login: string
  owner: 'mona' | 'acme'
  collaborator?: RepositoryRole
  member?: 'member' | 'admin'
}[]
const LETTERS = ROLES.map(({ letter }) => letter).join('')
type Login = (typeof ROLES)[number]['login']
type Visibility = 'private' | 'public'
const VISIBILITIES = ['private', 'public'] as const

const SECRETS_READ = { codespaces_secrets: 'read' }
const SECRETS_WRITE = { codespaces_secrets: 'write' }
const USER_READ = { codespaces_user_secrets: 'read' }
const USER_WRITE = { codespaces_user_secrets: 'write' }
const EVERY_SCOPE = ['repo', 'codespace', 'admin:org', 'site_admin']

type Token =
  | 'nothing'
  | 'garbage'
  | { scopes: string[] }
  | { permissions: Record<string, string>; list: List }
type List = 'listed' | 'not listed' | 'all'

/** The rows of the tables. `listed`: the token's list of repositories has the one that it is about. */
const TOKENS: Record<string, Token> = {
  'no token': 'nothing',
  garbage: 'garbage',
  'no scope': { scopes: [] },
  repo: { scopes: ['repo'] },
  public_repo: { scopes: ['public_repo'] },
  codespace: { scopes: ['codespace'] },
  'codespace:secrets': { scopes: ['codespace:secrets'] },
  'admin:org': { scopes: ['admin:org'] },
  'read:org': { scopes: ['read:org'] },
  site_admin: { scopes: ['site_admin'] },
  'repo codespace': { scopes: ['repo', 'codespace'] },
  'every scope': { scopes: EVERY_SCOPE },
  'no permission, all': { permissions: {}, list: 'all' },
  'secrets:read, listed': { permissions: SECRETS_READ, list: 'listed' },
  'secrets:read, not listed': { permissions: SECRETS_READ, list: 'not listed' },
  'secrets:read, all': { permissions: SECRETS_READ, list: 'all' },
  'secrets:write, listed': { permissions: SECRETS_WRITE, list: 'listed' },
  'secrets:write, not listed': { permissions: SECRETS_WRITE, list: 'not listed' },
  'secrets:write, all': { permissions: SECRETS_WRITE, list: 'all' },
  'user:read, listed': { permissions: USER_READ, list: 'listed' },
  'user:read, not listed': { permissions: USER_READ, list: 'not listed' },
  'user:read, all': { permissions: USER_READ, list: 'all' },
  'user:write, listed': { permissions: USER_WRITE, list: 'listed' },
  'user:write, not listed': { permissions: USER_WRITE, list: 'not listed' },
  'user:write, all': { permissions: USER_WRITE, list: 'all' },
  'secrets:read user:write, listed': { permissions: { ...SECRETS_READ, ...USER_WRITE }, list: 'listed' },
  'secrets:write user:read, listed': { permissions: { ...SECRETS_WRITE, ...USER_READ }, list: 'listed' },
  'secrets:write user:write, listed': { permissions: { ...SECRETS_WRITE, ...USER_WRITE }, list: 'listed' },
  'secrets:write user:write, not listed': {
    permissions: { ...SECRETS_WRITE, ...USER_WRITE },
    list: 'not listed'
  },
  'secrets:write user:write, all': { permissions: { ...SECRETS_WRITE, ...USER_WRITE }, list: 'all' }
}

// Repository secrets, all but the public key: a role from write up; the scope repo, on public repositories
// too; of fine-grained tokens codespaces_secrets write even to read, on a repository that they reach.
const REPOSITORY_SECRETS = `
                                       private         public
                                       nSrtwmaoOMWA    nSrtwmaoOMWA
  no token                             uuuuuuuuuuuu    uuuuuuuuuuuu
  garbage                              bbbbbbbbbbbb    bbbbbbbbbbbb
  no scope                             ------------    ssssssssssss
  repo                                 --ss++++-s++    ssss++++ss++
  public_repo                          ------------    ssssssssssss
  codespace                            ------------    ssssssssssss
  codespace:secrets                    ------------    ssssssssssss
  admin:org                            ------------    ssssssssssss
  read:org                             ------------    ssssssssssss
  site_admin                           ------------    ssssssssssss
  repo codespace                       --ss++++-s++    ssss++++ss++
  every scope                          --ss++++-s++    ssss++++ss++
  no permission, all                   --pppppp-ppp    pppppppppppp
  secrets:read, listed                 --pppppp-ppp    pppppppppppp
  secrets:read, not listed             ------------    pppppppppppp
  secrets:read, all                    --pppppp-ppp    pppppppppppp
  secrets:write, listed                --ss++++-s++    ssss++++ss++
  secrets:write, not listed            ------------    pppppppppppp
  secrets:write, all                   --ss++++-s++    ssss++++ss++
  user:read, listed                    --pppppp-ppp    pppppppppppp
  user:read, not listed                ------------    pppppppppppp
  user:read, all                       --pppppp-ppp    pppppppppppp
  user:write, listed                   --pppppp-ppp    pppppppppppp
  user:write, not listed               ------------    pppppppppppp
  user:write, all                      --pppppp-ppp    pppppppppppp
  secrets:read user:write, listed      --pppppp-ppp    pppppppppppp
  secrets:write user:read, listed      --ss++++-s++    ssss++++ss++
  secrets:write user:write, listed     --ss++++-s++    ssss++++ss++
  secrets:write user:write, not listed ------------    pppppppppppp
  secrets:write user:write, all        --ss++++-s++    ssss++++ss++
`

// A repository's public key: whoever reads it; no scope where it is public; the permission as above.
const REPOSITORY_PUBLIC_KEY = `
                                       private         public
                                       nSrtwmaoOMWA    nSrtwmaoOMWA
  no token                             uuuuuuuuuuuu    uuuuuuuuuuuu
  garbage                              bbbbbbbbbbbb    bbbbbbbbbbbb
  no scope                             ------------    ++++++++++++
  repo                                 --++++++-+++    ++++++++++++
  public_repo                          ------------    ++++++++++++
  codespace                            ------------    ++++++++++++
  codespace:secrets                    ------------    ++++++++++++
  admin:org                            ------------    ++++++++++++
  read:org                             ------------    ++++++++++++
  site_admin                           ------------    ++++++++++++
  repo codespace                       --++++++-+++    ++++++++++++
  every scope                          --++++++-+++    ++++++++++++
  no permission, all                   --pppppp-ppp    pppppppppppp
  secrets:read, listed                 --pppppp-ppp    pppppppppppp
  secrets:read, not listed             ------------    pppppppppppp
  secrets:read, all                    --pppppp-ppp    pppppppppppp
  secrets:write, listed                --++++++-+++    ++++++++++++
  secrets:write, not listed            ------------    pppppppppppp
  secrets:write, all                   --++++++-+++    ++++++++++++
  user:read, listed                    --pppppp-ppp    pppppppppppp
  user:read, not listed                ------------    pppppppppppp
  user:read, all                       --pppppp-ppp    pppppppppppp
  user:write, listed                   --pppppp-ppp    pppppppppppp
  user:write, not listed               ------------    pppppppppppp
  user:write, all                      --pppppp-ppp    pppppppppppp
  secrets:read user:write, listed      --pppppp-ppp    pppppppppppp
  secrets:write user:read, listed      --++++++-+++    ++++++++++++
  secrets:write user:write, listed     --++++++-+++    ++++++++++++
  secrets:write user:write, not listed ------------    pppppppppppp
  secrets:write user:write, all        --++++++-+++    ++++++++++++
`

// User secrets, as far as no repository matters: whatever the role, one letter for all. Removing a repository
// from the selection needs the user's permission alone, so that what is no longer visible can be removed.
const USER_SECRETS = `
                                       list, public key, get    put, delete, remove one repository
  no token                             u                        u
  garbage                              b                        b
  no scope                             s                        s
  repo                                 s                        s
  public_repo                          s                        s
  codespace                            +                        +
  codespace:secrets                    +                        +
  admin:org                            s                        s
  read:org                             s                        s
  site_admin                           s                        s
  repo codespace                       +                        +
  every scope                          +                        +
  no permission, all                   p                        p
  secrets:read, listed                 p                        p
  secrets:read, not listed             p                        p
  secrets:read, all                    p                        p
  secrets:write, listed                p                        p
  secrets:write, not listed            p                        p
  secrets:write, all                   p                        p
  user:read, listed                    +                        p
  user:read, not listed                +                        p
  user:read, all                       +                        p
  user:write, listed                   +                        +
  user:write, not listed               +                        +
  user:write, all                      +                        +
  secrets:read user:write, listed      +                        +
  secrets:write user:read, listed      +                        p
  secrets:write user:write, listed     +                        +
  secrets:write user:write, not listed +                        +
  secrets:write user:write, all        +                        +
`

// Listing the selected repositories, of which there is one: shown as far as this token sees it now.
const SHOWN_REPOSITORIES = `
                                       private         public
                                       nSrtwmaoOMWA    nSrtwmaoOMWA
  no token                             uuuuuuuuuuuu    uuuuuuuuuuuu
  garbage                              bbbbbbbbbbbb    bbbbbbbbbbbb
  no scope                             ssssssssssss    ssssssssssss
  repo                                 ssssssssssss    ssssssssssss
  public_repo                          ssssssssssss    ssssssssssss
  codespace                            000000000000    111111111111
  codespace:secrets                    000000000000    111111111111
  admin:org                            ssssssssssss    ssssssssssss
  read:org                             ssssssssssss    ssssssssssss
  site_admin                           ssssssssssss    ssssssssssss
  repo codespace                       001111110111    111111111111
  every scope                          001111110111    111111111111
  no permission, all                   pppppppppppp    pppppppppppp
  secrets:read, listed                 pppppppppppp    pppppppppppp
  secrets:read, not listed             pppppppppppp    pppppppppppp
  secrets:read, all                    pppppppppppp    pppppppppppp
  secrets:write, listed                pppppppppppp    pppppppppppp
  secrets:write, not listed            pppppppppppp    pppppppppppp
  secrets:write, all                   pppppppppppp    pppppppppppp
  user:read, listed                    001111110111    111111111111
  user:read, not listed                000000000000    111111111111
  user:read, all                       001111110111    111111111111
  user:write, listed                   001111110111    111111111111
  user:write, not listed               000000000000    111111111111
  user:write, all                      001111110111    111111111111
  secrets:read user:write, listed      001111110111    111111111111
  secrets:write user:read, listed      001111110111    111111111111
  secrets:write user:write, listed     001111110111    111111111111
  secrets:write user:write, not listed 000000000000    111111111111
  secrets:write user:write, all        001111110111    111111111111
`

// Selecting a repository: set, put with ids, add one. Reading it is enough; a fine-grained token also needs
// codespaces_secrets write, and what is not on its list it does not see, public or not.
const SELECTED_REPOSITORIES = `
                                       private         public
                                       nSrtwmaoOMWA    nSrtwmaoOMWA
  no token                             uuuuuuuuuuuu    uuuuuuuuuuuu
  garbage                              bbbbbbbbbbbb    bbbbbbbbbbbb
  no scope                             ssssssssssss    ssssssssssss
  repo                                 ssssssssssss    ssssssssssss
  public_repo                          ssssssssssss    ssssssssssss
  codespace                            xxxxxxxxxxxx    ++++++++++++
  codespace:secrets                    xxxxxxxxxxxx    ++++++++++++
  admin:org                            ssssssssssss    ssssssssssss
  read:org                             ssssssssssss    ssssssssssss
  site_admin                           ssssssssssss    ssssssssssss
  repo codespace                       xx++++++x+++    ++++++++++++
  every scope                          xx++++++x+++    ++++++++++++
  no permission, all                   pppppppppppp    pppppppppppp
  secrets:read, listed                 pppppppppppp    pppppppppppp
  secrets:read, not listed             pppppppppppp    pppppppppppp
  secrets:read, all                    pppppppppppp    pppppppppppp
  secrets:write, listed                pppppppppppp    pppppppppppp
  secrets:write, not listed            pppppppppppp    pppppppppppp
  secrets:write, all                   pppppppppppp    pppppppppppp
  user:read, listed                    pppppppppppp    pppppppppppp
  user:read, not listed                pppppppppppp    pppppppppppp
  user:read, all                       pppppppppppp    pppppppppppp
  user:write, listed                   xxppppppxppp    pppppppppppp
  user:write, not listed               xxxxxxxxxxxx    pppppppppppp
  user:write, all                      xxppppppxppp    pppppppppppp
  secrets:read user:write, listed      xxppppppxppp    pppppppppppp
  secrets:write user:read, listed      pppppppppppp    pppppppppppp
  secrets:write user:write, listed     xx++++++x+++    ++++++++++++
  secrets:write user:write, not listed xxxxxxxxxxxx    xxxxxxxxxxxx
  secrets:write user:write, all        xx++++++x+++    ++++++++++++
`

/** Token → the two columns of a row; every token has exactly one. */
function readTable(text: string): Map<string, [string, string]> {
  const rows = new Map<string, [string, string]>()
  for (const line of text.split('\n').filter((line) => /^ {2}\S/.test(line))) {
    const name = line.slice(2, 39).trim()
    const [first, second, ...rest] = line.slice(39).trim().split(/ +/)
    if (!TOKENS[name] || rows.has(name) || !first || !second || rest.length > 0)
      throw new Error(`row ${line}`)
    rows.set(name, [first, second])
  }
  if (rows.size !== Object.keys(TOKENS).length) throw new Error('a token without a row')
  return rows
}

/** The letter of a role in a cell of one letter per role, or of one for all. */
function letterOf(cell: string, role: number): Letter {
  if (cell.length !== 1 && cell.length !== ROLES.length) throw new Error(`cell ${cell}`)
  return cell[cell.length === 1 ? 0 : role] as Letter
}

interface Cell {
  role: number
  login: Login
  visibility: Visibility
}

interface Operation {
  name: string
  method: 'GET' | 'PUT' | 'DELETE'
  /** what `+` is */
  status: 200 | 204
  /** what `x` is */
  unknown?: 422 | 404
  url: (world: World, cell: Cell) => string
  body?: (world: World, cell: Cell) => unknown
  /** the secret that a `+` changes, as its key in `secretVersions` */
  changes?: (world: World, cell: Cell) => string
  /** what is selected before: the repository that it is about, or none */
  selection?: 'one' | 'none'
}

interface World {
  server: TestServer
  accounts: Map<string, Account>
  repositories: Map<string, { id: number; uid: string; name: string }>
  tokens: Map<string, string>
  sealed: Map<string, { encrypted_value: string; key_id: string }>
  /** what the last row left behind; undefined when something else was changed since */
  versions?: Map<string, string> | undefined
  audit?: number | undefined
  selection?: 'one' | 'none'
  dirty?: boolean
}

const repositoryOf = ({ repositories }: World, { role, visibility }: Cell) =>
  repositories.get(`${ROLES[role]!.owner}/${visibility}`)!
const repositoryPath = ({ role, visibility }: Cell) =>
  `/repos/${ROLES[role]!.owner}/${visibility}/codespaces/secrets`
const numberPath = (world: World, cell: Cell) =>
  `/repositories/${repositoryOf(world, cell).id}/codespaces/secrets`
const ofRole = (cell: Cell) => `OF_${cell.login.toUpperCase()}`
const selectionOf = (cell: Cell) => `FOR_${cell.visibility.toUpperCase()}`
const repositoryKey = (world: World, cell: Cell) => `${repositoryOf(world, cell).uid}/${ofRole(cell)}`
const userKey = (name: (cell: Cell) => string) => (world: World, cell: Cell) =>
  `${world.accounts.get(cell.login)!.uid}/${name(cell)}`

const USER_PATH = '/user/codespaces/secrets'
const userBody = (world: World, { login }: Cell) => world.sealed.get(login)!
const repositoryBody = (world: World, cell: Cell) => world.sealed.get(repositoryOf(world, cell).uid)!
const ids = (world: World, cell: Cell) => ({ selected_repository_ids: [repositoryOf(world, cell).id] })

const ON_REPOSITORY: Operation[] = [
  { name: 'list', method: 'GET', status: 200, url: (_, cell) => repositoryPath(cell) },
  { name: 'list by number', method: 'GET', status: 200, url: numberPath },
  { name: 'get', method: 'GET', status: 200, url: (_, cell) => `${repositoryPath(cell)}/${ofRole(cell)}` },
  {
    name: 'put',
    method: 'PUT',
    status: 204,
    url: (_, cell) => `${repositoryPath(cell)}/${ofRole(cell)}`,
    body: repositoryBody,
    changes: repositoryKey
  },
  {
    name: 'delete',
    method: 'DELETE',
    status: 204,
    url: (_, cell) => `${repositoryPath(cell)}/${ofRole(cell)}`,
    changes: repositoryKey
  }
]
const PUBLIC_KEY: Operation[] = [
  { name: 'public key', method: 'GET', status: 200, url: (_, cell) => `${repositoryPath(cell)}/public-key` }
]
const USER_READS: Operation[] = [
  { name: 'list', method: 'GET', status: 200, url: () => USER_PATH },
  { name: 'public key', method: 'GET', status: 200, url: () => `${USER_PATH}/public-key` },
  { name: 'get', method: 'GET', status: 200, url: () => `${USER_PATH}/PLAIN` }
]
const USER_WRITES: Operation[] = [
  {
    name: 'put',
    method: 'PUT',
    status: 204,
    url: () => `${USER_PATH}/PLAIN`,
    body: userBody,
    changes: userKey(() => 'PLAIN')
  },
  {
    name: 'delete',
    method: 'DELETE',
    status: 204,
    url: () => `${USER_PATH}/PLAIN`,
    changes: userKey(() => 'PLAIN')
  }
]
const REMOVE_ONE: Operation = {
  name: 'remove one repository',
  method: 'DELETE',
  status: 204,
  url: (world, cell) => `${USER_PATH}/${selectionOf(cell)}/repositories/${repositoryOf(world, cell).id}`,
  changes: userKey(selectionOf),
  selection: 'one'
}
const LIST_SELECTED: Operation = {
  name: 'list repositories',
  method: 'GET',
  status: 200,
  url: (_, cell) => `${USER_PATH}/${selectionOf(cell)}/repositories`,
  selection: 'one'
}
const SELECTING: Operation[] = [
  {
    name: 'set repositories',
    method: 'PUT',
    status: 204,
    unknown: 422,
    url: (_, cell) => `${USER_PATH}/${selectionOf(cell)}/repositories`,
    body: ids,
    changes: userKey(selectionOf),
    selection: 'none'
  },
  {
    name: 'put with ids',
    method: 'PUT',
    status: 204,
    unknown: 422,
    url: (_, cell) => `${USER_PATH}/${selectionOf(cell)}`,
    body: (world, cell) => ({ ...userBody(world, cell), ...ids(world, cell) }),
    changes: userKey(selectionOf),
    selection: 'none'
  },
  {
    name: 'add one repository',
    method: 'PUT',
    status: 204,
    unknown: 404,
    url: (world, cell) => `${USER_PATH}/${selectionOf(cell)}/repositories/${repositoryOf(world, cell).id}`,
    changes: userKey(selectionOf),
    selection: 'none'
  }
]

async function makeWorld(t: Parameters<typeof startTestServer>[0]): Promise<World> {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const accounts = new Map<string, Account>()
  for (const { login } of ROLES) {
    accounts.set(login, await server.createUser(login, { siteAdmin: login === 'siteadmin' }))
  }
  const acme = await server.createOrganization('acme', accounts.get('orgadmin')!)
  accounts.set('acme', acme)
  const world: World = {
    server,
    accounts,
    repositories: new Map(),
    tokens: new Map(),
    sealed: new Map()
  }
  for (const owner of ['mona', 'acme']) {
    for (const name of [...VISIBILITIES, 'other']) {
      const id = await server.createRepository(accounts.get(owner)!, name, { private: name !== 'public' })
      const { uid } = await server.db
        .selectFrom('repositories')
        .select('uid')
        .where('id', '=', id)
        .executeTakeFirstOrThrow()
      world.repositories.set(`${owner}/${name}`, { id, uid, name })
    }
  }
  for (const { login, owner, ...role } of ROLES) {
    const account = accounts.get(login)!
    if ('member' in role && role.member === 'member') {
      await server.db
        .insertInto('memberships')
        .values({ organization_id: acme.id, account_id: account.id, role: 'member' })
        .execute()
    }
    if (!('collaborator' in role)) continue
    for (const name of VISIBILITIES)
      await server.setRole(accounts.get(owner)!, name, account, role.collaborator)
  }
  await makeTokens(world)
  for (const [index, { login, owner }] of ROLES.entries()) {
    for (const visibility of VISIBILITIES) {
      const cell = { role: index, login, visibility }
      await seal(world, repositoryOf(world, cell).uid, repositoryPath(cell), ownerToken(world, owner))
      await store(
        world,
        `${repositoryPath(cell)}/${ofRole(cell)}`,
        ownerToken(world, owner),
        repositoryBody(world, cell)
      )
    }
    await seal(world, login, USER_PATH, fullToken(world, login))
    for (const name of ['PLAIN', 'FOR_PRIVATE', 'FOR_PUBLIC']) {
      await store(world, `${USER_PATH}/${name}`, fullToken(world, login), world.sealed.get(login)!)
    }
  }
  return world
}

async function makeTokens({ server, accounts, repositories, tokens }: World): Promise<void> {
  const issue = async ({ login, owner }: (typeof ROLES)[number]) => {
    const listed = VISIBILITIES.map((name) => repositories.get(`${owner}/${name}`)!.id)
    const other = [repositories.get(`${owner}/other`)!.id]
    for (const [name, token] of Object.entries(TOKENS)) {
      if (typeof token === 'string') continue
      let request: TokenRequest
      if ('scopes' in token) request = token
      else if (token.list === 'all') request = { permissions: token.permissions, allRepositories: true }
      else {
        request = { permissions: token.permissions, repositoryIds: token.list === 'listed' ? listed : other }
      }
      tokens.set(`${login}/${name}`, await server.createToken(accounts.get(login)!, request))
    }
  }
  await Promise.all(ROLES.map(issue))
}

const fullToken = ({ tokens }: World, login: string) => tokens.get(`${login}/every scope`)!
const ownerToken = (world: World, owner: 'mona' | 'acme') =>
  fullToken(world, owner === 'mona' ? 'mona' : 'orgadmin')

async function seal({ server, sealed }: World, owner: string, path: string, token: string): Promise<void> {
  if (sealed.has(owner)) return
  const { key, key_id } = (await server.request('GET', `${path}/public-key`, { token })).json()
  sealed.set(owner, { encrypted_value: sealFor(key, `the value of ${owner}`), key_id })
}

async function store({ server }: World, url: string, token: string, body: unknown): Promise<void> {
  const { statusCode } = await server.request('PUT', url, { token, body })
  if (statusCode !== 201) throw new Error(`${url}: ${statusCode}`)
}

/** Owner's uid and name → version and selection: what must be the same after a refusal. */
async function secretVersions({ server }: World): Promise<Map<string, string>> {
  const rows = await server.db
    .selectFrom('secrets as s')
    .leftJoin('secret_repositories as r', 'r.secret_id', 's.id')
    .select(['s.owner_uid', 's.name', 's.row_version', 's.value_version', 'r.repository_id'])
    .execute()
  return new Map(
    rows.map((row) => [
      `${row.owner_uid}/${row.name}`,
      `${row.row_version} ${row.value_version} ${row.repository_id ?? 'none'}`
    ])
  )
}

async function countAudit({ server }: World): Promise<number> {
  const { count } = await server.db
    .selectFrom('audit_events')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('outcome', '=', 'allowed')
    .executeTakeFirstOrThrow()
  return Number(count)
}

/** Selects for each user and visibility the repository that the cells are about, or nothing. */
async function setSelections(world: World, selection: 'one' | 'none'): Promise<void> {
  if (world.selection === selection && !world.dirty) return
  const { db } = world.server
  Object.assign(world, { selection, dirty: false, versions: undefined })
  await db.deleteFrom('secret_repositories').execute()
  if (selection === 'none') return
  const secrets = await db
    .selectFrom('secrets as s')
    .innerJoin('accounts as a', 'a.uid', 's.owner_uid')
    .select(['s.id', 's.name', 'a.login'])
    .where('s.name', 'like', 'FOR_%')
    .execute()
  await db
    .insertInto('secret_repositories')
    .values(
      secrets.map(({ id, name, login }) => {
        const { owner } = ROLES.find((role) => role.login === login)!
        const visibility = name === 'FOR_PRIVATE' ? 'private' : 'public'
        return { secret_id: id, repository_id: world.repositories.get(`${owner}/${visibility}`)!.id }
      })
    )
    .execute()
}

let guesses = 0

/** One request of the matrix; each wrong guess from another address, or their number would decide. */
async function ask(world: World, operation: Operation, tokenName: string, cell: Cell) {
  const garbage = tokenName === 'garbage'
  if (garbage) guesses += 1
  const token = garbage ? makeToken('classic') : world.tokens.get(`${cell.login}/${tokenName}`)
  const body = operation.body?.(world, cell)
  return await world.server.app.inject({
    method: operation.method,
    url: operation.url(world, cell),
    ...(garbage && { remoteAddress: `10.${guesses >> 16}.${(guesses >> 8) & 255}.${guesses & 255}` }),
    ...(token && { headers: { authorization: `Bearer ${token}` } }),
    ...(body !== undefined && { payload: JSON.stringify(body) })
  })
}

/** What is wrong with an answer; undefined when it is as the table says. */
function compare(operation: Operation, letter: Letter, response: Awaited<ReturnType<typeof ask>>) {
  const { statusCode, body } = response
  if (letter === '+' || letter === '0' || letter === '1') {
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

/** Walks a row: all roles and visibilities at once, then looks what has changed in the database. */
async function walkRow(world: World, operation: Operation, tokenName: string, cells: [Cell, Letter][]) {
  const wrong: string[] = []
  if (operation.selection) await setSelections(world, operation.selection)
  const before = world.versions ?? (await secretVersions(world))
  const auditBefore = world.audit ?? (await countAudit(world))
  Object.assign(world, { versions: before, audit: auditBefore })
  await Promise.all(
    cells.map(async ([cell, letter]) => {
      const problem = compare(operation, letter, await ask(world, operation, tokenName, cell))
      if (problem)
        wrong.push(`${operation.name}, ${tokenName}, ${cell.login}, ${cell.visibility}: ${problem}`)
    })
  )
  const { changes } = operation
  // what a reading one might have changed shows at the next that writes
  if (!changes) return wrong
  const expected = cells.filter(([, letter]) => letter === '+').map(([cell]) => changes(world, cell))
  const after = await secretVersions(world)
  world.versions = after
  const known = new Set([...before.keys(), ...after.keys()])
  const changed = [...known].filter((key) => before.get(key) !== after.get(key))
  if (changed.length > 0) world.dirty = true
  if ([...changed].sort().join() !== [...new Set(expected)].sort().join()) {
    wrong.push(`${operation.name}, ${tokenName}: the database changed at ${changed}, not at ${expected}`)
  }
  const selected = operation === REMOVE_ONE ? 'none' : undefined
  for (const [cell, letter] of cells) {
    if (!operation.selection || letter !== '+') continue
    const now = after.get(changes(world, cell))?.split(' ')[2]
    if (now === (selected ?? String(repositoryOf(world, cell).id))) continue
    wrong.push(`${operation.name}, ${tokenName}, ${cell.login}, ${cell.visibility}: selected is ${now}`)
  }
  world.audit = await countAudit(world)
  const recorded = world.audit - auditBefore
  if (recorded !== expected.length) {
    wrong.push(`${operation.name}, ${tokenName}: ${recorded} audit events, not ${expected.length}`)
  }
  if (operation.name === 'delete') await restore(world, operation, cells)
  return wrong
}

async function restore(world: World, operation: Operation, cells: [Cell, Letter][]): Promise<void> {
  for (const [cell, letter] of cells) {
    if (letter !== '+') continue
    Object.assign(world, { versions: undefined, audit: undefined })
    const url = operation.url(world, cell)
    const onUser = url.startsWith(USER_PATH)
    const token = onUser ? fullToken(world, cell.login) : ownerToken(world, ROLES[cell.role]!.owner)
    await store(world, url, token, onUser ? userBody(world, cell) : repositoryBody(world, cell))
  }
}

/** For operations about a repository: both columns of a table are its visibilities. */
async function walk(world: World, operations: readonly Operation[], table: string): Promise<string[]> {
  const wrong: string[] = []
  for (const [tokenName, row] of readTable(table)) {
    const cells = VISIBILITIES.flatMap((visibility, column) =>
      ROLES.map(({ login }, role): [Cell, Letter] => [
        { role, login, visibility },
        letterOf(row[column]!, role)
      ])
    )
    for (const operation of operations) wrong.push(...(await walkRow(world, operation, tokenName, cells)))
  }
  return wrong
}

/** For operations about none: a column is a kind of operation. */
async function walkUser(world: World, operations: readonly Operation[], column: 0 | 1): Promise<string[]> {
  const wrong: string[] = []
  for (const [tokenName, row] of readTable(USER_SECRETS)) {
    for (const operation of operations) {
      const visibilities = operation.selection ? VISIBILITIES : (['private'] as const)
      const cells = visibilities.flatMap((visibility) =>
        ROLES.map(({ login }, role): [Cell, Letter] => [
          { role, login, visibility },
          letterOf(row[column], role)
        ])
      )
      wrong.push(...(await walkRow(world, operation, tokenName, cells)))
    }
  }
  return wrong
}

t.setTimeout(120_000)

t.test('who may do what', async (t) => {
  const world = await makeWorld(t)
  for (const table of [
    REPOSITORY_SECRETS,
    REPOSITORY_PUBLIC_KEY,
    SHOWN_REPOSITORIES,
    SELECTED_REPOSITORIES
  ]) {
    t.match(table, `${LETTERS}    ${LETTERS}\n`, 'the heads of the columns are the roles, in their order')
  }

  await t.test(
    'secrets of a repository are listed, shown, written and deleted from the role write up',
    async (t) => {
      t.same(await walk(world, ON_REPOSITORY, REPOSITORY_SECRETS), [])
    }
  )
  await t.test('the public key of a repository is for everybody who reads it', async (t) => {
    t.same(await walk(world, PUBLIC_KEY, REPOSITORY_PUBLIC_KEY), [])
  })
  await t.test(
    'secrets of a user are read with a scope or a permission for them, whatever the role',
    async (t) => {
      t.same(await walkUser(world, USER_READS, 0), [])
    }
  )
  await t.test('secrets of a user are written with a scope or the permission to write them', async (t) => {
    t.same(await walkUser(world, [...USER_WRITES, REMOVE_ONE], 1), [])
  })
  await t.test('of the selected repositories only those are shown that the token sees', async (t) => {
    t.same(await walk(world, [LIST_SELECTED], SHOWN_REPOSITORIES), [])
  })
  await t.test('only repositories that the token sees can be selected', async (t) => {
    t.same(await walk(world, SELECTING, SELECTED_REPOSITORIES), [])
  })
})
