import t from 'tap'
import { ACCESS, type AccessRule } from '../src/auth/access.ts'
import type { Account } from '../src/store/accounts.ts'
import { asAdmin, installTestApp, mint, registerTestApp, type TestApp } from './github-app.ts'
import { startTestServer, type TestServer } from './helper.ts'

// What tokens of installations may do: every operation on secrets × what the installation has × what the token is
// narrowed to, cell by cell. The letters are written down, not computed.

/**
 * `+` done, with the operation's own status · `-` may not know that it exists
 * `i` not accessible by integration · `S` the installation is suspended · `b` credentials that are not valid
 */
type Letter = '+' | '-' | 'i' | 'S' | 'b'
const REFUSALS: Record<Exclude<Letter, '+'>, [status: number, message: string]> = {
  '-': [404, 'Not Found'],
  i: [403, 'Resource not accessible by integration'],
  S: [403, 'This installation has been suspended'],
  b: [401, 'Bad credentials']
}

/** The repositories of the tables, in their order: of acme given to the App and not, and of an organization elsewhere. */
const COLUMNS = {
  g: 'acme/given-private',
  G: 'acme/given-public',
  k: 'acme/kept-private',
  K: 'acme/kept-public',
  e: 'globex/private',
  E: 'globex/public'
} as const
const REPOSITORIES = Object.values(COLUMNS)

/** Where secrets are, with the permissions that each needs. */
const KINDS = {
  codespaces: {
    path: 'codespaces/secrets',
    permission: 'codespaces_secrets',
    org: 'organization_codespaces_secrets'
  },
  actions: { path: 'actions/secrets', permission: 'secrets', org: 'organization_secrets' },
  dependabot: {
    path: 'dependabot/secrets',
    permission: 'dependabot_secrets',
    org: 'organization_dependabot_secrets'
  },
  agents: { path: 'agents/secrets', permission: 'agent_secrets', org: 'organization_agent_secrets' },
  environment: { path: 'environments/production/secrets', permission: 'environments', org: undefined }
} as const
type Kind = keyof typeof KINDS
const KIND_NAMES = Object.keys(KINDS) as Kind[]

const each = (level: 'read' | 'write', on: 'permission' | 'org') =>
  Object.fromEntries(KIND_NAMES.flatMap((kind) => (KINDS[kind][on] ? [[KINDS[kind][on], level]] : [])))
const REPOSITORY_READ = each('read', 'permission')
const REPOSITORY_WRITE = each('write', 'permission')
const ORGANIZATION_READ = each('read', 'org')
const ORGANIZATION_WRITE = each('write', 'org')
const EVERYTHING = {
  ...REPOSITORY_WRITE,
  ...ORGANIZATION_WRITE,
  codespaces_user_secrets: 'write',
  administration: 'write',
  members: 'write',
  organization_administration: 'write'
}

interface Token {
  /** the account, and the installation's repositories; undefined: all */
  on: 'acme' | 'mona'
  repositories?: readonly string[]
  permissions: Record<string, string>
  narrowing?: { repositories?: string[]; permissions?: Record<string, string> }
  afterwards?: 'suspend' | 'uninstall'
}
const GIVEN = ['given-private', 'given-public', 'third']
const onGiven = (permissions: Token['permissions'], narrowing?: Token['narrowing']): Token => ({
  on: 'acme',
  repositories: GIVEN,
  permissions,
  ...(narrowing && { narrowing })
})

/** The rows of the tables. */
const TOKENS: Record<string, Token> = {
  'no permission': onGiven({}),
  read: onGiven(REPOSITORY_READ),
  write: onGiven(REPOSITORY_WRITE),
  'write, token: read': onGiven(REPOSITORY_WRITE, { permissions: REPOSITORY_READ }),
  'write, token: metadata': onGiven(REPOSITORY_WRITE, { permissions: { metadata: 'read' } }),
  'write, token: given': onGiven(REPOSITORY_WRITE, { repositories: ['given-private', 'given-public'] }),
  'write, token: private': onGiven(REPOSITORY_WRITE, { repositories: ['given-private'] }),
  'write, token: third': onGiven(REPOSITORY_WRITE, { repositories: ['third'] }),
  'organization read': onGiven(ORGANIZATION_READ),
  'organization write': onGiven(ORGANIZATION_WRITE),
  'organization write, token: third': onGiven(ORGANIZATION_WRITE, { repositories: ['third'] }),
  'user write': onGiven({ codespaces_user_secrets: 'write' }),
  everything: onGiven(EVERYTHING),
  'everything, suspended': { ...onGiven(EVERYTHING), afterwards: 'suspend' },
  'everything, uninstalled': { ...onGiven(EVERYTHING), afterwards: 'uninstall' },
  'all repositories, no permission': { on: 'acme', permissions: {} },
  'all repositories, write': { on: 'acme', permissions: REPOSITORY_WRITE },
  'all repositories, everything': { on: 'acme', permissions: EVERYTHING },
  'all repositories, token: given': {
    on: 'acme',
    permissions: EVERYTHING,
    narrowing: { repositories: ['given-private', 'given-public'] }
  },
  'of a user, no permission': { on: 'mona', permissions: {} },
  'of a user, everything': { on: 'mona', permissions: EVERYTHING },
  'of a user, suspended': { on: 'mona', permissions: EVERYTHING, afterwards: 'suspend' }
}

// Secrets of a repository and of its environments. Roles of the account elsewhere are not the installation's: mona
// owns both organizations. To read, Codespaces asks for write, its public key too; the others ask for read.
const REPOSITORY_SECRETS = `
                                       Codespaces     read           write
                                       gGkKeE         gGkKeE         gGkKeE
  no permission                        ii-i-i         ii-i-i         ii-i-i
  read                                 ii-i-i         ++-i-i         ii-i-i
  write                                ++-i-i         ++-i-i         ++-i-i
  write, token: read                   ii-i-i         ++-i-i         ii-i-i
  write, token: metadata               ii-i-i         ii-i-i         ii-i-i
  write, token: given                  ++-i-i         ++-i-i         ++-i-i
  write, token: private                +i-i-i         +i-i-i         +i-i-i
  write, token: third                  -i-i-i         -i-i-i         -i-i-i
  organization read                    ii-i-i         ii-i-i         ii-i-i
  organization write                   ii-i-i         ii-i-i         ii-i-i
  organization write, token: third     -i-i-i         -i-i-i         -i-i-i
  user write                           ii-i-i         ii-i-i         ii-i-i
  everything                           ++-i-i         ++-i-i         ++-i-i
  everything, suspended                SSSSSS         SSSSSS         SSSSSS
  everything, uninstalled              bbbbbb         bbbbbb         bbbbbb
  all repositories, no permission      iiii-i         iiii-i         iiii-i
  all repositories, write              ++++-i         ++++-i         ++++-i
  all repositories, everything         ++++-i         ++++-i         ++++-i
  all repositories, token: given       ++-i-i         ++-i-i         ++-i-i
  of a user, no permission             -i-i-i         -i-i-i         -i-i-i
  of a user, everything                -i-i-i         -i-i-i         -i-i-i
  of a user, suspended                 SSSSSS         SSSSSS         SSSSSS
`

// Secrets of the organization on which it is installed, and of the one elsewhere: the permission alone decides, and
// narrowing to repositories does not take it away. Secrets of a user are never an installation's.
const OTHER_SECRETS = `
                                       organization   organization
                                       read           write          user
                                       acme globex    acme globex
  no permission                        i-             i-             i
  read                                 i-             i-             i
  write                                i-             i-             i
  write, token: read                   i-             i-             i
  write, token: metadata               i-             i-             i
  write, token: given                  i-             i-             i
  write, token: private                i-             i-             i
  write, token: third                  i-             i-             i
  organization read                    +-             i-             i
  organization write                   +-             +-             i
  organization write, token: third     +-             +-             i
  user write                           i-             i-             i
  everything                           +-             +-             i
  everything, suspended                SS             SS             S
  everything, uninstalled              bb             bb             b
  all repositories, no permission      i-             i-             i
  all repositories, write              i-             i-             i
  all repositories, everything         +-             +-             i
  all repositories, token: given       +-             +-             i
  of a user, no permission             --             --             i
  of a user, everything                --             --             i
  of a user, suspended                 SS             SS             S
`

/** Token → the three columns of a row; every token has exactly one. */
function readTable(text: string): Map<string, [string, string, string]> {
  const rows = new Map<string, [string, string, string]>()
  for (const line of text.split('\n').filter((line) => /^ {2}\S/.test(line))) {
    const name = line.slice(2, 39).trim()
    const cells = line.slice(39).trim().split(/ +/)
    if (!TOKENS[name] || rows.has(name) || cells.length !== 3) throw new Error(`row ${line}`)
    rows.set(name, cells as [string, string, string])
  }
  if (rows.size !== Object.keys(TOKENS).length) throw new Error('a token without a row')
  return rows
}

interface World {
  server: TestServer
  owner: string
  tokens: Map<string, string>
  /** path of a collection → a value that is sealed for it */
  sealed: Map<string, { encrypted_value: string; key_id: string; visibility?: string }>
}

const collectionOf = (kind: Kind, owner: string) =>
  `/${owner.includes('/') ? 'repos' : 'orgs'}/${owner}/${KINDS[kind].path}`

async function makeWorld(t: Parameters<typeof startTestServer>[0]): Promise<World> {
  const server = await startTestServer(t, { logLevel: 'warn' })
  const mona = await server.createUser('mona')
  const accounts: Record<string, Account> = { mona }
  for (const login of ['acme', 'globex']) accounts[login] = await server.createOrganization(login, mona)
  for (const full of [...REPOSITORIES, 'acme/third']) {
    const [owner = '', name = ''] = full.split('/')
    await server.createRepository(accounts[owner]!, name, { private: !name.endsWith('public') })
  }
  const owner = await server.createToken(mona, { scopes: ['repo', 'admin:org', 'codespace'] })
  const world: World = { server, owner, tokens: new Map(), sealed: new Map() }
  for (const kind of KIND_NAMES) {
    const owners = KINDS[kind].org ? [...REPOSITORIES, 'acme', 'globex'] : REPOSITORIES
    for (const of of owners) await makeCollection(world, kind, of)
  }
  const path = '/user/codespaces/secrets'
  world.sealed.set(path, await server.seal(path, owner, 'value'))
  for (const name of ['KEPT', 'GONE']) await store(world, path, name)
  await makeTokens(world)
  return world
}

async function makeCollection(world: World, kind: Kind, owner: string): Promise<void> {
  const { server, sealed } = world
  const path = collectionOf(kind, owner)
  if (kind === 'environment') {
    await server.request('PUT', path.slice(0, -'/secrets'.length), { token: world.owner })
  }
  const visible = owner.includes('/') ? {} : { visibility: 'all' }
  sealed.set(path, { ...(await server.seal(path, world.owner, 'value')), ...visible })
  for (const name of ['KEPT', 'GONE']) await store(world, path, name)
}

async function store({ server, owner, sealed }: World, path: string, name: string): Promise<void> {
  const { statusCode } = await server.request('PUT', `${path}/${name}`, {
    token: owner,
    body: sealed.get(path)
  })
  if (statusCode !== 201) throw new Error(`${path}/${name}: ${statusCode}`)
}

/** An App of its own for each token, since an App is installed on an account once. */
async function makeTokens({ server, tokens }: World): Promise<void> {
  let first: TestApp | undefined
  for (const [name, { on, repositories, permissions, narrowing, afterwards }] of Object.entries(TOKENS)) {
    first ??= await registerTestApp(server, 'first', EVERYTHING)
    const { id } = await server.db
      .insertInto('integrations')
      .values({
        owner_id: server.admin.account.id,
        slug: `app-${tokens.size}`,
        client_id: `client-${tokens.size}`,
        name,
        description: null,
        permissions: JSON.stringify({ ...EVERYTHING, metadata: 'read' })
      })
      .returning('id')
      .executeTakeFirstOrThrow()
    await server.db
      .updateTable('integration_keys')
      .set({ integration_id: id })
      .where('id', '=', first.keyId)
      .execute()
    const app = { ...first, id, slug: `app-${tokens.size}` }
    const installation = await installTestApp(server, app, on, repositories, permissions)
    tokens.set(name, (await mint(server, app, installation, narrowing)).token)
    const path = `/admin/installations/${installation}`
    if (afterwards === 'suspend') await asAdmin(server, 'PUT', `${path}/suspended`)
    if (afterwards === 'uninstall') await asAdmin(server, 'DELETE', path)
  }
}

/** Name of each secret with its collection → version: what must be the same after a refusal. */
async function versions({ server }: World): Promise<Map<string, string>> {
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

interface Operation {
  method: 'GET' | 'PUT' | 'DELETE'
  /** below the collection */
  path: string
  status: number
}
const READS: Operation[] = [
  { method: 'GET', path: '', status: 200 },
  { method: 'GET', path: '/public-key', status: 200 },
  { method: 'GET', path: '/KEPT', status: 200 }
]
const WRITES: Operation[] = [
  { method: 'PUT', path: '/KEPT', status: 204 },
  { method: 'DELETE', path: '/GONE', status: 204 }
]

let requests = 0

/**
 * What is wrong with the answers to one token, and with what they left behind. Each request is from another
 * address, or the number of wrong ones would decide.
 */
async function walk(
  world: World,
  tokenName: string,
  operations: readonly Operation[],
  cells: readonly [collection: string, letter: string][]
): Promise<string[]> {
  const { server, tokens, sealed } = world
  const wrong: string[] = []
  const before = await versions(world)
  let done = 0
  for (const [collection, letter] of cells) {
    for (const { method, path, status } of operations) {
      const what = `${tokenName}: ${method} ${collection}${path}`
      const body = method === 'PUT' ? sealed.get(collection) : undefined
      requests += 1
      const response = await server.app.inject({
        method,
        url: collection + path,
        remoteAddress: `10.2.${requests >> 8}.${requests & 255}`,
        headers: { authorization: `Bearer ${tokens.get(tokenName)}` },
        ...(body && { payload: JSON.stringify(body) })
      })
      const [expected, message] =
        letter === '+' ? [status, undefined] : (REFUSALS[letter as keyof typeof REFUSALS] ?? [0, ''])
      const { statusCode } = response
      if (statusCode !== expected) wrong.push(`${what}: ${statusCode} ${response.body}, not ${expected}`)
      else if (message !== undefined && response.json().message !== message)
        wrong.push(`${what}: ${response.json().message}, not ${message}`)
      if (letter === '+' && method !== 'GET') done += 1
      if (method === 'DELETE' && statusCode === 204) await store(world, collection, 'GONE')
    }
  }
  const after = await versions(world)
  const changed = [...after.keys()].filter((key) => after.get(key) !== before.get(key))
  // A secret that was removed and made anew has the versions that it had.
  const puts = operations.some(({ method }) => method === 'PUT') ? done / 2 : 0
  if (after.size !== before.size) wrong.push(`${tokenName}: secrets were lost`)
  if (changed.length !== puts) wrong.push(`${tokenName}: ${changed.length} were changed, not ${puts}`)
  return wrong
}

t.setTimeout(120_000)

t.test('what installations may do', async (t) => {
  const world = await makeWorld(t)
  t.match(
    REPOSITORY_SECRETS,
    `${Object.keys(COLUMNS).join('')} `,
    'the heads of the columns are the repositories'
  )
  const on = (kind: Kind, row: string) =>
    REPOSITORIES.map((repository, index): [string, string] => [collectionOf(kind, repository), row[index]!])
  const onOrganizations = (kind: Kind, row: string) =>
    ['acme', 'globex'].map((login, index): [string, string] => [collectionOf(kind, login), row[index]!])

  await t.test('with secrets of repositories and their environments', async (t) => {
    for (const [name, [codespaces, read, write]] of readTable(REPOSITORY_SECRETS)) {
      const wrong = await walk(world, name, [...READS, ...WRITES], on('codespaces', codespaces))
      for (const kind of KIND_NAMES.filter((kind) => kind !== 'codespaces')) {
        wrong.push(...(await walk(world, name, READS, on(kind, read))))
        wrong.push(...(await walk(world, name, WRITES, on(kind, write))))
      }
      t.same(wrong, [], name)
    }
  })

  await t.test('with secrets of organizations, and of users', async (t) => {
    for (const [name, [read, write, user]] of readTable(OTHER_SECRETS)) {
      const wrong: string[] = []
      for (const kind of KIND_NAMES.filter((kind) => KINDS[kind].org)) {
        wrong.push(...(await walk(world, name, READS, onOrganizations(kind, read))))
        wrong.push(...(await walk(world, name, WRITES, onOrganizations(kind, write))))
      }
      wrong.push(...(await walk(world, name, [...READS, ...WRITES], [['/user/codespaces/secrets', user]])))
      t.same(wrong, [], name)
    }
  })
})

/** Rules that are about the account of the token and no more, so that any token of a user will do. */
const OWN_ACCOUNT: readonly string[] = ['user', 'organizations:list']

t.test('what asks for more than to read names a permission, or installations would need none', async (t) => {
  for (const [name, rule] of Object.entries<AccessRule>(ACCESS)) {
    const asks = (rule.role && rule.role !== 'read') || rule.organizationRole || rule.by === 'user'
    // Whole sets of scopes are never what a token that has permissions can do.
    if (!asks || OWN_ACCOUNT.includes(name) || rule.everyScope) continue
    t.ok(rule.permission, name)
  }
})
